//! The ledger: instances, the queue of slices, results, verdicts and the outbox.
//!
//! [`records`] are what it keeps, in the words of the domain. [`sqlite`] keeps them in one SQLite database; nothing else
//! in this program knows SQL. [`Queue`] is the port that a queue for several machines will implement, too.

mod error;
mod queue;
#[cfg(test)]
mod queue_tests;
pub mod records;
pub mod sqlite;
mod wakeups;

pub use error::{DatabaseError, LedgerError, Result};
pub use queue::{Pending, Queue};
pub use records::*;
pub use sqlite::{Acknowledged, Changes, Ledger, Reader, Router, WorklistPage};
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
