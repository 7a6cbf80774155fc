//! A second model in shadow: it scores what the model that counts has scored, is stored, and changes nothing.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::support::{Node, Receiver, card, phantom};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const MEAN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/mean/mean.json");

/// The mean of its input as a model, of its own name and SHA-256, which flags every study. Returns the card's path.
fn mean(folder: &Path, name: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut card: Value = serde_json::from_str(&fs::read_to_string(MEAN).unwrap()).unwrap();
    let mut model = fs::read(Path::new(MEAN).with_extension("onnx")).unwrap();
    // doc_string, field 6 of ModelProto: the same graph in another file.
    model.extend([0x32, u8::try_from(name.len()).unwrap()]);
    model.extend(name.as_bytes());
    let file = format!("{name}.onnx");
    fs::write(folder.join(&file), &model).unwrap();
    card["name"] = name.into();
    card["file"] = file.into();
    card["sha256"] = hex::encode(Sha256::digest(&model)).into();
    card["slice_threshold"] = 0.0.into();
    card["study_rule"] = json!({ "kind": "kth_highest", "k": 1, "threshold": 1e-9 });
    change(&mut card);
    let path = folder.join(format!("{name}.json"));
    fs::write(&path, card.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A card whose rule no study meets.
fn flags_none(card: &mut Value) {
    card["study_rule"] = json!({ "kind": "kth_highest", "k": 1000, "threshold": 1.0 });
}

fn send(node: &Node, folder: &Path) {
    let sent = node.cli(&["send", "--to", &node.dimse.to_string(), folder.to_str().unwrap()]);
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
}

fn wait_for_shadow(node: &Node, slices: usize) {
    node.wait_until(&format!(
        "SELECT (SELECT count(*) FROM shadow_results) = {slices} AND (SELECT count(*) FROM shadow_queue) = 0"
    ));
}

#[test]
fn a_positive_shadow_alerts_nobody_and_changes_no_result() {
    let cards = tempfile::tempdir().unwrap();
    let (model, shadow) = (card(cards.path(), flags_none), mean(cards.path(), "second", |_| {}));
    let receiver = Receiver::start(&[]);
    let model = ("TRIAGED__INFERENCE__MODEL", model.as_str());
    let alone = Node::start(&[model]);
    let node = Node::start(&[
        model,
        ("TRIAGED__INFERENCE__SHADOW", &shadow),
        ("TRIAGED__NOTIFY__WEBHOOK__URL", &receiver.url),
    ]);
    let series = phantom(&["--slices", "16"]);
    send(&alone, series.path());
    send(&node, series.path());
    wait_for_shadow(&node, 16);
    for node in [&alone, &node] {
        node.wait_until("SELECT state = 'decided' FROM worklist");
    }

    // The shadow flags the study …
    let compared = node.cli(&["results", "compare", "--format", "json"]);
    let compared: Value = serde_json::from_slice(&compared.stdout).unwrap();
    assert_eq!((&compared["agreement"]["only_shadow"], &compared["agreement"]["studies"]), (&json!(1), &json!(1)));
    assert_eq!(compared["disagreements"][0]["shadow_flagged"], true);
    // … and nobody hears of it. Longer than the judge takes to look again:
    std::thread::sleep(Duration::from_millis(1500));
    assert!(receiver.requests().is_empty());
    assert_eq!(node.query::<i64>("SELECT count(*) FROM notification_log"), 0);
    for sql in [
        "SELECT group_concat(sop_uid || state || printf('%.6f', probability) || positive || model_sha256 || provider, ' ')
         FROM (SELECT * FROM slice_results ORDER BY sop_uid, frame)",
        "SELECT group_concat(study_uid || state || flagged || printf('%.6f', score) || threshold || slices_received ||
             slices_scored || slices_ineligible || slices_failed || revision || (notified_at IS NULL)) FROM worklist",
        "SELECT group_concat(revision || provisional || flagged || printf('%.6f', score) || model_sha256) FROM verdicts",
        "SELECT count(*) FROM scores",
    ] {
        let of = |node: &Node| node.query::<rusqlite::types::Value>(sql);
        assert_eq!(of(&alone), of(&node), "{sql}");
        assert_ne!(of(&node), rusqlite::types::Value::Null, "{sql}");
    }

    // Every number can be traced, and everyone can see that there is a shadow.
    let (name, sha256) = ("second", serde_json::from_str::<Value>(&fs::read_to_string(&shadow).unwrap()).unwrap());
    let sha256 = sha256["sha256"].as_str().unwrap();
    assert_eq!(
        node.query::<i64>(&format!(
            "SELECT count(*) FROM shadow_results r WHERE model = '{name}' AND model_sha256 = '{sha256}' AND positive = 1
                AND provider = 'CPUExecutionProvider' AND probability >= 0 AND threshold = 0"
        )),
        16
    );
    assert_eq!(
        node.query::<i64>(
            "SELECT count(*) FROM shadow_scores WHERE software LIKE 'triaged %' AND claimed_at <= decoded_at
                AND decoded_at <= scored_at"
        ),
        16
    );
    node.wait_for_log("a second model runs in shadow");
    let (status, ready) = node.get("/readyz");
    let ready: Value = serde_json::from_str(&ready).unwrap();
    assert_eq!(status, 200);
    let check = ready["checks"].as_array().unwrap().iter().find(|check| check["name"] == "shadow").unwrap();
    let detail = check["detail"].as_str().unwrap();
    assert!(detail.contains(&format!("second version 1 SHA-256 {sha256} on CPUExecutionProvider")), "{detail}");
    assert!(detail.contains("used for nothing") && check["ok"] == true, "{detail}");
    let (_, metrics) = node.get("/metrics");
    let info = metrics.lines().find(|line| line.starts_with("triaged_model_info") && line.contains("role=\"shadow\""));
    assert!(info.is_some_and(|line| line.contains(sha256) && line.contains("CPUExecutionProvider")), "{metrics}");
    node.wait_for_metric("triaged_shadow_slices_total{state=\"scored\"} 16");
    let checked = String::from_utf8(node.cli(&["check"]).stdout).unwrap();
    assert!(checked.contains("ok    shadow model   second version 1"), "{checked}");

    let uid: String = node.query("SELECT study_uid FROM worklist");
    let (_, page) = node.get(&format!("/studies/{uid}"));
    assert!(page.contains("Shadow, not used: what second says"), "{page}");
    assert!(!node.get("/").1.contains("hadow"), "the worklist says nothing of it");
    assert!(!alone.get(&format!("/studies/{uid}")).1.contains("hadow"), "nor does a node without one");
    let (_, study) = node.get(&format!("/api/v1/studies/{uid}"));
    let study: Value = serde_json::from_str(&study).unwrap();
    assert_eq!(study["study"]["flagged"], false);
    assert_eq!(study["shadow"]["slices"].as_array().unwrap().len(), 16);
}

/// A card of `tests/models` whose sequence network confirms no study that its study rule flags.
#[test]
fn a_shadow_is_judged_by_its_whole_card() {
    let folder = tempfile::tempdir().unwrap();
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
    for file in ["spot.onnx", "spot-sequence.onnx"] {
        fs::copy(models.join(file), folder.path().join(file)).unwrap();
    }
    let mut card: Value =
        serde_json::from_str(&fs::read_to_string(models.join("spot-sequence.json")).unwrap()).unwrap();
    card["sequence"]["threshold"] = 1.0.into();
    let path = folder.path().join("card.json");
    fs::write(&path, card.to_string()).unwrap();
    let shadow = ("TRIAGED__INFERENCE__SHADOW", path.to_str().unwrap());
    let node = Node::start(&[("TRIAGED__INFERENCE__MODEL", MEAN), ("TRIAGED__TRIAGE__QUIET_SECONDS", "1"), shadow]);
    let series = phantom(&["--slices", "16", "--lesion", "epidural"]);
    send(&node, series.path());
    node.wait_until("SELECT count(*) = 1 FROM worklist WHERE state = 'decided'");
    wait_for_shadow(&node, 16);
    let positive: i64 = node.query("SELECT count(*) FROM shadow_results WHERE probability >= 0.3");
    assert!(positive >= 2, "the study rule alone would flag it");
    let uid: String = node.query("SELECT study_uid FROM worklist");
    let words = "the sequence network spot-sequence.onnx over whole series";
    let study: Value = serde_json::from_str(&node.get(&format!("/api/v1/studies/{uid}")).1).unwrap();
    assert_eq!((&study["shadow"]["flagged"], &study["shadow"]["threshold"]), (&json!(false), &json!(1.0)));
    assert_eq!(study["shadow"]["judged_by"], words);
    assert!(node.get(&format!("/studies/{uid}")).1.contains(words));
    assert!(node.get("/admin").1.contains(words));
    // The command reads the card for itself; without one the study rule of the ledger is what is left.
    let compare = || {
        let output = node.cli(&["results", "compare", "--format", "json"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (serde_json::from_slice::<Value>(&output.stdout).unwrap(), said)
    };
    let (whole, said) = compare();
    assert_eq!((&whole["judged_by"], &whole["agreement"]["studies"]), (&json!(words), &json!(1)), "{said}");
    assert_eq!((&whole["agreement"]["both"], &whole["agreement"]["only_shadow"]), (&json!(0), &json!(0)));
    fs::remove_file(folder.path().join("spot-sequence.onnx")).unwrap();
    let (rule, said) = compare();
    assert_eq!(rule["judged_by"], "the 2nd highest slice");
    let flagged = |found: &Value| {
        found["agreement"]["both"].as_u64().unwrap() + found["agreement"]["only_shadow"].as_u64().unwrap()
    };
    assert_eq!(flagged(&rule), 1);
    assert!(said.contains("inference.shadow cannot be loaded") && said.contains("spot-sequence.onnx"), "{said}");
}

#[test]
fn the_shadow_begins_nothing_while_a_slice_waits_for_the_model_that_counts() {
    let cards = tempfile::tempdir().unwrap();
    let node = Node::start(&[("TRIAGED__INFERENCE__SHADOW", &mean(cards.path(), "second", |_| {}))]);
    let series = phantom(&["--slices", "40"]);
    send(&node, series.path());
    wait_for_shadow(&node, 40);
    // How many were begun while a slice waited that had been received so long before that it surely was in the queue.
    let begun_before_others = |scores: &str| -> i64 {
        node.query(&format!(
            "SELECT count(*) FROM {scores} x WHERE EXISTS (
                 SELECT 1 FROM slice_results s WHERE s.scored_at > x.claimed_at
                 AND julianday(s.received_at, '+0.5 seconds') < julianday(x.claimed_at))"
        ))
    };
    if begun_before_others("scores") == 0 {
        eprintln!("SKIP this machine scores so fast that nothing waits");
        return;
    }
    assert_eq!(begun_before_others("shadow_scores"), 0);
}

#[test]
fn it_catches_up_after_kill_9_and_gives_up_a_slice_that_ends_the_node() {
    // The second model by its name, and slower than the first.
    let mut node = Node::start(&[("TRIAGED__INFERENCE__MODEL", MEAN), ("TRIAGED__INFERENCE__SHADOW", "m10")]);
    let series = phantom(&["--slices", "24"]);
    send(&node, series.path());
    node.wait_until("SELECT count(*) >= 1 FROM shadow_results");
    node.kill();
    let before: i64 = node.query("SELECT count(*) FROM shadow_results");
    assert!(before < 24, "it was killed too late to prove anything");
    let scored_before: String = node.query("SELECT max(scored_at) FROM shadow_scores");
    let database = rusqlite::Connection::open(node.folder.path().join("triaged.db")).unwrap();
    // As if the shadow model had taken the process with it three times on this one.
    let changed = database
        .execute(
            "UPDATE shadow_queue SET claims = attempts + 3 WHERE slice_id = (SELECT min(slice_id) FROM shadow_queue)",
            [],
        )
        .unwrap();
    assert_eq!(changed, 1);
    drop(database);
    node.restart();
    node.wait_for_slices(24);
    wait_for_shadow(&node, 24);
    let earlier = format!("SELECT count(*) FROM shadow_scores WHERE scored_at <= '{scored_before}'");
    assert_eq!(node.query::<i64>(&earlier), before, "what was scored is not scored again");
    let reason: String = node.query("SELECT reason FROM shadow_results WHERE state = 'failed'");
    assert_eq!(reason, "the node ended 3 times while the shadow model worked on this slice");
    assert_eq!(node.query::<i64>("SELECT count(*) FROM shadow_results WHERE state = 'scored'"), 23);
    assert_eq!(node.query::<i64>("SELECT count(*) FROM slice_results WHERE state = 'scored'"), 24);
}

#[test]
fn another_shadow_model_begins_anew_with_studies_of_the_last_days() {
    let cards = tempfile::tempdir().unwrap();
    let shadow = "TRIAGED__INFERENCE__SHADOW";
    let models = ["first", "second", "third"].map(|name| mean(cards.path(), name, |_| {}));
    let mut node = Node::start(&[("TRIAGED__INFERENCE__MODEL", MEAN), (shadow, &models[0])]);
    let old = phantom(&["--slices", "4", "--seed", "1"]);
    send(&node, old.path());
    wait_for_shadow(&node, 4);
    node.restart_with(&[(shadow, &models[1])]);
    wait_for_shadow(&node, 8);
    assert_eq!(node.query::<i64>("SELECT count(*) FROM shadow_results WHERE model = 'second'"), 4);

    node.restart_with(&[(shadow, "")]);
    assert!(!node.get("/readyz").1.contains("shadow"));
    let new = phantom(&["--slices", "3", "--seed", "2"]);
    send(&node, new.path());
    node.wait_for_slices(7);
    node.wait_until("SELECT total(state = 'decided') = 2 FROM worklist");
    assert_eq!(node.query::<i64>("SELECT count(*) FROM shadow_queue"), 0);
    let said = String::from_utf8(node.cli(&["results", "compare"]).stdout).unwrap();
    assert!(said.contains("shadow     second") && said.contains("no longer on"), "{said}");

    assert!(node.terminate().success());
    let database = rusqlite::Connection::open(node.folder.path().join("triaged.db")).unwrap();
    database
        .execute("UPDATE studies SET last_received_at = '2020-01-01T00:00:00.000Z' WHERE slices_received = 4", [])
        .unwrap();
    drop(database);
    node.restart_with(&[(shadow, &models[2])]);
    wait_for_shadow(&node, 11);
    assert_eq!(node.query::<i64>("SELECT count(*) FROM shadow_results WHERE model = 'third'"), 3, "not the old study");
}

#[test]
fn a_shadow_that_fails_is_recorded_and_fails_nothing() {
    let cards = tempfile::tempdir().unwrap();
    // Ten times the mean: nothing of a blank slice, but of a head more than a probability.
    let broken = mean(cards.path(), "broken", |card| {
        card["transform"]["normalization"] = json!({ "mean": 0.0, "deviation": 0.001 });
    });
    let node = Node::start(&[
        ("TRIAGED__INFERENCE__MODEL", MEAN),
        ("TRIAGED__INFERENCE__SHADOW", &broken),
        ("TRIAGED__INFERENCE__MAX_ATTEMPTS", "2"),
    ]);
    let series = phantom(&["--slices", "5"]);
    send(&node, series.path());
    wait_for_shadow(&node, 5);
    let failed = "SELECT count(*) FROM shadow_results WHERE state = 'failed' AND reason LIKE '% is not a probability'
                  AND probability IS NULL";
    assert_eq!(node.query::<i64>(failed), 5);
    node.wait_until("SELECT state = 'decided' AND slices_scored = 5 AND slices_failed = 0 FROM worklist");
    let (status, ready) = node.get("/readyz");
    assert!(status == 200 && ready.contains("0 slices wait for it"), "{ready}");
    node.wait_for_metric("triaged_shadow_slices_total{state=\"failed\"} 5");
    let said = String::from_utf8(node.cli(&["results", "compare"]).stdout).unwrap();
    assert!(
        said.contains("failed     5 slices in shadow") && said.contains("1 not triaged by one of the two"),
        "{said}"
    );
}

#[test]
fn a_shadow_model_that_cannot_be_loaded_is_told_and_keeps_no_node_from_its_work() {
    let cards = tempfile::tempdir().unwrap();
    let other = mean(cards.path(), "other", |card| card["sha256"] = "0".repeat(64).into());
    for (shadow, why) in
        [("/nowhere/m11.json", "/nowhere/m11.json"), (&other, "SHA-256"), ("no-such-model", "no-such-model.json")]
    {
        let node = Node::start(&[("TRIAGED__INFERENCE__MODEL", MEAN), ("TRIAGED__INFERENCE__SHADOW", shadow)]);
        let said = node.wait_for_log("the node works without the shadow model (inference.shadow)");
        assert!(said.contains(why), "{said}");
        let (status, ready) = node.get("/readyz");
        assert!(status == 200 && ready.contains("inference.shadow cannot be loaded"), "{ready}");
        let series = phantom(&["--slices", "5"]);
        send(&node, series.path());
        node.wait_until("SELECT state = 'decided' AND slices_scored = 5 FROM worklist");
    }

    let node = Node::start(&[]);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_triaged"))
        .env("TRIAGED__DATA_DIR", node.folder.path())
        .env("TRIAGED__INFERENCE__DEVICE", "cpu")
        .env("TRIAGED__INFERENCE__SHADOW", &other)
        .arg("check")
        .output()
        .unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{lines}");
    assert!(lines.lines().any(|line| line.starts_with("FAIL") && line.contains("shadow model")), "{lines}");
}
