//! What was received.

/// An instance whose file is on disk, to be recorded.
#[derive(Debug, Clone)]
pub struct NewInstance {
    pub sop_uid: String,
    pub sop_class_uid: String,
    pub transfer_syntax: String,
    pub study_uid: String,
    pub series_uid: String,
    pub instance_number: Option<i64>,
    pub accession_number: Option<String>,
    pub patient_id: Option<String>,
    /// SHA-256 of the data set as received, hexadecimal.
    pub digest: String,
    /// Relative to the data folder.
    pub path: String,
    /// Bytes.
    pub size: u64,
    pub calling_ae: String,
    pub peer: String,
    pub received_at: String,
    /// One entry per frame, at least one.
    pub slices: Vec<NewSlice>,
    /// Scored before others.
    pub stat: bool,
}

impl NewInstance {
    /// Whether a slice of it is to be scored.
    pub fn has_queued_slices(&self) -> bool {
        self.slices.contains(&NewSlice::Queued)
    }
}

/// How a slice begins: queued for scoring, or ineligible with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewSlice {
    Queued,
    Ineligible(String),
}

/// What became of an instance that was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// It is new; its slices are in the queue.
    New,
    /// The same SOP Instance UID with the same content is already there: nothing changed, except that an instance whose file had
    /// been removed has it again.
    Duplicate,
    /// The same SOP Instance UID with other content is already there: the first is kept, this one belongs in quarantine.
    Conflict { kept_digest: String },
}

/// An object that was kept, but not taken in.
#[derive(Debug, Clone)]
pub struct Quarantined {
    pub sop_uid: String,
    pub study_uid: Option<String>,
    pub digest: String,
    pub path: String,
    pub reason: String,
    pub calling_ae: String,
    pub peer: String,
    pub received_at: String,
}

/// An instance whose file the archive holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceFile {
    pub series_uid: String,
    pub sop_uid: String,
    /// Relative to the data folder.
    pub path: String,
}
