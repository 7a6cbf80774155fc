//! The service class user: C-ECHO and C-STORE to a peer (PS3.4 A and B), as `triaged send` and `triaged echo` use it.
//!
//! [`find`] looks for objects in files and folders, [`store`] pushes them on one association. It works on blocking
//! sockets; the objects are read and converted on a second thread while the first waits for the peer.

mod find;
mod offer;
mod prepare;

use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use dicom_dictionary_std::{tags, uids};
use dicom_ul::association::Error as UpperLayerError;
use dicom_ul::association::client::{ClientAssociation, ClientAssociationOptions};
use dicom_ul::pdu::{AbortRQSource, AssociationRJResult, PDataValue, PDataValueType, Pdu};

pub use find::{Found, Object, find};
pub use offer::Offer;
use prepare::{Prepared, prepare};

use super::command::{COMMAND_GROUP_LENGTH, LARGEST_COMMAND, elements, push, push_short, push_text};

/// P-DATA-TF PDUs are no longer than this, whatever longer ones the peer would take: it bounds the buffers.
const LONGEST_PDU: u32 = 128 * 1024;
/// A peer that says it takes less than this per PDU cannot mean it: header and one pair of bytes.
const SHORTEST_PDU: u32 = 16;
/// Objects that are read ahead of the one being sent.
const READ_AHEAD: usize = 2;
/// Command Data Set Type (0000,0800): no data set follows; any other value: one follows.
const NO_DATA_SET: u16 = 0x0101;
const DATA_SET: u16 = 0x0000;
const C_STORE_RQ: u16 = 0x0001;
const C_ECHO_RQ: u16 = 0x0030;
const RESPONSE: u16 = 0x8000;

/// Whom to call, and as whom.
#[derive(Debug, Clone)]
pub struct Peer {
    /// `host:port`.
    pub address: String,
    pub called_ae_title: String,
    pub calling_ae_title: String,
    /// For the connection, for each read and for each write.
    pub timeout: Duration,
}

/// Priority (0000,0700) of C-STORE requests; few peers heed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Priority {
    #[default]
    Medium,
    High,
    Low,
}

/// Why there is no association, or none any more.
#[derive(Debug, thiserror::Error)]
pub enum ScuError {
    #[error("cannot connect to {address}: {source}")]
    Connect { address: String, source: io::Error },
    #[error("{address} rejected the association ({how}): {why}")]
    Rejected { address: String, how: &'static str, why: String },
    #[error("{address} accepted none of the presentation contexts offered: {offered}")]
    NothingAccepted { address: String, offered: String },
    #[error("{address} aborted the association: {why}")]
    Aborted { address: String, why: String },
    #[error("{address} closed the connection")]
    Closed { address: String },
    #[error("{address} released the association before everything was sent")]
    Released { address: String },
    #[error("{address} was silent for {} s", .after.as_secs_f64())]
    Timeout { address: String, after: Duration },
    #[error("{address} does not speak DICOM as expected: {why}")]
    Protocol { address: String, why: String },
}

/// What the peer answered to an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Of the data set as sent.
    pub bytes: u64,
    /// The transfer syntax it was sent in.
    pub transfer_syntax: String,
    /// Status (0000,0900): success or a warning.
    pub status: u16,
    /// Error Comment (0000,0902), or empty.
    pub comment: String,
}

/// Why one object was not stored; the others go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It was never sent.
    #[error("{0}")]
    Unsendable(String),
    /// The peer answered with a failure status.
    #[error("refused with status {status:04X}H, {}{}", meaning(*.status), quoted(.comment))]
    Refused { status: u16, comment: String },
}

fn quoted(comment: &str) -> String {
    if comment.is_empty() { String::new() } else { format!(": {comment}") }
}

/// Asks the peer whether it is there: C-ECHO on an association of its own. Returns the time from request to response.
pub fn echo(peer: &Peer) -> Result<Duration, ScuError> {
    let contexts = [(uids::VERIFICATION.to_owned(), uids::IMPLICIT_VR_LITTLE_ENDIAN.to_owned())];
    let mut association = Association::request(peer, &contexts)?;
    let begun = Instant::now();
    let context = association.accepted[0].id;
    let response = association.ask(context, C_ECHO_RQ, 1, uids::VERIFICATION, None)?;
    let took = begun.elapsed();
    association.release();
    if response.status != 0 {
        let why = format!("C-ECHO was answered with status {:04X}H", response.status);
        return Err(ScuError::Protocol { address: peer.address.clone(), why });
    }
    Ok(took)
}

/// Pushes `objects` on one association, in order. `each` hears of every object that was answered or could not be sent;
/// it is not called for those that a lost association left unsent.
///
/// # Errors
/// [`ScuError`] when there is no association, or none any more.
pub fn store(
    peer: &Peer,
    objects: &[Object],
    priority: Priority,
    each: &mut dyn FnMut(&Object, Result<Stored, StoreError>),
) -> Result<(), ScuError> {
    let offer = Offer::of(objects);
    let mut association = Association::request(peer, offer.contexts())?;
    let accepted = association.accepted.clone();
    std::thread::scope(|scope| {
        let (ready, prepared) = mpsc::sync_channel(READ_AHEAD);
        scope.spawn(move || {
            for object in objects {
                let next = offer::choose(object, &accepted).and_then(|choice| prepare(object, &choice));
                // The other end is gone when the association is lost.
                if ready.send((object, next)).is_err() {
                    return;
                }
            }
        });
        let mut message_id = 0u16;
        for (object, next) in prepared {
            match next {
                Err(why) => each(object, Err(StoreError::Unsendable(why))),
                Ok(next) => {
                    message_id = message_id.checked_add(1).unwrap_or(1);
                    let response = association.store(object, &next, message_id, priority)?;
                    let Response { status, comment } = response;
                    each(
                        object,
                        match status {
                            0x0000 | 0xB000..=0xBFFF | 0x0107 | 0x0116 => Ok(Stored {
                                bytes: next.data_set().len() as u64,
                                transfer_syntax: next.transfer_syntax,
                                status,
                                comment,
                            }),
                            _ => Err(StoreError::Refused { status, comment }),
                        },
                    );
                }
            }
        }
        association.release();
        Ok(())
    })
}

/// A C-STORE status in words (PS3.4 table B.2-1, PS3.7 annex C).
pub fn meaning(status: u16) -> &'static str {
    match status {
        0x0000 => "success",
        0x0110 => "processing failure",
        0x0111 => "duplicate SOP instance",
        0x0112 => "no such SOP instance",
        0x0117 => "invalid SOP instance",
        0x0118 => "no such SOP class",
        0x0119 => "class-instance conflict",
        0x0122 => "SOP class not supported",
        0x0124 => "not authorized",
        0x0210 => "duplicate invocation",
        0x0211 => "unrecognized operation",
        0x0212 => "mistyped argument",
        0x0213 => "resource limitation",
        0x0107 => "attribute list error",
        0x0116 => "attribute value out of range",
        0xA700..=0xA7FF => "out of resources",
        0xA900..=0xA9FF => "data set does not match SOP class",
        0xB000 => "coercion of data elements",
        0xB006 => "elements discarded",
        0xB007 => "data set does not match SOP class",
        0xB001..=0xBFFF => "warning",
        0xC000..=0xCFFF => "cannot understand",
        _ => "failure",
    }
}

/// A presentation context that the peer accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Accepted {
    id: u8,
    abstract_syntax: String,
    transfer_syntax: String,
}

struct Response {
    status: u16,
    comment: String,
}

/// What a C-STORE request has beyond a C-ECHO request.
struct Sent<'a> {
    priority: u16,
    sop_instance_uid: &'a str,
    data_set: &'a [u8],
}

struct Association {
    address: String,
    timeout: Duration,
    accepted: Vec<Accepted>,
    longest_pdu: usize,
    inner: ClientAssociation<TcpStream>,
}

impl Association {
    /// Asks for an association with one transfer syntax per presentation context, at most 128 contexts.
    fn request(peer: &Peer, contexts: &[(String, String)]) -> Result<Association, ScuError> {
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
            other => in_words(&peer.address, peer.timeout, other),
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

    fn store(&mut self, object: &Object, it: &Prepared, id: u16, priority: Priority) -> Result<Response, ScuError> {
        let priority = match priority {
            Priority::Medium => 0,
            Priority::High => 1,
            Priority::Low => 2,
        };
        let sent = Sent { priority, sop_instance_uid: &object.sop_instance_uid, data_set: it.data_set() };
        self.ask(it.context, C_STORE_RQ, id, &object.sop_class_uid, Some(sent))
    }

    /// Sends a request and waits for its response.
    fn ask(
        &mut self,
        context: u8,
        field: u16,
        message_id: u16,
        sop_class_uid: &str,
        sent: Option<Sent<'_>>,
    ) -> Result<Response, ScuError> {
        let mut set = Vec::new();
        // In the order of their tags (PS3.7 6.3.1).
        push_text(&mut set, tags::AFFECTED_SOP_CLASS_UID, sop_class_uid, 0);
        push_short(&mut set, tags::COMMAND_FIELD, field);
        push_short(&mut set, tags::MESSAGE_ID, message_id);
        if let Some(sent) = &sent {
            push_short(&mut set, tags::PRIORITY, sent.priority);
        }
        push_short(&mut set, tags::COMMAND_DATA_SET_TYPE, if sent.is_some() { DATA_SET } else { NO_DATA_SET });
        if let Some(sent) = &sent {
            push_text(&mut set, tags::AFFECTED_SOP_INSTANCE_UID, sent.sop_instance_uid, 0);
        }
        let mut command = Vec::new();
        push(&mut command, COMMAND_GROUP_LENGTH, &(set.len() as u32).to_le_bytes());
        command.extend(set);
        self.write_pdata(context, true, &command)?;
        if let Some(sent) = &sent {
            self.write_pdata(context, false, sent.data_set)?;
        }
        self.response(field | RESPONSE, message_id)
    }

    /// Sends a command set or data set in fragments as long as the peer takes (PS3.8 9.3.5, annex E).
    fn write_pdata(&mut self, context: u8, command: bool, bytes: &[u8]) -> Result<(), ScuError> {
        // Of the PDU's length, PDV length, context ID and message control header are 6 bytes; fragments are even.
        let most = (self.longest_pdu - 6) & !1;
        let count = bytes.len().div_ceil(most).max(1);
        let mut pdu = Vec::with_capacity(12 + most.min(bytes.len()));
        for number in 0..count {
            let fragment = &bytes[number * most..bytes.len().min((number + 1) * most)];
            let control = u8::from(command) | if number + 1 == count { 2 } else { 0 };
            pdu.clear();
            pdu.extend([0x04, 0x00]);
            pdu.extend((fragment.len() as u32 + 6).to_be_bytes());
            pdu.extend((fragment.len() as u32 + 2).to_be_bytes());
            pdu.extend([context, control]);
            pdu.extend(fragment);
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

    fn response(&mut self, field: u16, message_id: u16) -> Result<Response, ScuError> {
        let mut command = Vec::new();
        loop {
            // Many peers write a response in two pieces with Nagle's algorithm on: the second waits for our ACK of the
            // first, which the kernel would delay by 40 ms. The option does not stick, hence here.
            let _ = rustix::net::sockopt::set_tcp_quickack(self.inner.inner_stream(), true);
            let pdu = self.inner.receive().map_err(|error| in_words(&self.address, self.timeout, error))?;
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
                    return self.parse(&command, field, message_id);
                }
            }
        }
    }

    fn parse(&self, command: &[u8], field: u16, message_id: u16) -> Result<Response, ScuError> {
        let set = elements(command).map_err(|error| self.protocol(format!("in its response, {error}")))?;
        let value = |tag| set.iter().find(|(t, _)| *t == tag).map(|(_, value)| *value);
        let number = |tag| value(tag).and_then(|v| Some(u16::from_le_bytes(v.get(..2)?.try_into().ok()?)));
        if number(tags::COMMAND_FIELD) != Some(field) {
            return Err(self.protocol("it answered with another message than the response that was due".into()));
        }
        if number(tags::MESSAGE_ID_BEING_RESPONDED_TO) != Some(message_id) {
            return Err(self.protocol(format!("its response is not to message {message_id}, the one that was sent")));
        }
        let Some(status) = number(tags::STATUS) else {
            return Err(self.protocol("its response has no status".into()));
        };
        let comment = value(tags::ERROR_COMMENT).map(String::from_utf8_lossy).unwrap_or_default();
        Ok(Response { status, comment: comment.trim_matches(['\0', ' ']).to_owned() })
    }

    fn protocol(&self, why: String) -> ScuError {
        ScuError::Protocol { address: self.address.clone(), why }
    }

    /// Everything has been answered by now: a peer that does not release well loses nothing.
    fn release(self) {
        let _ = self.inner.release();
    }
}

/// What the upper layer library reports, as an administrator reads it.
fn in_words(address: &str, timeout: Duration, error: UpperLayerError) -> ScuError {
    let address = address.to_owned();
    match error {
        UpperLayerError::Rejected { association_rj, .. } => ScuError::Rejected {
            address,
            how: match association_rj.result {
                AssociationRJResult::Permanent => "for good",
                AssociationRJResult::Transient => "for now",
            },
            why: association_rj.source.to_string(),
        },
        UpperLayerError::UnexpectedPdu { pdu, .. } if matches!(*pdu, Pdu::AbortRQ { .. }) => {
            let Pdu::AbortRQ { source } = *pdu else { unreachable!("just matched") };
            ScuError::Aborted { address, why: abort(&source) }
        }
        UpperLayerError::Connect { source, .. } | UpperLayerError::ToAddress { source, .. } => match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ScuError::Connect {
                address,
                source: io::Error::new(io::ErrorKind::TimedOut, format!("no answer for {} s", timeout.as_secs_f64())),
            },
            _ => ScuError::Connect { address, source },
        },
        UpperLayerError::ConnectionClosed { .. } => ScuError::Closed { address },
        other => match io_kind(&other) {
            Some(io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => ScuError::Timeout { address, after: timeout },
            Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof) => {
                ScuError::Closed { address }
            }
            _ => ScuError::Protocol { address, why: chain(&other) },
        },
    }
}

fn abort(source: &AbortRQSource) -> String {
    match source {
        AbortRQSource::ServiceUser => "by its application, which gives no reason".into(),
        AbortRQSource::ServiceProvider(reason) => reason.to_string(),
        AbortRQSource::Reserved => "no reason given".into(),
    }
}

/// The kind of the I/O error that an error comes from, if it comes from one.
fn io_kind(error: &(dyn std::error::Error + 'static)) -> Option<io::ErrorKind> {
    let mut source = Some(error);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        source = error.source();
    }
    None
}

/// An error with its causes in one line; the libraries' texts name one level each.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
