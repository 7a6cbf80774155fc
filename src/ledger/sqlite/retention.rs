//! Which files of the archive may go, and that they went. Rows stay: a result outlives its file.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Ledger;
use crate::ledger::{FileOwner, MarkedFile, RemovalRule, Result, now};

/// Whether a study `s` may lose its files: see [`RemovalRule`]. Nothing came for it since ?1; ?2: only to make space.
const MAY_LOSE_FILES: &str = "s.state = 'decided' AND s.last_received_at < ?1
    AND (NOT ?2 OR s.flagged IS NOT 1 OR s.acknowledged_at IS NOT NULL)
    AND NOT EXISTS (SELECT 1 FROM slices WHERE study_uid = s.study_uid AND state = 'queued')
    AND NOT EXISTS (SELECT 1 FROM outbox WHERE study_uid = s.study_uid AND state = 'pending')
    AND NOT EXISTS (SELECT 1 FROM forwards WHERE study_uid = s.study_uid AND state = 'pending')
    -- Of what came, or was flagged, since a destination's mark there is no row of it yet.
    AND NOT EXISTS (SELECT 1 FROM forward_destinations d
                    WHERE EXISTS (SELECT 1 FROM instances WHERE study_uid = s.study_uid AND id > d.last_instance)
                       OR EXISTS (SELECT 1 FROM verdicts WHERE study_uid = s.study_uid AND id > d.last_verdict))";

impl Ledger {
    /// Bytes of the files that the archive keeps, with those that are set aside. Blocks.
    pub fn archived_bytes(&self) -> Result<u64> {
        self.read(|connection| {
            let sql = "SELECT (SELECT total(size) FROM instances INDEXED BY instances_kept WHERE removed_at IS NULL)
                            + (SELECT total(size) FROM quarantine INDEXED BY quarantine_kept WHERE removed_at IS NULL)";
            Ok(connection.prepare_cached(sql)?.query_row([], |row| row.get::<_, f64>(0))? as u64)
        })
    }

    /// The study with the oldest file among those that may lose theirs. Blocks.
    pub fn oldest_removable(&self, rule: RemovalRule, before: &str) -> Result<Option<String>> {
        self.read(|connection| {
            let sql = format!(
                "SELECT s.study_uid FROM instances i INDEXED BY instances_kept JOIN studies s ON s.study_uid = i.study_uid
                 WHERE i.removed_at IS NULL AND i.received_at < ?1 AND {MAY_LOSE_FILES} ORDER BY i.received_at LIMIT 1"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            Ok(statement.query_row(params![before, rule == RemovalRule::Space], |row| row.get(0)).optional()?)
        })
    }

    /// Marks files of a study as removed, at most `most`; none where the study may no longer lose them. Committed before a file is
    /// touched: a crash leaves files that are marked, never rows that miss theirs.
    pub async fn mark_removed(
        &self,
        study_uid: String,
        rule: RemovalRule,
        before: String,
        most: usize,
    ) -> Result<Vec<MarkedFile>> {
        self.write(move |connection| {
            let sql = format!(
                "UPDATE instances SET removed_at = ?5 WHERE id IN (
                     SELECT i.id FROM studies s JOIN instances i ON i.study_uid = s.study_uid
                     WHERE s.study_uid = ?3 AND i.removed_at IS NULL AND {MAY_LOSE_FILES} LIMIT ?4)
                 RETURNING id, path, size"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let for_space = rule == RemovalRule::Space;
            let rows = statement.query_map(params![before, for_space, study_uid, most as i64, now()], |row| {
                marked_file(row, FileOwner::Instance)
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// Marks files that were set aside as removed, the oldest first, at most `most` and no more than have `enough` bytes together. One of a
    /// study stays while the study's own files stay for a reason: it may yet be the copy that can be read.
    pub async fn mark_set_aside_removed(
        &self,
        rule: RemovalRule,
        before: String,
        enough: u64,
        most: usize,
    ) -> Result<Vec<MarkedFile>> {
        self.write(move |connection| {
            let sql = format!(
                "WITH due AS (
                     SELECT q.id, total(q.size) OVER (ORDER BY q.received_at, q.id) - coalesce(q.size, 0) AS older
                     FROM quarantine q INDEXED BY quarantine_kept LEFT JOIN studies s ON s.study_uid = q.study_uid
                     WHERE q.removed_at IS NULL AND q.received_at < ?1 AND (s.study_uid IS NULL OR {MAY_LOSE_FILES})
                     ORDER BY q.received_at, q.id LIMIT ?4)
                 UPDATE quarantine SET removed_at = ?5 WHERE id IN (SELECT id FROM due WHERE older < ?3)
                 RETURNING id, path, coalesce(size, 0)"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let for_space = rule == RemovalRule::Space;
            let enough = i64::try_from(enough).unwrap_or(i64::MAX);
            let rows = statement.query_map(params![before, for_space, enough, most as i64, now()], |row| {
                marked_file(row, FileOwner::SetAside)
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// Notes that the files of instances are gone, or are back. Returns of how many that is news.
    pub async fn mark_lost(&self, instances: Vec<(i64, String)>, is_lost: bool) -> Result<usize> {
        let marked = self.write(move |connection| {
            let mut mark = connection.prepare_cached(
                "UPDATE instances SET lost_at = ?3 WHERE id = ?1 AND path = ?2 AND removed_at IS NULL
                 AND (lost_at IS NULL) = (?3 IS NOT NULL)",
            )?;
            let at = is_lost.then(now);
            instances.iter().try_fold(0, |count, (id, path)| Ok(count + mark.execute(params![id, path, at])?))
        });
        marked.await
    }

    /// Files that were marked and may still be there, after a crash or a file that could not be removed; at most `most` of instances and as
    /// many that were set aside, in the order of their rows, of those past `after`. Blocks.
    pub fn marked_files(&self, after: [i64; 2], most: usize) -> Result<Vec<MarkedFile>> {
        self.read(|connection| {
            let mut marked = Vec::new();
            for (sql, after, owner) in [
                (
                    "SELECT id, path, size FROM instances INDEXED BY instances_going
                     WHERE removed_at IS NOT NULL AND path <> '' AND id > ?1 ORDER BY id LIMIT ?2",
                    after[0],
                    FileOwner::Instance as fn(i64) -> FileOwner,
                ),
                (
                    "SELECT id, path, coalesce(size, 0) FROM quarantine INDEXED BY quarantine_going
                     WHERE removed_at IS NOT NULL AND path <> '' AND id > ?1 ORDER BY id LIMIT ?2",
                    after[1],
                    FileOwner::SetAside,
                ),
            ] {
                let mut statement = connection.prepare_cached(sql)?;
                let rows = statement.query_map([after, most as i64], |row| marked_file(row, owner))?;
                for row in rows {
                    marked.push(row?);
                }
            }
            Ok(marked)
        })
    }

    /// Notes that marked files are no longer there.
    pub async fn confirm_removed(&self, rows: Vec<FileOwner>) -> Result<()> {
        self.write(move |connection| {
            for row in rows {
                let (sql, id) = match row {
                    FileOwner::Instance(id) => {
                        ("UPDATE instances SET path = '' WHERE id = ?1 AND removed_at IS NOT NULL", id)
                    }
                    FileOwner::SetAside(id) => {
                        ("UPDATE quarantine SET path = '' WHERE id = ?1 AND removed_at IS NOT NULL", id)
                    }
                };
                connection.prepare_cached(sql)?.execute([id])?;
            }
            Ok(())
        })
        .await
    }
}

/// An object came again, and its file is in the archive again: the instance has it back, with all its results. Its time of
/// receipt is the new one, so that it stays as long as any.
pub(super) fn restore_file(
    connection: &Connection,
    instance: i64,
    path: &str,
    size: u64,
    received_at: &str,
) -> Result<()> {
    let restored = connection
        .prepare_cached(
            "UPDATE instances SET removed_at = NULL, lost_at = NULL, path = ?2, size = ?3, received_at = ?4
             WHERE id = ?1 AND (removed_at IS NOT NULL OR lost_at IS NOT NULL)",
        )?
        .execute(params![instance, path, size as i64, received_at])?;
    if restored > 0 {
        connection
            .prepare_cached(
                "UPDATE studies SET last_received_at = max(last_received_at, ?2)
                 WHERE study_uid = (SELECT study_uid FROM instances WHERE id = ?1)",
            )?
            .execute(params![instance, received_at])?;
    }
    Ok(())
}

fn marked_file(row: &Row<'_>, owner: impl Fn(i64) -> FileOwner) -> rusqlite::Result<MarkedFile> {
    Ok(MarkedFile { row: owner(row.get(0)?), path: row.get(1)?, size: row.get::<_, i64>(2)?.max(0) as u64 })
}
