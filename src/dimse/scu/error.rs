//! Why there is no association, or none any more, in words that an administrator reads.

use std::io;
use std::time::Duration;

use dicom_ul::pdu::{AbortRQSource, AssociationRJ, AssociationRJResult};

/// Why there is no association, or none any more.
#[derive(Debug, thiserror::Error)]
pub enum ScuError {
    #[error("cannot connect to {address}: {source}")]
    Connect { address: String, source: io::Error },
    #[error("no TLS with {address}: {why}")]
    Tls { address: String, why: String },
    #[error("{address} rejected the association ({how}): {why}")]
    Rejected { address: String, how: &'static str, why: String },
    #[error("{address} accepted none of the presentation contexts offered: {offered}")]
    NothingAccepted { address: String, offered: String },
    #[error("{address} aborted the association: {why}")]
    Aborted { address: String, why: String },
    #[error("{address} closed the connection")]
    Closed { address: String },
    #[error("{address} released the association before everything was sent")]
    Released { address: String },
    #[error("{address} was silent for {} s", .after.as_secs_f64())]
    Timeout { address: String, after: Duration },
    #[error("{address} does not speak DICOM as expected: {why}")]
    Protocol { address: String, why: String },
}

impl ScuError {
    /// The peer rejects the association.
    pub fn rejected(address: &str, rejection: &AssociationRJ) -> ScuError {
        ScuError::Rejected {
            address: address.to_owned(),
            how: match rejection.result {
                AssociationRJResult::Permanent => "for good",
                AssociationRJResult::Transient => "for now",
            },
            why: rejection.source.to_string(),
        }
    }
}

/// Why a peer aborted.
pub fn abort(source: &AbortRQSource) -> String {
    match source {
        AbortRQSource::ServiceUser => "by its application, which gives no reason".into(),
        AbortRQSource::ServiceProvider(reason) => reason.to_string(),
        AbortRQSource::Reserved => "no reason given".into(),
    }
}
