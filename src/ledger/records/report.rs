//! Rows that people ask the ledger for: the worklist, a study's slices and its verdicts.

use triaged_imaging::PixelBox;

use super::fields::record;
use super::location::pixel_box;
use super::shown::DeedKind;

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
        /// `flagged`, `not flagged` or `incomplete`; none while it is receiving and not flagged.
        pub verdict: Option<String>,
        pub missing: Option<String>,
        pub warnings: Option<String>,
        pub set_aside: i64,
        pub acknowledged_by: Option<String>,
        pub seen_at: Option<String>,
        pub seen_by: Option<String>,
        pub seconds_to_alert: Option<f64>,
        pub former_patient_ids: Option<String>,
        pub former_accession_numbers: Option<String>,
        pub patient_name: Option<String>,
        pub birth_date: Option<String>,
        pub sex: Option<String>,
        pub referring_physician: Option<String>,
        pub study_date: Option<String>,
        pub study_description: Option<String>,
        pub modality: Option<String>,
        pub station_name: Option<String>,
        pub institution_name: Option<String>,
        pub calling_ae: Option<String>,
        pub peer: Option<String>,
        /// The newest verdict's; none before the first one.
        pub verdict_id: Option<i64>,
    }
}

impl WorklistRow {
    /// What a person's deed about the present verdict is.
    pub fn deed(&self) -> DeedKind {
        if self.can_be_acknowledged() { DeedKind::Acknowledged } else { DeedKind::Seen }
    }

    /// Promise 7: a negative is not a clearance, so nothing here says "normal".
    pub fn verdict_in_words(&self) -> &'static str {
        match (self.flagged, self.state.as_str()) {
            (Some(true), _) => "FLAGGED",
            (_, "receiving") => "receiving",
            (Some(false), _) => "not flagged",
            (None, _) if self.slices_scored == 0 => "not triaged",
            (None, _) => "incomplete",
        }
    }

    /// Whether a person should look at it who has not: flagged or incomplete, and not acknowledged.
    pub fn is_unread(&self) -> bool {
        self.can_be_acknowledged() && self.acknowledged_at.is_none()
    }

    /// A flagged or incomplete study can be acknowledged; one that is not flagged can only be marked as seen.
    pub fn can_be_acknowledged(&self) -> bool {
        self.flagged == Some(true) || self.is_incomplete()
    }

    /// Decided, and part of the evidence is missing.
    pub fn is_incomplete(&self) -> bool {
        self.flagged.is_none() && self.state == "decided"
    }
}

record! {
    /// A row of the view `series_results`.
    pub struct SeriesRow {
        pub study_uid: String,
        pub series_uid: String,
        pub description: Option<String>,
        pub kernel: Option<String>,
        pub verdict: Option<String>,
        pub score: Option<f64>,
        pub threshold: Option<f64>,
        pub reason: Option<String>,
        pub doubts: Option<String>,
        pub positives: i64,
        pub slices_received: i64,
        pub slices_scored: i64,
        pub slices_failed: i64,
        pub revision: Option<i64>,
        pub decided_at: Option<String>,
    }
}

record! {
    /// An object that was kept, but not taken in.
    pub struct SetAsideRow {
        pub study_uid: Option<String>,
        pub series_uid: Option<String>,
        pub sop_uid: String,
        /// `conflict`, `unreadable` or `replaced`.
        pub kind: String,
        pub reason: String,
        pub path: String,
        pub calling_ae: String,
        pub received_at: String,
    }
}

record! {
    /// A person's deed about a verdict: a row of the view `acknowledgement_log`.
    pub struct AcknowledgementRow {
        pub study_uid: String,
        /// `acknowledged` or `seen`.
        pub kind: String,
        pub actor: String,
        pub note: Option<String>,
        pub at: String,
        pub verdict: Option<String>,
        pub revision: Option<i64>,
        pub undone_at: Option<String>,
        pub undone_by: Option<String>,
    }
}

/// Which studies of the worklist, and in which order. The default is all of them, in reading order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorklistFilter {
    pub flagged_only: bool,
    pub verdict: Option<VerdictFilter>,
    /// `receiving` or `decided` only.
    pub state: Option<&'static str>,
    pub acknowledged: Option<bool>,
    /// The sender of the last object.
    pub calling_ae: Option<String>,
    /// Exactly this one.
    pub accession_number: Option<String>,
    /// Words that patient's name, patient ID or accession number have words beginning with, or the beginning of a UID.
    pub search: Option<String>,
    /// Whose last object came at this moment or later, as the ledger writes it.
    pub since: Option<String>,
    /// Whose last object came before this moment.
    pub before: Option<String>,
    /// As `since`, for studies that wait neither for a person nor for slices.
    pub rest_since: Option<String>,
    pub order: Order,
    /// At most so many.
    pub limit: Option<u32>,
    /// So many are passed over.
    pub offset: u32,
}

/// A verdict that studies are to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerdictFilter {
    Flagged,
    Incomplete,
    NotFlagged,
}

/// The order of the worklist.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// Flagged and not acknowledged first, then incomplete and not acknowledged, then flagged, then incomplete, then the rest; the
    /// newest first within each.
    #[default]
    Reading,
    /// Flagged and not acknowledged first, then incomplete and not acknowledged, then receiving, then the rest; the newest first
    /// within each.
    Working,
    /// By the last object.
    Newest,
    Oldest,
    /// The highest first.
    Score,
    /// By the patient's name.
    Name,
    PatientId,
    AccessionNumber,
    /// The newest first.
    StudyDate,
}

/// How many studies wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct StandingCounts {
    /// Flagged and not acknowledged.
    pub flagged: u64,
    /// Incomplete and not acknowledged.
    pub incomplete: u64,
    /// Neither, and not decided.
    pub receiving: u64,
}

/// A reader's opinion of a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opinion {
    Agree,
    Disagree,
}

impl Opinion {
    pub fn named(name: &str) -> Option<Opinion> {
        [Opinion::Agree, Opinion::Disagree].into_iter().find(|opinion| opinion.name() == name)
    }

    /// As in the database.
    pub fn name(self) -> &'static str {
        match self {
            Opinion::Agree => "agree",
            Opinion::Disagree => "disagree",
        }
    }
}

record! {
    /// A row of the view `feedback_log`.
    pub struct FeedbackRow {
        pub id: i64,
        pub study_uid: String,
        /// `agree` or `disagree`.
        pub opinion: String,
        pub actor: String,
        pub note: Option<String>,
        pub at: String,
        pub verdict: Option<String>,
        pub revision: i64,
        pub score: Option<f64>,
        pub threshold: f64,
        pub model: String,
        pub model_sha256: String,
        /// 1 the finding is present, as the reader says, 0 it is absent; none where the verdict was incomplete.
        pub label: Option<i64>,
    }
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
        /// Along the normal of its plane, in mm.
        pub position: Option<f64>,
        /// In mm.
        pub thickness: Option<f64>,
        pub doubts: Option<String>,
        pub calling_ae: String,
        /// The box around the finding in pixels of the slice, where its model says where it is.
        pub box_left: Option<i64>,
        pub box_top: Option<i64>,
        pub box_width: Option<i64>,
        pub box_height: Option<i64>,
        /// The slice's size, where there is a box.
        pub slice_rows: Option<i64>,
        pub slice_columns: Option<i64>,
    }
}

impl SliceRow {
    /// The box around the finding, where its model says where it is.
    pub fn pixel_box(&self) -> Option<PixelBox> {
        pixel_box([self.box_left, self.box_top, self.box_width, self.box_height])
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
        pub verdict: Option<String>,
        pub missing: Option<String>,
        pub warnings: Option<String>,
        pub positives: Option<i64>,
        /// By which deeds say what their person saw ([`super::Shown`]).
        pub id: i64,
    }
}
