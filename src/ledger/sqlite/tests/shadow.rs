//! The shadow model's queue and results.

use rusqlite::params;
use rusqlite_migration::{M, Migrations};
use tokio::runtime::Runtime;

use super::*;
use crate::ledger::port_tests::score;
use crate::ledger::{Actor, Instances, NewShadowModel, ShadowEnd, ShadowModel, ShadowOutcome, SliceId};

struct Site {
    folder: tempfile::TempDir,
    ledger: Ledger,
    runtime: Runtime,
}

impl Site {
    fn new() -> Site {
        let (folder, ledger) = ledger();
        Site { folder, ledger, runtime: Runtime::new().unwrap() }
    }

    fn start(&self, sha256: &str) -> ShadowModel {
        let model = NewShadowModel {
            name: format!("model {sha256}"),
            sha256: sha256.into(),
            slice_threshold: 0.5,
            rule: r#"{"kind":"kth_highest","k":1,"threshold":0.5}"#.into(),
        };
        self.runtime.block_on(self.ledger.start_shadow(model, 7)).unwrap()
    }

    fn receive(&self, study: &str, slices: i64) {
        let sop = |n| format!("{study}.{n}");
        (0..slices).for_each(|n| {
            self.runtime.block_on(self.ledger.store(instance(&sop(n), study, "aa"))).unwrap();
        });
    }

    /// The model that counts scores all that waits for it.
    fn score(&self) {
        let claims = self.runtime.block_on(next(&self.ledger, 1000));
        let scores = claims.iter().map(|claim| score(claim, 0.4)).collect();
        self.runtime.block_on(self.ledger.complete(scores)).unwrap();
    }

    /// The slices that would be claimed now.
    fn next(&self, most: usize) -> Vec<String> {
        let claims = self.ledger.claim_shadow(most).unwrap();
        self.ledger.give_back_shadow(claims.iter().map(|claim| claim.lease.slice).collect()).unwrap();
        claims.into_iter().map(|claim| claim.sop_uid).collect()
    }

    /// The shadow model ends this many slices.
    fn end(&self, model: i64, most: usize) {
        let scored =
            |probability| ShadowOutcome::Scored { probability, positive: probability >= 0.5, decoded_at: now() };
        let ends = self.ledger.claim_shadow(most).unwrap().into_iter().map(|claim| end(claim.lease.slice, scored(0.6)));
        self.ledger.end_shadow_slices(model, ends.collect()).unwrap();
    }

    fn count(&self, sql: &str) -> i64 {
        self.ledger.read(|connection| Ok(connection.query_row(sql, [], |row| row.get(0))?)).unwrap()
    }

    fn change(&self, sql: &'static str) {
        self.ledger.write_blocking(move |connection| Ok(connection.execute(sql, [])?)).unwrap();
    }
}

fn end(slice: SliceId, outcome: ShadowOutcome) -> ShadowEnd {
    ShadowEnd { slice, outcome, threshold: 0.5, provider: "CPU".into(), claimed_at: now(), ended_at: now() }
}

#[test]
fn slices_are_the_shadows_only_once_they_have_ended_and_only_while_there_is_one() {
    let site = Site::new();
    site.receive("1", 2);
    site.score();
    assert_eq!(site.ledger.shadow_queue_depth().unwrap(), 0, "there is no shadow model");

    let model = site.start("aa");
    site.receive("2", 3);
    assert_eq!(site.next(9), [""; 0], "the model that counts has not seen them");
    assert!(!site.ledger.is_idle().unwrap());
    let claims = site.runtime.block_on(next(&site.ledger, 9));
    site.runtime.block_on(site.ledger.decline(claims[0].lease, "no pixels".into(), None)).unwrap();
    site.runtime.block_on(site.ledger.fail(claims[1].lease, "the GPU hiccupped".into())).unwrap();
    let scores = claims[2..].iter().map(|claim| score(claim, 0.4)).collect();
    site.runtime.block_on(site.ledger.complete(scores)).unwrap();
    assert!(site.ledger.is_idle().unwrap());
    assert_eq!(site.next(9), ["2.2", "2.1"], "not the ineligible one; the newest first");

    // Scored again by the model that counts, a slice is not scored again in shadow.
    site.end(model.id, 9);
    site.ledger.requeue_study("2", &Actor::system()).unwrap();
    site.score();
    assert_eq!(site.ledger.shadow_queue_depth().unwrap(), 0);
    assert_eq!(site.count("SELECT count(*) FROM shadow_results WHERE study_uid = '2' AND model_sha256 = 'aa'"), 2);
    assert_eq!(site.count("SELECT count(*) FROM scores"), 2 + 1 + 2, "nothing of the shadow's is among the scores");
}

#[test]
fn turned_on_it_takes_up_the_newest_studies_of_some_days_and_a_bounded_number() {
    let site = Site::new();
    for study in ["1", "2", "3"] {
        site.receive(study, 2);
    }
    site.score();
    site.change("UPDATE studies SET last_received_at = '2020-01-01T00:00:00.000Z' WHERE study_uid = '1'");
    site.change("UPDATE studies SET last_received_at = '2100-01-01T00:00:00.000Z' WHERE study_uid = '2'");
    let model = site.start("aa");
    assert_eq!(site.ledger.fill_shadow_queue(model.id, 7, 3).unwrap(), 3);
    let waiting = site.next(9);
    assert!(waiting.contains(&"2.0".into()) && waiting.contains(&"2.1".into()) && waiting.len() == 3, "{waiting:?}");
    assert_eq!(site.ledger.fill_shadow_queue(model.id, 7, 100).unwrap(), 4, "all but the old study's");
    assert_eq!(site.ledger.shadow_queue_depth().unwrap(), 4, "none twice");
    let other = site.start("bb");
    site.change("UPDATE instances SET removed_at = received_at, path = '' WHERE sop_uid = '2.0'");
    assert_eq!(site.ledger.fill_shadow_queue(other.id, 7, 100).unwrap(), 3, "not what the archive has no longer");
    site.change("UPDATE instances SET removed_at = NULL, path = 'p' WHERE sop_uid = '2.0'");
    assert_eq!(site.ledger.fill_shadow_queue(other.id, 7, 100).unwrap(), 4);

    // Slices that it has not reached in time are passed over.
    site.change("UPDATE studies SET last_received_at = '2020-01-01T00:00:00.000Z' WHERE study_uid = '3'");
    assert_eq!(site.ledger.prune_shadow_queue(7).unwrap(), 2);
    assert_eq!(site.next(9), ["2.1", "2.0"]);
}

#[test]
fn another_shadow_model_begins_anew_and_the_same_goes_on() {
    let site = Site::new();
    let first = site.start("aa");
    site.receive("1", 3);
    site.score();
    site.end(first.id, 1);
    let again = site.start("aa");
    assert_eq!((again.id, site.ledger.shadow_queue_depth().unwrap()), (first.id, 2));

    let second = site.start("bb");
    assert_eq!(site.ledger.shadow_queue_depth().unwrap(), 0, "these waited for the first");
    assert_eq!(site.ledger.fill_shadow_queue(second.id, 7, 100).unwrap(), 3);
    site.end(second.id, 9);
    let back = site.start("aa");
    assert_eq!(back.id, first.id);
    assert_eq!(site.ledger.fill_shadow_queue(back.id, 7, 100).unwrap(), 2, "what it had scored stays scored");

    site.runtime.block_on(site.ledger.stop_shadow()).unwrap();
    assert_eq!(site.ledger.shadow_queue_depth().unwrap(), 0);
    let latest = site.ledger.latest_shadow_model().unwrap().expect("one was");
    assert_eq!((latest.id, latest.present), (first.id, false));
}

#[test]
fn a_slice_that_ends_the_process_is_found_alone() {
    let site = Site::new();
    site.start("aa");
    site.receive("1", 4);
    site.score();
    let claimed: Vec<String> = site.ledger.claim_shadow(3).unwrap().into_iter().map(|claim| claim.sop_uid).collect();
    assert_eq!(claimed, ["1.3", "1.2", "1.1"]);
    // The process ended here. Each of the three could be to blame, the fourth not.
    let alone = site.ledger.claim_shadow(4).unwrap();
    assert_eq!((alone.len(), alone[0].sop_uid.as_str(), alone[0].deaths), (1, "1.3", 1));
    assert_eq!(site.ledger.claim_shadow(4).unwrap()[0].deaths, 2, "and again");
    site.ledger
        .end_shadow_slices(1, vec![end(alone[0].lease.slice, ShadowOutcome::Failed { reason: "x".into() })])
        .unwrap();

    // Claims that were given back, or ended with a failure that may pass, are nobody's fault.
    let alone = site.ledger.claim_shadow(4).unwrap();
    assert_eq!((alone.len(), alone[0].sop_uid.as_str(), alone[0].deaths), (1, "1.2", 1));
    site.ledger.give_back_shadow(vec![alone[0].lease.slice]).unwrap();
    assert_eq!(site.ledger.claim_shadow(4).unwrap()[0].deaths, 1);
    site.ledger.retry_shadow_slice(alone[0].lease.slice).unwrap();
    assert_eq!(site.next(4), ["1.1"], "what failed waits behind what was not tried");
}

#[test]
fn a_failure_in_shadow_is_recorded_and_fails_no_slice() {
    let site = Site::new();
    let model = site.start("aa");
    site.receive("1", 1);
    site.score();
    let claim = site.ledger.claim_shadow(1).unwrap().remove(0);
    let failed = ShadowOutcome::Failed { reason: "7 is not a probability".into() };
    site.ledger.end_shadow_slices(model.id, vec![end(claim.lease.slice, failed)]).unwrap();
    let row = site.ledger.shadow_slices("1", model.id).unwrap().ended.remove(0);
    assert_eq!(
        (row.state.as_str(), row.reason.as_deref(), row.probability),
        ("failed", Some("7 is not a probability"), None)
    );
    let slice = site.ledger.slices("1").unwrap().remove(0);
    assert_eq!((slice.state.as_str(), slice.probability), ("scored", Some(0.4)));
    assert_eq!(site.ledger.shadow_queue_depth().unwrap(), 0);
}

/// The shadow's queries before each slice, and when it takes slices, must not take longer with the years.
#[test]
fn its_questions_are_answered_by_indexes() {
    let site = Site::new();
    for (sql, index) in [
        ("SELECT EXISTS (SELECT 1 FROM slices INDEXED BY slices_queued WHERE state = 'queued')", "slices_queued"),
        (
            "SELECT * FROM shadow_queue INDEXED BY shadow_queue_order ORDER BY attempts, slice_id DESC LIMIT 16",
            "shadow_queue_order",
        ),
        (
            "SELECT s.id FROM studies t INDEXED BY studies_by_time CROSS JOIN slices s ON s.study_uid = t.study_uid
             CROSS JOIN instances i ON i.id = s.instance_id AND i.removed_at IS NULL
             WHERE t.last_received_at >= '2026' AND s.state IN ('scored', 'failed')
               AND NOT EXISTS (SELECT 1 FROM shadow_scores x WHERE x.slice_id = s.id AND x.model_id = 1)
             ORDER BY t.last_received_at DESC LIMIT 9",
            "slices_by_study",
        ),
    ] {
        let plan = site
            .ledger
            .read(|connection| {
                let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
                let steps = statement.query_map([], |row| row.get::<_, String>("detail"))?;
                Ok(steps.collect::<rusqlite::Result<Vec<_>>>()?.join("; "))
            })
            .unwrap();
        assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "{plan}");
        assert!(
            !plan
                .split("; ")
                .any(|step| step.starts_with("SCAN") && !step.contains("INDEX") && step != "SCAN CONSTANT ROW"),
            "{plan}"
        );
    }
}

#[test]
fn a_database_of_the_version_before_is_brought_to_this_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("triaged.db");
    let before = Migrations::new(vec![
        M::up(include_str!("../migrations/0001_initial.sql")),
        M::up(include_str!("../migrations/0002_reading_order.sql")),
    ]);
    let mut connection = connect(&path).unwrap();
    before.to_latest(&mut connection).unwrap();
    let t = now();
    connection
        .execute(
            "INSERT INTO studies (study_uid, first_received_at, last_received_at, opened_at) VALUES ('1', ?1, ?1, ?1)",
            [&t],
        )
        .unwrap();
    for (number, state) in [(1, "scored"), (2, "queued"), (3, "ineligible")] {
        connection
            .execute(
                "INSERT INTO instances (id, sop_uid, sop_class_uid, transfer_syntax, study_uid, series_uid, digest, path,
                                        size, calling_ae, peer, received_at)
                 VALUES (?1, '1.' || ?1, 'c', 't', '1', '1', 'd', 'p', 1, 'CT', '127.0.0.1', ?2)",
                params![number, t],
            )
            .unwrap();
        connection
            .execute(
                "INSERT INTO slices (id, instance_id, study_uid, frame, state) VALUES (?1, ?1, '1', 1, ?2)",
                params![number, state],
            )
            .unwrap();
    }
    connection
        .execute_batch(&format!(
            "INSERT INTO scores (id, slice_id, probability, positive, threshold, model, model_sha256, provider, software,
                                 claimed_at, decoded_at, scored_at)
             VALUES (1, 1, 0.7, 1, 0.5, 'm', '00', 'CPU', 's', '{t}', '{t}', '{t}');
             UPDATE slices SET score_id = 1 WHERE id = 1;"
        ))
        .unwrap();
    drop(connection);

    let site = Site { ledger: Ledger::open(&path).unwrap(), folder, runtime: Runtime::new().unwrap() };
    assert_eq!(site.count("SELECT count(*) FROM slice_results WHERE state = 'scored' AND probability = 0.7"), 1);
    assert_eq!(site.count("SELECT count(*) FROM shadow_results"), 0);
    assert_eq!(row(&site.ledger, "1").slices_scored, 1);
    let model = site.start("aa");
    assert_eq!(site.ledger.fill_shadow_queue(model.id, 7, 100).unwrap(), 1);
    site.score();
    assert_eq!(site.ledger.shadow_queue_depth().unwrap(), 2, "what was scored before, and what is scored now");
    drop(site.folder);
}
