//! Whether anything was committed, by this process or another.

use rusqlite::Connection;

use super::Reader;
use crate::ledger::Result;

/// Watches the database through a connection of its own.
pub struct Changes {
    connection: Connection,
    version: i64,
}

impl Reader {
    /// Watches from now on. Blocks.
    pub fn watch(&self) -> Result<Changes> {
        let connection = self.connect()?;
        let version = version(&connection)?;
        Ok(Changes { connection, version })
    }
}

impl Changes {
    /// Whether something was committed since this was asked before. Takes microseconds, and no lock.
    pub fn came(&mut self) -> Result<bool> {
        let version = version(&self.connection)?;
        Ok(std::mem::replace(&mut self.version, version) != version)
    }
}

/// It changes with each commit of any other connection (<https://sqlite.org/pragma.html#pragma_data_version>).
fn version(connection: &Connection) -> Result<i64> {
    Ok(connection.pragma_query_value(None, "data_version", |row| row.get(0))?)
}
