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
    /// The study and series that a transfer brought an object of last.
    latest: HashMap<TransferId, (String, Option<String>)>,
    /// Studies of which transfers were broken off, and what of each came last.
    broken: HashMap<String, Vec<Broken>>,
    /// How many objects of which study a transfer has brought.
    brought: HashMap<TransferId, BTreeMap<String, u64>>,
}

/// Where a transfer of a study was broken off.
struct Broken {
    /// None where what came did not tell it.
    series: Option<String>,
    /// The last transfer that had begun by then.
    begun: TransferId,
}

/// Studies whose broken transfer is remembered. Of one that was forgotten whatever comes counts as the rest.
const MOST_BROKEN: usize = 1000;

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
    pub fn touch(&self, study_uid: &str, series_uid: &str, transfer: TransferId) {
        *self.lock().brought.entry(transfer).or_default().entry(study_uid.to_owned()).or_default() += 1;
        self.turn_to(study_uid, Some(series_uid), transfer);
    }

    /// A transfer has begun to bring an object of this study, and none of it came yet.
    pub fn turn_to(&self, study_uid: &str, series_uid: Option<&str>, transfer: TransferId) {
        let mut known = self.lock();
        let before = known.latest.insert(transfer, (study_uid.to_owned(), series_uid.map(str::to_owned)));
        if let Some((before, _)) = before.filter(|(before, _)| before != study_uid)
            && let Some(study) = known.studies.get_mut(&before)
        {
            study.open.remove(&transfer);
        }
        let new = || Study { open: HashSet::new(), last: Instant::now() };
        let study = known.studies.entry(study_uid.to_owned()).or_insert_with(new);
        study.open.insert(transfer);
        study.last = Instant::now();
    }

    /// A transfer was broken off. Returns the study that it brought an object of last. Of one whose sender only fell silent (`is_silent`), which may
    /// have sent all, whatever comes counts as the rest.
    pub fn broken_off(&self, transfer: TransferId, is_silent: bool) -> Option<String> {
        let begun = self.transfers.load(Ordering::Relaxed);
        let mut known = self.lock();
        let (study_uid, series) = known.latest.get(&transfer).cloned()?;
        if is_silent {
            return Some(study_uid);
        }
        if known.broken.len() >= MOST_BROKEN {
            let begun_last = |broken: &Vec<Broken>| broken.iter().map(|broken| broken.begun).max();
            let oldest =
                known.broken.iter().min_by_key(|(_, broken)| begun_last(broken)).map(|(study, _)| study.clone());
            oldest.and_then(|oldest| known.broken.remove(&oldest));
        }
        let of_study = known.broken.entry(study_uid.clone()).or_default();
        // One for each series is enough: the later one waits for what comes later still.
        of_study.retain(|broken| broken.series != series);
        of_study.push(Broken { series, begun });
        Some(study_uid)
    }

    /// Whether an object is the rest of what was broken off, as far as can be told: of the same series, in a transfer that began since. What comes
    /// beside it, in transfers that were open already, or a localizer, does not say that the sender has come again; nor does the rest of one
    /// series while that of another is awaited. So of a study of which nothing is known to be broken off.
    pub fn resumes(&self, study_uid: &str, series_uid: &str, transfer: TransferId) -> bool {
        let mut known = self.lock();
        let is_rest = |broken: &Broken| {
            transfer > broken.begun && broken.series.as_deref().is_none_or(|series| series == series_uid)
        };
        let Some(of_study) = known.broken.get_mut(study_uid) else { return true };
        of_study.retain(|broken| !is_rest(broken));
        let resumes = of_study.is_empty();
        if resumes {
            known.broken.remove(study_uid);
        }
        resumes
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
        activity.touch("s", "a", 1);
        activity.touch("s", "a", 2);
        activity.ended(1);
        assert!(activity.quiet_for("s").is_open);
        activity.touch("other", "b", 2);
        assert!(!activity.quiet_for("s").is_open && activity.quiet_for("other").is_open);
        activity.ended(2);
        assert!(!activity.quiet_for("other").is_open);
        activity.forget("s");
        assert_eq!(activity.quiet_for("s").lasting, Duration::MAX);
    }

    #[test]
    fn the_rest_of_a_broken_transfer_is_of_its_series_and_comes_later() {
        let activity = Activity::default();
        let [first, beside] = [activity.begin(), activity.begin()];
        assert!(activity.resumes("s", "a", first), "nothing was broken off");
        activity.touch("s", "a", first);
        activity.touch("s", "b", beside);
        assert_eq!(activity.broken_off(first, false).as_deref(), Some("s"));
        assert!(!activity.resumes("s", "b", beside) && !activity.resumes("s", "a", beside), "it was open already");
        let later = activity.begin();
        assert!(!activity.resumes("s", "localizer", later));
        assert!(activity.resumes("s", "a", later));
        assert!(activity.resumes("s", "b", beside), "that has come again");
        assert_eq!(activity.broken_off(later, false), None, "it brought nothing");
    }

    #[test]
    fn two_broken_transfers_wait_for_the_rest_of_both() {
        let activity = Activity::default();
        let [head, bone] = [activity.begin(), activity.begin()];
        activity.touch("s", "head", head);
        activity.touch("s", "bone", bone);
        for transfer in [head, bone] {
            activity.broken_off(transfer, false);
        }
        let again = activity.begin();
        assert!(!activity.resumes("s", "bone", again), "the head is still awaited");
        assert!(activity.resumes("s", "head", again));
        activity.touch("s", "head", again);
        activity.broken_off(again, true);
        assert!(activity.resumes("s", "reformats", again), "its sender fell silent, and may have sent all");
    }
}
