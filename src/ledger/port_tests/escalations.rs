//! Tests that every [`Escalations`](crate::ledger::Escalations) must pass.

use std::time::Duration;

use super::{Backend, MINUTE, alert, scored, verdict};
use crate::ledger::{Delivery, NewMessage, Step, now};

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
