//! Studies that wait for their verdict, and the verdicts.

/// A study that waits for its verdict, with what the triage stage needs to judge it.
#[derive(Debug, Clone)]
pub struct OpenStudy {
    pub study_uid: String,
    pub accession_number: Option<String>,
    pub patient_id: Option<String>,
    pub revision: i64,
    pub flagged: bool,
    pub slices_received: i64,
    pub slices_ineligible: i64,
    pub slices_failed: i64,
    pub opened_at: String,
    pub first_received_at: String,
    pub last_received_at: String,
    /// Slices whose score is another model's.
    pub slices_of_other_models: i64,
    /// The probabilities of the slices scored so far.
    pub probabilities: Vec<f64>,
}

impl OpenStudy {
    /// Slices that are still to be scored.
    pub fn slices_queued(&self) -> i64 {
        self.slices_received - self.slices_ineligible - self.slices_failed - self.probabilities.len() as i64
    }
}

/// A verdict on one revision of a study.
#[derive(Debug, Clone)]
pub struct Verdict {
    pub study_uid: String,
    pub revision: i64,
    /// The evidence suffices, but the study is not complete.
    pub provisional: bool,
    /// `None`: no slice was scored, so the study is not triaged.
    pub flagged: Option<bool>,
    pub score: Option<f64>,
    pub threshold: f64,
    /// The study rule as in the model card, JSON.
    pub rule: String,
    pub model: String,
    pub model_sha256: String,
    /// The evidence that was judged. Where the study has gone on since, the verdict is not taken.
    pub slices_received: i64,
    pub slices_scored: i64,
    pub slices_ineligible: i64,
    pub slices_failed: i64,
    pub decided_at: String,
}
