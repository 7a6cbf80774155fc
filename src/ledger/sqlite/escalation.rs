//! Escalations when nobody acknowledges or a message does not arrive, and the links that acknowledge.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::Ledger;
use super::outbox::post;
use crate::ledger::{
    Actor, Escalations, LedgerError, LinkUse, NewMessage, Outbox, Pending, Result, Undelivered, format_time, now,
};

/// A moment that lies further ahead than this was written before the clock was set back.
const CLOCK_SET_BACK: Duration = Duration::from_secs(60);

impl Escalations for Ledger {
    fn raise(&self) -> Pending<'_, u64> {
        Box::pin(async move {
            let (due, back) = (now(), ahead());
            let is_due = "state = 'waiting' AND (due_at <= ?1 OR created_at > ?2)";
            // Most looks find nothing, and a write is a commit with its sync.
            let ledger = self.clone();
            let some = tokio::task::spawn_blocking(move || {
                ledger.read(|connection| {
                    let sql = format!(
                        "SELECT EXISTS (SELECT 1 FROM escalations INDEXED BY escalations_waiting WHERE {is_due})"
                    );
                    Ok(connection.prepare_cached(&sql)?.query_row([due, back], |row| row.get::<_, bool>(0))?)
                })
            });
            if !some.await.map_err(|_| LedgerError::Closed)?? {
                return Ok(0);
            }
            let raised = self
                .write(move |connection| {
                    let mut statement = connection
                        .prepare_cached(&format!("SELECT id FROM escalations WHERE {is_due} ORDER BY due_at"))?;
                    let ids: Vec<i64> =
                        statement.query_map([now(), ahead()], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
                    for id in &ids {
                        raise(connection, *id)?;
                    }
                    Ok(ids.len() as u64)
                })
                .await?;
            self.posted().notify_waiters();
            Ok(raised)
        })
    }

    fn undelivered(&self, wait: Duration, most: usize) -> Result<Vec<Undelivered>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT id, channel, attempts, created_at, event FROM outbox INDEXED BY outbox_unreported
                 WHERE state <> 'delivered' AND reported_at IS NULL AND created_at <= ?1 AND attempts > 0
                    AND acknowledged_at IS NULL AND kind IN ('flagged', 'revised', 'incomplete')
                 ORDER BY created_at LIMIT ?2",
            )?;
            let raised = format_time(Timestamp::now().checked_sub(wait).unwrap_or(Timestamp::MIN));
            let rows = statement.query_map(params![raised, most as i64], |row| {
                Ok(Undelivered {
                    id: row.get(0)?,
                    channel: row.get(1)?,
                    attempts: row.get(2)?,
                    created_at: row.get(3)?,
                    event: row.get(4)?,
                })
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    fn report_undelivered(&self, id: i64, messages: Vec<NewMessage>) -> Pending<'_, ()> {
        Box::pin(async move {
            self.write(move |connection| {
                let reported = connection
                .prepare_cached(
                    "UPDATE outbox SET reported_at = ?2 WHERE id = ?1 AND state <> 'delivered' AND reported_at IS NULL",
                )?
                .execute(params![id, now()])?;
                if reported > 0 {
                    post(connection, &messages)?;
                }
                Ok(())
            })
            .await?;
            self.posted().notify_waiters();
            Ok(())
        })
    }
}

impl Ledger {
    /// The key that signs acknowledge links; made where there is none yet. Blocks.
    pub fn link_key(&self) -> Result<Vec<u8>> {
        let read = |connection: &Connection| -> Result<Option<Vec<u8>>> {
            Ok(connection.query_row("SELECT key FROM link_key", [], |row| row.get(0)).optional()?)
        };
        if let Some(key) = self.read(read)? {
            return Ok(key);
        }
        let key: [u8; 32] = rand::random();
        self.write_blocking(move |connection| {
            connection.execute("INSERT INTO link_key (id, key) VALUES (1, ?1) ON CONFLICT DO NOTHING", [&key[..]])?;
            Ok(read(connection)?.expect("the row was written just now"))
        })
    }

    /// Acknowledges a study by a link, if the link was not used before. Blocks.
    pub fn use_link(&self, nonce: &str, study_uid: &str, expires_at: &str, actor: &Actor) -> Result<LinkUse> {
        let (nonce, study_uid, expires_at) = (nonce.to_owned(), study_uid.to_owned(), expires_at.to_owned());
        let actor = actor.clone();
        let router = self.shared.router.clone();
        let used = self.write_blocking(move |connection| {
            let t = now();
            // An expired link is refused by its own words, so its nonce need not be kept.
            connection.execute("DELETE FROM used_links WHERE expires_at < ?1", [&t])?;
            let used: Option<String> = connection
                .query_row("SELECT used_at FROM used_links WHERE nonce = ?1", [&nonce], |row| row.get(0))
                .optional()?;
            if let Some(at) = used {
                return Ok(LinkUse::UsedBefore { at });
            }
            let sql = "INSERT INTO used_links (nonce, study_uid, used_at, expires_at) VALUES (?1, ?2, ?3, ?4)";
            connection.execute(sql, params![nonce, study_uid, t, expires_at])?;
            let acknowledged = super::acknowledgement::acknowledge(connection, &study_uid, &actor, None, router.get())?;
            Ok(LinkUse::Acknowledged { first: acknowledged == super::Acknowledged::First })
        });
        self.posted().notify_waiters();
        used
    }
}

fn raise(connection: &Connection, id: i64) -> Result<()> {
    let t = now();
    connection
        .prepare_cached(
            "INSERT INTO outbox (study_uid, revision, channel, kind, finding, model_sha256, occasion, step, idempotency_key,
                event, next_attempt_at, created_at)
             SELECT study_uid, revision, channel, kind, finding, model_sha256, occasion, step, ?2, event, ?3, ?3
             FROM escalations WHERE id = ?1
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![id, uuid::Uuid::new_v4().to_string(), t])?;
    connection
        .prepare_cached("UPDATE escalations SET state = 'told', ended_at = ?2 WHERE id = ?1")?
        .execute(params![id, t])?;
    Ok(())
}

fn ahead() -> String {
    format_time(Timestamp::now().checked_add(CLOCK_SET_BACK).unwrap_or(Timestamp::MAX))
}
