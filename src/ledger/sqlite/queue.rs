//! The queue of slices: claim, complete, fail, and nothing else. Everything the inference stage knows of the ledger is
//! in this file, so that another queue can stand in its place one day.
//!
//! A claim changes no state: a slice stays `queued` until it ends, so whatever was claimed when the process died is queued
//! when it starts again. The claimer keeps the ids it holds and names them, so that it is not given them twice.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::store::replace_by_quarantined;
use super::study::reopen;
use super::{Ledger, Reader};
use crate::ledger::{Claim, Result, Score, SliceId, now};

impl Claim {
    /// From the columns id, study_uid, sop_uid, frame, path, attempts, claims, transfer_syntax and head_check, in this order.
    pub(super) fn from_row(row: &Row<'_>, claimed_at: &str) -> rusqlite::Result<Self> {
        let attempts = row.get(5)?;
        Ok(Self {
            slice: row.get(0)?,
            study_uid: row.get(1)?,
            sop_uid: row.get(2)?,
            frame: row.get(3)?,
            path: row.get(4)?,
            transfer_syntax: row.get(7)?,
            head_check: row.get(8)?,
            attempts,
            deaths: row.get::<_, u32>(6)?.saturating_sub(attempts),
            claimed_at: claimed_at.to_owned(),
        })
    }
}

/// While STAT slices wait, one in so many claims is another slice's, so that no patient waits for ever.
const OTHERS_TURN: u64 = 4;

impl Ledger {
    /// The next queued slices that are not `held` already, at most `most`: STAT ones before others, three of four while both
    /// wait; new arrivals before slices that are scored again. Within each kind studies take turns, so that a large one does not
    /// keep the others waiting. Blocks.
    pub fn claim(&self, held: &HashSet<SliceId>, most: usize) -> Result<Vec<Claim>> {
        let mut last_studies = self.shared.last_studies.lock().expect("nobody panics while holding it");
        let [stat, new, again] = self.read(|connection| {
            let claims = |priority, last: &str| by_turns(connection, priority, last, held, most);
            Ok([claims(-1, &last_studies[0])?, claims(0, &last_studies[1])?, claims(1, &last_studies[2])?])
        })?;
        let (mut stat, mut new, mut again) =
            (stat.into_iter().peekable(), new.into_iter().peekable(), again.into_iter().peekable());
        let mut claims = Vec::new();
        while claims.len() < most {
            let both = stat.peek().is_some() && (new.peek().is_some() || again.peek().is_some());
            let others_turn =
                both && self.shared.turns.fetch_add(1, Ordering::Relaxed) % OTHERS_TURN == OTHERS_TURN - 1;
            let of_others = new.peek().map_or(2, |_| 1);
            let kind = if stat.peek().is_some() && !others_turn { 0 } else { of_others };
            let claim = match kind {
                0 => stat.next(),
                1 => new.next(),
                _ => again.next(),
            };
            let Some(claim) = claim else { break };
            last_studies[kind].clone_from(&claim.study_uid);
            claims.push(claim);
        }
        Ok(claims)
    }

    /// Counts a claim, before its slices are touched: a slice that takes the process with it must not do so for ever.
    pub async fn count_claims(&self, slices: Vec<SliceId>) -> Result<()> {
        self.write(move |connection| {
            let mut count = connection.prepare_cached("UPDATE slices SET claims = claims + 1 WHERE id = ?1")?;
            slices.iter().try_for_each(|slice| count.execute([slice]).map(drop))?;
            Ok(())
        })
        .await
    }

    /// Takes back the claims of slices, because the process ends and they are not why.
    pub async fn give_back(&self, slices: Vec<SliceId>) -> Result<()> {
        self.write(move |connection| {
            let mut back = connection.prepare_cached(
                "UPDATE slices SET claims = claims - 1 WHERE id = ?1 AND state = 'queued' AND claims > attempts",
            )?;
            slices.iter().try_for_each(|slice| back.execute([slice]).map(drop))?;
            Ok(())
        })
        .await
    }

    /// Ends slices as scored.
    pub async fn complete(&self, scores: Vec<Score>) -> Result<()> {
        self.write(move |connection| scores.iter().try_for_each(|score| complete(connection, score))).await?;
        self.changed().notify_waiters();
        Ok(())
    }

    /// Ends a slice as ineligible: the object itself cannot be triaged.
    pub async fn decline(&self, slice: SliceId, reason: String) -> Result<()> {
        self.end(slice, "ineligible", reason).await
    }

    /// Ends a slice as failed, or leaves it queued with one more attempt counted while `attempts + 1 < max_attempts`.
    /// Returns whether it will be tried again.
    pub async fn fail(&self, slice: SliceId, attempts: u32, max_attempts: u32, reason: String) -> Result<bool> {
        if attempts + 1 >= max_attempts {
            self.end(slice, "failed", reason).await?;
            return Ok(false);
        }
        self.write(move |connection| {
            connection
                .prepare_cached(
                    "UPDATE slices SET attempts = attempts + 1, reason = ?2 WHERE id = ?1 AND state = 'queued'",
                )?
                .execute(params![slice, reason])?;
            Ok(())
        })
        .await?;
        Ok(true)
    }

    /// Puts slices of an open study that another model scored back into the queue: a verdict is on one model's scores.
    pub async fn requeue_other_models(&self, study_uid: String, model_sha256: String) -> Result<()> {
        self.write(move |connection| {
            // Without its file it can be scored by no other model.
            connection.execute(
                "UPDATE slices SET state = 'failed', score_id = NULL,
                        reason = 'scored by another model, and its file was removed from the archive since'
                 WHERE study_uid = ?1 AND state = 'scored'
                   AND score_id IN (SELECT id FROM scores WHERE slice_id = slices.id AND model_sha256 <> ?2)
                   AND instance_id IN (SELECT id FROM instances WHERE study_uid = ?1 AND removed_at IS NOT NULL)",
                params![study_uid, model_sha256],
            )?;
            connection.execute(
                "UPDATE slices SET state = 'queued', attempts = 0, claims = 0, score_id = NULL
                 WHERE study_uid = ?1 AND state = 'scored'
                   AND score_id IN (SELECT id FROM scores WHERE slice_id = slices.id AND model_sha256 <> ?2)",
                params![study_uid, model_sha256],
            )?;
            Ok(())
        })
        .await?;
        self.queued().notify_waiters();
        Ok(())
    }

    async fn end(&self, slice: SliceId, state: &'static str, reason: String) -> Result<()> {
        self.write(move |connection| {
            reopen_for(connection, slice)?;
            connection
                .prepare_cached(
                    "UPDATE slices SET state = ?2, reason = ?3, attempts = attempts + 1
                     WHERE id = ?1 AND state = 'queued'",
                )?
                .execute(params![slice, state, reason])?;
            let instance =
                connection.query_row("SELECT instance_id FROM slices WHERE id = ?1", [slice], |row| row.get(0))?;
            replace_by_quarantined(connection, instance)
        })
        .await
        .inspect(|replaced| {
            if *replaced {
                self.queued().notify_waiters();
            }
        })?;
        self.changed().notify_waiters();
        Ok(())
    }

    /// How many slices wait.
    pub fn queue_depth(&self) -> Result<u64> {
        let depth = self.read(|connection| {
            Ok(connection
                .prepare_cached("SELECT count(*) FROM slices INDEXED BY slices_queued WHERE state = 'queued'")?
                .query_row([], |row| row.get::<_, i64>(0))? as u64)
        })?;
        self.shared.depth.store(depth, Ordering::Relaxed);
        Ok(depth)
    }

    /// What [`Ledger::queue_depth`] counted last; the inference stage asks it every second.
    pub fn last_queue_depth(&self) -> u64 {
        self.shared.depth.load(Ordering::Relaxed)
    }

    /// Puts every slice of a study that was scored or failed back into the queue, as far as the archive still has its file, and
    /// reopens the study as its next revision. Returns how many slices that is.
    pub fn requeue_study(&self, study_uid: &str) -> Result<u64> {
        let study_uid = study_uid.to_owned();
        let slices = self.write_blocking(move |connection| {
            let slices = connection.execute(
                "UPDATE slices SET state = 'queued', reason = NULL, attempts = 0, claims = 0, priority = 1, score_id = NULL
                 WHERE study_uid = ?1 AND state IN ('scored', 'failed')
                   AND instance_id IN (SELECT id FROM instances WHERE study_uid = ?1 AND removed_at IS NULL)",
                [&study_uid],
            )?;
            if slices > 0 {
                reopen(connection, &study_uid)?;
                // For one that was open its time begins anew, too: the slices have to wait again.
                connection.execute("UPDATE studies SET opened_at = ?2 WHERE study_uid = ?1", params![study_uid, now()])?;
            }
            Ok(slices as u64)
        })?;
        self.queued().notify_waiters();
        Ok(slices)
    }
}

/// Slices that a study gets in its turn. More of a large object, which is read anew for each turn.
const TURN: usize = 4;
const TURN_OF_LARGE: usize = 64;
const LARGE_BYTES: i64 = 16 << 20;
/// Studies whose turns are looked at for one claim.
const MOST_STUDIES: usize = 16;

/// The queued slices of a priority, study by study in turns, beginning behind the study that had the last one.
fn by_turns(
    connection: &Connection,
    priority: i64,
    last: &str,
    held: &HashSet<SliceId>,
    most: usize,
) -> Result<Vec<Claim>> {
    let mut next_study = connection.prepare_cached(
        "SELECT min(study_uid) FROM slices INDEXED BY slices_turns
         WHERE state = 'queued' AND priority = ?1 AND study_uid > ?2",
    )?;
    let mut studies: Vec<String> = Vec::new();
    let (mut behind, mut wrapped) = (last.to_owned(), false);
    while studies.len() < MOST_STUDIES {
        match next_study.query_row(params![priority, behind], |row| row.get::<_, Option<String>>(0))? {
            Some(study) if wrapped && (study.as_str() > last || studies.contains(&study)) => break,
            Some(study) => {
                behind.clone_from(&study);
                studies.push(study);
            }
            None if wrapped => break,
            None => (behind, wrapped) = (String::new(), true),
        }
    }
    let claimed_at = now();
    let mut slices = connection.prepare_cached(
        "SELECT s.id, s.study_uid, i.sop_uid, s.frame, i.path, s.attempts, s.claims, i.transfer_syntax, s.head_check, i.size
         FROM slices s INDEXED BY slices_turns JOIN instances i ON i.id = s.instance_id
         WHERE s.state = 'queued' AND s.priority = ?1 AND s.study_uid = ?2 ORDER BY s.id LIMIT ?3",
    )?;
    let mut waiting = Vec::new();
    for study in studies {
        let claim = |row: &Row<'_>| Ok((Claim::from_row(row, &claimed_at)?, row.get::<_, i64>(9)? >= LARGE_BYTES));
        let rows = slices.query_map(params![priority, study, (held.len() + most) as i64], claim)?;
        let fresh = rows.filter(|row| row.as_ref().map_or(true, |(claim, _)| !held.contains(&claim.slice)));
        waiting.push(fresh.take(most).collect::<rusqlite::Result<Vec<(Claim, bool)>>>()?.into_iter().peekable());
    }
    let mut claims = Vec::new();
    while claims.len() < most && waiting.iter_mut().any(|study| study.peek().is_some()) {
        for study in &mut waiting {
            let turn = if study.peek().is_some_and(|(_, is_large)| *is_large) { TURN_OF_LARGE } else { TURN };
            claims.extend(study.take(turn).map(|(claim, _)| claim));
        }
    }
    claims.truncate(most);
    Ok(claims)
}

/// Reopens the study of a slice that waited until the hard cap decided it.
fn reopen_for(connection: &Connection, slice: SliceId) -> Result<()> {
    let study: Option<String> = connection
        .prepare_cached(
            "SELECT t.study_uid FROM slices s JOIN studies t ON t.study_uid = s.study_uid
             WHERE s.id = ?1 AND s.state = 'queued' AND t.state = 'decided'",
        )?
        .query_row([slice], |row| row.get(0))
        .optional()?;
    study.map_or(Ok(()), |study| reopen(connection, &study))
}

fn complete(connection: &Connection, score: &Score) -> Result<()> {
    reopen_for(connection, score.slice)?;
    connection
        .prepare_cached(
            "INSERT INTO scores (slice_id, probability, positive, threshold, model, model_sha256, provider, software,
                                 claimed_at, decoded_at, scored_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?
        .execute(params![
            score.slice,
            score.probability,
            score.positive,
            score.threshold,
            score.model,
            score.model_sha256,
            score.provider,
            crate::SOFTWARE,
            score.claimed_at,
            score.decoded_at,
            score.scored_at
        ])?;
    let id = connection.last_insert_rowid();
    connection
        .prepare_cached(
            "UPDATE slices SET state = 'scored', reason = NULL, attempts = attempts + 1, score_id = ?2
             WHERE id = ?1 AND state = 'queued'",
        )?
        .execute(params![score.slice, id])?;
    Ok(())
}

impl Reader {
    /// How many slices of some studies wait to be scored, and how many of these studies wait for their verdict.
    pub fn waiting(&self, study_uids: &[String]) -> Result<(u64, u64)> {
        let uids = serde_json::to_string(study_uids).expect("strings are JSON");
        self.read(|connection| {
            let count = |sql| -> Result<u64> {
                Ok(connection.prepare_cached(sql)?.query_row([&uids], |row| row.get::<_, i64>(0))? as u64)
            };
            Ok((
                count(
                    "SELECT count(*) FROM slices INDEXED BY slices_queued
                     WHERE state = 'queued' AND study_uid IN (SELECT value FROM json_each(?1))",
                )?,
                count(
                    "SELECT count(*) FROM studies INDEXED BY studies_open
                     WHERE state = 'receiving' AND study_uid IN (SELECT value FROM json_each(?1))",
                )?,
            ))
        })
    }
}
