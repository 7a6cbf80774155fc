//! Persons' deeds about verdicts: acknowledged, seen, taken back. An acknowledgement belongs to a verdict.

use rusqlite::{Connection, OptionalExtension, params};
use serde_json::json;

use super::outbox::post;
use super::reader::records;
use super::{Ledger, Reader, Router, audit};
use crate::event::{self, Event};
use crate::ledger::{AcknowledgementRow, Actor, Deed, DeedKind, LedgerError, Outbox, Result, Shown, now};

/// A score that is higher by this is materially more evidence.
const MATERIAL_SCORE: f64 = 0.1;

/// The outcome of an acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledged {
    /// The study was unread, and no longer is.
    First,
    /// Somebody was faster.
    Before,
    /// The study is not flagged: there is nothing to acknowledge, it is marked as seen.
    Seen,
}

impl Ledger {
    /// Notes that a person has seen the present verdict on a study, whichever that is, and is taking care of it.
    pub fn acknowledge(&self, study_uid: &str, actor: &Actor, note: Option<&str>) -> Result<Acknowledged> {
        self.acknowledge_as_shown(study_uid, actor, note, &Shown::default())
    }

    /// Notes that a person has seen the verdict that was shown, and is taking care of the study. [`LedgerError::JudgedAgain`], and
    /// nothing is done, where the study says something since that nobody has shown.
    pub fn acknowledge_as_shown(
        &self,
        study_uid: &str,
        actor: &Actor,
        note: Option<&str>,
        shown: &Shown,
    ) -> Result<Acknowledged> {
        let (study_uid, actor, note, shown) = (study_uid.to_owned(), actor.clone(), note.map(str::to_owned), *shown);
        let router = self.shared.router.clone();
        let acknowledged = self.write_blocking(move |connection| {
            acknowledge(connection, &study_uid, &actor, note.as_deref(), &shown, router.get())
        });
        self.posted().notify_waiters();
        acknowledged
    }

    /// Takes back the present acknowledgement of a study, which is unread again. Returns false where there is none.
    pub fn undo_acknowledgement(&self, study_uid: &str, actor: &Actor) -> Result<bool> {
        self.undo_acknowledgement_as_shown(study_uid, actor, &Shown::default())
    }

    /// The same; [`LedgerError::JudgedAgain`] where it is not of the verdict that was shown.
    pub fn undo_acknowledgement_as_shown(&self, study_uid: &str, actor: &Actor, shown: &Shown) -> Result<bool> {
        let (study_uid, actor, shown) = (study_uid.to_owned(), actor.clone(), *shown);
        self.write_blocking(move |connection| {
            known(connection, &study_uid)?;
            verdict_shown(connection, &study_uid, &shown)?;
            let undone = connection.execute(
                "UPDATE acknowledgements SET undone_at = ?2, undone_by = ?3
                 WHERE id = (SELECT max(id) FROM acknowledgements WHERE study_uid = ?1 AND undone_at IS NULL)
                   AND EXISTS (SELECT 1 FROM studies WHERE study_uid = ?1
                               AND (acknowledged_at IS NOT NULL OR seen_at IS NOT NULL))",
                params![study_uid, now(), actor.name],
            )?;
            if undone > 0 {
                connection.execute(
                    "UPDATE studies SET acknowledged_at = NULL, acknowledged_by = NULL, seen_at = NULL, seen_by = NULL
                     WHERE study_uid = ?1",
                    [&study_uid],
                )?;
                connection.execute("UPDATE outbox SET acknowledged_at = NULL WHERE study_uid = ?1", [&study_uid])?;
                // Escalations that the acknowledgement ended wait again; those that became due meanwhile are told now.
                connection.execute(
                    "UPDATE escalations SET state = 'waiting', ended_at = NULL
                     WHERE study_uid = ?1 AND state = 'cancelled'
                       AND ended_at = (SELECT at FROM acknowledgements WHERE study_uid = ?1 AND undone_at IS NOT NULL
                                       ORDER BY id DESC LIMIT 1)",
                    [&study_uid],
                )?;
                let (name, study_uid) = ("study.undo_acknowledgement", Some(study_uid));
                audit::append(connection, &Deed { actor, name, study_uid, details: json!({}) })?;
            }
            Ok(undone > 0)
        })
    }
}

impl Reader {
    /// Persons' deeds about a study, oldest first.
    pub fn acknowledgements(&self, study_uid: &str) -> Result<Vec<AcknowledgementRow>> {
        self.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT * FROM acknowledgement_log WHERE study_uid = ?1 ORDER BY at")?;
            records(&mut statement, [study_uid])
        })
    }
}

pub(super) fn known(connection: &Connection, study_uid: &str) -> Result<()> {
    let sql = "SELECT EXISTS (SELECT 1 FROM studies WHERE study_uid = ?1)";
    match connection.query_row(sql, [study_uid], |row| row.get(0))? {
        true => Ok(()),
        false => Err(LedgerError::NotFound(format!("there is no study {study_uid}"))),
    }
}

/// Within the caller's transaction: see [`Ledger::acknowledge_as_shown`]. Who came second has seen it, too, so every call is a deed.
pub(super) fn acknowledge(
    connection: &Connection,
    study_uid: &str,
    actor: &Actor,
    note: Option<&str>,
    shown: &Shown,
    router: Option<&Router>,
) -> Result<Acknowledged> {
    known(connection, study_uid)?;
    let verdict = verdict_shown(connection, study_uid, shown)?;
    let acknowledged = write_acknowledgement(connection, study_uid, verdict, shown.kind, &actor.name, note)?;
    match (acknowledged, router) {
        (Acknowledged::First, Some(router)) => {
            let sql = "SELECT acknowledged_at FROM studies WHERE study_uid = ?1";
            let at: String = connection.query_row(sql, [study_uid], |row| row.get(0))?;
            let event = acknowledged_event(connection, study_uid, &actor.name, &at)?;
            post(connection, &router(Event::Acknowledged(event)))?;
        }
        // Whoever is told is the node's to know: its environment may name channels that this process does not see.
        (Acknowledged::First, None) => {
            let sql = "UPDATE acknowledgements SET untold = 1
                       WHERE id = (SELECT max(id) FROM acknowledgements WHERE study_uid = ?1)";
            connection.execute(sql, [study_uid])?;
        }
        (Acknowledged::Before | Acknowledged::Seen, _) => {}
    }
    let outcome = match acknowledged {
        Acknowledged::First => "first",
        Acknowledged::Before => "acknowledged before",
        Acknowledged::Seen => "seen, not flagged",
    };
    let details = json!({ "outcome": outcome });
    let (actor, study_uid) = (actor.clone(), Some(study_uid.to_owned()));
    audit::append(connection, &Deed { actor, name: "study.acknowledge", study_uid, details })?;
    Ok(acknowledged)
}

/// Tells of the acknowledgements that another process wrote, but for those that were taken back meanwhile. Returns how many that were.
pub(super) fn tell_untold(connection: &Connection, router: &Router) -> Result<u64> {
    let untold = "SELECT study_uid, actor, at FROM acknowledgements WHERE untold = 1 AND undone_at IS NULL ORDER BY id";
    let mut untold = connection.prepare_cached(untold)?;
    let untold = untold.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let untold = untold.collect::<rusqlite::Result<Vec<(String, String, String)>>>()?;
    for (study_uid, by, at) in &untold {
        let event = acknowledged_event(connection, study_uid, by, at)?;
        post(connection, &router(Event::Acknowledged(event)))?;
    }
    connection.execute("UPDATE acknowledgements SET untold = 0 WHERE untold = 1", [])?;
    Ok(untold.len() as u64)
}

/// The event by which other channels hear of an acknowledgement.
fn acknowledged_event(connection: &Connection, study_uid: &str, by: &str, at: &str) -> Result<event::Acknowledged> {
    let mut senders = connection
        .prepare_cached("SELECT DISTINCT calling_ae FROM instances WHERE study_uid = ?1 ORDER BY calling_ae")?;
    let calling_ae_titles = senders.query_map([study_uid], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let sql = "SELECT accession_number, patient_id, station_name, revision,
                      (SELECT max(score) FROM verdicts v WHERE v.study_uid = studies.study_uid)
               FROM studies WHERE study_uid = ?1";
    Ok(connection.prepare_cached(sql)?.query_row([study_uid], |row| {
        Ok(event::Acknowledged {
            study_uid: study_uid.to_owned(),
            accession_number: row.get(0)?,
            patient_id: row.get(1)?,
            calling_ae_titles,
            station_name: row.get(2)?,
            revision: row.get(3)?,
            score: row.get(4)?,
            by: by.to_owned(),
            acknowledged_at: at.to_owned(),
        })
    })?)
}

/// `verdict`: the one that its person has seen.
fn write_acknowledgement(
    connection: &Connection,
    study_uid: &str,
    verdict: Option<i64>,
    offered: Option<DeedKind>,
    actor: &str,
    note: Option<&str>,
) -> Result<Acknowledged> {
    let at = now();
    let (can_be, is): (bool, bool) = connection.query_row(
        "SELECT flagged IS 1 OR verdict IS 'incomplete', acknowledged_at IS NOT NULL FROM studies WHERE study_uid = ?1",
        [study_uid],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let kind = if can_be { DeedKind::Acknowledged } else { DeedKind::Seen };
    // Of a study that was reopened, the verdict is the same and holds no more.
    if offered.is_some_and(|offered| offered != kind) {
        return Err(LedgerError::JudgedAgain(match kind {
            DeedKind::Acknowledged => {
                "the study is flagged or incomplete by now: look at it, and acknowledge it".into()
            }
            DeedKind::Seen => "the study is being judged again, and there is nothing to acknowledge: look at it".into(),
        }));
    }
    if can_be && is {
        return Ok(Acknowledged::Before);
    }
    connection.execute(
        "INSERT INTO acknowledgements (study_uid, verdict_id, kind, actor, note, at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![study_uid, verdict, kind.name(), actor, note, at],
    )?;
    if !can_be {
        connection.execute(
            "UPDATE studies SET seen_at = ?2, seen_by = ?3 WHERE study_uid = ?1",
            params![study_uid, at, actor],
        )?;
        return Ok(Acknowledged::Seen);
    }
    connection.execute(
        "UPDATE studies SET acknowledged_at = ?2, acknowledged_by = ?3 WHERE study_uid = ?1",
        params![study_uid, at, actor],
    )?;
    connection.execute(
        "UPDATE outbox SET acknowledged_at = ?2 WHERE study_uid = ?1 AND acknowledged_at IS NULL",
        params![study_uid, at],
    )?;
    Ok(Acknowledged::First)
}

/// A verdict as far as an acknowledgement depends on it.
struct Seen {
    flagged: Option<bool>,
    score: Option<f64>,
    positives: Option<i64>,
    series_flagged: Vec<String>,
}

/// The verdict that a deed is about: the one that was shown, if it covers all that were given since, by the rule by which
/// acknowledgements stay ([`keep_or_clear`]); the newest where nothing is said of it.
pub(super) fn verdict_shown(connection: &Connection, study_uid: &str, shown: &Shown) -> Result<Option<i64>> {
    let newest_until = |revision: i64| -> Result<Option<i64>> {
        let sql = "SELECT max(id) FROM verdicts WHERE study_uid = ?1 AND revision <= ?2";
        Ok(connection.prepare_cached(sql)?.query_row(params![study_uid, revision], |row| row.get(0))?)
    };
    let newest = newest_until(i64::MAX)?;
    let seen = match (shown.verdict, shown.revision) {
        (None, None) => return Ok(newest),
        (Some(verdict), _) => Some(verdict).filter(|verdict| *verdict != 0),
        (None, Some(revision)) => newest_until(revision)?,
    };
    if seen == newest {
        return Ok(seen);
    }
    let sql = "SELECT id FROM verdicts WHERE study_uid = ?1 AND id >= ?2 ORDER BY id";
    let mut since = connection.prepare_cached(sql)?;
    let since = since.query_map(params![study_uid, seen.unwrap_or(0)], |row| row.get(0))?;
    let since = since.collect::<rusqlite::Result<Vec<i64>>>()?;
    let covers = match (seen, since.split_first()) {
        (Some(seen), Some((first, later))) if *first == seen => {
            let old = verdict(connection, seen)?;
            let flagged = "SELECT flagged IS 1 FROM studies WHERE study_uid = ?1";
            let flagged = connection.query_row(flagged, [study_uid], |row| row.get(0))?;
            let mut covers = true;
            for id in later {
                covers &= match (&old, &verdict(connection, *id)?) {
                    (Some(old), Some(new)) => still_covers(old, new, flagged),
                    _ => false,
                };
            }
            covers
        }
        // A verdict of another study, or none at all.
        _ => false,
    };
    if covers { Ok(seen) } else { Err(judged_again(connection, study_uid, newest)?) }
}

fn judged_again(connection: &Connection, study_uid: &str, newest: Option<i64>) -> Result<LedgerError> {
    let sql = "SELECT iif(s.flagged = 1, 'FLAGGED', coalesce(s.verdict, 'receiving')), v.revision
               FROM studies s JOIN verdicts v ON v.id = ?2 WHERE s.study_uid = ?1";
    let said = connection.prepare_cached(sql)?.query_row(params![study_uid, newest], |row| {
        let (words, revision): (String, i64) = (row.get(0)?, row.get(1)?);
        Ok(format!("the study was judged since what you have seen: it is {words} now, revision {revision}"))
    });
    Ok(LedgerError::JudgedAgain(said.optional()?.unwrap_or_else(|| "the study has no such verdict".into())))
}

/// After a new verdict: the study's acknowledgement stays if it still covers what the study says, else the study is unread again.
pub(super) fn keep_or_clear(connection: &Connection, study_uid: &str, verdict_id: i64) -> Result<()> {
    let (acknowledged, seen, flagged): (bool, bool, bool) = connection.query_row(
        "SELECT acknowledged_at IS NOT NULL, seen_at IS NOT NULL, flagged IS 1 FROM studies WHERE study_uid = ?1",
        [study_uid],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    if !acknowledged && !seen {
        return Ok(());
    }
    let new = verdict(connection, verdict_id)?;
    let old: Option<Option<i64>> = connection
        .query_row(
            "SELECT verdict_id FROM acknowledgements WHERE study_uid = ?1 AND undone_at IS NULL ORDER BY id DESC LIMIT 1",
            [study_uid],
            |row| row.get(0),
        )
        .optional()?;
    let old = old.flatten().map(|id| verdict(connection, id)).transpose()?.flatten();
    let covers = match (new, old) {
        (Some(new), Some(old)) => acknowledged && still_covers(&old, &new, flagged),
        // An acknowledgement from before the first verdict covers none.
        _ => false,
    };
    if !covers {
        connection.execute(
            "UPDATE studies SET acknowledged_at = NULL, acknowledged_by = NULL, seen_at = NULL, seen_by = NULL
             WHERE study_uid = ?1",
            [study_uid],
        )?;
    }
    Ok(())
}

fn still_covers(old: &Seen, new: &Seen, study_is_flagged: bool) -> bool {
    match (old.flagged, new.flagged) {
        (Some(true), Some(true)) => {
            let more_score = new.score.unwrap_or(0.0) >= old.score.unwrap_or(0.0) + MATERIAL_SCORE;
            let more_positives = match (old.positives, new.positives) {
                // Two more, and half as many again: a slice more of the same bleed is not news.
                (Some(old), Some(new)) => new >= old + 2 && 2 * new >= 3 * old,
                _ => false,
            };
            let another_series = new.series_flagged.iter().any(|uid| !old.series_flagged.contains(uid));
            !(more_score || more_positives || another_series && !old.series_flagged.is_empty())
        }
        (_, Some(true)) => false,
        // The flag stays up, and somebody has seen it.
        (Some(true), _) if study_is_flagged => true,
        (None, None) => true,
        _ => false,
    }
}

fn verdict(connection: &Connection, id: i64) -> Result<Option<Seen>> {
    Ok(connection
        .prepare_cached("SELECT flagged, score, positives, series_flagged FROM verdicts WHERE id = ?1")?
        .query_row([id], |row| {
            let series: Option<String> = row.get(3)?;
            Ok(Seen {
                flagged: row.get(0)?,
                score: row.get(1)?,
                positives: row.get(2)?,
                series_flagged: series.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default(),
            })
        })
        .optional()?)
}
