use std::path::PathBuf;
use std::time::Duration;

use super::worklist::READING_ORDER;
use super::*;
use crate::event::{Event, StudyEvent};
use crate::ledger::port_tests::{request, score, verdict};
use crate::ledger::{
    Actor, Claim, Delivery, Instances, NewInstance, NewMessage, Outbox, Queue, Stored, Studies, Verdict, WorklistRow,
    now,
};

mod again;
mod audit;
mod commitment;
mod former;
mod forward;
mod life;
mod ports;
mod shadow;

const HOUR: Duration = Duration::from_secs(3600);

fn ledger() -> (tempfile::TempDir, Ledger) {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&folder.path().join("triaged.db")).unwrap();
    (folder, ledger)
}

fn instance(sop: &str, study: &str, digest: &str) -> NewInstance {
    NewInstance { digest: digest.into(), ..crate::ledger::port_tests::instance(sop, study) }
}

/// The next slices, leased for a while.
async fn next(ledger: &Ledger, most: usize) -> Vec<Claim> {
    ledger.lease(request("run", most, Duration::from_secs(60))).await.unwrap()
}

fn alert() -> Vec<NewMessage> {
    vec![crate::ledger::port_tests::alert()]
}

fn row(ledger: &Ledger, study: &str) -> WorklistRow {
    ledger.study(study).unwrap().unwrap()
}

#[tokio::test]
async fn what_a_process_had_leased_is_given_out_again_after_its_end() {
    let (folder, ledger) = ledger();
    ledger.store(instance("1", "s", "aa")).await.unwrap();
    assert_eq!(next(&ledger, 10).await.len(), 1);
    drop(ledger);
    let again = Ledger::open(&folder.path().join("triaged.db")).unwrap();
    assert!(next(&again, 10).await.is_empty(), "the lease has not expired");
    assert_eq!(again.recover("node").await.unwrap(), 1);
    assert_eq!(next(&again, 10).await.len(), 1);
}

#[tokio::test]
async fn a_new_patient_does_not_wait_for_what_is_scored_again() {
    let (_folder, ledger) = ledger();
    ledger.store(instance("1", "old", "aa")).await.unwrap();
    let claim = next(&ledger, 1).await.remove(0);
    ledger.complete(vec![score(&claim, 0.1)]).await.unwrap();
    let again = ledger.clone();
    tokio::task::spawn_blocking(move || again.requeue_study("old", &Actor::system())).await.unwrap().unwrap();
    ledger.store(instance("2", "new", "bb")).await.unwrap();
    let claims = next(&ledger, 2).await;
    assert_eq!(claims.iter().map(|c| c.study_uid.as_str()).collect::<Vec<_>>(), ["new", "old"]);
}

#[tokio::test]
async fn what_is_scored_again_does_not_wait_for_ever_and_what_failed_waits_in_its_own_turn() {
    let (_folder, ledger) = ledger();
    for sop in ["1", "2", "3"] {
        ledger.store(instance(sop, "old", sop)).await.unwrap();
    }
    ledger.store(instance("4", "failed", "ff")).await.unwrap();
    for claim in next(&ledger, 4).await {
        match claim.study_uid.as_str() {
            "failed" => drop(ledger.fail(claim.lease, "no GPU".into()).await.unwrap()),
            _ => drop(ledger.complete(vec![score(&claim, 0.1)]).await.unwrap()),
        }
    }
    let again = ledger.clone();
    let requeue = move || ["old", "failed"].map(|study| again.requeue_study(study, &Actor::system()).unwrap());
    assert_eq!(tokio::task::spawn_blocking(requeue).await.unwrap(), [3, 1]);
    for number in 0..20 {
        ledger.store(instance(&format!("n{number}"), &format!("new{number}"), &format!("{number}"))).await.unwrap();
    }
    let claims = next(&ledger, 12).await;
    let of = |study: &str| claims.iter().filter(|claim| claim.study_uid == study).count();
    assert_eq!((of("old"), of("failed")), (3, 1), "{claims:?}");
}

#[tokio::test]
async fn who_cannot_write_is_told_why() {
    let (folder, ledger) = ledger();
    ledger.write(|connection| Ok(connection.busy_timeout(Duration::from_millis(1))?)).await.unwrap();
    let other = Connection::open(folder.path().join("triaged.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = ledger.store(instance("1", "s", "a")).await.unwrap_err();
    assert!(matches!(&error, LedgerError::Begin(why) if why.contains("locked")), "{error}");
    assert!(error.may_pass());
    let (tell, told) = std::sync::mpsc::channel();
    let posted = ledger.clone();
    let post = move || posted.post_store(instance("1", "s", "a"), Box::new(move |stored| tell.send(stored).unwrap()));
    tokio::task::spawn_blocking(post).await.unwrap().unwrap();
    assert!(matches!(told.recv().unwrap(), Err(LedgerError::Begin(_))));
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(ledger.store(instance("1", "s", "a")).await.unwrap(), Stored::New);
}

#[tokio::test]
async fn the_row_says_the_transfer_syntax_of_the_file_that_is_there() {
    let (_folder, ledger) = ledger();
    let syntax = |ledger: &Ledger| {
        let read = |c: &Connection| Ok(c.query_row("SELECT transfer_syntax FROM instances", [], |row| row.get(0))?);
        ledger.read::<String>(read).unwrap()
    };
    ledger.store(instance("1", "s", "a")).await.unwrap();
    let again = NewInstance { transfer_syntax: "1.2.840.10008.1.2".into(), ..instance("1", "s", "a") };
    assert_eq!(ledger.store(again).await.unwrap(), Stored::Duplicate);
    assert_eq!(syntax(&ledger), "1.2.840.10008.1.2");
    let other = NewInstance { transfer_syntax: "1.2.840.10008.1.2.2".into(), ..instance("1", "s", "b") };
    assert!(matches!(ledger.store(other).await.unwrap(), Stored::Conflict { .. }));
    assert_eq!(syntax(&ledger), "1.2.840.10008.1.2");
}

#[tokio::test]
async fn a_dead_letter_can_be_requeued_and_acknowledged() {
    let (_folder, ledger) = ledger();
    ledger.store(instance("1", "s", "aa")).await.unwrap();
    let study = ledger.open_studies("00").unwrap().remove(0);
    ledger.decide(verdict(&study, false, true), alert()).await.unwrap();
    let due = ledger.due("webhook", 10, HOUR).unwrap().remove(0);
    ledger.settle(due.id, Delivery::Dead { at: now(), error: "404".into() }).await.unwrap();
    assert!(ledger.due("webhook", 10, HOUR).unwrap().is_empty());
    let check = ledger.clone();
    tokio::task::spawn_blocking(move || {
        assert_eq!(check.requeue_dead(None, &Actor::system()).unwrap(), 1);
        assert!(check.requeue_dead(Some(due.id), &Actor::system()).is_err(), "it is not dead any more");
        assert_eq!(check.due("webhook", 10, HOUR).unwrap()[0].idempotency_key, due.idempotency_key);
        assert_eq!(check.acknowledge("s", &Actor::person("Dr A"), None).unwrap(), Acknowledged::First);
        assert_eq!(check.acknowledge("s", &Actor::person("Dr B"), None).unwrap(), Acknowledged::Before);
        assert!(check.acknowledge("nowhere", &Actor::person("Dr A"), None).is_err());
    })
    .await
    .unwrap();
    assert!(row(&ledger, "s").acknowledged_at.is_some());
}

#[tokio::test]
async fn a_failing_write_takes_no_other_with_it() {
    let (_folder, ledger) = ledger();
    let bad = ledger.write(|c| Ok(c.execute("INSERT INTO nowhere VALUES (1)", [])?));
    let panicking = ledger.write::<()>(|_| panic!("on purpose"));
    let good = ledger.store(instance("1", "s", "aa"));
    let (bad, panicking, good) = tokio::join!(bad, panicking, good);
    assert!(bad.is_err() && panicking.is_err());
    assert_eq!(good.unwrap(), Stored::New);
}

/// A worklist that is sorted anew at each look grows slower by the year.
#[test]
fn the_worklist_is_read_in_the_order_of_an_index() {
    let (_folder, ledger) = ledger();
    for filter in ["WHERE 1", "WHERE flagged = 1"] {
        let sql = format!("EXPLAIN QUERY PLAN SELECT * FROM worklist {filter} {READING_ORDER} LIMIT 200");
        let plan = ledger
            .read(|connection| {
                let mut statement = connection.prepare(&sql)?;
                let steps = statement.query_map([], |row| row.get::<_, String>("detail"))?;
                Ok(steps.collect::<rusqlite::Result<Vec<_>>>()?.join("; "))
            })
            .unwrap();
        assert!(plan.contains("studies_reading_order") && !plan.contains("TEMP B-TREE"), "{plan}");
    }
}

/// A database as the fourth schema has it, in a folder of its own.
fn of_schema_4() -> (tempfile::TempDir, PathBuf, Connection) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("triaged.db");
    let mut connection = connect(&path).unwrap();
    migrations().to_version(&mut connection, 4).unwrap();
    (folder, path, connection)
}

#[test]
fn an_alert_of_the_former_version_is_still_delivered_and_not_raised_again() {
    let (_folder, path, connection) = of_schema_4();
    connection
        .execute_batch(
            "INSERT INTO studies (study_uid, first_received_at, last_received_at, opened_at) VALUES ('s', 't', 't', 't');
             INSERT INTO outbox (study_uid, revision, channel, kind, finding, model_sha256, idempotency_key, event,
                next_attempt_at, created_at)
             VALUES ('s', 1, 'webhook', 'alert', 'intracranial hemorrhage', '00', 'k', '{}', '2026-01-01T00:00:00.000Z', 't')",
        )
        .unwrap();
    drop(connection);
    let ledger = Ledger::open(&path).unwrap();
    let due = ledger.due("webhook", 10, HOUR).unwrap().remove(0);
    assert_eq!((due.idempotency_key.as_str(), due.step), ("k", 0));
    ledger.write_blocking(|connection| super::outbox::post(connection, &alert())).unwrap();
    let log = ledger.notifications(None).unwrap();
    assert_eq!(log.len(), 1, "the same flag is told once a channel: {log:?}");
    assert_eq!((log[0].kind.as_str(), log[0].state.as_str()), ("flagged", "pending"));
    assert_eq!(row(&ledger, "s").notified_at, None, "the view finds the new table");
}

/// The database of a node that was ended in the middle goes on where it was.
#[test]
fn steps_that_are_done_stay_done_when_a_later_one_fails() {
    let (_folder, path, connection) = of_schema_4();
    // What the sixteenth step makes is there already.
    connection.execute_batch("CREATE TABLE identity (x)").unwrap();
    assert!(matches!(Ledger::open(&path), Err(LedgerError::Migrate { .. })));
    assert_eq!(schema_of(&connection, &path).unwrap(), 15);
    connection.execute_batch("DROP TABLE identity").unwrap();
    drop(connection);
    Ledger::open(&path).unwrap();
}

#[test]
fn migrations_are_valid() {
    migrations().validate().unwrap();
}

#[tokio::test]
async fn studies_take_turns_and_stat_goes_first() {
    let (_folder, ledger) = ledger();
    for number in 0..200 {
        ledger.store(instance(&format!("1.{number}"), "large", "aa")).await.unwrap();
    }
    for number in 0..3 {
        ledger.store(instance(&format!("2.{number}"), "stroke", "aa")).await.unwrap();
    }
    let claims = next(&ledger, 16).await;
    assert_eq!(claims.iter().filter(|claim| claim.study_uid == "stroke").count(), 3, "behind 200 of another study");
    let more = next(&ledger, 500).await;
    assert_eq!(more.len(), 203 - 16, "none starves and none comes twice");
    ledger.store(NewInstance { stat: true, ..instance("3.1", "urgent", "aa") }).await.unwrap();
    assert_eq!(next(&ledger, 1).await[0].study_uid, "urgent");
}

#[test]
fn a_database_of_an_earlier_version_keeps_its_acknowledgements() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("triaged.db");
    let old = Connection::open(&path).unwrap();
    for (version, sql) in [
        (1, include_str!("migrations/0001_initial.sql")),
        (2, include_str!("migrations/0002_reading_order.sql")),
        (3, include_str!("migrations/0003_shadow.sql")),
        (4, include_str!("migrations/0004_retention.sql")),
    ] {
        old.execute_batch(sql).unwrap();
        old.pragma_update(None, "user_version", version).unwrap();
    }
    let t = "2026-01-01T00:00:00.000Z";
    old.execute_batch(&format!(
        "INSERT INTO studies (study_uid, state, flagged, score, threshold, first_received_at, last_received_at, opened_at,
                              decided_at, acknowledged_at)
         VALUES ('read', 'decided', 1, 0.9, 0.5, '{t}', '{t}', '{t}', '{t}', '2026-01-01T00:01:00.000Z'),
                ('unread', 'decided', 1, 0.9, 0.5, '{t}', '{t}', '{t}', '{t}', NULL),
                ('nothing', 'decided', NULL, NULL, 0.5, '{t}', '{t}', '{t}', '{t}', NULL);
         INSERT INTO instances (sop_uid, sop_class_uid, transfer_syntax, study_uid, series_uid, digest, path, size, calling_ae,
                                peer, received_at)
         VALUES ('i', 'c', 't', 'read', 'se', 'd', 'p', 1, 'CT1', 'h', '{t}');
         INSERT INTO slices (instance_id, study_uid, frame, state) VALUES (1, 'read', 1, 'scored');
         INSERT INTO verdicts (study_uid, revision, provisional, flagged, score, threshold, rule, model, model_sha256, software,
                               slices_scored, slices_ineligible, slices_failed, decided_at)
         VALUES ('read', 1, 0, 1, 0.9, 0.5, '{{}}', 'm', 's', 'v', 1, 0, 0, '{t}');"
    ))
    .unwrap();
    drop(old);
    let ledger = Ledger::open(&path).unwrap();
    let read = ledger.study("read").unwrap().unwrap();
    assert_eq!(read.acknowledged_at.as_deref(), Some("2026-01-01T00:01:00.000Z"));
    assert_eq!((read.verdict.as_deref(), read.calling_ae.as_deref()), (Some("flagged"), Some("CT1")));
    assert_eq!(ledger.acknowledgements("read").unwrap()[0].verdict.as_deref(), Some("flagged"));
    assert!(ledger.study("unread").unwrap().unwrap().is_unread());
    assert_eq!(ledger.study("nothing").unwrap().unwrap().verdict.as_deref(), Some("incomplete"));
    assert_eq!(ledger.series("read").unwrap().len(), 1);
    assert_eq!(ledger.acknowledge("unread", &Actor::person("Dr A"), None).unwrap(), Acknowledged::First);
}

#[tokio::test]
async fn what_could_not_be_posted_in_time_is_not_written_later() {
    let (folder, ledger) = ledger();
    ledger.store(instance("1", "s", "aa")).await.unwrap();
    let other = Connection::open(folder.path().join("triaged.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let late = ledger.post_within(alert(), Duration::from_millis(50)).await;
    assert!(matches!(late, Err(LedgerError::Begin(_))), "{late:?}");
    other.execute_batch("ROLLBACK").unwrap();
    // Written behind it, by the same thread.
    ledger.write(|_| Ok(())).await.unwrap();
    assert!(ledger.notifications(None).unwrap().is_empty());
    ledger.post_within(alert(), HOUR).await.unwrap();
    assert_eq!(ledger.notifications(None).unwrap().len(), 1);
}

/// A pager would open the incident anew that somebody has acknowledged.
#[tokio::test]
async fn a_dead_alert_of_an_acknowledged_study_is_left_to_a_person() {
    let (_folder, ledger) = ledger();
    ledger.store(instance("1", "s", "aa")).await.unwrap();
    let study = ledger.open_studies("00").unwrap().remove(0);
    ledger.decide(verdict(&study, false, true), alert()).await.unwrap();
    let due = ledger.due("webhook", 10, HOUR).unwrap().remove(0);
    ledger.settle(due.id, Delivery::Dead { at: now(), error: "404".into() }).await.unwrap();
    let revival = |acknowledged| crate::ledger::Revival { longest: HOUR, oldest: HOUR, acknowledged };
    let dead = |acknowledged| ledger.due_dead("webhook", 10, revival(acknowledged)).unwrap().len();
    tokio::time::sleep(Duration::from_millis(3)).await;
    assert_eq!(dead(false), 1);
    let person = ledger.clone();
    let acknowledge = move || person.acknowledge("s", &Actor::person("Dr A"), None).unwrap();
    tokio::task::spawn_blocking(acknowledge).await.unwrap();
    assert_eq!((dead(false), dead(true)), (0, 1), "documents are kept all the same");
}

/// A person's look at a study that could be judged after all ends what waits to be told of it.
#[tokio::test]
async fn a_look_cancels_the_escalation_of_an_incomplete_study() {
    let (_folder, ledger) = ledger();
    ledger.store(instance("1", "s", "aa")).await.unwrap();
    let study = ledger.open_studies("00").unwrap().remove(0);
    let event = StudyEvent { study_uid: "s".into(), ..StudyEvent::sample() };
    let escalation = Some(crate::ledger::Step { number: 1, after: HOUR });
    let event = std::sync::Arc::new(Event::Incomplete(event));
    let messages = vec![NewMessage { channel: "pager".into(), event, escalation }];
    ledger.decide(Verdict { flagged: None, ..verdict(&study, false, false) }, messages).await.unwrap();
    ledger.store(instance("2", "s", "bb")).await.unwrap();
    let study = ledger.open_studies("00").unwrap().remove(0);
    ledger.decide(verdict(&study, false, false), vec![]).await.unwrap();
    let person = ledger.clone();
    let look = move || person.acknowledge("s", &Actor::person("Dr A"), None).unwrap();
    assert_eq!(tokio::task::spawn_blocking(look).await.unwrap(), Acknowledged::Seen);
    let sql = "SELECT state FROM escalations";
    let state = ledger.read(|connection| Ok(connection.query_row(sql, [], |row| row.get::<_, String>(0))?));
    assert_eq!(state.unwrap(), "cancelled");
}
