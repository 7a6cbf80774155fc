//! `triaged results compare`: its figures, checked by hand, and what it says where there is nothing to compare.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::ledgers::{Fixture, Study};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use triaged::ledger::{NewShadowModel, ShadowEnd, ShadowModel, ShadowOutcome, now};
use triaged::triage::{ShadowJudge, ShadowStudy};
use triaged_model::{ModelCard, SeriesInput, SeriesNetwork, SeriesScores};

struct Site {
    fixture: Fixture,
    runtime: Runtime,
    shadow: ShadowModel,
}

/// Exit code, standard output, standard error.
fn compare(data_dir: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_triaged"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TRIAGED__")) {
        command.env_remove(name);
    }
    let output = command
        .env("TRIAGED__DATA_DIR", data_dir)
        .args(["results", "compare"])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().expect("no signal ends it"), text(output.stdout), text(output.stderr))
}

impl Site {
    fn new() -> Site {
        Site::with_rule(r#"{"kind":"kth_highest","k":1,"threshold":0.5}"#)
    }

    fn with_rule(rule: &str) -> Site {
        let (fixture, runtime) = (Fixture::new(), Runtime::new().unwrap());
        let model =
            NewShadowModel { name: "m11".into(), sha256: "cd".repeat(32), slice_threshold: 0.5, rule: rule.into() };
        let shadow = runtime.block_on(fixture.ledger.start_shadow(model, 7)).unwrap();
        Site { fixture, runtime, shadow }
    }

    /// A study judged by both: flagged from 0.5. In shadow, a slice without a probability fails, and one beyond the end of
    /// `shadow` still waits.
    fn study(&self, study: &Study<'_>, shadow: &[Option<f64>]) {
        self.runtime.block_on(self.fixture.judge(study, "webhook"));
        let ledger = &self.fixture.ledger;
        let claims = ledger.claim_shadow(100).unwrap();
        let mut ends = Vec::new();
        for claim in &claims {
            let number: usize = claim.sop_uid.rsplit('.').next().unwrap().parse().unwrap();
            let Some(probability) = shadow.get(number - 1) else { continue };
            let outcome = match *probability {
                Some(probability) => {
                    ShadowOutcome::Scored { probability, positive: probability >= 0.5, decoded_at: now() }
                }
                None => ShadowOutcome::Failed { reason: "2 is not a probability".into() },
            };
            let provider = "CPUExecutionProvider".into();
            ends.push(ShadowEnd {
                slice: claim.lease.slice,
                outcome,
                threshold: 0.5,
                provider,
                claimed_at: now(),
                ended_at: now(),
            });
        }
        ledger.give_back_shadow(claims.iter().map(|claim| claim.lease.slice).collect()).unwrap();
        ledger.end_shadow_slices(self.shadow.id, ends).unwrap();
    }

    fn compare(&self, arguments: &[&str]) -> String {
        let (code, out, err) = compare(self.fixture.folder.path(), arguments);
        assert_eq!((code, err.as_str()), (0, ""));
        out
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.compare(&[arguments, &["--format", "json"]].concat())).unwrap()
    }

    /// One study of each kind.
    fn with_all_kinds() -> Site {
        let site = Site::new();
        site.study(&Study::new("1.1", &[0.9, 0.1]), &[Some(0.8), Some(0.2)]);
        site.study(&Study { accession_number: Some("=1+1"), ..Study::new("1.2", &[0.7]) }, &[Some(0.3)]);
        site.study(&Study::new("1.3", &[0.2, 0.1]), &[Some(0.6), Some(0.1)]);
        site.study(&Study::new("1.4", &[0.1]), &[Some(0.1)]);
        site.study(&Study { ineligible: &["a localizer"], ..Study::new("1.6", &[]) }, &[]);
        site.study(&Study::new("1.7", &[0.3]), &[None]);
        site.study(&Study::new("1.5", &[0.3, 0.3]), &[Some(0.9)]);
        site
    }
}

#[test]
fn the_figures_are_right() {
    let site = Site::with_all_kinds();
    let found = site.json(&[]);
    assert_eq!(found["model"], json!({ "model": "m10", "model_sha256": "ab".repeat(32) }));
    assert_eq!((&found["shadow"]["model"], &found["shadow"]["model_sha256"]), (&json!("m11"), &json!("cd".repeat(32))));
    let agreement = json!({ "studies": 4, "both": 1, "only_model": 1, "only_shadow": 1, "neither": 1 });
    assert_eq!(found["agreement"], agreement);
    // 1.5 has flagged in shadow already, but is not complete; 1.6 and 1.7 have no score of one of the two.
    assert_eq!(found["left_out"], json!({ "incomplete": 1, "not_triaged": 2, "other_model": 0 }));
    let slices = &found["slices"];
    assert_eq!((&slices["compared"], &slices["failed"], &slices["waiting"]), (&json!(6), &json!(1), &json!(1)));
    // The pairs are (0.9, 0.8), (0.1, 0.2), (0.7, 0.3), (0.2, 0.6), (0.1, 0.1), (0.1, 0.1); the figure is of numpy.corrcoef.
    assert!((slices["correlation"].as_f64().unwrap() - 0.691540217282).abs() < 1e-9, "{slices}");
    let disagreements = found["disagreements"].as_array().unwrap();
    let mut uids: Vec<&str> = disagreements.iter().map(|study| study["study_uid"].as_str().unwrap()).collect();
    uids.sort_unstable();
    assert_eq!(uids, ["1.2", "1.3"]);
    let second = disagreements.iter().find(|study| study["study_uid"] == "1.2").unwrap();
    for (key, value) in [
        ("flagged", json!(true)),
        ("score", json!(0.7)),
        ("shadow_flagged", json!(false)),
        ("shadow_score", json!(0.3)),
    ] {
        assert_eq!(second[key], value, "{key}");
    }
}

#[test]
fn people_see_a_table_and_spreadsheets_every_study() {
    let site = Site::with_all_kinds();
    let page = site.compare(&[]);
    for words in [
        "model      m10 abababababab\n",
        "shadow     m11 cdcdcdcdcdcd\n",
        "judged by  the highest slice, in shadow\n",
        "compared   4 studies, 6 slices\n",
        "left out   1 not all slices scored in shadow, 2 not triaged by one of the two\n",
        "waiting    1 slice for the shadow model\n",
        "failed     1 slice in shadow\n",
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
    let line = |begin: &str| page.lines().find(|line| line.starts_with(begin)).unwrap_or_else(|| panic!("{page}"));
    let cells = |begin| line(begin).split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(cells("flagged  "), ["flagged", "1", "1"]);
    assert_eq!(cells("not flagged"), ["not", "flagged", "1", "1"]);
    assert!(line("model  ").contains("m10") && line("shadow  ").contains("m11"));
    assert!(page.lines().any(|line| line.starts_with("model ") && line.ends_with("1.2")), "{page}");
    assert!(page.lines().any(|line| line.starts_with("shadow ") && line.ends_with("1.3")), "{page}");

    let csv = site.compare(&["--format", "csv"]);
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 4, "{csv}");
    let second = rows.iter().find(|row| &row[0] == "1.2").unwrap();
    assert_eq!((&second[1], &second[3], &second[6], &second[7]), ("'=1+1", "1", "0", "0.3"), "no formula");
}

#[test]
fn only_studies_since_and_only_of_one_model_are_compared() {
    let site = Site::with_all_kinds();
    assert_eq!(site.json(&["--since", "2100-01-01"])["agreement"]["studies"], 0);
    assert_eq!(site.json(&["--since", "2020-01-01T00:00:00Z"])["agreement"]["studies"], 4);
    assert!(site.compare(&["--since", "2100-01-01"]).contains("no study has been judged by both models yet"));
    // The verdict on the newest study, an incomplete one, is by another model now: the others are left out.
    let change = "UPDATE verdicts SET model_sha256 = 'ee' WHERE study_uid = '1.5'";
    site.fixture.database().execute(change, []).unwrap();
    let found = site.json(&[]);
    assert_eq!(found["agreement"]["studies"], 0);
    assert_eq!(found["left_out"], json!({ "incomplete": 1, "not_triaged": 0, "other_model": 6 }));

    site.runtime.block_on(site.fixture.ledger.stop_shadow()).unwrap();
    assert!(site.compare(&[]).contains("shadow     m11 cdcdcdcdcdcd, no longer on\n"));
}

#[test]
fn what_cannot_be_compared_is_told_in_a_line() {
    let refused = |folder: &Path, arguments: &[&str], words: &str| {
        let (code, out, err) = compare(folder, arguments);
        assert_eq!((code, out.as_str(), err.lines().count()), (2, "", 1), "{err}");
        assert!(err.starts_with("triaged: ") && err.contains(words), "{err}");
    };
    refused(tempfile::tempdir().unwrap().path(), &[], "there is no database");
    let fixture = Fixture::new();
    refused(fixture.folder.path(), &[], "inference.shadow");
    refused(fixture.folder.path(), &["--since", "tomorrow"], "--since tomorrow");

    let before = tempfile::tempdir().unwrap();
    let connection = rusqlite::Connection::open(before.path().join("triaged.db")).unwrap();
    connection.execute_batch(include_str!("../../src/ledger/sqlite/migrations/0001_initial.sql")).unwrap();
    refused(before.path(), &[], "which an earlier triaged made");
}

/// The same head in two reconstructions is two series. The node judges each for itself, and so it does in shadow: two middling slices of one
/// and two of the other are no four.
#[test]
fn evidence_of_two_series_is_not_pooled_in_shadow() {
    let site = Site::with_rule(r#"{"kind":"kth_highest","k":3,"threshold":0.5}"#);
    site.study(&Study::new("1.1", &[0.1; 4]), &[Some(0.9); 4]);
    let flagged = |site: &Site| site.json(&[])["agreement"]["only_shadow"].clone();
    assert_eq!(flagged(&site), 1, "of one series");
    let database = site.fixture.database();
    let moved = database.execute("UPDATE instances SET series_uid = '1.1.2' WHERE instance_number > 2", []).unwrap();
    assert_eq!(moved, 2);
    assert_eq!(flagged(&site), 0);
}

/// A network over whole series that flags each of them.
struct FlagsAll;

impl SeriesNetwork for FlagsAll {
    fn read(&self, input: &SeriesInput) -> Result<SeriesScores, String> {
        SeriesScores::new(&vec![0.9; input.len()], &[0.9], input)
    }
}

/// Its answer about a part of a series may be another one about the whole, where a study rule's flag stands.
#[test]
fn a_sequence_has_no_verdict_in_shadow_before_the_study_is_complete() {
    let site = Site::new();
    site.study(&Study::new("1.1", &[0.1; 4]), &[Some(0.9); 3]);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/m12.json");
    let card = ModelCard { sha256: "cd".repeat(32), ..ModelCard::load(&path).unwrap().0 };
    let by_sequence = ShadowJudge::new(card, Some(std::sync::Arc::new(FlagsAll)));
    let verdict = |judge: &ShadowJudge| {
        let study = ShadowStudy::of_study(&site.fixture.ledger, "1.1", judge).unwrap().unwrap();
        (study.complete, study.flagged)
    };
    assert_eq!(verdict(&by_sequence), (false, None));
    assert_eq!(verdict(&ShadowJudge::default()), (false, Some(true)));
    let waiting = site.fixture.ledger.claim_shadow(1).unwrap().remove(0);
    let end = ShadowEnd {
        slice: waiting.lease.slice,
        outcome: ShadowOutcome::Scored { probability: 0.1, positive: false, decoded_at: now() },
        threshold: 0.5,
        provider: "CPUExecutionProvider".into(),
        claimed_at: now(),
        ended_at: now(),
    };
    site.fixture.ledger.end_shadow_slices(site.shadow.id, vec![end]).unwrap();
    assert_eq!(verdict(&by_sequence), (true, Some(true)));
}
