//! Whom to call.

use std::time::Duration;

/// Whom to call, and as whom.
#[derive(Debug, Clone)]
pub struct Peer {
    /// `host:port`.
    pub address: String,
    pub called_ae_title: String,
    pub calling_ae_title: String,
    /// For the connection, for each read and for each write.
    pub timeout: Duration,
}
