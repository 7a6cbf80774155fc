//! Association policy: who may associate.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use crate::config;

use super::applicant::{Applicant, Refusal};
use super::known::{self, KnownPeer};
use super::pdu::{Rejection, UserIdentity};

/// DICOM's application context (PS3.7 A.2.1).
pub const APPLICATION_CONTEXT: &str = "1.2.840.10008.3.1.1.1";

/// The shortest maximum length that a message can be sent in: the header of a presentation data value (6 bytes) and a
/// fragment of an even number of bytes.
const SHORTEST_MAXIMUM_LENGTH: u32 = 8;

/// Who was let in.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// Which peer of the settings it is; `None` where there are none.
    pub known: Option<Arc<KnownPeer>>,
    /// The user identity, if it was checked.
    pub user_identity: Option<UserIdentity>,
    /// The server response to it (PS3.7 D.3.3.7.2), if the peer asked for one.
    pub user_identity_response: Option<Vec<u8>>,
}

/// Who may associate.
#[derive(Clone, Default)]
pub struct Policy {
    ae_title: String,
    check_called_ae_title: bool,
    calling_ae_titles: HashSet<String>,
    /// Empty: anybody may associate.
    peers: Vec<Arc<KnownPeer>>,
}

impl Policy {
    pub fn new(settings: &config::Dimse) -> Policy {
        let titles = settings.calling_ae_titles.iter().map(|title| title.trim().to_owned());
        Policy {
            ae_title: settings.ae_title.trim().to_owned(),
            check_called_ae_title: settings.check_called_ae_title,
            calling_ae_titles: titles.collect(),
            peers: settings.peers.iter().map(|peer| Arc::new(KnownPeer::new(peer))).collect(),
        }
    }

    /// Whether a peer of the settings is known to come from this address.
    pub fn knows(&self, address: IpAddr) -> bool {
        self.peers.iter().any(|peer| peer.is_at(address))
    }

    /// Judges a request (PS3.8 9.3.2 to 9.3.4). `busy`: the sender has as many associations as it may have.
    ///
    /// A user identity is neither looked at nor answered where no users are configured: a positive response would say that
    /// somebody had been recognized.
    pub fn admit(&self, applicant: &Applicant<'_>, busy: bool) -> Result<Admission, Refusal> {
        let request = applicant.request;
        let refuse = |rejection, why| Err(Refusal { rejection, why });
        if request.protocol_version & 1 == 0 {
            let why = format!("protocol version {:#06x} is not supported", request.protocol_version);
            return refuse(Rejection::ProtocolVersionNotSupported, why);
        }
        if request.application_context != APPLICATION_CONTEXT {
            let why = format!("application context {:?} is not DICOM's", request.application_context);
            return refuse(Rejection::ApplicationContextNotSupported, why);
        }
        if self.check_called_ae_title && applicant.called_ae != self.ae_title {
            let why = format!("called AE title {:?} is not {:?}", applicant.called_ae, self.ae_title);
            return refuse(Rejection::CalledAeTitleNotRecognized, why);
        }
        if !self.calling_ae_titles.is_empty() && !self.calling_ae_titles.contains(applicant.calling_ae) {
            let why = format!("calling AE title {:?} is not in dimse.calling_ae_titles", applicant.calling_ae);
            return refuse(Rejection::CallingAeTitleNotRecognized, why);
        }
        if let Some(length) = request.maximum_length.filter(|length| *length < SHORTEST_MAXIMUM_LENGTH) {
            let why = format!("the peer takes PDUs of at most {length} bytes, in which no answer can be sent");
            return refuse(Rejection::ProviderNoReasonGiven, why);
        }
        let mut admission = Admission::default();
        if !self.peers.is_empty() {
            let known = known::identify(&self.peers, applicant)?;
            let identity = request.user_identity.as_ref();
            match known.check_user(identity) {
                Ok(false) => {}
                Ok(true) => {
                    admission.user_identity = identity.cloned();
                    // The server response to a user name is empty (PS3.7 table D.3-15).
                    let asked = identity.is_some_and(|identity| identity.positive_response_requested);
                    admission.user_identity_response = asked.then(Vec::new);
                }
                Err(why) => return refuse(Rejection::NoReasonGiven, format!("peer {:?}: {why}", known.name())),
            }
            admission.known = Some(known);
        }
        if busy {
            let why = "dimse.max_associations_of_source of this sender are open already";
            return refuse(Rejection::LocalLimitExceeded, why.into());
        }
        Ok(admission)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dimse::pdu::{AssociateRequest, Titles, UserIdentityType};
    use dicom_dictionary_std::uids;

    fn policy(change: impl FnOnce(&mut config::Dimse)) -> Policy {
        let mut settings = config::Settings::load(None, &[]).unwrap().dimse;
        change(&mut settings);
        Policy::new(&settings)
    }

    fn request() -> AssociateRequest {
        AssociateRequest {
            protocol_version: 1,
            titles: Titles::new("TRIAGED", "CT1"),
            application_context: APPLICATION_CONTEXT.into(),
            contexts: Vec::new(),
            maximum_length: None,
            implementation_class_uid: String::new(),
            implementation_version_name: String::new(),
            roles: Vec::new(),
            extended_negotiation: Vec::new(),
            user_identity: None,
        }
    }

    fn admit(policy: &Policy, request: &AssociateRequest, busy: bool) -> Result<Admission, Rejection> {
        let applicant = Applicant {
            request,
            calling_ae: &request.titles.calling(),
            called_ae: &request.titles.called(),
            address: [127, 0, 0, 1].into(),
            tls: false,
            certificate: None,
        };
        policy.admit(&applicant, busy).map_err(|refusal| refusal.rejection)
    }

    #[test]
    fn who_may_not_associate_is_told_why() {
        let refusal = |change: fn(&mut config::Dimse)| admit(&policy(change), &request(), false);
        assert_eq!(
            refusal(|s| (s.ae_title, s.check_called_ae_title) = ("OTHER".into(), true)),
            Err(Rejection::CalledAeTitleNotRecognized)
        );
        assert_eq!(refusal(|s| s.calling_ae_titles = vec!["CT2".into()]), Err(Rejection::CallingAeTitleNotRecognized));
        assert_eq!(refusal(|s| s.calling_ae_titles = vec!["CT1".into()]), Ok(Admission::default()));
        assert_eq!(admit(&policy(|_| ()), &request(), true), Err(Rejection::LocalLimitExceeded));
        let short = AssociateRequest { maximum_length: Some(7), ..request() };
        assert_eq!(admit(&policy(|_| ()), &short, false), Err(Rejection::ProviderNoReasonGiven));
        let other = AssociateRequest { application_context: "1.2.3".into(), ..request() };
        assert_eq!(admit(&policy(|_| ()), &other, false), Err(Rejection::ApplicationContextNotSupported));
    }

    fn peer(name: &str, change: impl FnOnce(&mut config::KnownPeer)) -> config::KnownPeer {
        let mut peer: config::KnownPeer = toml::from_str(&format!("name = {name:?}")).unwrap();
        change(&mut peer);
        peer
    }

    fn users() -> Policy {
        let ali = r#"[{ name = "ali", passcode = "open sesame" }, { name = "night shift" }]"#;
        let users =
            toml::from_str::<std::collections::HashMap<String, Vec<config::DicomUser>>>(&format!("users = {ali}"));
        let users = users.unwrap().remove("users").unwrap();
        policy(|s| s.peers = vec![peer("ct", |peer| peer.users = users)])
    }

    #[test]
    fn a_user_identity_is_confirmed_only_where_it_is_checked() {
        let identity = |name: &str, passcode: &str| UserIdentity {
            identity_type: UserIdentityType::UsernameAndPasscode,
            positive_response_requested: true,
            primary: name.into(),
            secondary: passcode.into(),
        };
        let asking = |identity| AssociateRequest { user_identity: identity, ..request() };
        let right = asking(Some(identity("ali", "open sesame")));
        assert_eq!(admit(&policy(|_| ()), &right, false), Ok(Admission::default()));
        let admission = admit(&users(), &right, false).unwrap();
        assert_eq!(admission.user_identity_response, Some(Vec::new()));
        assert!(admission.user_identity.is_some());
        let quiet = UserIdentity { positive_response_requested: false, ..identity("ali", "open sesame") };
        assert_eq!(admit(&users(), &asking(Some(quiet)), false).unwrap().user_identity_response, None);
        let by_name = UserIdentity { identity_type: UserIdentityType::Username, ..identity("night shift", "") };
        assert!(admit(&users(), &asking(Some(by_name)), false).is_ok());
        for wrong in [
            Some(identity("ali", "guess")),
            Some(identity("ali", "")),
            Some(identity("bob", "open sesame")),
            Some(UserIdentity { identity_type: UserIdentityType::Username, ..identity("ali", "open sesame") }),
            Some(UserIdentity { identity_type: UserIdentityType::Jwt, ..identity("ali", "open sesame") }),
            None,
        ] {
            assert_eq!(admit(&users(), &asking(wrong.clone()), false), Err(Rejection::NoReasonGiven), "{wrong:?}");
        }
        assert!(!format!("{right:?}").contains("sesame"));
    }

    #[test]
    fn a_peer_is_known_by_title_network_and_transport() {
        let network = |text: &str| vec![config::Network::try_from(text.to_owned()).unwrap()];
        let known = |peers: Vec<config::KnownPeer>| admit(&policy(|s| s.peers = peers), &request(), false);
        let name = |admission: Result<Admission, Rejection>| admission.map(|a| a.known.unwrap().name().to_owned());
        let ct1 = || peer("ct1", |peer| peer.ae_titles = vec!["CT1".into()]);
        let elsewhere = || config::KnownPeer { networks: network("10.0.0.0/8"), ..ct1() };
        let here = || config::KnownPeer { networks: network("127.0.0.0/8"), ..peer("here", |_| ()) };
        assert_eq!(name(known(vec![ct1()])), Ok("ct1".into()));
        assert_eq!(
            name(known(vec![peer("ct2", |peer| peer.ae_titles = vec!["CT2".into()])])),
            Err(Rejection::CallingAeTitleNotRecognized)
        );
        assert_eq!(name(known(vec![elsewhere()])), Err(Rejection::CallingAeTitleNotRecognized));
        assert_eq!(name(known(vec![elsewhere(), here()])), Ok("here".into()), "the first that fits as a whole");
        assert_eq!(name(known(vec![config::KnownPeer { tls: true, ..ct1() }])), Err(Rejection::NoReasonGiven));
        let certificates = vec![config::CertificateRule::Name("ct1".into())];
        assert_eq!(name(known(vec![config::KnownPeer { certificates, ..ct1() }])), Err(Rejection::NoReasonGiven));
    }

    #[test]
    fn a_peer_has_places_and_classes_of_its_own() {
        let one = KnownPeer::new(&peer("ct1", |peer| peer.max_associations = 1));
        let place = one.place().unwrap();
        assert!(place.is_some());
        assert_eq!(one.place().unwrap_err().rejection, Rejection::LocalLimitExceeded);
        drop(place);
        assert!(one.place().is_ok());
        let (ct, mr) = (uids::CT_IMAGE_STORAGE, uids::MR_IMAGE_STORAGE);
        let may = |classes: &[&str], class| {
            KnownPeer::new(&peer("x", |peer| peer.sop_classes = classes.iter().map(|c| c.to_string()).collect()))
                .may_use(class)
        };
        assert!(may(&[], mr) && may(&["storage"], mr) && may(&[ct], ct) && may(&["verification"], uids::VERIFICATION));
        assert!(!may(&[ct], mr) && !may(&["storage"], uids::VERIFICATION) && !may(&["verification"], ct));
        assert!(!may(&["storage"], uids::STORAGE_COMMITMENT_PUSH_MODEL));
    }
}
