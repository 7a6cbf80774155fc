//! A second model that runs in shadow, and its results.

use serde::Serialize;

use super::fields::record;
use super::slice::SliceId;
use super::study::SliceEvidence;

/// A model that runs, or ran, in shadow.
#[derive(Debug, Clone, Serialize)]
pub struct ShadowModel {
    #[serde(skip)]
    pub id: i64,
    #[serde(rename = "model")]
    pub name: String,
    #[serde(rename = "model_sha256")]
    pub sha256: String,
    pub slice_threshold: f64,
    /// The study rule of its card, JSON.
    #[serde(skip)]
    pub rule: String,
    /// Whether it was the shadow model when the node last started.
    pub present: bool,
    /// Studies whose last slice came before this were never its concern.
    pub since: String,
}

/// A model that is to run in shadow, from its card.
#[derive(Debug, Clone)]
pub struct NewShadowModel {
    pub name: String,
    pub sha256: String,
    pub slice_threshold: f64,
    /// The study rule, JSON.
    pub rule: String,
}

/// How a slice ended with the shadow model.
#[derive(Debug, Clone)]
pub struct ShadowEnd {
    pub slice: SliceId,
    pub outcome: ShadowOutcome,
    /// The slice threshold of the card.
    pub threshold: f64,
    pub provider: String,
    pub claimed_at: String,
    pub ended_at: String,
}

#[derive(Debug, Clone)]
pub enum ShadowOutcome {
    Scored { probability: f64, positive: bool, decoded_at: String },
    Failed { reason: String },
}

record! {
    /// A slice that a shadow model ended, as in the view `shadow_results`.
    pub struct ShadowRow {
        pub series_uid: String,
        pub sop_uid: String,
        pub frame: i64,
        pub instance_number: Option<i64>,
        pub state: String,
        pub reason: Option<String>,
        pub probability: Option<f64>,
        pub positive: Option<bool>,
        pub provider: String,
        pub scored_at: String,
    }
}

/// The slices of a study that a shadow model ended.
#[derive(Debug, Clone)]
pub struct ShadowSlices {
    /// By series, instance number and frame.
    pub ended: Vec<ShadowRow>,
    /// All that it can score, as a verdict by the shadow model is made of them.
    pub evidence: Vec<SliceEvidence>,
    /// How many more it can score and has not.
    pub missing: u64,
}

/// A decided study with its final verdict, and what both models made of its slices.
#[derive(Debug, Clone)]
pub struct JudgedStudy {
    pub study_uid: String,
    pub accession_number: Option<String>,
    pub last_received_at: String,
    pub flagged: Option<bool>,
    pub score: Option<f64>,
    pub threshold: f64,
    pub model: String,
    pub model_sha256: String,
    /// Without those that are ineligible.
    pub slices: Vec<ScoredTwice>,
}

/// A slice with what both models gave it.
#[derive(Debug, Clone)]
pub struct ScoredTwice {
    pub probability: Option<f64>,
    /// With the state and score that the shadow model gave it; queued where that has not ended it.
    pub in_shadow: SliceEvidence,
}
