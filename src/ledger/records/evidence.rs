//! A verdict with the slices that it rests on, for documents that are made of it later.

use triaged_imaging::PixelBox;

use super::fields::record;
use super::location::pixel_box;

record! {
    /// A verdict, and what else of its study a document names.
    pub struct ReportedVerdict {
        pub study_uid: String,
        pub revision: i64,
        pub provisional: bool,
        /// `flagged`, `not flagged` or `incomplete`.
        pub verdict: String,
        pub score: Option<f64>,
        pub threshold: f64,
        /// The study rule as in the model card, or the sequence network, JSON ([`triaged_model::VerdictRule`]).
        pub rule: String,
        pub model: String,
        pub model_sha256: String,
        pub software: String,
        pub slices_scored: i64,
        pub slices_ineligible: i64,
        pub slices_failed: i64,
        pub decided_at: String,
        /// The last object that was received before it.
        pub last_received_at: String,
        pub missing: Option<String>,
        pub warnings: Option<String>,
    }
}

record! {
    /// A slice that had been received when a verdict was given.
    pub struct EvidenceSlice {
        pub series_uid: String,
        pub sop_uid: String,
        pub sop_class_uid: String,
        /// Counts from 1.
        pub frame: i64,
        /// Whether its object has more frames.
        pub multi_frame: bool,
        pub instance_number: Option<i64>,
        /// By the verdict's model, at the time of the verdict.
        pub probability: Option<f64>,
        /// The box around the finding in pixels of the slice, of the same score.
        pub box_left: Option<i64>,
        pub box_top: Option<i64>,
        pub box_width: Option<i64>,
        pub box_height: Option<i64>,
        /// Relative to the data folder; `None` once the file was removed.
        pub path: Option<String>,
        /// The UID of the transfer syntax that the file is in.
        pub transfer_syntax: String,
    }
}

impl EvidenceSlice {
    /// The box around the finding, where the verdict's model says where it is.
    pub fn pixel_box(&self) -> Option<PixelBox> {
        pixel_box([self.box_left, self.box_top, self.box_width, self.box_height])
    }
}
