//! The outbox: messages that must arrive. Delivered, or dead and seen by an administrator; a dead one is tried again slowly,
//! and at once where a person requeues it or its channel works again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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

/// People hurry for a message: it says that a study is flagged, is a step of an escalation, or says that one of these does not arrive.
/// Word for word as in the index `outbox_waiting`.
const ALERT: &str = "kind IN ('flagged', 'revised', 'delivery_failed') OR step > 0";

/// Of a message that is pending: it tells of an acknowledgement, and an alert of the same study is still to go before it.
const WAITS_FOR_ITS_ALERT: &str = "kind = 'acknowledged' AND EXISTS (
    SELECT 1 FROM outbox alert
    WHERE alert.study_uid = outbox.study_uid AND alert.channel = outbox.channel AND alert.id < outbox.id
        AND alert.state = 'pending' AND alert.kind IN ('flagged', 'revised', 'incomplete'))";

impl Outbox for Ledger {
    fn due(&self, channel: &str, most: usize, longest: Duration) -> Result<Vec<OutboxRow>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(&format!(
                "SELECT id, study_uid, idempotency_key, event, step, attempts, created_at, state, {ALERT}
                 FROM outbox INDEXED BY outbox_waiting
                 WHERE state = 'pending' AND state <> 'delivered' AND channel = ?1 AND ({ALERT}) = ?5
                    AND (next_attempt_at <= ?2 OR next_attempt_at > ?4) AND NOT ({WAITS_FOR_ITS_ALERT})
                 ORDER BY next_attempt_at LIMIT ?3"
            ))?;
            let (now, latest) = (now(), from_now(longest));
            alerts_first(|is_alert| {
                let values = params![channel, now, most as i64, latest, is_alert];
                Ok(statement.query_map(values, outbox_row)?.collect::<rusqlite::Result<_>>()?)
            })
        })
    }

    fn due_dead(&self, channel: &str, most: usize, revival: Revival) -> Result<Vec<OutboxRow>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(&format!(
                "SELECT id, study_uid, idempotency_key, event, step, attempts, created_at, state, {ALERT}
                 FROM outbox INDEXED BY outbox_waiting
                 WHERE state = 'dead' AND state <> 'delivered' AND channel = ?1 AND ({ALERT}) = ?7
                    AND (next_attempt_at <= ?2 OR next_attempt_at > ?4) AND created_at >= ?5
                    AND (?6 OR acknowledged_at IS NULL OR kind NOT IN ('flagged', 'revised', 'incomplete'))
                 ORDER BY next_attempt_at LIMIT ?3"
            ))?;
            let (now, latest, oldest) = (now(), from_now(revival.longest), ago(revival.oldest));
            alerts_first(|is_alert| {
                let values = params![channel, now, most as i64, latest, oldest, revival.acknowledged, is_alert];
                Ok(statement.query_map(values, outbox_row)?.collect::<rusqlite::Result<_>>()?)
            })
        })
    }

    fn next_due(&self, channel: &str) -> Result<Option<String>> {
        self.read(|connection| {
            let sql = format!(
                "SELECT min(next_attempt_at) FROM outbox
                 WHERE state = 'pending' AND channel = ?1 AND NOT ({WAITS_FOR_ITS_ALERT})"
            );
            Ok(connection.prepare_cached(&sql)?.query_row([channel], |row| row.get(0))?)
        })
    }

    fn is_outdated(&self, id: i64) -> Result<bool> {
        self.read(|connection| {
            let sql = "SELECT EXISTS (SELECT 1 FROM outbox o JOIN studies s ON s.study_uid = o.study_uid
                                      WHERE o.id = ?1 AND (s.flagged = 1 OR o.kind <> 'not_flagged' AND s.verdict = 'not flagged'))";
            Ok(connection.prepare_cached(sql)?.query_row([id], |row| row.get(0))?)
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
                Delivery::DeliveredExcept { error } => connection.execute(
                    "UPDATE outbox SET state = 'delivered', attempts = attempts + 1, delivered_at = ?2, last_attempt_at = ?2,
                        last_error = ?3
                     WHERE id = ?1",
                    params![id, t, error],
                )?,
                Delivery::Withdrawn { why } => connection.execute(
                    "UPDATE outbox SET state = 'delivered', withdrawn_at = ?2, last_error = ?3 WHERE id = ?1",
                    params![id, t, why],
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

impl Ledger {
    /// [`Outbox::post`], but what could not begin within `patience` is given up and not written later: whoever asked tells of it in
    /// another way then.
    pub async fn post_within(&self, messages: Vec<NewMessage>, patience: Duration) -> Result<()> {
        let late = move || LedgerError::Begin(format!("it did not begin within {} s", patience.as_secs()));
        // Set by the first of the two: the write as it begins, or whoever gives up waiting for that.
        let is_settled = Arc::new(AtomicBool::new(false));
        let begins = is_settled.clone();
        let write = self.write(move |connection| match begins.swap(true, Ordering::SeqCst) {
            true => Err(late()),
            false => post(connection, &messages),
        });
        tokio::pin!(write);
        let written = match tokio::time::timeout(patience, &mut write).await {
            Ok(written) => written,
            Err(_) if !is_settled.swap(true, Ordering::SeqCst) => return Err(late()),
            // It is being written: its end is near, or the disk hangs.
            Err(_) => tokio::time::timeout(patience, &mut write).await.unwrap_or_else(|_| Err(late())),
        };
        written?;
        self.posted().notify_waiters();
        Ok(())
    }

    /// Who of a message's recipients has it, while others have not. Blocks.
    pub fn told_recipients(&self, notification: i64) -> Result<Vec<String>> {
        self.read(|connection| {
            let sql = "SELECT recipient FROM told_recipients WHERE notification_id = ?1";
            let mut statement = connection.prepare_cached(sql)?;
            Ok(statement.query_map([notification], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Notes recipients that have a message. Blocks.
    pub fn note_told(&self, notification: i64, recipients: Vec<String>) -> Result<()> {
        self.write_blocking(move |connection| {
            let mut insert = connection.prepare_cached(
                "INSERT INTO told_recipients (notification_id, recipient, at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
            )?;
            let at = now();
            for recipient in &recipients {
                insert.execute(params![notification, recipient, at])?;
            }
            Ok(())
        })
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
    // Channels that hear of a flag for the first time: its revision is no news to them.
    let mut newly_told: Vec<&String> = Vec::new();
    for NewMessage { channel, event, escalation } in messages {
        let verdict = event.verdict();
        let kind = event.kind();
        if let Some(step) = escalation {
            if !is_acknowledged(connection, event)? && !is_escalated(connection, channel, event, *step)? {
                escalate_later(connection, channel, event, *step)?;
            }
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

/// Whether a step's channel is to be told of the flag already, or was told of this revision and nobody has acknowledged since. The early
/// verdict and the final one come seconds apart, and so do a flag and its revision: who is told of one need not be told of the other.
fn is_escalated(connection: &Connection, channel: &str, event: &Event, step: Step) -> Result<bool> {
    if !matches!(event.kind(), Kind::Flagged | Kind::Revised) {
        return Ok(false);
    }
    let sql = "SELECT EXISTS (
                   SELECT 1 FROM escalations e
                   WHERE e.study_uid = ?1 AND e.channel = ?2 AND e.step = ?3 AND e.kind IN ('flagged', 'revised')
                     AND (e.state = 'waiting' OR e.state = 'told' AND e.revision = ?4
                          AND NOT EXISTS (SELECT 1 FROM acknowledgements a
                                          WHERE a.study_uid = ?1 AND a.kind = 'acknowledged' AND a.undone_at IS NULL
                                            AND a.at >= e.ended_at)))";
    let values = params![event.study_uid(), channel, step.number, event.revision()];
    Ok(connection.prepare_cached(sql)?.query_row(values, |row| row.get(0))?)
}

/// Notes whom to tell when nobody acknowledges in time.
fn escalate_later(connection: &Connection, channel: &str, event: &Event, step: Step) -> Result<()> {
    let verdict = event.verdict();
    connection
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
    Ok(())
}

/// What `of` gives of alerts, and then of the others: each an index's beginning, for a sort would read all that waits.
fn alerts_first(mut of: impl FnMut(bool) -> Result<Vec<OutboxRow>>) -> Result<Vec<OutboxRow>> {
    let mut rows = of(true)?;
    rows.extend(of(false)?);
    Ok(rows)
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
        is_alert: row.get(8)?,
    })
}

pub(super) fn from_now(wait: Duration) -> String {
    format_time(Timestamp::now().checked_add(wait).unwrap_or(Timestamp::MAX))
}

fn ago(time: Duration) -> String {
    format_time(Timestamp::now().checked_sub(time).unwrap_or(Timestamp::MIN))
}
