//! Between the archive and the ledger: a received file becomes a recorded instance, a duplicate, or is set aside.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use dicom_dictionary_std::tags;
use tokio::sync::Semaphore;
use tracing::warn;

use crate::archive::{Archive, Received};
use crate::dimse::{Activity, Status};
use crate::imaging::attributes::text;
use crate::imaging::{self, DicomObject, ReadCause};
use crate::ledger::{Ledger, NewInstance, NewSlice, Quarantined, Stored, now};
use crate::triage::{Eligibility, StatRule, assess};

/// Takes in what associations receive. Cheap to clone.
#[derive(Clone)]
pub struct Intake {
    archive: Archive,
    ledger: Ledger,
    activity: Activity,
    stat: Arc<StatRule>,
    /// Turns at reading a header: a hostile one inflates to hundreds of megabytes, which must not come once an association.
    reading: Arc<Semaphore>,
}

/// Where an object came from, and what its sender says it is.
#[derive(Debug, Clone)]
pub struct Source {
    pub sop_class_uid: String,
    pub sop_instance_uid: String,
    pub transfer_syntax: String,
    pub calling_ae: String,
    pub peer: IpAddr,
    pub association: u64,
}

/// What the ledger needs of the data set.
struct Header {
    study_uid: String,
    series_uid: String,
    instance_number: Option<i64>,
    accession_number: Option<String>,
    patient_id: Option<String>,
    slices: Vec<NewSlice>,
    stat: bool,
}

/// What became of the file.
enum Placed {
    Kept {
        path: String,
        header: Header,
    },
    /// Refused with this status once the quarantine row is written.
    SetAside {
        path: String,
        status: Status,
    },
}

impl Intake {
    pub fn new(archive: Archive, ledger: Ledger, activity: Activity, stat: StatRule) -> Intake {
        let turns = std::thread::available_parallelism().map_or(2, |cores| cores.get().min(4));
        Intake { archive, ledger, activity, stat: Arc::new(stat), reading: Arc::new(Semaphore::new(turns)) }
    }

    pub fn archive(&self) -> &Archive {
        &self.archive
    }

    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Puts the file in its place and records it; success only when both are on disk (promise 1).
    pub async fn take(&self, received: Received, source: Source) -> Status {
        let received_at = now();
        let (digest, size) = (received.digest.clone(), received.size);
        let archive = self.archive.clone();
        let activity = self.activity.clone();
        let about = source.clone();
        let stat = self.stat.clone();
        let turn = self.reading.clone().acquire_owned().await.expect("the semaphore is never closed");
        let placed = tokio::task::spawn_blocking(move || {
            let header = read(received.path(), &about, &stat);
            drop(turn);
            place(&archive, &activity, received, header, &about)
        });
        let placed = match placed.await {
            Ok(Ok(placed)) => placed,
            Ok(Err(error)) => return not_stored(error),
            Err(panic) => return not_stored(panic),
        };
        let quarantined = |path: String, study_uid: Option<String>, reason: String| Quarantined {
            sop_uid: source.sop_instance_uid.clone(),
            study_uid,
            digest: digest.clone(),
            path,
            reason,
            calling_ae: source.calling_ae.clone(),
            peer: source.peer.to_string(),
            received_at: received_at.clone(),
        };
        let (path, header) = match placed {
            Placed::Kept { path, header } => (path, header),
            Placed::SetAside { path, status } => {
                return match self.ledger.quarantine(quarantined(path, None, status.comment.clone())).await {
                    Ok(_) => status,
                    Err(error) => not_stored(error),
                };
            }
        };
        let study_uid = header.study_uid.clone();
        let instance = NewInstance {
            sop_uid: source.sop_instance_uid.clone(),
            sop_class_uid: source.sop_class_uid.clone(),
            transfer_syntax: source.transfer_syntax.clone(),
            study_uid: header.study_uid,
            series_uid: header.series_uid,
            instance_number: header.instance_number,
            accession_number: header.accession_number,
            patient_id: header.patient_id,
            digest: digest.clone(),
            path: path.clone(),
            size,
            calling_ae: source.calling_ae.clone(),
            peer: source.peer.to_string(),
            received_at: received_at.clone(),
            slices: header.slices,
            stat: header.stat,
        };
        match self.ledger.store(instance).await {
            // The same bytes at the same place: the file that is there was just written again.
            Ok(Stored::New | Stored::Duplicate) => Status::success(),
            Ok(Stored::Conflict { kept_digest }) => {
                let reason = format!(
                    "the same SOP Instance UID was received before with other content (SHA-256 {kept_digest}); the first is kept"
                );
                warn!(sop_instance = source.sop_instance_uid, calling_ae = source.calling_ae, "{reason}");
                let archive = self.archive.clone();
                let moved = tokio::task::spawn_blocking(move || archive.move_to_quarantine(&path)).await;
                let to = match moved {
                    Ok(Ok(to)) => to,
                    Ok(Err(error)) => return not_stored(error),
                    Err(panic) => return not_stored(panic),
                };
                match self.ledger.quarantine(quarantined(to, Some(study_uid), reason)).await {
                    Ok(_) => Status::success(),
                    Err(error) => not_stored(error),
                }
            }
            Err(error) => not_stored(error),
        }
    }
}

fn not_stored(why: impl std::fmt::Display) -> Status {
    Status::new(Status::OUT_OF_RESOURCES, format!("could not be stored: {why}"))
}

fn place(
    archive: &Archive,
    activity: &Activity,
    received: Received,
    header: Result<Header, Unfit>,
    source: &Source,
) -> io::Result<Placed> {
    let sop_uid = &source.sop_instance_uid;
    match header {
        Ok(header) => {
            activity.touch(&header.study_uid, source.association);
            let path = archive.keep(received, &header.study_uid, sop_uid)?;
            Ok(Placed::Kept { path, header })
        }
        Err(Unfit::Disk(error)) => Err(error),
        Err(Unfit::Object(status)) => Ok(Placed::SetAside { path: archive.quarantine(received, sop_uid)?, status }),
    }
}

/// Why a file is not taken in.
enum Unfit {
    /// The object is wrong: it is set aside.
    Object(Status),
    /// Our disk is: the sender keeps the object.
    Disk(io::Error),
}

impl Unfit {
    /// The path stays out of what the peer is told.
    fn from_cause(cause: ReadCause) -> Unfit {
        match cause {
            ReadCause::Io(error) => Unfit::Disk(error),
            cause => {
                Unfit::Object(Status::new(Status::CANNOT_UNDERSTAND, format!("the data set cannot be read: {cause}")))
            }
        }
    }
}

/// Reads what identifies the object, and whether it can be triaged.
fn read(path: &Path, source: &Source, stat: &StatRule) -> Result<Header, Unfit> {
    let object = imaging::read_header(path).map_err(|error| Unfit::from_cause(error.cause))?;
    let mismatch = |what: &str| Unfit::Object(Status::new(Status::DATA_SET_DOES_NOT_MATCH, what.to_owned()));
    // RSNA files have no SOP Class UID; only one that is there and says otherwise is wrong.
    for (tag, said, what) in [
        (tags::SOP_INSTANCE_UID, &source.sop_instance_uid, "the data set's SOP Instance UID is not the command's"),
        (tags::SOP_CLASS_UID, &source.sop_class_uid, "the data set's SOP Class UID is not the command's"),
    ] {
        if text(&object, tag).is_some_and(|found| found != *said) {
            return Err(mismatch(what));
        }
    }
    let uid = |tag, what: &str| {
        let uid = text(&object, tag).ok_or_else(|| mismatch(&format!("the data set has no {what}")))?;
        if uid.len() > 64 || !uid.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(mismatch(&format!("the {what} is not 1 to 64 printable characters")));
        }
        Ok(uid)
    };
    let instance_number = object.element_opt(tags::INSTANCE_NUMBER).ok().flatten().and_then(|e| e.to_int::<i64>().ok());
    Ok(Header {
        study_uid: uid(tags::STUDY_INSTANCE_UID, "Study Instance UID")?,
        series_uid: uid(tags::SERIES_INSTANCE_UID, "Series Instance UID")?,
        instance_number,
        accession_number: text(&object, tags::ACCESSION_NUMBER),
        patient_id: text(&object, tags::PATIENT_ID),
        slices: slices(&object),
        stat: stat.is_stat(&source.calling_ae, &object),
    })
}

/// A slice a frame; one alone where the object cannot be triaged at all.
fn slices(object: &DicomObject) -> Vec<NewSlice> {
    match assess(object) {
        Eligibility::Ineligible(reason) => vec![NewSlice::Ineligible(reason)],
        Eligibility::Eligible => match imaging::frame_count(object) {
            Ok(frames) => vec![NewSlice::Queued; frames.max(1) as usize],
            Err(error) => vec![NewSlice::Ineligible(error.to_string())],
        },
    }
}
