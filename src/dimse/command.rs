//! Command sets (PS3.7 section 9.3 and annex E): the requests we understand and the responses we give.

use dicom_core::{DataElement, Tag, VR, dicom_value};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use dicom_transfer_syntax_registry::entries::IMPLICIT_VR_LITTLE_ENDIAN;

use super::status::Status;

/// A command set has a dozen short attributes.
pub const LARGEST_COMMAND: usize = 16 * 1024;

/// Command Data Set Type (0000,0800): no data set follows.
const NO_DATA_SET: u16 = 0x0101;
const RESPONSE: u16 = 0x8000;

/// What a peer asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub operation: Operation,
    /// Message ID (0000,0110); the response carries it back.
    pub message_id: u16,
    /// Affected SOP Class UID (0000,0002).
    pub sop_class_uid: String,
    /// Affected SOP Instance UID (0000,1000).
    pub sop_instance_uid: String,
    /// A data set follows.
    pub has_data_set: bool,
}

/// Command Field (0000,0100).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    CStore,
    CEcho,
    CCancel,
    /// Another request, by its code.
    Other(u16),
}

impl Operation {
    fn code(self) -> u16 {
        match self {
            Operation::CStore => 0x0001,
            Operation::CEcho => 0x0030,
            Operation::CCancel => 0x0FFF,
            Operation::Other(code) => code,
        }
    }
}

/// Why a command set cannot be answered; the association is aborted, as a message id is missing to answer with.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("the command set cannot be read: {0}")]
    Unreadable(String),
    #[error("the command set has no {0}")]
    Missing(&'static str),
    #[error("command field {0:04X}H is a response, and nothing was asked")]
    UnexpectedResponse(u16),
}

impl Request {
    /// Reads a command set (always Implicit VR Little Endian, PS3.7 6.3.1).
    pub fn parse(bytes: &[u8]) -> Result<Request, CommandError> {
        let set = InMemDicomObject::read_dataset_with_ts(bytes, &IMPLICIT_VR_LITTLE_ENDIAN.erased())
            .map_err(|error| CommandError::Unreadable(error.to_string()))?;
        let number = |tag| set.element_opt(tag).ok().flatten().and_then(|e| e.to_int::<u16>().ok());
        let text = |tag| {
            let value = set.element_opt(tag).ok().flatten().and_then(|e| e.to_str().ok().map(|s| s.into_owned()));
            value.unwrap_or_default().trim_matches(['\0', ' ']).to_owned()
        };
        let code = number(tags::COMMAND_FIELD).ok_or(CommandError::Missing("Command Field (0000,0100)"))?;
        if code & RESPONSE != 0 {
            return Err(CommandError::UnexpectedResponse(code));
        }
        let operation = match code {
            0x0001 => Operation::CStore,
            0x0030 => Operation::CEcho,
            0x0FFF => Operation::CCancel,
            other => Operation::Other(other),
        };
        Ok(Request {
            operation,
            message_id: match operation {
                Operation::CCancel => 0,
                _ => number(tags::MESSAGE_ID).ok_or(CommandError::Missing("Message ID (0000,0110)"))?,
            },
            sop_class_uid: text(tags::AFFECTED_SOP_CLASS_UID),
            sop_instance_uid: text(tags::AFFECTED_SOP_INSTANCE_UID),
            has_data_set: number(tags::COMMAND_DATA_SET_TYPE).is_some_and(|kind| kind != NO_DATA_SET),
        })
    }

    /// The command set of the response, with this request's own message id.
    pub fn response(&self, status: &Status) -> Vec<u8> {
        let short = |tag: Tag, value: u16| DataElement::new(tag, VR::US, dicom_value!(U16, [value]));
        let mut elements = vec![
            short(tags::COMMAND_FIELD, self.operation.code() | RESPONSE),
            short(tags::MESSAGE_ID_BEING_RESPONDED_TO, self.message_id),
            short(tags::COMMAND_DATA_SET_TYPE, NO_DATA_SET),
            short(tags::STATUS, status.code),
        ];
        for (tag, uid) in [
            (tags::AFFECTED_SOP_CLASS_UID, &self.sop_class_uid),
            (tags::AFFECTED_SOP_INSTANCE_UID, &self.sop_instance_uid),
        ] {
            if !uid.is_empty() {
                elements.push(DataElement::new(tag, VR::UI, dicom_value!(Str, uid.as_str())));
            }
        }
        if !status.is_success() && !status.comment.is_empty() {
            elements.push(DataElement::new(tags::ERROR_COMMENT, VR::LO, dicom_value!(Str, status.error_comment())));
        }
        let mut bytes = Vec::new();
        InMemDicomObject::command_from_element_iter(elements)
            .write_dataset_with_ts(&mut bytes, &IMPLICIT_VR_LITTLE_ENDIAN.erased())
            .expect("a command set of short values can be written to memory");
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(bytes: &[u8]) -> InMemDicomObject {
        InMemDicomObject::read_dataset_with_ts(bytes, &IMPLICIT_VR_LITTLE_ENDIAN.erased()).unwrap()
    }

    fn store_request(message_id: u16) -> Vec<u8> {
        let mut bytes = Vec::new();
        InMemDicomObject::command_from_element_iter([
            DataElement::new(tags::COMMAND_FIELD, VR::US, dicom_value!(U16, [1])),
            DataElement::new(tags::MESSAGE_ID, VR::US, dicom_value!(U16, [message_id])),
            DataElement::new(tags::COMMAND_DATA_SET_TYPE, VR::US, dicom_value!(U16, [0])),
            DataElement::new(tags::AFFECTED_SOP_CLASS_UID, VR::UI, dicom_value!(Str, "1.2.840.10008.5.1.4.1.1.2")),
            DataElement::new(tags::AFFECTED_SOP_INSTANCE_UID, VR::UI, dicom_value!(Str, "ID_6c5d82413")),
        ])
        .write_dataset_with_ts(&mut bytes, &IMPLICIT_VR_LITTLE_ENDIAN.erased())
        .unwrap();
        bytes
    }

    #[test]
    fn a_response_carries_the_requests_own_message_id_and_uids() {
        let request = Request::parse(&store_request(4711)).unwrap();
        assert!(request.has_data_set);
        let response = read(&request.response(&Status::new(Status::OUT_OF_RESOURCES, "the disk is full")));
        let number = |tag| response.element(tag).unwrap().to_int::<u16>().unwrap();
        assert_eq!(number(tags::COMMAND_FIELD), 0x8001);
        assert_eq!(number(tags::MESSAGE_ID_BEING_RESPONDED_TO), 4711);
        assert_eq!(number(tags::STATUS), 0xA700);
        assert_eq!(response.element(tags::ERROR_COMMENT).unwrap().to_str().unwrap(), "the disk is full");
        assert_eq!(response.element(tags::AFFECTED_SOP_INSTANCE_UID).unwrap().to_str().unwrap(), "ID_6c5d82413");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_request_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Request::parse(&bytes);
        }

        #[test]
        fn a_damaged_request_is_a_request_or_an_error(at in 0usize..120, byte in any::<u8>()) {
            let mut bytes = store_request(1);
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(request) = Request::parse(&bytes) {
                request.response(&Status::success());
            }
        }
    }
}
