//! Command sets (PS3.7 section 9.3 and annex E): the requests we understand and the responses we give.

use dicom_core::Tag;
use dicom_dictionary_std::tags;

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
        let set = elements(bytes)?;
        let value = |tag| set.iter().find(|(t, _)| *t == tag).map(|(_, value)| *value);
        let number = |tag| value(tag).and_then(|v| Some(u16::from_le_bytes(v.get(..2)?.try_into().ok()?)));
        let text = |tag| {
            let text = value(tag).map(String::from_utf8_lossy).unwrap_or_default();
            text.trim_matches(['\0', ' ']).to_owned()
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
        let mut set = Vec::new();
        // In the order of their tags (PS3.7 6.3.1).
        push_text(&mut set, tags::AFFECTED_SOP_CLASS_UID, &self.sop_class_uid, 0);
        push_short(&mut set, tags::COMMAND_FIELD, self.operation.code() | RESPONSE);
        push_short(&mut set, tags::MESSAGE_ID_BEING_RESPONDED_TO, self.message_id);
        push_short(&mut set, tags::COMMAND_DATA_SET_TYPE, NO_DATA_SET);
        push_short(&mut set, tags::STATUS, status.code);
        if !status.is_success() {
            push_text(&mut set, tags::ERROR_COMMENT, &status.error_comment(), b' ');
        }
        push_text(&mut set, tags::AFFECTED_SOP_INSTANCE_UID, &self.sop_instance_uid, 0);
        let mut bytes = Vec::new();
        push(&mut bytes, COMMAND_GROUP_LENGTH, &(set.len() as u32).to_le_bytes());
        bytes.extend(set);
        bytes
    }
}

/// Command Group Length (0000,0000).
pub(super) const COMMAND_GROUP_LENGTH: Tag = Tag(0x0000, 0x0000);

pub(super) fn push(set: &mut Vec<u8>, tag: Tag, value: &[u8]) {
    set.extend(tag.group().to_le_bytes());
    set.extend(tag.element().to_le_bytes());
    set.extend((value.len() as u32).to_le_bytes());
    set.extend(value);
}

pub(super) fn push_short(set: &mut Vec<u8>, tag: Tag, value: u16) {
    push(set, tag, &value.to_le_bytes());
}

/// Text that is there, padded to an even length (PS3.5 6.2). A UID goes back as it came, whatever bytes it is made of.
pub(super) fn push_text(set: &mut Vec<u8>, tag: Tag, text: &str, padding: u8) {
    if !text.is_empty() {
        let mut value = text.as_bytes().to_vec();
        value.resize(value.len().next_multiple_of(2), padding);
        push(set, tag, &value);
    }
}

/// The elements of a command set. A reader of its own, because the library's believes a stated length before the bytes
/// are there: sixteen bytes would take four gigabytes.
pub(super) fn elements(mut bytes: &[u8]) -> Result<Vec<(Tag, &[u8])>, CommandError> {
    let mut elements = Vec::new();
    while let Some((header, rest)) = bytes.split_first_chunk::<8>() {
        let short = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let tag = Tag(short(0), short(2));
        let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        if tag.group() != 0 {
            return Err(CommandError::Unreadable(format!("{tag} is not a command element")));
        }
        let (value, rest) = rest.split_at_checked(length).ok_or_else(|| {
            CommandError::Unreadable(format!("{tag} states {length} bytes, {} are there", rest.len()))
        })?;
        elements.push((tag, value));
        bytes = rest;
    }
    if !bytes.is_empty() {
        return Err(CommandError::Unreadable(format!("{} stray bytes at its end", bytes.len())));
    }
    Ok(elements)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dicom_core::{DataElement, VR, dicom_value};
    use dicom_object::InMemDicomObject;
    use dicom_transfer_syntax_registry::entries::IMPLICIT_VR_LITTLE_ENDIAN;
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

    #[test]
    fn a_uid_that_is_not_text_is_answered_and_no_stated_length_is_believed() {
        let mut bytes = store_request(1);
        let uid = bytes.windows(3).position(|w| w == b"1.2").unwrap();
        bytes[uid] = 0xff;
        assert!(!Request::parse(&bytes).unwrap().response(&Status::success()).is_empty());
        let claim = [&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0x7f][..], &[0; 40]].concat();
        assert!(matches!(Request::parse(&claim), Err(CommandError::Unreadable(_))));
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
