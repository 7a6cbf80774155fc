//! The identity that a ledger shares with its archive, and its generation, which every transaction counts up: a row that is also written
//! and read again every few seconds, which shows whether the ledger keeps what it is given.

use rusqlite::{Connection, params};

use super::Ledger;
use super::witness::read_identity;
use crate::ledger::{LedgerError, Result, now};
use crate::lineage::Lineage;

impl Ledger {
    /// Writes a row, as every write is written, and reads it again.
    ///
    /// # Errors
    /// Fails as a write or a read does, and with [`LedgerError::Replaced`] where the database is no longer the one that was opened, so that
    /// nobody would ever see what is written.
    pub async fn beat(&self) -> Result<()> {
        let beat = self
            .write(|connection| {
                Ok(connection
                    .prepare_cached("UPDATE identity SET at = ?1 RETURNING generation")?
                    .query_row([now()], |row| row.get::<_, i64>(0))?)
            })
            .await?;
        let ledger = self.clone();
        let read = move || ledger.stored_identity();
        let (_, found) = tokio::task::spawn_blocking(read).await.map_err(|_| LedgerError::Closed)??;
        match i64::try_from(found).is_ok_and(|found| found >= beat) {
            true => Ok(()),
            false => Err(LedgerError::unreadable(format!("generation {beat} was written, {found} is there"))),
        }
    }

    /// Identity and generation as the database has them; generation 0: no archive was told of it yet. Blocks.
    pub fn stored_identity(&self) -> Result<(String, u64)> {
        let found = self.read(|connection| Ok(read_identity(connection)?))?;
        found.ok_or_else(|| LedgerError::unreadable("the table identity is empty"))
    }

    /// Gives the ledger the identity of its archive, and a generation that the archive was not told of yet. From now on every write looks
    /// whether the database is still this one. Blocks.
    pub fn take_identity(&self, identity: &str, generation: u64) -> Result<()> {
        let own = identity.to_owned();
        self.write_blocking(move |connection| {
            connection.execute(
                "INSERT INTO identity (id, uuid, generation, at) VALUES (1, ?1, ?2, ?3)
                 ON CONFLICT (id) DO UPDATE SET uuid = excluded.uuid, generation = excluded.generation, at = excluded.at",
                params![own, generation as i64, now()],
            )?;
            Ok(())
        })?;
        // So that the file has it even without its log. Where another process holds that up, the next checkpoint does it.
        let checkpoint = |path| -> rusqlite::Result<()> {
            let connection = Connection::open(path)?;
            connection.busy_timeout(super::BUSY)?;
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        };
        if let Err(error) = checkpoint(&self.shared.path) {
            tracing::debug!("the log was not copied into the database: {error}");
        }
        self.witness().know(identity.to_owned(), generation);
        Ok(())
    }

    /// What the archive is to be told; none before [`Ledger::take_identity`].
    pub fn lineage(&self) -> Option<Lineage> {
        self.witness().lineage()
    }

    fn witness(&self) -> std::sync::MutexGuard<'_, super::witness::Witness> {
        self.shared.witness.lock().expect("nobody panics while holding it")
    }
}
