//! Requests of storage commitment.

/// A request, to be recorded.
#[derive(Debug, Clone)]
pub struct NewCommitment {
    pub transaction_uid: String,
    /// The AE title that asked, and the one that it asked: the report goes the other way.
    pub calling_ae: String,
    pub called_ae: String,
    /// The peer of `[[dimse.peers]]`, where it is one.
    pub peer: Option<String>,
    /// The address that the request came from.
    pub address: String,
    /// The instances: a JSON array.
    pub items: String,
    /// Before this moment, as the ledger writes it, the report is only sent on the association of the request.
    pub next_attempt_at: String,
}

/// A request that waits for its report to be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitmentRow {
    pub id: i64,
    pub transaction_uid: String,
    pub calling_ae: String,
    pub called_ae: String,
    pub peer: Option<String>,
    pub items: String,
    pub attempts: u32,
    pub requested_at: String,
}

/// A request whose report is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueCommitment {
    pub id: i64,
    /// Whom to tell: the name of a peer, or else the AE title that asked.
    pub who: String,
}

/// Requests that wait for their reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PendingCommitments {
    pub requests: u64,
    /// Of what they name, as it is stored.
    pub bytes: u64,
}

/// How an attempt to deliver a report ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitmentEnd {
    /// The requestor has it.
    Delivered { committed: u64, failed: u64 },
    /// To be tried again then.
    Again { at: String, error: String },
    /// It is not tried again.
    GivenUp { error: String },
}

/// An instance whose file the archive keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptInstance {
    pub sop_class_uid: String,
    /// Relative to the data folder.
    pub path: String,
    /// SHA-256 of the data set as it came, hexadecimal.
    pub digest: String,
    pub received_at: String,
}
