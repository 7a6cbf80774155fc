//! C-STORE (PS3.7 9.1.1, PS3.4 B): the data set streams into the archive while it comes in; then the intake takes it.

use std::io;
use std::time::Instant;

use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use crate::archive::{Archive, Arrived, Incoming, Meta};
use crate::intake::Source;

use super::association::Peer;
use super::command::Request;
use super::listener::Scp;
use super::policy::Context;
use super::status::Status;

/// Objects up to this size are gathered in memory and written in one go: every CT slice of 512×512.
const GATHERED: usize = 1 << 20;

/// What all associations may gather in. Associations beyond it stream objects of any size.
const GATHERED_BY_ALL: usize = 96 << 20;

/// A larger object streams to its file in chunks of this size, each worth its thread. One is filled while another is written.
const CHUNK: usize = 256 * 1024;

/// The memory in which an association gathers what comes in, used again from object to object.
#[derive(Default)]
pub struct Memory {
    bytes: Vec<u8>,
    /// That [`GATHERED`] bytes are this association's.
    room: Option<OwnedSemaphorePermit>,
}

/// How many associations may gather whole objects at one time.
pub fn gathering() -> Semaphore {
    Semaphore::new(GATHERED_BY_ALL / GATHERED)
}

impl Memory {
    /// Taken with the association's first object, and kept.
    fn prepare(&mut self, scp: &Scp) {
        if self.room.is_none() {
            self.room = scp.gathering.clone().try_acquire_owned().ok();
        }
        self.bytes.clear();
        self.bytes.reserve_exact(self.limit());
    }

    fn limit(&self) -> usize {
        if self.room.is_some() { GATHERED } else { CHUNK }
    }
}

/// An object that is coming in. Whatever goes wrong, the rest of the data set is read and dropped, so that the failure
/// gets its status and the association lives on.
pub struct Reception<'s> {
    scp: &'s Scp,
    source: Source,
    size: u64,
    /// Of the data set. Digested here, while the bytes are in the processor's cache and the sender prepares the next ones; a
    /// piece takes some 60 µs.
    digest: Sha256,
    memory: Memory,
    state: State,
    began: Instant,
}

enum State {
    /// In memory so far.
    Gathering,
    /// Some of it is written, or is being written; with an empty chunk for what comes next.
    Streaming(JoinHandle<io::Result<(Incoming, Vec<u8>)>>),
    Failed(Status),
}

impl<'s> Reception<'s> {
    pub fn begin(scp: &'s Scp, peer: &Peer, context: &Context, request: &Request, mut memory: Memory) -> Reception<'s> {
        let source = Source {
            sop_class_uid: request.sop_class_uid.clone(),
            sop_instance_uid: request.sop_instance_uid.clone(),
            transfer_syntax: context.transfer_syntax.clone(),
            calling_ae: peer.calling_ae.clone(),
            peer: peer.address,
            association: peer.association,
        };
        memory.prepare(scp);
        let meta = Meta {
            sop_class_uid: source.sop_class_uid.clone(),
            sop_instance_uid: source.sop_instance_uid.clone(),
            transfer_syntax: source.transfer_syntax.clone(),
            source_ae_title: source.calling_ae.clone(),
        };
        let begun = check(context, request)
            .and_then(|()| room(scp))
            .and_then(|()| meta.head().map_err(|error| not_stored(&error)));
        let state = match begun {
            Err(status) => State::Failed(status),
            Ok(head) => {
                memory.bytes.extend_from_slice(&head);
                State::Gathering
            }
        };
        Reception { scp, source, size: 0, digest: Sha256::new(), memory, state, began: Instant::now() }
    }

    /// Takes a piece of the data set.
    pub async fn write(&mut self, piece: &[u8]) {
        self.size += piece.len() as u64;
        if let State::Failed(_) = self.state {
            return;
        }
        if self.size > self.scp.max_object_bytes {
            let mib = self.scp.max_object_bytes >> 20;
            self.state = State::Failed(Status::new(
                Status::OUT_OF_RESOURCES,
                format!("the object is larger than dimse.max_object_mib, {mib} MiB"),
            ));
            return;
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

    /// Hands what is gathered to a blocking thread, once what was before it is written.
    async fn flush(&mut self) {
        let archive = self.scp.intake.archive().clone();
        let written = match &mut self.state {
            State::Failed(_) => return,
            State::Gathering => Ok((None, Vec::with_capacity(CHUNK))),
            State::Streaming(writing) => joined(writing.await).map(|(incoming, empty)| (Some(incoming), empty)),
        };
        self.state = match written {
            Ok((incoming, empty)) => {
                let full = std::mem::replace(&mut self.memory.bytes, empty);
                State::Streaming(tokio::task::spawn_blocking(move || append(&archive, incoming, full)))
            }
            Err(error) => State::Failed(not_stored(&error)),
        };
    }

    /// The data set is complete: stores it and says how that went. Returns the memory for the next object.
    pub async fn finish(self) -> (Status, Memory) {
        metrics::counter!("triaged_received_bytes_total").increment(self.size);
        let Memory { bytes, room } = self.memory;
        let arrived = match self.state {
            State::Failed(status) => Err((status, bytes)),
            State::Gathering => Ok(Arrived::Whole(bytes)),
            State::Streaming(writing) => match joined(writing.await) {
                Ok((incoming, _)) => Ok(Arrived::Streamed(incoming, bytes)),
                Err(error) => Err((not_stored(&error), bytes)),
            },
        };
        let (status, bytes) = match arrived {
            Ok(arrived) => self.scp.intake.take(arrived, hex::encode(self.digest.finalize()), self.source).await,
            Err(failed) => failed,
        };
        let outcome = if status.is_success() { "stored" } else { "refused" };
        metrics::counter!("triaged_instances_total", "outcome" => outcome).increment(1);
        metrics::histogram!("triaged_store_seconds").record(self.began.elapsed().as_secs_f64());
        (status, Memory { bytes, room })
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

/// Whether scoring keeps up; a study that waits for hours is better kept by its sender, who sees that it waits.
fn room(scp: &Scp) -> Result<(), Status> {
    let waiting = scp.intake.ledger().last_queue_depth();
    if waiting < scp.max_queue {
        return Ok(());
    }
    Err(Status::new(Status::OUT_OF_RESOURCES, format!("{waiting} slices wait to be scored (inference.max_queue)")))
}

/// What can be said before a byte of the data set was read.
fn check(context: &Context, request: &Request) -> Result<(), Status> {
    if request.sop_class_uid != context.abstract_syntax {
        return Err(Status::new(
            Status::SOP_CLASS_NOT_SUPPORTED,
            "the SOP class is not the presentation context's abstract syntax",
        ));
    }
    // Real senders use UIDs that are not; up to 64 printable characters are an identity.
    let uid = &request.sop_instance_uid;
    if uid.is_empty() || uid.len() > 64 || !uid.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Status::new(
            Status::INVALID_SOP_INSTANCE,
            "the Affected SOP Instance UID is not 1 to 64 printable characters",
        ));
    }
    Ok(())
}

fn joined<T>(result: Result<io::Result<T>, tokio::task::JoinError>) -> io::Result<T> {
    result.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// Whatever the file system says, to the sender it is a lack of resources: keep the object, send it again later.
pub fn not_stored(error: &io::Error) -> Status {
    Status::new(Status::OUT_OF_RESOURCES, format!("could not be stored: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dimse::command::Operation;

    #[test]
    fn an_identity_is_up_to_64_printable_characters() {
        let context = Context { id: 1, abstract_syntax: "1.2".into(), transfer_syntax: "1.2.840.10008.1.2".into() };
        let status = |sop_instance_uid: &str| {
            let request = Request {
                operation: Operation::CStore,
                message_id: 1,
                sop_class_uid: "1.2".into(),
                sop_instance_uid: sop_instance_uid.into(),
                has_data_set: true,
            };
            check(&context, &request).err().map(|status| status.code)
        };
        for taken in ["1.2.3", "ID_6c5d82413", "1.002.3", "../../etc/passwd", &"9".repeat(64)] {
            assert_eq!(status(taken), None, "{taken}");
        }
        for refused in ["", "1.2 3", "1.2\u{7}", "é", &"9".repeat(65)] {
            assert_eq!(status(refused), Some(Status::INVALID_SOP_INSTANCE), "{refused:?}");
        }
    }
}
