//! Which slices the stage works on, and how many it may. The leases themselves are in the ledger.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::ledger::{Claim, Lease, SliceId};

/// A slice that is worked on for so long hangs, in a decoder or on the GPU.
const HANGS: Duration = Duration::from_secs(300);

/// The slices that are leased and have not ended.
pub(super) struct InFlight {
    slices: Mutex<HashMap<SliceId, Work>>,
    /// A permit for each slice that may be in flight: acquired before the lease, given back after the end.
    permits: Semaphore,
    most: usize,
}

struct Work {
    lease: Lease,
    since: Instant,
    step: Step,
}

/// How far a slice is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It is decoded, or waits for its batch.
    Decoding,
    /// The model computes on it.
    InModel,
    /// It has come to its end, which the ledger is still to record.
    Recording,
}

impl InFlight {
    /// Nothing, and permits for so many slices.
    pub fn new(most: usize) -> InFlight {
        InFlight { slices: Mutex::default(), permits: Semaphore::new(most), most }
    }

    /// Takes all free permits and returns how many. Waits until half of all are free, but for `patience` at most: each lease is a
    /// commit, and one slice should not wait for many.
    pub async fn take_permits(&self, patience: Duration) -> usize {
        let never = "the semaphore is never closed";
        let half = self.permits.acquire_many(self.most.div_ceil(2) as u32);
        let taken = match tokio::time::timeout(patience, half).await {
            Ok(taken) => taken.expect(never),
            Err(_) => self.permits.acquire().await.expect(never),
        };
        let mut permits = taken.num_permits();
        taken.forget();
        while let Ok(more) = self.permits.try_acquire() {
            more.forget();
            permits += 1;
        }
        permits
    }

    /// Gives permits back that are not needed.
    pub fn return_permits(&self, permits: usize) {
        self.permits.add_permits(permits);
    }

    /// Waits until nothing is in flight.
    pub async fn drained(&self) {
        let _all = self.permits.acquire_many(self.most as u32).await;
    }

    /// How many slices are in flight.
    pub fn count(&self) -> usize {
        self.slices().len()
    }

    /// Slices are in flight from now on; their permits were taken before. Returns those that are to be worked on. A slice that
    /// was in flight all the time, though its lease expired, goes on with its new lease.
    pub fn begin(&self, claims: Vec<Claim>) -> Vec<Claim> {
        let since = Instant::now();
        let mut slices = self.slices();
        let mut begun = Vec::with_capacity(claims.len());
        for claim in claims {
            let lease = claim.lease;
            match slices.get_mut(&lease.slice) {
                Some(work) => work.lease = lease,
                None => {
                    slices.insert(lease.slice, Work { lease, since, step: Step::Decoding });
                    begun.push(claim);
                }
            }
        }
        drop(slices);
        begun
    }

    /// The present lease of a slice in flight.
    pub fn lease(&self, slice: SliceId) -> Option<Lease> {
        self.slices().get(&slice).map(|work| work.lease)
    }

    /// The present leases of all slices in flight.
    pub fn leases(&self) -> Vec<Lease> {
        self.slices().values().map(|work| work.lease).collect()
    }

    /// Notes how far slices are.
    pub fn enter(&self, slices: impl Iterator<Item = SliceId>, step: Step) {
        let mut all = self.slices();
        for slice in slices {
            if let Some(work) = all.get_mut(&slice) {
                work.step = step;
            }
        }
    }

    /// A slice has ended, in the ledger too, or is no longer this worker's.
    pub fn end(&self, slice: SliceId) {
        if self.slices().remove(&slice).is_some() {
            self.return_permits(1);
        }
    }

    /// Whether a slice has been worked on for so long that something must be wrong. One that waits for the ledger does not hang.
    pub fn has_hanging_slice(&self) -> bool {
        self.slices().values().any(Work::hangs)
    }

    /// The leases of slices that cannot be why the stage ended: neither do they hang, nor did a model end that computed on
    /// them.
    pub fn not_at_fault(&self) -> Vec<Lease> {
        let slices = self.slices();
        slices.values().filter(|work| !work.hangs() && work.step != Step::InModel).map(|work| work.lease).collect()
    }

    fn slices(&self) -> MutexGuard<'_, HashMap<SliceId, Work>> {
        self.slices.lock().expect("nobody panics while holding the map")
    }
}

impl Work {
    fn hangs(&self) -> bool {
        self.step != Step::Recording && self.since.elapsed() >= HANGS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(slice: SliceId, number: i64) -> Claim {
        Claim {
            lease: Lease { slice, number },
            study_uid: "1".into(),
            sop_uid: "2".into(),
            frame: 1,
            path: "p".into(),
            transfer_syntax: "1.2.840.10008.1.2".into(),
            head_check: None,
            attempts: 0,
            deaths: 0,
            claimed_at: "t".into(),
        }
    }

    #[tokio::test]
    async fn a_slice_takes_a_permit_until_its_end() {
        let in_flight = InFlight::new(2);
        assert_eq!(in_flight.take_permits(Duration::ZERO).await, 2);
        assert_eq!(in_flight.begin(vec![claim(1, 1), claim(2, 1)]).len(), 2);
        in_flight.end(1);
        // Ended twice, it gives back one permit.
        in_flight.end(1);
        assert_eq!((in_flight.count(), in_flight.take_permits(Duration::ZERO).await), (1, 1));
    }

    #[tokio::test]
    async fn a_slice_whose_lease_expired_goes_on_with_its_new_lease() {
        let in_flight = InFlight::new(2);
        in_flight.begin(vec![claim(1, 1)]);
        assert_eq!(in_flight.begin(vec![claim(1, 2), claim(2, 1)]), [claim(2, 1)], "it is not begun a second time");
        assert_eq!(in_flight.lease(1), Some(Lease { slice: 1, number: 2 }));
    }

    #[tokio::test]
    async fn the_slice_that_the_model_ended_with_is_at_fault_and_no_other() {
        let in_flight = InFlight::new(3);
        in_flight.begin(vec![claim(1, 1), claim(2, 1), claim(3, 1)]);
        in_flight.enter([1, 2].into_iter(), Step::InModel);
        in_flight.enter([2].into_iter(), Step::Recording);
        let mut leases = in_flight.not_at_fault();
        leases.sort_by_key(|lease| lease.slice);
        assert_eq!(leases, [Lease { slice: 2, number: 1 }, Lease { slice: 3, number: 1 }]);
    }

    #[tokio::test]
    async fn half_the_permits_are_waited_for_and_less_taken_where_that_takes_too_long() {
        let in_flight = InFlight::new(4);
        assert_eq!(in_flight.take_permits(Duration::ZERO).await, 4);
        in_flight.return_permits(1);
        assert_eq!(in_flight.take_permits(Duration::from_millis(1)).await, 1);
        in_flight.return_permits(3);
        assert_eq!(in_flight.take_permits(Duration::from_secs(60)).await, 3);
    }
}
