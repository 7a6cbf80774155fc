//! Which transfers still bring slices of which study: a study is complete only when they have ended.

use std::collections::{HashMap, HashSet};
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
    studies: Arc<Mutex<HashMap<String, Study>>>,
    transfers: Arc<AtomicU64>,
}

struct Study {
    open: HashSet<TransferId>,
    last: Instant,
}

impl Activity {
    /// A number for a transfer that begins.
    pub fn begin(&self) -> TransferId {
        self.transfers.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A transfer brings an object of this study. Called before the object is recorded, so that the study is never seen as
    /// quiet while a slice of it is on its way into the ledger.
    pub fn touch(&self, study_uid: &str, transfer: TransferId) {
        let mut studies = self.lock();
        let study =
            studies.entry(study_uid.to_owned()).or_insert_with(|| Study { open: HashSet::new(), last: Instant::now() });
        study.open.insert(transfer);
        study.last = Instant::now();
    }

    /// A transfer has ended, however it did. Its studies' quiet time begins now.
    pub fn ended(&self, transfer: TransferId) {
        self.lock().retain(|_, study| {
            if study.open.remove(&transfer) {
                study.last = Instant::now();
            }
            // Duplicates of a decided study touch it, and nobody judges it again. So a study that is long quiet is forgotten here.
            !study.open.is_empty() || study.last.elapsed() < FORGET
        });
    }

    /// How long a study has been quiet; `None` while a transfer that contributed to it is open. A study that is not known
    /// here has been quiet since before the process started.
    pub fn quiet_for(&self, study_uid: &str) -> Option<Duration> {
        match self.lock().get(study_uid) {
            None => Some(Duration::MAX),
            Some(study) if study.open.is_empty() => Some(study.last.elapsed()),
            Some(_) => None,
        }
    }

    /// Forgets a study that was decided, unless something still brings slices of it.
    pub fn forget(&self, study_uid: &str) {
        let mut studies = self.lock();
        if studies.get(study_uid).is_some_and(|study| study.open.is_empty()) {
            studies.remove(study_uid);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Study>> {
        self.studies.lock().expect("nobody panics while holding the activity map")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_study_is_quiet_only_when_all_its_transfers_have_ended() {
        let activity = Activity::default();
        let (first, second) = (activity.begin(), activity.begin());
        assert_ne!(first, second);
        assert_eq!(activity.quiet_for("s"), Some(Duration::MAX));
        activity.touch("s", first);
        activity.touch("s", second);
        activity.touch("other", second);
        activity.ended(first);
        assert_eq!(activity.quiet_for("s"), None);
        activity.ended(second);
        assert!(activity.quiet_for("s").is_some());
        activity.forget("s");
        assert_eq!(activity.quiet_for("s"), Some(Duration::MAX));
    }
}
