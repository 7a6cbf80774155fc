//! C-ECHO (PS3.7 9.1.5, PS3.4 A): that the node answers is the answer.

use std::sync::Arc;

use dicom_dictionary_std::uids;

use crate::dimse::command::Operation;
use crate::dimse::exchange::Exchange;
use crate::dimse::peer::Peer;
use crate::dimse::status::Status;

use super::{Handler, Served, Service, UNCOMPRESSED};

/// The Verification service.
pub struct Echo;

impl Service for Echo {
    fn transfer_syntaxes(&self, sop_class: &str) -> Option<&'static [&'static str]> {
        (sop_class == uids::VERIFICATION).then_some(&UNCOMPRESSED)
    }

    fn performs(&self, operation: Operation) -> bool {
        operation == Operation::CEcho
    }

    fn open(&self, _peer: &Arc<Peer>) -> Box<dyn Handler> {
        Box::new(Echo)
    }
}

impl Handler for Echo {
    fn serve<'s>(&'s mut self, exchange: &'s mut Exchange<'_>) -> Served<'s> {
        Box::pin(exchange.respond(Status::success().into()))
    }
}
