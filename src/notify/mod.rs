//! Telling people and systems: channels, the routes that say which channel hears what, and the worker that takes messages
//! from the outbox to a channel until they arrived.
//!
//! Delivery is at least once: a crash between the counterpart's answer and its record in the ledger sends the message
//! again, with the same idempotency key.

mod direct;
mod documents;
mod email;
mod escalation;
mod files;
mod links;
mod message;
mod pacs;
mod peers;
mod recipients;
mod retry;
mod routing;
mod schedule;
mod webhook;
mod words;
mod worker;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

pub use direct::Direct;
pub use documents::{Documents, NoDocuments, OwnDocuments};
pub use email::Email;
pub use escalation::Escalation;
pub use files::{ArchivedStudies, NoFiles, StudyFile, StudyFiles};
pub use links::{AcknowledgeLink, LinkError, Links};
pub use message::{Include, Message};
pub use pacs::Pacs;
pub use peers::{DocumentPeer, DocumentPeers, NoPeers, NotStored};
pub use recipients::{NoRecipients, Recipients};
pub use routing::Routing;
pub use schedule::zone;
pub use webhook::Webhook;
pub use worker::Worker;

use crate::config::{self, ChannelKind};
use schedule::QuietHours;

/// A way to tell people or systems. It knows a message and its counterpart, and nothing of the node.
pub trait Channel: Send + Sync {
    /// As in the configuration, in the outbox's `channel`, in metrics and in logs.
    fn name(&self) -> &str;

    /// Tries once. Every attempt on a message sends the same content under the same identity (idempotency key, message
    /// control id, SOP Instance UID …), so that the counterpart can tell a repetition. Must end in bounded time.
    fn deliver<'a>(&'a self, message: &'a Message) -> Attempt<'a>;
}

/// An attempt under way.
pub type Attempt<'a> = Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The counterpart has it.
    Delivered,
    /// Some recipients have it; for the others it will hardly work before a person mends something.
    DeliveredExcept { error: Failure },
    /// It may work soon; not before `after`, if the counterpart asked for that.
    Retry { error: Failure, after: Option<Duration> },
    /// It will hardly work before a person mends something, here or at the counterpart.
    Reject { error: Failure },
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// For log and ledger: no patient data and no secrets.
    pub text: String,
    /// The counterpart's answer, bounded. It may repeat patient data, so it goes to the ledger only.
    pub reply: Option<String>,
}

impl Failure {
    /// As an administrator reads it.
    pub fn in_full(&self) -> String {
        match &self.reply {
            Some(reply) => format!("{}: {reply}", self.text),
            None => self.text.clone(),
        }
    }
}

impl<T: Into<String>> From<T> for Failure {
    fn from(text: T) -> Failure {
        Failure { text: text.into(), reply: None }
    }
}

/// Why channels or routes cannot be used as they are configured.
#[derive(Debug, thiserror::Error)]
#[error("configuration: {key}: {why}")]
pub struct ChannelError {
    pub key: String,
    pub why: String,
}

impl ChannelError {
    fn new(key: impl Into<String>, why: impl Into<String>) -> ChannelError {
        ChannelError { key: key.into(), why: why.into() }
    }
}

/// The parts of the node that a channel may use.
#[derive(Clone)]
pub struct Surroundings {
    pub files: Arc<dyn StudyFiles>,
    pub documents: Arc<dyn Documents>,
    pub peers: Arc<dyn DocumentPeers>,
    pub recipients: Arc<dyn Recipients>,
}

impl Default for Surroundings {
    /// For a process that has no archive at hand.
    fn default() -> Surroundings {
        Surroundings {
            files: Arc::new(NoFiles),
            documents: Arc::new(NoDocuments),
            peers: Arc::new(NoPeers),
            recipients: Arc::new(NoRecipients),
        }
    }
}

/// Opens the channels that are configured; none is a choice, too.
pub fn channels(settings: &config::Notify, surroundings: &Surroundings) -> Result<Vec<Box<dyn Channel>>, ChannelError> {
    let zone = schedule::zone(&settings.time_zone).map_err(|why| ChannelError::new("notify.time_zone", why))?;
    let mut channels: Vec<Box<dyn Channel>> = Vec::new();
    for config::Channel { name, quiet_hours, kind } in settings.all_channels() {
        if name.is_empty() || name.len() > 40 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        {
            return Err(ChannelError::new(
                "notify.channels",
                format!("name = {name:?}: a channel's name is 1 to 40 letters, digits, hyphens, dots and underscores"),
            ));
        }
        if channels.iter().any(|channel| channel.name() == name) {
            let why = format!("two channels have the name {name:?}; the one of notify.webhook is \"webhook\"");
            return Err(ChannelError::new("notify.channels", why));
        }
        QuietHours::parse(&quiet_hours, &settings.time_zone)
            .map_err(|why| ChannelError::new(format!("notify.channels, channel {name:?}.quiet_hours"), why))?;
        channels.push(match kind {
            ChannelKind::Webhook(settings) => Box::new(Webhook::new(&name, &settings, &zone)?),
            ChannelKind::Pacs(settings) => Box::new(Pacs::new(&name, &settings, surroundings)?),
            ChannelKind::Email(settings) => Box::new(Email::new(&name, &settings, &zone, surroundings)?),
        });
    }
    Ok(channels)
}
