//! Images on their way to other nodes: a row for each destination and instance.
//!
//! A destination has a mark up to which instances and verdicts were looked at. Receiving writes nothing for it, so it costs the
//! scanner nothing; what lies past the mark after a crash is looked at then.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::outbox::from_now;
use super::reader::records;
use super::{Ledger, Reader};
use crate::ledger::{
    DueForward, ForwardEnd, ForwardRow, ForwardRule, ForwardedCopy, LedgerError, Result, Studies, now,
};

/// Instances, and verdicts, that are looked at in one write.
const MOST_AT_ONCE: i64 = 2000;

impl Ledger {
    /// Makes rows of the instances that came for a destination since its mark, and of those whose study was flagged since. A new
    /// destination begins with what comes after it. Returns whether there may be more.
    pub async fn enqueue_forwards(&self, rule: ForwardRule) -> Result<bool> {
        let (ledger, name) = (self.clone(), rule.destination.clone());
        // Most looks find nothing, and a write is a commit with its sync.
        let some = tokio::task::spawn_blocking(move || ledger.read(|connection| has_more(connection, &name)));
        if !some.await.map_err(|_| LedgerError::Closed)?? {
            return Ok(false);
        }
        self.write(move |connection| enqueue(connection, &rule)).await
    }

    /// The instances that are due for a destination: urgent ones first, then as they came. Blocks.
    ///
    /// `longest` is the longest wait between attempts: what is due later than that was written before the clock was set back, and is due now.
    pub fn due_forwards(&self, destination: &str, most: usize, longest: Duration) -> Result<Vec<DueForward>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT f.id, i.sop_class_uid, i.sop_uid, i.transfer_syntax, iif(i.removed_at IS NULL, i.path, NULL), f.attempts, i.digest
                 FROM forwards f INDEXED BY forwards_due JOIN instances i ON i.id = f.instance_id
                 WHERE f.state = 'pending' AND f.destination = ?1 AND (f.next_attempt_at <= ?2 OR f.next_attempt_at > ?4)
                 ORDER BY f.urgent DESC, f.id LIMIT ?3",
            )?;
            let rows = statement.query_map(params![destination, now(), most as i64, from_now(longest)], |row| {
                Ok(DueForward {
                    copy: ForwardedCopy { id: row.get(0)?, digest: row.get(6)? },
                    sop_class_uid: row.get(1)?,
                    sop_uid: row.get(2)?,
                    transfer_syntax: row.get(3)?,
                    path: row.get(4)?,
                    attempts: row.get(5)?,
                })
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Writes how attempts ended, in one transaction. An attempt that the association did not outlive counts, too. One with a copy that another
    /// has replaced meanwhile does not: that one is still to go.
    pub async fn settle_forwards(&self, ends: Vec<(ForwardedCopy, ForwardEnd)>) -> Result<()> {
        self.write(move |connection| {
            for (copy, end) in &ends {
                if is_present(connection, copy)? {
                    settle(connection, copy.id, end)?;
                }
            }
            Ok(())
        })
        .await
    }

    /// Ends what waits for destinations that are no longer configured: it would keep its files in the archive for ever.
    pub async fn drop_destinations_but(&self, configured: Vec<String>) -> Result<u64> {
        self.write(move |connection| {
            let mut known = connection.prepare_cached("SELECT name FROM forward_destinations")?;
            let names = known.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
            let mut dropped = 0;
            for name in names.iter().filter(|name| !configured.contains(name)) {
                dropped += connection.execute(
                    "UPDATE forwards SET state = 'failed', last_error = 'the destination is no longer configured'
                     WHERE destination = ?1 AND state = 'pending'",
                    [name],
                )?;
                connection.execute("DELETE FROM forward_destinations WHERE name = ?1", [name])?;
            }
            Ok(dropped as u64)
        })
        .await
    }

    /// Sends what failed again, to all destinations. Returns how many. Blocks.
    pub fn requeue_forwards(&self) -> Result<u64> {
        let requeued = self.write_blocking(|connection| {
            let rows = connection.execute(
                "UPDATE forwards SET state = 'pending', attempts = 0, next_attempt_at = ?1 WHERE state = 'failed'
                    AND destination IN (SELECT name FROM forward_destinations)",
                [now()],
            )?;
            Ok(rows as u64)
        })?;
        self.changed().notify_waiters();
        Ok(requeued)
    }
}

impl Reader {
    /// How many instances are pending for a destination, and how many failed. Blocks.
    pub fn forward_counts(&self, destination: &str) -> Result<(u64, u64)> {
        self.read(|connection| {
            let count = |sql| -> Result<u64> {
                Ok(connection.prepare_cached(sql)?.query_row([destination], |row| row.get::<_, i64>(0))? as u64)
            };
            Ok((
                count("SELECT count(*) FROM forwards WHERE state = 'pending' AND destination = ?1")?,
                count("SELECT count(*) FROM forwards WHERE state = 'failed' AND destination = ?1")?,
            ))
        })
    }

    /// The destinations for which instances are pending or failed, each with how many these are. Blocks.
    pub fn forward_waiting(&self) -> Result<Vec<(String, u64)>> {
        self.read(|connection| {
            let sql = "SELECT destination, count(*) FROM forwards WHERE state <> 'stored' GROUP BY destination ORDER BY destination";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// The instances of a study on their way to other nodes. Blocks.
    pub fn forwards(&self, study_uid: &str, most: u32) -> Result<Vec<ForwardRow>> {
        self.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT * FROM forward_log WHERE study_uid = ?1 ORDER BY id LIMIT ?2")?;
            records(&mut statement, params![study_uid, most])
        })
    }
}

fn marks(connection: &Connection, name: &str) -> Result<Option<(i64, i64)>> {
    let mut statement =
        connection.prepare_cached("SELECT last_instance, last_verdict FROM forward_destinations WHERE name = ?1")?;
    Ok(statement.query_row([name], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
}

fn has_more(connection: &Connection, name: &str) -> Result<bool> {
    let Some((instance, verdict)) = marks(connection, name)? else { return Ok(true) };
    let sql = "SELECT EXISTS (SELECT 1 FROM instances WHERE id > ?1) OR EXISTS (SELECT 1 FROM verdicts WHERE id > ?2)";
    Ok(connection.prepare_cached(sql)?.query_row([instance, verdict], |row| row.get(0))?)
}

fn enqueue(connection: &Connection, rule: &ForwardRule) -> Result<bool> {
    let last = |table: &str| -> Result<i64> {
        Ok(connection.query_row(&format!("SELECT coalesce(max(id), 0) FROM {table}"), [], |row| row.get(0))?)
    };
    let (instances, verdicts) = (last("instances")?, last("verdicts")?);
    let Some((instance, verdict)) = marks(connection, &rule.destination)? else {
        connection.execute(
            "INSERT INTO forward_destinations (name, last_instance, last_verdict) VALUES (?1, ?2, ?3)",
            params![rule.destination, instances, verdicts],
        )?;
        return Ok(false);
    };
    let (to_instance, to_verdict) = (instances.min(instance + MOST_AT_ONCE), verdicts.min(verdict + MOST_AT_ONCE));
    let senders = serde_json::to_string(&rule.calling_ae_titles).expect("strings are JSON");
    let columns = "INSERT INTO forwards (destination, instance_id, study_uid, urgent, next_attempt_at, created_at)
         SELECT ?1, i.id, i.study_uid,
                s.flagged IS 1 OR EXISTS (SELECT 1 FROM slices p WHERE p.instance_id = i.id AND p.priority < 0), ?2, ?2
         FROM instances i JOIN studies s ON s.study_uid = i.study_uid
         WHERE i.removed_at IS NULL AND (?3 = '[]' OR upper(trim(i.calling_ae)) IN (SELECT value FROM json_each(?3)))
           AND (NOT ?4 OR s.flagged IS 1)";
    let t = now();
    connection
        .prepare_cached(&format!("{columns} AND i.id > ?5 AND i.id <= ?6 ORDER BY i.id ON CONFLICT DO NOTHING"))?
        .execute(params![rule.destination, t, senders, rule.flagged_only, instance, to_instance])?;
    let flagged = "i.study_uid IN (SELECT study_uid FROM verdicts WHERE id > ?5 AND id <= ?6 AND flagged = 1)";
    // Objects that came before their study was flagged are queued; those that wait go before others from now on.
    connection
        .prepare_cached(&format!("{columns} AND i.id <= ?7 AND {flagged} ORDER BY i.id ON CONFLICT DO NOTHING"))?
        .execute(params![rule.destination, t, senders, rule.flagged_only, verdict, to_verdict, to_instance])?;
    connection
        .prepare_cached(
            "UPDATE forwards SET urgent = 1 WHERE destination = ?1 AND state = 'pending' AND urgent = 0
                AND study_uid IN (SELECT study_uid FROM verdicts WHERE id > ?2 AND id <= ?3 AND flagged = 1)",
        )?
        .execute(params![rule.destination, verdict, to_verdict])?;
    connection
        .prepare_cached("UPDATE forward_destinations SET last_instance = ?2, last_verdict = ?3 WHERE name = ?1")?
        .execute(params![rule.destination, to_instance, to_verdict])?;
    Ok(to_instance < instances || to_verdict < verdicts)
}

/// Whether the instance still has the content that was sent.
fn is_present(connection: &Connection, copy: &ForwardedCopy) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM forwards f JOIN instances i ON i.id = f.instance_id WHERE f.id = ?1 AND i.digest = ?2)";
    Ok(connection.prepare_cached(sql)?.query_row(params![copy.id, copy.digest], |row| row.get(0))?)
}

fn settle(connection: &Connection, id: i64, end: &ForwardEnd) -> Result<()> {
    match end {
        ForwardEnd::Stored { transfer_syntax } => connection
            .prepare_cached(
                "UPDATE forwards SET state = 'stored', attempts = attempts + 1, stored_at = ?2, transfer_syntax = ?3,
                    last_error = NULL
                 WHERE id = ?1",
            )?
            .execute(params![id, now(), transfer_syntax])?,
        ForwardEnd::Retry { at, error } => connection
            .prepare_cached(
                "UPDATE forwards SET attempts = attempts + 1, next_attempt_at = ?2, last_error = ?3 WHERE id = ?1",
            )?
            .execute(params![id, at, error])?,
        ForwardEnd::Failed { error } => connection
            .prepare_cached(
                "UPDATE forwards SET state = 'failed', attempts = attempts + 1, last_error = ?2 WHERE id = ?1",
            )?
            .execute(params![id, error])?,
        // A peer may be down for days: nothing is written where nothing changes.
        ForwardEnd::Waits { error } => connection
            .prepare_cached("UPDATE forwards SET last_error = ?2 WHERE id = ?1 AND last_error IS NOT ?2")?
            .execute(params![id, error])?,
    };
    Ok(())
}
