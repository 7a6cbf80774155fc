//! From the last byte to the outcome: the object is read, written, synced, put in its place and recorded.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedRwLockReadGuard, Semaphore, oneshot};
use tracing::warn;

use crate::archive::{Arrived, Incoming, Received};
use crate::ledger::{NewInstance, Quarantined, Refused, SliceStart, Stored, now};
use crate::triage::{TransferId, may_be_ct_image};
use triaged_imaging::{self as imaging, ObjectHeader, ReadError};

use super::header::{Header, Uids, Unfit, identify, uids};
use super::reception::BEGINNING;
use super::room::Place;
use super::{Announced, Intake, Outcome, Sender};

/// What could not be noted is tried again after so long.
const NOTE_AGAIN: Duration = Duration::from_secs(1);

/// Larger files than this are not compared: a hostile sender would have the node hold two of any size.
const LARGEST_COMPARED: u64 = 16 << 20;

/// A sender waits no longer for the note of what was refused than this.
const NOTE_PATIENCE: Duration = Duration::from_secs(2);

/// The first bytes of a file; none where it cannot be read.
fn beginning_of(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(BEGINNING as u64).read_to_end(&mut bytes));
    if read.is_err() { Vec::new() } else { bytes }
}

/// Everything about an object but its bytes.
#[derive(Clone)]
pub(super) struct Object {
    pub announced: Announced,
    pub sender: Sender,
    pub transfer: TransferId,
    /// SHA-256 of the data set, hexadecimal.
    pub digest: String,
    pub received_at: String,
}

/// The result of the blocking part of taking an object in.
enum Taken {
    /// The file is in its place, and this is what the ledger says of it.
    Recorded { stored: Stored, path: String, study_uid: String, series_uid: String, size: u64 },
    /// The file is in quarantine. Its row is still to be written.
    SetAside { path: String, size: u64, outcome: Outcome, of: Option<Uids> },
    /// With whose it is, as far as that is known.
    Refused(Outcome, Option<Uids>),
}

/// The place that the file went to.
enum Placed {
    /// `placing` keeps the file there until its row is committed.
    Kept {
        path: String,
        header: Box<Header>,
        placing: OwnedRwLockReadGuard<()>,
        /// Room for its slices in the queue.
        room: Place,
    },
    SetAside {
        path: String,
        outcome: Outcome,
        of: Option<Uids>,
    },
    /// The file is gone: the node cannot take the object now.
    Refused(Outcome, Uids),
}

/// The row of an object whose file is at `path`. `resumes`: it is the rest of what was broken off, if anything was.
pub(super) fn instance(header: Header, path: String, size: u64, object: Object, resumes: bool) -> NewInstance {
    let Object { announced, sender, digest, received_at, .. } = object;
    NewInstance {
        sop_uid: announced.sop_instance_uid,
        sop_class_uid: announced.sop_class_uid,
        transfer_syntax: announced.transfer_syntax,
        study_uid: header.study_uid,
        series_uid: header.series_uid,
        instance_number: header.instance_number,
        accession_number: header.accession_number,
        patient_id: header.patient_id,
        digest,
        path,
        size,
        calling_ae: sender.calling_ae,
        peer: sender.peer.to_string(),
        received_at,
        slices: header.slices,
        stat: header.stat,
        about: header.about,
        concatenation: header.concatenation,
        images_in_acquisition: header.images_in_acquisition,
        resumes,
        is_taken_in_again: false,
    }
}

/// How many slices of an object are to be scored.
pub(super) fn queued(header: &Header) -> u64 {
    header.slices.iter().filter(|slice| slice.start == SliceStart::Queued).count() as u64
}

/// The row of an object that is in quarantine at `path`. `uids`: of its study and series, where it could be read.
pub(super) fn quarantined(
    object: Object,
    path: String,
    uids: Option<(String, String)>,
    size: u64,
    reason: String,
) -> Quarantined {
    let (study_uid, series_uid) = uids.unzip();
    Quarantined {
        sop_uid: object.announced.sop_instance_uid,
        study_uid,
        series_uid,
        digest: object.digest,
        path,
        size,
        transfer_syntax: object.announced.transfer_syntax,
        reason,
        calling_ae: object.sender.calling_ae,
        peer: object.sender.peer.to_string(),
        received_at: object.received_at,
    }
}

impl Intake {
    /// Puts the object in its place and records it; it is kept only when both are on disk (promise 1). `digest` is the data
    /// set's SHA-256, hexadecimal. Returns the memory in which the object was gathered, for the next one.
    ///
    /// One blocking thread does all that is done to the file and hands the row to the ledger, whose answer comes back
    /// here: two hand-overs between threads after the last byte, each a chance to wait for a core.
    pub(super) async fn take(
        &self,
        arrived: Arrived,
        digest: String,
        announced: Announced,
        sender: Sender,
        transfer: TransferId,
    ) -> (Outcome, Vec<u8>) {
        let object = Object { announced, sender, transfer, digest, received_at: now() };
        let (tell, told) = oneshot::channel();
        let blocking = {
            let (intake, object) = (self.clone(), object.clone());
            move || intake.store(arrived, object, tell)
        };
        tokio::task::spawn_blocking(blocking);
        match told.await {
            Ok((taken, memory)) => (self.conclude(taken, object).await, memory),
            Err(_) => {
                (Outcome::not_stored("the ledger cannot be written, or taking the object in panicked"), Vec::new())
            }
        }
    }

    /// Reads, writes, syncs and places the file, then hands its row to the ledger. Blocks. `tell` hears the outcome, and gets
    /// the memory back.
    fn store(&self, arrived: Arrived, object: Object, tell: oneshot::Sender<(Taken, Vec<u8>)>) {
        let (placed, of, size, memory) = self.file(arrived, &object);
        let taken = match placed {
            Ok(Placed::Kept { path, header, placing, room }) => {
                let (study_uid, series_uid) = (header.study_uid.clone(), header.series_uid.clone());
                let resumes = self.activity.resumes(&study_uid, &series_uid, object.transfer);
                let instance = instance(*header, path.clone(), size, object, resumes);
                // If the ledger is closed, nothing can be noted either.
                let then = move |stored| {
                    if let Ok(Stored::New | Stored::Replaced | Stored::Restored) = stored {
                        room.recorded();
                    }
                    let taken = match stored {
                        Ok(stored) => Taken::Recorded { stored, path, study_uid, series_uid, size },
                        Err(error) => Taken::Refused(Outcome::not_stored(error), of),
                    };
                    drop(placing);
                    let _ = tell.send((taken, memory));
                };
                // If the ledger is closed, `then` is dropped, and `take` hears that.
                let _ = self.instances.post_store(instance, Box::new(then));
                return;
            }
            Ok(Placed::SetAside { path, outcome, of }) => Taken::SetAside { path, size, outcome, of },
            Ok(Placed::Refused(outcome, of)) => Taken::Refused(outcome, Some(of)),
            Err(error) => Taken::Refused(Outcome::not_stored(error), of),
        };
        let _ = tell.send((taken, memory));
    }

    /// From memory to the object's place, synced at each step: file, then name, then folder. A crash before the rename leaves a
    /// part that the next start removes; after it, a whole file that no row names yet, whose sender sends it again to the same
    /// place. Returns whose the object is, as far as it could be read, the size of the file too, and the memory.
    fn file(&self, arrived: Arrived, object: &Object) -> (io::Result<Placed>, Option<Uids>, u64, Vec<u8>) {
        let (begun, memory, header) = match arrived {
            Arrived::Whole(bytes) => {
                let turns = if imaging::is_deflated(&object.announced.transfer_syntax) {
                    &self.reading_large
                } else {
                    &self.reading
                };
                let header = self.read(turns, || imaging::read_header_bytes(&bytes), object);
                let header = header.map_err(|unfit| unfit.of(|| bytes[..bytes.len().min(BEGINNING)].to_vec()));
                (self.archive.begin(&bytes), bytes, header)
            }
            Arrived::Streamed(mut incoming, rest) => {
                if let Err(error) = self.archive.append(&mut incoming, &rest) {
                    let of = imaging::read_header(incoming.path()).ok().and_then(|header| uids(&header));
                    return (Err(error), of, incoming.size(), rest);
                }
                let header = self.read(&self.reading_large, || imaging::read_header(incoming.path()), object);
                let header = header.map_err(|unfit| unfit.of(|| beginning_of(incoming.path())));
                (Ok(incoming), rest, header)
            }
        };
        let size = begun.as_ref().map_or(0, Incoming::size);
        let of = header.as_ref().ok().map(|header| Uids {
            study: header.study_uid.clone(),
            series: Some(header.series_uid.clone()),
            sop: None,
        });
        let synced = begun.and_then(|incoming| incoming.finish(object.digest.clone()));
        (synced.and_then(|received| self.place(received, header, object)), of, size, memory)
    }

    /// Reads what identifies the object, when it is its turn.
    fn read(
        &self,
        turns: &Semaphore,
        header: impl FnOnce() -> Result<ObjectHeader, ReadError>,
        object: &Object,
    ) -> Result<Header, Unfit> {
        let turn = Handle::current().block_on(turns.acquire()).expect("the semaphore is never closed");
        let data_set = header()?;
        let read = identify(&data_set, &object.announced, &object.sender, &self.rules);
        drop((data_set, turn));
        read
    }

    /// Whose an object is that was refused before it was read, by its first bytes.
    pub(super) async fn whose(&self, beginning: Vec<u8>) -> Option<Uids> {
        let turns = self.reading.clone();
        let read = move || {
            let turn = Handle::current().block_on(turns.acquire()).expect("the semaphore is never closed");
            let header = imaging::read_identity(&beginning);
            drop(turn);
            uids(&header.ok()?)
        };
        tokio::task::spawn_blocking(read).await.ok().flatten()
    }

    fn place(&self, received: Received, header: Result<Header, Unfit>, object: &Object) -> io::Result<Placed> {
        let sop_uid = &object.announced.sop_instance_uid;
        match header {
            Ok(header) => {
                let room = match self.room.take(&object.sender.source(), queued(&header)) {
                    Ok(room) => room,
                    Err(refused) => {
                        let of = Uids { study: header.study_uid, series: Some(header.series_uid), sop: None };
                        return Ok(Placed::Refused(refused, of));
                    }
                };
                self.activity.touch(&header.study_uid, &header.series_uid, object.transfer);
                let placing = Handle::current().block_on(self.archive.placing());
                let path = self.archive.keep(received, &header.study_uid, sop_uid)?;
                Ok(Placed::Kept { path, header: Box::new(header), placing, room })
            }
            Err(Unfit::Disk(error)) => Err(error),
            Err(Unfit::Object(outcome, of)) => {
                Ok(Placed::SetAside { path: self.archive.quarantine(received, sop_uid)?, outcome, of })
            }
        }
    }

    /// Writes the row of what had to be set aside, and says what became of the object.
    async fn conclude(&self, taken: Taken, object: Object) -> Outcome {
        match taken {
            Taken::Refused(outcome, of) => {
                self.note_refused(of, &object.announced, &outcome).await;
                outcome
            }
            Taken::SetAside { path, size, outcome, of } => {
                self.note_refused(of, &object.announced, &outcome).await;
                let reason = outcome.reason().to_owned();
                self.quarantined(object, path, None, size, reason, outcome).await
            }
            Taken::Recorded { stored: Stored::New | Stored::Replaced | Stored::Restored, .. } => {
                // The ledger writes, perhaps again.
                if self.has_unnoted() {
                    self.note_all(None).await;
                }
                Outcome::Stored
            }
            // The same bytes at the same place: the file that is there was just written again.
            Taken::Recorded { stored: Stored::Duplicate, .. } => Outcome::Duplicate,
            Taken::Recorded { stored: Stored::Conflict { .. }, path, study_uid, series_uid, .. }
                if self.is_kept_in_another_encoding(&path, &study_uid, &series_uid, &object).await =>
            {
                Outcome::Duplicate
            }
            Taken::Recorded { stored: Stored::Conflict { kept_digest }, path, study_uid, series_uid, size } => {
                let reason = format!(
                    "the same Study, Series and SOP Instance UID were received before with other content (SHA-256 {kept_digest}); the first is kept"
                );
                let (sop_instance, calling_ae) = (&object.announced.sop_instance_uid, &object.sender.calling_ae);
                warn!(sop_instance, calling_ae, "{reason}");
                let (archive, placed) = (self.archive.clone(), object.clone());
                let moved = tokio::task::spawn_blocking(move || {
                    archive.move_to_quarantine(&path, &placed.announced.sop_instance_uid, &placed.digest)
                });
                let moved = moved.await;
                match moved {
                    Ok(Ok(to)) => {
                        let uids = Some((study_uid, series_uid));
                        self.quarantined(object, to, uids, size, reason, Outcome::SetAside).await
                    }
                    Ok(Err(error)) => Outcome::not_stored(error),
                    Err(panic) => Outcome::not_stored(panic),
                }
            }
        }
    }

    /// Whether the file at `path`, whose UIDs another has, is that very object in another uncompressed encoding: a scanner sends it in explicit
    /// VR, and a PACS that has it from the scanner in implicit VR. Then the file is removed again.
    async fn is_kept_in_another_encoding(
        &self,
        path: &str,
        study_uid: &str,
        series_uid: &str,
        object: &Object,
    ) -> bool {
        let (intake, path) = (self.clone(), path.to_owned());
        let uids = [study_uid, series_uid, &object.announced.sop_instance_uid].map(str::to_owned);
        let compare = move || {
            let [study_uid, series_uid, sop_uid] = &uids;
            let kept = intake.instances.path_of(study_uid, series_uid, sop_uid).ok().flatten();
            let Some(kept) = kept.filter(|kept| !kept.is_empty() && *kept != path) else { return false };
            let _turn =
                Handle::current().block_on(intake.reading_large.acquire()).expect("the semaphore is never closed");
            // Both are in memory, whole.
            let is_small =
                |path: &str| intake.archive.file(path).metadata().is_ok_and(|about| about.len() <= LARGEST_COMPARED);
            let read =
                |path: &str| is_small(path).then(|| imaging::read_file(intake.archive.file(path)).ok()).flatten();
            let is_same =
                read(&kept).zip(read(&path)).is_some_and(|(kept, this)| imaging::is_same_object(&kept, &this));
            // What cannot be removed is set aside, as another object is.
            is_same && intake.archive.discard(&path).is_ok()
        };
        tokio::task::spawn_blocking(compare).await.unwrap_or(false)
    }

    /// Notes that a study lacks an object, if it is known whose it is: a study that is judged without what the node itself turned away must
    /// not be left unflagged. What is no CT image by its class is never judged, so no study lacks it.
    pub(super) async fn note_refused(&self, of: Option<Uids>, announced: &Announced, outcome: &Outcome) {
        let Some(Uids { study, series, sop }) = of else { return };
        if !may_be_ct_image(&announced.sop_class_uid) {
            return;
        }
        let refused = Refused {
            study_uid: study,
            series_uid: series.unwrap_or_default(),
            sop_uid: sop.unwrap_or_else(|| announced.sop_instance_uid.clone()),
            reason: outcome.reason().to_owned(),
        };
        // The sender waits for its answer, and a ledger that is locked may take half a minute to say so.
        let (intake, unnoted, object) = (self.clone(), self.unnoted.clone(), refused.clone());
        let noting = tokio::spawn(async move { intake.note_all(Some(refused)).await });
        if tokio::time::timeout(NOTE_PATIENCE, noting).await.is_err() {
            // It is on disk before the answer, here where not in the ledger.
            let _ = tokio::task::spawn_blocking(move || unnoted.keep(&object)).await;
        }
    }

    /// Writes what was refused, and what could not be written before.
    pub(super) async fn note_all(&self, refused: Option<Refused>) {
        let mut waiting = self.unnoted.take();
        waiting.extend(refused.clone());
        while let Some(refused) = waiting.pop() {
            if let Err(error) = self.instances.note_refused(refused.clone()).await {
                warn!(sop_instance = refused.sop_uid, "that it was refused cannot be noted yet: {error}");
                waiting.push(refused);
                break;
            }
        }
        let unnoted = self.unnoted.clone();
        let file = move || {
            refused.iter().filter(|refused| waiting.contains(refused)).for_each(|refused| unnoted.keep(refused));
            unnoted.give_back(waiting)
        };
        // Whoever finds it empty again sees to the rest, where nothing else comes that would.
        if tokio::task::spawn_blocking(file).await.unwrap_or(false) {
            self.note_later();
        }
    }

    /// Notes what waited when the process before this one ended.
    pub fn note_what_waits(&self) {
        if self.has_unnoted() {
            self.note_later();
        }
    }

    /// Tries again until all is written.
    fn note_later(&self) {
        let intake = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(NOTE_AGAIN).await;
            if intake.has_unnoted() {
                Box::pin(intake.note_all(None)).await;
            }
        });
    }

    /// Whether something that was refused is still to be noted.
    fn has_unnoted(&self) -> bool {
        !self.unnoted.is_empty()
    }

    /// Records that the file is in quarantine. Returns `outcome` once that is on disk.
    async fn quarantined(
        &self,
        object: Object,
        path: String,
        uids: Option<(String, String)>,
        size: u64,
        reason: String,
        outcome: Outcome,
    ) -> Outcome {
        let row = quarantined(object, path, uids, size, reason);
        match self.instances.quarantine(row).await {
            Ok(_) => outcome,
            Err(error) => Outcome::not_stored(error),
        }
    }
}
