//! One association, from its request to its end: negotiated, each request handed to its service, released or aborted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::crowd::Place;
use crate::{IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME};

use super::applicant::{Applicant, Refusal};
use super::command::{Operation, Request};
use super::context::Context;
use super::exchange::Exchange;
use super::link::{ANSWER_PATIENCE, Arrival, Call, Caller, End, Link};
use super::negotiation::negotiate;
use super::pdu::{
    AbortReason, AssociateAccept, AssociateRequest, Event, Pdu, PduError, PduStream, Rejection, release_response,
};
use super::peer::Peer;
use super::policy::{APPLICATION_CONTEXT, Admission};
use super::scp::Scp;
use super::senders::Seat;
use super::service::Handler;
use super::status::Status;
use super::transport::Connection;

/// How long the peer may take to close the connection after the last PDU.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// Serves a connection until it ends. Everything that goes wrong is logged here, once.
///
/// `waiting` is the connection's place among those that have not asked for an association yet.
pub async fn serve(connection: Connection, waiting: Place, scp: Arc<Scp>, stop: CancellationToken) {
    let Connection { transport, address, tls, certificate } = connection;
    let mut stream = PduStream::new(transport);
    let request = tokio::select! {
        request = first_request(&mut stream, scp.association_request_timeout) => request,
        () = waiting.made_room().cancelled() => {
            return debug!(%address, "the connection made room for another, as it had asked for no association yet");
        }
        () = stop.cancelled() => return,
    };
    drop(waiting);
    let request = match request {
        Ok(request) => request,
        Err(NoRequest::Left) => {
            return debug!(%address, "the connection ended before an association was asked for");
        }
        Err(NoRequest::Garbage(why, abort)) => {
            scp.garbage(address, &why);
            if let Some(abort) = abort {
                let _ = stream.send(&abort.encode(), CLOSE_PATIENCE).await;
                stream.finish(CLOSE_PATIENCE).await;
            }
            return;
        }
    };
    let (calling_ae, called_ae) = (request.titles.calling(), request.titles.called());
    let seat = scp.senders.take(&calling_ae, address);
    let place = seat.as_ref().and_then(|_| scp.places.clone().try_acquire_owned().ok());
    let applicant = Applicant {
        request: &request,
        calling_ae: &calling_ae,
        called_ae: &called_ae,
        address,
        tls,
        certificate: certificate.as_ref(),
    };
    let admitted = scp.policy.admit(&applicant, seat.is_none()).and_then(|admission| {
        let known = admission.known.as_ref();
        let of_peer = known.map(|known| known.place()).transpose()?.flatten();
        let reserved = if place.is_none() { known.and_then(|known| known.reserved_place()) } else { None };
        if place.is_none() && reserved.is_none() {
            let why = "dimse.max_associations are open already".into();
            return Err(Refusal { rejection: Rejection::LocalLimitExceeded, why });
        }
        Ok((admission, of_peer, reserved))
    });
    let (admission, of_peer, reserved) = match admitted {
        Ok(admitted) => admitted,
        Err(refusal) => {
            // Whoever is refused must not keep others out while it takes its time to go.
            drop((place, seat));
            scp.rejected(address, &calling_ae, &refusal);
            let _ = stream.send(&refusal.rejection.encode(), ANSWER_PATIENCE).await;
            return stream.finish(CLOSE_PATIENCE).await;
        }
    };
    let negotiated = negotiate(&request, &scp.services, admission.known.as_deref());
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let association = NUMBER.fetch_add(1, Ordering::Relaxed);
    let (contexts, refused) = (negotiated.contexts.len(), negotiated.results.len() - negotiated.contexts.len());
    let peer_name = admission.known.as_ref().map(|known| known.name().to_owned());
    info!(association, calling_ae, peer = peer_name, %address, tls, contexts, refused, "association open");
    if contexts == 0 {
        warn!(
            association,
            "none of the {refused} proposed presentation contexts can be accepted; see dimse.other_storage_classes \
             and sop_classes of dimse.peers"
        );
    }
    let answer = AssociateAccept {
        titles: request.titles,
        application_context: APPLICATION_CONTEXT.into(),
        contexts: negotiated.results,
        maximum_length: scp.max_pdu,
        implementation_class_uid: IMPLEMENTATION_CLASS_UID,
        implementation_version_name: IMPLEMENTATION_VERSION_NAME,
        roles: negotiated.roles,
        extended_negotiation: negotiated.extended_negotiation,
        user_identity_response: admission.user_identity_response,
    };
    if let Err(error) = stream.send(&answer.encode(), ANSWER_PATIENCE).await {
        return warn!(association, "association: {error}");
    }
    metrics::counter!("triaged_associations_total", "result" => "accepted").increment(1);
    let Admission { known, user_identity, .. } = admission;
    let peer = Arc::new(Peer { association, calling_ae, called_ae, address, known, certificate, user_identity });
    let open = Open::new([place.or(reserved), of_peer], seat);
    let began = Instant::now();
    let (caller, calls) = Caller::new();
    let link = Link::new(stream, negotiated.contexts, request.maximum_length, scp.idle_timeout, caller);
    let handlers = scp.services.iter().map(|_| None).collect();
    let mut serving = Association { link, calls, scp: &scp, handlers, peer, stop, stored: 0, refused: 0 };
    let end = serving.run().await;
    let Association { link, mut handlers, peer, stored, refused, .. } = serving;
    let open_handlers = handlers.iter_mut().flatten();
    match &end {
        Ok(()) => open_handlers.for_each(|handler| handler.released()),
        Err(End::Pdu(PduError::Timeout(_))) => open_handlers.for_each(|handler| handler.fell_silent()),
        Err(_) => (),
    }
    let seconds = format!("{:.1}", began.elapsed().as_secs_f64());
    match &end {
        Ok(()) => info!(association, stored, refused, seconds, "association released"),
        Err(End::Stopping) => info!(association, stored, refused, seconds, "association ended: {}", End::Stopping),
        Err(end) => {
            let calling_ae = &peer.calling_ae;
            warn!(association, calling_ae, stored, refused, seconds, "association ended: {end}")
        }
    }
    // Before the goodbye: whoever hears that the association is over may rely on it.
    drop((open, handlers));
    let goodbye = match end {
        Ok(()) => Some(release_response()),
        Err(End::Aborted) => None,
        Err(End::Stopping) => Some(AbortReason::NotSpecified.encode()),
        Err(End::Protocol(_)) => Some(AbortReason::UnexpectedPdu.encode()),
        Err(End::Pdu(error)) => error.abort_reason().map(AbortReason::encode),
    };
    let mut stream = link.into_stream();
    if let Some(goodbye) = goodbye
        && stream.send(&goodbye, CLOSE_PATIENCE).await.is_ok()
    {
        stream.finish(CLOSE_PATIENCE).await;
    }
}

/// Why a connection does not become an association.
enum NoRequest {
    /// The peer closed or aborted: there is nothing to answer. Load balancers and port scanners do so.
    Left,
    /// Something else came than an association request, and this is the A-ABORT for it.
    Garbage(String, Option<AbortReason>),
}

/// Reads the A-ASSOCIATE-RQ, within the time of the ARTIM timer (PS3.8 9.1.5).
async fn first_request(stream: &mut PduStream, patience: Duration) -> Result<AssociateRequest, NoRequest> {
    let first = tokio::time::timeout(patience, stream.next(patience)).await;
    match first.unwrap_or(Err(PduError::Timeout(patience))) {
        Ok(Event::Control(Pdu::AssociateRequest(request))) => Ok(*request),
        Ok(Event::Closed | Event::Control(Pdu::Abort { .. })) => Err(NoRequest::Left),
        Ok(_) => {
            let why = "a PDU other than A-ASSOCIATE-RQ began the connection".into();
            Err(NoRequest::Garbage(why, Some(AbortReason::UnexpectedPdu)))
        }
        Err(error) => Err(NoRequest::Garbage(error.to_string(), error.abort_reason())),
    }
}

/// Counts an association as open, and keeps its places (among all, and among its peer's), until this is dropped.
struct Open {
    _places: [Option<OwnedSemaphorePermit>; 2],
    _seat: Option<Seat>,
}

impl Open {
    fn new(places: [Option<OwnedSemaphorePermit>; 2], seat: Option<Seat>) -> Open {
        metrics::gauge!("triaged_associations_open").increment(1);
        Open { _places: places, _seat: seat }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::gauge!("triaged_associations_open").decrement(1);
    }
}

struct Association<'s> {
    link: Link,
    /// Requests of the node to the peer. They are sent between two requests of the peer.
    calls: mpsc::Receiver<Call>,
    scp: &'s Scp,
    /// One place for each service, filled at the service's first request.
    handlers: Vec<Option<Box<dyn Handler>>>,
    peer: Arc<Peer>,
    stop: CancellationToken,
    stored: u64,
    refused: u64,
}

impl Association<'_> {
    /// Serves requests until the peer releases.
    async fn run(&mut self) -> Result<(), End> {
        loop {
            // A stop waits for the request that is being served, not for the next one.
            let arrival = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(End::Stopping),
                Some(call) = self.calls.recv(), if !self.link.is_calling() => {
                    self.link.call(call).await?;
                    continue;
                }
                arrival = self.link.next_request() => arrival?,
            };
            match arrival {
                Arrival::Release => return Ok(()),
                // It has no response (PS3.7 9.3.2.3), and what it is about is over.
                Arrival::Request { request, .. } if request.operation == Operation::CCancel => {}
                Arrival::Request { context, request } => self.serve(context, request).await?,
            }
        }
    }

    async fn serve(&mut self, context: Arc<Context>, request: Request) -> Result<(), End> {
        let service = self.service(&context, &request);
        let operation = request.operation;
        let mut exchange = Exchange::new(&mut self.link, &self.peer, context, request);
        match service {
            Some(at) => {
                let handler = self.handlers[at].get_or_insert_with(|| self.scp.services[at].open(&self.peer));
                handler.serve(&mut exchange).await?;
            }
            None => {
                let why = format!("operation {operation:?} is not offered here");
                exchange.respond(Status::new(Status::UNRECOGNIZED_OPERATION, why).into()).await?;
            }
        }
        if exchange.answered().is_none() {
            let why = "the service did not answer; this is a bug";
            exchange.respond(Status::new(Status::PROCESSING_FAILURE, why).into()).await?;
        }
        let Some(status) = exchange.answered() else { return Ok(()) };
        if !status.is_success() {
            warn!(
                association = self.peer.association,
                calling_ae = self.peer.calling_ae,
                sop_instance = exchange.request().sop_instance_uid,
                status = format!("{:04X}H", status.code),
                "{}",
                status.comment
            );
        }
        if operation == Operation::CStore {
            if status.is_success() {
                self.stored += 1;
            } else {
                self.refused += 1;
            }
        }
        Ok(())
    }

    /// The service that performs a request: the one that accepted its context, else any, so that C-ECHO is answered in every
    /// context.
    fn service(&self, context: &Context, request: &Request) -> Option<usize> {
        let performs = |at: &usize| self.scp.services[*at].performs(request.operation);
        Some(context.service).filter(performs).or_else(|| (0..self.scp.services.len()).find(performs))
    }
}
