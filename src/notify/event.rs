//! The event: what happened, in words that every channel can translate. The triage stage writes it into the outbox as
//! JSON; it does not change between attempts, however long they take.

use serde::{Deserialize, Serialize};

use crate::ledger::TopSlice;

/// The outbox's `kind` of an [`AlertEvent`].
pub const ALERT: &str = "alert";

/// What the alert says of the study. A machine that flags does not diagnose.
pub const WORDING: &str = "flagged";

/// What every alert tells its reader.
pub const NOTICE: &str = "For prioritisation only, not a diagnosis: flagged studies are to be read first, and a study \
                          that is not flagged is not cleared.";

/// A study was flagged. Times are UTC ISO 8601 with milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlertEvent {
    pub study_uid: String,
    pub accession_number: Option<String>,
    pub patient_id: Option<String>,
    /// What a positive means, as in the model card, e.g. `intracranial hemorrhage`.
    pub finding: String,
    /// [`WORDING`].
    pub wording: String,
    pub revision: i64,
    /// The evidence suffices, but the study was not complete.
    pub provisional: bool,
    /// Of the study rule; flagged at `threshold` or above.
    pub score: f64,
    pub threshold: f64,
    pub model: String,
    /// Of the ONNX file, 64 lower-case hex digits.
    pub model_sha256: String,
    pub slices_received: i64,
    pub slices_scored: i64,
    pub slices_ineligible: i64,
    pub slices_failed: i64,
    /// The slices with the highest probabilities, highest first; a few.
    #[serde(default)]
    pub top_slices: Vec<TopSlice>,
    pub first_received_at: String,
    pub last_received_at: String,
    pub decided_at: String,
    /// [`crate::SOFTWARE`].
    pub software: String,
    /// [`NOTICE`].
    pub notice: String,
}

impl AlertEvent {
    /// As it is kept in the outbox.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("an event has only strings, numbers and flags")
    }

    /// As read from the outbox. Fields that this version does not know are ignored.
    pub fn from_json(json: &str) -> Result<AlertEvent, String> {
        serde_json::from_str(json).map_err(|error| format!("the event in the outbox cannot be read: {error}"))
    }
}
