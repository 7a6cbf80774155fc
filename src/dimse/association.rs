//! One association, from its request to its end: messages are put together, handed to their service, and answered.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dicom_ul::pdu::{AbortRQServiceProviderReason, AbortRQSource, PDataValue, PDataValueType, Pdu};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::intake::{Announced, Memory, Reception, Sender, Transfer, TransferId};

use super::command::{LARGEST_COMMAND, Operation, Request};
use super::pdu::{Event, PduError, PduStream};
use super::policy::{Context, Decision};
use super::scp::Scp;
use super::status::Status;
use super::store;

/// How long the peer may take to read an answer, and to close after the last one.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// Who is at the other end.
#[derive(Debug, Clone)]
pub struct Peer {
    pub association: TransferId,
    pub calling_ae: String,
    pub address: IpAddr,
}

/// Why an association ended otherwise than by release.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error(transparent)]
    Pdu(#[from] PduError),
    #[error("{0}")]
    Protocol(String),
    #[error("the peer aborted the association")]
    Aborted,
    #[error("the node is stopping")]
    Stopping,
}

/// Serves a connection until it ends. Everything that goes wrong is logged here, once.
pub async fn serve(socket: TcpStream, address: IpAddr, scp: Arc<Scp>, places: Arc<Semaphore>, stop: CancellationToken) {
    let mut stream = match PduStream::new(socket) {
        Ok(stream) => stream,
        Err(error) => return debug!(%address, %error, "the connection was gone before it could be served"),
    };
    let patience = scp.association_request_timeout;
    let first = tokio::select! {
        first = tokio::time::timeout(patience, stream.next(patience)) => first.unwrap_or(Err(PduError::Timeout(patience))),
        () = stop.cancelled() => return,
    };
    let request = match first {
        Ok(Event::Control(Pdu::AssociationRQ(request))) => request,
        // Load balancers and port scanners: nothing to answer.
        Ok(Event::Closed) => return debug!(%address, "the connection was closed before an association was asked for"),
        Ok(_) => {
            warn!(%address, "a PDU other than A-ASSOCIATE-RQ began the connection; aborted");
            metrics::counter!("triaged_associations_total", "result" => "garbage").increment(1);
            let _ = stream.send(&abort(AbortRQServiceProviderReason::UnexpectedPdu), CLOSE_PATIENCE).await;
            return stream.finish(CLOSE_PATIENCE).await;
        }
        Err(error) => {
            warn!(%address, "no association: {error}");
            metrics::counter!("triaged_associations_total", "result" => "garbage").increment(1);
            if let Some(abort) = error.abort() {
                let _ = stream.send(&abort, CLOSE_PATIENCE).await;
                stream.finish(CLOSE_PATIENCE).await;
            }
            return;
        }
    };
    let place = places.try_acquire_owned().ok();
    let (answer, contexts) = match scp.policy.decide(&request, place.is_none()) {
        Decision::Accept { answer, contexts } => (answer, contexts),
        Decision::Reject { answer, why } => {
            // Whoever is refused must not keep others out while it takes its time to go.
            drop(place);
            warn!(%address, calling_ae = request.calling_ae_title, "association rejected: {why}");
            metrics::counter!("triaged_associations_total", "result" => "rejected").increment(1);
            let _ = stream.send(&Pdu::AssociationRJ(answer), ANSWER_PATIENCE).await;
            return stream.finish(CLOSE_PATIENCE).await;
        }
    };
    let calling_ae = request.calling_ae_title.trim_matches(['\0', ' ']).to_owned();
    let transfer = scp.intake.begin_transfer(Sender { calling_ae: calling_ae.clone(), peer: address });
    let peer = Peer { association: transfer.id(), calling_ae, address };
    let refused = request.presentation_contexts.len() - contexts.len();
    info!(association = peer.association, calling_ae = peer.calling_ae, %address, contexts = contexts.len(), refused, "association open");
    if contexts.is_empty() {
        warn!(
            association = peer.association,
            "none of the {refused} proposed presentation contexts can be accepted; see dimse.other_storage_classes"
        );
    }
    if let Err(error) = stream.send(&Pdu::AssociationAC(answer), ANSWER_PATIENCE).await {
        return warn!(association = peer.association, "association: {error}");
    }
    metrics::counter!("triaged_associations_total", "result" => "accepted").increment(1);
    let open = Open::new(place);
    let began = Instant::now();
    let memory = Memory::default();
    let idle = scp.idle_timeout;
    let mut association =
        Association { stream, transfer: &transfer, idle, contexts, peer, stop, memory, stored: 0, refused: 0 };
    let end = association.run().await;
    let Association { mut stream, peer, stored, refused, .. } = association;
    let seconds = format!("{:.1}", began.elapsed().as_secs_f64());
    match &end {
        Ok(()) => info!(association = peer.association, stored, refused, seconds, "association released"),
        Err(End::Stopping) => {
            info!(association = peer.association, stored, refused, seconds, "association ended: {}", End::Stopping)
        }
        Err(end) => warn!(
            association = peer.association,
            calling_ae = peer.calling_ae,
            stored,
            refused,
            seconds,
            "association ended: {end}"
        ),
    }
    drop((open, transfer));
    let goodbye = match end {
        Ok(()) => Some(Pdu::ReleaseRP),
        Err(End::Aborted) => None,
        Err(End::Stopping) => Some(abort(AbortRQServiceProviderReason::ReasonNotSpecified)),
        Err(End::Protocol(_)) => Some(abort(AbortRQServiceProviderReason::UnexpectedPdu)),
        Err(End::Pdu(error)) => error.abort(),
    };
    if let Some(goodbye) = goodbye
        && stream.send(&goodbye, CLOSE_PATIENCE).await.is_ok()
    {
        stream.finish(CLOSE_PATIENCE).await;
    }
}

fn abort(reason: AbortRQServiceProviderReason) -> Pdu {
    Pdu::AbortRQ { source: AbortRQSource::ServiceProvider(reason) }
}

/// Counts an association as open, and keeps its place, until this is dropped.
struct Open {
    _place: Option<OwnedSemaphorePermit>,
}

impl Open {
    fn new(place: Option<OwnedSemaphorePermit>) -> Open {
        metrics::gauge!("triaged_associations_open").increment(1);
        Open { _place: place }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::gauge!("triaged_associations_open").decrement(1);
    }
}

struct Association<'s> {
    stream: PduStream,
    transfer: &'s Transfer,
    idle: Duration,
    contexts: Vec<Context>,
    peer: Peer,
    stop: CancellationToken,
    /// Where objects are gathered; empty while one comes in.
    memory: Memory,
    stored: u64,
    refused: u64,
}

/// A message that is coming in.
enum Message<'s> {
    Command { context: u8, bytes: Vec<u8> },
    DataSet { context: u8, request: Request, reception: Result<Box<Reception<'s>>, Status> },
}

impl<'s> Association<'s> {
    /// Serves messages until the peer releases.
    async fn run(&mut self) -> Result<(), End> {
        let mut message: Option<Message<'s>> = None;
        let idle = self.idle;
        loop {
            // A stop waits for the message in flight, not for the next one.
            let event = if message.is_none() {
                tokio::select! {
                    biased;
                    () = self.stop.cancelled() => return Err(End::Stopping),
                    event = self.stream.next(idle) => event?,
                }
            } else {
                self.stream.next(idle).await?
            };
            let piece = match event {
                Event::Piece(piece) => piece,
                Event::Closed => return Err(End::Protocol("the peer closed the connection without a release".into())),
                Event::Control(Pdu::ReleaseRQ) if message.is_none() => return Ok(()),
                Event::Control(Pdu::ReleaseRQ) => {
                    return Err(End::Protocol("the peer released the association in the middle of a message".into()));
                }
                Event::Control(Pdu::AbortRQ { .. }) => return Err(End::Aborted),
                Event::Control(other) => {
                    return Err(End::Protocol(format!("unexpected PDU: {}", other.short_description())));
                }
            };
            let Some(accepted) = self.contexts.iter().find(|c| c.id == piece.context) else {
                return Err(End::Protocol(format!("presentation context {} was not accepted", piece.context)));
            };
            message = match message.take() {
                None | Some(Message::Command { .. }) if !piece.command => {
                    return Err(End::Protocol("a data set without its command".into()));
                }
                Some(Message::DataSet { .. }) if piece.command => {
                    return Err(End::Protocol("a command in the middle of a data set".into()));
                }
                Some(Message::Command { context, .. } | Message::DataSet { context, .. })
                    if context != piece.context =>
                {
                    return Err(End::Protocol("the presentation context changed within a message".into()));
                }
                Some(Message::DataSet { context, request, mut reception }) => {
                    if let Ok(reception) = &mut reception {
                        reception.write(piece.data).await;
                    }
                    if piece.last {
                        let status = match reception {
                            Ok(reception) => {
                                let (outcome, memory) = reception.finish().await;
                                self.memory = memory;
                                store::status(&outcome)
                            }
                            Err(status) => status,
                        };
                        self.answer(context, &request, status).await?;
                        None
                    } else {
                        Some(Message::DataSet { context, request, reception })
                    }
                }
                begun => {
                    let mut bytes = match begun {
                        Some(Message::Command { bytes, .. }) => bytes,
                        _ => Vec::new(),
                    };
                    if bytes.len() + piece.data.len() > LARGEST_COMMAND {
                        return Err(End::Protocol(format!("a command set of more than {LARGEST_COMMAND} bytes")));
                    }
                    bytes.extend_from_slice(piece.data);
                    let context = piece.context;
                    if !piece.last {
                        Some(Message::Command { context, bytes })
                    } else {
                        let request = Request::parse(&bytes).map_err(|error| End::Protocol(error.to_string()))?;
                        if request.has_data_set {
                            let refused = match request.operation {
                                Operation::CStore => store::check(accepted, &request),
                                _ => Err(self.without_data_set(&request)),
                            };
                            let reception = refused.map(|()| {
                                let announced = Announced {
                                    sop_class_uid: request.sop_class_uid.clone(),
                                    sop_instance_uid: request.sop_instance_uid.clone(),
                                    transfer_syntax: accepted.transfer_syntax.clone(),
                                };
                                Box::new(self.transfer.receive(announced, std::mem::take(&mut self.memory)))
                            });
                            Some(Message::DataSet { context, request, reception })
                        } else {
                            let status = self.without_data_set(&request);
                            self.answer(context, &request, status).await?;
                            None
                        }
                    }
                }
            };
        }
    }

    /// The status of a request that is answered without looking at a data set.
    fn without_data_set(&self, request: &Request) -> Status {
        match request.operation {
            // C-ECHO (PS3.7 9.1.5): that we answer is the answer.
            Operation::CEcho | Operation::CCancel => Status::success(),
            Operation::CStore => Status::new(Status::CANNOT_UNDERSTAND, "C-STORE without a data set"),
            Operation::Other(code) => {
                Status::new(Status::UNRECOGNIZED_OPERATION, format!("operation {code:04X}H is not offered here"))
            }
        }
    }

    async fn answer(&mut self, context: u8, request: &Request, status: Status) -> Result<(), End> {
        if request.operation == Operation::CStore {
            if status.is_success() {
                self.stored += 1;
            } else {
                self.refused += 1;
            }
        }
        if !status.is_success() {
            warn!(
                association = self.peer.association,
                calling_ae = self.peer.calling_ae,
                sop_instance = request.sop_instance_uid,
                status = format!("{:04X}H", status.code),
                "{}",
                status.comment
            );
        }
        // C-CANCEL has no response (PS3.7 9.3.2.3).
        if request.operation == Operation::CCancel {
            return Ok(());
        }
        let value = PDataValue {
            presentation_context_id: context,
            value_type: PDataValueType::Command,
            is_last: true,
            data: request.response(&status),
        };
        Ok(self.stream.send(&Pdu::PData { data: vec![value] }, ANSWER_PATIENCE).await?)
    }
}
