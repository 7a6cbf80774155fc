//! The outbox: messages that must arrive. Delivered, or dead and seen by an administrator who can requeue them.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::Ledger;
use crate::ledger::{Delivery, LedgerError, OutboxRow, Result, format_time, now};

impl Ledger {
    /// The messages of a channel that are due, oldest first. Blocks.
    ///
    /// `longest` is the longest wait between attempts: what is due later than that was written before the clock was set
    /// back, and is due now, for an alarm must not wait for the clock to catch up.
    pub fn due(&self, channel: &str, most: usize, longest: Duration) -> Result<Vec<OutboxRow>> {
        let latest = Timestamp::now().checked_add(longest).unwrap_or(Timestamp::MAX);
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT id, study_uid, revision, kind, idempotency_key, event, attempts, created_at
                 FROM outbox INDEXED BY outbox_pending
                 WHERE state = 'pending' AND channel = ?1 AND (next_attempt_at <= ?2 OR next_attempt_at > ?4)
                 ORDER BY next_attempt_at LIMIT ?3",
            )?;
            let rows = statement.query_map(params![channel, now(), most as i64, format_time(latest)], |row| {
                Ok(OutboxRow {
                    id: row.get(0)?,
                    study_uid: row.get(1)?,
                    revision: row.get(2)?,
                    kind: row.get(3)?,
                    idempotency_key: row.get(4)?,
                    event: row.get(5)?,
                    attempts: row.get(6)?,
                    created_at: row.get(7)?,
                })
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// When the next message of a channel is due: for the channel's worker to sleep until then.
    pub fn next_due(&self, channel: &str) -> Result<Option<String>> {
        self.read(|connection| {
            Ok(connection
                .prepare_cached("SELECT min(next_attempt_at) FROM outbox WHERE state = 'pending' AND channel = ?1")?
                .query_row([channel], |row| row.get(0))?)
        })
    }

    /// How many messages of a channel are pending, and how many are dead. Blocks.
    pub fn outbox_counts(&self, channel: &str) -> Result<(u64, u64)> {
        self.read(|connection| {
            let count = |sql| -> Result<u64> {
                Ok(connection.prepare_cached(sql)?.query_row([channel], |row| row.get::<_, i64>(0))? as u64)
            };
            Ok((
                count("SELECT count(*) FROM outbox WHERE state = 'pending' AND channel = ?1")?,
                count("SELECT count(*) FROM outbox WHERE state = 'dead' AND channel = ?1")?,
            ))
        })
    }

    /// Writes how an attempt ended.
    pub async fn settle(&self, id: i64, delivery: Delivery) -> Result<()> {
        self.write(move |connection| {
            match delivery {
                Delivery::Delivered => connection.execute(
                    "UPDATE outbox SET state = 'delivered', attempts = attempts + 1, delivered_at = ?2, last_error = NULL
                     WHERE id = ?1",
                    params![id, now()],
                )?,
                Delivery::Retry { at, error } => connection.execute(
                    "UPDATE outbox SET attempts = attempts + 1, next_attempt_at = ?2, last_error = ?3 WHERE id = ?1",
                    params![id, at, error],
                )?,
                Delivery::Dead { error } => connection.execute(
                    "UPDATE outbox SET state = 'dead', attempts = attempts + 1, last_error = ?2 WHERE id = ?1",
                    params![id, error],
                )?,
            };
            Ok(())
        })
        .await
    }

    /// Sends dead messages again: the one with this id, or all. Returns how many.
    pub fn requeue_dead(&self, id: Option<i64>) -> Result<u64> {
        let requeued = self.write_blocking(move |connection| {
            let rows = connection.execute(
                "UPDATE outbox SET state = 'pending', attempts = 0, next_attempt_at = ?2
                 WHERE state = 'dead' AND (?1 IS NULL OR id = ?1)",
                params![id, now()],
            )?;
            match id {
                Some(id) if rows == 0 => Err(LedgerError::NotFound(format!(
                    "there is no dead notification with id {id}; `triaged requeue` lists them"
                ))),
                _ => Ok(rows as u64),
            }
        })?;
        self.posted().notify_waiters();
        Ok(requeued)
    }

    /// Notes that a person has seen a study's alert. Returns false where it was acknowledged before.
    pub fn acknowledge(&self, study_uid: &str) -> Result<bool> {
        let study_uid = study_uid.to_owned();
        self.write_blocking(move |connection| acknowledge(connection, &study_uid))
    }
}

fn acknowledge(connection: &Connection, study_uid: &str) -> Result<bool> {
    let t = now();
    let known: bool =
        connection
            .query_row("SELECT EXISTS (SELECT 1 FROM studies WHERE study_uid = ?1)", [study_uid], |row| row.get(0))?;
    if !known {
        return Err(LedgerError::NotFound(format!("there is no study {study_uid}")));
    }
    let first = connection.execute(
        "UPDATE studies SET acknowledged_at = ?2 WHERE study_uid = ?1 AND acknowledged_at IS NULL",
        params![study_uid, t],
    )?;
    connection.execute(
        "UPDATE outbox SET acknowledged_at = ?2 WHERE study_uid = ?1 AND acknowledged_at IS NULL",
        params![study_uid, t],
    )?;
    Ok(first == 1)
}
