//! Tests that every [`Outbox`](crate::ledger::Outbox) must pass.

use std::time::Duration;

use jiff::Timestamp;

use super::{Backend, MINUTE, alert, scored};
use crate::event::{self, Event};
use crate::ledger::{Actor, Delivery, NewMessage, OutboxRow, format_time, now};

const HOUR: Duration = Duration::from_secs(3600);

/// A study with one message, and that message.
async fn posted(backend: &dyn Backend) -> OutboxRow {
    scored(backend, "1", 0.9).await;
    backend.outbox().post(vec![alert()]).await.unwrap();
    let mut due = backend.outbox().due("webhook", 10, HOUR).unwrap();
    assert_eq!(due.len(), 1);
    due.remove(0)
}

/// A message that was given up, to be tried again at `at`.
async fn dead(backend: &dyn Backend, at: String) -> OutboxRow {
    let message = posted(backend).await;
    backend.outbox().settle(message.id, Delivery::Dead { at, error: "404".into() }).await.unwrap();
    assert!(backend.outbox().due("webhook", 10, HOUR).unwrap().is_empty());
    assert_eq!(backend.outbox().counts("webhook").unwrap(), (0, 1));
    message
}

fn later(seconds: u64) -> String {
    format_time(Timestamp::now().checked_add(Duration::from_secs(seconds)).unwrap())
}

pub(in crate::ledger) async fn a_message_is_due_until_it_is_delivered(backend: &dyn Backend) {
    let outbox = backend.outbox();
    let message = posted(backend).await;
    assert_eq!((message.attempts, message.step, message.dead), (0, 0, false));
    assert!(outbox.due("another", 10, HOUR).unwrap().is_empty());
    outbox.settle(message.id, Delivery::Retry { at: now(), error: "503".into() }).await.unwrap();
    let again = outbox.due("webhook", 10, HOUR).unwrap().remove(0);
    assert_eq!((again.attempts, &again.idempotency_key), (1, &message.idempotency_key), "the same at every attempt");
    assert!(outbox.next_due("webhook").unwrap().is_some());
    outbox.settle(message.id, Delivery::Delivered).await.unwrap();
    assert!(outbox.due("webhook", 10, HOUR).unwrap().is_empty());
    assert_eq!((outbox.counts("webhook").unwrap(), outbox.next_due("webhook").unwrap()), ((0, 0), None));
}

pub(in crate::ledger) async fn an_alert_does_not_wait_for_a_clock_that_was_set_back(backend: &dyn Backend) {
    let outbox = backend.outbox();
    let message = posted(backend).await;
    // Within the longest wait: it was asked for.
    outbox.settle(message.id, Delivery::Retry { at: later(1800), error: "503".into() }).await.unwrap();
    assert!(outbox.due("webhook", 10, HOUR).unwrap().is_empty());
    // Nobody asks for more: the clock was at tomorrow when this was written.
    outbox.settle(message.id, Delivery::Retry { at: later(24 * 3600), error: "503".into() }).await.unwrap();
    assert_eq!(outbox.due("webhook", 10, HOUR).unwrap()[0].id, message.id);
}

pub(in crate::ledger) async fn a_dead_message_is_sent_again_when_a_person_wants_it(backend: &dyn Backend) {
    let message = dead(backend, later(1800)).await;
    let requeue = |id| tokio::task::block_in_place(|| backend.outbox().requeue_dead(id, &Actor::system()));
    assert_eq!(requeue(None).unwrap(), 1);
    assert!(requeue(Some(message.id)).is_err(), "it is not dead any more");
    let due = backend.outbox().due("webhook", 10, HOUR).unwrap().remove(0);
    assert_eq!((&due.idempotency_key, due.dead), (&message.idempotency_key, false));
}

pub(in crate::ledger) async fn a_dead_message_is_tried_again_when_its_channel_works(backend: &dyn Backend) {
    let outbox = backend.outbox();
    let message = dead(backend, later(1800)).await;
    let revival = crate::ledger::Revival { longest: HOUR, oldest: HOUR, acknowledged: false };
    assert!(outbox.due_dead("webhook", 10, revival).unwrap().is_empty(), "its time has not come");
    let revive = |pause| outbox.revive_dead("webhook".into(), pause, HOUR);
    assert_eq!(revive(MINUTE).await.unwrap(), 0, "it was tried just now");
    assert_eq!(revive(Duration::ZERO).await.unwrap(), 1);
    let due = outbox.due_dead("webhook", 10, revival).unwrap().remove(0);
    assert_eq!((due.id, due.dead), (message.id, true));
}

pub(in crate::ledger) async fn a_message_that_was_sent_is_not_written_again(backend: &dyn Backend) {
    let message = posted(backend).await;
    backend.outbox().settle(message.id, Delivery::Delivered).await.unwrap();
    backend.outbox().post(vec![alert(), alert()]).await.unwrap();
    assert_eq!(backend.outbox().counts("webhook").unwrap(), (0, 0), "a channel is told of a flag once");
}

pub(in crate::ledger) async fn what_is_posted_wakes_the_channels(backend: &dyn Backend) {
    let woken = backend.outbox().posted().notified();
    posted(backend).await;
    tokio::time::timeout(MINUTE, woken).await.expect("woken");
}

pub(in crate::ledger) async fn news_of_an_acknowledgement_waits_for_the_alert(backend: &dyn Backend) {
    let outbox = backend.outbox();
    let alert = posted(backend).await;
    let acknowledged = Event::Acknowledged(event::Acknowledged {
        study_uid: "s".into(),
        accession_number: None,
        patient_id: None,
        calling_ae_titles: vec![],
        station_name: None,
        revision: 1,
        score: Some(0.9),
        by: "Dr A".into(),
        acknowledged_at: now(),
    });
    let news = |channel: &str| NewMessage {
        channel: channel.into(),
        event: std::sync::Arc::new(acknowledged.clone()),
        escalation: None,
    };
    outbox.post(vec![news("webhook"), news("another")]).await.unwrap();
    outbox.settle(alert.id, Delivery::Retry { at: later(1800), error: "503".into() }).await.unwrap();
    assert!(outbox.due("webhook", 10, HOUR).unwrap().is_empty());
    assert!(outbox.next_due("webhook").unwrap().unwrap() > now(), "nobody waits in a tight loop");
    assert_eq!(outbox.due("another", 10, HOUR).unwrap().len(), 1, "it has no alert to wait for");
    outbox.settle(alert.id, Delivery::Delivered).await.unwrap();
    assert_eq!(outbox.due("webhook", 10, HOUR).unwrap().len(), 1);
}

pub(in crate::ledger) async fn an_alert_is_due_before_what_nobody_hurries_for(backend: &dyn Backend) {
    let outbox = backend.outbox();
    scored(backend, "1", 0.9).await;
    let trouble = |number: u32| NewMessage {
        channel: "webhook".into(),
        event: std::sync::Arc::new(Event::NodeTrouble(event::NodeTrouble {
            ae_title: "TRIAGED".into(),
            ready: false,
            since: number.to_string(),
            reasons: vec![],
            software: "triaged".into(),
        })),
        escalation: None,
    };
    outbox.post((0..5).map(trouble).collect()).await.unwrap();
    outbox.post(vec![alert()]).await.unwrap();
    let due = outbox.due("webhook", 2, HOUR).unwrap();
    // Its worker sees both, so that neither waits for ever.
    assert_eq!(due.iter().map(|row| row.is_alert).collect::<Vec<_>>(), [true, false, false]);
    assert!(due[1].id < due[2].id, "the oldest first");
    for row in outbox.due("webhook", 10, HOUR).unwrap() {
        outbox.settle(row.id, Delivery::Dead { at: now(), error: "404".into() }).await.unwrap();
    }
    let revival = crate::ledger::Revival { longest: HOUR, oldest: HOUR, acknowledged: false };
    let due = outbox.due_dead("webhook", 2, revival).unwrap();
    assert_eq!(
        due.iter().map(|row| (row.is_alert, row.dead)).collect::<Vec<_>>(),
        [(true, true), (false, true), (false, true)]
    );
}
