//! The header of an object, as the ledger needs it: its identity, and whether it can be triaged.

use std::io;

use dicom_dictionary_std::tags;

use crate::config;
use crate::ledger::{About, Concatenation, NewSlice, SliceFacts, SliceStart};
use crate::triage::{Assessment, Decision, Gate, StatRule};
use triaged_imaging::attributes::{integer, text};
use triaged_imaging::{DicomObject, ObjectHeader, ReadCause, ReadError, most_frames, read_identity, uncounted_frames};

use super::{Announced, Outcome, Sender};

pub struct Header {
    pub study_uid: String,
    pub series_uid: String,
    pub instance_number: Option<i64>,
    pub accession_number: Option<String>,
    pub patient_id: Option<String>,
    pub slices: Vec<NewSlice>,
    pub stat: bool,
    pub about: About,
    pub concatenation: Option<Concatenation>,
    pub images_in_acquisition: Option<i64>,
}

/// Whose an object is, by its data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uids {
    pub study: String,
    /// None where it is absent, or no identity.
    pub series: Option<String>,
    pub sop: Option<String>,
}

/// How an object is read: who is urgent, what is triaged, and what is kept of persons.
pub struct Rules {
    pub stat: StatRule,
    pub gate: Gate,
    pub privacy: config::Privacy,
}

/// Why a file is not taken in.
pub enum Unfit {
    /// The object is wrong: it is set aside. Whose it is, as far as it says.
    Object(Outcome, Option<Uids>),
    /// The node's disk is at fault: the sender keeps the object.
    Disk(io::Error),
}

impl Unfit {
    /// The same with whose the object is by its first bytes, where that is not known.
    pub fn of(self, beginning: impl FnOnce() -> Vec<u8>) -> Unfit {
        match self {
            Unfit::Object(outcome, None) => {
                let header = read_identity(&beginning()).ok();
                Unfit::Object(outcome, header.and_then(|header| uids(&header)))
            }
            known => known,
        }
    }
}

impl From<ReadError> for Unfit {
    /// The path stays out of what the sender is told.
    fn from(error: ReadError) -> Unfit {
        match error.cause {
            ReadCause::Io(error) => Unfit::Disk(error),
            cause => Unfit::Object(Outcome::CannotUnderstand(format!("the data set cannot be read: {cause}")), None),
        }
    }
}

/// Reads the header of an object.
pub fn identify(object: &ObjectHeader, announced: &Announced, sender: &Sender, rules: &Rules) -> Result<Header, Unfit> {
    let mismatch = |why: String| Unfit::Object(Outcome::DoesNotMatch(why), uids(object));
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
        if !is_identity(&uid) {
            return Err(mismatch(format!("the {what} is not 1 to 64 printable characters")));
        }
        Ok(uid)
    };
    let instance_number = object.element_opt(tags::INSTANCE_NUMBER).ok().flatten().and_then(|e| e.to_int::<i64>().ok());
    Ok(Header {
        study_uid: uid(tags::STUDY_INSTANCE_UID, "Study Instance UID")?,
        series_uid: uid(tags::SERIES_INSTANCE_UID, "Series Instance UID")?,
        instance_number,
        accession_number: bounded(text(object, tags::ACCESSION_NUMBER), MOST_OF_IDENTIFIER),
        patient_id: bounded(text(object, tags::PATIENT_ID), MOST_OF_IDENTIFIER),
        slices: slices(object, &rules.gate),
        concatenation: concatenation(object),
        images_in_acquisition: integer(object, tags::IMAGES_IN_ACQUISITION)
            .filter(|images| (1..=MOST_IMAGES).contains(images)),
        about: about(object, &rules.privacy),
        stat: sender.stat || rules.stat.is_stat(&sender.calling_ae, object),
    })
}

/// The UIDs of an object's study and series; none where that of the study is absent, or is no identity.
pub fn uids(object: &ObjectHeader) -> Option<Uids> {
    let uid = |tag| text(object, tag).filter(|uid| is_identity(uid));
    Some(Uids {
        study: uid(tags::STUDY_INSTANCE_UID)?,
        series: uid(tags::SERIES_INSTANCE_UID),
        sop: uid(tags::SOP_INSTANCE_UID),
    })
}

/// Real senders use UIDs that break PS3.5's rules. Up to 64 printable characters are an identity.
pub fn is_identity(uid: &str) -> bool {
    (1..=64).contains(&uid.len()) && uid.bytes().all(|b| b.is_ascii_graphic())
}

/// The whole that an object is a part of: of so many parts as it says, or as its own number counts, where it does not say.
fn concatenation(object: &ObjectHeader) -> Option<Concatenation> {
    let number = |tag| integer(object, tag).filter(|number| (1..=MOST_PARTS).contains(number));
    let total = number(tags::IN_CONCATENATION_TOTAL_NUMBER).max(number(tags::IN_CONCATENATION_NUMBER))?;
    Some(Concatenation { uid: text(object, tags::CONCATENATION_UID).filter(|uid| is_identity(uid))?, total })
}

/// More images of an acquisition are not believed.
const MOST_IMAGES: i64 = 100_000;

/// More parts of a concatenation are not believed (US).
const MOST_PARTS: i64 = 0xFFFF;

/// One slice per frame; a single one where the object cannot be triaged at all.
fn slices(object: &ObjectHeader, gate: &Gate) -> Vec<NewSlice> {
    let mut slices: Vec<NewSlice> = gate.assess(object, Some(most_frames(object))).into_iter().map(slice).collect();
    // What is of no interest may come first: a localizer.
    let first = slices.iter_mut().find(|slice| slice.start == SliceStart::Queued);
    if let (Some(first), Some(more)) = (first, uncounted_frames(object)) {
        first.facts.lacking = Some(format!(
            "an object has pixel data of {more} more frames than Number of Frames says, which are not read"
        ));
    }
    slices
}

fn slice(assessment: Assessment) -> NewSlice {
    let Assessment { decision, doubts, is_substitute, plane } = assessment;
    let (start, head_check) = match decision {
        Decision::Triage => (SliceStart::Queued, None),
        Decision::Look(claimed) => (SliceStart::Queued, Some(claimed)),
        Decision::Out(reason) => (SliceStart::Ineligible(reason), None),
    };
    // A head by its pixels, whatever the header says, is still to be marked.
    let doubts: Vec<String> = doubts.into_iter().chain(head_check.clone()).collect();
    let facts = SliceFacts {
        position: plane.place,
        location: plane.location,
        orientation: plane.stack(),
        thickness: plane.thickness,
        doubts: (!doubts.is_empty()).then(|| doubts.join("; ")),
        is_substitute,
        head_check,
        lacking: None,
    };
    NewSlice { start, facts }
}

/// No attribute is kept longer than this, in characters.
const MOST_CHARACTERS: usize = 256;

/// Nor an identifier. A patient ID (LO) has at most 64 characters, an accession number (SH) 16 (PS3.5 section 6.2); systems write longer
/// ones of those, which must still be found.
const MOST_OF_IDENTIFIER: usize = 64;

/// The mark of a value that was cut.
const CUT: char = '…';

/// A value of at most so many characters. One that is cut says so at its end.
fn bounded(value: Option<String>, most: usize) -> Option<String> {
    let value = value?;
    let Some((end, _)) = value.char_indices().nth(most) else { return Some(value) };
    metrics::counter!("triaged_attributes_cut_total").increment(1);
    let kept = value[..end].char_indices().next_back().map_or(0, |(last, _)| last);
    Some(format!("{}{CUT}", &value[..kept]))
}

fn about(object: &DicomObject, privacy: &config::Privacy) -> About {
    let kept = |keep: bool, tag| bounded(keep.then(|| text(object, tag)).flatten(), MOST_CHARACTERS);
    About {
        patient_name: kept(privacy.keep_patient_name, tags::PATIENT_NAME),
        birth_date: kept(privacy.keep_birth_date, tags::PATIENT_BIRTH_DATE),
        sex: kept(privacy.keep_sex, tags::PATIENT_SEX),
        referring_physician: kept(privacy.keep_referring_physician, tags::REFERRING_PHYSICIAN_NAME),
        study_date: kept(privacy.keep_study_date, tags::STUDY_DATE),
        study_description: kept(privacy.keep_descriptions, tags::STUDY_DESCRIPTION),
        modality: kept(true, tags::MODALITY),
        station_name: kept(privacy.keep_station, tags::STATION_NAME),
        institution_name: kept(privacy.keep_station, tags::INSTITUTION_NAME),
        series_description: kept(privacy.keep_descriptions, tags::SERIES_DESCRIPTION),
        kernel: kept(true, tags::CONVOLUTION_KERNEL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_does_not_say_of_how_many_tells_that_those_before_it_are_parts_too() {
        use dicom_core::{DataElement, VR};
        let part = |number: Option<&'static str>, total: Option<&'static str>| {
            let spec = triaged_imaging::phantom::PhantomSpec { slices: 1, lesion: None, seed: 1 };
            let mut object = triaged_imaging::phantom::series(&spec).next().expect("a slice");
            object.put(DataElement::new(tags::CONCATENATION_UID, VR::UI, "1.2.3"));
            let numbers = [(tags::IN_CONCATENATION_NUMBER, number), (tags::IN_CONCATENATION_TOTAL_NUMBER, total)];
            for (tag, value) in numbers {
                if let Some(value) = value.map(|value| value.parse::<u16>().expect("a number")) {
                    object.put(DataElement::new(tag, VR::US, dicom_core::PrimitiveValue::from(value)));
                }
            }
            let mut bytes = Vec::new();
            object.write_all(&mut bytes).expect("written");
            let header = triaged_imaging::read_header_bytes(&bytes).expect("a header");
            concatenation(&header).map(|concatenation| concatenation.total)
        };
        assert_eq!(part(Some("2"), Some("3")), Some(3));
        assert_eq!(part(Some("3"), None), Some(3));
        assert_eq!(part(None, Some("2")), Some(2));
        assert_eq!(part(None, None), None);
    }

    #[test]
    fn a_value_that_is_too_long_is_cut_between_characters_and_marked() {
        let cut = |value: &str| bounded(Some(value.to_owned()), 4).unwrap();
        assert_eq!([cut(""), cut("éa☃b")], ["", "éa☃b"]);
        assert_eq!([cut("éa☃bc"), cut(&"x".repeat(1 << 20))], ["éa☃…", "xxx…"]);
    }
}
