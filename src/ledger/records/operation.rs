//! How the node has been doing, for administrators.

use jiff::Timestamp;

/// Objects that came within an hour or a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traffic {
    /// The beginning of its moment as the ledger writes it: `2026-11-23T15` or `2026-11-23`.
    pub period: String,
    pub objects: u64,
    pub bytes: u64,
}

/// An AE title that sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    pub calling_ae: String,
    pub last_received_at: String,
    /// Objects within the time that was asked for.
    pub objects: u64,
    /// Objects of it that were set aside, ever.
    pub set_aside: u64,
}

/// When the stages of a slice's way ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceTimes {
    pub received_at: String,
    pub claimed_at: String,
    pub decoded_at: String,
    pub scored_at: String,
}

impl SliceTimes {
    /// From received to scored, in seconds.
    pub fn seconds(&self) -> Option<f64> {
        let (received, scored): (Timestamp, Timestamp) = (self.received_at.parse().ok()?, self.scored_at.parse().ok()?);
        Some(scored.duration_since(received).as_secs_f64().max(0.0))
    }
}

/// The node at a moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurement {
    pub at: String,
    /// Slices that wait to be scored.
    pub waiting: u64,
    /// On the archive's disk.
    pub free_bytes: Option<u64>,
    /// Slices that were scored since the measurement before.
    pub slices: u64,
    /// How long half of them took from received to scored, and 95 of 100.
    pub median_seconds: Option<f64>,
    pub most_seconds: Option<f64>,
}
