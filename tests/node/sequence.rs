//! A model with a second network that reads whole series: it gives the final verdict, and never fails in silence.

use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::phantoms::study_files;
use crate::support::{Node, python, refused, run, storescu};

const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models");

/// A card of `tests/models`, changed, in a folder with copies of its files.
fn card(folder: &Path, change: impl FnOnce(&mut Value)) -> String {
    for file in ["spot.onnx", "spot-sequence.onnx", "spot-sequence-fails.onnx"] {
        std::fs::copy(format!("{MODELS}/{file}"), folder.join(file)).unwrap();
    }
    let text = std::fs::read_to_string(format!("{MODELS}/spot-sequence.json")).unwrap();
    let mut card: Value = serde_json::from_str(&text).unwrap();
    change(&mut card);
    let path = folder.join("card.json");
    std::fs::write(&path, card.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

fn sha256(file: &str) -> String {
    hex::encode(Sha256::digest(std::fs::read(format!("{MODELS}/{file}")).unwrap()))
}

fn start(card: &str, more: &[(&str, &str)]) -> Node {
    Node::start(&[&[("TRIAGED__INFERENCE__MODEL", card), ("TRIAGED__TRIAGE__QUIET_SECONDS", "2")], more].concat())
}

/// Sends a phantom without some of its slices, as a study of its own.
fn send(node: &Node, options: &[&str], number: u64, leave: impl Fn(usize) -> bool) {
    let (_series, files) = study_files(options, number);
    let files = files.into_iter().enumerate().filter(|(index, _)| !leave(*index));
    storescu(node, &[], &files.map(|(_, file)| file).collect::<Vec<_>>()).unwrap();
}

fn wait_for_verdicts(node: &Node, studies: usize) {
    node.wait_until(&format!("SELECT count(*) = {studies} AND total(state = 'decided') = {studies} FROM worklist"));
}

#[test]
fn the_verdict_is_the_one_that_python_finds_from_the_slices_in_the_database() {
    let Some(python) = python() else { return };
    let path = format!("{MODELS}/spot-sequence.json");
    let node = start(&path, &[]);
    let bleed = |slices| ["--slices", slices, "--lesion", "epidural"];
    let all = |_: usize| false;
    send(&node, &bleed("12"), 1, all);
    send(&node, &["--slices", "30", "--seed", "7"], 2, all);
    send(&node, &bleed("60"), 3, all);
    // A gap in the bleed, one slice alone, two that lie far apart.
    send(&node, &bleed("30"), 4, |i| (12..16).contains(&i));
    send(&node, &bleed("30"), 5, |i| i != 15);
    send(&node, &bleed("30"), 6, |i| i != 2 && i != 27);
    wait_for_verdicts(&node, 6);
    let database = node.folder.path().join("triaged.db");
    let said = run(python.to_str().unwrap(), &["tests/peers/sequence_score.py", &path, database.to_str().unwrap()]);
    let said = said.unwrap();
    let mut compared = 0;
    for line in said.lines() {
        let [series, score, positives, bins] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{said}") };
        let of = |column: &str| -> f64 {
            node.query(&format!("SELECT {column} + 0.0 FROM series_results WHERE series_uid = '{series}'"))
        };
        let expected: f64 = score.parse().unwrap();
        assert!((of("score") - expected).abs() < 1e-4, "{series}: the node says {}, Python {expected}", of("score"));
        assert_eq!(of("positives"), positives.parse::<f64>().unwrap(), "{series}");
        assert!(of("slices_scored") < 60.0 || bins.parse::<usize>().unwrap() < 40, "thin slices share bins: {line}");
        compared += 1;
    }
    assert_eq!(compared, 6);
    // All of it by the sequence network, as each verdict says; and people are told so.
    let rules: String = node.query("SELECT group_concat(DISTINCT rule) FROM verdicts WHERE NOT provisional");
    let rule: Value = serde_json::from_str(&rules).unwrap_or_else(|error| panic!("{error}: {rules}"));
    assert_eq!((&rule["kind"], &rule["sha256"]), (&json!("sequence"), &json!(sha256("spot-sequence.onnx"))));
    let flagged: i64 = node.query("SELECT count(*) FROM worklist WHERE flagged = 1 AND slices_scored IN (12, 60)");
    assert_eq!(flagged, 2);
    let healthy: String = node.query("SELECT verdict FROM worklist WHERE slices_scored = 30");
    assert_eq!(healthy, "not flagged");
    let study: String = node.query("SELECT study_uid FROM worklist WHERE slices_scored = 12");
    let words = "the sequence network spot-sequence.onnx over whole series";
    let (_, page) = node.get(&format!("/studies/{study}"));
    assert!(page.contains(words), "{page}");
    let shown = node.cli(&["results", "show", &study]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains(words), "{}", String::from_utf8_lossy(&shown.stdout));
}

#[test]
fn an_early_alert_stands_though_the_sequence_does_not_confirm_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = card(folder.path(), |card| card["sequence"]["threshold"] = 1.0.into());
    let node = start(&path, &[]);
    send(&node, &["--slices", "30", "--lesion", "epidural"], 1, |_| false);
    wait_for_verdicts(&node, 1);
    assert_eq!(node.query::<i64>("SELECT flagged FROM worklist"), 1, "the machine takes no flag back");
    let warnings: String = node.query("SELECT warnings FROM worklist");
    assert!(warnings.contains("flagged before, and stays so"), "{warnings}");
    let verdict = |provisional: bool, column: &str| -> String {
        node.query(&format!("SELECT {column} || '' FROM verdicts WHERE provisional = {provisional}"))
    };
    assert_eq!((verdict(true, "verdict"), verdict(false, "verdict")), ("flagged".into(), "not flagged".into()));
    assert!(verdict(true, "rule").contains("kth_highest") && verdict(false, "rule").contains("sequence"));
    // Without early alerts the sequence alone decides.
    let node = start(&path, &[("TRIAGED__TRIAGE__PROVISIONAL_ALERTS", "false")]);
    send(&node, &["--slices", "30", "--lesion", "epidural"], 1, |_| false);
    wait_for_verdicts(&node, 1);
    assert_eq!(node.query::<i64>("SELECT flagged FROM worklist"), 0);
}

#[test]
fn early_alerts_of_a_sequence_have_a_threshold_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    for (threshold, flagged) in [(0.5, 1), (1.0, 0)] {
        let path = card(folder.path(), |card| {
            card["study_rule"] = json!({ "kind": "top_k_mean", "k": 16, "threshold": 0.2 });
            card["sequence"]["threshold"] = threshold.into();
            card["sequence"]["early_threshold"] = 1.0.into();
        });
        let node = start(&path, &[]);
        send(&node, &["--slices", "30", "--lesion", "epidural"], 1, |_| false);
        wait_for_verdicts(&node, 1);
        // By its own threshold the study rule would have flagged it early; with this one the study waits for the sequence.
        let by_rule: f64 = node.query(
            "SELECT avg(probability) FROM (SELECT probability FROM slice_results ORDER BY probability DESC LIMIT 16)",
        );
        assert!((0.2..1.0).contains(&by_rule), "{by_rule}");
        assert_eq!(node.query::<i64>("SELECT flagged FROM worklist"), flagged);
        assert_eq!(node.query::<i64>("SELECT count(*) FROM verdicts WHERE provisional"), 0);
        let contradicted = "SELECT coalesce(warnings, '') LIKE '%does not confirm%' FROM worklist";
        assert_eq!(node.query::<i64>(contradicted), 0);
    }
}

#[test]
fn a_sequence_network_that_fails_leaves_the_verdict_to_the_study_rule_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = card(folder.path(), |card| {
        // It gives no number for more than 35 bins; of 1 mm, any head has more.
        card["sequence"]["file"] = "spot-sequence-fails.onnx".into();
        card["sequence"]["sha256"] = sha256("spot-sequence-fails.onnx").into();
        card["sequence"]["spacing_mm"] = 1.0.into();
        card["sequence"]["threshold"] = 1.0.into();
    });
    let node = start(&path, &[("TRIAGED__TRIAGE__PROVISIONAL_ALERTS", "false")]);
    send(&node, &["--slices", "12", "--lesion", "epidural"], 1, |_| false);
    send(&node, &["--slices", "30", "--seed", "7"], 2, |_| false);
    wait_for_verdicts(&node, 2);
    for (slices, verdict) in [(12, "flagged"), (30, "not flagged")] {
        let column = |column: &str| -> String {
            node.query(&format!("SELECT {column} || '' FROM worklist WHERE slices_scored = {slices}"))
        };
        assert_eq!(column("verdict"), verdict);
        let warnings = column("coalesce(warnings, '')");
        assert!(warnings.contains("judged by the study rule alone") && warnings.contains("NaN"), "{warnings}");
        assert_eq!(column("threshold"), "0.3");
    }
    assert_eq!(node.query::<i64>("SELECT count(*) FROM verdicts WHERE rule LIKE '%kth_highest%'"), 2);
}

#[test]
fn a_sequence_network_that_does_not_fit_is_refused_at_start_and_by_the_check() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change); 7] = [
        ("early_threshold 0 is not above 0", |sequence| sequence["early_threshold"] = 0.into()),
        ("nowhere.onnx", |sequence| sequence["file"] = "nowhere.onnx".into()),
        ("has SHA-256", |sequence| sequence["sha256"] = "0".repeat(64).into()),
        ("the graph has none of that name but series", |sequence| sequence["input"] = "slices".into()),
        ("the graph has none of that name but bins, whole", |sequence| sequence["series_output"] = "all".into()),
        ("spacing_mm 0 is not from 0.5 to 20", |sequence| sequence["spacing_mm"] = 0.into()),
        ("2 values came for one series", |sequence| {
            (sequence["slice_output"], sequence["series_output"]) = ("whole".into(), "bins".into());
        }),
    ];
    for (words, change) in cases {
        let folder = tempfile::tempdir().unwrap();
        let path = card(folder.path(), |card| change(&mut card["sequence"]));
        let said = refused(&[("TRIAGED__INFERENCE__MODEL", &path)]);
        assert!(said.contains(words), "{words}: {said}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = card(folder.path(), |card| {
        (card["sequence"]["file"], card["sequence"]["sha256"]) = ("other.onnx".into(), sha256("spot.onnx").into());
        (card["sequence"]["input"], card["sequence"]["slice_output"]) = ("image".into(), "probability".into());
        card["sequence"]["series_output"] = "where".into();
    });
    std::fs::copy(format!("{MODELS}/spot.onnx"), folder.path().join("other.onnx")).unwrap();
    let node = Node::start(&[]);
    let output = node.cli(&["check", "--model", &path]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!output.status.success() && said.contains("must be float32 [series, 2, bins]"), "{said}");
    let output = node.cli(&["check", "--model", &format!("{MODELS}/spot-sequence.json")]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("early alerts from 0.300 on") && said.contains("of the healthy series"), "{said}");
}
