//! Between those who bring objects and the ledger: a received object becomes a recorded instance, a duplicate, or is set
//! aside. The intake knows no protocol; whoever brings an object puts the [`Outcome`] into the words of its own.
//!
//! [`Intake::begin_transfer`] comes first, [`Transfer::receive`] takes each object, [`Reception`] its bytes. `header`
//! reads what identifies an object, `record` files it.

mod header;
mod reception;
mod record;

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::archive::Archive;
use crate::ledger::{Actor, Deed, Ledger};
use crate::triage::Activity;

pub use crate::triage::TransferId;
pub use header::Rules;
pub use reception::{Memory, Reception};

/// Takes in what transfers bring. Cheap to clone.
#[derive(Clone)]
pub struct Intake {
    archive: Archive,
    ledger: Ledger,
    activity: Activity,
    rules: Arc<Rules>,
    limits: Limits,
    /// Turns at reading a header. A hostile header inflates to hundreds of megabytes, so only a few are read at one time,
    /// however many transfers are open.
    reading: Arc<Semaphore>,
    /// One permit for each transfer that may gather whole objects in memory.
    gathering: Arc<Semaphore>,
}

/// When an object is refused though nothing is wrong with it.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a data set (`dimse.max_object_mib`).
    pub max_object_bytes: u64,
    /// Slices that may wait to be scored (`inference.max_queue`).
    pub max_queue: u64,
}

/// An object as its sender announces it, before its data set.
#[derive(Debug, Clone)]
pub struct Announced {
    pub sop_class_uid: String,
    pub sop_instance_uid: String,
    pub transfer_syntax: String,
}

/// Who brings an object.
#[derive(Debug, Clone)]
pub struct Sender {
    pub calling_ae: String,
    pub peer: IpAddr,
    /// What it brings is scored before others.
    pub stat: bool,
    /// Its own limit beside [`Limits::max_object_bytes`].
    pub max_object_bytes: Option<u64>,
}

impl Sender {
    /// The sender, for the audit log.
    fn actor(&self) -> Actor {
        Actor::peer(format!("{} {}", self.calling_ae, self.peer))
    }
}

/// The fate of an object that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is on disk and recorded.
    Stored,
    /// The same object was there already; nothing is new.
    Duplicate,
    /// Other content is there under the same SOP Instance UID. The first is kept, this one is in quarantine.
    SetAside,
    /// Its data set contradicts what was announced, or lacks what identifies it; it is in quarantine.
    DoesNotMatch(String),
    /// Its data set cannot be read; it is in quarantine.
    CannotUnderstand(String),
    /// It was announced without a usable SOP Instance UID; nothing is kept.
    InvalidInstance(String),
    /// The node cannot keep it now; nothing is kept, the sender should send it again later.
    OutOfResources(String),
}

impl Outcome {
    /// Whether the sender may forget the object: it, or the object that it repeats, is on disk and recorded.
    pub fn is_kept(&self) -> bool {
        matches!(self, Outcome::Stored | Outcome::Duplicate | Outcome::SetAside)
    }

    /// Why the object was refused, without patient data and without a path; empty if it was not.
    pub fn reason(&self) -> &str {
        match self {
            Outcome::Stored | Outcome::Duplicate | Outcome::SetAside => "",
            Outcome::DoesNotMatch(why)
            | Outcome::CannotUnderstand(why)
            | Outcome::InvalidInstance(why)
            | Outcome::OutOfResources(why) => why,
        }
    }

    fn not_stored(why: impl std::fmt::Display) -> Outcome {
        Outcome::OutOfResources(format!("could not be stored: {why}"))
    }
}

impl Intake {
    pub fn new(archive: Archive, ledger: Ledger, activity: Activity, rules: Rules, limits: Limits) -> Intake {
        let turns = std::thread::available_parallelism().map_or(2, |cores| cores.get().min(4));
        Intake {
            archive,
            ledger,
            activity,
            rules: Arc::new(rules),
            limits,
            reading: Arc::new(Semaphore::new(turns)),
            gathering: Arc::new(reception::gathering()),
        }
    }

    /// Begins a transfer: the studies that it brings objects of are not complete before it is dropped.
    pub fn begin_transfer(&self, sender: Sender) -> Transfer {
        Transfer { id: self.activity.begin(), intake: self.clone(), sender }
    }

    /// Whether scoring keeps up. A study that would wait for hours is better kept by its sender, who sees that it waits.
    fn has_room(&self) -> Result<(), Outcome> {
        let waiting = self.ledger.last_queue_depth();
        if waiting < self.limits.max_queue {
            return Ok(());
        }
        Err(Outcome::OutOfResources(format!("{waiting} slices wait to be scored (inference.max_queue)")))
    }
}

/// One sender's objects, from its first to its last: a DICOM association. Dropped when it ends, however it does.
pub struct Transfer {
    id: TransferId,
    intake: Intake,
    sender: Sender,
}

impl Transfer {
    pub fn id(&self) -> TransferId {
        self.id
    }

    /// Begins to receive an object. `memory` is what [`Reception::finish`] gave back for the object before, or empty.
    pub fn receive(&self, announced: Announced, memory: Memory) -> Reception<'_> {
        Reception::begin(self, announced, memory)
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        let brought = self.intake.activity.ended(self.id);
        self.intake.ledger.changed().notify_waiters();
        if brought.is_empty() {
            return;
        }
        let (ledger, actor) = (self.intake.ledger.clone(), self.sender.actor());
        let note = move || {
            for (study_uid, objects) in brought {
                let details = serde_json::json!({ "objects": objects });
                ledger.post_deed(Deed {
                    actor: actor.clone(),
                    name: "study.receive",
                    study_uid: Some(study_uid),
                    details,
                });
            }
        };
        // The ledger may be full of writes, and to wait for it blocks.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(note)),
            Err(_) => note(),
        }
    }
}
