//! TLS sessions that are accepted.
//!
//! The files are read again when they change, so a certificate is renewed without a restart. A renewal that cannot be used
//! is logged, and the certificate of before stays.

use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{info, warn};

use super::certificate;
use super::error::{HandshakeError, TlsError};
use super::files::{TlsFiles, authorities, expiries, is_set};

/// A TLS handshake record (RFC 8446 5.1).
const HANDSHAKE: u8 = 0x16;

/// Accepts TLS sessions with the certificates that its files hold now.
pub struct TlsServer {
    files: TlsFiles,
    /// Protocols that are offered by ALPN; none for DICOM.
    protocols: Vec<Vec<u8>>,
    current: Mutex<Current>,
}

struct Current {
    config: Arc<ServerConfig>,
    /// When each file was changed, and its size.
    files: Vec<Option<(SystemTime, u64)>>,
}

impl TlsServer {
    /// Reads the files.
    ///
    /// # Errors
    /// A file that is missing or cannot be used.
    pub fn new(files: impl Into<TlsFiles>, protocols: &[&str]) -> Result<TlsServer, TlsError> {
        let files = files.into();
        let protocols: Vec<Vec<u8>> = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let stamps = files.stamps();
        let current = Current { config: Arc::new(read(&files, &protocols)?), files: stamps };
        Ok(TlsServer { files, protocols, current: Mutex::new(current) })
    }

    /// Reads the files again if one has changed; to be called now and then, so that the metrics say what is in use although nobody
    /// connects.
    pub fn refresh(&self) {
        self.config();
    }

    /// The configuration for the next session; read again if a file has changed.
    fn config(&self) -> Arc<ServerConfig> {
        let mut current = self.current.lock().expect("nobody panics while holding the TLS configuration");
        let stamps = self.files.stamps();
        if stamps != current.files {
            // A renewal that fails is tried again only when a file changes again.
            current.files = stamps;
            let section = self.files.section;
            match read(&self.files, &self.protocols) {
                Ok(config) => {
                    info!("{section}: a changed certificate, key or authority is in use");
                    current.config = Arc::new(config);
                }
                Err(error) => warn!("the TLS certificate of before stays in use: {error}"),
            }
        }
        current.config.clone()
    }

    /// Makes a TLS session of a connection.
    pub async fn accept(&self, socket: TcpStream) -> Result<TlsStream<TcpStream>, HandshakeError> {
        socket.set_nodelay(true)?;
        let mut first = [0];
        match (socket.peek(&mut first).await?, first[0]) {
            (0, _) => Err(HandshakeError::Closed),
            (_, HANDSHAKE) => Ok(TlsAcceptor::from(self.config()).accept(socket).await?),
            (_, first) => Err(HandshakeError::NotTls(first, socket)),
        }
    }
}

fn read(files: &TlsFiles, protocols: &[Vec<u8>]) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let keys = files.keys(&provider)?;
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.expect("ring has cipher suites for TLS 1.2 and 1.3");
    let builder = if is_set(&files.client_ca) {
        let setting = format!("{}.client_ca", files.section);
        let roots = authorities(&setting, &files.client_ca)?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let required = files.require_client_certificate;
        let verifier = if required { verifier } else { verifier.allow_unauthenticated() };
        let verifier = verifier.build().map_err(|source| {
            let path = files.client_ca.clone();
            TlsError::ClientCa { setting, path, source }
        })?;
        builder.with_client_cert_verifier(verifier)
    } else if files.require_client_certificate {
        return Err(TlsError::NoClientCa(files.section));
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder.with_cert_resolver(Arc::new(Certificates::new(keys)));
    config.alpn_protocols = protocols.to_vec();
    for (path, end) in expiries(files) {
        let file = path.display().to_string();
        metrics::gauge!("triaged_certificate_expiry_timestamp_seconds", "file" => file).set(end.as_second() as f64);
    }
    Ok(config)
}

/// The node's certificates, and which of them a client is shown: the one with the name that it asks for (SNI) and a key of a kind
/// that it can verify, else the first of such a kind.
#[derive(Debug)]
struct Certificates {
    /// Each with the names that it carries.
    keys: Vec<(Vec<String>, Arc<CertifiedKey>)>,
}

impl Certificates {
    fn new(keys: Vec<Arc<CertifiedKey>>) -> Certificates {
        let names = |key: &CertifiedKey| key.cert.first().map(certificate::names).unwrap_or_default();
        Certificates { keys: keys.into_iter().map(|key| (names(&key), key)).collect() }
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let usable = || self.keys.iter().filter(|(_, key)| key.key.choose_scheme(hello.signature_schemes()).is_some());
        let asked = hello.server_name().map(str::to_lowercase);
        let is_asked =
            |names: &[String]| asked.as_ref().is_some_and(|asked| names.iter().any(|name| covers(name, asked)));
        let named = usable().find(|(names, _)| is_asked(names));
        // If none is usable, rustls tells the client so.
        named.or_else(|| usable().next()).or(self.keys.first()).map(|(_, key)| key.clone())
    }
}

/// Whether a name of a certificate covers a host; `*` stands for one label (RFC 6125 6.4.3).
fn covers(name: &str, host: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(domain) => host.split_once('.').is_some_and(|(_, rest)| rest == domain),
        None => name == host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_one_label() {
        assert!(covers("node.example.org", "node.example.org"));
        assert!(covers("*.example.org", "node.example.org"));
        assert!(!covers("*.example.org", "a.node.example.org"));
        assert!(!covers("*.example.org", "example.org"));
        assert!(!covers("example.org", "node.example.org"));
    }
}
