//! The queue of slices. A slice stays in the state `queued` until it ends; who works on it meanwhile has a lease, which
//! stands in its row and was committed before the slice was touched.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use tokio::sync::Notify;

use super::store::replace_by_quarantined;
use super::study::reopen;
use super::{Ledger, Reader};
use crate::ledger::{
    Claim, Ended, Lease, LeaseRequest, LedgerError, Pending, Queue, Result, Score, SliceId, format_time, now,
};

/// While STAT slices wait, one in so many claims is another slice's, so that no patient waits for ever.
const OTHERS_TURN: u64 = 4;

/// No slice is kept from workers for longer than this. One that would be was written before the clock was set back, and is
/// available.
const LONGEST: Duration = Duration::from_secs(600);

/// Slices that a study gets in its turn. More of a large object, which is read anew for each turn.
const TURN: usize = 4;
const TURN_OF_LARGE: usize = 64;
const LARGE_BYTES: i64 = 16 << 20;
/// Studies whose turns are looked at for one lease.
const MOST_STUDIES: usize = 16;

/// Whose turn it is.
#[derive(Default)]
pub(super) struct Turns {
    /// Claims made while STAT and other slices waited.
    claims: AtomicU64,
    /// The study that had the last turn: of STAT slices, of new ones, of those that are scored again.
    last_studies: Mutex<[String; 3]>,
}

impl Queue for Ledger {
    /// The node holds the lock of the data folder, so no other is alive: whatever is leased, a dead one had leased.
    fn recover(&self, _node: &str) -> Pending<'_, u64> {
        Box::pin(self.write(|connection| {
            let recovered = connection.execute(
                "UPDATE slices INDEXED BY slices_queued SET lease_owner = NULL, available_at = NULL
                 WHERE state = 'queued' AND available_at IS NOT NULL",
                [],
            )?;
            Ok(recovered as u64)
        }))
    }

    fn lease(&self, request: LeaseRequest) -> Pending<'_, Vec<Claim>> {
        let ledger = self.clone();
        // The writer thread is the receiving associations', too. So a reader chooses, and the writer takes what is still there.
        let lease = move || {
            let claims = ledger.read(|connection| choose(connection, &ledger.shared.turns, &request))?;
            match claims.is_empty() {
                true => Ok(claims),
                false => ledger.write_blocking(move |connection| take(connection, claims, &request)),
            }
        };
        Box::pin(async { tokio::task::spawn_blocking(lease).await.map_err(|_| LedgerError::Closed)? })
    }

    fn extend(&self, leases: Vec<Lease>, duration: Duration) -> Pending<'_, Vec<Lease>> {
        Box::pin(self.write(move |connection| {
            let until = from_now(duration);
            let mut extend = connection.prepare_cached(
                "UPDATE slices SET available_at = ?3 WHERE id = ?1 AND lease = ?2 AND state = 'queued'",
            )?;
            let mut lost = Vec::new();
            for lease in leases {
                if extend.execute(params![lease.slice, lease.number, until])? == 0 {
                    lost.push(lease);
                }
            }
            Ok(lost)
        }))
    }

    fn complete(&self, scores: Vec<Score>) -> Pending<'_, Vec<Lease>> {
        Box::pin(async {
            let complete_all = move |connection: &Connection| {
                let mut lost = Vec::new();
                for score in &scores {
                    if complete(connection, score)? == Ended::LeaseLost {
                        lost.push(score.lease);
                    }
                }
                Ok(lost)
            };
            let lost = self.write(complete_all).await?;
            self.changed().notify_waiters();
            Ok(lost)
        })
    }

    fn decline(&self, lease: Lease, reason: String) -> Pending<'_, Ended> {
        Box::pin(self.end(lease, "ineligible", reason))
    }

    fn fail(&self, lease: Lease, reason: String) -> Pending<'_, Ended> {
        Box::pin(self.end(lease, "failed", reason))
    }

    fn retry(&self, lease: Lease, reason: String, after: Duration) -> Pending<'_, Ended> {
        Box::pin(self.write(move |connection| {
            let changed = connection
                .prepare_cached(
                    "UPDATE slices SET attempts = attempts + 1, reason = ?3, lease = lease + 1, lease_owner = NULL,
                            available_at = ?4
                     WHERE id = ?1 AND lease = ?2 AND state = 'queued'",
                )?
                .execute(params![lease.slice, lease.number, reason, from_now(after)])?;
            Ok(if changed == 1 { Ended::Recorded } else { Ended::LeaseLost })
        }))
    }

    fn give_back(&self, leases: Vec<Lease>) -> Pending<'_, ()> {
        Box::pin(self.write(move |connection| {
            // The lease ends, so that what is given back twice is counted once.
            let mut back = connection.prepare_cached(
                "UPDATE slices SET claims = max(claims - 1, attempts), lease = lease + 1, lease_owner = NULL,
                        available_at = NULL
                 WHERE id = ?1 AND lease = ?2 AND state = 'queued'",
            )?;
            leases.iter().try_for_each(|lease| back.execute([lease.slice, lease.number]).map(drop))?;
            Ok(())
        }))
    }

    fn queue_depth(&self) -> Result<u64> {
        let depth = self.read(|connection| {
            Ok(connection
                .prepare_cached("SELECT count(*) FROM slices INDEXED BY slices_queued WHERE state = 'queued'")?
                .query_row([], |row| row.get::<_, i64>(0))? as u64)
        })?;
        self.shared.depth.store(depth, Ordering::Relaxed);
        Ok(depth)
    }

    fn is_idle(&self) -> Result<bool> {
        self.read(|connection| {
            Ok(connection
                .prepare_cached(
                    "SELECT NOT EXISTS (SELECT 1 FROM slices INDEXED BY slices_queued WHERE state = 'queued')",
                )?
                .query_row([], |row| row.get(0))?)
        })
    }

    fn queued(&self) -> &Notify {
        &self.shared.wakeups.queued
    }
}

impl Ledger {
    /// The last count of [`Queue::queue_depth`]; the inference stage asks for one every second.
    pub fn last_queue_depth(&self) -> u64 {
        self.shared.depth.load(Ordering::Relaxed)
    }

    async fn end(&self, lease: Lease, state: &'static str, reason: String) -> Result<Ended> {
        let (ended, replaced) = self
            .write(move |connection| {
                if !reopen_for(connection, lease)? {
                    return Ok((Ended::LeaseLost, false));
                }
                connection
                    .prepare_cached(
                        "UPDATE slices SET state = ?2, reason = ?3, attempts = attempts + 1, lease = lease + 1,
                                lease_owner = NULL, available_at = NULL
                         WHERE id = ?1",
                    )?
                    .execute(params![lease.slice, state, reason])?;
                let instance = connection
                    .prepare_cached("SELECT instance_id FROM slices WHERE id = ?1")?
                    .query_row([lease.slice], |row| row.get(0))?;
                Ok((Ended::Recorded, replace_by_quarantined(connection, instance)?))
            })
            .await?;
        if replaced {
            self.queued().notify_waiters();
        }
        self.changed().notify_waiters();
        Ok(ended)
    }
}

/// A moment so long from now, as the ledger writes it.
fn from_now(duration: Duration) -> String {
    format_time(Timestamp::now().checked_add(duration).unwrap_or(Timestamp::MAX))
}

/// Chooses the next slices: STAT ones before others, three of four while both wait; new arrivals before slices
/// that are scored again.
fn choose(connection: &Connection, turns: &Turns, request: &LeaseRequest) -> Result<Vec<Claim>> {
    let most = request.most;
    let mut last_studies = turns.last_studies.lock().expect("nobody panics while holding it");
    let next =
        |priority, last: &str| by_turns(connection, priority, last, most).map(|claims| claims.into_iter().peekable());
    let mut stat = next(-1, &last_studies[0])?;
    let mut new = next(0, &last_studies[1])?;
    let mut again = next(1, &last_studies[2])?;
    let mut claims = Vec::new();
    while claims.len() < most {
        let both = stat.peek().is_some() && (new.peek().is_some() || again.peek().is_some());
        let others_turn = both && turns.claims.fetch_add(1, Ordering::Relaxed) % OTHERS_TURN == OTHERS_TURN - 1;
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
    drop(last_studies);
    Claim::cut_at_suspect(&mut claims, request.is_idle);
    Ok(claims)
}

/// Leases slices that were chosen; not those that somebody else leased since.
fn take(connection: &Connection, chosen: Vec<Claim>, request: &LeaseRequest) -> Result<Vec<Claim>> {
    let (owner, until) = (request.worker.to_string(), from_now(request.duration));
    let mut take = connection.prepare_cached(
        "UPDATE slices SET claims = claims + (lease_owner IS NOT ?3), lease = lease + 1, lease_owner = ?3, available_at = ?4
         WHERE id = ?1 AND lease = ?2 AND state = 'queued'",
    )?;
    let mut taken = Vec::with_capacity(chosen.len());
    for mut claim in chosen {
        if take.execute(params![claim.lease.slice, claim.lease.number, owner, until])? == 1 {
            claim.lease.number += 1;
            taken.push(claim);
        }
    }
    Ok(taken)
}

/// The queued slices of a priority that nobody has leased, study by study in turns, beginning behind the study that had the last
/// one, so that a large study does not keep the others waiting. Their leases are the ones they had before.
fn by_turns(connection: &Connection, priority: i64, last: &str, most: usize) -> Result<Vec<Claim>> {
    let (now, longest) = (now(), from_now(LONGEST));
    let mut next_study = connection.prepare_cached(
        "SELECT study_uid FROM slices INDEXED BY slices_turns
         WHERE state = 'queued' AND priority = ?1 AND study_uid > ?2
           AND (available_at IS NULL OR available_at <= ?3 OR available_at > ?4)
         ORDER BY study_uid LIMIT 1",
    )?;
    let mut studies: Vec<String> = Vec::new();
    let (mut behind, mut wrapped) = (last.to_owned(), false);
    while studies.len() < MOST_STUDIES {
        let next = next_study.query_row(params![priority, behind, now, longest], |row| row.get::<_, String>(0));
        match next.optional()? {
            Some(study) if wrapped && (study.as_str() > last || studies.contains(&study)) => break,
            Some(study) => {
                behind.clone_from(&study);
                studies.push(study);
            }
            None if wrapped => break,
            None => (behind, wrapped) = (String::new(), true),
        }
    }
    let mut slices = connection.prepare_cached(
        "SELECT s.id, s.study_uid, i.sop_uid, s.frame, i.path, s.attempts, s.claims, i.transfer_syntax, s.head_check, s.lease,
                i.size
         FROM slices s INDEXED BY slices_turns JOIN instances i ON i.id = s.instance_id
         WHERE s.state = 'queued' AND s.priority = ?1 AND s.study_uid = ?2
           AND (s.available_at IS NULL OR s.available_at <= ?4 OR s.available_at > ?5)
         ORDER BY s.id LIMIT ?3",
    )?;
    let mut waiting = Vec::new();
    for study in studies {
        let claim = |row: &Row<'_>| Ok((claim(row, row.get(9)?, &now)?, row.get::<_, i64>(10)? >= LARGE_BYTES));
        let rows = slices.query_map(params![priority, study, most as i64, now, longest], claim)?;
        waiting.push(rows.collect::<rusqlite::Result<Vec<(Claim, bool)>>>()?.into_iter().peekable());
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

/// From the columns id, study_uid, sop_uid, frame, path, attempts, claims, transfer_syntax and head_check, in this order.
pub(super) fn claim(row: &Row<'_>, lease: i64, claimed_at: &str) -> rusqlite::Result<Claim> {
    let attempts = row.get(5)?;
    Ok(Claim {
        lease: Lease { slice: row.get(0)?, number: lease },
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

/// Whether a lease is the latest of a slice that has not ended. Where it is, and the hard cap decided the study while the slice
/// still waited, reopens the study.
fn reopen_for(connection: &Connection, lease: Lease) -> Result<bool> {
    let study: Option<(String, bool)> = connection
        .prepare_cached(
            "SELECT t.study_uid, t.state = 'decided' FROM slices s JOIN studies t ON t.study_uid = s.study_uid
             WHERE s.id = ?1 AND s.lease = ?2 AND s.state = 'queued'",
        )?
        .query_row([lease.slice, lease.number], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    if let Some((study_uid, true)) = &study {
        reopen(connection, study_uid)?;
    }
    Ok(study.is_some())
}

fn complete(connection: &Connection, score: &Score) -> Result<Ended> {
    if !reopen_for(connection, score.lease)? {
        return Ok(Ended::LeaseLost);
    }
    let slice: SliceId = score.lease.slice;
    connection
        .prepare_cached(
            "INSERT INTO scores (slice_id, probability, positive, threshold, model, model_sha256, provider, software,
                                 claimed_at, decoded_at, scored_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?
        .execute(params![
            slice,
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
            "UPDATE slices SET state = 'scored', reason = NULL, attempts = attempts + 1, score_id = ?2, lease = lease + 1,
                    lease_owner = NULL, available_at = NULL
             WHERE id = ?1",
        )?
        .execute(params![slice, id])?;
    Ok(Ended::Recorded)
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
