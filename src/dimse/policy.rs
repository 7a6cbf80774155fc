//! Association policy: who may associate.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use crate::config;

use super::pdu::{AssociateRequest, Rejection, UserIdentity, UserIdentityType};

/// DICOM's application context (PS3.7 A.2.1).
pub const APPLICATION_CONTEXT: &str = "1.2.840.10008.3.1.1.1";

/// The shortest maximum length that a message can be sent in: the header of a presentation data value (6 bytes) and a
/// fragment of an even number of bytes.
const SHORTEST_MAXIMUM_LENGTH: u32 = 8;

/// Who asks for an association.
pub struct Applicant<'r> {
    pub request: &'r AssociateRequest,
    pub calling_ae: &'r str,
    pub called_ae: &'r str,
    pub address: IpAddr,
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

/// Who was let in.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// The user identity, if it was checked.
    pub user_identity: Option<UserIdentity>,
    /// The server response to it (PS3.7 D.3.3.7.2), if the peer asked for one.
    pub user_identity_response: Option<Vec<u8>>,
}

/// Checks user identities (PS3.7 D.3.3.7).
pub trait UserCheck: Send + Sync {
    /// Whether this is a user who may associate. `Ok` carries the server response, which is empty for user names; `Err` says why
    /// not, without the passcode.
    fn check(&self, identity: &UserIdentity, applicant: &Applicant<'_>) -> Result<Vec<u8>, String>;
}

/// Who may associate.
#[derive(Clone, Default)]
pub struct Policy {
    ae_title: String,
    check_called_ae_title: bool,
    calling_ae_titles: HashSet<String>,
    users: Option<Arc<dyn UserCheck>>,
}

impl Policy {
    pub fn new(settings: &config::Dimse) -> Policy {
        let titles = settings.calling_ae_titles.iter().map(|title| title.trim().to_owned());
        Policy {
            ae_title: settings.ae_title.trim().to_owned(),
            check_called_ae_title: settings.check_called_ae_title,
            calling_ae_titles: titles.collect(),
            users: None,
        }
    }

    /// The policy, with user identities checked. Without, they are neither looked at nor answered: a positive response would say
    /// that somebody had been recognized.
    pub fn with_users(self, users: Arc<dyn UserCheck>) -> Policy {
        Policy { users: Some(users), ..self }
    }

    /// Judges a request (PS3.8 9.3.2 to 9.3.4). `busy`: as many associations are open as there may be.
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
        let admission = match (&self.users, &request.user_identity) {
            (None, _) => Admission::default(),
            (Some(_), None) => return refuse(Rejection::NoReasonGiven, "no user identity is given".into()),
            (Some(users), Some(identity)) => match users.check(identity, applicant) {
                Ok(response) => Admission {
                    user_identity_response: identity.positive_response_requested.then(|| {
                        match identity.identity_type {
                            // The server response to a user name is empty (PS3.7 table D.3-15).
                            UserIdentityType::Username | UserIdentityType::UsernameAndPasscode => Vec::new(),
                            _ => response,
                        }
                    }),
                    user_identity: Some(identity.clone()),
                },
                Err(why) => return refuse(Rejection::NoReasonGiven, format!("the user identity is refused: {why}")),
            },
        };
        if busy {
            return refuse(Rejection::LocalLimitExceeded, "dimse.max_associations are open already".into());
        }
        Ok(admission)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dimse::pdu::Titles;

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

    struct OnePasscode;

    impl UserCheck for OnePasscode {
        fn check(&self, identity: &UserIdentity, _: &Applicant<'_>) -> Result<Vec<u8>, String> {
            if identity.secondary == b"open sesame" { Ok(Vec::new()) } else { Err("wrong passcode".into()) }
        }
    }

    #[test]
    fn a_user_identity_is_confirmed_only_where_it_is_checked() {
        let identity = |passcode: &[u8]| UserIdentity {
            identity_type: UserIdentityType::UsernameAndPasscode,
            positive_response_requested: true,
            primary: b"ali".to_vec(),
            secondary: passcode.to_vec(),
        };
        let asking = |identity| AssociateRequest { user_identity: identity, ..request() };
        let right = asking(Some(identity(b"open sesame")));
        assert_eq!(admit(&policy(|_| ()), &right, false), Ok(Admission::default()));
        let checking = policy(|_| ()).with_users(Arc::new(OnePasscode));
        let admission = admit(&checking, &right, false).unwrap();
        assert_eq!(admission.user_identity_response, Some(Vec::new()));
        assert!(admission.user_identity.is_some());
        let quiet = asking(Some(UserIdentity { positive_response_requested: false, ..identity(b"open sesame") }));
        assert_eq!(admit(&checking, &quiet, false).unwrap().user_identity_response, None);
        assert_eq!(admit(&checking, &asking(Some(identity(b"guess"))), false), Err(Rejection::NoReasonGiven));
        assert_eq!(admit(&checking, &asking(None), false), Err(Rejection::NoReasonGiven));
        assert!(!format!("{right:?}").contains("sesame"));
    }
}
