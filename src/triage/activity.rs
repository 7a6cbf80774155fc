//! Which transfers still bring slices of which study, and since when a study is quiet. A transfer that goes on to another study has
//! ended for the one before.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Numbers a transfer within the process. A DICOM association is one; one request of another protocol would be one too.
pub type TransferId = u64;

/// Longer than any quiet time that makes sense. A study that was quiet for so long is treated like one that was never heard of.
const FORGET: Duration = Duration::from_secs(24 * 3600);

/// Shared by the intake, which writes it, and the judge, which reads it. A crash loses it, which is right: all transfers
/// have ended then.
#[derive(Clone, Default)]
pub struct Activity {
    known: Arc<Mutex<Known>>,
    transfers: Arc<AtomicU64>,
}

#[derive(Default)]
struct Known {
    studies: HashMap<String, Study>,
    /// The study that a transfer brought an object of last.
    latest: HashMap<TransferId, String>,
    /// How many objects of which study a transfer has brought.
    brought: HashMap<TransferId, BTreeMap<String, u64>>,
}

struct Study {
    /// Transfers that are open and brought an object of this study last.
    open: HashSet<TransferId>,
    last: Instant,
}

/// How long a study has been quiet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quiet {
    /// Since its last object came or its last transfer ended. [`Duration::MAX`]: since before the process started.
    pub lasting: Duration,
    /// A transfer is open that may well bring more of it.
    pub is_open: bool,
}

impl Activity {
    /// A number for a transfer that begins.
    pub fn begin(&self) -> TransferId {
        self.transfers.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A transfer brings an object of this study. Called before the object is recorded, so that the study is never seen as
    /// quiet while a slice of it is on its way into the ledger.
    pub fn touch(&self, study_uid: &str, transfer: TransferId) {
        *self.lock().brought.entry(transfer).or_default().entry(study_uid.to_owned()).or_default() += 1;
        self.turn_to(study_uid, transfer);
    }

    /// A transfer has begun to bring an object of this study, and none of it came yet.
    pub fn turn_to(&self, study_uid: &str, transfer: TransferId) {
        let mut known = self.lock();
        let before = known.latest.insert(transfer, study_uid.to_owned());
        if let Some(before) = before.filter(|before| before != study_uid)
            && let Some(study) = known.studies.get_mut(&before)
        {
            study.open.remove(&transfer);
        }
        let new = || Study { open: HashSet::new(), last: Instant::now() };
        let study = known.studies.entry(study_uid.to_owned()).or_insert_with(new);
        study.open.insert(transfer);
        study.last = Instant::now();
    }

    /// The study that a transfer brought an object of last.
    pub fn latest_of(&self, transfer: TransferId) -> Option<String> {
        self.lock().latest.get(&transfer).cloned()
    }

    /// A transfer has ended, however it did. The quiet time of its last study begins now. Returns how many objects of which study
    /// it has brought.
    pub fn ended(&self, transfer: TransferId) -> BTreeMap<String, u64> {
        let mut known = self.lock();
        let brought = known.brought.remove(&transfer).unwrap_or_default();
        known.latest.remove(&transfer);
        known.studies.retain(|_, study| {
            if study.open.remove(&transfer) {
                study.last = Instant::now();
            }
            // Duplicates of a decided study touch it, and nobody judges it again. So a study that is long quiet is forgotten here.
            !study.open.is_empty() || study.last.elapsed() < FORGET
        });
        brought
    }

    /// How long a study has been quiet. One that is not known here has been quiet since before the process started.
    pub fn quiet_for(&self, study_uid: &str) -> Quiet {
        match self.lock().studies.get(study_uid) {
            None => Quiet { lasting: Duration::MAX, is_open: false },
            Some(study) => Quiet { lasting: study.last.elapsed(), is_open: !study.open.is_empty() },
        }
    }

    /// Forgets a study that was decided, unless something still brings slices of it.
    pub fn forget(&self, study_uid: &str) {
        let mut known = self.lock();
        if known.studies.get(study_uid).is_some_and(|study| study.open.is_empty()) {
            known.studies.remove(study_uid);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("nobody panics while holding what is known of studies")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_is_open_for_the_study_it_brings_and_for_no_other() {
        let activity = Activity::default();
        assert_eq!(activity.quiet_for("s").lasting, Duration::MAX);
        activity.touch("s", 1);
        activity.touch("s", 2);
        activity.ended(1);
        assert!(activity.quiet_for("s").is_open);
        activity.touch("other", 2);
        assert!(!activity.quiet_for("s").is_open && activity.quiet_for("other").is_open);
        activity.ended(2);
        assert!(!activity.quiet_for("other").is_open);
        activity.forget("s");
        assert_eq!(activity.quiet_for("s").lasting, Duration::MAX);
    }
}
