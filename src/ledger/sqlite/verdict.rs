//! Studies that are open, and their verdicts. A verdict, the worklist row and the outbox rows are one transaction.

use rusqlite::{Connection, OptionalExtension, Row, params};

use tokio::sync::Notify;
use triaged_imaging::Shows;

use super::Ledger;
use super::acknowledgement::keep_or_clear;
use super::outbox::post;
use super::priority::SCORED_AGAIN;
use super::study::FEWER_IMAGES;
use crate::event::TopSlice;
use crate::ledger::records::pixel_box;
use crate::ledger::{
    Finding, NewMessage, OpenStudy, Outbox, Pending, Queue, Result, SliceEvidence, SliceId, SliceState, Studies,
    Verdict,
};

/// Why a slice failed that another model scored, and that cannot be scored again.
pub(super) const FILE_REMOVED: &str = "scored by another model, and its file was removed from the archive since";

/// What series of the study ?1 lack: objects that were refused, and parts of concatenations. Series, words, count.
const LACKING: &str = "SELECT series_uid, iif(count(*) = 1, '1 object of it was', count(*) || ' objects of it were')
                || ' not taken and did not come since (' || min(reason) || ')', count(*)
         FROM refused WHERE study_uid = ?1 GROUP BY series_uid
     UNION ALL
         SELECT series_uid, (max(concatenation_total) - count(*)) || ' of ' || max(concatenation_total)
                || ' parts of a concatenation did not come', 0
         FROM instances INDEXED BY instances_concatenated WHERE study_uid = ?1 AND concatenation IS NOT NULL
         GROUP BY series_uid, concatenation HAVING count(*) < max(concatenation_total)";

impl Studies for Ledger {
    fn open_studies(&self, model_sha256: &str) -> Result<Vec<OpenStudy>> {
        self.read(|connection| {
            let mut studies = connection.prepare_cached(
                "SELECT study_uid, accession_number, patient_id, revision, flagged, slices_received, slices_ineligible,
                        slices_failed, opened_at, first_received_at, last_received_at,
                        former_patient_ids IS NOT NULL, set_aside, several_names, broken_off, refused_more, acknowledged_at IS NOT NULL
                 FROM studies INDEXED BY studies_open WHERE state = 'receiving'",
            )?;
            let mut slices = connection.prepare_cached(
                "SELECT i.series_uid, s.reason, i.instance_number, s.frame, s.position, s.orientation, s.thickness, s.doubts,
                        s.is_substitute, s.id, s.shows, s.lacking, s.location, s.state, s.attempts > 0, s.shows IS NOT NULL, c.probability, c.positive, coalesce(c.model_sha256 <> ?2, 0), s.priority
                 FROM slices s JOIN instances i ON i.id = s.instance_id LEFT JOIN scores c ON c.id = s.score_id
                 WHERE s.study_uid = ?1",
            )?;
            let mut lacking = connection.prepare_cached(LACKING)?;
            let mut fewer_said =
                connection.prepare_cached("SELECT max(images_in_acquisition) FROM instances WHERE study_uid = ?1")?;
            let mut judged = connection.prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM verdicts WHERE study_uid = ?1 AND NOT provisional AND last_received_at = ?2)",
            )?;
            let rows = studies.query_map([], |row| {
                let study_uid: String = row.get(0)?;
                let slices =
                    slices.query_map([study_uid.as_str(), model_sha256], |row| Ok((evidence(row)?, row.get(18)?, row.get(19)?)))?;
                let slices = slices.collect::<rusqlite::Result<Vec<(SliceEvidence, bool, i64)>>>()?;
                let mut waiting = slices.iter().filter(|(slice, ..)| slice.state == SliceState::Queued).peekable();
                // Only where all that came was judged before: what came since is told of in time.
                let waits_to_be_scored_again = waiting.peek().is_some()
                    && waiting.all(|(.., priority)| *priority == SCORED_AGAIN)
                    && judged.query_row((&study_uid, row.get::<_, String>(10)?), |row| row.get(0))?;
                let mut slices: Vec<(SliceEvidence, bool)> =
                    slices.into_iter().map(|(slice, other, _)| (slice, other)).collect();
                let (mut refused, mut refused_elsewhere) = (0, 0);
                let is_broken_off: bool = row.get(14)?;
                let said = |row: &Row<'_>| -> rusqlite::Result<(String, String, i64)> { Ok((row.get(0)?, row.get(1)?, row.get(2)?)) };
                let mut rows = lacking.query_map([&study_uid], said)?.collect::<rusqlite::Result<Vec<_>>>()?;
                let mut fewer_images = connection.prepare_cached(FEWER_IMAGES)?;
                let fewer = fewer_images.query_map([&study_uid], said)?.collect::<rusqlite::Result<Vec<_>>>()?;
                // An acquisition of several reconstructions is counted as one: with all of them it is whole.
                let said_of_all: Option<i64> = fewer_said.query_row([&study_uid], |row| row.get(0))?;
                let is_whole = said_of_all.is_none_or(|all| slices.len() as i64 >= all);
                let fewer_images = fewer.first().filter(|_| !is_whole).map(|(_, said, _)| said.clone());
                if is_broken_off {
                    let broken_off = |(series, said, count)| (series, format!("the association was broken off, and {said}"), count);
                    rows.extend(fewer.into_iter().map(broken_off));
                }
                for (series_uid, said, count) in rows {
                    refused += count;
                    let mut of_series = slices.iter_mut().filter(|(slice, _)| slice.series_uid == series_uid).peekable();
                    if of_series.peek().is_none() {
                        refused_elsewhere += count;
                    }
                    of_series.for_each(|(slice, _)| {
                        slice.lacking = Some(slice.lacking.iter().chain([&said]).cloned().collect::<Vec<_>>().join("; "));
                    });
                }
                Ok(OpenStudy {
                    study_uid,
                    accession_number: row.get(1)?,
                    patient_id: row.get(2)?,
                    revision: row.get(3)?,
                    flagged: row.get::<_, Option<bool>>(4)? == Some(true),
                    is_acknowledged: row.get::<_, Option<bool>>(4)? == Some(true) && row.get(16)?,
                    waits_to_be_scored_again,
                    slices_received: row.get(5)?,
                    slices_ineligible: row.get(6)?,
                    slices_failed: row.get(7)?,
                    opened_at: row.get(8)?,
                    first_received_at: row.get(9)?,
                    last_received_at: row.get(10)?,
                    has_several_patients: row.get(11)?,
                    set_aside: row.get(12)?,
                    has_several_names: row.get(13)?,
                    is_broken_off,
                    fewer_images,
                    has_more_refused: row.get(15)?,
                    refused,
                    refused_elsewhere,
                    slices_of_other_models: slices.iter().filter(|(_, other)| *other).count() as i64,
                    slices: slices.into_iter().map(|(slice, _)| slice).collect(),
                })
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    fn top_slices(&self, study_uid: &str, most: usize) -> Result<Vec<TopSlice>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT i.series_uid, i.sop_uid, s.frame, c.probability, i.instance_number, c.box_left, c.box_top, c.box_width,
                        c.box_height
                 FROM slices s JOIN scores c ON c.id = s.score_id JOIN instances i ON i.id = s.instance_id
                 WHERE s.study_uid = ?1 AND s.state = 'scored' ORDER BY c.probability DESC, i.series_uid, i.instance_number, i.sop_uid, s.frame LIMIT ?2",
            )?;
            let rows = statement.query_map(params![study_uid, most as i64], |row| {
                let column = |index| row.get::<_, Option<i64>>(index);
                Ok(TopSlice {
                    series_uid: row.get(0)?,
                    sop_uid: row.get(1)?,
                    frame: row.get(2)?,
                    probability: row.get(3)?,
                    instance_number: row.get(4)?,
                    pixel_box: pixel_box([column(5)?, column(6)?, column(7)?, column(8)?]),
                })
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    fn calling_ae_titles(&self, study_uid: &str) -> Result<Vec<String>> {
        self.read(|connection| {
            let sql = "SELECT DISTINCT calling_ae FROM instances WHERE study_uid = ?1 ORDER BY calling_ae";
            let mut statement = connection.prepare_cached(sql)?;
            Ok(statement.query_map([study_uid], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
        })
    }

    fn station_name(&self, study_uid: &str) -> Result<Option<String>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT station_name FROM studies WHERE study_uid = ?1")?;
            Ok(statement.query_row([study_uid], |row| row.get(0))?)
        })
    }

    fn decide(&self, verdict: Verdict, messages: Vec<NewMessage>) -> Pending<'_, bool> {
        Box::pin(async move {
            let decided = self.write(move |connection| decide(connection, &verdict, &messages)).await?;
            if decided {
                self.posted().notify_waiters();
            }
            Ok(decided)
        })
    }

    fn requeue_other_models(&self, study_uid: String, model_sha256: String) -> Pending<'_, ()> {
        Box::pin(async move {
            self.write(move |connection| {
                // Without its file it can be scored by no other model.
                connection.execute(
                    "UPDATE slices SET state = 'failed', score_id = NULL,
                        reason = ?3
                 WHERE study_uid = ?1 AND state = 'scored'
                   AND score_id IN (SELECT id FROM scores WHERE slice_id = slices.id AND model_sha256 <> ?2)
                   AND instance_id IN (SELECT id FROM instances WHERE study_uid = ?1 AND (removed_at IS NOT NULL OR lost_at IS NOT NULL))",
                    params![study_uid, model_sha256, FILE_REMOVED],
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
        })
    }

    fn score_declined(&self, study_uid: String, slices: Vec<SliceId>) -> Pending<'_, ()> {
        Box::pin(async move {
            self.write(move |connection| {
                let mut queue = connection.prepare_cached(
                    "UPDATE slices SET state = 'queued', reason = NULL, head_check = NULL, shows = NULL, attempts = 0, claims = 0
                     WHERE id = ?1 AND study_uid = ?2 AND state = 'ineligible' AND shows IS NOT NULL",
                )?;
                slices.iter().try_for_each(|slice| queue.execute(params![slice, study_uid]).map(drop))?;
                Ok(())
            })
            .await?;
            self.queued().notify_waiters();
            Ok(())
        })
    }

    fn changed(&self) -> &Notify {
        &self.shared.wakeups.changed
    }
}

fn decide(connection: &Connection, verdict: &Verdict, messages: &[NewMessage]) -> Result<bool> {
    let current: Option<i64> = connection
        .prepare_cached(
            "SELECT 1 FROM studies WHERE study_uid = ?1 AND revision = ?2 AND state = 'receiving'
                AND (?3 OR (slices_received = ?4 AND slices_scored = ?5 AND slices_ineligible = ?6 AND slices_failed = ?7
                     AND (SELECT count(*) FROM refused WHERE study_uid = ?1) = ?8 AND broken_off = ?9))",
        )?
        .query_row(
            params![
                verdict.study_uid,
                verdict.revision,
                // More evidence only raises the score, so a provisional alert holds whatever came meanwhile.
                verdict.provisional,
                verdict.slices_received,
                verdict.slices_scored,
                verdict.slices_ineligible,
                verdict.slices_failed,
                verdict.refused,
                verdict.is_broken_off
            ],
            |row| row.get(0),
        )
        .optional()?;
    if current.is_none() {
        return Ok(false);
    }
    let evidence = &verdict.evidence;
    let finding = finding(verdict.flagged);
    let series_flagged: Vec<&str> = (evidence.series.iter())
        .filter(|series| series.finding == Some(Finding::Flagged))
        .map(|series| series.series_uid.as_str())
        .collect();
    let series_flagged = serde_json::to_string(&series_flagged).expect("strings are JSON");
    connection
        .prepare_cached(
            "INSERT INTO verdicts (study_uid, revision, provisional, flagged, score, threshold, rule, model,
                model_sha256, software, slices_scored, slices_ineligible, slices_failed, decided_at, verdict, missing,
                warnings, positives, series_flagged, last_received_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)",
        )?
        .execute(params![
            verdict.study_uid,
            verdict.revision,
            verdict.provisional,
            verdict.flagged,
            verdict.score,
            verdict.threshold,
            verdict.rule,
            verdict.model,
            verdict.model_sha256,
            crate::SOFTWARE,
            verdict.slices_scored,
            verdict.slices_ineligible,
            verdict.slices_failed,
            verdict.decided_at,
            finding.name(),
            evidence.missing,
            evidence.warnings,
            evidence.positives,
            series_flagged,
            verdict.last_received_at
        ])?;
    let id = connection.last_insert_rowid();
    write_series(connection, verdict)?;
    // The machine never retracts: what was flagged stays flagged, the verdict's own row says what this one found.
    connection
        .prepare_cached(
            "UPDATE studies SET verdict = iif(flagged = 1, 'flagged', ?7), flagged = iif(flagged = 1, 1, ?2), score = ?3,
                threshold = ?4, state = iif(?5, 'receiving', 'decided'), decided_at = iif(?5, NULL, ?6), missing = ?8,
                warnings = ?9
             WHERE study_uid = ?1",
        )?
        .execute(params![
            verdict.study_uid,
            verdict.flagged,
            verdict.score,
            verdict.threshold,
            verdict.provisional,
            verdict.decided_at,
            finding.name(),
            evidence.missing,
            evidence.warnings
        ])?;
    keep_or_clear(connection, &verdict.study_uid, id)?;
    post(connection, messages)?;
    Ok(true)
}

fn finding(flagged: Option<bool>) -> Finding {
    match flagged {
        Some(true) => Finding::Flagged,
        Some(false) => Finding::NotFlagged,
        None => Finding::Incomplete,
    }
}

/// Writes the verdict's part about each series. A provisional one is not the last word on those it does not flag.
fn write_series(connection: &Connection, verdict: &Verdict) -> Result<()> {
    let mut write = connection.prepare_cached(
        "INSERT INTO series (study_uid, series_uid, verdict, score, threshold, reason, doubts, positives,
                             slices_received, slices_scored, slices_failed, revision, decided_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
         ON CONFLICT (study_uid, series_uid) DO UPDATE SET verdict = excluded.verdict, score = excluded.score,
             threshold = excluded.threshold, reason = excluded.reason, doubts = excluded.doubts,
             positives = excluded.positives, slices_received = excluded.slices_received,
             slices_scored = excluded.slices_scored, slices_failed = excluded.slices_failed,
             revision = excluded.revision, decided_at = excluded.decided_at",
    )?;
    for series in &verdict.evidence.series {
        if verdict.provisional && series.finding != Some(Finding::Flagged) {
            continue;
        }
        write.execute(params![
            verdict.study_uid,
            series.series_uid,
            series.finding.map(Finding::name),
            series.score,
            series.threshold,
            series.reason,
            series.doubts,
            series.positives,
            series.slices_received,
            series.slices_scored,
            series.slices_failed,
            verdict.revision,
            verdict.decided_at
        ])?;
    }
    Ok(())
}

/// From the columns of the query in [`Ledger::open_studies`], in their order.
fn evidence(row: &Row<'_>) -> rusqlite::Result<SliceEvidence> {
    let state: String = row.get(13)?;
    let (was_tried, was_looked_at): (bool, bool) = (row.get(14)?, row.get(15)?);
    let state = match (state.as_str(), row.get(16)?) {
        ("scored", Some(probability)) => {
            SliceState::Scored { probability, positive: row.get::<_, Option<bool>>(17)? == Some(true) }
        }
        ("queued", _) => SliceState::Queued,
        ("ineligible", _) if !was_tried => SliceState::Out,
        ("ineligible", _) if was_looked_at => SliceState::NoHead,
        // It passed the gate, and then no pixels could be had of it.
        _ => SliceState::Failed,
    };
    evidence_in_state(row, state)
}

/// From the first thirteen columns of a query: series, reason, instance number, frame, position, orientation, thickness, doubts, whether
/// it is a substitute, the slice's id, what it shows, what it lacks and its Slice Location.
pub(super) fn evidence_in_state(row: &Row<'_>, state: SliceState) -> rusqlite::Result<SliceEvidence> {
    Ok(SliceEvidence {
        series_uid: row.get(0)?,
        state,
        reason: row.get(1)?,
        instance_number: row.get(2)?,
        frame: row.get(3)?,
        position: row.get(4)?,
        orientation: row.get(5)?,
        thickness: row.get(6)?,
        doubts: row.get(7)?,
        is_substitute: row.get(8)?,
        id: row.get(9)?,
        shows: row.get::<_, Option<String>>(10)?.as_deref().and_then(Shows::named),
        lacking: row.get(11)?,
        location: row.get(12)?,
    })
}
