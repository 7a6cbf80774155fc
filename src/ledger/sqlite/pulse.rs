//! A row that is written and read again and again: whether the ledger keeps what it is given.

use std::os::unix::fs::MetadataExt;

use super::Ledger;
use crate::ledger::{LedgerError, Result, now};

impl Ledger {
    /// Writes a row, as every write is written, and reads it again.
    ///
    /// # Errors
    /// Fails as a write or a read does, and with [`LedgerError::Replaced`] where the file at the database's path is not the one that is open, so that
    /// nobody would ever see what is written.
    pub async fn beat(&self) -> Result<()> {
        self.same_file()?;
        let beat: i64 = self
            .write(|connection| {
                Ok(connection
                    .prepare_cached(
                        "INSERT INTO pulse (id, beat, at) VALUES (1, 1, ?1)
                         ON CONFLICT (id) DO UPDATE SET beat = beat + 1, at = excluded.at RETURNING beat",
                    )?
                    .query_row([now()], |row| row.get(0))?)
            })
            .await?;
        let ledger = self.clone();
        let read = move || {
            ledger.read(|connection| {
                Ok(connection.prepare_cached("SELECT beat FROM pulse WHERE id = 1")?.query_row([], |row| row.get(0))?)
            })
        };
        let found: i64 = tokio::task::spawn_blocking(read).await.map_err(|_| LedgerError::Closed)??;
        match found >= beat {
            true => Ok(()),
            false => Err(LedgerError::unreadable(format!("beat {beat} was written, {found} is there"))),
        }
    }

    /// Whether the file at the database's path is the one that was opened.
    fn same_file(&self) -> Result<()> {
        let path = &self.shared.path;
        let replaced = || LedgerError::Replaced { path: path.clone() };
        match std::fs::metadata(path) {
            Ok(found) if (found.dev(), found.ino()) == self.shared.file => Ok(()),
            Ok(_) => Err(replaced()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(replaced()),
            // The disk ails: the write that follows says how.
            Err(_) => Ok(()),
        }
    }
}
