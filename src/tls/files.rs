//! The files of TLS: certificates, keys, authorities.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::config;

use super::certificate;
use super::error::TlsError;

/// The files that a section of the settings names. An empty path means that it is not set.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The section, for errors: `dimse.tls` or `web.tls`.
    pub section: &'static str,
    /// Certificate with its chain, and its key; at least one pair.
    pub pairs: Vec<config::CertificateFiles>,
    /// Authorities that sign the certificates of clients.
    pub client_ca: PathBuf,
    pub require_client_certificate: bool,
}

impl From<&config::Tls> for TlsFiles {
    fn from(settings: &config::Tls) -> TlsFiles {
        TlsFiles {
            section: "dimse.tls",
            pairs: pairs(&settings.certificate, &settings.key, &settings.certificates),
            client_ca: settings.client_ca.clone(),
            require_client_certificate: settings.require_client_certificate,
        }
    }
}

impl From<&config::WebTls> for TlsFiles {
    fn from(settings: &config::WebTls) -> TlsFiles {
        TlsFiles {
            section: "web.tls",
            pairs: pairs(&settings.certificate, &settings.key, &settings.certificates),
            client_ca: PathBuf::new(),
            require_client_certificate: false,
        }
    }
}

/// The pair that a section names first, and further ones.
fn pairs(certificate: &Path, key: &Path, further: &[config::CertificateFiles]) -> Vec<config::CertificateFiles> {
    let first = config::CertificateFiles { certificate: certificate.into(), key: key.into() };
    let first = (is_set(certificate) || is_set(key) || further.is_empty()).then_some(first);
    first.into_iter().chain(further.iter().cloned()).collect()
}

pub fn is_set(path: &Path) -> bool {
    !path.as_os_str().is_empty()
}

impl TlsFiles {
    fn all(&self) -> impl Iterator<Item = &PathBuf> {
        self.pairs.iter().flat_map(|pair| [&pair.certificate, &pair.key]).chain([&self.client_ca])
    }

    /// When each file was changed, and its size.
    pub fn stamps(&self) -> Vec<Option<(SystemTime, u64)>> {
        let stamp = |path: &PathBuf| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        self.all().map(stamp).collect()
    }

    /// Certificates with their keys.
    ///
    /// # Errors
    /// A file that is not set, missing, or cannot be used; a key that is another certificate's.
    pub fn keys(&self, provider: &CryptoProvider) -> Result<Vec<Arc<CertifiedKey>>, TlsError> {
        let [certificate_setting, key_setting] = ["certificate", "key"].map(|name| format!("{}.{name}", self.section));
        let key = |pair: &config::CertificateFiles| {
            for (path, setting) in [(&pair.certificate, &certificate_setting), (&pair.key, &key_setting)] {
                if !is_set(path) {
                    return Err(TlsError::NotSet(setting.clone()));
                }
            }
            let chain = certificates(&certificate_setting, &pair.certificate)?;
            let key = PrivateKeyDer::from_pem_file(&pair.key).map_err(|source| TlsError::File {
                setting: key_setting.clone(),
                path: pair.key.clone(),
                source,
            })?;
            let certified = CertifiedKey::from_der(chain, key, provider).map_err(|source| TlsError::Unusable {
                setting: certificate_setting.clone(),
                path: pair.certificate.clone(),
                source,
            })?;
            Ok(Arc::new(certified))
        };
        self.pairs.iter().map(key).collect()
    }
}

/// The certificates of a file.
pub fn certificates(setting: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::File { setting: setting.into(), path: path.into(), source };
    let certificates = CertificateDer::pem_file_iter(path).map_err(failed)?;
    let certificates = certificates.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate { setting: setting.into(), path: path.into() });
    }
    Ok(certificates)
}

/// The authorities of a file.
pub fn authorities(setting: &str, path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(setting, path)? {
        roots.add(certificate).map_err(|source| TlsError::Unusable {
            setting: setting.into(),
            path: path.into(),
            source,
        })?;
    }
    Ok(roots)
}

/// When the first of the certificates in each file ends, of those files that can be read.
pub fn expiries(files: &TlsFiles) -> Vec<(PathBuf, Timestamp)> {
    let paths = files.pairs.iter().map(|pair| &pair.certificate).chain([&files.client_ca]);
    let end = |path: &PathBuf| {
        let certificates = certificates("", path).ok()?;
        Some((path.clone(), certificates.iter().filter_map(certificate::expires).min()?))
    };
    paths.filter(|path| is_set(path)).filter_map(end).collect()
}
