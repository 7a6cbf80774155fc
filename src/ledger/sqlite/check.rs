//! Whether the database answers, and whether it is sound.

use super::Reader;
use super::witness::identity_if_any;
use crate::ledger::{ArchivedFile, FileRow, Result};

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

    /// Looks at every page of the database, which may be of an earlier version, or have no tables yet.
    pub fn soundness(&self) -> Result<Soundness> {
        self.read(|connection| {
            let problem: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
            let is_empty = !connection.prepare("SELECT 1 FROM sqlite_schema")?.exists([])?;
            let count = |sql| match is_empty {
                true => Ok(0),
                false => connection.query_row(sql, [], |row| row.get::<_, i64>(0)),
            };
            Ok(Soundness {
                problem: (problem != "ok").then_some(problem),
                studies: count("SELECT count(*) FROM studies")? as u64,
                instances: count("SELECT count(*) FROM instances")? as u64,
            })
        })
    }

    /// Every file that a row names, one after the other, as of one moment. Blocks.
    pub fn each_file(&self, mut hear: impl FnMut(FileRow<'_>)) -> Result<()> {
        self.read(|connection| {
            let mut statement = connection.prepare(
                "SELECT id, path, removed_at IS NOT NULL, lost_at IS NOT NULL FROM instances WHERE path <> ''
                 UNION ALL SELECT NULL, path, removed_at IS NOT NULL, 0 FROM quarantine WHERE path <> ''",
            )?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let path: String = row.get(1)?;
                hear(FileRow { instance: row.get(0)?, path: &path, is_removed: row.get(2)?, is_lost: row.get(3)? });
            }
            Ok(())
        })
    }

    /// How many instances have lost their file. Blocks.
    pub fn count_lost(&self) -> Result<u64> {
        self.read(|connection| {
            let sql = "SELECT count(*) FROM instances INDEXED BY instances_lost WHERE lost_at IS NOT NULL";
            Ok(connection.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0))? as u64)
        })
    }

    /// Identity and generation; none in a database of before there were any, or an empty one. Blocks.
    pub fn identity_if_any(&self) -> Result<Option<(String, u64)>> {
        self.read(|connection| Ok(identity_if_any(connection)?))
    }

    /// Whether it has any object. Blocks.
    pub fn has_instances(&self) -> Result<bool> {
        self.read(|connection| {
            Ok(connection.query_row("SELECT EXISTS (SELECT 1 FROM instances)", [], |row| row.get(0))?)
        })
    }

    /// Every file that the archive and the quarantine should have, with the SHA-256 of its data set.
    pub fn all_files(&self) -> Result<Vec<(ArchivedFile, String)>> {
        self.read(|connection| {
            let mut statement = connection.prepare(
                "SELECT path, size, digest FROM instances WHERE removed_at IS NULL
                 UNION ALL SELECT path, size, digest FROM quarantine
                     WHERE size IS NOT NULL AND path <> '' AND removed_at IS NULL",
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
