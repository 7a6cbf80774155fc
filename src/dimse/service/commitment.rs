//! Storage Commitment, Push Model (PS3.4 J): N-ACTION asks, and N-EVENT-REPORT answers, on the same association while it is open,
//! else on one of the node's own ([`Reporter`]).

use std::sync::Arc;

use dicom_dictionary_std::{tags, uids};
use tracing::{info, warn};

use crate::commitment::information::Request;
use crate::commitment::{Commitments, Requested};
use crate::dimse::command::{Operation, Response};
use crate::dimse::exchange::Exchange;
use crate::dimse::link::End;
use crate::dimse::peer::Peer;
use crate::dimse::reporter::{Reporter, SAME_ASSOCIATION};
use crate::dimse::status::Status;
use crate::ledger::{NewCommitment, format_time};

use super::{Handler, Served, Service, UNCOMPRESSED};

/// Action Type ID of a request (PS3.4 table J.3-1).
const REQUEST_STORAGE_COMMITMENT: u16 = 1;

/// A request of [`MOST_REFERENCES`](crate::commitment::information::MOST_REFERENCES) instances with UIDs of 64 characters fits.
const LARGEST_REQUEST: usize = 16 << 20;

/// The Storage Commitment service.
pub struct Commitment {
    commitments: Commitments,
    reporter: Reporter,
}

impl Commitment {
    pub fn new(commitments: Commitments, reporter: Reporter) -> Commitment {
        Commitment { commitments, reporter }
    }
}

impl Service for Commitment {
    fn transfer_syntaxes(&self, sop_class: &str) -> Option<&'static [&'static str]> {
        (sop_class == uids::STORAGE_COMMITMENT_PUSH_MODEL).then_some(&UNCOMPRESSED)
    }

    fn performs(&self, operation: Operation) -> bool {
        operation == Operation::NAction
    }

    fn open(&self, peer: &Arc<Peer>) -> Box<dyn Handler> {
        let (commitments, reporter) = (self.commitments.clone(), self.reporter.clone());
        Box::new(Committing { commitments, reporter, peer: peer.clone() })
    }
}

/// The service on one association.
struct Committing {
    commitments: Commitments,
    reporter: Reporter,
    peer: Arc<Peer>,
}

impl Committing {
    async fn commit(&self, exchange: &mut Exchange<'_>) -> Result<(), End> {
        let asked = match self.request(exchange).await? {
            Ok(asked) => asked,
            Err(status) => return exchange.respond(status.into()).await,
        };
        let instances = asked.references.len();
        match self.record(asked).await {
            Ok(id) => {
                info!(
                    association = self.peer.association,
                    calling_ae = self.peer.calling_ae,
                    instances,
                    "storage commitment asked for"
                );
                let numbers = vec![(tags::ACTION_TYPE_ID, REQUEST_STORAGE_COMMITMENT)];
                let answered = exchange.respond(Response { status: Status::success(), numbers, data_set: None }).await;
                let (caller, context) = (exchange.caller(), exchange.context().clone());
                let reporter = self.reporter.clone();
                tokio::spawn(async move { reporter.on_same_association(id, caller, context).await });
                answered
            }
            Err(status) => exchange.respond(status.into()).await,
        }
    }

    /// Reads and checks the request.
    async fn request(&self, exchange: &mut Exchange<'_>) -> Result<Result<Request, Status>, End> {
        let refuse = |code, why: String| Ok(Err(Status::new(code, why)));
        let request = exchange.request();
        if exchange.context().abstract_syntax != uids::STORAGE_COMMITMENT_PUSH_MODEL
            || request.sop_class_uid != uids::STORAGE_COMMITMENT_PUSH_MODEL
        {
            return refuse(Status::SOP_CLASS_NOT_SUPPORTED, "N-ACTION is offered for Storage Commitment alone".into());
        }
        if request.sop_instance_uid != uids::STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE {
            return refuse(
                Status::NO_SUCH_SOP_INSTANCE,
                "it is not the well-known instance 1.2.840.10008.1.20.1.1".into(),
            );
        }
        match request.set.number(tags::ACTION_TYPE_ID) {
            Some(REQUEST_STORAGE_COMMITMENT) => {}
            other => return refuse(Status::NO_SUCH_ACTION, format!("action type {other:?} is not 1, the request")),
        }
        let Some(data_set) = exchange.read_data_set(LARGEST_REQUEST).await? else {
            return refuse(Status::RESOURCE_LIMITATION, format!("the request is longer than {LARGEST_REQUEST} bytes"));
        };
        match Request::read(&data_set, exchange.context().transfer_syntax) {
            Ok(request) => Ok(Ok(request)),
            Err(why) => refuse(Status::INVALID_ARGUMENT_VALUE, why),
        }
    }

    async fn record(&self, request: Request) -> Result<i64, Status> {
        let failed =
            |why: &dyn std::fmt::Display| Status::new(Status::PROCESSING_FAILURE, format!("not recorded: {why}"));
        let items = serde_json::to_string(&request.references).map_err(|error| failed(&error))?;
        let same = jiff::Timestamp::now() + SAME_ASSOCIATION;
        let recorded = self.commitments.request(NewCommitment {
            transaction_uid: request.transaction_uid,
            calling_ae: self.peer.calling_ae.clone(),
            called_ae: self.peer.called_ae.clone(),
            peer: self.peer.known.as_ref().map(|known| known.name().to_owned()),
            address: self.peer.address.to_string(),
            items,
            next_attempt_at: format_time(same),
        });
        match recorded.await {
            Ok(Requested::Accepted(id)) => Ok(id),
            Ok(Requested::DuplicateTransaction) => {
                let why = "the transaction UID was used before, for other instances";
                Err(Status::new(Status::INVALID_ARGUMENT_VALUE, why))
            }
            Ok(Requested::OutOfResources(why)) => {
                let (calling_ae, association) = (&self.peer.calling_ae, self.peer.association);
                warn!(association, calling_ae, "a request of storage commitment was refused: {why}");
                Err(Status::new(Status::RESOURCE_LIMITATION, why))
            }
            Err(error) => {
                warn!(%error, "a request of storage commitment could not be recorded");
                Err(failed(&error))
            }
        }
    }
}

impl Handler for Committing {
    fn serve<'s>(&'s mut self, exchange: &'s mut Exchange<'_>) -> Served<'s> {
        Box::pin(self.commit(exchange))
    }
}
