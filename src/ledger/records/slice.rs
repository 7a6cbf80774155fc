//! Slices: claimed from the queue, and scored.

/// The row of a slice.
pub type SliceId = i64;

/// A slice to be scored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub slice: SliceId,
    pub study_uid: String,
    pub sop_uid: String,
    /// Counts from 1.
    pub frame: u32,
    /// The Part 10 file, relative to the data folder.
    pub path: String,
    /// The UID of the transfer syntax that the file is in.
    pub transfer_syntax: String,
    /// What the header says against a head: it is only scored if its pixels are those of a head.
    pub head_check: Option<String>,
    /// How often it was tried before, with an end that was recorded.
    pub attempts: u32,
    /// How often the process ended while it was claimed.
    pub deaths: u32,
    pub claimed_at: String,
}

/// The score of a slice, and how it was made.
#[derive(Debug, Clone)]
pub struct Score {
    pub slice: SliceId,
    pub probability: f64,
    pub positive: bool,
    pub threshold: f64,
    pub model: String,
    pub model_sha256: String,
    pub provider: String,
    pub claimed_at: String,
    pub decoded_at: String,
    pub scored_at: String,
}
