//! What people ask of the ledger: the worklist, a study's slices and its verdicts.

use super::fields::record;

record! {
    /// A row of the view `worklist`.
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
}

impl WorklistRow {
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

/// Which studies of the worklist.
#[derive(Debug, Clone, Default)]
pub struct WorklistFilter {
    pub flagged_only: bool,
    /// `receiving` or `decided` only.
    pub state: Option<&'static str>,
    /// At most so many.
    pub limit: Option<u32>,
}

record! {
    /// A row of the view `slice_results`.
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
}

record! {
    /// A verdict as it was given.
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
}
