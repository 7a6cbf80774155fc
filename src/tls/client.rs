//! TLS sessions that the node opens. Blocks.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::config::{self, CertificateRule};

use super::certificate;
use super::error::{TlsError, advice};
use super::files::{TlsFiles, authorities, is_set};

/// A session over a blocking socket.
pub type TlsSession = StreamOwned<ClientConnection, TcpStream>;

/// Opens sessions with one peer.
#[derive(Debug)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    certificates: Vec<CertificateRule>,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("{0}{advice}", advice = advice(.0))]
    Handshake(#[from] io::Error),
    #[error("the peer shows another certificate than dimse.peers names")]
    OtherCertificate,
}

impl ConnectError {
    pub fn is_timeout(&self) -> bool {
        matches!(self, ConnectError::Handshake(error)
            if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut))
    }
}

impl TlsClient {
    /// For a peer whose certificate has this name, which is a DNS name or an address, and which is one of `certificates` where any
    /// are named. The node shows the first of its own certificates, if it has one.
    ///
    /// # Errors
    /// A file that is missing or cannot be used.
    pub fn new(settings: &config::Tls, name: &str, certificates: &[CertificateRule]) -> Result<TlsClient, TlsError> {
        let (setting, path) = match is_set(&settings.peer_ca) {
            true => ("dimse.tls.peer_ca", &settings.peer_ca),
            false => ("dimse.tls.client_ca", &settings.client_ca),
        };
        if !is_set(path) {
            return Err(TlsError::NoPeerCa);
        }
        let provider = Arc::new(ring::default_provider());
        let files = TlsFiles::from(settings);
        let shows = files.pairs.iter().any(|pair| is_set(&pair.certificate));
        let own = if shows { files.keys(&provider)?.into_iter().next() } else { None };
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.expect("ring has cipher suites for TLS 1.2 and 1.3");
        let builder = builder.with_root_certificates(authorities(setting, path)?);
        let config = match own {
            Some(own) => builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(own))),
            None => builder.with_no_client_auth(),
        };
        // IPv6 addresses stand in brackets before a port.
        let server = ServerName::try_from(name.trim_matches(['[', ']']).to_owned());
        let name = server.map_err(|_| TlsError::Name(name.into()))?;
        Ok(TlsClient { config: Arc::new(config), name, certificates: certificates.to_vec() })
    }

    /// Makes a session of a connection, handshake included.
    pub fn connect(&self, mut socket: TcpStream) -> Result<TlsSession, ConnectError> {
        let connection = ClientConnection::new(self.config.clone(), self.name.clone());
        let mut connection = connection.map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        let shown = connection.peer_certificates().and_then(|chain| chain.first());
        let is_named = |shown| self.certificates.iter().any(|rule| certificate::meets(shown, rule));
        if !self.certificates.is_empty() && !shown.is_some_and(is_named) {
            return Err(ConnectError::OtherCertificate);
        }
        Ok(StreamOwned::new(connection, socket))
    }
}
