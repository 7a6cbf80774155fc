//! Slices: leased from the queue, and scored.

use std::time::Duration;

use triaged_imaging::Shows;

use super::location::Location;

/// The row of a slice.
pub type SliceId = i64;

/// The right to end a slice. It is in the slice's row, so it outlives the process that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    pub slice: SliceId,
    /// Another for each lease of the slice. Only the latest ends it.
    pub number: i64,
}

/// Who works on slices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerId {
    /// The same each time the node starts.
    pub node: String,
    /// Another each time the node starts.
    pub run: String,
}

impl WorkerId {
    /// This machine, in a run that is told from all others.
    pub fn of_this_run() -> WorkerId {
        let node = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let node = node.trim();
        let mut run = uuid::Uuid::new_v4().simple().to_string();
        run.truncate(12);
        WorkerId { node: if node.is_empty() { "node".into() } else { node.into() }, run }
    }
}

impl std::fmt::Display for WorkerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.node, self.run)
    }
}

/// A worker's request to the queue.
#[derive(Debug, Clone)]
pub struct LeaseRequest {
    pub worker: WorkerId,
    /// At most so many slices.
    pub most: usize,
    /// How long the leases last, unless they are extended.
    pub duration: Duration,
    /// Whether the worker works on nothing else. Only then it is given a suspect: see [`Claim::is_suspect`].
    pub is_idle: bool,
}

/// A slice to be scored, with the lease to do so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub lease: Lease,
    pub study_uid: String,
    pub sop_uid: String,
    /// Counts from 1.
    pub frame: u32,
    /// The Part 10 file, relative to the data folder.
    pub path: String,
    /// The UID of the transfer syntax that the file is in.
    pub transfer_syntax: String,
    /// The words of the header that speak against a head. The slice is scored only if its pixels are those of a head.
    pub head_check: Option<String>,
    /// How often it was tried before, with an end that was recorded.
    pub attempts: u32,
    /// How often a process ended, or was silent until the lease expired, while it worked on the slice.
    pub deaths: u32,
    pub claimed_at: String,
}

/// A slice that a process ended with this often is leased alone, so that no other is blamed for it.
const SUSPECT: u32 = 2;

impl Claim {
    /// Whether the slice may be why processes ended. A suspect is leased alone.
    pub fn is_suspect(&self) -> bool {
        self.deaths >= SUSPECT
    }

    /// Cuts what is next in the queue off at the first suspect: it is leased alone, by a worker that is idle, and what comes after
    /// it waits for it.
    pub fn cut_at_suspect(claims: &mut Vec<Claim>, is_idle: bool) {
        if let Some(suspect) = claims.iter().position(Claim::is_suspect) {
            claims.truncate(if suspect == 0 && is_idle { 1 } else { suspect });
        }
    }
}

/// The outcome of ending a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Recorded,
    /// The lease was not the latest any more, or the slice has ended: nothing was recorded.
    LeaseLost,
}

/// The score of a slice, and how it was made.
#[derive(Debug, Clone)]
pub struct Score {
    pub lease: Lease,
    pub probability: f64,
    pub positive: bool,
    /// What is to be seen in its pixels.
    pub shows: Shows,
    /// Where in the slice the finding is, where the model says so and the slice is suspicious.
    pub location: Option<Location>,
    pub threshold: f64,
    pub model: String,
    pub model_sha256: String,
    pub provider: String,
    pub claimed_at: String,
    pub decoded_at: String,
    pub scored_at: String,
}
