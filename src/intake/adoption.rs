//! Files of the archive that no row names, after a database was lost or restored, become instances again where they are.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use tokio::runtime::Handle;

use crate::archive::{Meta, sha256};
use crate::ledger::{LedgerError, NewInstance, Stored, now};
use crate::triage::TransferId;
use triaged_imaging as imaging;

use super::header::{Unfit, identify};
use super::record::{Object, instance, quarantined, queued};
use super::{Announced, Intake, Outcome, Sender};

/// Why a file is set aside that somebody put into the archive by hand, or that the disk has spoilt.
const NO_OBJECT: &str = "a file of the archive that no row named, and that is no DICOM object";

/// The name under which such a file is listed: it has no UID.
const NO_UID: &str = "unknown";

/// Takes files in. The studies that it touches are not judged before it has gone on to another, or is dropped.
pub struct Adoption {
    intake: Intake,
    id: TransferId,
}

impl Intake {
    pub fn begin_adoption(&self) -> Adoption {
        Adoption { id: self.activity.begin(), intake: self.clone() }
    }
}

impl Drop for Adoption {
    fn drop(&mut self) {
        self.intake.activity.ended(self.id);
        self.intake.instances.transfer_ended();
    }
}

impl Adoption {
    /// Whether at most half of the slices that may wait do. What waits in the archive is no worse off than in the queue, and a study that is
    /// in the queue is told of as incomplete when it waits for too long there.
    pub fn leaves_room(&self) -> bool {
        self.intake.room.is_half_free()
    }

    /// Takes in the object of a file, named relative to the data folder. One that cannot be taken in goes to quarantine, with a row; one
    /// that repeats what another file has is removed.
    pub async fn adopt(&self, path: &str) -> Outcome {
        let (intake, id, path) = (self.intake.clone(), self.id, path.to_owned());
        let adopted = tokio::task::spawn_blocking(move || intake.adopt(&path, id)).await;
        match adopted {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(Failed::Disk(error))) => Outcome::not_stored(error),
            Ok(Err(Failed::Ledger(error))) => Outcome::not_stored(error),
            Err(panic) => Outcome::not_stored(panic),
        }
    }
}

enum Failed {
    Disk(io::Error),
    Ledger(LedgerError),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Failed {
        Failed::Disk(error)
    }
}

impl From<LedgerError> for Failed {
    fn from(error: LedgerError) -> Failed {
        Failed::Ledger(error)
    }
}

impl Intake {
    fn adopt(&self, path: &str, transfer: TransferId) -> Result<Outcome, Failed> {
        let size = std::fs::metadata(self.archive.file(path))?.len();
        let (meta, digest) = match self.open(path)? {
            Ok(read) => read,
            Err(digest) => {
                let meta = Meta {
                    sop_class_uid: String::new(),
                    sop_instance_uid: NO_UID.into(),
                    transfer_syntax: String::new(),
                    source_ae_title: String::new(),
                };
                let object = object(meta, digest, transfer);
                return self.set_aside(path, size, object, None, Outcome::CannotUnderstand(NO_OBJECT.into()));
            }
        };
        let object = object(meta, digest, transfer);
        let read = {
            let turn = Handle::current().block_on(self.reading_large.acquire()).expect("the semaphore is never closed");
            let header = imaging::read_header(self.archive.file(path)).map_err(Unfit::from);
            let read = header.and_then(|header| identify(&header, &object.announced, &object.sender, &self.rules));
            drop(turn);
            read
        };
        let header = match read {
            Ok(header) => header,
            Err(Unfit::Disk(error)) => return Err(error.into()),
            Err(Unfit::Object(why, of)) => {
                Handle::current().block_on(self.note_refused(of, &object.announced, &why));
                return self.set_aside(path, size, object, None, why);
            }
        };
        // From here to the row nothing is removed, so no row says of the file that it went. Others that place files do not wait for what was
        // read before.
        let _placing = Handle::current().block_on(self.archive.placing());
        self.activity.touch(&header.study_uid, &header.series_uid, transfer);
        let (study, series) = (header.study_uid.clone(), header.series_uid.clone());
        // A copy that was set aside may have become the instance's; its file stays where it is.
        let place = match path.starts_with("quarantine/") {
            true => path.to_owned(),
            false => self.archive.to_its_place(path, &study, &object.announced.sop_instance_uid, &object.digest)?,
        };
        let queued = queued(&header);
        // A file that lay there says nothing of who sends now.
        let row = instance(header, place.clone(), size, object.clone(), false);
        let row = NewInstance { is_taken_in_again: true, ..row };
        let room = self.room.take_beside(queued);
        match Handle::current().block_on(self.instances.store(row))? {
            Stored::New | Stored::Replaced | Stored::Restored => {
                room.recorded();
                Ok(Outcome::Stored)
            }
            Stored::Duplicate => {
                let kept = self.instances.path_of(&study, &series, &object.announced.sop_instance_uid)?;
                if let Some(kept) = kept.filter(|kept| *kept != place) {
                    let (kept, here) = (self.archive.digest(&kept).is_ok_and(|kept| kept == object.digest), kept);
                    // The row's own file may be gone or spoilt; then this one takes its place.
                    match kept {
                        true => std::fs::remove_file(self.archive.file(&place))?,
                        false => std::fs::rename(self.archive.file(&place), self.archive.file(&here))?,
                    }
                }
                Ok(Outcome::Duplicate)
            }
            Stored::Conflict { .. } => {
                let uids = Some((study, series));
                self.set_aside(&place, size, object, uids, Outcome::SetAside)
            }
        }
    }

    /// What a file says of itself, and the digest of its data set; or the digest of its bytes where it is no DICOM file.
    fn open(&self, path: &str) -> io::Result<Result<(Meta, String), String>> {
        match self.archive.reopen(path) {
            Ok((meta, data_set)) => Ok(Ok((meta, sha256(data_set)?))),
            Err(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => {
                Ok(Err(sha256(std::fs::File::open(self.archive.file(path))?)?))
            }
            Err(error) => Err(error),
        }
    }

    fn set_aside(
        &self,
        path: &str,
        size: u64,
        object: Object,
        uids: Option<(String, String)>,
        outcome: Outcome,
    ) -> Result<Outcome, Failed> {
        let to = self.archive.move_to_quarantine(path, &object.announced.sop_instance_uid, &object.digest)?;
        let reason = match &outcome {
            Outcome::SetAside => "the same Study, Series and SOP Instance UID are there with other content".into(),
            outcome => outcome.reason().to_owned(),
        };
        let row = quarantined(object, to, uids, size, reason);
        Handle::current().block_on(self.instances.quarantine(row))?;
        Ok(outcome)
    }
}

fn object(meta: Meta, digest: String, transfer: TransferId) -> Object {
    Object {
        announced: Announced {
            sop_class_uid: meta.sop_class_uid,
            sop_instance_uid: meta.sop_instance_uid,
            transfer_syntax: meta.transfer_syntax,
        },
        sender: Sender {
            calling_ae: meta.source_ae_title,
            // The file does not say from where it came.
            peer: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            stat: false,
            max_object_bytes: None,
        },
        transfer,
        digest,
        received_at: now(),
    }
}
