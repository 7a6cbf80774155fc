//! Command sets (PS3.7 section 6.3, 9.3, 10.3 and annex E): elements, requests and responses.

use std::ops::Range;

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::status::Status;

/// A command set has a dozen short attributes.
pub const LARGEST_COMMAND: usize = 16 * 1024;

/// Command Data Set Type (0000,0800): no data set follows; any other value: one follows.
const NO_DATA_SET: u16 = 0x0101;
const DATA_SET: u16 = 0x0000;
/// The bit of Command Field (0000,0100) that makes a response of a request.
const RESPONSE: u16 = 0x8000;
/// Command Group Length (0000,0000).
const COMMAND_GROUP_LENGTH: Tag = Tag(0x0000, 0x0000);

/// A command set as it was received: Implicit VR Little Endian, always (PS3.7 6.3.1).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommandSet {
    bytes: Vec<u8>,
    elements: Vec<(Tag, Range<usize>)>,
}

impl CommandSet {
    /// Reads the elements. A reader of its own, because the library's believes a stated length before the bytes are there:
    /// sixteen bytes would take four gigabytes.
    pub fn parse(bytes: Vec<u8>) -> Result<CommandSet, CommandError> {
        let mut elements = Vec::new();
        let mut at = 0;
        while let Some((header, rest)) = bytes[at..].split_first_chunk::<8>() {
            let short = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
            let tag = Tag(short(0), short(2));
            let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
            if tag.group() != 0 {
                return Err(CommandError::Unreadable(format!("{tag} is not a command element")));
            }
            if length > rest.len() {
                let there = rest.len();
                return Err(CommandError::Unreadable(format!("{tag} states {length} bytes, {there} are there")));
            }
            elements.push((tag, at + 8..at + 8 + length));
            at += 8 + length;
        }
        if at < bytes.len() {
            return Err(CommandError::Unreadable(format!("{} stray bytes at its end", bytes.len() - at)));
        }
        Ok(CommandSet { bytes, elements })
    }

    fn value(&self, tag: Tag) -> Option<&[u8]> {
        let (_, range) = self.elements.iter().find(|(t, _)| *t == tag)?;
        Some(&self.bytes[range.clone()])
    }

    /// The value of an element of VR US.
    pub fn number(&self, tag: Tag) -> Option<u16> {
        Some(u16::from_le_bytes(*self.value(tag)?.first_chunk()?))
    }

    /// The value of a text element without its padding; empty if it is not there.
    pub fn text(&self, tag: Tag) -> String {
        let text = self.value(tag).map(String::from_utf8_lossy).unwrap_or_default();
        text.trim_matches(['\0', ' ']).to_owned()
    }

    fn has_data_set(&self) -> bool {
        self.number(tags::COMMAND_DATA_SET_TYPE).is_some_and(|kind| kind != NO_DATA_SET)
    }
}

/// A command set to be sent.
#[derive(Debug, Clone)]
pub struct NewCommandSet {
    elements: Vec<(Tag, Vec<u8>)>,
}

impl NewCommandSet {
    /// A request of this operation. Its message id comes with [`NewCommandSet::number`].
    pub fn request(operation: Operation) -> NewCommandSet {
        NewCommandSet { elements: Vec::new() }.number(tags::COMMAND_FIELD, operation.code())
    }

    fn response(operation: Operation) -> NewCommandSet {
        NewCommandSet { elements: Vec::new() }.number(tags::COMMAND_FIELD, operation.code() | RESPONSE)
    }

    /// Adds an element of VR US.
    pub fn number(mut self, tag: Tag, value: u16) -> NewCommandSet {
        self.elements.push((tag, value.to_le_bytes().to_vec()));
        self
    }

    /// Adds an element of VR UI, if it is not empty. A UID goes back as it came, whatever bytes it is made of.
    pub fn uid(self, tag: Tag, uid: &str) -> NewCommandSet {
        self.padded(tag, uid, 0)
    }

    /// Adds an element of another text VR, if it is not empty.
    pub fn text(self, tag: Tag, text: &str) -> NewCommandSet {
        self.padded(tag, text, b' ')
    }

    /// Pads to an even length (PS3.5 6.2).
    fn padded(mut self, tag: Tag, text: &str, padding: u8) -> NewCommandSet {
        if !text.is_empty() {
            let mut value = text.as_bytes().to_vec();
            value.resize(value.len().next_multiple_of(2), padding);
            self.elements.push((tag, value));
        }
        self
    }

    /// The bytes, with group length and Command Data Set Type, in the order of the tags (PS3.7 6.3.1).
    pub fn encode(self, with_data_set: bool) -> Vec<u8> {
        let kind = if with_data_set { DATA_SET } else { NO_DATA_SET };
        let mut elements = self.number(tags::COMMAND_DATA_SET_TYPE, kind).elements;
        elements.sort_by_key(|(tag, _)| *tag);
        let length: usize = elements.iter().map(|(_, value)| 8 + value.len()).sum();
        let mut bytes = Vec::with_capacity(12 + length);
        push(&mut bytes, COMMAND_GROUP_LENGTH, &(length as u32).to_le_bytes());
        for (tag, value) in &elements {
            push(&mut bytes, *tag, value);
        }
        bytes
    }
}

fn push(set: &mut Vec<u8>, tag: Tag, value: &[u8]) {
    set.extend(tag.group().to_le_bytes());
    set.extend(tag.element().to_le_bytes());
    set.extend((value.len() as u32).to_le_bytes());
    set.extend(value);
}

/// Command Field (0000,0100) of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    CStore,
    CGet,
    CFind,
    CMove,
    CEcho,
    NEventReport,
    NGet,
    NSet,
    NAction,
    NCreate,
    NDelete,
    CCancel,
    /// A code that the standard does not know.
    Other(u16),
}

impl Operation {
    const KNOWN: [Operation; 12] = [
        Operation::CStore,
        Operation::CGet,
        Operation::CFind,
        Operation::CMove,
        Operation::CEcho,
        Operation::NEventReport,
        Operation::NGet,
        Operation::NSet,
        Operation::NAction,
        Operation::NCreate,
        Operation::NDelete,
        Operation::CCancel,
    ];

    fn code(self) -> u16 {
        match self {
            Operation::CStore => 0x0001,
            Operation::CGet => 0x0010,
            Operation::CFind => 0x0020,
            Operation::CMove => 0x0021,
            Operation::CEcho => 0x0030,
            Operation::NEventReport => 0x0100,
            Operation::NGet => 0x0110,
            Operation::NSet => 0x0120,
            Operation::NAction => 0x0130,
            Operation::NCreate => 0x0140,
            Operation::NDelete => 0x0150,
            Operation::CCancel => 0x0FFF,
            Operation::Other(code) => code,
        }
    }

    fn from_code(code: u16) -> Operation {
        Operation::KNOWN.into_iter().find(|known| known.code() == code).unwrap_or(Operation::Other(code))
    }
}

/// Why a command set cannot be answered; the association is aborted, as a message id is missing to answer with.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("the command set cannot be read: {0}")]
    Unreadable(String),
    #[error("the command set has no {0}")]
    Missing(&'static str),
}

/// A command set that was received, by its direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    Request(Request),
    Reply(Reply),
}

impl Message {
    pub fn parse(bytes: Vec<u8>) -> Result<Message, CommandError> {
        let set = CommandSet::parse(bytes)?;
        let missing = |tag, what| set.number(tag).ok_or(CommandError::Missing(what));
        let code = missing(tags::COMMAND_FIELD, "Command Field (0000,0100)")?;
        let operation = Operation::from_code(code & !RESPONSE);
        let responded_to = "Message ID Being Responded To (0000,0120)";
        if code & RESPONSE != 0 {
            return Ok(Message::Reply(Reply {
                operation,
                message_id: missing(tags::MESSAGE_ID_BEING_RESPONDED_TO, responded_to)?,
                status: missing(tags::STATUS, "Status (0000,0900)")?,
                has_data_set: set.has_data_set(),
                set,
                data_set: Vec::new(),
            }));
        }
        let message_id = match operation {
            // One without it cancels nothing, and is ignored like one that comes late.
            Operation::CCancel => set.number(tags::MESSAGE_ID_BEING_RESPONDED_TO).unwrap_or_default(),
            _ => missing(tags::MESSAGE_ID, "Message ID (0000,0110)")?,
        };
        let affected_or_requested = |affected, requested| {
            let uid = set.text(affected);
            if uid.is_empty() { set.text(requested) } else { uid }
        };
        Ok(Message::Request(Request {
            operation,
            message_id,
            sop_class_uid: affected_or_requested(tags::AFFECTED_SOP_CLASS_UID, tags::REQUESTED_SOP_CLASS_UID),
            sop_instance_uid: affected_or_requested(tags::AFFECTED_SOP_INSTANCE_UID, tags::REQUESTED_SOP_INSTANCE_UID),
            has_data_set: set.has_data_set(),
            set,
        }))
    }
}

/// A request of the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub operation: Operation,
    /// Message ID (0000,0110); the response carries it back. In a C-CANCEL the id of the request that it is about.
    pub message_id: u16,
    /// Affected SOP Class UID (0000,0002), or in most DIMSE-N requests Requested SOP Class UID (0000,0003).
    pub sop_class_uid: String,
    /// Affected SOP Instance UID (0000,1000), or in most DIMSE-N requests Requested SOP Instance UID (0000,1001).
    pub sop_instance_uid: String,
    /// A data set follows.
    pub has_data_set: bool,
    /// Every element, for what one service alone needs.
    pub set: CommandSet,
}

/// A response of the node to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response<'d> {
    pub status: Status,
    /// Elements of VR US that only this operation's response has: Action Type ID, numbers of sub-operations.
    pub numbers: Vec<(Tag, u16)>,
    /// The data set that follows, encoded in the presentation context's transfer syntax.
    pub data_set: Option<&'d [u8]>,
}

impl From<Status> for Response<'_> {
    fn from(status: Status) -> Self {
        Response { status, numbers: Vec::new(), data_set: None }
    }
}

impl Request {
    /// The command set of a response, with this request's own message id and UIDs.
    pub fn response(&self, response: &Response<'_>) -> Vec<u8> {
        let mut set = NewCommandSet::response(self.operation)
            .uid(tags::AFFECTED_SOP_CLASS_UID, &self.sop_class_uid)
            .number(tags::MESSAGE_ID_BEING_RESPONDED_TO, self.message_id)
            .number(tags::STATUS, response.status.code)
            .text(tags::ERROR_COMMENT, &response.status.error_comment())
            .uid(tags::AFFECTED_SOP_INSTANCE_UID, &self.sop_instance_uid);
        for (tag, number) in &response.numbers {
            set = set.number(*tag, *number);
        }
        set.encode(response.data_set.is_some())
    }
}

/// A response of the peer to a request of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub operation: Operation,
    /// Message ID Being Responded To (0000,0120).
    pub message_id: u16,
    /// Status (0000,0900).
    pub status: u16,
    /// A data set follows.
    pub has_data_set: bool,
    pub set: CommandSet,
    /// The data set, once it has come.
    pub data_set: Vec<u8>,
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

    fn request(bytes: Vec<u8>) -> Request {
        match Message::parse(bytes) {
            Ok(Message::Request(request)) => request,
            other => panic!("not a request: {other:?}"),
        }
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
        let request = request(store_request(4711));
        assert!(request.has_data_set);
        let response = read(&request.response(&Status::new(Status::OUT_OF_RESOURCES, "the disk is full").into()));
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
        assert!(!request(bytes).response(&Status::success().into()).is_empty());
        let claim = [&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0x7f][..], &[0; 40]].concat();
        assert!(matches!(Message::parse(claim), Err(CommandError::Unreadable(_))));
    }

    #[test]
    fn what_the_node_asks_and_answers_can_be_read_back() {
        let asked = NewCommandSet::request(Operation::NEventReport)
            .number(tags::MESSAGE_ID, 9)
            .uid(tags::AFFECTED_SOP_CLASS_UID, "1.2.840.10008.1.20.1")
            .number(tags::EVENT_TYPE_ID, 1)
            .encode(true);
        let asked = request(asked);
        assert_eq!((asked.operation, asked.message_id, asked.has_data_set), (Operation::NEventReport, 9, true));
        assert_eq!(asked.set.number(tags::EVENT_TYPE_ID), Some(1));
        let numbers = vec![(tags::NUMBER_OF_REMAINING_SUBOPERATIONS, 3)];
        let pending = Response { status: Status::new(Status::PENDING, ""), numbers, data_set: Some(b"") };
        let Ok(Message::Reply(reply)) = Message::parse(asked.response(&pending)) else { panic!("no reply") };
        assert_eq!((reply.operation, reply.message_id, reply.status), (Operation::NEventReport, 9, Status::PENDING));
        assert_eq!(reply.set.number(tags::NUMBER_OF_REMAINING_SUBOPERATIONS), Some(3));
        assert!(reply.has_data_set);
    }

    #[test]
    fn a_dimse_n_request_names_what_it_requests() {
        let bytes = NewCommandSet::request(Operation::NAction)
            .number(tags::MESSAGE_ID, 1)
            .uid(tags::REQUESTED_SOP_CLASS_UID, "1.2.840.10008.1.20.1")
            .uid(tags::REQUESTED_SOP_INSTANCE_UID, "1.2.840.10008.1.20.1.1")
            .encode(true);
        let request = request(bytes);
        assert_eq!(request.sop_class_uid, "1.2.840.10008.1.20.1");
        assert_eq!(request.sop_instance_uid, "1.2.840.10008.1.20.1.1");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Message::parse(bytes);
        }

        #[test]
        fn a_damaged_request_is_a_message_or_an_error(at in 0usize..120, byte in any::<u8>()) {
            let mut bytes = store_request(1);
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(Message::Request(request)) = Message::parse(bytes) {
                request.response(&Status::success().into());
            }
        }
    }
}
