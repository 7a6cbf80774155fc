//! Work that is done again: what is scored again, what failed and is tried again, what was taken in again.

use super::*;
use crate::ledger::OpenStudy;

/// Stores an instance that lay in the archive without a row.
async fn take_in(ledger: &Ledger, sop: &str, study: &str) {
    let found = NewInstance { is_taken_in_again: true, ..instance(sop, study, sop) };
    assert_eq!(ledger.store(found).await.unwrap(), Stored::New);
}

/// Stores an instance and gives it this probability.
async fn scored(ledger: &Ledger, sop: &str, study: &str, probability: f64) {
    ledger.store(instance(sop, study, sop)).await.unwrap();
    let claim = next(ledger, 1).await.remove(0);
    assert_eq!(claim.sop_uid, sop);
    ledger.complete(vec![score(&claim, probability)]).await.unwrap();
}

async fn failed(ledger: &Ledger, sop: &str, study: &str) {
    ledger.store(instance(sop, study, sop)).await.unwrap();
    let claim = next(ledger, 1).await.remove(0);
    assert_eq!(claim.sop_uid, sop);
    ledger.fail(claim.lease, "no GPU".into()).await.unwrap();
}

async fn rescore(ledger: &Ledger, study: &'static str) -> u64 {
    let again = ledger.clone();
    tokio::task::spawn_blocking(move || again.requeue_study(study, &Actor::system())).await.unwrap().unwrap()
}

fn open(ledger: &Ledger) -> OpenStudy {
    let mut open = ledger.open_studies("00").unwrap();
    assert_eq!(open.len(), 1);
    open.remove(0)
}

/// Decides the study that is open, by all that has come.
async fn decided(ledger: &Ledger) {
    let study = open(ledger);
    let whole = Verdict { last_received_at: study.last_received_at.clone(), ..verdict(&study, false, false) };
    assert!(ledger.decide(whole, Vec::new()).await.unwrap());
}

fn waiting(ledger: &Ledger) -> (u64, u64) {
    assert_eq!(ledger.queue_depth().unwrap(), ledger.last_count().waiting);
    (ledger.last_count().new, ledger.last_count().waiting)
}

#[tokio::test]
async fn only_what_comes_fills_the_room_of_new_patients() {
    let (_folder, ledger) = ledger();
    scored(&ledger, "1", "old", 0.1).await;
    failed(&ledger, "2", "old").await;
    assert_eq!(rescore(&ledger, "old").await, 2);
    take_in(&ledger, "3", "found").await;
    assert_eq!(waiting(&ledger), (0, 3));
    assert!(ledger.last_count().new_by_source.is_empty());
    ledger.store(instance("4", "new", "4")).await.unwrap();
    ledger.store(NewInstance { stat: true, ..instance("5", "stat", "5") }).await.unwrap();
    assert_eq!(waiting(&ledger), (2, 5));
    assert_eq!(ledger.last_count().new_by_source[&instance("4", "new", "4").source()], 2);
}

#[tokio::test]
async fn a_study_knows_whether_it_only_waits_to_be_scored_again() {
    let (_folder, ledger) = ledger();
    scored(&ledger, "1", "s", 0.1).await;
    scored(&ledger, "2", "s", 0.1).await;
    assert!(!open(&ledger).waits_to_be_scored_again, "nothing waits");
    rescore(&ledger, "s").await;
    assert!(!open(&ledger).waits_to_be_scored_again, "nobody has judged it yet: it is told of in time");
    while let Some(claim) = next(&ledger, 1).await.pop() {
        ledger.complete(vec![score(&claim, 0.1)]).await.unwrap();
    }
    decided(&ledger).await;
    rescore(&ledger, "s").await;
    assert!(open(&ledger).waits_to_be_scored_again);
    let claim = next(&ledger, 1).await.remove(0);
    assert!(open(&ledger).waits_to_be_scored_again, "a lease changes nothing");
    ledger.complete(vec![score(&claim, 0.1)]).await.unwrap();
    assert!(open(&ledger).waits_to_be_scored_again, "one of two");
    let later = NewInstance { received_at: "2999-01-01T00:00:00.000Z".into(), ..instance("3", "s", "3") };
    ledger.store(later).await.unwrap();
    assert!(!open(&ledger).waits_to_be_scored_again, "one that nobody has scored waits, too");
    let claims = next(&ledger, 4).await;
    let claim = claims.iter().find(|claim| claim.sop_uid == "3").expect("what comes goes first");
    ledger.complete(vec![score(claim, 0.1)]).await.unwrap();
    assert!(!open(&ledger).waits_to_be_scored_again, "the one that came since is no part of the last verdict");
}

#[tokio::test]
async fn what_failed_or_was_taken_in_again_is_no_study_that_only_waits_to_be_scored_again() {
    let (_folder, ledger) = ledger();
    failed(&ledger, "1", "s").await;
    rescore(&ledger, "s").await;
    assert!(!open(&ledger).waits_to_be_scored_again);
    let claim = next(&ledger, 1).await.remove(0);
    ledger.complete(vec![score(&claim, 0.1)]).await.unwrap();
    take_in(&ledger, "2", "s").await;
    assert!(!open(&ledger).waits_to_be_scored_again, "nobody has judged it yet");
}

#[tokio::test]
async fn what_was_taken_in_again_waits_behind_what_comes_and_not_for_ever() {
    let (_folder, ledger) = ledger();
    for number in 0..4 {
        take_in(&ledger, &format!("f{number}"), "found").await;
    }
    for number in 0..12 {
        ledger.store(instance(&format!("n{number}"), "new", &format!("{number}"))).await.unwrap();
    }
    let mut order = Vec::new();
    for _ in 0..16 {
        order.extend(next(&ledger, 1).await.into_iter().map(|claim| claim.study_uid));
    }
    let found: Vec<usize> = (0..16).filter(|place| order[*place] == "found").collect();
    assert_eq!(found, [3, 7, 11, 15]);
}

#[tokio::test]
async fn each_kind_of_work_that_is_done_again_has_its_turn_though_one_slice_is_leased_at_a_time() {
    let (_folder, ledger) = ledger();
    for number in 0..4 {
        scored(&ledger, &format!("s{number}"), "scored", 0.1).await;
        failed(&ledger, &format!("f{number}"), "failed").await;
    }
    rescore(&ledger, "scored").await;
    rescore(&ledger, "failed").await;
    for number in 0..20 {
        take_in(&ledger, &format!("t{number}"), "found").await;
        ledger.store(instance(&format!("n{number}"), "new", &format!("{number}"))).await.unwrap();
    }
    let mut claims = Vec::new();
    for _ in 0..16 {
        claims.extend(next(&ledger, 1).await.into_iter().map(|claim| claim.study_uid));
    }
    let of = |study: &str| claims.iter().filter(|claim| *claim == study).count();
    assert_eq!([of("scored"), of("found"), of("failed"), of("new")], [2, 2, 4, 8], "{claims:?}");
}

/// `triaged recover` takes in what nothing scores before the node starts.
#[tokio::test]
async fn the_time_of_what_was_taken_in_again_begins_with_the_node_that_scores_it() {
    let (folder, ledger) = ledger();
    take_in(&ledger, "1", "found").await;
    ledger.store(instance("2", "came", "2")).await.unwrap();
    let long_ago = "2026-01-01T00:00:00.000Z";
    let administrator = Connection::open(folder.path().join("triaged.db")).unwrap();
    administrator.execute("UPDATE studies SET opened_at = ?1", [long_ago]).unwrap();
    ledger.recover("node").await.unwrap();
    let open = ledger.open_studies("00").unwrap();
    let opened = |study: &str| open.iter().find(|open| open.study_uid == study).unwrap().opened_at.clone();
    assert!(opened("found").as_str() > long_ago);
    assert_eq!(opened("came"), long_ago);
}

#[tokio::test]
async fn a_score_is_not_taken_from_what_is_known_to_be_lost() {
    let (_folder, ledger) = ledger();
    scored(&ledger, "1", "s", 0.9).await;
    scored(&ledger, "2", "s", 0.1).await;
    assert!(ledger.decide(verdict(&open(&ledger), false, true), alert()).await.unwrap());
    let row_of = |sop: &str| {
        let sql = "SELECT id, path FROM instances WHERE sop_uid = ?1";
        ledger.read(|connection| Ok(connection.query_row(sql, [sop], |row| Ok((row.get(0)?, row.get(1)?)))?)).unwrap()
    };
    assert_eq!(ledger.mark_lost(vec![row_of("1")], true).await.unwrap(), 1);
    assert_eq!(rescore(&ledger, "s").await, 1);
    let mut left: Vec<_> = ledger.slices("s").unwrap().into_iter().map(|row| (row.sop_uid, row.state)).collect();
    left.sort();
    assert_eq!(left, [("1".to_owned(), "scored".to_owned()), ("2".to_owned(), "queued".to_owned())]);
    // With no file left there is nothing to do, and the verdict stands.
    let claim = next(&ledger, 1).await.remove(0);
    ledger.complete(vec![score(&claim, 0.1)]).await.unwrap();
    assert!(ledger.decide(verdict(&open(&ledger), false, true), alert()).await.unwrap());
    assert_eq!(ledger.mark_lost(vec![row_of("2")], true).await.unwrap(), 1);
    let before = row(&ledger, "s");
    assert_eq!(rescore(&ledger, "s").await, 0);
    let after = row(&ledger, "s");
    assert_eq!((after.state.as_str(), after.revision), ("decided", before.revision));
}

#[tokio::test]
async fn an_acknowledgement_of_a_flag_stands_until_it_is_taken_back() {
    let (_folder, ledger) = ledger();
    scored(&ledger, "1", "s", 0.9).await;
    assert!(!open(&ledger).is_acknowledged);
    assert!(ledger.decide(verdict(&open(&ledger), false, true), alert()).await.unwrap());
    let deed = ledger.clone();
    let dr_a = || Actor::person("Dr A");
    tokio::task::spawn_blocking(move || deed.acknowledge("s", &dr_a(), None)).await.unwrap().unwrap();
    rescore(&ledger, "s").await;
    assert!(open(&ledger).is_acknowledged && open(&ledger).flagged);
    let deed = ledger.clone();
    tokio::task::spawn_blocking(move || deed.undo_acknowledgement("s", &dr_a())).await.unwrap().unwrap();
    assert!(!open(&ledger).is_acknowledged);
}
