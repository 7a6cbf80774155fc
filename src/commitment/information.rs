//! The data sets of a request and a report of storage commitment (PS3.4 tables J.3-1 and J.3-2).

use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_encoding::TransferSyntaxIndex;
use dicom_object::InMemDicomObject;
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;
use serde::{Deserialize, Serialize};
use triaged_imaging::attributes::{item, text};
use triaged_imaging::{DicomObject, read_bytes};

use crate::archive::Meta;

/// Instances that one request may name.
pub const MOST_REFERENCES: usize = 50_000;

/// An instance that is referenced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    pub sop_class_uid: String,
    pub sop_instance_uid: String,
}

/// Failure Reason (0008,1197) of an instance (PS3.3 C.14.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum FailureReason {
    /// Its file cannot be read or is not what was received, or other content under its UID is set aside.
    ProcessingFailure = 0x0110,
    /// It never came, or retention has removed it.
    NoSuchInstance = 0x0112,
    /// It is of another SOP class.
    ClassInstanceConflict = 0x0119,
    /// Retention is due to remove it.
    ResourceLimitation = 0x0213,
}

/// A requestor's question (PS3.4 table J.3-1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub transaction_uid: String,
    pub references: Vec<Reference>,
}

/// Reads a data set with the reader that bounds what a sender states; it reads files, so one is made.
fn read(data_set: &[u8], transfer_syntax: &str) -> Result<DicomObject, String> {
    let meta = Meta {
        sop_class_uid: uids::STORAGE_COMMITMENT_PUSH_MODEL.into(),
        sop_instance_uid: uids::STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE.into(),
        transfer_syntax: transfer_syntax.into(),
        source_ae_title: String::new(),
    };
    let head = meta.head().map_err(|error| error.to_string())?;
    read_bytes(&[&head, data_set].concat()).map_err(|error| error.cause.to_string())
}

/// The node's answer: every instance that was asked about is in one of the two.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    pub transaction_uid: String,
    pub committed: Vec<Reference>,
    pub failed: Vec<(Reference, FailureReason)>,
}

impl Request {
    /// Reads the data set of an N-ACTION request.
    ///
    /// # Errors
    /// The error says which attribute is missing or wrong, without patient data.
    pub fn read(data_set: &[u8], transfer_syntax: &str) -> Result<Request, String> {
        let object = read(data_set, transfer_syntax).map_err(|error| format!("it cannot be read: {error}"))?;
        let transaction_uid = text(&object, tags::TRANSACTION_UID).ok_or("it has no Transaction UID (0008,1195)")?;
        if transaction_uid.len() > 64 || !transaction_uid.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("its Transaction UID is not 1 to 64 printable characters".into());
        }
        let mut references = Vec::new();
        while let Some(item) = item(&object, tags::REFERENCED_SOP_SEQUENCE, references.len()) {
            if references.len() == MOST_REFERENCES {
                return Err(format!("it names more than {MOST_REFERENCES} instances"));
            }
            let uid = |tag, what| text(item, tag).ok_or(format!("an item has no {what}"));
            references.push(Reference {
                sop_class_uid: uid(tags::REFERENCED_SOP_CLASS_UID, "Referenced SOP Class UID (0008,1150)")?,
                sop_instance_uid: uid(tags::REFERENCED_SOP_INSTANCE_UID, "Referenced SOP Instance UID (0008,1155)")?,
            });
        }
        match references.is_empty() {
            true => Err("its Referenced SOP Sequence (0008,1199) is missing or empty".into()),
            false => Ok(Request { transaction_uid, references }),
        }
    }
}

impl Report {
    /// Event Type ID (PS3.4 J.3.3): 1, all are committed; 2, failures exist.
    pub fn event_type(&self) -> u16 {
        if self.failed.is_empty() { 1 } else { 2 }
    }

    /// The data set of the N-EVENT-REPORT request.
    ///
    /// # Errors
    /// The transfer syntax is unknown or cannot be written.
    pub fn write(&self, transfer_syntax: &str) -> Result<Vec<u8>, String> {
        let syntax = TransferSyntaxRegistry.get(transfer_syntax).ok_or("the transfer syntax is unknown")?;
        let uid = |tag, uid: &str| DataElement::new(tag, VR::UI, PrimitiveValue::from(uid));
        let pair = |reference: &Reference| {
            InMemDicomObject::from_element_iter([
                uid(tags::REFERENCED_SOP_CLASS_UID, &reference.sop_class_uid),
                uid(tags::REFERENCED_SOP_INSTANCE_UID, &reference.sop_instance_uid),
            ])
        };
        let mut object = InMemDicomObject::from_element_iter([uid(tags::TRANSACTION_UID, &self.transaction_uid)]);
        if !self.committed.is_empty() {
            let items: Vec<InMemDicomObject> = self.committed.iter().map(pair).collect();
            object.put(DataElement::new(tags::REFERENCED_SOP_SEQUENCE, VR::SQ, DataSetSequence::from(items)));
        }
        if !self.failed.is_empty() {
            let failed = |(reference, reason): &(Reference, FailureReason)| {
                let mut item = pair(reference);
                item.put(DataElement::new(tags::FAILURE_REASON, VR::US, PrimitiveValue::from(*reason as u16)));
                item
            };
            let items: Vec<InMemDicomObject> = self.failed.iter().map(failed).collect();
            object.put(DataElement::new(tags::FAILED_SOP_SEQUENCE, VR::SQ, DataSetSequence::from(items)));
        }
        let mut bytes = Vec::new();
        object.write_dataset_with_ts(&mut bytes, syntax).map_err(|error| error.to_string())?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reference(instance: &str) -> Reference {
        Reference { sop_class_uid: uids::CT_IMAGE_STORAGE.into(), sop_instance_uid: instance.into() }
    }

    #[test]
    fn a_report_names_every_instance_in_every_syntax() {
        let failed = vec![(reference("1.2.3"), FailureReason::NoSuchInstance)];
        let report = Report { transaction_uid: "1.9".into(), committed: vec![reference("1.2")], failed };
        assert_eq!(report.event_type(), 2);
        for syntax in [uids::IMPLICIT_VR_LITTLE_ENDIAN, uids::EXPLICIT_VR_LITTLE_ENDIAN, "1.2.840.10008.1.2.2"] {
            let object = super::read(&report.write(syntax).unwrap(), syntax).unwrap();
            let failed = item(&object, tags::FAILED_SOP_SEQUENCE, 0).unwrap();
            assert_eq!(text(failed, tags::REFERENCED_SOP_INSTANCE_UID).as_deref(), Some("1.2.3"), "{syntax}");
            assert_eq!(failed.element(tags::FAILURE_REASON).unwrap().to_int::<u16>().unwrap(), 0x0112, "{syntax}");
            // A request has the same form as the committed part of a report.
            let request = Request::read(&report.write(syntax).unwrap(), syntax).unwrap();
            assert_eq!(request, Request { transaction_uid: "1.9".into(), references: vec![reference("1.2")] });
        }
        assert_eq!(Report { failed: Vec::new(), ..report }.event_type(), 1);
    }

    #[test]
    fn a_request_that_lacks_something_is_named() {
        let read = |report: &Report| Request::read(&report.write("1.2.840.10008.1.2").unwrap(), "1.2.840.10008.1.2");
        let none = Report { transaction_uid: "1.9".into(), ..Report::default() };
        assert!(read(&none).unwrap_err().contains("0008,1199"));
        let unnamed = Report { committed: vec![reference("1")], ..Report::default() };
        assert!(read(&unnamed).unwrap_err().contains("0008,1195"));
        let long = Report { transaction_uid: "1".repeat(66), committed: vec![reference("1")], ..Report::default() };
        assert!(read(&long).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_request_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Request::read(&bytes, "1.2.840.10008.1.2");
            let _ = Request::read(&bytes, "1.2.840.10008.1.2.1");
        }
    }
}
