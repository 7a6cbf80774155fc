//! Errors of TLS, in words that an administrator can act on.

use std::io;
use std::path::PathBuf;

use rustls::pki_types::pem;
use rustls::{AlertDescription, Error, PeerIncompatible};
use tokio::net::TcpStream;

/// Why TLS cannot be offered or asked for: what is wrong with which file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{setting}: {path} cannot be read: {source}")]
    File { setting: String, path: PathBuf, source: pem::Error },
    #[error("{setting}: {path} has no certificate in PEM")]
    NoCertificate { setting: String, path: PathBuf },
    #[error("{setting}: the certificate in {path} cannot be used: {source}")]
    Unusable { setting: String, path: PathBuf, source: Error },
    #[error("{setting}: {path}: {source}")]
    ClientCa { setting: String, path: PathBuf, source: rustls::server::VerifierBuilderError },
    #[error("{0} is not set")]
    NotSet(String),
    #[error("{0}.require_client_certificate needs {0}.client_ca, the authority that signs them")]
    NoClientCa(&'static str),
    #[error(
        "dimse.tls.peer_ca: the node calls a peer over TLS, and no authority is named whose certificates it trusts"
    )]
    NoPeerCa,
    #[error("{0:?} is no name of a host that a certificate could have")]
    Name(String),
}

/// Why a connection to a TLS port is no TLS session.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The first byte that came, and the connection: nothing was read from it.
    #[error("the peer does not speak TLS")]
    NotTls(u8, TcpStream),
    #[error("the connection was closed before the TLS handshake")]
    Closed,
    #[error("the TLS handshake failed: {0}{advice}", advice = advice(.0))]
    Failed(#[from] io::Error),
}

/// Advice about an error of TLS, where there is some; empty, or begins with a semicolon.
pub fn advice(error: &io::Error) -> &'static str {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(Error::NoCertificatesPresented) => "; give the sender a certificate that the client_ca has signed",
        Some(Error::InvalidCertificate(_)) => {
            "; its certificate is not signed by the authority that is configured, or has ended"
        }
        Some(Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired,
        )) => "; the peer does not trust the node's certificate: give it the authority that signed it",
        Some(Error::PeerIncompatible(
            PeerIncompatible::NoCipherSuitesInCommon
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::NoKxGroupsInCommon
            | PeerIncompatible::NoSignatureSchemesInCommon
            | PeerIncompatible::ServerDoesNotSupportTls12Or13,
        )) => "; the peer knows only TLS that is too old: put stunnel between (docs/security.md)",
        _ => "",
    }
}
