//! The ledger: instances, the queue of slices, results, verdicts and the outbox.
//!
//! [`records`] are what it keeps, in the words of the domain. [`sqlite`] keeps them in one SQLite database; nothing else
//! in this program knows SQL. Its stages know it by
//! ports, which another backend would implement: intake by [`Instances`], whoever scores by [`Queue`], the triage stage by
//! [`Studies`], the channels by [`Outbox`] and [`Escalations`]. The tests of `port_tests` hold for each backend.

mod error;
mod escalations;
mod instances;
mod outbox;
#[cfg(test)]
pub(crate) mod port_tests;
mod queue;
pub mod records;
pub mod sqlite;
mod studies;
mod wakeups;

pub use error::{DatabaseError, LedgerError, Result};
pub use escalations::Escalations;
pub use instances::{Instances, Told};
pub use outbox::Outbox;
pub use queue::{Pending, Queue, QueueCount};
pub use records::*;
pub use sqlite::{Acknowledged, Changes, FileStanding, Ledger, Reader, Router, WorklistPage, set_foreign_log_aside};
pub use studies::Studies;
pub use wakeups::Wakeups;

/// The current moment as the ledger writes it: UTC ISO 8601 with milliseconds.
pub fn now() -> String {
    format_time(jiff::Timestamp::now())
}

/// A moment as the ledger writes it.
pub fn format_time(t: jiff::Timestamp) -> String {
    format!("{t:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc_with_milliseconds_and_sort_as_text() {
        let t = format_time("2026-11-23T15:42:07.1Z".parse().unwrap());
        assert_eq!(t, "2026-11-23T15:42:07.100Z");
    }
}
