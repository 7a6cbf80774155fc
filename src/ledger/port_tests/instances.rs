//! Tests that every [`Instances`](crate::ledger::Instances) must pass.

use std::time::Duration;

use super::{Backend, MINUTE, instance, request};
use crate::ledger::{About, Concatenation, NewInstance, OpenStudy, Quarantined, Refused, Stored, now};

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

pub(in crate::ledger) async fn what_was_refused_is_missing_until_it_comes(backend: &dyn Backend) {
    let instances = backend.instances();
    let refused = |series: &str, sop: &str| Refused {
        study_uid: "s".into(),
        series_uid: series.into(),
        sop_uid: sop.into(),
        reason: "the queue is full".into(),
    };
    // Before anything else of its study, twice, and of one that is there already.
    for sop in ["2", "2", "3"] {
        instances.note_refused(refused("1.3", sop)).await.unwrap();
    }
    instances.store(content("aa")).await.unwrap();
    instances.note_refused(refused("1.3", "1")).await.unwrap();
    let lacking = |backend: &dyn Backend| super::open(backend).slices[0].lacking.clone();
    let said = "2 objects of it were not taken and did not come since (the queue is full)";
    assert_eq!(lacking(backend).as_deref(), Some(said));
    instances.note_refused(refused("1.9", "4")).await.unwrap();
    assert_eq!(super::open(backend).refused_elsewhere, 1);
    for sop in ["2", "3"] {
        instances.store(instance(sop, "s")).await.unwrap();
    }
    assert_eq!(lacking(backend), None);
    // A study that was decided is judged again.
    let study = super::open(backend);
    backend.studies().decide(super::verdict(&study, false, false), Vec::new()).await.unwrap();
    instances.note_refused(refused("1.3", "5")).await.unwrap();
    assert_eq!(lacking(backend).as_deref().map(|said| &said[..8]), Some("1 object"));
    // And one is not decided by what was known before.
    let study = super::open(backend);
    instances.note_refused(refused("1.3", "6")).await.unwrap();
    assert!(!backend.studies().decide(super::verdict(&study, false, false), Vec::new()).await.unwrap());
}

pub(in crate::ledger) async fn what_a_broken_association_left_out_is_missing(backend: &dyn Backend) {
    let of = |sop: &str, images: i64| NewInstance { images_in_acquisition: Some(images), ..instance(sop, "s") };
    let instances = backend.instances();
    let ended = async |is_silent: bool| {
        instances.note_broken_off("s".into(), is_silent);
        // Its writes are in turn: when a later one is on disk, it is, too.
        let nobodys = Quarantined { study_uid: None, series_uid: None, ..set_aside("later") };
        instances.quarantine(nobodys).await.unwrap();
    };
    instances.store(of("1", 2)).await.unwrap();
    let open = super::open(backend);
    assert!(!open.is_broken_off && open.slices[0].lacking.is_none(), "more may follow");
    assert_eq!(open.fewer_images.as_deref(), Some("only 1 of the 2 images of the acquisition came"));
    // It is not decided by what was known before.
    ended(false).await;
    assert!(!backend.studies().decide(super::verdict(&open, false, false), Vec::new()).await.unwrap());
    let said = "the association was broken off, and only 1 of the 2 images of the acquisition came";
    let open = super::open(backend);
    assert_eq!((open.is_broken_off, open.slices[0].lacking.as_deref()), (true, Some(said)));
    // The sender has come again.
    instances.store(of("2", 2)).await.unwrap();
    let open = super::open(backend);
    assert!(!open.is_broken_off && open.slices[0].lacking.is_none() && open.fewer_images.is_none());
    // A decided study of which all came is left alone; one that lacks something is judged again.
    let decide = async |open: &OpenStudy| {
        assert!(backend.studies().decide(super::verdict(open, false, false), Vec::new()).await.unwrap());
    };
    decide(&open).await;
    ended(false).await;
    assert_eq!(backend.row("s").state, "decided");
    instances.store(of("3", 4)).await.unwrap();
    decide(&super::open(backend)).await;
    ended(false).await;
    assert!(super::open(backend).slices[0].lacking.is_some());
}

pub(in crate::ledger) async fn an_unflagged_study_of_a_broken_association_is_told_of_again(backend: &dyn Backend) {
    let instances = backend.instances();
    let ended = async |is_silent: bool| {
        instances.note_broken_off("s".into(), is_silent);
        let nobodys = Quarantined { study_uid: None, series_uid: None, ..set_aside("later") };
        instances.quarantine(nobodys).await.unwrap();
    };
    instances.store(instance("1", "s")).await.unwrap();
    let decide = async |flagged: bool| {
        let open = super::open(backend);
        assert!(backend.studies().decide(super::verdict(&open, false, flagged), Vec::new()).await.unwrap());
    };
    decide(false).await;
    // Some senders leave their associations open.
    ended(true).await;
    assert_eq!(backend.row("s").state, "decided");
    ended(false).await;
    assert!(super::open(backend).is_broken_off);
    // What comes beside it, or by associations that were open already, is not the rest.
    instances.store(NewInstance { resumes: false, ..instance("2", "s") }).await.unwrap();
    assert!(super::open(backend).is_broken_off);
    instances.store(instance("3", "s")).await.unwrap();
    assert!(!super::open(backend).is_broken_off);
    // Somebody reads a flagged study already.
    decide(true).await;
    ended(false).await;
    assert_eq!(backend.row("s").state, "decided");
}

pub(in crate::ledger) async fn parts_of_a_concatenation_that_did_not_come_are_missing(backend: &dyn Backend) {
    let part = |sop: &str| NewInstance {
        concatenation: Some(Concatenation { uid: "1.5".into(), total: 3 }),
        ..instance(sop, "s")
    };
    backend.instances().store(part("1")).await.unwrap();
    backend.instances().store(part("2")).await.unwrap();
    let lacking = |backend: &dyn Backend| super::open(backend).slices[0].lacking.clone();
    assert_eq!(lacking(backend).as_deref(), Some("1 of 3 parts of a concatenation did not come"));
    backend.instances().store(part("3")).await.unwrap();
    assert_eq!(lacking(backend), None);
}

pub(in crate::ledger) async fn several_patients_are_known_by_name_and_birth_date_too(backend: &dyn Backend) {
    let of = |sop: &str, id: Option<&str>, name: &str, birth_date: Option<&str>| NewInstance {
        patient_id: id.map(str::to_owned),
        about: About { patient_name: Some(name.into()), birth_date: birth_date.map(str::to_owned), ..About::default() },
        ..instance(sop, "s")
    };
    let store = async |instance| drop(backend.instances().store(instance).await.unwrap());
    store(of("1", Some("A"), "Alfa^Anna", Some("19500101"))).await;
    // Corrected, or written otherwise.
    store(of("2", Some("A"), "ALFA^ANNA^^", Some("1950.01.01"))).await;
    store(of("3", Some("A"), "Beta^Anna", None)).await;
    store(of("4", Some("A"), "Beta^Anna=ベータ", Some(""))).await;
    assert!(!super::open(backend).has_several_names);
    store(of("5", None, "Bravo^Bob", None)).await;
    assert!(super::open(backend).has_several_names);
}

pub(in crate::ledger) async fn what_is_set_aside_of_another_patient_mixes_no_two(backend: &dyn Backend) {
    let of = |digest: &str, id: &str, name: &str, birth_date: &str| NewInstance {
        patient_id: Some(id.into()),
        about: About { patient_name: Some(name.into()), birth_date: Some(birth_date.into()), ..About::default() },
        ..content(digest)
    };
    backend.instances().store(of("aa", "A1", "Alfa^Anna", "19500101")).await.unwrap();
    let study = super::open(backend);
    backend.studies().decide(super::verdict(&study, false, false), Vec::new()).await.unwrap();
    let stored = backend.instances().store(of("bb", "B2", "Bravo^Bob", "19900101")).await.unwrap();
    assert!(matches!(stored, Stored::Conflict { .. }));
    let row = backend.row("s");
    let patient = [row.patient_id, row.patient_name, row.birth_date].map(Option::unwrap_or_default);
    assert_eq!(patient, ["B2", "Bravo^Bob", "19900101"]);
    let open = super::open(backend);
    assert!(open.has_several_patients && open.has_several_names, "it is judged again, with a warning");
}

pub(in crate::ledger) async fn what_failed_for_want_of_its_file_is_scored_when_it_comes_again(backend: &dyn Backend) {
    let fail = async |reason: &str| {
        let claim = backend.queue().lease(request("run", 1, MINUTE)).await.unwrap().remove(0);
        backend.queue().fail(claim.lease, reason.into()).await.unwrap();
    };
    backend.instances().store(content("aa")).await.unwrap();
    fail("pixel data are cut off").await;
    assert_eq!(backend.instances().store(content("aa")).await.unwrap(), Stored::Duplicate, "it would fail again");
    backend.instances().store(NewInstance { digest: "cc".into(), ..instance("2", "s") }).await.unwrap();
    fail("the object archive/2 cannot be read: No such file or directory (os error 2)").await;
    let again = NewInstance { digest: "cc".into(), ..instance("2", "s") };
    assert_eq!(backend.instances().store(again).await.unwrap(), Stored::Restored);
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
