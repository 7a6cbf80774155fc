//! One request of a peer and what the node answers to it.

use std::sync::Arc;

use super::command::{Operation, Request, Response};
use super::context::Context;
use super::link::{Arrival, Caller, End, Link};
use super::peer::Peer;
use super::status::Status;

/// A request that is being served.
pub struct Exchange<'l> {
    link: &'l mut Link,
    peer: &'l Arc<Peer>,
    context: Arc<Context>,
    request: Request,
    cancelled: bool,
    /// The status of the last response, once it was sent.
    answered: Option<Status>,
}

impl<'l> Exchange<'l> {
    pub fn new(link: &'l mut Link, peer: &'l Arc<Peer>, context: Arc<Context>, request: Request) -> Exchange<'l> {
        Exchange { link, peer, context, request, cancelled: false, answered: None }
    }

    pub fn peer(&self) -> &Arc<Peer> {
        self.peer
    }

    /// The presentation context that the request came in.
    pub fn context(&self) -> &Context {
        &self.context
    }

    pub fn request(&self) -> &Request {
        &self.request
    }

    /// Asks the peer on this association, also after this exchange is over.
    pub fn caller(&self) -> Caller {
        self.link.caller().clone()
    }

    /// The next piece of the request's data set; `None` at its end, and if it has none. Pieces are as long as they arrive.
    pub async fn next_piece(&mut self) -> Result<Option<&[u8]>, End> {
        self.link.next_piece().await
    }

    /// The whole data set. `None` if it is longer than `limit` bytes; the rest of it is read and dropped then.
    pub async fn read_data_set(&mut self, limit: usize) -> Result<Option<Vec<u8>>, End> {
        let mut data_set = Vec::new();
        let mut fits = true;
        while let Some(piece) = self.next_piece().await? {
            fits &= data_set.len() + piece.len() <= limit;
            if fits {
                data_set.extend_from_slice(piece);
            }
        }
        Ok(fits.then_some(data_set))
    }

    /// Sends a response. One whose status is pending is followed by others; any other is the last. What is left of the data set
    /// is read and dropped before, because peers listen for a response only when they have sent everything.
    pub async fn respond(&mut self, response: Response<'_>) -> Result<(), End> {
        while self.next_piece().await?.is_some() {}
        let command = self.request.response(&response);
        self.link.send(self.context.id, &command, response.data_set).await?;
        if !response.status.is_pending() {
            self.answered = Some(response.status);
        }
        Ok(())
    }

    /// Waits until the peer cancels this request (C-CANCEL, PS3.7 9.3.2.3). Nothing is lost if the future is dropped, so a
    /// service waits for this and for its own next result at one time. To be called once the data set is read.
    ///
    /// # Errors
    /// Another request before this one is answered: asynchronous operations are not negotiated.
    pub async fn cancelled(&mut self) -> Result<(), End> {
        while !self.cancelled {
            match self.link.next_request().await? {
                Arrival::Request { request, .. } if request.operation == Operation::CCancel => {
                    // One that is about an earlier request came too late.
                    self.cancelled = request.message_id == self.request.message_id;
                }
                Arrival::Request { .. } => {
                    return Err(End::Protocol("another request before the last one was answered".into()));
                }
                Arrival::Release => {
                    return Err(End::Protocol(
                        "the peer released the association in the middle of an operation".into(),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Whether the peer has cancelled this request, as far as has arrived.
    pub async fn is_cancelled(&mut self) -> Result<bool, End> {
        tokio::select! {
            biased;
            cancelled = self.cancelled() => cancelled.map(|()| true),
            () = std::future::ready(()) => Ok(false),
        }
    }

    /// The status of the last response, if it was sent.
    pub fn answered(&self) -> Option<&Status> {
        self.answered.as_ref()
    }
}
