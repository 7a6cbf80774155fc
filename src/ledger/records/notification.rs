//! Messages that must arrive: the rows of the outbox.

use super::fields::record;

/// A message for one channel, to be sent because of a verdict.
#[derive(Debug, Clone)]
pub struct Alert {
    pub channel: String,
    pub kind: String,
    pub finding: String,
    /// Channel-neutral JSON.
    pub event: String,
}

/// A message to deliver. All that a channel knows.
#[derive(Debug, Clone)]
pub struct OutboxRow {
    pub id: i64,
    pub study_uid: String,
    pub revision: i64,
    pub kind: String,
    /// The same at every attempt.
    pub idempotency_key: String,
    /// Channel-neutral JSON.
    pub event: String,
    /// Attempts made before.
    pub attempts: u32,
    pub created_at: String,
}

/// How an attempt to deliver ended.
#[derive(Debug, Clone)]
pub enum Delivery {
    Delivered,
    /// To be tried again at this time.
    Retry {
        at: String,
        error: String,
    },
    /// Never to be tried again by the machine.
    Dead {
        error: String,
    },
}

record! {
    /// A row of the view `notification_log`.
    pub struct NotificationRow {
        pub id: i64,
        pub study_uid: String,
        pub revision: i64,
        pub channel: String,
        pub state: String,
        pub attempts: i64,
        pub created_at: String,
        pub delivered_at: Option<String>,
        pub acknowledged_at: Option<String>,
        pub last_error: Option<String>,
    }
}
