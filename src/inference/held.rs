//! Which slices the stage holds, and how many it may hold.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::ledger::{Claim, SliceId};

/// A slice that is held so long hangs, in a decoder or on the GPU.
const HANGS: Duration = Duration::from_secs(300);

/// What the stage knows of slices that the ledger does not.
pub(super) struct Held {
    slices: Mutex<Slices>,
    /// A permit a slice that may be held; acquired by the claimer, given back when the slice ends.
    room: Semaphore,
    permits: usize,
}

#[derive(Default)]
struct Slices {
    /// Claimed and not ended, with the moment of the claim.
    held: HashMap<SliceId, Instant>,
    /// Of these, what the model computes on.
    in_model: HashSet<SliceId>,
    /// Tried, and not to be claimed again for a while. They take no room.
    waiting: HashSet<SliceId>,
    /// Let go without an end in the ledger, which refused it: the node lives, so the claim that the ledger counts is no death,
    /// and the next one is the same claim.
    unrecorded: HashSet<SliceId>,
}

impl Held {
    /// Nothing, and room for so many slices.
    pub fn new(permits: usize) -> Held {
        Held { slices: Mutex::default(), room: Semaphore::new(permits), permits }
    }

    /// Takes all the room there is, for that many slices. Waits for half of it, but for `patience` at most: each claim is a
    /// commit, and one slice should not wait for many.
    pub async fn take_room(&self, patience: Duration) -> usize {
        let never = "the semaphore is never closed";
        let half = self.room.acquire_many(self.permits.div_ceil(2) as u32);
        let room = match tokio::time::timeout(patience, half).await {
            Ok(room) => room.expect(never),
            Err(_) => self.room.acquire().await.expect(never),
        };
        let mut most = room.num_permits();
        room.forget();
        while let Ok(more) = self.room.try_acquire() {
            more.forget();
            most += 1;
        }
        most
    }

    /// Gives back room that was taken for slices and is not needed.
    pub fn give_room(&self, slices: usize) {
        self.room.add_permits(slices);
    }

    /// Waits until there is all the room again, and nothing is held.
    pub async fn nothing(&self) {
        let _all = self.room.acquire_many(self.permits as u32).await;
    }

    /// How many slices are held.
    pub fn count(&self) -> usize {
        self.slices().held.len()
    }

    /// The slices that are not to be claimed now, and whether none of them is at work.
    pub fn taken(&self) -> (HashSet<SliceId>, bool) {
        let slices = self.slices();
        (slices.held.keys().chain(&slices.waiting).copied().collect(), slices.held.is_empty())
    }

    /// Takes off the deaths of claims what was none.
    pub fn forgive(&self, claims: &mut [Claim]) {
        let slices = self.slices();
        for claim in claims.iter_mut().filter(|claim| slices.unrecorded.contains(&claim.slice)) {
            claim.deaths = claim.deaths.saturating_sub(1);
        }
    }

    /// Of claimed slices those whose claim is to be counted.
    pub fn to_count(&self, claimed: &[SliceId]) -> Vec<SliceId> {
        let slices = self.slices();
        claimed.iter().copied().filter(|slice| !slices.unrecorded.contains(slice)).collect()
    }

    /// Slices are held from now on; their room was taken before.
    pub fn hold(&self, claimed: &[SliceId]) {
        let at = Instant::now();
        self.slices().held.extend(claimed.iter().map(|slice| (*slice, at)));
    }

    /// A slice has ended, in the ledger too.
    pub fn release(&self, slice: SliceId) {
        let mut slices = self.slices();
        slices.held.remove(&slice);
        slices.unrecorded.remove(&slice);
        drop(slices);
        self.give_room(1);
    }

    /// Slices go back to the queue, but are not to be claimed before [`Held::waited`]. `recorded`: the ledger knows of the
    /// attempt. What others need, their room, is free at once.
    pub fn put_back(&self, back: &[SliceId], recorded: bool) {
        let mut slices = self.slices();
        for &slice in back {
            slices.held.remove(&slice);
            slices.waiting.insert(slice);
            if recorded {
                slices.unrecorded.remove(&slice);
            } else {
                slices.unrecorded.insert(slice);
            }
        }
        drop(slices);
        self.give_room(back.len());
    }

    /// Slices may be claimed again.
    pub fn waited(&self, back: &[SliceId]) {
        self.slices().waiting.retain(|slice| !back.contains(slice));
    }

    /// Whether a slice has been held for so long that something must be wrong.
    pub fn hang(&self) -> bool {
        self.slices().held.values().any(|claimed| claimed.elapsed() >= HANGS)
    }

    /// The model begins to compute on slices.
    pub fn enter_model(&self, batch: impl Iterator<Item = SliceId>) {
        self.slices().in_model.extend(batch);
    }

    /// The model has done with slices, and lives.
    pub fn leave_model(&self, batch: impl Iterator<Item = SliceId>) {
        let mut slices = self.slices();
        batch.for_each(|slice| _ = slices.in_model.remove(&slice));
    }

    /// The slices whose claim is counted and that cannot be why the stage ended: neither do they hang, nor did a model end that
    /// computed on them.
    pub fn innocent(&self) -> Vec<SliceId> {
        let slices = self.slices();
        let held = slices.held.iter().filter(|(_, claimed)| claimed.elapsed() < HANGS).map(|(slice, _)| *slice);
        let mut innocent: HashSet<SliceId> = held.chain(slices.unrecorded.iter().copied()).collect();
        innocent.retain(|slice| !slices.in_model.contains(slice));
        innocent.into_iter().collect()
    }

    fn slices(&self) -> MutexGuard<'_, Slices> {
        self.slices.lock().expect("nobody panics while holding the sets")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(slice: SliceId, deaths: u32) -> Claim {
        Claim {
            slice,
            study_uid: "1".into(),
            sop_uid: "2".into(),
            frame: 1,
            path: "p".into(),
            transfer_syntax: "1.2.840.10008.1.2".into(),
            head_check: None,
            attempts: 0,
            deaths,
            claimed_at: "t".into(),
        }
    }

    #[tokio::test]
    async fn what_waits_for_another_attempt_takes_no_room() {
        let held = Held::new(2);
        assert_eq!(held.take_room(Duration::ZERO).await, 2);
        held.hold(&[1, 2]);
        assert_eq!(held.count(), 2);
        held.put_back(&[1, 2], true);
        assert_eq!(held.count(), 0);
        assert_eq!(held.taken(), (HashSet::from([1, 2]), true));
        held.waited(&[1]);
        assert_eq!(held.taken(), (HashSet::from([2]), true));
    }

    #[tokio::test]
    async fn an_end_that_was_refused_is_no_death_and_its_claim_is_counted_once() {
        let held = Held::new(2);
        held.take_room(Duration::ZERO).await;
        held.hold(&[1, 2]);
        held.put_back(&[1], false);
        held.waited(&[1]);
        let mut claims = [claim(1, 3), claim(2, 3)];
        held.forgive(&mut claims);
        assert_eq!((claims[0].deaths, claims[1].deaths), (2, 3));
        assert_eq!(held.to_count(&[1, 2]), [2]);
        // Once the ledger knows how it ended, the next claim counts again.
        held.hold(&[1]);
        held.put_back(&[1], true);
        assert_eq!(held.to_count(&[1, 2]), [1, 2]);
    }

    #[tokio::test]
    async fn what_the_model_ended_with_is_not_innocent() {
        let held = Held::new(3);
        held.take_room(Duration::ZERO).await;
        held.hold(&[1, 2, 3]);
        held.put_back(&[3], false);
        held.enter_model([1, 2].into_iter());
        held.leave_model([2].into_iter());
        let mut innocent = held.innocent();
        innocent.sort();
        assert_eq!(innocent, [2, 3]);
    }

    #[tokio::test]
    async fn half_the_room_is_waited_for_and_less_taken_where_that_takes_too_long() {
        let held = Held::new(4);
        assert_eq!(held.take_room(Duration::ZERO).await, 4);
        held.give_room(1);
        assert_eq!(held.take_room(Duration::from_millis(1)).await, 1);
        held.give_room(3);
        assert_eq!(held.take_room(Duration::from_secs(60)).await, 3);
    }
}
