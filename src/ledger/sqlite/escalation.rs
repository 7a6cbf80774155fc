//! Escalations when nobody acknowledges or a message does not arrive, and the links that acknowledge.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::outbox::post;
use super::{Acknowledged, Ledger};
use crate::ledger::{
    Actor, Escalations, LedgerError, LinkUse, NewMessage, Outbox, Pending, Result, Shown, Undelivered, Waiting,
    format_time, now,
};

/// A moment that lies further ahead than this was written before the clock was set back.
const CLOCK_SET_BACK: Duration = Duration::from_secs(60);

impl Escalations for Ledger {
    fn raise(&self) -> Pending<'_, u64> {
        Box::pin(async move {
            let (due, back) = (now(), ahead());
            // A study that is judged anew says in a moment whether it is still incomplete.
            let is_due = "state = 'waiting' AND (due_at <= ?1 OR created_at > ?2)
                AND NOT (kind = 'incomplete' AND EXISTS (SELECT 1 FROM studies s WHERE s.study_uid = escalations.study_uid
                                                            AND s.state = 'receiving' AND s.flagged IS NOT 1))";
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
                    let mut raised = 0;
                    for id in ids {
                        raised += u64::from(raise(connection, id)?);
                    }
                    Ok(raised)
                })
                .await?;
            self.posted().notify_waiters();
            Ok(raised)
        })
    }

    fn tell_acknowledged(&self) -> Pending<'_, u64> {
        Box::pin(async move {
            let ledger = self.clone();
            let some = tokio::task::spawn_blocking(move || {
                ledger.read(|connection| {
                    let sql = "SELECT EXISTS (SELECT 1 FROM acknowledgements WHERE untold = 1)";
                    Ok(connection.prepare_cached(sql)?.query_row([], |row| row.get::<_, bool>(0))?)
                })
            });
            let router = self.shared.router.clone();
            if router.get().is_none() || !some.await.map_err(|_| LedgerError::Closed)?? {
                return Ok(0);
            }
            let told = self.write(move |connection| match router.get() {
                Some(router) => super::acknowledgement::tell_untold(connection, router),
                None => Ok(0),
            });
            let told = told.await?;
            self.posted().notify_waiters();
            Ok(told)
        })
    }

    fn stranded(&self, channels: &[String]) -> Result<Vec<Waiting>> {
        let channels = serde_json::to_string(channels).expect("strings are JSON");
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT channel, sum(pending), sum(dead) FROM (
                     SELECT channel, 1 AS pending, 0 AS dead FROM outbox INDEXED BY outbox_pending WHERE state = 'pending'
                     UNION ALL
                     SELECT channel, 0, 1 FROM outbox INDEXED BY outbox_dead WHERE state = 'dead')
                 WHERE channel NOT IN (SELECT value FROM json_each(?1)) GROUP BY channel ORDER BY channel",
            )?;
            let rows = statement.query_map([channels], |row| {
                let count = |column| row.get::<_, i64>(column).map(|count| count as u64);
                Ok(Waiting { channel: row.get(0)?, pending: count(1)?, dead: count(2)? })
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    fn give_up_channel(&self, channel: String, error: String) -> Pending<'_, u64> {
        Box::pin(async move {
            self.write(move |connection| {
                let given_up = connection
                    .prepare_cached(
                        "UPDATE outbox SET state = 'dead', next_attempt_at = ?2, last_error = ?3
                         WHERE state = 'pending' AND channel = ?1",
                    )?
                    .execute(params![channel, now(), error])?;
                Ok(given_up as u64)
            })
            .await
        })
    }

    fn undelivered(&self, wait: Duration, most: usize) -> Result<Vec<Undelivered>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT id, channel, attempts, created_at, event FROM outbox INDEXED BY outbox_unreported
                 WHERE state <> 'delivered' AND reported_at IS NULL AND created_at <= ?1 AND (attempts > 0 OR state = 'dead')
                    AND acknowledged_at IS NULL AND kind IN ('flagged', 'revised', 'incomplete')
                    AND NOT (kind = 'incomplete' AND EXISTS (SELECT 1 FROM studies s
                                                             WHERE s.study_uid = outbox.study_uid AND s.flagged = 1))
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

    /// Acknowledges a study by a link, if the link was not used before and the study was not judged again since what was `shown`, the
    /// message's revision or the page's verdict: an acknowledgement belongs to a verdict that its person has seen. Blocks.
    pub fn use_link(
        &self,
        nonce: &str,
        study_uid: &str,
        shown: impl Into<Shown>,
        expires_at: &str,
        actor: &Actor,
    ) -> Result<LinkUse> {
        let (nonce, study_uid, expires_at) = (nonce.to_owned(), study_uid.to_owned(), expires_at.to_owned());
        let (actor, shown) = (actor.clone(), shown.into());
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
            // Of a message nobody knows how much of it was read: any later revision is asked about.
            if let (None, Some(revision)) = (shown.verdict, shown.revision) {
                let sql = "SELECT EXISTS (SELECT 1 FROM verdicts WHERE study_uid = ?1 AND revision > ?2)";
                if connection.query_row(sql, params![study_uid, revision], |row| row.get(0))? {
                    return Ok(LinkUse::JudgedAgain);
                }
            }
            match super::acknowledgement::verdict_shown(connection, &study_uid, &shown) {
                Err(LedgerError::JudgedAgain(_)) => return Ok(LinkUse::JudgedAgain),
                checked => checked?,
            };
            let sql = "INSERT INTO used_links (nonce, study_uid, used_at, expires_at) VALUES (?1, ?2, ?3, ?4)";
            connection.execute(sql, params![nonce, study_uid, t, expires_at])?;
            let acknowledged =
                super::acknowledgement::acknowledge(connection, &study_uid, &actor, None, &shown, router.get())?;
            Ok(match acknowledged {
                Acknowledged::First => LinkUse::Acknowledged { first: true },
                Acknowledged::Before => LinkUse::Acknowledged { first: false },
                Acknowledged::Seen => LinkUse::Seen,
            })
        });
        self.posted().notify_waiters();
        used
    }
}

/// Tells of an escalation that is due, or cancels it where there is nothing to tell any more. Returns whether it was told.
fn raise(connection: &Connection, id: i64) -> Result<bool> {
    let t = now();
    let holds: bool = connection
        .prepare_cached(
            "SELECT s.acknowledged_at IS NULL AND (e.kind <> 'incomplete' OR s.flagged IS NOT 1 AND s.verdict IS 'incomplete')
             FROM escalations e JOIN studies s ON s.study_uid = e.study_uid WHERE e.id = ?1",
        )?
        .query_row([id], |row| row.get(0))?;
    if !holds {
        connection
            .prepare_cached("UPDATE escalations SET state = 'cancelled', ended_at = ?2 WHERE id = ?1")?
            .execute(params![id, t])?;
        return Ok(false);
    }
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
    Ok(true)
}

fn ahead() -> String {
    format_time(Timestamp::now().checked_add(CLOCK_SET_BACK).unwrap_or(Timestamp::MAX))
}
