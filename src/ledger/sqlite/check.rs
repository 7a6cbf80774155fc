//! Whether the database answers, and whether it is sound.

use super::Reader;
use crate::ledger::{ArchivedFile, Result};

/// The result of a check of the whole database.
#[derive(Debug, Clone)]
pub struct Soundness {
    /// The first thing that is wrong with it.
    pub problem: Option<String>,
    pub studies: u64,
    pub instances: u64,
}

impl Reader {
    /// Whether the database answers.
    pub fn try_read(&self) -> Result<()> {
        self.read(|connection| Ok(connection.query_row("SELECT 1", [], |_| Ok(()))?))
    }

    /// Looks at every page of the database.
    pub fn soundness(&self) -> Result<Soundness> {
        self.read(|connection| {
            let problem: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
            let count = |sql| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
            Ok(Soundness {
                problem: (problem != "ok").then_some(problem),
                studies: count("SELECT count(*) FROM studies")? as u64,
                instances: count("SELECT count(*) FROM instances")? as u64,
            })
        })
    }

    /// Every file that the archive and the quarantine should have, with the SHA-256 of its data set.
    pub fn all_files(&self) -> Result<Vec<(ArchivedFile, String)>> {
        self.read(|connection| {
            let mut statement = connection.prepare(
                "SELECT path, size, digest FROM instances WHERE removed_at IS NULL
                 UNION ALL SELECT path, size, digest FROM quarantine WHERE size IS NOT NULL AND path <> ''",
            )?;
            let files = statement.query_map([], |row| {
                let size = row.get::<_, i64>(1)?.max(0) as u64;
                Ok((ArchivedFile { path: row.get(0)?, size }, row.get(2)?))
            })?;
            Ok(files.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Files that the archive should have: the newest, and as many spread over all, `sample` of each.
    pub fn archived_files(&self, sample: u32) -> Result<Vec<ArchivedFile>> {
        self.read(|connection| {
            let mut statement = connection.prepare(
                "SELECT path, size FROM (SELECT path, size FROM instances WHERE removed_at IS NULL ORDER BY id DESC LIMIT ?1)
                 UNION SELECT path, size FROM instances
                     WHERE id % max(1, (SELECT max(id) FROM instances) / ?1) = 0 AND removed_at IS NULL",
            )?;
            let files = statement.query_map([sample], |row| {
                Ok(ArchivedFile { path: row.get(0)?, size: row.get::<_, i64>(1)?.max(0) as u64 })
            })?;
            Ok(files.collect::<rusqlite::Result<_>>()?)
        })
    }
}
