//! The peers that the node knows by its settings (`[[dimse.peers]]`): by AE title, network, certificate and user.

use std::net::IpAddr;
use std::sync::Arc;

use dicom_dictionary_std::uids;
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::{self, DicomUser};
use crate::tls::certificate;

use super::applicant::{Applicant, Refusal};
use super::pdu::{Rejection, UserIdentity, UserIdentityType};

/// A peer of the settings, with what is open for it.
pub struct KnownPeer {
    settings: config::KnownPeer,
    /// One permit for each association that it may have at one time; `None`: no limit of its own.
    places: Option<Arc<Semaphore>>,
    /// One permit for each association that it may have while all places of the node are taken.
    reserve: Arc<Semaphore>,
}

impl std::fmt::Debug for KnownPeer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("KnownPeer").field(&self.settings.name).finish()
    }
}

/// Names are unique.
impl PartialEq for KnownPeer {
    fn eq(&self, other: &KnownPeer) -> bool {
        self.settings.name == other.settings.name
    }
}

impl Eq for KnownPeer {}

impl KnownPeer {
    pub fn new(settings: &config::KnownPeer) -> KnownPeer {
        let places = (settings.max_associations > 0).then(|| Arc::new(Semaphore::new(settings.max_associations)));
        let reserved = if settings.names_somebody() { settings.reserved_associations } else { 0 };
        KnownPeer { settings: settings.clone(), places, reserve: Arc::new(Semaphore::new(reserved)) }
    }

    pub fn name(&self) -> &str {
        &self.settings.name
    }

    pub fn settings(&self) -> &config::KnownPeer {
        &self.settings
    }

    /// The largest object that it may send, in bytes; `None`: no limit of its own.
    pub fn max_object_bytes(&self) -> Option<u64> {
        Some(self.settings.max_object_mib).filter(|mib| *mib > 0).map(|mib| mib.saturating_mul(1 << 20))
    }

    /// Whether it may use this SOP class.
    pub fn may_use(&self, sop_class: &str) -> bool {
        let allowed = &self.settings.sop_classes;
        let group = match sop_class {
            uids::VERIFICATION => config::VERIFICATION,
            uids::STORAGE_COMMITMENT_PUSH_MODEL => config::STORAGE_COMMITMENT,
            _ => config::STORAGE,
        };
        allowed.is_empty() || allowed.iter().map(|entry| entry.trim()).any(|entry| entry == group || entry == sop_class)
    }

    /// A place among the peer's own, to be held while its association is open.
    ///
    /// # Errors
    /// As many are open as it may have.
    pub fn place(&self) -> Result<Option<OwnedSemaphorePermit>, Refusal> {
        let Some(places) = &self.places else { return Ok(None) };
        places.clone().try_acquire_owned().map(Some).map_err(|_| Refusal {
            rejection: Rejection::LocalLimitExceeded,
            why: format!("max_associations of peer {:?} are open already", self.name()),
        })
    }

    /// A place that is kept for this peer, for when all others are taken. None where they are taken, too.
    pub fn reserved_place(&self) -> Option<OwnedSemaphorePermit> {
        self.reserve.clone().try_acquire_owned().ok()
    }

    /// Whether it comes from this address, as far as its networks say.
    pub fn is_at(&self, address: IpAddr) -> bool {
        self.settings.networks.iter().any(|network| network.contains(address))
    }

    /// Whether an applicant calls itself what this peer does.
    fn has_title(&self, calling_ae: &str) -> bool {
        let titles = &self.settings.ae_titles;
        titles.is_empty() || titles.iter().any(|title| title.trim() == calling_ae)
    }

    /// Whether the applicant is this peer. The user is not asked about: who it is decides which users count.
    fn is(&self, applicant: &Applicant<'_>) -> Result<(), Refusal> {
        let refuse = |rejection, what: &str| {
            Err(Refusal { rejection, why: format!("it calls itself as peer {:?} does, but {what}", self.name()) })
        };
        let networks = &self.settings.networks;
        if !networks.is_empty() && !networks.iter().any(|network| network.contains(applicant.address)) {
            // From there, this title is nobody's.
            return refuse(Rejection::CallingAeTitleNotRecognized, "comes from another network");
        }
        if self.settings.tls && !applicant.tls {
            return refuse(Rejection::NoReasonGiven, "not over TLS (dimse.tls.port)");
        }
        let rules = &self.settings.certificates;
        if !rules.is_empty() {
            let Some(shown) = applicant.certificate else {
                return refuse(Rejection::NoReasonGiven, "shows no certificate");
            };
            if !rules.iter().any(|rule| certificate::meets(shown, rule)) {
                return refuse(Rejection::NoReasonGiven, "shows another certificate");
            }
        }
        Ok(())
    }

    /// Checks the user identity (PS3.7 D.3.3.7), where the peer has users. Returns whether it was checked.
    ///
    /// # Errors
    /// None is given, or it is no user of the peer.
    pub fn check_user(&self, identity: Option<&UserIdentity>) -> Result<bool, String> {
        let users = &self.settings.users;
        if users.is_empty() {
            return Ok(false);
        }
        let Some(identity) = identity else { return Err("no user identity is given".into()) };
        let known = match identity.identity_type {
            UserIdentityType::Username => users.iter().any(|user| is_user(user, &identity.primary, b"")),
            UserIdentityType::UsernameAndPasscode => {
                users.iter().any(|user| is_user(user, &identity.primary, &identity.secondary))
            }
            other => return Err(format!("the user identity is {other:?}, a user name with its passcode is due")),
        };
        if known { Ok(true) } else { Err("the user identity is refused: wrong name or passcode".into()) }
    }
}

/// Digests are compared, so that the time that it takes tells nothing of the passcode.
fn is_user(user: &DicomUser, name: &[u8], passcode: &[u8]) -> bool {
    let same = |known: &str, given: &[u8]| Sha256::digest(known.as_bytes()) == Sha256::digest(given);
    same(&user.name, name) & same(user.passcode.reveal(), passcode)
}

/// The first peer that the applicant is.
///
/// # Errors
/// It is none: the reason of the first that has its title, else that nobody has it.
pub fn identify(peers: &[Arc<KnownPeer>], applicant: &Applicant<'_>) -> Result<Arc<KnownPeer>, Refusal> {
    let mut refused = None;
    for peer in peers.iter().filter(|peer| peer.has_title(applicant.calling_ae)) {
        match peer.is(applicant) {
            Ok(()) => return Ok(peer.clone()),
            Err(refusal) => _ = refused.get_or_insert(refusal),
        }
    }
    Err(refused.unwrap_or_else(|| Refusal {
        rejection: Rejection::CallingAeTitleNotRecognized,
        why: format!("calling AE title {:?} is no peer's of dimse.peers", applicant.calling_ae),
    }))
}
