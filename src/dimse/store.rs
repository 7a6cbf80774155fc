//! C-STORE (PS3.7 9.1.1, PS3.4 B): the data set streams into the archive while it comes in; then the intake takes it.

use std::io;
use std::time::Instant;

use tokio::task::JoinHandle;

use crate::archive::{Incoming, Meta};
use crate::intake::Source;

use super::association::Peer;
use super::command::Request;
use super::listener::Scp;
use super::policy::Context;
use super::status::Status;

/// Pieces are gathered to this size, so that a write is worth its thread. One is filled while another is written.
const CHUNK: usize = 256 * 1024;

/// An object that is coming in. Whatever goes wrong, the rest of the data set is read and dropped, so that the failure
/// gets its status and the association lives on.
pub struct Reception<'s> {
    scp: &'s Scp,
    source: Source,
    size: u64,
    chunk: Vec<u8>,
    state: State,
    began: Instant,
}

enum State {
    Writing(JoinHandle<io::Result<(Incoming, Vec<u8>)>>),
    Failed(Status),
}

impl<'s> Reception<'s> {
    pub fn begin(scp: &'s Scp, peer: &Peer, context: &Context, request: &Request) -> Reception<'s> {
        let source = Source {
            sop_class_uid: request.sop_class_uid.clone(),
            sop_instance_uid: request.sop_instance_uid.clone(),
            transfer_syntax: context.transfer_syntax.clone(),
            calling_ae: peer.calling_ae.clone(),
            peer: peer.address,
            association: peer.association,
        };
        let state = match check(context, request).and_then(|()| room(scp)) {
            Err(status) => State::Failed(status),
            Ok(()) => {
                let archive = scp.intake.archive().clone();
                let min_free = scp.min_free_bytes;
                let meta = Meta {
                    sop_class_uid: source.sop_class_uid.clone(),
                    sop_instance_uid: source.sop_instance_uid.clone(),
                    transfer_syntax: source.transfer_syntax.clone(),
                    source_ae_title: source.calling_ae.clone(),
                };
                State::Writing(tokio::task::spawn_blocking(move || {
                    if archive.free_bytes()? < min_free {
                        return Err(io::Error::new(
                            io::ErrorKind::StorageFull,
                            "less than archive.min_free_mib is free",
                        ));
                    }
                    Ok((archive.begin(&meta)?, Vec::with_capacity(CHUNK)))
                }))
            }
        };
        Reception { scp, source, size: 0, chunk: Vec::with_capacity(CHUNK), state, began: Instant::now() }
    }

    /// Takes a piece of the data set.
    pub async fn write(&mut self, piece: &[u8]) {
        self.size += piece.len() as u64;
        if let State::Failed(_) = self.state {
            return;
        }
        if self.size > self.scp.max_object_bytes {
            let mib = self.scp.max_object_bytes >> 20;
            return self.fail(Status::new(
                Status::OUT_OF_RESOURCES,
                format!("the object is larger than dimse.max_object_mib, {mib} MiB"),
            ));
        }
        self.chunk.extend_from_slice(piece);
        if self.chunk.len() >= CHUNK {
            self.flush().await;
        }
    }

    /// Hands the gathered chunk to a blocking thread, once the one before it is written.
    async fn flush(&mut self) {
        let State::Writing(writing) = &mut self.state else { return };
        match joined(writing.await) {
            Ok((mut incoming, mut empty)) => {
                std::mem::swap(&mut self.chunk, &mut empty);
                let mut full = empty;
                self.chunk.clear();
                self.state = State::Writing(tokio::task::spawn_blocking(move || {
                    incoming.write(&full)?;
                    full.clear();
                    Ok((incoming, full))
                }));
            }
            Err(error) => self.fail(not_stored(&error)),
        }
    }

    fn fail(&mut self, status: Status) {
        self.chunk = Vec::new();
        self.state = State::Failed(status);
    }

    /// The data set is complete: stores it and says how that went.
    pub async fn finish(self) -> Status {
        metrics::counter!("triaged_received_bytes_total").increment(self.size);
        let status = match self.state {
            State::Failed(status) => status,
            State::Writing(writing) => match joined(writing.await) {
                Err(error) => not_stored(&error),
                Ok((mut incoming, _)) => {
                    let chunk = self.chunk;
                    let intake = self.scp.intake.clone();
                    let synced = tokio::task::spawn_blocking(move || {
                        incoming.write(&chunk)?;
                        incoming.finish()
                    });
                    match joined(synced.await) {
                        Err(error) => not_stored(&error),
                        Ok(received) => intake.take(received, self.source).await,
                    }
                }
            },
        };
        let outcome = if status.is_success() { "stored" } else { "refused" };
        metrics::counter!("triaged_instances_total", "outcome" => outcome).increment(1);
        metrics::histogram!("triaged_store_seconds").record(self.began.elapsed().as_secs_f64());
        status
    }
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
