//! Negotiation with a peer that is let in (PS3.8 9.3.2, PS3.7 D.3.3): presentation contexts, roles, extended negotiation.

use std::sync::Arc;

use dicom_dictionary_std::uids;

use super::context::Context;
use super::known::KnownPeer;
use super::pdu::{
    AssociateRequest, ContextResult, ContextResultReason, ProposedContext, RoleSelection, SopClassExtendedNegotiation,
};
use super::service::Service;

/// The result: a peer may do this on its association.
#[derive(Debug, Default)]
pub struct Negotiated {
    pub contexts: Vec<Arc<Context>>,
    /// One result for each context that was proposed.
    pub results: Vec<ContextResult>,
    pub roles: Vec<RoleSelection>,
    pub extended_negotiation: Vec<SopClassExtendedNegotiation>,
}

/// Answers what a peer proposes, by what the services offer, and by what a peer that is `known` may use.
pub fn negotiate(request: &AssociateRequest, services: &[Arc<dyn Service>], known: Option<&KnownPeer>) -> Negotiated {
    let mut negotiated = Negotiated::default();
    for proposed in &request.contexts {
        let answer = context(proposed, request, services, known).and_then(|context| {
            // An id stands for one context (PS3.8 9.3.2.2); the first one keeps it.
            match negotiated.contexts.iter().any(|other| other.id == context.id) {
                true => Err(ContextResultReason::ProviderRejection),
                false => Ok(context),
            }
        });
        let (reason, transfer_syntax) = match answer {
            Ok(context) => {
                let transfer_syntax = context.transfer_syntax;
                negotiated.contexts.push(Arc::new(context));
                (ContextResultReason::Acceptance, transfer_syntax)
            }
            // The transfer syntax of a refused context is not significant, but must be there (PS3.8 9.3.3.2).
            Err(reason) => (reason, uids::IMPLICIT_VR_LITTLE_ENDIAN),
        };
        negotiated.results.push(ContextResult { id: proposed.id, reason, transfer_syntax });
    }
    // One answer for each SOP class (PS3.7 D.3.3.4 and D.3.3.5), about classes that were accepted.
    for proposed in &request.roles {
        let class = &proposed.sop_class_uid;
        if !negotiated.roles.iter().any(|role| role.sop_class_uid == *class)
            && let Some((service, uid)) = offering(class, services)
        {
            let scp = proposed.scp && service.lets_the_requestor_be_scp(uid);
            negotiated.roles.push(RoleSelection { sop_class_uid: class.clone(), scu: proposed.scu, scp });
        }
    }
    for proposed in &request.extended_negotiation {
        let class = &proposed.sop_class_uid;
        if negotiated.contexts.iter().any(|context| context.abstract_syntax == *class)
            && !negotiated.extended_negotiation.iter().any(|answer| answer.sop_class_uid == *class)
            && let Some((service, uid)) = offering(class, services)
            && let Some(information) = service.extended_negotiation(uid, &proposed.information)
        {
            let sop_class_uid = class.clone();
            negotiated.extended_negotiation.push(SopClassExtendedNegotiation { sop_class_uid, information });
        }
    }
    negotiated
}

fn offering<'u>(sop_class: &'u str, services: &[Arc<dyn Service>]) -> Option<(Arc<dyn Service>, &'u str)> {
    let service = services.iter().find(|service| service.transfer_syntaxes(sop_class).is_some())?;
    Some((service.clone(), sop_class))
}

/// Whether a context is accepted, and with which of its transfer syntaxes.
fn context(
    proposed: &ProposedContext,
    request: &AssociateRequest,
    services: &[Arc<dyn Service>],
    known: Option<&KnownPeer>,
) -> Result<Context, ContextResultReason> {
    let Some(abstract_syntax) = &proposed.abstract_syntax else { return Err(ContextResultReason::ProviderRejection) };
    let offers = services.iter().map(|service| service.transfer_syntaxes(abstract_syntax));
    let (service, accepted) = offers
        .enumerate()
        .find_map(|(at, accepted)| Some((at, accepted?)))
        .ok_or(ContextResultReason::AbstractSyntaxNotSupported)?;
    if known.is_some_and(|known| !known.may_use(abstract_syntax)) {
        return Err(ContextResultReason::UserRejection);
    }
    // The first of the proposed transfer syntaxes that the service reads: the sender's own order tells what it has.
    let transfer_syntax = proposed
        .transfer_syntaxes
        .iter()
        .find_map(|proposed| accepted.iter().find(|accepted| *accepted == proposed))
        .ok_or(ContextResultReason::TransferSyntaxesNotSupported)?;
    // A peer that wants to be SCP alone has nothing to do here unless the service lets it.
    let role = request.roles.iter().find(|role| role.sop_class_uid == *abstract_syntax);
    if role.is_some_and(|role| role.scp && !role.scu && !services[service].lets_the_requestor_be_scp(abstract_syntax)) {
        return Err(ContextResultReason::UserRejection);
    }
    Ok(Context { id: proposed.id, abstract_syntax: abstract_syntax.clone(), transfer_syntax, service })
}
