//! The port between the ledger and the stage that escalates.

use std::time::Duration;

use super::{NewMessage, Pending, Result, Undelivered, Waiting};

/// Whom to tell when nobody acknowledges in time, and when a message does not arrive.
pub trait Escalations: Send + Sync {
    /// Writes the messages of escalations that are due. An acknowledgement cancels them before (trigger
    /// `escalations_cancelled`); one that tells of a study that could not be judged is cancelled where that is not so any more, and
    /// waits while the study is judged anew. Returns how many were written.
    fn raise(&self) -> Pending<'_, u64>;

    /// Tells of acknowledgements that were written by processes which do not know who hears of them. Returns how many that were.
    fn tell_acknowledged(&self) -> Pending<'_, u64>;

    /// What is not delivered, of channels that are none of `channels`. Blocks.
    fn stranded(&self, channels: &[String]) -> Result<Vec<Waiting>>;

    /// Gives up what is pending for a channel that is not there any more, so that an administrator sees it and others are told. It is
    /// due at once where the channel comes back.
    fn give_up_channel(&self, channel: String, error: String) -> Pending<'_, u64>;

    /// Messages about verdicts that were raised `wait` ago or earlier, were tried or given up, are not delivered, and of which no other
    /// channel was told. Blocks.
    fn undelivered(&self, wait: Duration, most: usize) -> Result<Vec<Undelivered>>;

    /// Tells other channels of a message that does not arrive, unless it has arrived meanwhile.
    fn report_undelivered(&self, id: i64, messages: Vec<NewMessage>) -> Pending<'_, ()>;
}
