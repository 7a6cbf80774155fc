//! Between those who bring objects and the ledger: a received object becomes a recorded instance, a duplicate, or is set
//! aside. The intake knows no protocol; whoever brings an object puts the [`Outcome`] into the words of its own.
//!
//! [`Intake::begin_transfer`] comes first, [`Transfer::receive`] takes each object, [`Reception`] its bytes. `header`
//! reads what identifies an object, `record` files it, `adoption` takes in files of the archive that have no row.

mod adoption;
mod header;
mod reception;
mod record;
mod room;
mod unnoted;
mod volume;

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::archive::Archive;
use crate::ledger::{Actor, Instances, Queue, source};
use crate::triage::Activity;
use crate::trouble::Trouble;

pub use crate::triage::TransferId;
pub use adoption::Adoption;
pub use header::Rules;
pub use reception::{Memory, Reception};
use room::Room;
use unnoted::Unnoted;
use volume::Volume;

/// Takes in what transfers bring. Cheap to clone.
#[derive(Clone)]
pub struct Intake {
    archive: Archive,
    instances: Arc<dyn Instances>,
    activity: Activity,
    rules: Arc<Rules>,
    limits: Limits,
    room: Arc<Room>,
    volume: Arc<Volume>,
    /// Objects that could not be stored.
    storing: Trouble,
    /// Turns at reading the header of an object that was gathered in memory. A hostile one takes some 50 MiB, so only a few are read at
    /// one time, however many transfers are open.
    reading: Arc<Semaphore>,
    /// The turn at reading another header, which may take hundreds of megabytes.
    reading_large: Arc<Semaphore>,
    /// One permit for each transfer that may gather whole objects in memory.
    gathering: Arc<Semaphore>,
    /// What was refused while the ledger could not be written.
    unnoted: Arc<Unnoted>,
}

/// When an object is refused though nothing is wrong with it.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a data set (`dimse.max_object_mib`).
    pub max_object_bytes: u64,
    /// Slices that may wait to be scored (`inference.max_queue`).
    pub max_queue: u64,
    /// Slices of one sender that may wait (`inference.max_queue_of_source`).
    pub max_queue_of_source: u64,
    /// Bytes that one address may bring in an hour (`dimse.max_gib_of_source_per_hour`); 0: no bound.
    pub max_bytes_of_source: u64,
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
    /// Its objects are scored before others.
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
    /// The node does not keep it now, as it has enough; the sender should send it again later.
    OutOfResources(String),
    /// The node cannot keep it, as its disk or its ledger fails; the sender should send it again later.
    NotStored(String),
}

impl Sender {
    /// Its name in the queue.
    fn source(&self) -> String {
        source(&self.calling_ae, &self.peer.to_string())
    }
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
            | Outcome::OutOfResources(why)
            | Outcome::NotStored(why) => why,
        }
    }

    fn not_stored(why: impl std::fmt::Display) -> Outcome {
        Outcome::NotStored(format!("could not be stored: {why}"))
    }
}

impl Intake {
    /// `storing` hears of each object that could not be stored, or was.
    pub fn new(
        archive: Archive,
        instances: Arc<dyn Instances>,
        queue: Arc<dyn Queue>,
        activity: Activity,
        rules: Rules,
        limits: Limits,
        storing: Trouble,
    ) -> Intake {
        let turns = std::thread::available_parallelism().map_or(2, |cores| cores.get().min(4));
        let room = Arc::new(Room::new(limits, queue));
        let unnoted = Unnoted::open(&archive.file(""));
        Intake {
            archive,
            instances,
            activity,
            rules: Arc::new(rules),
            limits,
            room,
            volume: Arc::new(Volume::new(limits.max_bytes_of_source)),
            storing,
            reading: Arc::new(Semaphore::new(turns)),
            reading_large: Arc::new(Semaphore::new(1)),
            gathering: Arc::new(reception::gathering()),
            unnoted: Arc::new(unnoted),
        }
    }

    /// Begins a transfer: the studies that it brings objects of are not complete before it is dropped.
    pub fn begin_transfer(&self, sender: Sender) -> Transfer {
        Transfer { id: self.activity.begin(), intake: self.clone(), sender, end: Ending::BrokenOff }
    }
}

/// One sender's objects, from its first to its last: a DICOM association. Dropped when it ends, however it does.
pub struct Transfer {
    id: TransferId,
    intake: Intake,
    sender: Sender,
    end: Ending,
}

/// How a transfer ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Its sender has said that nothing more comes.
    Released,
    /// Its sender said nothing for long. Some leave an association open when all is sent.
    Silent,
    BrokenOff,
}

impl Transfer {
    /// Its sender says that nothing more comes. One that is dropped without that was broken off.
    pub fn released(&mut self) {
        self.end = Ending::Released;
    }

    /// Its sender has said nothing for so long that it is given up.
    pub fn fell_silent(&mut self) {
        self.end = Ending::Silent;
    }

    pub fn id(&self) -> TransferId {
        self.id
    }

    /// Begins to receive an object. `memory` is what [`Reception::finish`] gave back for the object before, or empty.
    pub fn receive(&self, announced: Announced, memory: Memory) -> Reception<'_> {
        Reception::begin(self, announced, memory, None)
    }

    /// As [`Transfer::receive`], of an object that is refused before its first byte: what comes tells whose study lacks it.
    pub fn refuse(&self, announced: Announced, memory: Memory, outcome: Outcome) -> Reception<'_> {
        Reception::begin(self, announced, memory, Some(outcome))
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        let (is_released, is_silent) = (self.end == Ending::Released, self.end == Ending::Silent);
        let broken_off = (!is_released).then(|| self.intake.activity.broken_off(self.id, is_silent)).flatten();
        let brought = self.intake.activity.ended(self.id);
        self.intake.instances.transfer_ended();
        if brought.is_empty() && broken_off.is_none() {
            return;
        }
        let (instances, actor) = (self.intake.instances.clone(), self.sender.actor());
        let note = move || {
            if let Some(study_uid) = broken_off {
                instances.note_broken_off(study_uid, is_silent);
            }
            for (study_uid, objects) in brought {
                instances.note_transfer(&actor, study_uid, objects);
            }
        };
        // The ledger may be full of writes, and to wait for it blocks.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(note)),
            Err(_) => note(),
        }
    }
}
