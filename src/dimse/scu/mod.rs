//! The service class user: C-ECHO and C-STORE to a peer (PS3.4 A and B), as `triaged send` and `triaged echo`
//! use it; [`Association::ask`] sends any request.
//!
//! `find` looks for objects in files and folders, [`store`] pushes them on one association. It works on blocking
//! sockets; the objects are read and converted on a second thread while the first waits for the peer.

mod association;
mod error;
mod find;
mod offer;
mod peer;
mod prepare;
mod response;
mod stream;

use std::sync::mpsc;
use std::time::{Duration, Instant};

use dicom_dictionary_std::uids;

pub use association::{Association, Priority, Response, Role};
pub use error::ScuError;
pub use find::{Found, Object, find};
pub use offer::Offer;
pub use peer::{Peer, PeerError};
pub use response::{StoreError, Stored, may_pass, meaning};

use prepare::prepare;
use response::is_stored;

/// Objects that are read ahead of the one being sent.
const READ_AHEAD: usize = 2;

/// Asks the peer whether it is there: C-ECHO on an association of its own. Returns the time from request to response.
pub fn echo(peer: &Peer) -> Result<Duration, ScuError> {
    let contexts = [(uids::VERIFICATION.to_owned(), uids::IMPLICIT_VR_LITTLE_ENDIAN.to_owned())];
    let mut association = Association::request(peer, &contexts, Role::Scu)?;
    let begun = Instant::now();
    let response = association.echo()?;
    let took = begun.elapsed();
    let failed = association.protocol(format!("C-ECHO was answered with status {:04X}H", response.status));
    association.release();
    if response.status == 0 { Ok(took) } else { Err(failed) }
}

/// Pushes `objects` on one association, in order. `each` hears of every object that was answered or could not be sent;
/// it is not called for those that a lost association left unsent.
///
/// # Errors
/// [`ScuError`] when there is no association, or none any more.
pub fn store(
    peer: &Peer,
    objects: &[Object],
    priority: Priority,
    each: &mut dyn FnMut(&Object, Result<Stored, StoreError>),
) -> Result<(), ScuError> {
    let offer = Offer::of(objects);
    let mut association = Association::request(peer, offer.contexts(), Role::Scu)?;
    let accepted = association.accepted.clone();
    std::thread::scope(|scope| {
        let (ready, prepared) = mpsc::sync_channel(READ_AHEAD);
        scope.spawn(move || {
            for object in objects {
                let next = offer::choose(object, &accepted).and_then(|choice| prepare(object, &choice));
                // The other end is gone when the association is lost.
                if ready.send((object, next)).is_err() {
                    return;
                }
            }
        });
        let mut message_id = 0u16;
        for (object, next) in prepared {
            match next {
                Err(why) => each(object, Err(StoreError::Unsendable(why))),
                Ok(next) => {
                    message_id = message_id.checked_add(1).unwrap_or(1);
                    let (class, instance) = (&object.sop_class_uid, &object.sop_instance_uid);
                    let response =
                        association.store(next.context, message_id, class, instance, priority, next.data_set())?;
                    let Response { status, comment } = response;
                    each(
                        object,
                        match is_stored(status) {
                            true => Ok(Stored {
                                bytes: next.data_set().len() as u64,
                                transfer_syntax: next.transfer_syntax,
                                status,
                                comment,
                            }),
                            false => Err(StoreError::Refused { status, comment }),
                        },
                    );
                }
            }
        }
        association.release();
        Ok(())
    })
}
