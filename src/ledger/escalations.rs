//! The port between the ledger and the stage that escalates.

use std::time::Duration;

use super::{NewMessage, Pending, Result, Undelivered};

/// Whom to tell when nobody acknowledges in time, and when a message does not arrive.
pub trait Escalations: Send + Sync {
    /// Writes the messages of escalations that are due. An acknowledgement cancels them before (trigger
    /// `escalations_cancelled`). Returns how many were written.
    fn raise(&self) -> Pending<'_, u64>;

    /// Messages about verdicts that were raised `wait` ago or earlier, were tried, are not delivered, and of which no other
    /// channel was told. Blocks.
    fn undelivered(&self, wait: Duration, most: usize) -> Result<Vec<Undelivered>>;

    /// Tells other channels of a message that does not arrive, unless it has arrived meanwhile.
    fn report_undelivered(&self, id: i64, messages: Vec<NewMessage>) -> Pending<'_, ()>;
}
