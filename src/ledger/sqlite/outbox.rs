//! The outbox: messages that must arrive. Delivered, or dead and seen by an administrator; a dead one is tried again slowly,
//! and at once where a person requeues it or its channel works again.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, Row, params};
use serde_json::json;

use tokio::sync::Notify;

use super::{Ledger, audit};
use crate::event::{Event, Kind};
use crate::ledger::{
    Actor, Deed, Delivery, LedgerError, NewMessage, Outbox, OutboxRow, Pending, Result, Revival, Step, format_time, now,
};

impl Outbox for Ledger {
    fn due(&self, channel: &str, most: usize, longest: Duration) -> Result<Vec<OutboxRow>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT id, study_uid, idempotency_key, event, step, attempts, created_at, state
                 FROM outbox INDEXED BY outbox_pending
                 WHERE state = 'pending' AND channel = ?1 AND (next_attempt_at <= ?2 OR next_attempt_at > ?4)
                 ORDER BY next_attempt_at LIMIT ?3",
            )?;
            let rows = statement.query_map(params![channel, now(), most as i64, from_now(longest)], outbox_row)?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    fn due_dead(&self, channel: &str, most: usize, revival: Revival) -> Result<Vec<OutboxRow>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT id, study_uid, idempotency_key, event, step, attempts, created_at, state
                 FROM outbox INDEXED BY outbox_dead
                 WHERE state = 'dead' AND channel = ?1 AND (next_attempt_at <= ?2 OR next_attempt_at > ?4)
                    AND created_at >= ?5
                 ORDER BY next_attempt_at LIMIT ?3",
            )?;
            let (latest, oldest) = (from_now(revival.longest), ago(revival.oldest));
            let rows = statement.query_map(params![channel, now(), most as i64, latest, oldest], outbox_row)?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    fn next_due(&self, channel: &str) -> Result<Option<String>> {
        self.read(|connection| {
            Ok(connection
                .prepare_cached("SELECT min(next_attempt_at) FROM outbox WHERE state = 'pending' AND channel = ?1")?
                .query_row([channel], |row| row.get(0))?)
        })
    }

    fn counts(&self, channel: &str) -> Result<(u64, u64)> {
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

    fn post(&self, messages: Vec<NewMessage>) -> Pending<'_, ()> {
        Box::pin(async move {
            if messages.is_empty() {
                return Ok(());
            }
            self.write(move |connection| post(connection, &messages)).await?;
            self.posted().notify_waiters();
            Ok(())
        })
    }

    fn settle(&self, id: i64, delivery: Delivery) -> Pending<'_, ()> {
        Box::pin(async move {
            self.write(move |connection| {
            let t = now();
            match delivery {
                Delivery::Delivered => connection.execute(
                    "UPDATE outbox SET state = 'delivered', attempts = attempts + 1, delivered_at = ?2, last_attempt_at = ?2,
                        last_error = NULL
                     WHERE id = ?1",
                    params![id, t],
                )?,
                Delivery::Retry { at, error } => connection.execute(
                    "UPDATE outbox SET attempts = attempts + 1, next_attempt_at = ?2, last_error = ?3, last_attempt_at = ?4
                     WHERE id = ?1",
                    params![id, at, error, t],
                )?,
                Delivery::Dead { at, error } => connection.execute(
                    "UPDATE outbox SET state = 'dead', attempts = attempts + 1, next_attempt_at = ?2, last_error = ?3,
                        last_attempt_at = ?4
                     WHERE id = ?1",
                    params![id, at, error, t],
                )?,
            };
            Ok(())
        })
        .await
        })
    }

    fn revive_dead(&self, channel: String, pause: Duration, oldest: Duration) -> Pending<'_, u64> {
        Box::pin(async move {
            let revived = self
                .write(move |connection| {
                    let rows = connection
                        .prepare_cached(
                            "UPDATE outbox INDEXED BY outbox_dead SET next_attempt_at = ?2
                         WHERE state = 'dead' AND channel = ?1 AND next_attempt_at > ?2 AND created_at >= ?4
                            AND (last_attempt_at IS NULL OR last_attempt_at <= ?3)",
                        )?
                        .execute(params![channel, now(), ago(pause), ago(oldest)])?;
                    Ok(rows as u64)
                })
                .await?;
            if revived > 0 {
                self.posted().notify_waiters();
            }
            Ok(revived)
        })
    }

    fn requeue_dead(&self, id: Option<i64>, actor: &Actor) -> Result<u64> {
        let actor = actor.clone();
        let requeued = self.write_blocking(move |connection| {
            let mut statement = connection.prepare_cached(
                "UPDATE outbox SET state = 'pending', attempts = 0, next_attempt_at = ?2
                 WHERE state = 'dead' AND (?1 IS NULL OR id = ?1) RETURNING id, channel, study_uid",
            )?;
            let rows = statement.query_map(params![id, now()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            let requeued = rows.collect::<rusqlite::Result<Vec<(i64, String, Option<String>)>>>()?;
            let count = requeued.len() as u64;
            for (id, channel, study_uid) in requeued {
                let deed = Deed {
                    actor: actor.clone(),
                    name: "notification.requeue",
                    study_uid,
                    details: json!({ "notification": id, "channel": channel }),
                };
                audit::append(connection, &deed)?;
            }
            match id {
                Some(id) if count == 0 => Err(LedgerError::NotFound(format!(
                    "there is no dead notification with id {id}; `triaged requeue` lists them"
                ))),
                _ => Ok(count),
            }
        })?;
        self.posted().notify_waiters();
        Ok(requeued)
    }

    fn posted(&self) -> &Notify {
        &self.shared.wakeups.posted
    }
}

/// Writes messages within the caller's transaction. One that its channel was sent before is passed over (promise 6).
pub(super) fn post(connection: &Connection, messages: &[NewMessage]) -> Result<()> {
    let created = now();
    let mut insert = connection.prepare_cached(
        "INSERT INTO outbox (study_uid, revision, channel, kind, finding, model_sha256, occasion, idempotency_key, event,
            next_attempt_at, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10) ON CONFLICT DO NOTHING",
    )?;
    // Channels that hear of a flag for the first time, and whose escalation of it begins: its revision is no news to them.
    let (mut newly_told, mut newly_escalated): (Vec<&String>, bool) = (Vec::new(), false);
    for NewMessage { channel, event, escalation } in messages {
        let verdict = event.verdict();
        let kind = event.kind();
        if let Some(step) = escalation {
            if kind == Kind::Revised && (newly_escalated || is_acknowledged(connection, event)?) {
                continue;
            }
            newly_escalated |= escalate_later(connection, channel, event, *step)? && kind == Kind::Flagged;
            continue;
        }
        if kind == Kind::Revised && newly_told.contains(&channel) {
            continue;
        }
        let inserted = insert.execute(params![
            event.study_uid(),
            event.revision(),
            channel,
            event.kind().as_str(),
            verdict.map_or("", |study| &study.finding),
            verdict.map_or("", |study| &study.model_sha256),
            event.occasion(),
            uuid::Uuid::new_v4().to_string(),
            event.to_json(),
            created
        ])?;
        if inserted > 0 && kind == Kind::Flagged {
            newly_told.push(channel);
        }
    }
    Ok(())
}

/// Whether somebody takes care of the study, whose acknowledgement covers its present verdict.
fn is_acknowledged(connection: &Connection, event: &Event) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM studies WHERE study_uid = ?1 AND acknowledged_at IS NOT NULL)";
    Ok(connection.prepare_cached(sql)?.query_row([event.study_uid()], |row| row.get(0))?)
}

/// Notes whom to tell when nobody acknowledges in time. Returns whether it was not noted before.
fn escalate_later(connection: &Connection, channel: &str, event: &Event, step: Step) -> Result<bool> {
    let verdict = event.verdict();
    let inserted = connection
        .prepare_cached(
            "INSERT INTO escalations (study_uid, revision, kind, finding, model_sha256, occasion, step, channel, event,
                created_at, due_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            event.study_uid(),
            event.revision(),
            event.kind().as_str(),
            verdict.map_or("", |study| &study.finding),
            verdict.map_or("", |study| &study.model_sha256),
            event.occasion(),
            step.number,
            channel,
            event.to_json(),
            now(),
            from_now(step.after)
        ])?;
    Ok(inserted > 0)
}

fn outbox_row(row: &Row<'_>) -> rusqlite::Result<OutboxRow> {
    Ok(OutboxRow {
        id: row.get(0)?,
        study_uid: row.get(1)?,
        idempotency_key: row.get(2)?,
        event: row.get(3)?,
        step: row.get(4)?,
        attempts: row.get(5)?,
        created_at: row.get(6)?,
        dead: row.get::<_, String>(7)? == "dead",
    })
}

fn from_now(wait: Duration) -> String {
    format_time(Timestamp::now().checked_add(wait).unwrap_or(Timestamp::MAX))
}

fn ago(time: Duration) -> String {
    format_time(Timestamp::now().checked_sub(time).unwrap_or(Timestamp::MIN))
}
