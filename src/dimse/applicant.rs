//! Who asks for an association, and why they may not have it.

use std::net::IpAddr;

use rustls::pki_types::CertificateDer;

use super::pdu::{AssociateRequest, Rejection};

/// Who asks for an association.
pub struct Applicant<'r> {
    pub request: &'r AssociateRequest,
    pub calling_ae: &'r str,
    pub called_ae: &'r str,
    pub address: IpAddr,
    /// Whether it came over TLS.
    pub tls: bool,
    /// The certificate that the peer proved to own, in a TLS session that asked for one.
    pub certificate: Option<&'r CertificateDer<'static>>,
}

/// Why an association is rejected.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    pub rejection: Rejection,
    /// The reason in words, for the log.
    pub why: String,
}
