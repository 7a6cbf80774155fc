//! Studies that are open, and their verdicts. A verdict, the worklist row and the outbox rows are one transaction.

use rusqlite::{Connection, OptionalExtension, params};

use super::Ledger;
use super::outbox::post;
use crate::event::TopSlice;
use crate::ledger::{NewMessage, OpenStudy, Result, Verdict};

impl Ledger {
    /// The studies whose verdict by this model is due some time. Blocks.
    pub fn open_studies(&self, model_sha256: &str) -> Result<Vec<OpenStudy>> {
        self.read(|connection| {
            let mut studies = connection.prepare_cached(
                "SELECT study_uid, accession_number, patient_id, revision, flagged, slices_received, slices_ineligible,
                        slices_failed, opened_at, first_received_at, last_received_at
                 FROM studies INDEXED BY studies_open WHERE state = 'receiving'",
            )?;
            let mut scored = connection.prepare_cached(
                "SELECT c.probability, c.model_sha256 <> ?2 FROM slices s JOIN scores c ON c.id = s.score_id
                 WHERE s.study_uid = ?1 AND s.state = 'scored'",
            )?;
            let rows = studies.query_map([], |row| {
                let study_uid: String = row.get(0)?;
                let scores =
                    scored.query_map([study_uid.as_str(), model_sha256], |row| Ok((row.get(0)?, row.get(1)?)))?;
                let scores = scores.collect::<rusqlite::Result<Vec<(f64, bool)>>>()?;
                Ok(OpenStudy {
                    study_uid,
                    accession_number: row.get(1)?,
                    patient_id: row.get(2)?,
                    revision: row.get(3)?,
                    flagged: row.get::<_, Option<bool>>(4)? == Some(true),
                    slices_received: row.get(5)?,
                    slices_ineligible: row.get(6)?,
                    slices_failed: row.get(7)?,
                    opened_at: row.get(8)?,
                    first_received_at: row.get(9)?,
                    last_received_at: row.get(10)?,
                    slices_of_other_models: scores.iter().filter(|(_, other)| *other).count() as i64,
                    probabilities: scores.into_iter().map(|(probability, _)| probability).collect(),
                })
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// The slices of a study with the highest probabilities, highest first. Blocks.
    pub fn top_slices(&self, study_uid: &str, most: usize) -> Result<Vec<TopSlice>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT i.series_uid, i.sop_uid, s.frame, c.probability, i.instance_number
                 FROM slices s JOIN scores c ON c.id = s.score_id JOIN instances i ON i.id = s.instance_id
                 WHERE s.study_uid = ?1 AND s.state = 'scored' ORDER BY c.probability DESC LIMIT ?2",
            )?;
            let rows = statement.query_map(params![study_uid, most as i64], |row| {
                Ok(TopSlice {
                    series_uid: row.get(0)?,
                    sop_uid: row.get(1)?,
                    frame: row.get(2)?,
                    probability: row.get(3)?,
                    instance_number: row.get(4)?,
                })
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// The AE titles that sent instances of a study. Blocks.
    pub fn calling_ae_titles(&self, study_uid: &str) -> Result<Vec<String>> {
        self.read(|connection| {
            let sql = "SELECT DISTINCT calling_ae FROM instances WHERE study_uid = ?1 ORDER BY calling_ae";
            let mut statement = connection.prepare_cached(sql)?;
            Ok(statement.query_map([study_uid], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Writes a verdict with its messages. Returns false, and writes nothing, when the study has gone on since it was
    /// looked at: it will be looked at again.
    pub async fn decide(&self, verdict: Verdict, messages: Vec<NewMessage>) -> Result<bool> {
        let decided = self.write(move |connection| decide(connection, &verdict, &messages)).await?;
        if decided {
            self.posted().notify_waiters();
        }
        Ok(decided)
    }
}

fn decide(connection: &Connection, verdict: &Verdict, messages: &[NewMessage]) -> Result<bool> {
    let current: Option<i64> = connection
        .prepare_cached(
            "SELECT 1 FROM studies WHERE study_uid = ?1 AND revision = ?2 AND state = 'receiving'
                AND (?3 OR (slices_received = ?4 AND slices_scored = ?5 AND slices_ineligible = ?6 AND slices_failed = ?7))",
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
                verdict.slices_failed
            ],
            |row| row.get(0),
        )
        .optional()?;
    if current.is_none() {
        return Ok(false);
    }
    connection
        .prepare_cached(
            "INSERT INTO verdicts (study_uid, revision, provisional, flagged, score, threshold, rule, model,
                model_sha256, software, slices_scored, slices_ineligible, slices_failed, decided_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
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
            verdict.decided_at
        ])?;
    // The machine never retracts: what was flagged stays flagged, the verdict's own row says what this one found.
    connection
        .prepare_cached(
            "UPDATE studies SET flagged = iif(flagged = 1, 1, ?2), score = ?3, threshold = ?4,
                state = iif(?5, 'receiving', 'decided'), decided_at = iif(?5, NULL, ?6)
             WHERE study_uid = ?1",
        )?
        .execute(params![
            verdict.study_uid,
            verdict.flagged,
            verdict.score,
            verdict.threshold,
            verdict.provisional,
            verdict.decided_at
        ])?;
    post(connection, messages)?;
    Ok(true)
}
