//! How many slices may wait to be scored: of all senders together, and of each of them. Only what comes counts: slices that are scored again,
//! or whose files were taken in again, keep no new patient out.
//!
//! The ledger counts its queue every second. Between two counts, what was let in since is added, so the bounds are never exceeded, whatever
//! an object brings and however many come at one time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use crate::ledger::Queue;
use crate::plural::{counted, verb};

use super::{Limits, Outcome};

/// The room in the queue.
pub(super) struct Room {
    max: u64,
    max_of_source: u64,
    queue: Arc<dyn Queue>,
    let_in: Mutex<LetIn>,
}

/// The objects that were let in and are perhaps not in the last count.
#[derive(Default)]
struct LetIn {
    next: u64,
    entries: HashMap<u64, Entry>,
    total: u64,
    by_source: HashMap<Arc<str>, u64>,
    /// Slices of files that were taken in again: beside the room that the others fill.
    beside: u64,
    /// The count that the entries were last held against.
    counted_as_of: Option<Instant>,
}

struct Entry {
    /// None: beside the room that senders fill.
    source: Option<Arc<str>>,
    slices: u64,
    recorded: Option<Instant>,
}

/// Room for the slices of one object. Dropped before [`Place::recorded`], it is given back.
pub(super) struct Place {
    room: Arc<Room>,
    id: u64,
    is_recorded: bool,
}

impl Room {
    pub fn new(limits: Limits, queue: Arc<dyn Queue>) -> Room {
        Room { max: limits.max_queue, max_of_source: limits.max_queue_of_source, queue, let_in: Mutex::default() }
    }

    /// Whether there is room at all for a sender's slices. A study that would wait for hours is better kept by its sender, who sees
    /// that it waits.
    pub fn check(&self, source: &str) -> Result<(), Outcome> {
        self.fits(source, 1, &mut self.let_in())
    }

    /// Whether at most half of the slices that may wait do.
    pub fn is_half_free(&self) -> bool {
        let mut let_in = self.let_in();
        let count = self.queue.last_count();
        if let_in.counted_as_of != Some(count.as_of) {
            let_in.forget_counted(count.as_of);
        }
        count.waiting + let_in.total + let_in.beside <= self.max / 2
    }

    /// Takes no room from anybody: for slices of an object that is on the disk already. They only count in [`Room::is_half_free`].
    pub fn take_beside(self: &Arc<Room>, slices: u64) -> Place {
        self.place(None, slices, &mut self.let_in())
    }

    /// Takes room for the slices of an object.
    pub fn take(self: &Arc<Room>, source: &str, slices: u64) -> Result<Place, Outcome> {
        let mut let_in = self.let_in();
        if slices > 0 {
            self.fits(source, slices, &mut let_in)?;
        }
        Ok(self.place(Some(source), slices, &mut let_in))
    }

    fn place(self: &Arc<Room>, source: Option<&str>, slices: u64, let_in: &mut LetIn) -> Place {
        let (id, source): (u64, Option<Arc<str>>) = (let_in.next, source.map(Into::into));
        let_in.next += 1;
        match &source {
            Some(source) => {
                let_in.total += slices;
                *let_in.by_source.entry(source.clone()).or_default() += slices;
            }
            None => let_in.beside += slices,
        }
        let_in.entries.insert(id, Entry { source, slices, recorded: None });
        Place { room: self.clone(), id, is_recorded: false }
    }

    fn fits(&self, source: &str, slices: u64, let_in: &mut LetIn) -> Result<(), Outcome> {
        let count = self.queue.last_count();
        if let_in.counted_as_of != Some(count.as_of) {
            let_in.forget_counted(count.as_of);
        }
        let waiting = count.new + let_in.total;
        let of_source = |map: Option<&u64>| map.copied().unwrap_or(0);
        let waiting_of_source = of_source(count.new_by_source.get(source)) + of_source(let_in.by_source.get(source));
        let more = if slices > 1 { format!(", and the object has {slices} frames") } else { String::new() };
        if waiting + slices > self.max {
            return refused(
                "all",
                format!(
                    "{} {} to be scored{more} (inference.max_queue)",
                    counted(waiting, "slice"),
                    verb(waiting, "waits", "wait")
                ),
            );
        }
        if waiting_of_source + slices > self.max_of_source {
            let why = format!(
                "{} of this sender {} to be scored{more}",
                counted(waiting_of_source, "slice"),
                verb(waiting_of_source, "waits", "wait")
            );
            return refused("source", format!("{why} (inference.max_queue_of_source)"));
        }
        Ok(())
    }

    fn let_in(&self) -> MutexGuard<'_, LetIn> {
        self.let_in.lock().expect("nobody panics while holding it")
    }
}

fn refused(bound: &'static str, why: String) -> Result<(), Outcome> {
    metrics::counter!("triaged_queue_refusals_total", "bound" => bound).increment(1);
    Err(Outcome::OutOfResources(why))
}

impl LetIn {
    /// Whatever was recorded before a count began is in it.
    fn forget_counted(&mut self, as_of: Instant) {
        let counted = |entry: &Entry| entry.recorded.is_some_and(|recorded| recorded < as_of);
        let ids: Vec<u64> = self.entries.iter().filter(|(_, entry)| counted(entry)).map(|(id, _)| *id).collect();
        ids.into_iter().for_each(|id| self.forget(id));
        self.counted_as_of = Some(as_of);
    }

    fn forget(&mut self, id: u64) {
        let Some(Entry { source, slices, .. }) = self.entries.remove(&id) else { return };
        let Some(source) = source else {
            self.beside -= slices;
            return;
        };
        self.total -= slices;
        if let Some(of_source) = self.by_source.get_mut(&source) {
            *of_source -= slices;
            if *of_source == 0 {
                self.by_source.remove(&source);
            }
        }
    }
}

impl Place {
    /// The object is recorded: its slices are in the next count.
    pub fn recorded(mut self) {
        self.is_recorded = true;
        if let Some(entry) = self.room.let_in().entries.get_mut(&self.id) {
            entry.recorded = Some(Instant::now());
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.is_recorded {
            self.room.let_in().forget(self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Ledger;

    fn room(max_queue: u64, max_queue_of_source: u64) -> (tempfile::TempDir, Arc<Room>) {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&folder.path().join("triaged.db")).unwrap();
        let limits = Limits { max_object_bytes: 1, max_queue, max_queue_of_source, max_bytes_of_source: 0 };
        (folder, Arc::new(Room::new(limits, Arc::new(ledger))))
    }

    fn why(taken: Result<Place, Outcome>) -> String {
        taken.err().expect("no room").reason().to_owned()
    }

    #[test]
    fn objects_that_come_together_do_not_exceed_the_bounds_together() {
        let (_folder, room) = room(10, 6);
        let first = room.take("A", 4).unwrap();
        assert!(
            why(room.take("A", 3)).contains("4 slices of this sender wait to be scored, and the object has 3 frames")
        );
        let second = room.take("B", 5).unwrap();
        assert!(why(room.take("C", 2)).contains("inference.max_queue)"));
        let third = room.take("C", 1).unwrap();
        assert!(room.check("C").is_err());
        drop((first, third));
        second.recorded();
        // Recorded, but no count has it yet.
        assert!(why(room.take("C", 6)).contains("5 slices wait"));
        // The count that follows does not have it, as it was in no ledger.
        room.queue.queue_depth().unwrap();
        room.take("C", 6).unwrap();
    }

    #[test]
    fn what_is_taken_in_again_is_at_most_half_of_the_queue_and_takes_no_room() {
        let (_folder, room) = room(10, 10);
        let first = room.take_beside(5);
        assert!(room.is_half_free());
        first.recorded();
        let _second = room.take_beside(1);
        assert!(!room.is_half_free(), "before any count has them");
        let _new = room.take("B", 10).unwrap();
        assert!(room.take("B", 1).is_err());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn work_that_is_done_again_keeps_nobody_out() {
        use crate::ledger::port_tests::{instance, request, score};
        use crate::ledger::{Actor, Instances, NewInstance};

        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&folder.path().join("triaged.db")).unwrap();
        let limits = Limits { max_object_bytes: 1, max_queue: 4, max_queue_of_source: 4, max_bytes_of_source: 0 };
        let room = Arc::new(Room::new(limits, Arc::new(ledger.clone())));
        for sop in ["1", "2", "3", "4"] {
            ledger.store(instance(sop, "old")).await.unwrap();
        }
        let mut claims = ledger.lease(request("run", 4, std::time::Duration::from_secs(60))).await.unwrap();
        ledger.fail(claims.pop().unwrap().lease, "no GPU".into()).await.unwrap();
        ledger.complete(claims.iter().map(|claim| score(claim, 0.1)).collect()).await.unwrap();
        let again = tokio::task::block_in_place(|| ledger.requeue_study("old", &Actor::system()));
        assert_eq!(again.unwrap(), 4);
        ledger.store(NewInstance { is_taken_in_again: true, ..instance("5", "found") }).await.unwrap();
        assert_eq!(ledger.queue_depth().unwrap(), 5, "all are shown");
        let source = instance("6", "new").source();
        let _place = room.take(&source, 4).expect("nothing new waits");
        assert!(room.take(&source, 1).is_err());
        ledger.store(instance("6", "new")).await.unwrap();
        ledger.queue_depth().unwrap();
        assert_eq!((ledger.last_count().new, ledger.last_count().waiting), (1, 6));
    }

    #[test]
    fn an_object_without_a_slice_to_score_needs_no_room() {
        let (_folder, room) = room(1, 1);
        let _first = room.take("A", 1).unwrap();
        room.take("A", 0).unwrap();
    }
}
