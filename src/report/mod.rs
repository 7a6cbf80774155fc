//! Documents about a verdict that a PACS keeps beside the images: a structured report and a key image.
//!
//! They are made when they are asked for, of the verdict's row, of the slices as they were when it was given, and of the header of
//! one of them. So a document that is made again is the same instance with the same content, as long as that file is there.
//! Another verdict is another instance in the same series; its report names the one before (Predecessor Documents Sequence).

mod algorithm;
mod codes;
mod content;
mod context;
mod key_image;
mod picture;
mod regions;
mod structured;
mod uids;
mod words;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use dicom_core::VR;
use dicom_dictionary_std::{tags, uids as classes};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use triaged_imaging::read_header;

use crate::decoding::{Frames, NoFrame};
use crate::ledger::{EvidenceSlice, LedgerError, Reader, ReportedVerdict, WorklistRow};
use crate::{IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME};
use content::{plain, put_text};

/// (0008,0070) of documents.
const MANUFACTURER: &str = "triaged";

/// Slices that a document points at.
const TOP_SLICES: usize = 3;

/// Files whose header is tried before patient and study are taken from the ledger.
const MOST_HEADERS: usize = 8;

/// The documents that a verdict can become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Comprehensive 3D SR, TID 1500.
    Report,
    /// Secondary Capture.
    KeyImage,
}

impl Kind {
    /// As in the ledger and in file names.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Report => "report",
            Kind::KeyImage => "key-image",
        }
    }
}

/// Which verdict of a study.
#[derive(Debug, Clone)]
pub enum Which {
    Latest,
    /// The last verdict of a revision.
    Revision(i64),
    /// The verdict that was given at this time.
    DecidedAt(String),
}

/// A document, ready to be kept or sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    pub kind: Kind,
    pub sop_class_uid: String,
    pub sop_instance_uid: String,
    /// A Part 10 file in Explicit VR Little Endian.
    pub file: Vec<u8>,
}

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// There is nothing to make it of: no such study, no verdict yet, no slice to show.
    #[error("{0}")]
    Unavailable(String),
    /// It may be made another time.
    #[error("{0}")]
    NotNow(String),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl From<NoFrame> for ReportError {
    fn from(error: NoFrame) -> ReportError {
        let why = format!("there is no key image of the most suspicious slice: {error}");
        if error.is_passing() { ReportError::NotNow(why) } else { ReportError::Unavailable(why) }
    }
}

/// Makes documents.
#[derive(Debug, Clone)]
pub struct Reports {
    data_dir: PathBuf,
    /// The meaning of a positive result, as in the model card.
    finding: String,
    /// Time zone of dates and times, where the images name no other.
    zone: TimeZone,
    /// Decodes the slice of a key image.
    frames: Frames,
    /// Held by whoever has an image's header in memory: a hostile one takes hundreds of MiB.
    header: Arc<Mutex<()>>,
}

/// Everything that a document is made of.
struct Basis<'a> {
    data_dir: &'a Path,
    finding: &'a str,
    zone: &'a TimeZone,
    frames: &'a Frames,
    /// Patient and study, to begin a document with.
    context: InMemDicomObject,
    verdict: &'a ReportedVerdict,
    /// The study's first verdict, and the one before this.
    first: &'a ReportedVerdict,
    predecessor: Option<&'a ReportedVerdict>,
    /// An earlier verdict flagged the study, and a machine never retracts.
    was_flagged: bool,
    /// Counts the study's verdicts from 1.
    ordinal: usize,
    slices: &'a [EvidenceSlice],
}

impl Reports {
    /// `finding` is the model card's; `zone` a site's, such as `Europe/Berlin`; `frames` decodes the slices of key images.
    pub fn new(data_dir: &Path, finding: &str, zone: TimeZone, frames: Frames) -> Reports {
        Reports { data_dir: data_dir.into(), finding: finding.into(), zone, frames, header: Arc::default() }
    }

    /// Makes a document. Blocks.
    ///
    /// # Errors
    /// [`ReportError::Unavailable`] where there is nothing to make it of, [`ReportError::NotNow`] where that may change.
    pub fn make(&self, ledger: &Reader, study_uid: &str, which: &Which, kind: Kind) -> Result<Document, ReportError> {
        let unavailable = |why: &str| ReportError::Unavailable(why.to_owned());
        let study = ledger.study(study_uid)?.ok_or_else(|| unavailable("there is no study with this UID"))?;
        let verdicts = ledger.reported_verdicts(study_uid)?;
        let place = match which {
            Which::Latest => verdicts.len().checked_sub(1),
            Which::Revision(revision) => verdicts.iter().rposition(|verdict| verdict.revision == *revision),
            Which::DecidedAt(time) => verdicts.iter().rposition(|verdict| verdict.decided_at == *time),
        };
        let place = place.ok_or_else(|| match verdicts.is_empty() {
            true => unavailable("the study has no verdict yet"),
            false => unavailable("the study has no such verdict"),
        })?;
        let verdict = &verdicts[place];
        let slices = ledger.evidence(verdict)?;
        let context = self.context(&study, &slices);
        let basis = Basis {
            data_dir: &self.data_dir,
            finding: &self.finding,
            zone: &self.zone,
            frames: &self.frames,
            context,
            verdict,
            first: &verdicts[0],
            predecessor: place.checked_sub(1).map(|before| &verdicts[before]),
            was_flagged: verdicts[..place].iter().any(|earlier| earlier.verdict == "flagged"),
            ordinal: place + 1,
            slices: &slices,
        };
        let object = match kind {
            Kind::Report => structured::report(&basis),
            Kind::KeyImage => key_image::key_image(&basis)?,
        };
        Ok(document(kind, object))
    }

    /// Patient and study, from an image where one can be read.
    fn context(&self, study: &WorklistRow, slices: &[EvidenceSlice]) -> InMemDicomObject {
        let _turn = self.header.lock().unwrap_or_else(PoisonError::into_inner);
        let image = self.header(slices);
        let mut object = match &image {
            Some(image) => context::of_image(image, &study.study_uid),
            None => context::of_ledger(study),
        };
        context::put_procedure(&mut object, image.as_ref());
        object
    }

    /// The header of the first file that can be read, scored slices first.
    fn header(&self, slices: &[EvidenceSlice]) -> Option<InMemDicomObject> {
        let scored = slices.iter().filter(|slice| slice.probability.is_some());
        let others = slices.iter().filter(|slice| slice.probability.is_none());
        let paths = scored.chain(others).filter_map(|slice| slice.path.as_ref());
        paths.take(MOST_HEADERS).find_map(|path| {
            let object = read_header(self.data_dir.join(path)).ok()?;
            Some(object.object.into_inner())
        })
    }
}

impl Basis<'_> {
    /// Writes the attributes that all documents have: about themselves and about the program that made them.
    fn put_common(&self, object: &mut InMemDicomObject, sop_class: &str, sop_instance: &str) {
        let moment = Moment::of(&self.verdict.decided_at, self.zone);
        put_text(object, tags::SOP_CLASS_UID, VR::UI, sop_class);
        put_text(object, tags::SOP_INSTANCE_UID, VR::UI, sop_instance);
        put_text(object, tags::INSTANCE_CREATION_DATE, VR::DA, &moment.date);
        put_text(object, tags::INSTANCE_CREATION_TIME, VR::TM, &moment.time);
        put_text(object, tags::SERIES_DATE, VR::DA, &moment.date);
        put_text(object, tags::SERIES_TIME, VR::TM, &moment.time);
        put_text(object, tags::MANUFACTURER, VR::LO, MANUFACTURER);
        put_text(object, tags::MANUFACTURER_MODEL_NAME, VR::LO, &short(&self.verdict.model));
        put_text(object, tags::DEVICE_SERIAL_NUMBER, VR::LO, &short(&self.verdict.model_sha256));
        put_text(object, tags::SOFTWARE_VERSIONS, VR::LO, &short(&self.verdict.software));
    }

    /// The slices with the highest probabilities, highest first; a few.
    fn top(&self) -> Vec<&EvidenceSlice> {
        let mut scored: Vec<&EvidenceSlice> = self.slices.iter().filter(|slice| slice.probability.is_some()).collect();
        scored.sort_by(|a, b| b.probability.unwrap_or(0.0).total_cmp(&a.probability.unwrap_or(0.0)));
        scored.truncate(TOP_SLICES);
        scored
    }
}

/// A value of VR LO.
fn short(text: &str) -> String {
    plain(text).replace('\\', "/").chars().take(64).collect()
}

/// A moment of the ledger as documents write it, in local time.
struct Moment {
    date: String,
    time: String,
    /// With its offset from UTC.
    readable: String,
}

impl Moment {
    /// A text that is no time counts as the beginning of time: the ledger writes none such.
    fn of(time: &str, zone: &TimeZone) -> Moment {
        let local = time.parse::<Timestamp>().unwrap_or_default().to_zoned_datetime(zone.clone());
        Moment {
            date: local.strftime("%Y%m%d").to_string(),
            time: local.strftime("%H%M%S").to_string(),
            readable: local.strftime("%Y-%m-%d %H:%M:%S %:z").to_string(),
        }
    }
}

fn document(kind: Kind, object: InMemDicomObject) -> Document {
    let uid = |tag| {
        let element = object.get(tag).expect("every document has its class and its instance");
        element.to_str().expect("they were written as text").into_owned()
    };
    let (sop_class_uid, sop_instance_uid) = (uid(tags::SOP_CLASS_UID), uid(tags::SOP_INSTANCE_UID));
    let meta = FileMetaTableBuilder::new()
        .transfer_syntax(classes::EXPLICIT_VR_LITTLE_ENDIAN)
        .media_storage_sop_class_uid(&sop_class_uid)
        .media_storage_sop_instance_uid(&sop_instance_uid)
        .implementation_class_uid(IMPLEMENTATION_CLASS_UID)
        .implementation_version_name(IMPLEMENTATION_VERSION_NAME);
    let file = object.with_exact_meta(meta.build().expect("all that a meta table needs was given"));
    let mut bytes = Vec::new();
    file.write_all(&mut bytes).expect("memory takes every byte, and the transfer syntax has an encoder");
    Document { kind, sop_class_uid, sop_instance_uid, file: bytes }
}
