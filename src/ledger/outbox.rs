//! The port between the ledger and the channels.

use std::time::Duration;

use tokio::sync::Notify;

use super::{Actor, Delivery, NewMessage, OutboxRow, Pending, Result, Revival};

/// The messages that must arrive.
///
/// A message stays here until it is delivered. Its channel's worker asks for what is due, and writes how each attempt ended.
///
/// ```text
///  decide, post, Escalations::raise            settle: delivered
///        └────────→ pending ────────────────────────────→ delivered
///                    ▲ │ ▲ settle: retry                      ▲
///                    │ │ └─┘                                  │
///       requeue_dead │ ▼ settle: dead      settle: delivered  │
///                   dead ─────────────────────────────────────┘
/// ```
///
/// One that was overtaken before it arrived is withdrawn: it is over as one that was delivered, and stands in no log.
pub trait Outbox: Send + Sync {
    /// The messages of a channel that are due: alerts, oldest first, and then the others, oldest first; at most `most` of each, so
    /// that its worker can see both. Blocks.
    ///
    /// News of an acknowledgement waits until the channel's alerts of the study have gone: a pager that got them the other way round
    /// would leave its incident open.
    ///
    /// `longest` is the longest wait between attempts: what is due later than that was written before the clock was set
    /// back, and is due now, for an alarm must not wait for the clock to catch up.
    fn due(&self, channel: &str, most: usize, longest: Duration) -> Result<Vec<OutboxRow>>;

    /// The dead messages of a channel that are to be tried again now, in the same order. Blocks.
    fn due_dead(&self, channel: &str, most: usize, revival: Revival) -> Result<Vec<OutboxRow>>;

    /// When the next message of a channel is due: for the channel's worker to sleep until then.
    fn next_due(&self, channel: &str) -> Result<Option<String>>;

    /// How many messages of a channel are pending, and how many are dead. Blocks.
    fn counts(&self, channel: &str) -> Result<(u64, u64)>;

    /// Whether a message that says a study is not flagged, or could not be judged, is not true any more. Blocks.
    fn is_outdated(&self, id: i64) -> Result<bool>;

    /// Writes messages that no verdict brings, such as those about the node.
    fn post(&self, messages: Vec<NewMessage>) -> Pending<'_, ()>;

    /// Writes how an attempt ended.
    fn settle(&self, id: i64, delivery: Delivery) -> Pending<'_, ()>;

    /// The channel works again: its dead messages are due now, but for those that were tried within `pause` or are older
    /// than `oldest`. Returns how many.
    fn revive_dead(&self, channel: String, pause: Duration, oldest: Duration) -> Pending<'_, u64>;

    /// Sends dead messages again: the one with this id, or all. Returns how many. Blocks.
    fn requeue_dead(&self, id: Option<i64>, actor: &Actor) -> Result<u64>;

    /// Wakes when messages were written by this process. Others may write, too: look now and then.
    fn posted(&self) -> &Notify;
}
