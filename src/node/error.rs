//! Why the node did not start.

use std::io;
use std::path::PathBuf;

use crate::decoding::DecoderError;
use crate::forward::ForwardError;
use crate::inference::EngineError;
use crate::ledger::LedgerError;
use crate::notify::ChannelError;
use crate::tls::TlsError;

/// Why archive and ledger are not used together. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error(
        "the database {database} is not the one of the archive beside it: it has the identity {found}, the archive {expected}. Put the right \
         one in its place, or remove it and let the node make a new one of the archive; or, if both shall be one from now on, run `triaged \
         recover --join`"
    )]
    Foreign { database: PathBuf, found: String, expected: String },
    #[error(
        "the archive {archive} has nothing of what the database lists, and was never used with it: is its disk mounted? Mount or restore it; \
         or, if its files are lost for good, run `triaged recover --join`, and the node goes on without them"
    )]
    ArchiveAway { archive: PathBuf },
}

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
    Storage(#[from] StorageError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Decoder(#[from] DecoderError),
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error("{0}")]
    Login(String),
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
            // A disk that is mounted later.
            StartError::Storage(error) => matches!(error, StorageError::ArchiveAway { .. }),
            // After a power cut the driver may come later than the node.
            StartError::Engine(error) => matches!(error, EngineError::Device { .. } | EngineError::Run(_)),
            // An address that the network has yet to give to this machine; a port in use stays so.
            StartError::Listen { source, .. } => source.kind() == io::ErrorKind::AddrNotAvailable,
            StartError::Channel(_)
            | StartError::Login(_)
            | StartError::Forward(_)
            | StartError::Metrics(_)
            | StartError::Tls(_) => false,
        }
    }
}
