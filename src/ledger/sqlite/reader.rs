//! Read-only connections to the database: for the node's reads, and for commands that only look.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Params, Row, Statement};

use super::BUSY;
use crate::ledger::{Field, FieldError, LedgerError, Record, Result};

/// Connections that are kept for the next read.
const MOST_IDLE: usize = 8;

/// The database, to be read only. It is never created or migrated: another process may be at work on it. Its reads block; call
/// them from a blocking thread where they may be long.
pub struct Reader {
    path: PathBuf,
    /// One is taken for a read and put back.
    idle: Mutex<Vec<Connection>>,
}

impl Reader {
    /// Opens a database that is there.
    ///
    /// # Errors
    /// [`LedgerError::Older`] and [`LedgerError::Newer`]: it has the schema of another version, in which what is asked for may not be.
    pub fn open(path: &Path) -> Result<Reader> {
        let reader = Reader::open_former(path)?;
        let (found, known) = (reader.read(|connection| super::schema_of(connection, path))?, super::steps().len());
        match found < known {
            true => Err(LedgerError::Older { path: path.into(), found, known }),
            false => Ok(reader),
        }
    }

    /// Opens a database of this or an earlier version, for what every version has: a look at its pages, a copy, its identity.
    ///
    /// # Errors
    /// [`LedgerError::Newer`].
    pub fn open_former(path: &Path) -> Result<Reader> {
        let reader = Reader::new(path);
        reader.read(|connection| super::refuse_newer(connection, path))?;
        Ok(reader)
    }

    /// Opens nothing before the first read.
    pub(super) fn new(path: &Path) -> Reader {
        Reader { path: path.into(), idle: Mutex::default() }
    }

    /// Runs a read on a connection of its own.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let idle = self.idle.lock().expect("no reader panics while it holds the list").pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.connect()?,
        };
        let result = read(&connection);
        let mut idle = self.idle.lock().expect("no reader panics while it holds the list");
        if idle.len() < MOST_IDLE {
            idle.push(connection);
        }
        result
    }

    pub(super) fn connect(&self) -> Result<Connection> {
        let open = || -> rusqlite::Result<Connection> {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(&self.path, flags)?;
            connection.busy_timeout(BUSY)?;
            Ok(connection)
        };
        open().map_err(|source| LedgerError::Open { path: self.path.clone(), source: source.into() })
    }
}

impl From<FieldError> for LedgerError {
    fn from(error: FieldError) -> LedgerError {
        LedgerError::unreadable(error)
    }
}

/// The rows of a query as records.
pub(super) fn records<R: Record>(statement: &mut Statement<'_>, params: impl Params) -> Result<Vec<R>> {
    let mut rows = statement.query(params)?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        records.push(record(row)?);
    }
    Ok(records)
}

fn record<R: Record>(row: &Row<'_>) -> Result<R> {
    R::from_columns(|name| {
        Ok(match row.get_ref(name)? {
            ValueRef::Null => Field::Null,
            ValueRef::Integer(value) => Field::Integer(value),
            ValueRef::Real(value) => Field::Real(value),
            ValueRef::Text(value) => Field::Text(String::from_utf8_lossy(value).into_owned()),
            ValueRef::Blob(_) => return Err(LedgerError::unreadable(format!("{name} is a blob"))),
        })
    })
}
