//! The audit log. Triggers keep it append-only, and each row carries a hash over itself and the row before.

use rusqlite::{Connection, OptionalExtension, Row, params};
use sha2::{Digest, Sha256};

use super::reader::records;
use super::{Ledger, Reader};
use crate::ledger::{ActorKind, AuditFilter, AuditRow, Chain, Deed, Result, now};

/// The text that the first row's hash begins with.
const BEGINNING: &str = "triaged audit log";

/// Writes a deed into the audit log. Call it in the transaction of the deed.
pub(super) fn append(connection: &Connection, deed: &Deed) -> Result<()> {
    let kind = match deed.actor.kind {
        ActorKind::Person => "person",
        ActorKind::Token => "token",
        ActorKind::Peer => "peer",
        ActorKind::System => "system",
    };
    let mut details = deed.details.clone();
    if let (Some(other), Some(details)) = (&deed.actor.by_way_of, details.as_object_mut()) {
        details.insert("by_way_of".into(), other.as_str().into());
    }
    let (last, before) = end(connection)?;
    // The sequence counts rows that were taken away, too.
    let sequence: Option<i64> = connection
        .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'audit'")?
        .query_row([], |row| row.get(0))
        .optional()?;
    let entry = Entry {
        id: last.max(sequence.unwrap_or(0)) + 1,
        at: now(),
        actor_kind: kind.into(),
        actor: deed.actor.name.clone(),
        deed: deed.name.into(),
        study_uid: deed.study_uid.clone(),
        details: details.to_string(),
    };
    let hash = entry.hash(&before);
    connection
        .prepare_cached(
            "INSERT INTO audit (id, at, actor_kind, actor, deed, study_uid, details, hash)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            entry.id,
            entry.at,
            entry.actor_kind,
            entry.actor,
            entry.deed,
            entry.study_uid,
            entry.details,
            hash
        ])?;
    Ok(())
}

/// A row, as it is hashed.
struct Entry {
    id: i64,
    at: String,
    actor_kind: String,
    actor: String,
    deed: String,
    study_uid: Option<String>,
    details: String,
}

impl Entry {
    const COLUMNS: &'static str = "id, at, actor_kind, actor, deed, study_uid, details, hash";

    fn read(row: &Row<'_>) -> rusqlite::Result<(Entry, Option<String>)> {
        let entry = Entry {
            id: row.get(0)?,
            at: row.get(1)?,
            actor_kind: row.get(2)?,
            actor: row.get(3)?,
            deed: row.get(4)?,
            study_uid: row.get(5)?,
            details: row.get(6)?,
        };
        Ok((entry, row.get(7)?))
    }

    /// SHA-256 over the hash before and every column, each with its length, hexadecimal.
    fn hash(&self, before: &str) -> String {
        let mut digest = Sha256::new();
        let id = self.id.to_string();
        let study = self.study_uid.as_deref().unwrap_or_default();
        for column in [before, &id, &self.at, &self.actor_kind, &self.actor, &self.deed, study, &self.details] {
            digest.update((column.len() as u64).to_be_bytes());
            digest.update(column);
        }
        hex::encode(digest.finalize())
    }
}

/// The id and the hash at the end of the chain. Rows of versions without hashes are hashed here, once: the next row has one.
fn end(connection: &Connection) -> Result<(i64, String)> {
    let last: Option<(i64, Option<String>)> = connection
        .prepare_cached("SELECT id, hash FROM audit ORDER BY id DESC LIMIT 1")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    match last {
        None => Ok((0, BEGINNING.into())),
        Some((id, Some(hash))) => Ok((id, hash)),
        Some((id, None)) => Ok((id, walk(connection)?.hash)),
    }
}

/// Computes every hash anew, from the first row on.
fn walk(connection: &Connection) -> Result<Chain> {
    let mut statement = connection.prepare(&format!("SELECT {} FROM audit ORDER BY id", Entry::COLUMNS))?;
    let mut rows = statement.query([])?;
    let mut chain = Chain { rows: 0, last_id: 0, hash: BEGINNING.into(), broken_at: None };
    let mut hashed = false;
    while let Some(row) = rows.next()? {
        let (entry, stored) = Entry::read(row)?;
        let hash = entry.hash(&chain.hash);
        hashed |= stored.is_some();
        // Once a row has a hash, all that follow have one; ids follow each other without a gap.
        let is_next = entry.id == chain.last_id + 1 || chain.rows == 0 && !hashed;
        let is_right = stored.as_ref().map_or(!hashed, |stored| *stored == hash) && (is_next || !hashed);
        if !is_right {
            chain.broken_at.get_or_insert(entry.id);
        }
        chain = Chain { rows: chain.rows + 1, last_id: entry.id, hash: stored.unwrap_or(hash), ..chain };
    }
    Ok(chain)
}

impl Ledger {
    /// Writes a deed that changes nothing else in the ledger, such as a login or a file that was handed out.
    pub async fn record_deed(&self, deed: Deed) -> Result<()> {
        self.write(move |connection| append(connection, &deed)).await
    }

    /// [`Ledger::record_deed`] for those who do not wait. What cannot be written is logged.
    pub fn post_deed(&self, deed: Deed) {
        let name = deed.name;
        let posted = self.shared.writer.post(
            move |connection| append(connection, &deed),
            move |written| {
                if let Err(error) = written {
                    tracing::error!(%error, deed = name, "a deed could not be written into the audit log");
                }
            },
        );
        if let Err(error) = posted {
            tracing::error!(%error, deed = name, "a deed could not be written into the audit log");
        }
    }

    /// Notes that rows were sent to the collector of audit messages, up to this one.
    pub async fn note_exported(&self, last_id: i64) -> Result<()> {
        self.write(move |connection| {
            let sql =
                "INSERT INTO audit_export (id, last_id) VALUES (1, ?1) ON CONFLICT (id) DO UPDATE SET last_id = ?1";
            connection.prepare_cached(sql)?.execute([last_id])?;
            Ok(())
        })
        .await
    }
}

impl Reader {
    /// The audit log, oldest first.
    pub fn audit(&self, filter: &AuditFilter) -> Result<Vec<AuditRow>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT * FROM (SELECT * FROM audit WHERE (?1 IS NULL OR study_uid = ?1) AND (?2 IS NULL OR at >= ?2)
                                ORDER BY id DESC LIMIT ?3) ORDER BY id",
            )?;
            let limit = filter.limit.map_or(-1, i64::from);
            records(&mut statement, params![filter.study_uid, filter.since, limit])
        })
    }

    /// Checks the hash chain of the whole audit log. Blocks.
    pub fn verify_audit(&self) -> Result<Chain> {
        self.read(|connection| {
            let chain = walk(connection)?;
            let sequence: Option<i64> = connection
                .query_row("SELECT seq FROM sqlite_sequence WHERE name = 'audit'", [], |row| row.get(0))
                .optional()?;
            // Rows that were taken away at the end leave no gap, but the sequence knows of them.
            let cut = sequence.is_some_and(|sequence| sequence > chain.last_id).then_some(chain.last_id + 1);
            Ok(Chain { broken_at: chain.broken_at.or(cut), ..chain })
        })
    }

    /// The rows that were not sent to the collector of audit messages yet, at most `most`, oldest first. Blocks.
    pub fn unexported_audit(&self, most: u32) -> Result<Vec<AuditRow>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT * FROM audit WHERE id > coalesce((SELECT last_id FROM audit_export WHERE id = 1), 0) ORDER BY id LIMIT ?1",
            )?;
            records(&mut statement, [most])
        })
    }

    /// The last deed of this name. Blocks.
    pub fn last_deed(&self, name: &str) -> Result<Option<AuditRow>> {
        self.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT * FROM audit WHERE deed = ?1 ORDER BY id DESC LIMIT 1")?;
            Ok(records(&mut statement, [name])?.pop())
        })
    }
}
