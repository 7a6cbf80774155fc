//! Which associations are still bringing slices of which study: a study is complete only when they have ended.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Numbers an association within the process.
pub type AssociationId = u64;

/// Longer than any quiet time that makes sense; after it a study is as quiet as one that was never heard of.
const FORGET: Duration = Duration::from_secs(24 * 3600);

/// Shared by the associations, which write it, and the triage stage, which reads it. What a crash forgets is right: all
/// associations have ended then.
#[derive(Clone, Default)]
pub struct Activity {
    studies: Arc<Mutex<HashMap<String, Study>>>,
}

struct Study {
    open: HashSet<AssociationId>,
    last: Instant,
}

impl Activity {
    /// An association brings an object of this study. Called before the object is recorded, so that the study is never
    /// seen as quiet while a slice of it is on its way into the ledger.
    pub fn touch(&self, study_uid: &str, association: AssociationId) {
        let mut studies = self.lock();
        let study =
            studies.entry(study_uid.to_owned()).or_insert_with(|| Study { open: HashSet::new(), last: Instant::now() });
        study.open.insert(association);
        study.last = Instant::now();
    }

    /// An association has ended, however it did. Its studies' quiet time begins now.
    pub fn ended(&self, association: AssociationId) {
        self.lock().retain(|_, study| {
            if study.open.remove(&association) {
                study.last = Instant::now();
            }
            // Duplicates of a decided study touch it, and nobody judges it again: what is long quiet is forgotten.
            !study.open.is_empty() || study.last.elapsed() < FORGET
        });
    }

    /// How long a study has been quiet; `None` while an association that contributed to it is open. A study that is not
    /// known here has been quiet since before the process started.
    pub fn quiet_for(&self, study_uid: &str) -> Option<Duration> {
        match self.lock().get(study_uid) {
            None => Some(Duration::MAX),
            Some(study) if study.open.is_empty() => Some(study.last.elapsed()),
            Some(_) => None,
        }
    }

    /// Forgets a study that was decided, unless something is still bringing slices of it.
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
    fn a_study_is_quiet_only_when_all_its_associations_have_ended() {
        let activity = Activity::default();
        assert_eq!(activity.quiet_for("s"), Some(Duration::MAX));
        activity.touch("s", 1);
        activity.touch("s", 2);
        activity.touch("other", 2);
        activity.ended(1);
        assert_eq!(activity.quiet_for("s"), None);
        activity.ended(2);
        assert!(activity.quiet_for("s").is_some());
        activity.forget("s");
        assert_eq!(activity.quiet_for("s"), Some(Duration::MAX));
    }
}
