//! Who is at the other end of an association.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use super::known::KnownPeer;
use super::pdu::UserIdentity;

/// Numbers an association within the process, for the log.
pub type AssociationId = u64;

/// The peer of an association that was accepted.
#[derive(Debug, Clone)]
pub struct Peer {
    pub association: AssociationId,
    pub calling_ae: String,
    pub called_ae: String,
    pub address: IpAddr,
    /// Which peer of `[[dimse.peers]]` it is; `None` where there are none.
    pub known: Option<Arc<KnownPeer>>,
    /// The certificate that the peer proved to own, in a TLS session that asked for one.
    pub certificate: Option<CertificateDer<'static>>,
    /// The user identity that was checked.
    pub user_identity: Option<UserIdentity>,
}
