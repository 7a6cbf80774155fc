//! TLS for associations (PS3.15 B.9 to B.12, BCP 195): TLS 1.2 and 1.3 by rustls, whose cipher suites all have forward secrecy.
//!
//! The files are read again when they change, so a certificate is renewed without a restart. A renewal that cannot be used
//! is logged, and the certificate of before stays.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use crate::config;

use super::pdu::AbortReason;
use super::transport::Connection;

/// Why TLS cannot be offered: what is wrong with which file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{setting}: {path} cannot be read: {source}")]
    File { setting: &'static str, path: PathBuf, source: pem::Error },
    #[error("{setting}: {path} has no certificate in PEM")]
    NoCertificate { setting: &'static str, path: PathBuf },
    #[error("{setting}: the certificate in {path} cannot be used: {source}")]
    Unusable { setting: &'static str, path: PathBuf, source: rustls::Error },
    #[error("dimse.tls.client_ca: {path}: {source}")]
    ClientCa { path: PathBuf, source: rustls::server::VerifierBuilderError },
    #[error("{0} is not set, and dimse.tls.port is")]
    NotSet(&'static str),
    #[error("dimse.tls.require_client_certificate needs dimse.tls.client_ca, the authority that signs them")]
    NoClientCa,
}

/// Why a connection to the TLS port is no TLS session.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error(
        "a plain DICOM client spoke to the TLS port (dimse.tls.port): turn TLS on at the sender, or use dimse.port"
    )]
    PlainDicom,
    #[error("an HTTP client or something else than TLS spoke to the TLS port (dimse.tls.port)")]
    NotTls,
    #[error("the connection was closed before the TLS handshake")]
    Closed,
    #[error("the TLS handshake failed: {0}")]
    Failed(#[from] io::Error),
}

/// Accepts TLS sessions with the certificate that its files hold now.
pub struct TlsServer {
    settings: config::Tls,
    current: Mutex<Current>,
}

struct Current {
    config: Arc<ServerConfig>,
    /// When each file was changed, and its size.
    files: Vec<Option<(SystemTime, u64)>>,
}

impl TlsServer {
    /// Reads the files that the settings name.
    ///
    /// # Errors
    /// A file that is missing or cannot be used.
    pub fn new(settings: &config::Tls) -> Result<TlsServer, TlsError> {
        let files = stamps(settings);
        let current = Current { config: Arc::new(read(settings)?), files };
        Ok(TlsServer { settings: settings.clone(), current: Mutex::new(current) })
    }

    /// The configuration for the next session; read again if a file has changed.
    fn config(&self) -> Arc<ServerConfig> {
        let mut current = self.current.lock().expect("nobody panics while holding the TLS configuration");
        let files = stamps(&self.settings);
        if files != current.files {
            // A renewal that fails is tried again only when a file changes again.
            current.files = files;
            match read(&self.settings) {
                Ok(config) => {
                    info!("dimse.tls: a changed certificate, key or authority is in use");
                    current.config = Arc::new(config);
                }
                Err(error) => warn!("the TLS certificate of before stays in use: {error}"),
            }
        }
        current.config.clone()
    }

    /// Makes a TLS session of a connection. A peer that does not speak TLS is told by a plain A-ABORT.
    pub async fn accept(&self, mut socket: TcpStream, address: IpAddr) -> Result<Connection, HandshakeError> {
        socket.set_nodelay(true)?;
        let mut first = [0];
        match (socket.peek(&mut first).await?, first[0]) {
            (0, _) => return Err(HandshakeError::Closed),
            // A TLS handshake record (RFC 8446 5.1).
            (_, 0x16) => {}
            (_, first) => {
                let _ = socket.write_all(&AbortReason::NotSpecified.encode()).await;
                return Err(if first == 0x01 { HandshakeError::PlainDicom } else { HandshakeError::NotTls });
            }
        }
        let session = TlsAcceptor::from(self.config()).accept(socket).await?;
        let certificates = session.get_ref().1.peer_certificates();
        let certificate =
            certificates.and_then(|chain| chain.first()).map(|certificate| certificate.clone().into_owned());
        Ok(Connection { transport: Box::new(session), address, certificate })
    }
}

fn stamps(settings: &config::Tls) -> Vec<Option<(SystemTime, u64)>> {
    let stamp = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    [&settings.certificate, &settings.key, &settings.client_ca].into_iter().map(stamp).collect()
}

fn read(settings: &config::Tls) -> Result<ServerConfig, TlsError> {
    const CERTIFICATE: &str = "dimse.tls.certificate";
    let is_set = |path: &Path| !path.as_os_str().is_empty();
    if !is_set(&settings.certificate) {
        return Err(TlsError::NotSet(CERTIFICATE));
    }
    if !is_set(&settings.key) {
        return Err(TlsError::NotSet("dimse.tls.key"));
    }
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let unusable = |source| TlsError::Unusable { setting: CERTIFICATE, path: settings.certificate.clone(), source };
    let builder = builder.map_err(unusable)?;
    let builder = if is_set(&settings.client_ca) {
        const CLIENT_CA: &str = "dimse.tls.client_ca";
        let mut roots = RootCertStore::empty();
        for certificate in certificates(CLIENT_CA, &settings.client_ca)? {
            roots.add(certificate).map_err(|source| TlsError::Unusable {
                setting: CLIENT_CA,
                path: settings.client_ca.clone(),
                source,
            })?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = if settings.require_client_certificate { verifier } else { verifier.allow_unauthenticated() };
        let verifier =
            verifier.build().map_err(|source| TlsError::ClientCa { path: settings.client_ca.clone(), source })?;
        builder.with_client_cert_verifier(verifier)
    } else if settings.require_client_certificate {
        return Err(TlsError::NoClientCa);
    } else {
        builder.with_no_client_auth()
    };
    let key = PrivateKeyDer::from_pem_file(&settings.key).map_err(|source| TlsError::File {
        setting: "dimse.tls.key",
        path: settings.key.clone(),
        source,
    })?;
    builder.with_single_cert(certificates(CERTIFICATE, &settings.certificate)?, key).map_err(unusable)
}

fn certificates(setting: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::File { setting, path: path.into(), source };
    let certificates = CertificateDer::pem_file_iter(path).map_err(failed)?;
    let certificates = certificates.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate { setting, path: path.into() });
    }
    Ok(certificates)
}
