//! How the node has been doing, for administrators.

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
