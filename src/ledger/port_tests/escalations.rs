//! Tests that every [`Escalations`](crate::ledger::Escalations) must pass.

use std::sync::Arc;
use std::time::Duration;

use super::{Backend, MINUTE, alert, instance, open, scored, verdict};
use crate::event::{Event, StudyEvent};
use crate::ledger::{Delivery, NewInstance, NewMessage, SliceStart, Step, Verdict, Waiting, now};

const HOUR: Duration = Duration::from_secs(3600);

/// A flagged study, whose alert goes to `webhook` at once and to `pager` after a time.
async fn flagged(backend: &dyn Backend, after: Duration) {
    let study = scored(backend, "1", 0.9).await;
    let escalation = Some(Step { number: 1, after });
    let messages = vec![alert(), NewMessage { channel: "pager".into(), escalation, ..alert() }];
    assert!(backend.studies().decide(verdict(&study, false, true), messages).await.unwrap());
}

pub(in crate::ledger) async fn what_nobody_acknowledged_is_raised_once(backend: &dyn Backend) {
    flagged(backend, Duration::ZERO).await;
    // The clock of a backend may have milliseconds.
    tokio::time::sleep(Duration::from_millis(3)).await;
    let due = || backend.outbox().due("pager", 10, HOUR).unwrap();
    assert!(due().is_empty());
    assert_eq!(backend.escalations().raise().await.unwrap(), 1);
    assert_eq!(due().iter().map(|row| row.step).collect::<Vec<_>>(), [1]);
    assert_eq!(backend.escalations().raise().await.unwrap(), 0);
    assert_eq!(due().len(), 1);
}

pub(in crate::ledger) async fn a_step_waits_for_its_time(backend: &dyn Backend) {
    flagged(backend, MINUTE).await;
    assert_eq!(backend.escalations().raise().await.unwrap(), 0);
    assert!(backend.outbox().due("pager", 10, HOUR).unwrap().is_empty());
}

pub(in crate::ledger) async fn a_message_that_does_not_arrive_is_reported_once(backend: &dyn Backend) {
    flagged(backend, HOUR).await;
    let escalations = backend.escalations();
    assert!(escalations.undelivered(Duration::ZERO, 10).unwrap().is_empty(), "it was not tried yet");
    let message = backend.outbox().due("webhook", 10, HOUR).unwrap().remove(0);
    backend.outbox().settle(message.id, Delivery::Retry { at: now(), error: "503".into() }).await.unwrap();
    assert!(escalations.undelivered(HOUR, 10).unwrap().is_empty(), "others are told after the wait");
    let found = escalations.undelivered(Duration::ZERO, 10).unwrap();
    assert_eq!(found.iter().map(|found| (found.id, found.attempts)).collect::<Vec<_>>(), [(message.id, 1)]);
    let told = vec![NewMessage { channel: "pager".into(), ..alert() }];
    escalations.report_undelivered(message.id, told).await.unwrap();
    assert!(escalations.undelivered(Duration::ZERO, 10).unwrap().is_empty());
    assert_eq!(backend.outbox().due("pager", 10, HOUR).unwrap().len(), 1);
}

/// Study `s` as channels are told of it.
fn about(revision: i64) -> StudyEvent {
    StudyEvent { study_uid: "s".into(), model_sha256: "00".into(), revision, ..StudyEvent::sample() }
}

/// `pager` is told of it at the first step, which is due at once.
fn first_step(event: Event) -> NewMessage {
    let escalation = Some(Step { number: 1, after: Duration::ZERO });
    NewMessage { channel: "pager".into(), event: Arc::new(event), escalation }
}

/// What is raised now. The clock of a backend may have milliseconds.
async fn raised(backend: &dyn Backend) -> u64 {
    tokio::time::sleep(Duration::from_millis(3)).await;
    backend.escalations().raise().await.unwrap()
}

pub(in crate::ledger) async fn each_step_is_told_once_though_the_final_verdict_follows_the_early_one(
    backend: &dyn Backend,
) {
    let study = scored(backend, "1", 0.9).await;
    let flag = |revision| first_step(Event::Flagged(about(revision)));
    let revised = |revision| first_step(Event::Revised(about(revision)));
    assert!(backend.studies().decide(verdict(&study, true, true), vec![alert(), flag(1)]).await.unwrap());
    let messages = vec![alert(), flag(1), revised(1)];
    assert!(backend.studies().decide(verdict(&open(backend), false, true), messages).await.unwrap());
    assert_eq!(raised(backend).await, 1, "the flag, and not its revision beside it");
    // The same revision once more, after the step was told.
    backend.outbox().post(vec![revised(1)]).await.unwrap();
    assert_eq!(raised(backend).await, 0);
    // Another revision, of which nobody took care: it is news.
    let study = scored(backend, "2", 0.9).await;
    assert_eq!(study.revision, 2);
    assert!(backend.studies().decide(verdict(&study, false, true), vec![flag(2), revised(2)]).await.unwrap());
    assert_eq!(raised(backend).await, 1);
    let steps: Vec<u32> = backend.outbox().due("pager", 10, HOUR).unwrap().iter().map(|row| row.step).collect();
    assert_eq!(steps, [1, 1]);
}

/// A study that could not be judged, of which `pager` is told at once where nobody acknowledges.
async fn incomplete(backend: &dyn Backend) {
    let slices = vec![SliceStart::Ineligible("a localizer".into()).into()];
    backend.instances().store(NewInstance { slices, ..instance("1", "s") }).await.unwrap();
    let verdict = Verdict { flagged: None, score: None, ..verdict(&open(backend), false, false) };
    let messages = vec![first_step(Event::Incomplete(about(1)))];
    assert!(backend.studies().decide(verdict, messages).await.unwrap());
}

pub(in crate::ledger) async fn a_study_that_is_flagged_since_is_not_escalated_as_incomplete(backend: &dyn Backend) {
    incomplete(backend).await;
    let study = scored(backend, "2", 0.9).await;
    assert_eq!(raised(backend).await, 0, "it is judged anew");
    assert!(backend.studies().decide(verdict(&study, false, true), vec![alert()]).await.unwrap());
    assert_eq!(raised(backend).await, 0);
    assert!(backend.outbox().due("pager", 10, HOUR).unwrap().is_empty());
}

pub(in crate::ledger) async fn a_study_that_is_still_incomplete_is_escalated_once_that_is_certain(
    backend: &dyn Backend,
) {
    incomplete(backend).await;
    let study = scored(backend, "2", 0.1).await;
    assert_eq!(raised(backend).await, 0, "it is judged anew");
    let verdict = Verdict { flagged: None, ..verdict(&study, false, false) };
    assert!(backend.studies().decide(verdict, vec![]).await.unwrap());
    assert_eq!(raised(backend).await, 1);
}

pub(in crate::ledger) async fn what_waits_for_a_channel_that_is_gone_is_given_up(backend: &dyn Backend) {
    flagged(backend, HOUR).await;
    let escalations = backend.escalations();
    assert!(escalations.stranded(&["webhook".into()]).unwrap().is_empty());
    let there = ["pager".to_owned()];
    let waiting = |pending, dead| vec![Waiting { channel: "webhook".into(), pending, dead }];
    assert_eq!(escalations.stranded(&there).unwrap(), waiting(1, 0));
    assert_eq!(escalations.give_up_channel("webhook".into(), "it is gone".into()).await.unwrap(), 1);
    assert_eq!(escalations.stranded(&there).unwrap(), waiting(0, 1));
    let found = escalations.undelivered(Duration::ZERO, 10).unwrap();
    assert_eq!(found.len(), 1, "others are told of it though it was never tried");
    assert_eq!(found[0].attempts, 0);
}
