//! The events that stages wait for.

use tokio::sync::Notify;

/// Wakes the stages of this process that have something to do. A wake-up is a hint: who waits looks into the ledger
/// now and then though nobody woke it, because other processes write, too.
#[derive(Default)]
pub struct Wakeups {
    /// Slices were queued: the inference stage waits here.
    pub queued: Notify,
    /// An outbox row became pending: the channels wait here.
    pub posted: Notify,
    /// A slice of a study came to its end, or something was received: the triage stage waits here.
    pub changed: Notify,
}
