//! The audit log. Triggers keep it append-only.

use rusqlite::{Connection, params};

use super::reader::records;
use super::{Ledger, Reader};
use crate::ledger::{ActorKind, AuditFilter, AuditRow, Deed, Result, now};

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
    connection
        .prepare_cached(
            "INSERT INTO audit (at, actor_kind, actor, deed, study_uid, details) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![now(), kind, deed.actor.name, deed.name, deed.study_uid, details.to_string()])?;
    Ok(())
}

impl Ledger {
    /// Writes a deed that changes nothing else in the ledger, such as a login or a file that was handed out.
    pub async fn record_deed(&self, deed: Deed) -> Result<()> {
        self.write(move |connection| append(connection, &deed)).await
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

    /// Whether the database is of a version that has an audit log.
    pub fn has_audit_log(&self) -> Result<bool> {
        self.read(|connection| {
            let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'audit')";
            Ok(connection.query_row(sql, [], |row| row.get(0))?)
        })
    }
}
