//! Messages on an association: command sets and data sets are put together from their pieces and sent in fragments.

use std::sync::Arc;
use std::time::Duration;

use dicom_dictionary_std::tags;
use tokio::sync::{mpsc, oneshot};

use super::command::{LARGEST_COMMAND, Message, NewCommandSet, Reply, Request};
use super::context::Context;
use super::pdu::{Event, Pdu, PduError, PduStream, push_p_data};

/// How long the peer may take to read an answer.
pub const ANSWER_PATIENCE: Duration = Duration::from_secs(30);
/// P-DATA-TF are no longer than this, in bytes of their length field, though the peer would take longer ones.
const LONGEST_P_DATA: u32 = 128 * 1024;
/// The header of a presentation data value is counted in a P-DATA-TF's length.
const VALUE_HEADER: u32 = 6;
/// The longest data set of a reply to the node's own request, in bytes.
const LARGEST_REPLY: usize = 1 << 20;

/// Why an association ended otherwise than by release.
#[derive(Debug, thiserror::Error)]
pub enum End {
    #[error(transparent)]
    Pdu(#[from] PduError),
    #[error("{0}")]
    Protocol(String),
    #[error("the peer aborted the association")]
    Aborted,
    #[error("the node is stopping")]
    Stopping,
}

/// The start of a request, or the end of the association.
pub enum Arrival {
    Request { context: Arc<Context>, request: Request },
    Release,
}

/// A request of the node to the peer of an association, such as N-EVENT-REPORT.
pub struct Call {
    context: u8,
    command: NewCommandSet,
    data_set: Option<Vec<u8>>,
    reply: oneshot::Sender<Reply>,
}

/// Asks the peer of an association on the association that it opened. Cheap to clone.
#[derive(Clone)]
pub struct Caller(mpsc::Sender<Call>);

/// The association ended before the peer replied.
#[derive(Debug, thiserror::Error)]
#[error("the association ended before the peer replied")]
pub struct NoReply;

impl Caller {
    /// With the end at which the association takes the calls.
    pub fn new() -> (Caller, mpsc::Receiver<Call>) {
        let (sender, calls) = mpsc::channel(1);
        (Caller(sender), calls)
    }

    /// Whether the association has ended.
    pub fn is_over(&self) -> bool {
        self.0.is_closed()
    }

    /// Sends a request between two messages of the peer, and waits for the reply. The message id is given here. One request is
    /// under way at a time; others wait.
    pub async fn call(
        &self,
        context: &Context,
        command: NewCommandSet,
        data_set: Option<Vec<u8>>,
    ) -> Result<Reply, NoReply> {
        let (reply, replied) = oneshot::channel();
        let call = Call { context: context.id, command, data_set, reply };
        self.0.send(call).await.map_err(|_| NoReply)?;
        replied.await.map_err(|_| NoReply)
    }
}

/// A message that is coming in.
enum Incoming {
    /// Between messages.
    Nothing,
    Command {
        context: u8,
        bytes: Vec<u8>,
    },
    /// The data set of a request, which the service takes piece by piece.
    DataSet {
        context: u8,
    },
    /// The data set of a reply.
    ReplyDataSet {
        context: u8,
        reply: Box<Reply>,
    },
}

/// An open association, as messages see it.
pub struct Link {
    stream: PduStream,
    contexts: Vec<Arc<Context>>,
    /// How long the peer may be silent.
    idle: Duration,
    /// The longest fragment that is sent, in bytes.
    fragment: usize,
    incoming: Incoming,
    caller: Caller,
    /// The request of the node that is not replied to yet.
    called: Option<(u16, oneshot::Sender<Reply>)>,
    last_call: u16,
}

impl Link {
    /// `maximum_length` is the longest P-DATA-TF that the peer takes, in bytes of its length field; `None` means any. At least 8.
    pub fn new(
        stream: PduStream,
        contexts: Vec<Arc<Context>>,
        maximum_length: Option<u32>,
        idle: Duration,
        caller: Caller,
    ) -> Link {
        let longest = maximum_length.unwrap_or(LONGEST_P_DATA).min(LONGEST_P_DATA);
        // Fragments have an even number of bytes (PS3.8 9.3.5.1).
        let fragment = (longest.saturating_sub(VALUE_HEADER).max(2) & !1) as usize;
        let incoming = Incoming::Nothing;
        Link { stream, contexts, idle, fragment, incoming, caller, called: None, last_call: 0 }
    }

    /// The stream, to say goodbye.
    pub fn into_stream(self) -> PduStream {
        self.stream
    }

    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The next request, once what is left of the data set of the last one is read and dropped. Replies to the node's own
    /// requests are given to whoever asked. Nothing is lost if the future is dropped: the next call goes on.
    pub async fn next_request(&mut self) -> Result<Arrival, End> {
        while self.next_piece().await?.is_some() {}
        loop {
            let event = self.stream.next(self.idle).await?;
            let piece = match event {
                Event::Piece(piece) => piece,
                Event::Control(Pdu::ReleaseRequest) if matches!(self.incoming, Incoming::Nothing) => {
                    return Ok(Arrival::Release);
                }
                Event::Closed | Event::Control(_) => return Err(ended(&event)),
            };
            let context = accepted(&self.contexts, piece.context)?;
            match (&mut self.incoming, piece.command) {
                (Incoming::Command { context, .. } | Incoming::ReplyDataSet { context, .. }, _)
                    if *context != piece.context =>
                {
                    return Err(End::Protocol("the presentation context changed within a message".into()));
                }
                (Incoming::Nothing | Incoming::Command { .. } | Incoming::DataSet { .. }, false) => {
                    return Err(End::Protocol("a data set without its command".into()));
                }
                (Incoming::ReplyDataSet { .. }, true) => {
                    return Err(End::Protocol("a command in the middle of a data set".into()));
                }
                (Incoming::ReplyDataSet { reply, .. }, false) => {
                    if reply.data_set.len() + piece.data.len() > LARGEST_REPLY {
                        return Err(End::Protocol(format!("a reply of more than {LARGEST_REPLY} bytes")));
                    }
                    reply.data_set.extend_from_slice(piece.data);
                    if piece.last
                        && let Incoming::ReplyDataSet { reply, .. } =
                            std::mem::replace(&mut self.incoming, Incoming::Nothing)
                    {
                        self.replied(*reply);
                    }
                    continue;
                }
                (Incoming::Command { bytes, .. }, true) => extend(bytes, piece.data)?,
                (incoming, true) => {
                    let mut bytes = Vec::new();
                    extend(&mut bytes, piece.data)?;
                    *incoming = Incoming::Command { context: piece.context, bytes };
                }
            }
            if !piece.last {
                continue;
            }
            let Incoming::Command { bytes, .. } = std::mem::replace(&mut self.incoming, Incoming::Nothing) else {
                continue;
            };
            match Message::parse(bytes).map_err(|error| End::Protocol(error.to_string()))? {
                Message::Request(request) => {
                    if request.has_data_set {
                        self.incoming = Incoming::DataSet { context: context.id };
                    }
                    return Ok(Arrival::Request { context, request });
                }
                Message::Reply(reply) => {
                    if self.called.as_ref().is_none_or(|(message_id, _)| *message_id != reply.message_id) {
                        let why = format!("a response to message {}, which was not asked", reply.message_id);
                        return Err(End::Protocol(why));
                    }
                    if reply.has_data_set {
                        self.incoming = Incoming::ReplyDataSet { context: context.id, reply: Box::new(reply) };
                    } else {
                        self.replied(reply);
                    }
                }
            }
        }
    }

    /// The next piece of the data set of the request that came last; `None` at its end, and if it has none.
    pub async fn next_piece(&mut self) -> Result<Option<&[u8]>, End> {
        let Incoming::DataSet { context } = self.incoming else { return Ok(None) };
        match self.stream.next(self.idle).await? {
            Event::Piece(piece) => {
                accepted(&self.contexts, piece.context)?;
                if piece.command {
                    return Err(End::Protocol("a command in the middle of a data set".into()));
                }
                if piece.context != context {
                    return Err(End::Protocol("the presentation context changed within a message".into()));
                }
                if piece.last {
                    self.incoming = Incoming::Nothing;
                }
                Ok(Some(piece.data))
            }
            event => Err(ended(&event)),
        }
    }

    /// Whether a request of the node is not replied to yet. Another may be sent only once it is.
    pub fn is_calling(&self) -> bool {
        self.called.is_some()
    }

    /// Sends a request of the node.
    pub async fn call(&mut self, call: Call) -> Result<(), End> {
        self.last_call = self.last_call.checked_add(1).unwrap_or(1);
        let command = call.command.number(tags::MESSAGE_ID, self.last_call).encode(call.data_set.is_some());
        self.called = Some((self.last_call, call.reply));
        self.send(call.context, &command, call.data_set.as_deref()).await
    }

    fn replied(&mut self, reply: Reply) {
        if let Some((_, waiting)) = self.called.take() {
            // Whoever asked may have gone.
            let _ = waiting.send(reply);
        }
    }

    /// Sends a message in P-DATA-TF no longer than the peer takes.
    pub async fn send(&mut self, context: u8, command: &[u8], data_set: Option<&[u8]>) -> Result<(), End> {
        let mut pdus = Vec::new();
        for (is_command, bytes) in std::iter::once((true, command)).chain(data_set.map(|bytes| (false, bytes))) {
            let count = bytes.len().div_ceil(self.fragment).max(1);
            for number in 0..count {
                let fragment = &bytes[number * self.fragment..bytes.len().min((number + 1) * self.fragment)];
                push_p_data(&mut pdus, context, is_command, number + 1 == count, fragment);
                if pdus.len() >= LONGEST_P_DATA as usize {
                    self.stream.send(&pdus, ANSWER_PATIENCE).await?;
                    pdus.clear();
                }
            }
        }
        if !pdus.is_empty() {
            self.stream.send(&pdus, ANSWER_PATIENCE).await?;
        }
        Ok(())
    }
}

fn extend(command: &mut Vec<u8>, piece: &[u8]) -> Result<(), End> {
    if command.len() + piece.len() > LARGEST_COMMAND {
        return Err(End::Protocol(format!("a command set of more than {LARGEST_COMMAND} bytes")));
    }
    command.extend_from_slice(piece);
    Ok(())
}

fn accepted(contexts: &[Arc<Context>], id: u8) -> Result<Arc<Context>, End> {
    let context = contexts.iter().find(|context| context.id == id);
    context.cloned().ok_or_else(|| End::Protocol(format!("presentation context {id} was not accepted")))
}

/// Why the association ends, if neither a piece nor a release between messages came.
fn ended(event: &Event<'_>) -> End {
    match event {
        Event::Closed => End::Protocol("the peer closed the connection without a release".into()),
        Event::Control(Pdu::ReleaseRequest) => {
            End::Protocol("the peer released the association in the middle of a message".into())
        }
        Event::Control(Pdu::Abort { .. }) => End::Aborted,
        Event::Control(other) => End::Protocol(format!("unexpected PDU: {}", other.name())),
        Event::Piece(_) => End::Protocol("unexpected PDU: P-DATA-TF".into()),
    }
}
