//! An association that the node asks for, on a blocking socket.

use dicom_dictionary_std::tags;
use dicom_ul::pdu::{
    AssociationAC, AssociationRQ, PDataValue, PDataValueType, Pdu, PresentationContextProposed,
    PresentationContextResultReason, RequestorRoles, UserIdentity, UserIdentityType, UserVariableItem,
};

use crate::dimse::command::{LARGEST_COMMAND, Message, NewCommandSet, Operation, Reply};
use crate::dimse::pdu::push_p_data;
use crate::dimse::policy::APPLICATION_CONTEXT;
use crate::{IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME};

use super::error::{ScuError, abort};
use super::offer::{self, Accepted};
use super::peer::Peer;
use super::stream::{LONGEST_RECEIVED, Stream};

/// P-DATA-TF PDUs are no longer than this, whatever longer ones the peer would take: it bounds the buffers.
const LONGEST_PDU: u32 = 128 * 1024;
/// A peer that says it takes less than this per PDU cannot mean it: header and one pair of bytes.
const SHORTEST_PDU: u32 = 16;

/// Priority (0000,0700) of C-STORE requests; few peers heed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Priority {
    #[default]
    Medium,
    High,
    Low,
}

/// The peer's answer to a request.
pub struct Response {
    pub status: u16,
    /// Error Comment (0000,0902), or empty.
    pub comment: String,
}

pub struct Association {
    pub accepted: Vec<Accepted>,
    longest_pdu: usize,
    stream: Stream,
}

/// The requests beside the presentation contexts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The node uses the peer's services.
    Scu,
    /// The node provides its own: role selection (PS3.7 D.3.3.4) for each SOP class.
    Scp,
}

impl Association {
    /// Asks for an association with one transfer syntax per presentation context, at most 128 contexts.
    pub fn request(peer: &Peer, contexts: &[(String, String)], role: Role) -> Result<Association, ScuError> {
        let mut stream = Stream::connect(peer)?;
        stream.send(&Pdu::AssociationRQ(asked(peer, contexts, role)))?;
        let answer = match stream.receive()? {
            Pdu::AssociationAC(answer) => answer,
            Pdu::AssociationRJ(rejection) => return Err(ScuError::rejected(&peer.address, &rejection)),
            Pdu::AbortRQ { source } => {
                return Err(ScuError::Aborted { address: peer.address.clone(), why: abort(&source) });
            }
            other => return Err(stream.protocol(format!("it sent {}", other.short_description()))),
        };
        let accepted = accepted(&answer, contexts);
        if accepted.is_empty() {
            let _ = stream.send(&Pdu::ReleaseRQ);
            let offered = offer::in_words(contexts);
            return Err(ScuError::NothingAccepted { address: peer.address.clone(), offered });
        }
        let stated = answer.user_variables.iter().find_map(|item| match item {
            UserVariableItem::MaxLength(length) => Some(*length).filter(|length| *length > 0),
            _ => None,
        });
        let longest_pdu = stated.unwrap_or(LONGEST_PDU).clamp(SHORTEST_PDU, LONGEST_PDU) as usize;
        Ok(Association { accepted, longest_pdu, stream })
    }

    /// C-ECHO in the first context.
    pub fn echo(&mut self) -> Result<Response, ScuError> {
        let Some(context) = self.accepted.first() else { return Err(self.protocol("no context was accepted".into())) };
        let (id, sop_class_uid) = (context.id, context.abstract_syntax.clone());
        let command = NewCommandSet::request(Operation::CEcho).uid(tags::AFFECTED_SOP_CLASS_UID, &sop_class_uid);
        self.ask(id, Operation::CEcho, 1, command, None)
    }

    /// C-STORE of a data set, encoded as its context says.
    pub fn store(
        &mut self,
        context: u8,
        message_id: u16,
        sop_class_uid: &str,
        sop_instance_uid: &str,
        priority: Priority,
        data_set: &[u8],
    ) -> Result<Response, ScuError> {
        let priority = match priority {
            Priority::Medium => 0,
            Priority::High => 1,
            Priority::Low => 2,
        };
        let command = NewCommandSet::request(Operation::CStore)
            .uid(tags::AFFECTED_SOP_CLASS_UID, sop_class_uid)
            .number(tags::PRIORITY, priority)
            .uid(tags::AFFECTED_SOP_INSTANCE_UID, sop_instance_uid);
        self.ask(context, Operation::CStore, message_id, command, Some(data_set))
    }

    /// Sends a request, and its data set if it has one, and waits for its response.
    pub fn ask(
        &mut self,
        context: u8,
        operation: Operation,
        message_id: u16,
        command: NewCommandSet,
        data_set: Option<&[u8]>,
    ) -> Result<Response, ScuError> {
        let command = command.number(tags::MESSAGE_ID, message_id);
        self.write_pdata(context, true, &command.encode(data_set.is_some()))?;
        if let Some(data_set) = data_set {
            self.write_pdata(context, false, data_set)?;
        }
        self.response(operation, message_id)
    }

    /// Sends a command set or data set in fragments as long as the peer takes (PS3.8 9.3.5, annex E).
    fn write_pdata(&mut self, context: u8, command: bool, bytes: &[u8]) -> Result<(), ScuError> {
        // In the PDU's length, PDV length, context ID and message control header are 6 bytes; fragments are even.
        let most = (self.longest_pdu - 6) & !1;
        let count = bytes.len().div_ceil(most).max(1);
        let mut pdu = Vec::with_capacity(12 + most.min(bytes.len()));
        for number in 0..count {
            let fragment = &bytes[number * most..bytes.len().min((number + 1) * most)];
            pdu.clear();
            push_p_data(&mut pdu, context, command, number + 1 == count, fragment);
            self.stream.write(&pdu)?;
        }
        Ok(())
    }

    fn response(&mut self, operation: Operation, message_id: u16) -> Result<Response, ScuError> {
        let mut command = Vec::new();
        loop {
            let values = match self.stream.receive()? {
                Pdu::PData { data } => data,
                Pdu::AbortRQ { source } => {
                    return Err(ScuError::Aborted { address: self.stream.address().into(), why: abort(&source) });
                }
                Pdu::ReleaseRQ => {
                    let _ = self.stream.send(&Pdu::ReleaseRP);
                    return Err(ScuError::Released { address: self.stream.address().into() });
                }
                other => return Err(self.protocol(format!("it sent {}", other.short_description()))),
            };
            for PDataValue { value_type, is_last, data, .. } in values {
                if value_type != PDataValueType::Command {
                    return Err(self.protocol("it sent a data set where a response was due".into()));
                }
                if command.len() + data.len() > LARGEST_COMMAND {
                    return Err(self.protocol("its response is longer than any response is".into()));
                }
                command.extend(data);
                if is_last {
                    return self.parse(command, operation, message_id);
                }
            }
        }
    }

    fn parse(&self, command: Vec<u8>, operation: Operation, message_id: u16) -> Result<Response, ScuError> {
        match Message::parse(command) {
            Err(error) => Err(self.protocol(format!("in its response, {error}"))),
            Ok(Message::Reply(reply)) if reply.operation == operation => {
                let Reply { status, set, .. } = reply;
                if reply.message_id != message_id {
                    let why = format!("its response is not to message {message_id}, the one that was sent");
                    return Err(self.protocol(why));
                }
                Ok(Response { status, comment: set.text(tags::ERROR_COMMENT) })
            }
            Ok(_) => Err(self.protocol("it answered with another message than the response that was due".into())),
        }
    }

    pub fn protocol(&self, why: String) -> ScuError {
        self.stream.protocol(why)
    }

    /// Everything has been answered by now: a peer that does not release well loses nothing.
    pub fn release(mut self) {
        if self.stream.send(&Pdu::ReleaseRQ).is_ok() {
            let _ = self.stream.receive();
        }
    }
}

fn asked(peer: &Peer, contexts: &[(String, String)], role: Role) -> AssociationRQ {
    let proposed =
        contexts.iter().enumerate().map(|(number, (abstract_syntax, transfer_syntax))| PresentationContextProposed {
            id: (2 * number + 1) as u8,
            abstract_syntax: abstract_syntax.clone(),
            transfer_syntaxes: vec![transfer_syntax.clone()],
        });
    let mut user_variables = vec![
        UserVariableItem::MaxLength(LONGEST_RECEIVED),
        UserVariableItem::ImplementationClassUID(IMPLEMENTATION_CLASS_UID.into()),
        UserVariableItem::ImplementationVersionName(IMPLEMENTATION_VERSION_NAME.into()),
    ];
    if role == Role::Scp {
        let mut classes: Vec<&String> = contexts.iter().map(|(class, _)| class).collect();
        classes.dedup();
        let roles = RequestorRoles { scu: false, scp: true };
        user_variables.extend(
            classes.into_iter().map(|class| UserVariableItem::ScuScpRoleSelectionSubItem(class.clone(), roles)),
        );
    }
    if let Some(user) = &peer.user {
        let passcode = user.passcode.reveal();
        let kind = match passcode.is_empty() {
            true => UserIdentityType::Username,
            false => UserIdentityType::UsernamePassword,
        };
        // Peers that do not check identities give no answer, so none is asked for.
        let identity = UserIdentity::new(false, kind, user.name.clone().into(), passcode.into());
        user_variables.push(UserVariableItem::UserIdentityItem(identity));
    }
    AssociationRQ {
        protocol_version: 1,
        calling_ae_title: peer.calling_ae_title.clone(),
        called_ae_title: peer.called_ae_title.clone(),
        application_context_name: APPLICATION_CONTEXT.into(),
        presentation_contexts: proposed.collect(),
        user_variables,
    }
}

fn accepted(answer: &AssociationAC, contexts: &[(String, String)]) -> Vec<Accepted> {
    let acceptance = |result: &&dicom_ul::pdu::PresentationContextResult| {
        result.reason == PresentationContextResultReason::Acceptance
    };
    let accepted = answer.presentation_contexts.iter().filter(acceptance).filter_map(|result| {
        // Only ids that were proposed, which are odd.
        let (abstract_syntax, _) = contexts.get(usize::from(result.id.checked_sub(1)?) / 2)?;
        (result.id % 2 == 1).then(|| Accepted {
            id: result.id,
            abstract_syntax: abstract_syntax.clone(),
            transfer_syntax: result.transfer_syntax.trim_end_matches(['\0', ' ']).to_owned(),
        })
    });
    accepted.collect()
}
