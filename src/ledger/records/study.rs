//! Studies that wait for their verdict, and the verdicts.

use triaged_imaging::Shows;

use super::slice::SliceId;

/// A study that waits for its verdict, with what the triage stage needs to judge it.
#[derive(Debug, Clone)]
pub struct OpenStudy {
    pub study_uid: String,
    pub accession_number: Option<String>,
    pub patient_id: Option<String>,
    pub revision: i64,
    pub flagged: bool,
    /// Somebody has acknowledged that it is flagged, and that stands.
    pub is_acknowledged: bool,
    /// Slices of it wait, and all that do have a score before and are only scored again.
    pub waits_to_be_scored_again: bool,
    pub slices_received: i64,
    pub slices_ineligible: i64,
    pub slices_failed: i64,
    pub opened_at: String,
    pub first_received_at: String,
    pub last_received_at: String,
    /// Slices whose score is another model's.
    pub slices_of_other_models: i64,
    /// Different patient IDs came under its Study Instance UID.
    pub has_several_patients: bool,
    /// Or different names or birth dates did.
    pub has_several_names: bool,
    /// Objects that were refused and did not come since …
    pub refused: i64,
    /// … of series that nothing came of.
    pub refused_elsewhere: i64,
    /// The association that brought its last object was broken off, and nothing has come since.
    pub is_broken_off: bool,
    /// In words: of a series with scored or waiting slices fewer images came than their acquisition has (Images in Acquisition).
    pub fewer_images: Option<String>,
    /// More were refused than are still listed.
    pub has_more_refused: bool,
    /// Objects of it that were set aside.
    pub set_aside: i64,
    pub slices: Vec<SliceEvidence>,
}

/// A slice of a study, as far as it is judged by.
#[derive(Debug, Clone, PartialEq)]
pub struct SliceEvidence {
    pub id: SliceId,
    pub series_uid: String,
    pub state: SliceState,
    /// Why it is out, or failed.
    pub reason: Option<String>,
    pub instance_number: Option<i64>,
    /// Counts from 1.
    pub frame: i64,
    /// Along the normal of its plane, in mm.
    pub position: Option<f64>,
    /// Slice Location, in mm, from a place of the sender's own.
    pub location: Option<f64>,
    pub orientation: Option<String>,
    /// In mm.
    pub thickness: Option<f64>,
    pub doubts: Option<String>,
    pub is_substitute: bool,
    /// What its pixels show; none where they were not looked at: it is not decoded yet, or was by an earlier version.
    pub shows: Option<Shows>,
    /// What its object shows to be missing, of itself or of the series.
    pub lacking: Option<String>,
}

impl SliceEvidence {
    /// Whether it is a place of its series: all but those that the gate put out.
    pub fn has_place(&self) -> bool {
        !matches!(self.state, SliceState::Out)
    }
}

/// How far a slice has come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SliceState {
    Queued,
    Scored {
        probability: f64,
        positive: bool,
    },
    /// It passed the gate and could not be scored, for whatever reason.
    Failed,
    /// The header named another part of the body, and the pixels are not those of a head.
    NoHead,
    /// The gate put it out.
    Out,
}

impl SliceState {
    /// Whether the slice is, or is to be, part of the evidence.
    pub fn is_of_interest(&self) -> bool {
        matches!(self, SliceState::Queued | SliceState::Scored { .. } | SliceState::Failed)
    }
}

/// The finding of a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    Flagged,
    NotFlagged,
    /// Part of the evidence is missing, and what is there does not flag.
    Incomplete,
}

impl Finding {
    /// As in the database.
    pub fn name(self) -> &'static str {
        match self {
            Finding::Flagged => "flagged",
            Finding::NotFlagged => "not flagged",
            Finding::Incomplete => "incomplete",
        }
    }

    /// Neither true nor false where part of the evidence is missing.
    pub fn flagged(self) -> Option<bool> {
        match self {
            Finding::Flagged => Some(true),
            Finding::NotFlagged => Some(false),
            Finding::Incomplete => None,
        }
    }
}

/// The part of a verdict about one series.
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesVerdict {
    pub series_uid: String,
    /// None where the series was not judged.
    pub finding: Option<Finding>,
    pub score: Option<f64>,
    pub threshold: f64,
    /// Why it was not judged, or what is missing.
    pub reason: Option<String>,
    pub doubts: Option<String>,
    pub positives: i64,
    pub slices_received: i64,
    pub slices_scored: i64,
    pub slices_failed: i64,
}

/// The evidence behind a verdict.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evidence {
    /// The missing evidence, in words; none where nothing is missing, or the study is flagged.
    pub missing: Option<String>,
    /// Doubts about the slices that were judged, and about the study.
    pub warnings: Option<String>,
    /// Positive places of the series that has most of them.
    pub positives: i64,
    pub series: Vec<SeriesVerdict>,
}

impl OpenStudy {
    /// Slices that are still to be scored.
    pub fn slices_queued(&self) -> i64 {
        self.slices_received - self.slices_ineligible - self.slices_failed - self.slices_scored()
    }

    /// The highest probability of its scored slices.
    pub fn highest_probability(&self) -> Option<f64> {
        let probability = |slice: &SliceEvidence| match slice.state {
            SliceState::Scored { probability, .. } => Some(probability),
            _ => None,
        };
        self.slices.iter().filter_map(probability).reduce(f64::max)
    }

    pub fn slices_scored(&self) -> i64 {
        self.slices.iter().filter(|slice| matches!(slice.state, SliceState::Scored { .. })).count() as i64
    }
}

/// A verdict on one revision of a study.
#[derive(Debug, Clone)]
pub struct Verdict {
    pub study_uid: String,
    pub revision: i64,
    /// The evidence suffices, but the study is not complete.
    pub provisional: bool,
    /// `None`: incomplete.
    pub flagged: Option<bool>,
    pub score: Option<f64>,
    pub threshold: f64,
    /// The study rule as in the model card, or the sequence network, JSON ([`triaged_model::VerdictRule`]).
    pub rule: String,
    pub model: String,
    pub model_sha256: String,
    /// The evidence that was judged. Where the study has gone on since, the verdict is not taken.
    pub slices_received: i64,
    pub slices_scored: i64,
    pub slices_ineligible: i64,
    pub slices_failed: i64,
    /// Objects that had been refused and had not come.
    pub refused: i64,
    /// Whether its last association had been broken off.
    pub is_broken_off: bool,
    pub decided_at: String,
    /// The last object that was received before it.
    pub last_received_at: String,
    pub evidence: Evidence,
}
