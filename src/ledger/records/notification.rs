//! Messages that must arrive: the rows of the outbox, and what follows when nobody acknowledges.

use std::sync::Arc;
use std::time::Duration;

use super::fields::record;
use crate::event::Event;

/// A message to be written: an event for one channel.
#[derive(Debug, Clone)]
pub struct NewMessage {
    pub channel: String,
    pub event: Arc<Event>,
    /// `None`: now. Otherwise it is raised then, unless the study is acknowledged before.
    pub escalation: Option<Step>,
}

/// A step of escalation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// From 1.
    pub number: u32,
    /// How long after the event.
    pub after: Duration,
}

/// A message to deliver, as its channel's worker takes it.
#[derive(Debug, Clone)]
pub struct OutboxRow {
    pub id: i64,
    /// `None`: it is about the node.
    pub study_uid: Option<String>,
    /// The same at every attempt.
    pub idempotency_key: String,
    /// [`Event::to_json`], of this or an earlier version.
    pub event: String,
    /// 0, or the step of escalation.
    pub step: u32,
    /// Attempts made before.
    pub attempts: u32,
    pub created_at: String,
    /// It was given up before, and is tried again all the same.
    pub dead: bool,
    /// It goes before others: it says that a study is flagged, is a step of an escalation, or says that one of these does not arrive.
    pub is_alert: bool,
}

/// How an attempt to deliver ended.
#[derive(Debug, Clone)]
pub enum Delivery {
    Delivered,
    /// Some of its recipients have it, and for the others it will hardly work.
    DeliveredExcept {
        error: String,
    },
    /// It is not true any more, and was not sent.
    Withdrawn {
        why: String,
    },
    /// To be tried again at this time.
    Retry {
        at: String,
        error: String,
    },
    /// Given up: an administrator sees it. It is tried again at this time, if it is not too old by then.
    Dead {
        at: String,
        error: String,
    },
}

/// Which dead messages are tried again.
#[derive(Debug, Clone, Copy)]
pub struct Revival {
    /// The longest wait between attempts; what is due later than that was written before the clock was set back.
    pub longest: Duration,
    /// Older ones are left to a person.
    pub oldest: Duration,
    /// Alerts of acknowledged studies, too. Else these are left to a person: somebody takes care of the study, and a pager would open
    /// the incident anew.
    pub acknowledged: bool,
}

/// What becomes of a study's messages while none was delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telling {
    /// A channel is still to be told.
    ToCome,
    /// No channel took its message within the usual attempts.
    GivenUp,
    /// No channel is told of it.
    Nobody,
}

/// The messages of a channel that are not delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub channel: String,
    pub pending: u64,
    pub dead: u64,
}

/// A message about a verdict that is not delivered though it was tried.
#[derive(Debug, Clone)]
pub struct Undelivered {
    pub id: i64,
    pub channel: String,
    pub attempts: u32,
    pub created_at: String,
    /// [`crate::event::Event::to_json`].
    pub event: String,
}

/// An acknowledge link as it is used: once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkUse {
    /// The study is acknowledged by it. `first` is false where somebody was faster.
    Acknowledged { first: bool },
    /// The study is not flagged: it is marked as seen.
    Seen,
    /// The study was judged again since the verdict that was shown. Nothing was done, and the link still works.
    JudgedAgain,
    /// It was used before, at this time.
    UsedBefore { at: String },
}

record! {
    /// A row of the view `notification_log`.
    pub struct NotificationRow {
        pub id: i64,
        /// `None`: it is about the node.
        pub study_uid: Option<String>,
        pub revision: i64,
        pub channel: String,
        pub state: String,
        pub attempts: i64,
        pub created_at: String,
        pub delivered_at: Option<String>,
        pub acknowledged_at: Option<String>,
        pub last_error: Option<String>,
        /// The kind of event, as in [`crate::event::Kind`].
        pub kind: String,
        /// 0, or the step of escalation.
        pub step: i64,
        /// When it is tried next; a dead one only while it is not too old.
        pub next_attempt_at: Option<String>,
    }
}
