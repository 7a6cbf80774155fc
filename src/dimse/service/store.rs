//! C-STORE (PS3.7 9.1.1, PS3.4 B): the data set streams into the intake while it comes in; its outcome becomes a status.

use std::collections::HashSet;
use std::sync::Arc;

use dicom_dictionary_std::uids;

use crate::dimse::command::{Operation, Request};
use crate::dimse::context::Context;
use crate::dimse::exchange::Exchange;
use crate::dimse::link::End;
use crate::dimse::peer::Peer;
use crate::dimse::status::Status;
use crate::intake::{Announced, Intake, Memory, Outcome, Sender, Transfer};

use super::{EXPLICIT_VR_BIG_ENDIAN, Handler, Served, Service};

/// The storage SOP classes that can be triaged; always accepted.
pub const CT_STORAGE: [&str; 3] =
    [uids::CT_IMAGE_STORAGE, uids::ENHANCED_CT_IMAGE_STORAGE, uids::LEGACY_CONVERTED_ENHANCED_CT_IMAGE_STORAGE];

/// The transfer syntaxes accepted for storage: all that the pixel decoder reads. A test holds the list to that.
pub const TRANSFER_SYNTAXES: [&str; 14] = [
    uids::IMPLICIT_VR_LITTLE_ENDIAN,
    uids::EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    uids::ENCAPSULATED_UNCOMPRESSED_EXPLICIT_VR_LITTLE_ENDIAN,
    uids::JPEG_BASELINE8_BIT,
    uids::JPEG_EXTENDED12_BIT,
    uids::JPEG_LOSSLESS,
    uids::JPEG_LOSSLESS_SV1,
    uids::JPEGLS_LOSSLESS,
    uids::JPEGLS_NEAR_LOSSLESS,
    uids::JPEG2000_LOSSLESS,
    uids::JPEG2000,
    uids::RLE_LOSSLESS,
];

/// The answer to extended negotiation of storage (PS3.4 table B.3-2): level 2, every attribute is kept; the level of digital
/// signature support is not stated; no attribute is coerced.
const EXTENDED_NEGOTIATION: [u8; 6] = [2, 0, 0, 0, 0, 0];

/// The Storage service.
pub struct Store {
    intake: Intake,
    classes: HashSet<String>,
}

impl Store {
    /// Stores the classes that can be triaged and `other_classes`.
    pub fn new(intake: Intake, other_classes: &[String]) -> Store {
        let classes = CT_STORAGE.iter().map(|class| class.to_string());
        Store { intake, classes: classes.chain(other_classes.iter().cloned()).collect() }
    }
}

impl Service for Store {
    fn transfer_syntaxes(&self, sop_class: &str) -> Option<&'static [&'static str]> {
        self.classes.contains(sop_class).then_some(&TRANSFER_SYNTAXES)
    }

    fn performs(&self, operation: Operation) -> bool {
        operation == Operation::CStore
    }

    fn extended_negotiation(&self, _sop_class: &str, _information: &[u8]) -> Option<Vec<u8>> {
        Some(EXTENDED_NEGOTIATION.to_vec())
    }

    fn open(&self, peer: &Arc<Peer>) -> Box<dyn Handler> {
        let known = peer.known.as_ref();
        let sender = Sender {
            calling_ae: peer.calling_ae.clone(),
            peer: peer.address,
            stat: known.is_some_and(|known| known.settings().stat),
            max_object_bytes: known.and_then(|known| known.max_object_bytes()),
        };
        Box::new(Storing { transfer: self.intake.begin_transfer(sender), memory: Memory::default() })
    }
}

/// The Storage service on one association.
struct Storing {
    transfer: Transfer,
    /// Objects are gathered here; empty while one comes in.
    memory: Memory,
}

impl Storing {
    async fn store(&mut self, exchange: &mut Exchange<'_>) -> Result<(), End> {
        let checked = check(exchange.context(), exchange.request());
        if let (Err(status), false) = (&checked, exchange.request().has_data_set) {
            metrics::counter!("triaged_instances_total", "outcome" => "refused").increment(1);
            return exchange.respond(status.clone().into()).await;
        }
        let announced = Announced {
            sop_class_uid: exchange.request().sop_class_uid.clone(),
            sop_instance_uid: exchange.request().sop_instance_uid.clone(),
            transfer_syntax: exchange.context().transfer_syntax.to_owned(),
        };
        let memory = std::mem::take(&mut self.memory);
        let mut reception = match &checked {
            Ok(()) => self.transfer.receive(announced, memory),
            Err(status) => self.transfer.refuse(announced, memory, Outcome::CannotUnderstand(status.comment.clone())),
        };
        loop {
            match exchange.next_piece().await {
                Ok(Some(piece)) => reception.write(piece).await,
                Ok(None) => break,
                Err(end) => {
                    reception.break_off().await;
                    return Err(end);
                }
            }
        }
        let (outcome, memory) = reception.finish().await;
        self.memory = memory;
        exchange.respond(checked.err().unwrap_or_else(|| status(&outcome)).into()).await
    }
}

impl Handler for Storing {
    fn serve<'s>(&'s mut self, exchange: &'s mut Exchange<'_>) -> Served<'s> {
        Box::pin(self.store(exchange))
    }

    fn released(&mut self) {
        self.transfer.released();
    }

    fn fell_silent(&mut self) {
        self.transfer.fell_silent();
    }
}

/// Refuses a request for a reason that is known before a byte of the data set was read.
fn check(context: &Context, request: &Request) -> Result<(), Status> {
    if !request.has_data_set {
        return Err(Status::new(Status::CANNOT_UNDERSTAND, "C-STORE without a data set"));
    }
    if request.sop_class_uid != context.abstract_syntax || request.sop_class_uid == uids::VERIFICATION {
        let why = "the SOP class is not the presentation context's abstract syntax";
        return Err(Status::new(Status::SOP_CLASS_NOT_SUPPORTED, why));
    }
    Ok(())
}

/// The status of a C-STORE response (PS3.4 table B.2-1). An object that is set aside is kept, so its sender is told success.
fn status(outcome: &Outcome) -> Status {
    let code = match outcome {
        Outcome::Stored | Outcome::Duplicate | Outcome::SetAside => Status::SUCCESS,
        Outcome::DoesNotMatch(_) => Status::DATA_SET_DOES_NOT_MATCH,
        Outcome::CannotUnderstand(_) => Status::CANNOT_UNDERSTAND,
        Outcome::InvalidInstance(_) => Status::INVALID_SOP_INSTANCE,
        Outcome::OutOfResources(_) | Outcome::NotStored(_) => Status::OUT_OF_RESOURCES,
    };
    Status::new(code, outcome.reason())
}

#[cfg(test)]
mod tests {
    use super::*;
    use dicom_encoding::TransferSyntaxIndex;
    use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

    #[test]
    fn every_accepted_transfer_syntax_can_be_decoded() {
        for syntax in TRANSFER_SYNTAXES {
            let known = TransferSyntaxRegistry.get(syntax).unwrap_or_else(|| panic!("{syntax} is not in the registry"));
            assert!(known.can_decode_all(), "{syntax} cannot be decoded");
        }
    }

    #[test]
    fn every_outcome_has_its_status() {
        let code = |outcome| status(&outcome).code;
        assert_eq!(code(Outcome::Stored), 0x0000);
        assert_eq!(code(Outcome::Duplicate), 0x0000);
        assert_eq!(code(Outcome::SetAside), 0x0000);
        assert_eq!(code(Outcome::DoesNotMatch("x".into())), 0xA900);
        assert_eq!(code(Outcome::CannotUnderstand("x".into())), 0xC000);
        assert_eq!(code(Outcome::InvalidInstance("x".into())), 0x0117);
        assert_eq!(code(Outcome::OutOfResources("x".into())), 0xA700);
        assert_eq!(status(&Outcome::OutOfResources("the disk is full".into())).comment, "the disk is full");
    }
}
