//! Why the node did not start.

use std::io;
use std::path::PathBuf;

use crate::forward::ForwardError;
use crate::inference::{DecoderError, EngineError};
use crate::ledger::LedgerError;
use crate::notify::ChannelError;
use crate::tls::TlsError;

/// Why the node did not start. Nothing was accepted.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the data folder {path} cannot be used: {source}")]
    DataFolder { path: PathBuf, source: io::Error },
    #[error("another triaged works on the data folder {path}; give this one a data_dir of its own")]
    Locked { path: PathBuf },
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Decoder(#[from] DecoderError),
    #[error("the shadow model (inference.shadow): {0}")]
    Shadow(#[source] EngineError),
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error(transparent)]
    Forward(#[from] ForwardError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("metrics cannot be recorded: {0}")]
    Metrics(String),
    #[error("{setting}: cannot listen on {address}: {source}")]
    Listen { setting: &'static str, address: String, source: io::Error },
}

impl StartError {
    /// Whether it may be gone at the next try, so that whoever started the node should start it again. What a person has
    /// to mend, settings and models, may not.
    pub fn may_pass(&self) -> bool {
        match self {
            StartError::DataFolder { .. } | StartError::Locked { .. } | StartError::Decoder(_) => true,
            StartError::Ledger(error) => error.may_pass(),
            // After a power cut the driver may come later than the node.
            StartError::Engine(error) | StartError::Shadow(error) => {
                matches!(error, EngineError::Device { .. } | EngineError::Run(_))
            }
            // An address that the network has yet to give to this machine; a port in use stays so.
            StartError::Listen { source, .. } => source.kind() == io::ErrorKind::AddrNotAvailable,
            StartError::Channel(_) | StartError::Forward(_) | StartError::Metrics(_) | StartError::Tls(_) => false,
        }
    }
}
