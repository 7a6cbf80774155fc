//! Between the archive and the ledger: a received file becomes a recorded instance, a duplicate, or is set aside.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use dicom_dictionary_std::tags;
use tokio::runtime::Handle;
use tokio::sync::{OwnedRwLockReadGuard, Semaphore, oneshot};
use tracing::warn;

use crate::archive::{Archive, Arrived, Incoming, Received};
use crate::dimse::{Activity, Status};
use crate::ledger::{Ledger, NewInstance, NewSlice, Quarantined, Stored, now};
use crate::triage::{Eligibility, StatRule, assess};
use triaged_imaging::attributes::text;
use triaged_imaging::{self as imaging, DicomObject, ReadCause};

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

/// What the blocking part of taking an object in came to.
enum Taken {
    /// The file is in its place, and this is what the ledger says of it.
    Recorded {
        stored: Stored,
        path: String,
        study_uid: String,
    },
    /// The file is in quarantine: refused with this status once its row is written.
    SetAside {
        path: String,
        status: Status,
    },
    Refused(Status),
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

    /// Puts the object in its place and records it; success only when both are on disk (promise 1). `digest` is the data set's
    /// SHA-256, hexadecimal. Returns the memory in which the object was gathered for the next one.
    ///
    /// One blocking thread does all that is done to the file and hands the row to the ledger, whose answer comes back
    /// here: two hand-overs between threads after the last byte, each a chance to wait for a core.
    pub async fn take(&self, arrived: Arrived, digest: String, source: Source) -> (Status, Vec<u8>) {
        let received_at = now();
        let (tell, told) = oneshot::channel();
        let blocking = {
            let (intake, digest, source, received_at) =
                (self.clone(), digest.clone(), source.clone(), received_at.clone());
            move || intake.store(arrived, digest, source, received_at, tell)
        };
        tokio::task::spawn_blocking(blocking);
        match told.await {
            Ok((taken, memory)) => (self.conclude(taken, digest, source, received_at).await, memory),
            Err(_) => (not_stored("the ledger cannot be written, or taking the object in panicked"), Vec::new()),
        }
    }

    /// Reads, writes, syncs and places the file, then hands its row to the ledger. Blocks. `tell` hears the outcome, and gets the
    /// memory back.
    fn store(
        &self,
        arrived: Arrived,
        digest: String,
        source: Source,
        received_at: String,
        tell: oneshot::Sender<(Taken, Vec<u8>)>,
    ) {
        let (placed, size, memory) = self.file(arrived, &digest, &source);
        let taken = match placed {
            Ok(Placed::Kept { path, header, placing }) => {
                let study_uid = header.study_uid.clone();
                let instance = NewInstance {
                    sop_uid: source.sop_instance_uid,
                    sop_class_uid: source.sop_class_uid,
                    transfer_syntax: source.transfer_syntax,
                    study_uid: header.study_uid,
                    series_uid: header.series_uid,
                    instance_number: header.instance_number,
                    accession_number: header.accession_number,
                    patient_id: header.patient_id,
                    digest,
                    path: path.clone(),
                    size,
                    calling_ae: source.calling_ae,
                    peer: source.peer.to_string(),
                    received_at,
                    slices: header.slices,
                    stat: header.stat,
                };
                let then = move |stored| {
                    let taken = match stored {
                        Ok(stored) => Taken::Recorded { stored, path, study_uid },
                        Err(error) => Taken::Refused(not_stored(error)),
                    };
                    drop(placing);
                    let _ = tell.send((taken, memory));
                };
                // Where the ledger is closed, `then` is dropped, and who waits hears that.
                let _ = self.ledger.post_store(instance, then);
                return;
            }
            Ok(Placed::SetAside { path, status }) => Taken::SetAside { path, status },
            Err(error) => Taken::Refused(not_stored(error)),
        };
        let _ = tell.send((taken, memory));
    }

    /// From memory to the object's place, synced at each step: file, then name, then folder. A crash before the rename leaves a
    /// part that the next start removes; after it, a whole file that no row names yet, whose sender sends it again to the same
    /// place. Returns the size of the file too, and the memory.
    fn file(&self, arrived: Arrived, digest: &str, source: &Source) -> (io::Result<Placed>, u64, Vec<u8>) {
        let (begun, memory, header) = match arrived {
            Arrived::Whole(bytes) => {
                let header = self.read(|| imaging::read_header_bytes(&bytes), source);
                (self.archive.begin(&bytes), bytes, header)
            }
            Arrived::Streamed(mut incoming, rest) => {
                if let Err(error) = self.archive.append(&mut incoming, &rest) {
                    return (Err(error), incoming.size(), rest);
                }
                let header = self.read(|| imaging::read_header(incoming.path()), source);
                (Ok(incoming), rest, header)
            }
        };
        let size = begun.as_ref().map_or(0, Incoming::size);
        let synced = begun.and_then(|incoming| incoming.finish(digest.to_owned()));
        (synced.and_then(|received| self.place(received, header, source)), size, memory)
    }

    /// Reads what identifies the object, when it is its turn.
    fn read(
        &self,
        header: impl FnOnce() -> Result<DicomObject, imaging::ReadError>,
        source: &Source,
    ) -> Result<Header, Unfit> {
        let turn = Handle::current().block_on(self.reading.acquire()).expect("the semaphore is never closed");
        let object = header().map_err(|error| Unfit::from_cause(error.cause))?;
        let read = identify(&object, source, &self.stat);
        drop((object, turn));
        read
    }

    fn place(&self, received: Received, header: Result<Header, Unfit>, source: &Source) -> io::Result<Placed> {
        let sop_uid = &source.sop_instance_uid;
        match header {
            Ok(header) => {
                self.activity.touch(&header.study_uid, source.association);
                let placing = Handle::current().block_on(self.archive.placing());
                let path = self.archive.keep(received, &header.study_uid, sop_uid)?;
                Ok(Placed::Kept { path, header, placing })
            }
            Err(Unfit::Disk(error)) => Err(error),
            Err(Unfit::Object(status)) => {
                Ok(Placed::SetAside { path: self.archive.quarantine(received, sop_uid)?, status })
            }
        }
    }

    /// Writes what had to be set aside, and says what the sender is told.
    async fn conclude(&self, taken: Taken, digest: String, source: Source, received_at: String) -> Status {
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
        match taken {
            Taken::Refused(status) => status,
            Taken::SetAside { path, status } => {
                match self.ledger.quarantine(quarantined(path, None, status.comment.clone())).await {
                    Ok(_) => status,
                    Err(error) => not_stored(error),
                }
            }
            // The same bytes at the same place: the file that is there was just written again.
            Taken::Recorded { stored: Stored::New | Stored::Duplicate, .. } => Status::success(),
            Taken::Recorded { stored: Stored::Conflict { kept_digest }, path, study_uid } => {
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
        }
    }
}

fn not_stored(why: impl std::fmt::Display) -> Status {
    Status::new(Status::OUT_OF_RESOURCES, format!("could not be stored: {why}"))
}

/// Where the file went.
enum Placed {
    /// With what keeps it there until its row is committed.
    Kept {
        path: String,
        header: Header,
        placing: OwnedRwLockReadGuard<()>,
    },
    SetAside {
        path: String,
        status: Status,
    },
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

/// What identifies the object, and whether it can be triaged.
fn identify(object: &DicomObject, source: &Source, stat: &StatRule) -> Result<Header, Unfit> {
    let mismatch = |what: &str| Unfit::Object(Status::new(Status::DATA_SET_DOES_NOT_MATCH, what.to_owned()));
    // RSNA files have no SOP Class UID; only one that is there and says otherwise is wrong.
    for (tag, said, what) in [
        (tags::SOP_INSTANCE_UID, &source.sop_instance_uid, "the data set's SOP Instance UID is not the command's"),
        (tags::SOP_CLASS_UID, &source.sop_class_uid, "the data set's SOP Class UID is not the command's"),
    ] {
        if text(object, tag).is_some_and(|found| found != *said) {
            return Err(mismatch(what));
        }
    }
    let uid = |tag, what: &str| {
        let uid = text(object, tag).ok_or_else(|| mismatch(&format!("the data set has no {what}")))?;
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
        accession_number: text(object, tags::ACCESSION_NUMBER),
        patient_id: text(object, tags::PATIENT_ID),
        slices: slices(object),
        stat: stat.is_stat(&source.calling_ae, object),
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
