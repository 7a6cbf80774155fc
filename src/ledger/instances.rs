//! The port between the ledger and intake.

use super::{Actor, NewInstance, Pending, Quarantined, Refused, Result, Stored};

/// Hears how an instance was recorded.
pub type Told = Box<dyn FnOnce(Result<Stored>) + Send>;

/// The records of received instances and of what was set aside.
pub trait Instances: Send + Sync {
    /// Records a received instance with its slices, opens or reopens its study. Once this is `Ok`, it is on disk.
    fn store(&self, instance: NewInstance) -> Pending<'_, Stored>;

    /// [`Instances::store`] for a blocking thread that does not wait: the ledger calls `then` with the outcome, or drops it
    /// uncalled where it is closed.
    fn post_store(&self, instance: NewInstance, then: Told) -> Result<()>;

    /// Records an object set aside. The same one again changes nothing and returns false. Where the instance that it conflicts
    /// with could not be read, it takes its place.
    fn quarantine(&self, object: Quarantined) -> Pending<'_, bool>;

    /// Notes that an object was not taken, unless the instance is there: its study is not complete without it. A study that is decided is
    /// judged again.
    fn note_refused(&self, object: Refused) -> Pending<'_, ()>;

    /// Where the file of an instance is, relative to the data folder; empty where it was removed. None where there is no such instance. Blocks.
    fn path_of(&self, study_uid: &str, series_uid: &str, sop_uid: &str) -> Result<Option<String>>;

    /// Wakes the stages that wait for studies: a transfer ended.
    fn transfer_ended(&self);

    /// Notes that the association that brought a study's last object was broken off. A study that is decided is judged again where its
    /// objects say that more belongs to it, and, unless its sender just fell silent (`is_silent`), where it was left unflagged and they do not
    /// say that all came. Does not wait until that is on disk; blocks while the ledger is full of writes.
    fn note_broken_off(&self, study_uid: String, is_silent: bool);

    /// Writes into the audit log that `actor` brought so many objects of a study. Does not wait until that is on disk; blocks
    /// while the ledger is full of writes.
    fn note_transfer(&self, actor: &Actor, study_uid: String, objects: u64);
}
