//! The bytes of an object while they come in: gathered in memory if there are few, streamed to a file if there are many.

use std::io;
use std::time::Instant;

use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use crate::archive::{Archive, Arrived, Incoming, Meta};

use super::header::is_identity;
use super::{Announced, Outcome, Transfer};

/// Objects up to this size, in bytes, are gathered in memory and written in one go: every CT slice of 512×512.
const GATHERED: usize = 1 << 20;

/// Bytes that all transfers together may gather. Transfers beyond it stream objects of any size.
const GATHERED_BY_ALL: usize = 96 << 20;

/// A larger object streams to its file in chunks of this size, each worth its thread. One is filled while another is written.
const CHUNK: usize = 256 * 1024;

/// So many bytes tell whose an object is that is refused: nearly all objects have its UIDs among their first few thousand.
pub(super) const BEGINNING: usize = 64 * 1024;

/// The memory in which a transfer gathers what comes in, used again from object to object.
#[derive(Default)]
pub struct Memory {
    bytes: Vec<u8>,
    /// Held by a transfer that may gather [`GATHERED`] bytes.
    permit: Option<OwnedSemaphorePermit>,
}

/// As many permits as transfers may gather whole objects at one time.
pub(super) fn gathering() -> Semaphore {
    Semaphore::new(GATHERED_BY_ALL / GATHERED)
}

impl Memory {
    /// Asks for the permit with a transfer's first object, and keeps it.
    fn prepare(&mut self, gathering: &std::sync::Arc<Semaphore>) {
        if self.permit.is_none() {
            self.permit = gathering.clone().try_acquire_owned().ok();
        }
        self.bytes.clear();
        self.bytes.reserve_exact(self.limit());
    }

    fn limit(&self) -> usize {
        if self.permit.is_some() { GATHERED } else { CHUNK }
    }
}

/// An object that is coming in. Whatever goes wrong, the rest of the data set is taken and dropped, so that the sender hears
/// the outcome and the transfer goes on.
pub struct Reception<'t> {
    transfer: &'t Transfer,
    announced: Announced,
    size: u64,
    /// Digest of the data set. Computed here, while the bytes are in the processor's cache and the sender prepares the next
    /// ones; a piece takes some 60 µs.
    digest: Sha256,
    memory: Memory,
    state: State,
    /// The first bytes of an object that was refused or that streams to its file: they tell whose it is.
    beginning: Vec<u8>,
    began: Instant,
}

enum State {
    /// All that came is in memory.
    Gathering,
    /// Some of it is written, or is being written. The task gives back an empty chunk for what comes next.
    Streaming(JoinHandle<io::Result<(Incoming, Vec<u8>)>>),
    Refused(Outcome),
}

impl<'t> Reception<'t> {
    /// `refused`: why it is not taken, whatever it is.
    pub(super) fn begin(
        transfer: &'t Transfer,
        announced: Announced,
        mut memory: Memory,
        refused: Option<Outcome>,
    ) -> Reception<'t> {
        memory.prepare(&transfer.intake.gathering);
        let meta = Meta {
            sop_class_uid: announced.sop_class_uid.clone(),
            sop_instance_uid: announced.sop_instance_uid.clone(),
            transfer_syntax: announced.transfer_syntax.clone(),
            source_ae_title: transfer.sender.calling_ae.clone(),
        };
        let mut beginning = Vec::new();
        let begun = match refused {
            Some(outcome) => Err(outcome),
            None => check_instance_uid(&announced.sop_instance_uid),
        };
        let begun = begun
            .and_then(|()| meta.head().map_err(Outcome::not_stored))
            .and_then(|head| transfer.intake.room.check(&transfer.sender.source()).map(|()| head));
        // It tells whose the object is, with the bytes that follow.
        if begun.is_err() {
            beginning = meta.head().unwrap_or_default();
        }
        let state = match begun {
            Err(outcome) => State::Refused(outcome),
            Ok(head) => {
                memory.bytes.extend_from_slice(&head);
                State::Gathering
            }
        };
        let began = Instant::now();
        Reception { transfer, announced, size: 0, digest: Sha256::new(), memory, state, beginning, began }
    }

    /// Takes a piece of the data set.
    pub async fn write(&mut self, piece: &[u8]) {
        self.size += piece.len() as u64;
        if let State::Refused(_) = self.state {
            return self.keep_beginning(piece);
        }
        let limit = self.transfer.intake.limits.max_object_bytes;
        let limit = self.transfer.sender.max_object_bytes.map_or(limit, |own| own.min(limit));
        if self.size > limit {
            let why = format!("the object is larger than max_object_mib, {} MiB", limit >> 20);
            return self.refuse(Outcome::OutOfResources(why), piece);
        }
        if !self.transfer.intake.volume.take(self.transfer.sender.peer, piece.len()) {
            metrics::counter!("triaged_volume_refusals_total").increment(1);
            let why = "this address has brought as much as it may in an hour (dimse.max_gib_of_source_per_hour)";
            return self.refuse(Outcome::OutOfResources(why.into()), piece);
        }
        self.digest.update(piece);
        let full = match self.state {
            State::Gathering => self.memory.limit(),
            _ => CHUNK,
        };
        // Pieces are at most as long as the socket's buffer: the memory does not grow.
        if self.memory.bytes.len() + piece.len() > full {
            self.flush().await;
        }
        self.memory.bytes.extend_from_slice(piece);
    }

    /// From here on the rest is dropped, but for what tells whose it is.
    fn refuse(&mut self, outcome: Outcome, piece: &[u8]) {
        if let State::Gathering = self.state {
            let gathered = std::mem::take(&mut self.memory.bytes);
            self.keep_beginning(&gathered);
            self.memory.bytes = gathered;
        }
        self.keep_beginning(piece);
        self.state = State::Refused(outcome);
    }

    /// Keeps the first bytes. What comes once there are enough of them is not looked at.
    fn keep_beginning(&mut self, bytes: &[u8]) {
        let wanted = BEGINNING.saturating_sub(self.beginning.len()).min(bytes.len());
        self.beginning.extend_from_slice(&bytes[..wanted]);
    }

    /// Hands what is gathered to a blocking thread, once what was before it is written.
    async fn flush(&mut self) {
        let archive = self.transfer.intake.archive.clone();
        if let State::Gathering = self.state {
            self.beginning = self.memory.bytes[..self.memory.bytes.len().min(BEGINNING)].to_vec();
        }
        let written = match &mut self.state {
            State::Refused(_) => return,
            State::Gathering => Ok((None, Vec::with_capacity(CHUNK))),
            State::Streaming(writing) => joined(writing.await).map(|(incoming, empty)| (Some(incoming), empty)),
        };
        self.state = match written {
            Ok((incoming, empty)) => {
                let full = std::mem::replace(&mut self.memory.bytes, empty);
                State::Streaming(tokio::task::spawn_blocking(move || append(&archive, incoming, full)))
            }
            Err(error) => State::Refused(Outcome::not_stored(error)),
        };
    }

    /// The rest will not come. What came tells as a rule whose object it was: its study is not complete without it.
    pub async fn break_off(mut self) {
        const WHY: &str = "the association was broken off while it was sent";
        self.refuse(Outcome::NotStored(WHY.into()), &[]);
        if let State::Refused(outcome) = &self.state {
            let intake = &self.transfer.intake;
            let of = intake.whose(std::mem::take(&mut self.beginning)).await;
            if let Some(of) = &of {
                // The study before had come to its end.
                intake.activity.turn_to(&of.study, of.series.as_deref(), self.transfer.id);
            }
            intake.note_refused(of, &self.announced, outcome).await;
        }
    }

    /// The data set is complete: stores it and tells what became of it. Returns the memory for the next object.
    pub async fn finish(self) -> (Outcome, Memory) {
        metrics::counter!("triaged_received_bytes_total").increment(self.size);
        let Memory { bytes, permit } = self.memory;
        let arrived = match self.state {
            State::Refused(outcome) => Err((outcome, bytes)),
            State::Gathering => Ok(Arrived::Whole(bytes)),
            State::Streaming(writing) => match joined(writing.await) {
                Ok((incoming, _)) => Ok(Arrived::Streamed(incoming, bytes)),
                Err(error) => Err((Outcome::not_stored(error), bytes)),
            },
        };
        let (outcome, bytes) = match arrived {
            Ok(arrived) => {
                let digest = hex::encode(self.digest.finalize());
                let (intake, sender) = (&self.transfer.intake, self.transfer.sender.clone());
                intake.take(arrived, digest, self.announced, sender, self.transfer.id).await
            }
            Err(refused) => {
                let intake = &self.transfer.intake;
                let of = intake.whose(self.beginning).await;
                intake.note_refused(of, &self.announced, &refused.0).await;
                refused
            }
        };
        match &outcome {
            Outcome::NotStored(why) => self.transfer.intake.storing.failed(why),
            outcome if outcome.is_kept() => self.transfer.intake.storing.succeeded(),
            _ => {}
        }
        let label = if outcome.is_kept() { "stored" } else { "refused" };
        metrics::counter!("triaged_instances_total", "outcome" => label).increment(1);
        metrics::histogram!("triaged_store_seconds").record(self.began.elapsed().as_secs_f64());
        (outcome, Memory { bytes, permit })
    }
}

/// Writes a chunk to the object's file, the first one to a new file. Blocks. Returns the chunk emptied.
fn append(archive: &Archive, incoming: Option<Incoming>, mut chunk: Vec<u8>) -> io::Result<(Incoming, Vec<u8>)> {
    let incoming = match incoming {
        None => archive.begin(&chunk)?,
        Some(mut incoming) => {
            archive.append(&mut incoming, &chunk)?;
            incoming
        }
    };
    chunk.clear();
    Ok((incoming, chunk))
}

fn check_instance_uid(uid: &str) -> Result<(), Outcome> {
    if !is_identity(uid) {
        let why = "the Affected SOP Instance UID is not 1 to 64 printable characters";
        return Err(Outcome::InvalidInstance(why.into()));
    }
    Ok(())
}

fn joined<T>(result: Result<io::Result<T>, tokio::task::JoinError>) -> io::Result<T> {
    result.unwrap_or_else(|error| Err(io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_up_to_64_printable_characters() {
        for taken in ["1.2.3", "ID_6c5d82413", "1.002.3", "../../etc/passwd", &"9".repeat(64)] {
            assert_eq!(check_instance_uid(taken), Ok(()), "{taken}");
        }
        for refused in ["", "1.2 3", "1.2\u{7}", "é", &"9".repeat(65)] {
            assert!(matches!(check_instance_uid(refused), Err(Outcome::InvalidInstance(_))), "{refused:?}");
        }
    }
}
