//! A database that a former program wrote, brought to this version.

use rusqlite::Connection;

use crate::ledger::port_tests::{request, score};
use crate::ledger::{Actor, Delivery, Ledger, Outbox, Queue, Studies, WorklistFilter};

/// A database that the former program wrote, opened by this one.
fn opened() -> (tempfile::TempDir, Ledger, Connection) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("triaged.db");
    let former = Connection::open(&path).unwrap();
    former.execute_batch(include_str!("former_schema_4.sql")).unwrap();
    former.close().unwrap();
    let ledger = Ledger::open(&path).unwrap();
    let administrator = Connection::open(&path).unwrap();
    (folder, ledger, administrator)
}

const ACKNOWLEDGED: &str = "2.25.104152710328754875870978553157753820274";
const DEAD: &str = "2.25.233494245309796672680346133032202723885";
const PENDING: &str = "2.25.267275153868756241386868318017581786030";
const KILLED: &str = "2.25.155685929450198336157783479282013145660";

#[test]
fn its_studies_acknowledgements_verdicts_and_notifications_are_as_they_were() {
    let (_folder, ledger, administrator) = opened();
    assert_eq!(ledger.soundness().unwrap().problem, None);
    let foreign_keys = administrator.query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |row| row.get(0));
    assert_eq!(foreign_keys, Ok(0));
    assert_eq!(ledger.worklist(&WorklistFilter::default()).unwrap().len(), 5);
    let row = ledger.study(ACKNOWLEDGED).unwrap().unwrap();
    assert_eq!((row.flagged, row.slices_scored), (Some(true), 4));
    assert_eq!(row.score, Some(0.26034367084503174), "to the last bit");
    assert_eq!(row.acknowledged_at.as_deref(), Some("2026-11-27T04:09:17.886Z"));
    assert_eq!(row.notified_at.as_deref(), Some("2026-11-27T04:09:17.088Z"));
    // A provisional verdict and the final one.
    assert_eq!(ledger.verdicts(ACKNOWLEDGED).unwrap().len(), 2);
    let mut states: Vec<String> = ledger.notifications(None).unwrap().into_iter().map(|row| row.state).collect();
    states.sort();
    assert_eq!(states, ["dead", "delivered", "pending"]);
    let row = ledger.study(PENDING).unwrap().unwrap();
    assert_eq!((row.slices_received, row.slices_scored, row.slices_ineligible, row.slices_failed), (10, 8, 1, 1));
    assert!(ledger.shadow_slices(PENDING, 1).unwrap().ended.len() >= 8);
    let count = |sql| administrator.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("SELECT count(*) FROM quarantine"), 1);
    assert_eq!(count("SELECT count(*) FROM instances WHERE removed_at IS NOT NULL AND path = ''"), 3);
}

#[tokio::test]
async fn its_queue_is_taken_up() {
    let (_folder, ledger, _administrator) = opened();
    assert_eq!(ledger.queue_depth().unwrap(), 6);
    ledger.recover("node").await.unwrap();
    let claims = ledger.lease(request("run", 100, std::time::Duration::from_secs(60))).await.unwrap();
    assert_eq!(claims.len(), 6);
    assert!(claims.iter().all(|claim| claim.study_uid == KILLED && claim.deaths == 1), "the process was killed once");
    let scores = claims.iter().map(|claim| score(claim, 0.1)).collect();
    assert!(ledger.complete(scores).await.unwrap().is_empty());
    let row = ledger.study(KILLED).unwrap().unwrap();
    assert_eq!((row.state.as_str(), row.slices_scored), ("receiving", 6));
    assert_eq!(ledger.open_studies("00").unwrap().len(), 1);
}

#[tokio::test]
async fn its_messages_are_delivered_and_its_dead_letter_sent_again() {
    let (_folder, ledger, _administrator) = opened();
    let hour = std::time::Duration::from_secs(3600);
    let due = ledger.due("webhook", 10, hour).unwrap();
    assert_eq!(
        due.iter().map(|row| (row.study_uid.as_deref(), row.attempts)).collect::<Vec<_>>(),
        [(Some(PENDING), 4)]
    );
    ledger.settle(due[0].id, Delivery::Delivered).await.unwrap();
    let again = ledger.clone();
    assert_eq!(
        tokio::task::spawn_blocking(move || again.requeue_dead(None, &Actor::system())).await.unwrap().unwrap(),
        1
    );
    let due = ledger.due("webhook", 10, hour).unwrap();
    assert_eq!((due[0].study_uid.as_deref(), due[0].idempotency_key.len()), (Some(DEAD), 36));
}
