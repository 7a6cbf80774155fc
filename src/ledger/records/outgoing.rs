//! The queue of objects that go to other nodes by C-STORE.

use super::fields::record;

record! {
    /// A row of the view `document_log`: a document that a channel sends with a message.
    pub struct SentDocument {
        pub notification_id: i64,
        pub study_uid: Option<String>,
        pub revision: i64,
        pub channel: String,
        /// `report` or `key-image`.
        pub kind: String,
        pub sop_uid: Option<String>,
        /// `stored`, `refused` or `unavailable`.
        pub state: String,
        pub attempts: i64,
        pub at: String,
        pub error: Option<String>,
    }
}

record! {
    /// A row of the view `forward_log`: an instance on its way to a destination.
    pub struct ForwardRow {
        pub id: i64,
        pub destination: String,
        pub study_uid: String,
        pub series_uid: String,
        pub sop_uid: String,
        /// `pending`, `stored` or `failed`.
        pub state: String,
        pub urgent: bool,
        pub attempts: i64,
        pub created_at: String,
        pub stored_at: Option<String>,
        pub transfer_syntax: Option<String>,
        pub last_error: Option<String>,
        pub next_attempt_at: Option<String>,
    }
}

/// How sending a document ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DocumentState {
    Stored,
    /// The peer answered so.
    Refused(String),
    /// It cannot be made, for this reason: there is nothing to send.
    Unavailable(String),
}

/// Which instances a destination gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardRule {
    pub destination: String,
    /// Only those of studies that are flagged.
    pub flagged_only: bool,
    /// Upper case; empty: whoever sent it.
    pub calling_ae_titles: Vec<String>,
}

/// An instance to be forwarded now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueForward {
    pub copy: ForwardedCopy,
    pub sop_class_uid: String,
    pub sop_uid: String,
    pub transfer_syntax: String,
    /// Relative to the data folder; `None` once the file was removed.
    pub path: Option<String>,
    pub attempts: u32,
}

/// A row of what is to be forwarded, and the content that its instance had when it was looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardedCopy {
    pub id: i64,
    pub digest: String,
}

/// How an attempt to forward an instance ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardEnd {
    Stored {
        transfer_syntax: String,
    },
    Retry {
        at: String,
        error: String,
    },
    Failed {
        error: String,
    },
    /// Not tried, for there was no association: it waits as before, and says why.
    Waits {
        error: String,
    },
}
