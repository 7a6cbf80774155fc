//! Why nothing further can be read from a connection.

use std::io;
use std::time::Duration;

use super::outgoing::AbortReason;

/// The longest PDU other than P-DATA-TF, in bytes. An A-ASSOCIATE-RQ with 128 presentation contexts of forty transfer
/// syntaxes each has about 340 KB.
pub(super) const LARGEST_CONTROL_PDU: u32 = 512 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum PduError {
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    #[error("the connection was closed in the middle of a PDU")]
    Truncated,
    #[error("nothing was received for {0:?}")]
    Timeout(Duration),
    #[error("{0}")]
    NotDicom(&'static str),
    #[error("unknown PDU type {0:02X}H")]
    UnknownType(u8),
    #[error(
        "a PDU of type {pdu_type:02X}H states a length of {length} bytes, at most {LARGEST_CONTROL_PDU} are sensible"
    )]
    TooLarge { pdu_type: u8, length: u32 },
    #[error("malformed PDU: {0}")]
    Malformed(String),
}

impl PduError {
    /// The reason of the A-ABORT that answers it (PS3.8 9.3.8), if the peer can still be told.
    pub fn abort_reason(&self) -> Option<AbortReason> {
        match self {
            PduError::Io(_) | PduError::Truncated => None,
            PduError::Timeout(_) => Some(AbortReason::NotSpecified),
            PduError::NotDicom(_) | PduError::UnknownType(_) => Some(AbortReason::UnrecognizedPdu),
            PduError::TooLarge { .. } | PduError::Malformed(_) => Some(AbortReason::InvalidParameter),
        }
    }
}
