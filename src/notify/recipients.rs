//! Who of several recipients has a message already, for channels that tell each of them.

use crate::ledger::Ledger;

/// A narrow view of the ledger for a channel that has several recipients.
pub trait Recipients: Send + Sync {
    /// The recipients that have a message, where others have not. Blocks.
    fn told(&self, message: i64) -> Result<Vec<String>, String>;

    /// Notes recipients that have a message, so that another attempt passes them over, after a restart, too. Blocks.
    fn note(&self, message: i64, recipients: Vec<String>) -> Result<(), String>;
}

impl Recipients for Ledger {
    fn told(&self, message: i64) -> Result<Vec<String>, String> {
        self.told_recipients(message).map_err(|error| error.to_string())
    }

    fn note(&self, message: i64, recipients: Vec<String>) -> Result<(), String> {
        self.note_told(message, recipients).map_err(|error| error.to_string())
    }
}

/// For a process that has no ledger at hand, such as `triaged check`.
pub struct NoRecipients;

impl Recipients for NoRecipients {
    fn told(&self, _: i64) -> Result<Vec<String>, String> {
        Ok(Vec::new())
    }

    fn note(&self, _: i64, _: Vec<String>) -> Result<(), String> {
        Ok(())
    }
}
