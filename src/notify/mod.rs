//! Telling people: channels, and the worker that takes messages from the outbox to a channel until they arrived.
//!
//! Delivery is at least once: a crash between the counterpart's answer and its record in the ledger sends the message
//! again, with the same idempotency key.

mod event;
mod webhook;
mod worker;

use std::pin::Pin;
use std::time::Duration;

pub use event::{ALERT, AlertEvent, NOTICE, WORDING};
pub use webhook::Webhook;
pub use worker::Worker;

use crate::config;
use crate::ledger::OutboxRow;

/// A way to tell people. It knows a message and its counterpart, and nothing of the node.
pub trait Channel: Send + Sync {
    /// As in the outbox's `channel`, in metrics and in logs.
    fn name(&self) -> &str;

    /// Tries once. Every attempt on a row sends the same content under the same identity (idempotency key, message
    /// control id, SOP Instance UID …), so that the counterpart can tell a repetition. Must end in bounded time.
    fn deliver<'a>(&'a self, row: &'a OutboxRow) -> Attempt<'a>;
}

/// An attempt under way.
pub type Attempt<'a> = Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The counterpart has it.
    Delivered,
    /// It may work later; not before `after`, if the counterpart asked for that.
    Retry { error: Failure, after: Option<Duration> },
    /// It will never work without a person's help.
    Reject { error: Failure },
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// For log and ledger: no patient data and no secrets.
    pub text: String,
    /// What the counterpart said, bounded. It may repeat patient data, so it goes to the ledger only.
    pub reply: Option<String>,
}

impl<T: Into<String>> From<T> for Failure {
    fn from(text: T) -> Failure {
        Failure { text: text.into(), reply: None }
    }
}

/// Why a channel cannot be opened with its settings.
#[derive(Debug, thiserror::Error)]
#[error("configuration: {key}: {why}")]
pub struct ChannelError {
    pub key: &'static str,
    pub why: String,
}

/// Opens the channels that are configured; none is a choice, too.
pub fn channels(settings: &config::Notify) -> Result<Vec<Box<dyn Channel>>, ChannelError> {
    let mut channels: Vec<Box<dyn Channel>> = Vec::new();
    if !settings.webhook.url.is_empty() {
        channels.push(Box::new(Webhook::new(&settings.webhook)?));
    }
    Ok(channels)
}
