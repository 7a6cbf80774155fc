//! Files leave the archive when they are due, results stay, and nothing that somebody still waits for goes.

use std::path::PathBuf;

use crate::support::ledgers::{Fixture, Study};
use crate::support::{Node, dicom_files, has, phantom, storescu};
use tokio_util::sync::CancellationToken;
use triaged::archive::Archive;
use triaged::config::{self, Settings};
use triaged::ledger::{
    Actor, Delivery, Instances, NewInstance, Outbox, Quarantined, RemovalRule, SliceStart, Stored, format_time, now,
};
use triaged::retention::Retention;

/// Keeps the files of everything that the ledger knows in a real archive; their content does not matter.
fn files(fixture: &Fixture) -> Archive {
    let (archive, _) = Archive::open(fixture.folder.path()).unwrap();
    for (path, _) in kept(fixture) {
        std::fs::write(archive.file(&path), b"x").unwrap();
    }
    archive
}

/// Path and study of the instances that have their file, by the ledger.
fn kept(fixture: &Fixture) -> Vec<(String, String)> {
    let sql = "SELECT path, study_uid FROM instances WHERE removed_at IS NULL ORDER BY id";
    let database = fixture.database();
    let mut statement = database.prepare(sql).unwrap();
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().collect::<Result<_, _>>().unwrap()
}

fn studies_kept(fixture: &Fixture) -> Vec<String> {
    let mut studies: Vec<_> = kept(fixture).into_iter().map(|(_, study)| study).collect();
    studies.dedup();
    studies
}

async fn round(fixture: &Fixture, archive: &Archive, retention_days: f64, max_gib: f64) -> u64 {
    let mut settings = Settings::load(None, &[]).unwrap().archive;
    (settings.retention_days, settings.max_gib) = (retention_days, max_gib);
    // The ledger's clock has milliseconds.
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    let retention = Retention::new(&settings, fixture.ledger.clone(), archive.clone(), None).unwrap();
    retention.round(&CancellationToken::new()).await.unwrap()
}

const A_MOMENT: f64 = 1e-8;
const A_BYTE: f64 = 1e-9;

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_waits_for_stays_and_results_outlive_their_files() {
    let fixture = Fixture::new();
    fixture.judge(&Study::new("1.1", &[0.1, 0.2]), "webhook").await;
    fixture.judge(&Study::new("1.22", &[0.9]), "webhook").await;
    fixture.receive(&Study::new("1.333", &[0.1])).await;
    fixture.judge(&Study::new("1.4444", &[0.8]), "webhook").await;
    let alerts = fixture.notifications();
    let delivered = alerts.iter().find(|row| row.study_uid.as_deref() == Some("1.4444")).unwrap();
    fixture.ledger.settle(delivered.id, Delivery::Delivered).await.unwrap();
    let archive = files(&fixture);

    // By the budget only what is settled: not flagged, or acknowledged.
    assert!(round(&fixture, &archive, 0.0, A_BYTE).await > 0, "the rest may not go, and is past the budget");
    assert_eq!(studies_kept(&fixture), ["1.22", "1.333", "1.4444"]);
    let ledger = fixture.ledger.clone();
    tokio::task::spawn_blocking(move || ledger.acknowledge("1.4444", &Actor::person("Dr A"), None))
        .await
        .unwrap()
        .unwrap();
    round(&fixture, &archive, 0.0, A_BYTE).await;
    assert_eq!(studies_kept(&fixture), ["1.22", "1.333"]);
    // By age whatever is old, but not while its alert is pending or its verdict is due.
    round(&fixture, &archive, A_MOMENT, 0.0).await;
    assert_eq!(studies_kept(&fixture), ["1.22", "1.333"]);
    let pending = alerts.iter().find(|row| row.study_uid.as_deref() == Some("1.22")).unwrap();
    fixture.ledger.settle(pending.id, Delivery::Delivered).await.unwrap();
    round(&fixture, &archive, 1.0, 0.0).await;
    assert_eq!(studies_kept(&fixture), ["1.22", "1.333"], "a day has not passed");
    round(&fixture, &archive, A_MOMENT, 0.0).await;
    assert_eq!(studies_kept(&fixture), ["1.333"]);

    let left: Vec<PathBuf> = walk(&fixture.folder.path().join("archive"));
    assert_eq!(left, [archive.file(&kept(&fixture)[0].0)], "the disk has what the ledger says, no more");
    let scored = || -> i64 {
        let sql = "SELECT count(*) FROM slice_results WHERE probability IS NOT NULL AND state = 'scored'";
        fixture.database().query_row(sql, [], |row| row.get(0)).unwrap()
    };
    assert_eq!(scored(), 5);
    let ledger = fixture.ledger.clone();
    let again =
        tokio::task::spawn_blocking(move || ledger.requeue_study("1.1", &Actor::system())).await.unwrap().unwrap();
    assert_eq!(again, 0, "what has no file cannot be scored again, and keeps its score");
    assert_eq!(scored(), 5);
}

fn walk(folder: &std::path::Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_left_marked_is_removed_later() {
    let fixture = Fixture::new();
    fixture.judge(&Study::new("1.1", &[0.1, 0.2, 0.3]), "webhook").await;
    let archive = files(&fixture);
    let later = format_time(jiff::Timestamp::now() + std::time::Duration::from_secs(1));
    let marked = fixture.ledger.mark_removed("1.1".into(), RemovalRule::Age, later, 2).await.unwrap();
    assert_eq!(marked.len(), 2);
    // The crash: one file is gone, the other not, and no row says so.
    std::fs::remove_file(archive.file(&marked[0].path)).unwrap();
    round(&fixture, &archive, 1.0, 0.0).await;
    assert!(fixture.ledger.marked_files([0, 0], 10).unwrap().is_empty());
    assert_eq!(walk(&fixture.folder.path().join("archive")), [archive.file(&kept(&fixture)[0].0)]);
}

/// An instance that a crash left marked comes again, and its row is on the way to the ledger when a round begins.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_left_marked_and_comes_again_keeps_its_file() {
    let fixture = Fixture::new();
    fixture.judge(&Study::new("1.1", &[0.1]), "webhook").await;
    let archive = files(&fixture);
    let later = format_time(jiff::Timestamp::now() + std::time::Duration::from_secs(1));
    let marked = fixture.ledger.mark_removed("1.1".into(), RemovalRule::Age, later, 2).await.unwrap();
    let placing = archive.placing().await;
    let (ledger, retained) = (fixture.ledger.clone(), archive.clone());
    let settings = Settings::load(None, &[]).unwrap().archive;
    let retention =
        Retention::new(&config::Archive { retention_days: 1.0, ..settings }, ledger, retained, None).unwrap();
    let round = tokio::spawn(async move { retention.round(&CancellationToken::new()).await.unwrap() });
    // The round waits for us once nobody else may place an object.
    let moment = std::time::Duration::from_millis(20);
    while tokio::time::timeout(moment, archive.placing()).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let stored = fixture.ledger.store(again(&marked[0].path)).await.unwrap();
    assert_eq!(stored, Stored::Duplicate);
    drop(placing);
    round.await.unwrap();
    assert_eq!(kept(&fixture), [(marked[0].path.clone(), "1.1".to_owned())]);
    assert!(archive.file(&marked[0].path).is_file(), "acknowledged, and removed");
}

/// The object of the study 1.1 once more, its file at this place.
fn again(path: &str) -> NewInstance {
    NewInstance {
        sop_uid: "1.1.1.1".into(),
        sop_class_uid: "1.2.840.10008.5.1.4.1.1.2".into(),
        transfer_syntax: "1.2.840.10008.1.2.1".into(),
        study_uid: "1.1".into(),
        series_uid: "1.1.1".into(),
        instance_number: Some(1),
        accession_number: None,
        patient_id: None,
        digest: format!("{:064x}", 1),
        path: path.into(),
        size: 1,
        calling_ae: "CT1".into(),
        peer: "127.0.0.1".into(),
        received_at: now(),
        slices: vec![SliceStart::Queued.into()],
        stat: false,
        about: Default::default(),
        concatenation: None,
        images_in_acquisition: None,
        resumes: true,
        is_taken_in_again: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_comes_again_has_its_file_and_its_score() {
    let fixture = Fixture::new();
    fixture.judge(&Study::new("1.1", &[0.1]), "webhook").await;
    let archive = files(&fixture);
    round(&fixture, &archive, A_MOMENT, 0.0).await;
    assert!(kept(&fixture).is_empty());
    // The last file took its folder with it.
    std::fs::create_dir_all(archive.file("archive")).unwrap();
    std::fs::write(archive.file("archive/again"), b"x").unwrap();
    assert_eq!(fixture.ledger.store(again("archive/again")).await.unwrap(), Stored::Duplicate);
    round(&fixture, &archive, 1.0, 0.0).await;
    assert_eq!(kept(&fixture), [("archive/again".to_owned(), "1.1".to_owned())]);
    assert!(archive.file("archive/again").is_file());
    let sql = "SELECT group_concat(state) FROM slice_results WHERE probability IS NOT NULL";
    let states: String = fixture.database().query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(states, "scored");
}

#[test]
fn a_node_removes_what_is_due_and_takes_it_again() {
    if !has("storescu") {
        return;
    }
    let node = Node::start(&[("TRIAGED__ARCHIVE__RETENTION_DAYS", "0.00003")]);
    let folder = phantom(&["--slices", "9"]);
    let files = dicom_files(folder.path());
    for times in 1..=2 {
        storescu(&node, &[], &files).unwrap();
        node.wait_for_slices(files.len());
        node.wait_until("SELECT count(*) = 9 AND total(path = '') = 9 FROM instances");
        let mut left = walk(&node.folder.path().join("archive"));
        left.retain(|path| !path.ends_with(".identity"));
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(node.query::<i64>("SELECT count(*) FROM slice_results WHERE probability IS NOT NULL"), 9);
        assert_eq!(node.query::<i64>("SELECT count(*) FROM scores"), 9, "a score that stands is not given again");
        node.wait_for_log("files of a study removed from the archive");
        node.wait_for_metric(&format!("triaged_removed_files_total {}", 9 * times));
    }
    assert_eq!(node.query::<i64>("SELECT count(*) FROM quarantine"), 0);
}

/// Objects that were set aside take space, too: they go by age, and before others where space is made.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_set_aside_goes_as_well_and_first_where_space_is_made() {
    let fixture = Fixture::new();
    let aside = |number: u32, study: Option<&str>| Quarantined {
        sop_uid: format!("1.9.{number}"),
        study_uid: study.map(str::to_owned),
        series_uid: study.map(|study| format!("{study}.1")),
        digest: format!("{number:064x}"),
        path: format!("quarantine/{number}.dcm"),
        size: 1 << 20,
        transfer_syntax: "1.2.840.10008.1.2".into(),
        reason: "for a reason".into(),
        calling_ae: "CT".into(),
        peer: "127.0.0.1".into(),
        received_at: now(),
    };
    let there = || {
        let left = walk(&fixture.folder.path().join("quarantine"));
        let mut left: Vec<String> =
            left.iter().map(|path| path.file_name().unwrap().to_str().unwrap().into()).collect();
        left.sort();
        left
    };
    let numbers = [(1, None), (2, Some("1.1")), (3, Some("1.2")), (4, None)];
    for (number, study) in numbers {
        fixture.ledger.quarantine(aside(number, study)).await.unwrap();
    }
    // Judged with what was set aside of it: what comes later has it judged again.
    fixture.judge(&Study::new("1.1", &[0.1, 0.2]), "webhook").await;
    fixture.receive(&Study::new("1.2", &[0.1])).await;
    let archive = files(&fixture);
    for (number, _) in numbers {
        std::fs::write(archive.file(&format!("quarantine/{number}.dcm")), b"x").unwrap();
    }
    // 4 MiB are set aside; room for 2 and a half: the two oldest go, and no study loses a file.
    round(&fixture, &archive, 0.0, 2.5 / 1024.0).await;
    assert_eq!(there(), ["3.dcm", "4.dcm"]);
    assert_eq!(studies_kept(&fixture), ["1.1", "1.2"]);
    // By age, but not of a study that is not decided yet.
    round(&fixture, &archive, A_MOMENT, 0.0).await;
    assert_eq!(there(), ["3.dcm"]);
    let rows: i64 = fixture.database().query_row("SELECT count(*) FROM set_aside", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 4, "the rows stay");
    // It comes again, and is there again.
    assert!(fixture.ledger.quarantine(aside(4, None)).await.unwrap());
    let removed: i64 = fixture
        .database()
        .query_row("SELECT count(*) FROM set_aside WHERE removed_at IS NULL", [], |row| row.get(0))
        .unwrap();
    assert_eq!(removed, 2);
}
