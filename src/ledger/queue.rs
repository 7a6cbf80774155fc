//! The port between the ledger and whoever scores slices. Another queue, which workers on several machines share, can
//! stand in its place.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use triaged_imaging::Shows;

use super::{Claim, Ended, Lease, LeaseRequest, Result, Score};

/// A write under way. Once it is `Ok`, it is on disk.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// The queue of slices.
///
/// A slice stays in the queue until it ends. Who works on it has a lease: nobody else is given the slice before the lease
/// expires, and only the latest lease ends it. So a worker that was silent for too long, and comes back, changes nothing.
///
/// ```text
///          lease                    complete, decline, fail, give_up_object
/// waiting ───────→ leased to one worker ───────→ ended
///    ↑                │ retry, give_back, or the lease expires
///    └────────────────┘
/// ```
pub trait Queue: Send + Sync {
    /// Takes up what the former run of this node had leased when it ended. Call it at start, before the first lease. Returns
    /// how many slices that is.
    fn recover(&self, node: &str) -> Pending<'_, u64>;

    /// Leases the next slices: STAT ones before others, three of four while both wait; new ones before those that are scored
    /// again or were taken in again, likewise. Within each kind senders take turns, and the studies of each. A suspect is leased
    /// alone ([`Claim::cut_at_suspect`]).
    ///
    /// The lease is counted before the slice is touched: a slice that takes the process with it must not do so for ever. A
    /// lease that its own worker lets expire and takes again is counted once.
    fn lease(&self, request: LeaseRequest) -> Pending<'_, Vec<Claim>>;

    /// Makes leases last this long from now. Returns those that were lost.
    fn extend(&self, leases: Vec<Lease>, duration: Duration) -> Pending<'_, Vec<Lease>>;

    /// Ends slices as scored. Returns the leases that were lost, whose scores are not recorded.
    fn complete(&self, scores: Vec<Score>) -> Pending<'_, Vec<Lease>>;

    /// Ends a slice as ineligible: the object itself cannot be triaged. `shows`: its pixels were looked at, and are not those of a head.
    fn decline(&self, lease: Lease, reason: String, shows: Option<Shows>) -> Pending<'_, Ended>;

    /// Ends a slice as failed.
    fn fail(&self, lease: Lease, reason: String) -> Pending<'_, Ended>;

    /// Ends a slice as failed, and with it all slices of its object that have not ended, whoever has leased them. Returns how many
    /// others these are.
    fn give_up_object(&self, lease: Lease, reason: String) -> Pending<'_, (Ended, u64)>;

    /// Counts an attempt that failed; the slice may be leased again after a while.
    fn retry(&self, lease: Lease, reason: String, after: Duration) -> Pending<'_, Ended>;

    /// Gives slices back that were not worked on to an end, and takes the lease off the count: the worker stops, and they are
    /// not why.
    fn give_back(&self, leases: Vec<Lease>) -> Pending<'_, ()>;

    /// How many slices wait, leased or not. Blocks.
    fn queue_depth(&self) -> Result<u64>;

    /// The last count of [`Queue::queue_depth`]; the inference stage asks for one every second.
    fn last_count(&self) -> Arc<QueueCount>;

    /// Whether no slice waits, leased or not. Blocks for some microseconds.
    fn is_idle(&self) -> Result<bool>;

    /// Wakes when slices were queued by this process. Others may queue slices, too: look now and then.
    fn queued(&self) -> &Notify;
}

/// How many slices waited at a moment, leased or not.
#[derive(Debug)]
pub struct QueueCount {
    /// Before the count began: what was committed until then is counted.
    pub as_of: Instant,
    /// All that waited.
    pub waiting: u64,
    /// Those of them that came from a sender and were not tried before. Work that is done again keeps nobody out, so only these count where
    /// objects are refused.
    pub new: u64,
    /// These by [`source`](super::source).
    pub new_by_source: HashMap<String, u64>,
}

impl Default for QueueCount {
    fn default() -> QueueCount {
        QueueCount { as_of: Instant::now(), waiting: 0, new: 0, new_by_source: HashMap::new() }
    }
}
