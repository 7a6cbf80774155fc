//! Tests that every [`Instances`](crate::ledger::Instances) must pass.

use std::time::Duration;

use super::{Backend, MINUTE, instance, request};
use crate::ledger::{NewInstance, Quarantined, Stored, now};

fn content(digest: &str) -> NewInstance {
    NewInstance { digest: digest.into(), ..instance("1", "s") }
}

fn set_aside(digest: &str) -> Quarantined {
    Quarantined {
        sop_uid: "1".into(),
        study_uid: Some("s".into()),
        series_uid: Some("1.3".into()),
        digest: digest.into(),
        path: format!("quarantine/{digest}"),
        size: 7,
        transfer_syntax: "1.2.840.10008.1.2.1".into(),
        reason: "other content".into(),
        calling_ae: "CT".into(),
        peer: "127.0.0.1".into(),
        received_at: now(),
    }
}

pub(in crate::ledger) async fn the_same_content_again_is_a_duplicate_and_other_content_a_conflict(
    backend: &dyn Backend,
) {
    let instances = backend.instances();
    assert_eq!(instances.store(content("aa")).await.unwrap(), Stored::New);
    assert_eq!(instances.store(content("aa")).await.unwrap(), Stored::Duplicate);
    assert_eq!(instances.store(content("bb")).await.unwrap(), Stored::Conflict { kept_digest: "aa".into() });
    assert_eq!(backend.row("s").slices_received, 1);
    // Identity is of three UIDs: the same SOP instance in another series is another instance.
    let elsewhere = NewInstance { series_uid: "1.4".into(), ..content("bb") };
    assert_eq!(instances.store(elsewhere).await.unwrap(), Stored::New);
    assert_eq!(backend.row("s").slices_received, 2);
}

pub(in crate::ledger) async fn what_is_posted_is_recorded_as_what_is_stored(backend: &dyn Backend) {
    let queued = backend.queue().queued().notified();
    let (tell, told) = tokio::sync::oneshot::channel();
    let then = Box::new(move |stored| drop(tell.send(stored)));
    backend.instances().post_store(instance("1", "s"), then).unwrap();
    assert_eq!(told.await.unwrap().unwrap(), Stored::New);
    tokio::time::timeout(MINUTE, queued).await.expect("who scores is woken");
    assert_eq!(backend.queue().lease(request("run", 9, MINUTE)).await.unwrap().len(), 1);
}

pub(in crate::ledger) async fn what_was_set_aside_is_counted_once(backend: &dyn Backend) {
    let instances = backend.instances();
    instances.store(content("aa")).await.unwrap();
    assert!(instances.quarantine(set_aside("bb")).await.unwrap());
    assert!(!instances.quarantine(set_aside("bb")).await.unwrap(), "the same one again");
    assert_eq!(super::open(backend).set_aside, 1);
}

pub(in crate::ledger) async fn a_readable_copy_takes_the_place_of_one_that_failed(backend: &dyn Backend) {
    backend.instances().store(content("aa")).await.unwrap();
    let claim = backend.queue().lease(request("run", 1, MINUTE)).await.unwrap().remove(0);
    backend.queue().fail(claim.lease, "truncated".into()).await.unwrap();
    assert_eq!(backend.row("s").slices_failed, 1);
    assert_eq!(backend.instances().store(content("bb")).await.unwrap(), Stored::Replaced);
    let row = backend.row("s");
    assert_eq!((row.slices_received, row.slices_failed), (1, 0));
    assert_eq!(backend.queue().lease(request("run", 9, MINUTE)).await.unwrap().len(), 1);
}

pub(in crate::ledger) async fn the_end_of_a_transfer_wakes_who_waits_for_studies(backend: &dyn Backend) {
    let changed = backend.studies().changed().notified();
    backend.instances().transfer_ended();
    tokio::time::timeout(Duration::from_secs(10), changed).await.expect("woken");
}
