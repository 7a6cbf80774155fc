//! Why there is no association, or none any more, in words that an administrator reads.

use std::io;
use std::time::Duration;

use dicom_ul::association::Error as UpperLayerError;
use dicom_ul::pdu::{AbortRQSource, AssociationRJResult, Pdu};

/// Why there is no association, or none any more.
#[derive(Debug, thiserror::Error)]
pub enum ScuError {
    #[error("cannot connect to {address}: {source}")]
    Connect { address: String, source: io::Error },
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
    /// An error of the upper layer library.
    pub fn from_upper_layer(address: &str, timeout: Duration, error: UpperLayerError) -> ScuError {
        let address = address.to_owned();
        match error {
            UpperLayerError::Rejected { association_rj, .. } => ScuError::Rejected {
                address,
                how: match association_rj.result {
                    AssociationRJResult::Permanent => "for good",
                    AssociationRJResult::Transient => "for now",
                },
                why: association_rj.source.to_string(),
            },
            UpperLayerError::UnexpectedPdu { pdu, .. } if matches!(*pdu, Pdu::AbortRQ { .. }) => {
                let Pdu::AbortRQ { source } = *pdu else { unreachable!("just matched") };
                ScuError::Aborted { address, why: abort(&source) }
            }
            UpperLayerError::Connect { source, .. } | UpperLayerError::ToAddress { source, .. } => {
                match source.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ScuError::Connect {
                        address,
                        source: io::Error::new(
                            io::ErrorKind::TimedOut,
                            format!("no answer for {} s", timeout.as_secs_f64()),
                        ),
                    },
                    _ => ScuError::Connect { address, source },
                }
            }
            UpperLayerError::ConnectionClosed { .. } => ScuError::Closed { address },
            other => match io_kind(&other) {
                Some(io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    ScuError::Timeout { address, after: timeout }
                }
                Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof) => {
                    ScuError::Closed { address }
                }
                _ => ScuError::Protocol { address, why: chain(&other) },
            },
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

/// The kind of the I/O error that an error comes from, if it comes from one.
fn io_kind(error: &(dyn std::error::Error + 'static)) -> Option<io::ErrorKind> {
    let mut source = Some(error);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        source = error.source();
    }
    None
}

/// An error with its causes in one line; the libraries' texts name one level each.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
