//! An association that the node asks for, on a blocking socket.

use std::io::{self, Write};
use std::net::TcpStream;
use std::time::Duration;

use dicom_dictionary_std::tags;
use dicom_ul::association::Error as UpperLayerError;
use dicom_ul::association::client::{ClientAssociation, ClientAssociationOptions};
use dicom_ul::pdu::{PDataValue, PDataValueType, Pdu};

use crate::dimse::command::{LARGEST_COMMAND, Message, NewCommandSet, Operation, Reply};
use crate::dimse::pdu::push_p_data;

use super::error::{ScuError, abort};
use super::offer::{self, Accepted};
use super::peer::Peer;

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

/// A C-STORE request has these beyond a C-ECHO request.
struct Sent<'a> {
    priority: u16,
    sop_instance_uid: &'a str,
    data_set: &'a [u8],
}

pub struct Association {
    address: String,
    timeout: Duration,
    pub accepted: Vec<Accepted>,
    longest_pdu: usize,
    inner: ClientAssociation<TcpStream>,
}

impl Association {
    /// Asks for an association with one transfer syntax per presentation context, at most 128 contexts.
    pub fn request(peer: &Peer, contexts: &[(String, String)]) -> Result<Association, ScuError> {
        let mut options = ClientAssociationOptions::new()
            .calling_ae_title(peer.calling_ae_title.as_str())
            .called_ae_title(peer.called_ae_title.as_str())
            .connection_timeout(peer.timeout)
            .read_timeout(peer.timeout)
            .write_timeout(peer.timeout);
        for (abstract_syntax, transfer_syntax) in contexts {
            options = options.with_presentation_context(abstract_syntax.as_str(), vec![transfer_syntax.as_str()]);
        }
        let failed = |error| match error {
            UpperLayerError::NoAcceptedPresentationContexts { .. } => {
                ScuError::NothingAccepted { address: peer.address.clone(), offered: offer::in_words(contexts) }
            }
            other => ScuError::from_upper_layer(&peer.address, peer.timeout, other),
        };
        let mut inner = options.establish(peer.address.as_str()).map_err(failed)?;
        // Each request ends in a short segment that Nagle's algorithm would hold back.
        let _ = inner.inner_stream().set_nodelay(true);
        let accepted = inner.presentation_contexts().iter().map(|context| Accepted {
            id: context.id,
            abstract_syntax: context.abstract_syntax.clone(),
            transfer_syntax: context.transfer_syntax.trim_end_matches(['\0', ' ']).to_owned(),
        });
        let accepted = accepted.collect();
        let longest_pdu = inner.acceptor_max_pdu_length().clamp(SHORTEST_PDU, LONGEST_PDU) as usize;
        Ok(Association { address: peer.address.clone(), timeout: peer.timeout, accepted, longest_pdu, inner })
    }

    /// C-ECHO in the first context.
    pub fn echo(&mut self) -> Result<Response, ScuError> {
        let Some(context) = self.accepted.first() else { return Err(self.protocol("no context was accepted".into())) };
        let (id, sop_class_uid) = (context.id, context.abstract_syntax.clone());
        self.ask(id, Operation::CEcho, 1, &sop_class_uid, None)
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
        let sent = Sent { priority, sop_instance_uid, data_set };
        self.ask(context, Operation::CStore, message_id, sop_class_uid, Some(sent))
    }

    /// Sends a request and waits for its response.
    fn ask(
        &mut self,
        context: u8,
        operation: Operation,
        message_id: u16,
        sop_class_uid: &str,
        sent: Option<Sent<'_>>,
    ) -> Result<Response, ScuError> {
        let mut command = NewCommandSet::request(operation)
            .uid(tags::AFFECTED_SOP_CLASS_UID, sop_class_uid)
            .number(tags::MESSAGE_ID, message_id);
        if let Some(sent) = &sent {
            command = command
                .number(tags::PRIORITY, sent.priority)
                .uid(tags::AFFECTED_SOP_INSTANCE_UID, sent.sop_instance_uid);
        }
        self.write_pdata(context, true, &command.encode(sent.is_some()))?;
        if let Some(sent) = &sent {
            self.write_pdata(context, false, sent.data_set)?;
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
            if let Err(error) = self.inner.inner_stream().write_all(&pdu) {
                return Err(self.write_failed(error));
            }
        }
        Ok(())
    }

    /// A peer that aborts closes the connection while we write; its A-ABORT may still be there to be read.
    fn write_failed(&mut self, error: io::Error) -> ScuError {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => match self.inner.receive() {
                Ok(Pdu::AbortRQ { source }) => ScuError::Aborted { address: self.address.clone(), why: abort(&source) },
                _ => ScuError::Closed { address: self.address.clone() },
            },
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                ScuError::Timeout { address: self.address.clone(), after: self.timeout }
            }
            _ => ScuError::Protocol { address: self.address.clone(), why: error.to_string() },
        }
    }

    fn response(&mut self, operation: Operation, message_id: u16) -> Result<Response, ScuError> {
        let mut command = Vec::new();
        loop {
            // Many peers write a response in two pieces with Nagle's algorithm on: the second waits for our ACK of the
            // first, which the kernel would delay by 40 ms. The option does not stick, hence here.
            let _ = rustix::net::sockopt::set_tcp_quickack(self.inner.inner_stream(), true);
            let pdu =
                self.inner.receive().map_err(|error| ScuError::from_upper_layer(&self.address, self.timeout, error))?;
            let values = match pdu {
                Pdu::PData { data } => data,
                Pdu::AbortRQ { source } => {
                    return Err(ScuError::Aborted { address: self.address.clone(), why: abort(&source) });
                }
                Pdu::ReleaseRQ => {
                    let _ = self.inner.send(&Pdu::ReleaseRP);
                    return Err(ScuError::Released { address: self.address.clone() });
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
        ScuError::Protocol { address: self.address.clone(), why }
    }

    /// Everything has been answered by now: a peer that does not release well loses nothing.
    pub fn release(self) {
        let _ = self.inner.release();
    }
}
