//! Tests that every [`Queue`](crate::ledger::Queue) must pass.

use std::time::Duration;

use super::{Backend, MINUTE, instance, request, score};
use crate::ledger::{Claim, Ended, LeaseRequest, NewInstance, SliceRow, SliceStart};

const HOUR: Duration = Duration::from_secs(3600);

async fn receive(backend: &dyn Backend, sops: &[&str]) {
    for sop in sops {
        backend.instances().store(instance(sop, "s")).await.unwrap();
    }
}

async fn lease(backend: &dyn Backend, run: &str, most: usize, duration: Duration) -> Vec<Claim> {
    backend.queue().lease(request(run, most, duration)).await.unwrap()
}

/// Leases a slice for no time at all.
async fn expired(backend: &dyn Backend, run: &str) -> Claim {
    let claim = lease(backend, run, 1, Duration::ZERO).await.remove(0);
    // The clock of a backend may have milliseconds.
    tokio::time::sleep(Duration::from_millis(3)).await;
    claim
}

pub(in crate::ledger) async fn a_leased_slice_is_given_to_nobody_else(backend: &dyn Backend) {
    receive(backend, &["1", "2"]).await;
    let first = lease(backend, "a", 1, MINUTE).await;
    let second = lease(backend, "a", 10, MINUTE).await;
    assert_eq!((first.len(), second.len()), (1, 1));
    assert_ne!(first[0].lease.slice, second[0].lease.slice);
    assert!(lease(backend, "b", 10, MINUTE).await.is_empty());
    assert_eq!(backend.queue().queue_depth().unwrap(), 2, "they wait until they end");
}

pub(in crate::ledger) async fn a_lease_that_expired_is_given_to_another_and_ends_nothing_any_more(
    backend: &dyn Backend,
) {
    receive(backend, &["1"]).await;
    let late = expired(backend, "a").await;
    let claim = lease(backend, "b", 1, MINUTE).await.remove(0);
    assert_eq!((claim.lease.slice, claim.deaths), (late.lease.slice, 1));
    let queue = backend.queue();
    assert_eq!(queue.complete(vec![score(&late, 0.9)]).await.unwrap(), [late.lease]);
    assert_eq!(queue.fail(late.lease, "x".into()).await.unwrap(), Ended::LeaseLost);
    assert_eq!(queue.decline(late.lease, "x".into(), None).await.unwrap(), Ended::LeaseLost);
    assert_eq!(queue.retry(late.lease, "x".into(), Duration::ZERO).await.unwrap(), Ended::LeaseLost);
    assert_eq!(queue.extend(vec![late.lease, claim.lease], MINUTE).await.unwrap(), [late.lease]);
    queue.give_back(vec![late.lease]).await.unwrap();
    assert!(lease(backend, "c", 1, MINUTE).await.is_empty(), "it is still the second worker's");
    assert!(queue.complete(vec![score(&claim, 0.1)]).await.unwrap().is_empty());
    assert_eq!(backend.slices("s")[0].probability, Some(0.1));
}

pub(in crate::ledger) async fn a_lease_that_is_extended_does_not_expire(backend: &dyn Backend) {
    receive(backend, &["1"]).await;
    let claim = expired(backend, "a").await;
    assert!(backend.queue().extend(vec![claim.lease], MINUTE).await.unwrap().is_empty());
    assert!(lease(backend, "b", 1, MINUTE).await.is_empty());
}

pub(in crate::ledger) async fn a_lease_that_expired_but_was_not_taken_still_ends_its_slice(backend: &dyn Backend) {
    receive(backend, &["1"]).await;
    let claim = expired(backend, "a").await;
    assert!(backend.queue().complete(vec![score(&claim, 0.7)]).await.unwrap().is_empty());
    assert_eq!(backend.slices("s")[0].state, "scored");
}

pub(in crate::ledger) async fn a_worker_that_takes_its_own_expired_lease_again_has_not_died(backend: &dyn Backend) {
    receive(backend, &["1"]).await;
    let before = expired(backend, "a").await;
    let again = expired(backend, "a").await;
    assert_eq!(again.lease.number, before.lease.number + 1);
    assert_eq!(lease(backend, "b", 1, MINUTE).await[0].deaths, 1, "one worker was silent, once");
}

pub(in crate::ledger) async fn a_run_that_died_is_counted_and_its_slices_are_taken_up(backend: &dyn Backend) {
    receive(backend, &["1"]).await;
    let claim = lease(backend, "a", 1, MINUTE).await.remove(0);
    assert_eq!(claim.deaths, 0);
    assert_eq!(backend.queue().recover("node").await.unwrap(), 1);
    let claim = lease(backend, "b", 1, MINUTE).await.remove(0);
    assert_eq!(claim.deaths, 1);
    backend.queue().retry(claim.lease, "x".into(), Duration::ZERO).await.unwrap();
    tokio::time::sleep(Duration::from_millis(3)).await;
    assert_eq!(lease(backend, "b", 1, MINUTE).await[0].deaths, 1, "the attempt that was recorded is no death");
}

pub(in crate::ledger) async fn a_slice_that_ended_runs_is_leased_alone_by_an_idle_worker(backend: &dyn Backend) {
    receive(backend, &["1", "2"]).await;
    for run in ["a", "b"] {
        assert_eq!(lease(backend, run, 1, MINUTE).await[0].sop_uid, "1");
        backend.queue().recover("node").await.unwrap();
    }
    let busy = LeaseRequest { is_idle: false, ..request("c", 10, MINUTE) };
    assert!(backend.queue().lease(busy).await.unwrap().is_empty(), "the suspect waits, and the others for it");
    let alone = lease(backend, "c", 10, MINUTE).await;
    assert_eq!((alone.len(), alone[0].sop_uid.as_str(), alone[0].deaths), (1, "1", 2));
    assert_eq!(lease(backend, "c", 10, MINUTE).await[0].sop_uid, "2");
}

pub(in crate::ledger) async fn what_is_given_back_is_counted_as_no_death_however_often(backend: &dyn Backend) {
    receive(backend, &["1"]).await;
    let claim = lease(backend, "a", 1, MINUTE).await.remove(0);
    backend.queue().give_back(vec![claim.lease]).await.unwrap();
    // Once more than it was leased: no debt comes of it.
    backend.queue().give_back(vec![claim.lease]).await.unwrap();
    assert_eq!(lease(backend, "b", 1, Duration::ZERO).await[0].deaths, 0);
    tokio::time::sleep(Duration::from_millis(3)).await;
    assert_eq!(lease(backend, "c", 1, MINUTE).await[0].deaths, 1);
}

pub(in crate::ledger) async fn an_attempt_that_failed_is_counted_and_waits(backend: &dyn Backend) {
    receive(backend, &["1"]).await;
    let claim = lease(backend, "a", 1, MINUTE).await.remove(0);
    let queue = backend.queue();
    assert_eq!(queue.retry(claim.lease, "the disk hiccupped".into(), HOUR / 10).await.unwrap(), Ended::Recorded);
    assert!(lease(backend, "a", 1, MINUTE).await.is_empty(), "it waits");
    assert_eq!(queue.recover("node").await.unwrap(), 1, "a new run does not wait");
    let claim = lease(backend, "b", 1, MINUTE).await.remove(0);
    assert_eq!((claim.attempts, claim.deaths), (1, 0));
    // No slice waits longer than some minutes: this was written before the clock was set back.
    queue.retry(claim.lease, "x".into(), 24 * HOUR).await.unwrap();
    assert_eq!(lease(backend, "b", 1, MINUTE).await[0].attempts, 2);
}

pub(in crate::ledger) async fn a_slice_ends_once(backend: &dyn Backend) {
    receive(backend, &["1"]).await;
    let claim = lease(backend, "a", 1, MINUTE).await.remove(0);
    assert!(backend.queue().complete(vec![score(&claim, 0.7)]).await.unwrap().is_empty());
    assert_eq!(backend.queue().complete(vec![score(&claim, 0.2)]).await.unwrap(), [claim.lease]);
    assert_eq!(backend.queue().decline(claim.lease, "x".into(), None).await.unwrap(), Ended::LeaseLost);
    let slices = backend.slices("s");
    assert_eq!((slices[0].state.as_str(), slices[0].probability), ("scored", Some(0.7)));
    assert!(backend.queue().is_idle().unwrap());
}

pub(in crate::ledger) async fn a_backend_that_fails_a_slice_keeps_the_reason(backend: &dyn Backend) {
    receive(backend, &["1", "2"]).await;
    let claims = lease(backend, "a", 2, MINUTE).await;
    let queue = backend.queue();
    assert_eq!(queue.fail(claims[0].lease, "the disk hiccupped".into()).await.unwrap(), Ended::Recorded);
    assert_eq!(queue.decline(claims[1].lease, "no pixels".into(), None).await.unwrap(), Ended::Recorded);
    let of = |slice: &SliceRow| (slice.sop_uid.clone(), slice.state.clone(), slice.reason.clone().unwrap());
    let mut slices: Vec<_> = backend.slices("s").iter().map(of).collect();
    slices.sort();
    let expected = [("1", "failed", "the disk hiccupped"), ("2", "ineligible", "no pixels")];
    assert_eq!(slices, expected.map(|(sop, state, reason)| (sop.to_owned(), state.to_owned(), reason.to_owned())));
}

pub(in crate::ledger) async fn stat_slices_go_first_and_starve_nobody(backend: &dyn Backend) {
    for number in 0..12 {
        backend.instances().store(instance(&format!("1.{number}"), "1")).await.unwrap();
    }
    for number in 0..8 {
        let stat = NewInstance { stat: true, ..instance(&format!("2.{number}"), "2") };
        backend.instances().store(stat).await.unwrap();
    }
    let mut order = Vec::new();
    // One at a time and several at once, as there are permits.
    for most in [1, 1, 1, 3, 8, 20] {
        order.extend(lease(backend, "a", most, MINUTE).await.into_iter().map(|claim| claim.sop_uid));
    }
    let expected = [
        "2.0", "2.1", "2.2", "1.0", "2.3", "2.4", "2.5", "1.1", "2.6", "2.7", "1.2", "1.3", "1.4", "1.5", "1.6", "1.7",
        "1.8", "1.9", "1.10", "1.11",
    ];
    assert_eq!(order, expected);
}

pub(in crate::ledger) async fn senders_take_turns_however_many_studies_one_has(backend: &dyn Backend) {
    for number in 0..40 {
        backend.instances().store(instance(&format!("a{number}"), &format!("1.{number}"))).await.unwrap();
    }
    for number in 0..4 {
        let other = NewInstance { calling_ae: "OTHER".into(), ..instance(&format!("b{number}"), "2") };
        backend.instances().store(other).await.unwrap();
    }
    let claims = backend.queue().lease(request("run", 8, MINUTE)).await.unwrap();
    assert_eq!(claims.iter().filter(|claim| claim.study_uid == "2").count(), 4, "{claims:?}");
}

pub(in crate::ledger) async fn an_object_is_given_up_as_a_whole(backend: &dyn Backend) {
    let slices = vec![SliceStart::Queued.into(); 5];
    backend.instances().store(NewInstance { slices, ..instance("multi", "1") }).await.unwrap();
    backend.instances().store(instance("single", "1")).await.unwrap();
    let claims = backend.queue().lease(request("run", 3, MINUTE)).await.unwrap();
    let lease = claims[0].lease;
    assert_eq!(backend.queue().give_up_object(lease, "why".into()).await.unwrap(), (Ended::Recorded, 4));
    assert_eq!(backend.queue().give_up_object(lease, "again".into()).await.unwrap(), (Ended::LeaseLost, 0));
    // Whoever works on another slice of it can end nothing any more.
    assert_eq!(backend.queue().complete(vec![score(&claims[1], 0.5)]).await.unwrap(), [claims[1].lease]);
    let rows = backend.slices("1");
    let failed = rows.iter().filter(|row| row.state == "failed" && row.reason.as_deref() == Some("why"));
    assert_eq!((failed.count(), rows.len()), (5, 6));
    assert_eq!(backend.queue().queue_depth().unwrap(), 1);
}
