//! Whom to call.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{self, DicomUser, KnownPeer};
use crate::tls::{TlsClient, TlsError};

/// Whom to call, and as whom.
#[derive(Debug, Clone)]
pub struct Peer {
    /// `host:port`.
    pub address: String,
    pub called_ae_title: String,
    pub calling_ae_title: String,
    /// For the connection, for each read and for each write.
    pub timeout: Duration,
    /// `None`: plain TCP.
    pub tls: Option<Arc<TlsClient>>,
    /// The user identity (PS3.7 D.3.3.7) that is sent.
    pub user: Option<DicomUser>,
}

/// Why a peer of the settings cannot be called.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    #[error("peer {0:?} has no address in dimse.peers")]
    NoAddress(String),
    #[error("peer {name:?}: {source}")]
    Tls { name: String, source: Box<TlsError> },
}

impl Peer {
    /// A peer that is called over plain TCP, without a user identity.
    pub fn plain(address: String, called_ae_title: String, calling_ae_title: String, timeout: Duration) -> Peer {
        Peer { address, called_ae_title, calling_ae_title, timeout, tls: None, user: None }
    }

    /// A peer of the settings. The files of TLS are read.
    ///
    /// # Errors
    /// It has no address, or the files of `[dimse.tls]` cannot be used.
    pub fn known(peer: &KnownPeer, settings: &config::Dimse, timeout: Duration) -> Result<Peer, PeerError> {
        let (false, Some(called)) = (peer.address.is_empty(), peer.called()) else {
            return Err(PeerError::NoAddress(peer.name.clone()));
        };
        let tls = match peer.tls {
            false => None,
            true => {
                let host = peer.address.rsplit_once(':').map_or(peer.address.as_str(), |(host, _)| host);
                let name = if peer.tls_name.is_empty() { host } else { &peer.tls_name };
                let client = TlsClient::new(&settings.tls, name, &peer.certificates);
                Some(Arc::new(
                    client.map_err(|source| PeerError::Tls { name: peer.name.clone(), source: Box::new(source) })?,
                ))
            }
        };
        Ok(Peer {
            address: peer.address.clone(),
            called_ae_title: called.to_owned(),
            calling_ae_title: settings.ae_title.trim().to_owned(),
            timeout,
            tls,
            user: peer.call_as.clone(),
        })
    }
}
