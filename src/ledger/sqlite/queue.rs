//! The queue of slices. A slice stays in the state `queued` until it ends; who works on it meanwhile has a lease, which
//! stands in its row and was committed before the slice was touched.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use tokio::sync::Notify;
use triaged_imaging::Shows;

use super::priority::{KINDS, TAKEN_IN_AGAIN, is_new};
use super::store::replace_by_quarantined;
use super::study::reopen;
use super::{Ledger, Reader};
use crate::ledger::{
    Claim, Ended, Lease, LeaseRequest, LedgerError, Pending, Queue, QueueCount, Result, Score, SliceId, Studies,
    format_time, now,
};

/// While STAT slices wait, one in so many claims is another slice's, so that no patient waits for ever. So it is with new slices, while
/// others wait that are scored again or were taken in again: these are the only evidence of their study.
const OTHERS_TURN: u64 = 4;

/// No slice is kept from workers for longer than this. One that would be was written before the clock was set back, and is
/// available.
const LONGEST: Duration = Duration::from_secs(600);

/// Slices that a study gets in its turn. More of a large object, which is read anew for each turn.
const TURN: usize = 4;
const TURN_OF_LARGE: usize = 64;
const LARGE_BYTES: i64 = 16 << 20;
/// Senders, and studies of all of them, whose turns are looked at for one lease.
const MOST_SOURCES: usize = 16;
const MOST_STUDIES: usize = 16;
/// Senders whose last study is remembered. One that is forgotten begins with its first study again.
const MOST_REMEMBERED: usize = 1024;

/// Whose turn it is.
#[derive(Default)]
pub(super) struct Turns {
    /// Claims made while STAT and other slices waited.
    claims: AtomicU64,
    /// Claims made of others while new ones and some to be scored again waited.
    claims_of_others: AtomicU64,
    last: Mutex<LastTurns>,
}

/// Who had the last turn.
#[derive(Default)]
struct LastTurns {
    /// The priority, of each of [`KINDS`].
    priorities: [i64; 3],
    /// Whose slices, of each priority.
    of: HashMap<i64, LastTurn>,
}

#[derive(Default)]
struct LastTurn {
    source: String,
    /// The study of each sender that had its last turn.
    studies: HashMap<String, String>,
}

impl LastTurn {
    fn note(&mut self, source: &str, study_uid: &str) {
        if self.studies.len() > MOST_REMEMBERED {
            self.studies.clear();
        }
        self.source = source.to_owned();
        self.studies.insert(source.to_owned(), study_uid.to_owned());
    }
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
            // `triaged recover` takes in what nothing scores before the node starts. Without this, the hard cap would be past by then, and
            // every study be told of as incomplete before its first slice was looked at.
            connection.execute(
                "UPDATE studies SET opened_at = ?2 WHERE state = 'receiving' AND study_uid IN
                     (SELECT study_uid FROM slices INDEXED BY slices_turns WHERE state = 'queued' AND priority = ?1)",
                params![TAKEN_IN_AGAIN, now()],
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

    fn decline(&self, lease: Lease, reason: String, shows: Option<Shows>) -> Pending<'_, Ended> {
        Box::pin(self.end(lease, "ineligible", reason, shows))
    }

    fn fail(&self, lease: Lease, reason: String) -> Pending<'_, Ended> {
        Box::pin(self.end(lease, "failed", reason, None))
    }

    fn give_up_object(&self, lease: Lease, reason: String) -> Pending<'_, (Ended, u64)> {
        Box::pin(async move {
            let given_up = reason.clone();
            let others = self
                .write(move |connection| {
                    if !reopen_for(connection, lease)? {
                        return Ok(None);
                    }
                    let others = connection
                        .prepare_cached(
                            "UPDATE slices SET state = 'failed', reason = ?2, attempts = attempts + 1, lease = lease + 1,
                                    lease_owner = NULL, available_at = NULL
                             WHERE instance_id = (SELECT instance_id FROM slices WHERE id = ?1) AND id <> ?1
                               AND state = 'queued'",
                        )?
                        .execute(params![lease.slice, given_up])?;
                    Ok(Some(others as u64))
                })
                .await?;
            match others {
                None => Ok((Ended::LeaseLost, 0)),
                // Its own end comes last: then it is known whether nothing of the object could be read.
                Some(others) => Ok((self.end(lease, "failed", reason, None).await?, others)),
            }
        })
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
        let as_of = Instant::now();
        let (waiting, new_by_source) = self.read(|connection| {
            let mut count = connection.prepare_cached(
                "SELECT priority, source, count(*) FROM slices INDEXED BY slices_turns WHERE state = 'queued'
                 GROUP BY priority, source",
            )?;
            let rows = count.query_map([], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)? as u64))
            })?;
            let mut waiting = 0;
            let mut new_by_source = HashMap::new();
            for row in rows {
                let (priority, source, slices) = row?;
                waiting += slices;
                if is_new(priority) {
                    *new_by_source.entry(source).or_default() += slices;
                }
            }
            Ok((waiting, new_by_source))
        })?;
        let new = new_by_source.values().sum();
        let mut count = self.shared.count.lock().expect("nobody panics while holding it");
        // Two may count at the same time.
        if count.as_of < as_of {
            *count = Arc::new(QueueCount { as_of, waiting, new, new_by_source });
        }
        Ok(waiting)
    }

    fn last_count(&self) -> Arc<QueueCount> {
        self.shared.count.lock().expect("nobody panics while holding it").clone()
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
    async fn end(&self, lease: Lease, state: &'static str, reason: String, shows: Option<Shows>) -> Result<Ended> {
        let (ended, replaced) = self
            .write(move |connection| {
                if !reopen_for(connection, lease)? {
                    return Ok((Ended::LeaseLost, false));
                }
                connection
                    .prepare_cached(
                        "UPDATE slices SET state = ?2, reason = ?3, shows = ?4, attempts = attempts + 1, lease = lease + 1,
                                lease_owner = NULL, available_at = NULL
                         WHERE id = ?1",
                    )?
                    .execute(params![lease.slice, state, reason, shows.map(Shows::name)])?;
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
/// that are scored again or were taken in again, likewise.
fn choose(connection: &Connection, turns: &Turns, request: &LeaseRequest) -> Result<Vec<Claim>> {
    let most = request.most;
    let mut last = turns.last.lock().expect("nobody panics while holding it");
    let mut next = |kind: usize| -> Result<_> {
        let mut priorities = KINDS[kind];
        // Beginning behind the one that had the last turn: a lease may be of one slice.
        if last.priorities[kind] == priorities[0] {
            priorities.reverse();
        }
        let mut lists = Vec::new();
        for priority in priorities {
            lists.push(by_turns(connection, priority, last.of.entry(priority).or_default(), most)?);
        }
        Ok(alternating(lists).into_iter().peekable())
    };
    let [mut stat, mut new, mut again] = [next(0)?, next(1)?, next(2)?];
    let mut claims = Vec::new();
    while claims.len() < most {
        let both = stat.peek().is_some() && (new.peek().is_some() || again.peek().is_some());
        let others_turn = both && turns.claims.fetch_add(1, Ordering::Relaxed) % OTHERS_TURN == OTHERS_TURN - 1;
        let kind = match (stat.peek().is_some() && !others_turn, new.peek().is_some(), again.peek().is_some()) {
            (true, ..) => 0,
            (false, true, true) => {
                let claims = turns.claims_of_others.fetch_add(1, Ordering::Relaxed);
                if claims % OTHERS_TURN == OTHERS_TURN - 1 { 2 } else { 1 }
            }
            (false, true, false) => 1,
            (false, false, _) => 2,
        };
        let claim = match kind {
            0 => stat.next(),
            1 => new.next(),
            _ => again.next(),
        };
        let Some(Waiting { claim, source, priority, .. }) = claim else { break };
        last.priorities[kind] = priority;
        last.of.entry(priority).or_default().note(&source, &claim.study_uid);
        claims.push(claim);
    }
    drop(last);
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

/// A slice that may be leased.
struct Waiting {
    claim: Claim,
    source: Arc<str>,
    priority: i64,
    is_large: bool,
}

/// The queued slices of a priority that nobody has leased: the senders in turns, and the studies of each in turns, beginning behind those
/// that had the last one. So neither a large study nor a sender of many keeps the others waiting. Their leases are the ones they had
/// before.
fn by_turns(connection: &Connection, priority: i64, last: &LastTurn, most: usize) -> Result<Vec<Waiting>> {
    let (now, longest) = (now(), from_now(LONGEST));
    let mut next_source = connection.prepare_cached(
        "SELECT source FROM slices INDEXED BY slices_turns
         WHERE state = 'queued' AND priority = ?1 AND source > ?2
           AND (available_at IS NULL OR available_at <= ?3 OR available_at > ?4)
         ORDER BY source LIMIT 1",
    )?;
    let sources = in_turn(&last.source, MOST_SOURCES, |behind| {
        Ok(next_source.query_row(params![priority, behind, now, longest], |row| row.get(0)).optional()?)
    })?;
    let most_studies = MOST_STUDIES.div_ceil(sources.len().max(1));
    let mut next_study = connection.prepare_cached(
        "SELECT study_uid FROM slices INDEXED BY slices_turns
         WHERE state = 'queued' AND priority = ?1 AND source = ?5 AND study_uid > ?2
           AND (available_at IS NULL OR available_at <= ?3 OR available_at > ?4)
         ORDER BY study_uid LIMIT 1",
    )?;
    let mut slices = connection.prepare_cached(
        "SELECT s.id, s.study_uid, i.sop_uid, s.frame, i.path, s.attempts, s.claims, i.transfer_syntax, s.head_check, s.lease,
                i.size
         FROM slices s INDEXED BY slices_turns JOIN instances i ON i.id = s.instance_id
         WHERE s.state = 'queued' AND s.priority = ?1 AND s.source = ?6 AND s.study_uid = ?2
           AND (s.available_at IS NULL OR s.available_at <= ?4 OR s.available_at > ?5)
         ORDER BY s.id LIMIT ?3",
    )?;
    let mut of_sources = Vec::new();
    for source in sources {
        let source: Arc<str> = source.into();
        let behind = last.studies.get(&*source).map_or("", String::as_str);
        let studies = in_turn(behind, most_studies, |behind| {
            let study = next_study.query_row(params![priority, behind, now, longest, &*source], |row| row.get(0));
            Ok(study.optional()?)
        })?;
        let mut of_studies = Vec::new();
        for study in studies {
            let waiting = |row: &Row<'_>| {
                let is_large = row.get::<_, i64>(10)? >= LARGE_BYTES;
                Ok(Waiting { claim: claim(row, row.get(9)?, &now)?, source: source.clone(), priority, is_large })
            };
            let rows = slices.query_map(params![priority, study, most as i64, now, longest, &*source], waiting)?;
            of_studies.push(rows.collect::<rusqlite::Result<Vec<Waiting>>>()?);
        }
        of_sources.push(alternating(of_studies));
    }
    let mut waiting = alternating(of_sources);
    waiting.truncate(most);
    Ok(waiting)
}

/// Names in ascending order, beginning behind `last` and going round, at most so many. `next` is the first name behind another.
fn in_turn(last: &str, most: usize, mut next: impl FnMut(&str) -> Result<Option<String>>) -> Result<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    let (mut behind, mut wrapped) = (last.to_owned(), false);
    while names.len() < most {
        match next(&behind)? {
            Some(name) if wrapped && (name.as_str() > last || names.contains(&name)) => break,
            Some(name) => {
                behind.clone_from(&name);
                names.push(name);
            }
            None if wrapped => break,
            None => (behind, wrapped) = (String::new(), true),
        }
    }
    Ok(names)
}

/// A turn of each list, then another of each.
fn alternating(lists: Vec<Vec<Waiting>>) -> Vec<Waiting> {
    let mut lists: Vec<_> = lists.into_iter().map(|list| list.into_iter().peekable()).collect();
    let mut all = Vec::new();
    while lists.iter_mut().any(|list| list.peek().is_some()) {
        for list in &mut lists {
            let turn = if list.peek().is_some_and(|waiting| waiting.is_large) { TURN_OF_LARGE } else { TURN };
            all.extend(list.take(turn));
        }
    }
    all
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
    let found = score.location.as_ref();
    connection
        .prepare_cached(
            "INSERT INTO scores (slice_id, probability, positive, threshold, model, model_sha256, provider, software,
                                 claimed_at, decoded_at, scored_at, box_left, box_top, box_width, box_height, slice_rows, slice_columns)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
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
            score.scored_at,
            found.map(|found| found.pixel_box.left),
            found.map(|found| found.pixel_box.top),
            found.map(|found| found.pixel_box.width),
            found.map(|found| found.pixel_box.height),
            found.map(|found| found.rows),
            found.map(|found| found.columns),
        ])?;
    let id = connection.last_insert_rowid();
    if let Some(map) = found.map(|found| &found.map) {
        let [left, top, width, height] = map.covers;
        connection
            .prepare_cached(
                "INSERT INTO heat_maps (score_id, map_rows, map_columns, map, left, top, width, height)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![id, map.rows, map.columns, map.values, left, top, width, height])?;
    }
    connection
        .prepare_cached(
            "UPDATE slices SET state = 'scored', reason = NULL, attempts = attempts + 1, score_id = ?2, shows = ?3,
                    lease = lease + 1, lease_owner = NULL, available_at = NULL
             WHERE id = ?1",
        )?
        .execute(params![slice, id, score.shows.name()])?;
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
