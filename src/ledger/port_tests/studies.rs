//! Tests that every [`Studies`](crate::ledger::Studies) must pass.

use std::time::Duration;

use super::{Backend, MINUTE, alert, instance, open, request, score, scored, verdict};
use crate::ledger::{NewInstance, Verdict};

pub(in crate::ledger) async fn one_alarm_a_study_however_often_it_is_judged(backend: &dyn Backend) {
    let study = scored(backend, "1", 0.9).await;
    assert_eq!(study.slices_queued(), 0);
    let studies = backend.studies();
    assert!(studies.decide(verdict(&study, true, true), vec![alert()]).await.unwrap());
    assert_eq!((backend.row("s").state.as_str(), backend.row("s").flagged), ("receiving", Some(true)));
    assert!(studies.decide(verdict(&study, false, true), vec![alert()]).await.unwrap());
    // A late slice reopens the study; its flag stays up and the next revision does not alarm again.
    let study = scored(backend, "2", 0.1).await;
    let reopened = backend.row("s");
    assert_eq!((reopened.revision, reopened.state.as_str(), reopened.flagged), (2, "receiving", Some(true)));
    assert!(studies.decide(verdict(&study, false, true), vec![alert()]).await.unwrap());
    assert_eq!(backend.outbox().due("webhook", 10, Duration::from_secs(3600)).unwrap().len(), 1);
    assert_eq!(backend.flags("s").len(), 3);
}

pub(in crate::ledger) async fn a_flag_is_never_taken_back(backend: &dyn Backend) {
    let study = scored(backend, "1", 0.9).await;
    assert!(backend.studies().decide(verdict(&study, true, true), vec![alert()]).await.unwrap());
    assert!(backend.studies().decide(verdict(&study, false, false), vec![]).await.unwrap());
    assert_eq!(backend.row("s").flagged, Some(true));
    assert_eq!(backend.flags("s"), [Some(true), Some(false)], "what was found is on record");
}

pub(in crate::ledger) async fn scores_of_another_model_are_made_anew_before_a_verdict(backend: &dyn Backend) {
    assert_eq!(scored(backend, "1", 0.9).await.slices_of_other_models, 0);
    let studies = backend.studies();
    assert_eq!(studies.open_studies("11").unwrap()[0].slices_of_other_models, 1);
    studies.requeue_other_models("s".into(), "11".into()).await.unwrap();
    assert_eq!(backend.queue().lease(request("run", 9, MINUTE)).await.unwrap().len(), 1);
}

pub(in crate::ledger) async fn a_verdict_on_evidence_that_has_changed_is_not_taken(backend: &dyn Backend) {
    let study = scored(backend, "1", 0.1).await;
    backend.instances().store(instance("2", "s")).await.unwrap();
    assert!(!backend.studies().decide(verdict(&study, false, false), vec![]).await.unwrap());
    assert_eq!(backend.row("s").state, "receiving");
    assert!(backend.flags("s").is_empty());
    // More evidence only raises the score: the alert holds whatever came meanwhile.
    assert!(backend.studies().decide(verdict(&study, true, true), vec![alert()]).await.unwrap());
    assert_eq!(backend.row("s").flagged, Some(true));
}

pub(in crate::ledger) async fn a_slice_scored_after_the_hard_cap_reopens_its_study(backend: &dyn Backend) {
    backend.instances().store(instance("1", "s")).await.unwrap();
    let without = Verdict { flagged: None, score: None, ..verdict(&open(backend), false, false) };
    assert!(backend.studies().decide(without, vec![]).await.unwrap());
    assert_eq!(backend.row("s").verdict_in_words(), "not triaged");
    let claim = backend.queue().lease(request("run", 1, MINUTE)).await.unwrap().remove(0);
    backend.queue().complete(vec![score(&claim, 0.9)]).await.unwrap();
    assert_eq!((backend.row("s").revision, backend.row("s").state.as_str()), (2, "receiving"));
}

pub(in crate::ledger) async fn the_most_suspicious_slices_come_first(backend: &dyn Backend) {
    for (sop, probability) in [("1", 0.2), ("2", 0.9), ("3", 0.5)] {
        scored(backend, sop, probability).await;
    }
    let top = backend.studies().top_slices("s", 2).unwrap();
    let top: Vec<(&str, f64)> = top.iter().map(|slice| (slice.sop_uid.as_str(), slice.probability)).collect();
    assert_eq!(top, [("2", 0.9), ("3", 0.5)]);
}

pub(in crate::ledger) async fn who_sent_a_study_is_known(backend: &dyn Backend) {
    for (sop, sender) in [("1", "CT2"), ("2", "CT1"), ("3", "CT2")] {
        let instance = NewInstance { calling_ae: sender.into(), ..instance(sop, "s") };
        backend.instances().store(instance).await.unwrap();
    }
    assert_eq!(backend.studies().calling_ae_titles("s").unwrap(), ["CT1", "CT2"]);
    assert_eq!(backend.studies().station_name("s").unwrap(), None);
}
