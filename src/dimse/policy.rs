//! Association policy: who may associate, and which presentation contexts are accepted.

use std::collections::HashSet;

use dicom_dictionary_std::uids;
use dicom_ul::pdu::{
    AssociationAC, AssociationRJ, AssociationRJResult, AssociationRJServiceProviderASCEReason,
    AssociationRJServiceProviderPresentationReason, AssociationRJServiceUserReason, AssociationRJSource, AssociationRQ,
    PresentationContextResult, PresentationContextResultReason, UserVariableItem,
};

use crate::config;
use crate::{IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME};

/// DICOM's application context (PS3.7 A.2.1).
const APPLICATION_CONTEXT: &str = "1.2.840.10008.3.1.1.1";

/// The storage SOP classes that can be triaged; always accepted.
pub const CT_STORAGE: [&str; 3] =
    [uids::CT_IMAGE_STORAGE, uids::ENHANCED_CT_IMAGE_STORAGE, uids::LEGACY_CONVERTED_ENHANCED_CT_IMAGE_STORAGE];

/// The transfer syntaxes accepted for storage: all that the pixel decoder reads. A test holds the list to that.
pub const TRANSFER_SYNTAXES: [&str; 14] = [
    uids::IMPLICIT_VR_LITTLE_ENDIAN,
    uids::EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    uids::ENCAPSULATED_UNCOMPRESSED_EXPLICIT_VR_LITTLE_ENDIAN,
    uids::JPEG_BASELINE8_BIT,
    uids::JPEG_EXTENDED12_BIT,
    uids::JPEG_LOSSLESS,
    uids::JPEG_LOSSLESS_SV1,
    uids::JPEGLS_LOSSLESS,
    uids::JPEGLS_NEAR_LOSSLESS,
    uids::JPEG2000_LOSSLESS,
    uids::JPEG2000,
    uids::RLE_LOSSLESS,
];

/// Retired (PS3.5 2016b), and still sent; the dictionary's constant is marked deprecated.
const EXPLICIT_VR_BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";

/// Who may associate, for what.
#[derive(Debug, Clone)]
pub struct Policy {
    ae_title: String,
    check_called_ae_title: bool,
    calling_ae_titles: HashSet<String>,
    storage_classes: HashSet<String>,
    max_pdu: u32,
}

/// A presentation context that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    pub id: u8,
    pub abstract_syntax: String,
    pub transfer_syntax: String,
}

/// The answer to an association request.
pub enum Decision {
    Accept {
        answer: AssociationAC,
        contexts: Vec<Context>,
    },
    /// With the reason in words, for the log.
    Reject {
        answer: AssociationRJ,
        why: String,
    },
}

impl Policy {
    pub fn new(settings: &config::Dimse) -> Policy {
        let titles = settings.calling_ae_titles.iter().map(|t| t.trim().to_owned());
        let classes = CT_STORAGE.iter().map(|c| c.to_string());
        Policy {
            ae_title: settings.ae_title.trim().to_owned(),
            check_called_ae_title: settings.check_called_ae_title,
            calling_ae_titles: titles.collect(),
            storage_classes: classes.chain(settings.other_storage_classes.iter().cloned()).collect(),
            max_pdu: settings.max_pdu_bytes,
        }
    }

    /// Judges a request (PS3.8 9.3.2–9.3.4). `busy`: the associations are used up.
    pub fn decide(&self, request: &AssociationRQ, busy: bool) -> Decision {
        use AssociationRJResult::{Permanent, Transient};
        let reject = |result, source, why: String| Decision::Reject { answer: AssociationRJ { result, source }, why };
        let user = AssociationRJSource::ServiceUser;
        if request.protocol_version & 1 == 0 {
            let reason = AssociationRJServiceProviderASCEReason::ProtocolVersionNotSupported;
            let why = format!("protocol version {:#06x} is not supported", request.protocol_version);
            return reject(Permanent, AssociationRJSource::ServiceProviderASCE(reason), why);
        }
        if uid(&request.application_context_name) != APPLICATION_CONTEXT {
            let reason = AssociationRJServiceUserReason::ApplicationContextNameNotSupported;
            let why = format!("application context {:?} is not DICOM's", request.application_context_name);
            return reject(Permanent, user(reason), why);
        }
        if self.check_called_ae_title && title(&request.called_ae_title) != self.ae_title {
            let reason = AssociationRJServiceUserReason::CalledAETitleNotRecognized;
            let why = format!("called AE title {:?} is not {:?}", request.called_ae_title, self.ae_title);
            return reject(Permanent, user(reason), why);
        }
        if !self.calling_ae_titles.is_empty() && !self.calling_ae_titles.contains(title(&request.calling_ae_title)) {
            let reason = AssociationRJServiceUserReason::CallingAETitleNotRecognized;
            let why = format!("calling AE title {:?} is not in dimse.calling_ae_titles", request.calling_ae_title);
            return reject(Permanent, user(reason), why);
        }
        if busy {
            let reason = AssociationRJServiceProviderPresentationReason::LocalLimitExceeded;
            let source = AssociationRJSource::ServiceProviderPresentation(reason);
            return reject(Transient, source, "dimse.max_associations are open already".into());
        }
        let mut contexts: Vec<Context> = Vec::new();
        let mut results = Vec::new();
        for proposed in &request.presentation_contexts {
            let abstract_syntax = uid(&proposed.abstract_syntax);
            let chosen = self.transfer_syntax(abstract_syntax, &proposed.transfer_syntaxes);
            // An id stands for one context (PS3.8 9.3.2.2: odd, unique); the first keeps it.
            let taken = contexts.iter().any(|c| c.id == proposed.id);
            let (reason, transfer_syntax) = match chosen {
                Ok(_) if taken => (PresentationContextResultReason::NoReason, uids::IMPLICIT_VR_LITTLE_ENDIAN),
                Ok(syntax) => {
                    contexts.push(Context {
                        id: proposed.id,
                        abstract_syntax: abstract_syntax.into(),
                        transfer_syntax: syntax.into(),
                    });
                    (PresentationContextResultReason::Acceptance, syntax)
                }
                // The transfer syntax of a refused context is not significant, but must be there (PS3.8 9.3.3.2).
                Err(reason) => (reason, uids::IMPLICIT_VR_LITTLE_ENDIAN),
            };
            results.push(PresentationContextResult {
                id: proposed.id,
                reason,
                transfer_syntax: transfer_syntax.to_owned(),
            });
        }
        let answer = AssociationAC {
            protocol_version: 1,
            application_context_name: APPLICATION_CONTEXT.into(),
            called_ae_title: request.called_ae_title.clone(),
            calling_ae_title: request.calling_ae_title.clone(),
            presentation_contexts: results,
            user_variables: vec![
                UserVariableItem::MaxLength(self.max_pdu),
                UserVariableItem::ImplementationClassUID(IMPLEMENTATION_CLASS_UID.into()),
                UserVariableItem::ImplementationVersionName(IMPLEMENTATION_VERSION_NAME.into()),
            ],
        };
        Decision::Accept { answer, contexts }
    }

    /// The first of the proposed transfer syntaxes that we read: the sender's own order tells what it has.
    fn transfer_syntax(
        &self,
        abstract_syntax: &str,
        proposed: &[String],
    ) -> Result<&'static str, PresentationContextResultReason> {
        let accepted: &[&'static str] = if abstract_syntax == uids::VERIFICATION {
            &[uids::IMPLICIT_VR_LITTLE_ENDIAN, uids::EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN]
        } else if self.storage_classes.contains(abstract_syntax) {
            &TRANSFER_SYNTAXES
        } else {
            return Err(PresentationContextResultReason::AbstractSyntaxNotSupported);
        };
        proposed
            .iter()
            .find_map(|p| accepted.iter().find(|a| **a == uid(p)))
            .copied()
            .ok_or(PresentationContextResultReason::TransferSyntaxesNotSupported)
    }
}

/// UIDs in items are not padded (PS3.8 annex F), but some senders pad them as in a data set.
fn uid(raw: &str) -> &str {
    raw.trim_matches(['\0', ' '])
}

fn title(raw: &str) -> &str {
    raw.trim_matches(['\0', ' '])
}

#[cfg(test)]
mod tests {
    use super::*;
    use dicom_encoding::TransferSyntaxIndex;
    use dicom_transfer_syntax_registry::TransferSyntaxRegistry;
    use dicom_ul::pdu::PresentationContextProposed;

    fn policy(change: impl FnOnce(&mut config::Dimse)) -> Policy {
        let mut settings = config::Settings::load(None, &[]).unwrap().dimse;
        change(&mut settings);
        Policy::new(&settings)
    }

    fn request(contexts: &[(u8, &str, &[&str])]) -> AssociationRQ {
        AssociationRQ {
            protocol_version: 1,
            calling_ae_title: "CT1".into(),
            called_ae_title: "TRIAGED".into(),
            application_context_name: APPLICATION_CONTEXT.into(),
            presentation_contexts: contexts
                .iter()
                .map(|(id, class, syntaxes)| PresentationContextProposed {
                    id: *id,
                    abstract_syntax: class.to_string(),
                    transfer_syntaxes: syntaxes.iter().map(|s| s.to_string()).collect(),
                })
                .collect(),
            user_variables: vec![],
        }
    }

    #[test]
    fn every_accepted_transfer_syntax_can_be_decoded() {
        for syntax in TRANSFER_SYNTAXES {
            let known = TransferSyntaxRegistry.get(syntax).unwrap_or_else(|| panic!("{syntax} is not in the registry"));
            assert!(known.can_decode_all(), "{syntax} cannot be decoded");
        }
    }

    #[test]
    fn an_unknown_class_or_syntax_is_refused_and_the_others_go_on() {
        let request = request(&[
            (1, "1.2.3", &[uids::IMPLICIT_VR_LITTLE_ENDIAN]),
            (3, uids::CT_IMAGE_STORAGE, &["1.2.3", "1.2.840.10008.1.2.4.90\0"]),
            (5, uids::CT_IMAGE_STORAGE, &["1.2.3"]),
            (7, uids::VERIFICATION, &[uids::JPEG2000_LOSSLESS, uids::IMPLICIT_VR_LITTLE_ENDIAN]),
        ]);
        let Decision::Accept { answer, contexts } = policy(|_| ()).decide(&request, false) else { panic!() };
        let reasons: Vec<_> = answer.presentation_contexts.iter().map(|r| r.reason.clone() as u8).collect();
        assert_eq!(reasons, [3, 0, 4, 0]);
        assert_eq!(contexts[0].transfer_syntax, uids::JPEG2000_LOSSLESS);
        assert_eq!(contexts[1].transfer_syntax, uids::IMPLICIT_VR_LITTLE_ENDIAN);
    }

    #[test]
    fn who_may_not_associate_is_told_why() {
        let why = |policy: Policy, busy| match policy.decide(&request(&[]), busy) {
            Decision::Reject { answer, .. } => answer.source,
            Decision::Accept { .. } => panic!("accepted"),
        };
        use AssociationRJServiceUserReason as User;
        assert_eq!(
            why(policy(|s| (s.ae_title, s.check_called_ae_title) = ("OTHER".into(), true)), false),
            AssociationRJSource::ServiceUser(User::CalledAETitleNotRecognized)
        );
        assert_eq!(
            why(policy(|s| s.calling_ae_titles = vec!["CT2".into()]), false),
            AssociationRJSource::ServiceUser(User::CallingAETitleNotRecognized)
        );
        assert_eq!(
            why(policy(|_| ()), true),
            AssociationRJSource::ServiceProviderPresentation(
                AssociationRJServiceProviderPresentationReason::LocalLimitExceeded
            )
        );
    }
}
