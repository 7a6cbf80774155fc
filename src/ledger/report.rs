//! What people ask of the ledger: the worklist, a study's slices, verdicts and notifications.

use rusqlite::{Connection, Row, params};
use serde::Serialize;

use super::Result;

/// A row of the view `worklist`.
#[derive(Debug, Clone, Serialize)]
pub struct WorklistRow {
    pub study_uid: String,
    pub accession_number: Option<String>,
    pub patient_id: Option<String>,
    pub state: String,
    pub flagged: Option<bool>,
    pub score: Option<f64>,
    pub threshold: Option<f64>,
    pub slices_received: i64,
    pub slices_scored: i64,
    pub slices_ineligible: i64,
    pub slices_failed: i64,
    pub first_received_at: String,
    pub last_received_at: String,
    pub decided_at: Option<String>,
    pub notified_at: Option<String>,
    pub acknowledged_at: Option<String>,
    pub revision: i64,
}

/// Which studies of the worklist.
#[derive(Debug, Clone, Default)]
pub struct WorklistFilter {
    pub flagged_only: bool,
    /// `receiving` or `decided` only.
    pub state: Option<&'static str>,
    /// At most so many.
    pub limit: Option<u32>,
}

/// A row of the view `slice_results`.
#[derive(Debug, Clone, Serialize)]
pub struct SliceRow {
    pub study_uid: String,
    pub series_uid: String,
    pub sop_uid: String,
    pub frame: i64,
    pub instance_number: Option<i64>,
    pub state: String,
    pub reason: Option<String>,
    pub probability: Option<f64>,
    pub positive: Option<bool>,
    pub model: Option<String>,
    pub model_sha256: Option<String>,
    pub provider: Option<String>,
    pub received_at: String,
    pub scored_at: Option<String>,
}

/// A verdict as it was given.
#[derive(Debug, Clone, Serialize)]
pub struct VerdictRow {
    pub revision: i64,
    pub provisional: bool,
    pub flagged: Option<bool>,
    pub score: Option<f64>,
    pub threshold: f64,
    pub rule: String,
    pub model: String,
    pub model_sha256: String,
    pub software: String,
    pub decided_at: String,
}

/// A row of the view `notification_log`.
#[derive(Debug, Clone, Serialize)]
pub struct NotificationRow {
    pub id: i64,
    pub study_uid: String,
    pub revision: i64,
    pub channel: String,
    pub state: String,
    pub attempts: i64,
    pub created_at: String,
    pub delivered_at: Option<String>,
    pub acknowledged_at: Option<String>,
    pub last_error: Option<String>,
}

/// In words at [`WorklistRow::all`]; the index `studies_reading_order` has the same expressions.
pub(super) const READING_ORDER: &str = "ORDER BY flagged IS 1 AND acknowledged_at IS NULL DESC, flagged IS 1 DESC,
    slices_ineligible + slices_failed > 0 AND slices_scored = 0 DESC, last_received_at DESC";

impl WorklistRow {
    /// In reading order: flagged and not acknowledged first, then flagged, then not triaged, then the rest; the newest
    /// first within each.
    pub fn all(connection: &Connection, filter: &WorklistFilter) -> Result<Vec<WorklistRow>> {
        let mut statement = connection.prepare_cached(&format!(
            "SELECT * FROM worklist WHERE (NOT ?1 OR flagged = 1) AND (?3 IS NULL OR state = ?3) {READING_ORDER} LIMIT ?2"
        ))?;
        let rows = statement.query_map(
            params![filter.flagged_only, filter.limit.map_or(-1, i64::from), filter.state],
            WorklistRow::from_row,
        )?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    pub fn of_study(connection: &Connection, study_uid: &str) -> Result<Option<WorklistRow>> {
        let mut statement = connection.prepare_cached("SELECT * FROM worklist WHERE study_uid = ?1")?;
        Ok(statement.query_map([study_uid], WorklistRow::from_row)?.next().transpose()?)
    }

    fn from_row(row: &Row<'_>) -> rusqlite::Result<WorklistRow> {
        Ok(WorklistRow {
            study_uid: row.get("study_uid")?,
            accession_number: row.get("accession_number")?,
            patient_id: row.get("patient_id")?,
            state: row.get("state")?,
            flagged: row.get("flagged")?,
            score: row.get("score")?,
            threshold: row.get("threshold")?,
            slices_received: row.get("slices_received")?,
            slices_scored: row.get("slices_scored")?,
            slices_ineligible: row.get("slices_ineligible")?,
            slices_failed: row.get("slices_failed")?,
            first_received_at: row.get("first_received_at")?,
            last_received_at: row.get("last_received_at")?,
            decided_at: row.get("decided_at")?,
            notified_at: row.get("notified_at")?,
            acknowledged_at: row.get("acknowledged_at")?,
            revision: row.get("revision")?,
        })
    }

    /// Promise 7: a negative is not a clearance, so nothing here says "normal".
    pub fn verdict_in_words(&self) -> &'static str {
        match (self.flagged, self.state.as_str()) {
            (Some(true), _) => "FLAGGED",
            (_, "receiving") => "receiving",
            (Some(false), _) => "not flagged",
            (None, _) => "not triaged",
        }
    }
}

impl SliceRow {
    /// The slices of a study, ordered by series, instance number and frame.
    pub fn of_study(connection: &Connection, study_uid: &str) -> Result<Vec<SliceRow>> {
        let mut statement = connection.prepare_cached(
            "SELECT * FROM slice_results WHERE study_uid = ?1 ORDER BY series_uid, instance_number, sop_uid, frame",
        )?;
        let rows = statement.query_map([study_uid], |row| {
            Ok(SliceRow {
                study_uid: row.get("study_uid")?,
                series_uid: row.get("series_uid")?,
                sop_uid: row.get("sop_uid")?,
                frame: row.get("frame")?,
                instance_number: row.get("instance_number")?,
                state: row.get("state")?,
                reason: row.get("reason")?,
                probability: row.get("probability")?,
                positive: row.get("positive")?,
                model: row.get("model")?,
                model_sha256: row.get("model_sha256")?,
                provider: row.get("provider")?,
                received_at: row.get("received_at")?,
                scored_at: row.get("scored_at")?,
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

impl VerdictRow {
    /// The verdicts on a study, oldest first.
    pub fn of_study(connection: &Connection, study_uid: &str) -> Result<Vec<VerdictRow>> {
        let mut statement = connection.prepare_cached("SELECT * FROM verdicts WHERE study_uid = ?1 ORDER BY id")?;
        let rows = statement.query_map([study_uid], |row| {
            Ok(VerdictRow {
                revision: row.get("revision")?,
                provisional: row.get("provisional")?,
                flagged: row.get("flagged")?,
                score: row.get("score")?,
                threshold: row.get("threshold")?,
                rule: row.get("rule")?,
                model: row.get("model")?,
                model_sha256: row.get("model_sha256")?,
                software: row.get("software")?,
                decided_at: row.get("decided_at")?,
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

impl NotificationRow {
    /// The notifications of one study, or of all, oldest first.
    pub fn all(connection: &Connection, study_uid: Option<&str>) -> Result<Vec<NotificationRow>> {
        let mut statement = connection
            .prepare_cached("SELECT * FROM notification_log WHERE (?1 IS NULL OR study_uid = ?1) ORDER BY id")?;
        let rows = statement.query_map([study_uid], NotificationRow::from_row)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The newest notifications, of one state or of all, newest first.
    pub fn newest(connection: &Connection, state: Option<&str>, limit: u32) -> Result<Vec<NotificationRow>> {
        let mut statement = connection.prepare_cached(
            "SELECT * FROM notification_log WHERE (?1 IS NULL OR state = ?1) ORDER BY id DESC LIMIT ?2",
        )?;
        let rows = statement.query_map(params![state, limit], NotificationRow::from_row)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn from_row(row: &Row<'_>) -> rusqlite::Result<NotificationRow> {
        Ok(NotificationRow {
            id: row.get("id")?,
            study_uid: row.get("study_uid")?,
            revision: row.get("revision")?,
            channel: row.get("channel")?,
            state: row.get("state")?,
            attempts: row.get("attempts")?,
            created_at: row.get("created_at")?,
            delivered_at: row.get("delivered_at")?,
            acknowledged_at: row.get("acknowledged_at")?,
            last_error: row.get("last_error")?,
        })
    }
}
