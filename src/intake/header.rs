//! The header of an object, as the ledger needs it: its identity, and whether it can be triaged.

use std::io;

use dicom_dictionary_std::tags;

use crate::ledger::NewSlice;
use crate::triage::{Eligibility, StatRule, assess};
use triaged_imaging::attributes::text;
use triaged_imaging::{self as imaging, DicomObject, ReadCause, ReadError};

use super::{Announced, Outcome, Sender};

pub struct Header {
    pub study_uid: String,
    pub series_uid: String,
    pub instance_number: Option<i64>,
    pub accession_number: Option<String>,
    pub patient_id: Option<String>,
    pub slices: Vec<NewSlice>,
    pub stat: bool,
}

/// Why a file is not taken in.
pub enum Unfit {
    /// The object is wrong: it is set aside.
    Object(Outcome),
    /// The node's disk is at fault: the sender keeps the object.
    Disk(io::Error),
}

impl From<ReadError> for Unfit {
    /// The path stays out of what the sender is told.
    fn from(error: ReadError) -> Unfit {
        match error.cause {
            ReadCause::Io(error) => Unfit::Disk(error),
            cause => Unfit::Object(Outcome::CannotUnderstand(format!("the data set cannot be read: {cause}"))),
        }
    }
}

/// Reads the header of an object.
pub fn identify(
    object: &DicomObject,
    announced: &Announced,
    sender: &Sender,
    stat: &StatRule,
) -> Result<Header, Unfit> {
    let mismatch = |why: String| Unfit::Object(Outcome::DoesNotMatch(why));
    // RSNA files have no SOP Class UID; only one that is there and says otherwise is wrong.
    for (tag, said, what) in [
        (tags::SOP_INSTANCE_UID, &announced.sop_instance_uid, "SOP Instance UID"),
        (tags::SOP_CLASS_UID, &announced.sop_class_uid, "SOP Class UID"),
    ] {
        if text(object, tag).is_some_and(|found| found != *said) {
            return Err(mismatch(format!("the data set's {what} is not the command's")));
        }
    }
    let uid = |tag, what: &str| {
        let uid = text(object, tag).ok_or_else(|| mismatch(format!("the data set has no {what}")))?;
        if uid.len() > 64 || !uid.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(mismatch(format!("the {what} is not 1 to 64 printable characters")));
        }
        Ok(uid)
    };
    let instance_number = object.element_opt(tags::INSTANCE_NUMBER).ok().flatten().and_then(|e| e.to_int::<i64>().ok());
    Ok(Header {
        study_uid: uid(tags::STUDY_INSTANCE_UID, "Study Instance UID")?,
        series_uid: uid(tags::SERIES_INSTANCE_UID, "Series Instance UID")?,
        instance_number,
        accession_number: text(object, tags::ACCESSION_NUMBER),
        patient_id: text(object, tags::PATIENT_ID),
        slices: slices(object),
        stat: stat.is_stat(&sender.calling_ae, object),
    })
}

/// One slice per frame; a single one where the object cannot be triaged at all.
fn slices(object: &DicomObject) -> Vec<NewSlice> {
    match assess(object) {
        Eligibility::Ineligible(reason) => vec![NewSlice::Ineligible(reason)],
        Eligibility::Eligible => match imaging::frame_count(object) {
            Ok(frames) => vec![NewSlice::Queued; frames.max(1) as usize],
            Err(error) => vec![NewSlice::Ineligible(error.to_string())],
        },
    }
}
