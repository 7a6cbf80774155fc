//! `triaged phantom`, `send`, `check` and `rescore` together, with a node and without.

use std::path::Path;
use std::process::Output;

use crate::support::{Node, PATIENCE, Receiver, SPOT, command, phantom, phantoms};

fn out(output: &Output) -> String {
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{err}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A node that has judged a phantom of so many slices, and has ended.
fn that_has_judged(slices: &str, settings: &[(&str, &str)]) -> Node {
    let mut node = Node::start(settings);
    let phantom = node.folder.path().join("phantom");
    let phantom = phantom.to_str().unwrap();
    out(&node.cli(&["phantom", "--slices", slices, "--out", phantom]));
    out(&node.cli(&["send", "--to", &node.dimse.to_string(), phantom]));
    node.wait_until("SELECT state = 'decided' FROM worklist");
    assert!(node.terminate().success());
    node
}

#[test]
fn a_study_is_scored_again_by_the_running_node_and_without_one() {
    let mut node = Node::start(&[]);
    let phantom = node.folder.path().join("phantom");
    let phantom = phantom.to_str().unwrap();
    let study = out(&node.cli(&["phantom", "--slices", "4", "--out", phantom])).trim_end().to_owned();
    let to = node.dimse.to_string();
    let sent = out(&node.cli(&["send", "--to", &to, phantom]));
    assert!(sent.starts_with("4 objects stored by TRIAGED"), "{sent}");
    node.wait_until("SELECT state = 'decided' AND slices_scored = 4 FROM worklist");

    let said = out(&node.cli(&["rescore", &study]));
    assert!(said.starts_with(&study) && said.ends_with(", revision 2\n"), "{said}");
    assert_eq!(node.query::<i64>("SELECT count(*) FROM scores"), 8, "the old scores stay");

    assert!(node.terminate().success());
    let said = out(&node.cli(&["rescore", "--all"]));
    assert!(said.ends_with(", revision 3\n"), "{said}");
    assert_eq!(node.query::<i64>("SELECT revision FROM worklist"), 3);
    assert_eq!(node.query::<i64>("SELECT count(*) FROM scores"), 12);
}

#[test]
fn rescore_without_its_model_queues_nothing() {
    let node = that_has_judged("1", &[]);
    // A card that does not fit its model: nothing may be queued that then would wait for ever.
    let card = crate::support::card(node.folder.path(), |card| card["sha256"] = "0".repeat(64).into());
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_triaged"))
        .env("TRIAGED__DATA_DIR", node.folder.path())
        .env("TRIAGED__INFERENCE__MODEL", card)
        .args(["rescore", "--all"])
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert!(err.starts_with("triaged: ") && err.contains("SHA-256") && err.lines().count() == 1, "{err}");
    assert_eq!(node.query::<i64>("SELECT revision FROM worklist"), 1);
}

/// Work that is done again fills nobody's room, and takes no verdict away while it waits.
#[test]
fn what_waits_to_be_scored_again_keeps_no_patient_out_and_is_not_told_of_as_incomplete() {
    let receiver = Receiver::start(&[]);
    let file = format!(
        "[[notify.channels]]\nname = \"hook\"\nkind = \"webhook\"\nurl = \"{}\"\n\
         [[notify.routes]]\nevents = [\"incomplete\", \"flagged\"]\nchannels = [\"hook\"]\n",
        receiver.url
    );
    let bounds = [("TRIAGED__INFERENCE__MAX_QUEUE", "16"), ("TRIAGED__INFERENCE__MAX_QUEUE_OF_SOURCE", "16")];
    let node = Node::start_with_file(&file, &bounds);
    let to = node.dimse.to_string();
    let send = |number| {
        let (folder, _files) = phantoms::study_files(&["--slices", "16"], number);
        out(&node.cli(&["send", "--to", &to, folder.path().to_str().unwrap()]));
    };
    send(1);
    node.wait_until("SELECT count(*) = 1 AND total(state = 'decided' AND flagged = 0) = 1 FROM worklist");
    let old: String = node.query("SELECT study_uid FROM worklist");
    // As `triaged rescore` leaves it, but that no slice gets its turn; and the hard cap is long past.
    let waits = format!(
        "BEGIN IMMEDIATE;
         UPDATE slices SET state = 'queued', priority = 1, attempts = 0, claims = 0, score_id = NULL,
             available_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '+500 seconds');
         UPDATE studies SET state = 'receiving', revision = 2, opened_at = '2026-01-01T00:00:00.000Z', decided_at = NULL,
             flagged = NULL, verdict = NULL WHERE study_uid = '{old}';
         COMMIT;"
    );
    node.meddle().execute_batch(&waits).unwrap();
    // The queue is counted each second; until then the first study fills the room.
    node.wait_for_metric("triaged_queue_depth 16");
    send(2);
    // The judge has passed over the first while it judged the second.
    node.wait_until(&format!("SELECT state = 'decided' AND flagged = 0 FROM worklist WHERE study_uid <> '{old}'"));
    let still = format!("SELECT state = 'receiving' AND revision = 2 FROM worklist WHERE study_uid = '{old}'");
    assert_eq!(node.query::<i64>(&still), 1);
    node.meddle().execute("UPDATE slices SET available_at = NULL WHERE state = 'queued'", []).unwrap();
    node.wait_until(&format!(
        "SELECT state = 'decided' AND flagged = 0 AND revision = 2 FROM worklist WHERE study_uid = '{old}'"
    ));
    assert_eq!(node.query::<i64>("SELECT count(*) FROM notification_log"), 0, "nobody was told anything");
}

/// Another network flags what was acknowledged long ago, and what none has flagged before.
#[test]
fn another_network_pages_nobody_for_what_was_acknowledged() {
    let cards = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&[]);
    let mut node = Node::start(&[("TRIAGED__NOTIFY__WEBHOOK__URL", &receiver.url)]);
    let to = node.dimse.to_string();
    for lesion in ["epidural", "none"] {
        let folder = phantom(&["--slices", "16", "--lesion", lesion]);
        out(&node.cli(&["send", "--to", &to, folder.path().to_str().unwrap()]));
    }
    node.wait_until("SELECT count(*) = 2 AND total(state = 'decided') = 2 AND total(flagged = 1) = 1 FROM worklist");
    let bleed: String = node.query("SELECT study_uid FROM worklist WHERE flagged = 1");
    let healthy: String = node.query("SELECT study_uid FROM worklist WHERE flagged = 0");
    receiver.wait_for(1);
    out(&node.cli(&["ack", &bleed]));

    // The same operations under another digest (ModelProto.doc_string), and a rule that flags everything.
    let mut network = std::fs::read(Path::new(SPOT).with_extension("onnx")).unwrap();
    network.extend([0x32, 1, b'x']);
    std::fs::write(cards.path().join("other.onnx"), &network).unwrap();
    let mut card: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(SPOT).unwrap()).unwrap();
    card["file"] = "other.onnx".into();
    card["sha256"] = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&network)).into();
    card["study_rule"]["threshold"] = 1e-9.into();
    let path = cards.path().join("other.json");
    std::fs::write(&path, card.to_string()).unwrap();
    node.restart_with(&[("TRIAGED__INFERENCE__MODEL", path.to_str().unwrap())]);
    out(&node.cli(&["rescore", "--all"]));
    node.wait_until(
        "SELECT count(*) = 2 AND total(state = 'decided') = 2 AND total(flagged = 1) = 2 AND min(revision) = 2 FROM worklist",
    );
    // The study that none had flagged is an alert, and the only one.
    let told: serde_json::Value = serde_json::from_slice(&receiver.wait_for(2)[1].body).unwrap();
    assert_eq!(told["study_uid"].as_str(), Some(healthy.as_str()), "{told}");
    let of_bleed = format!("SELECT count(*) FROM notification_log WHERE study_uid = '{bleed}'");
    assert_eq!(node.query::<i64>(&of_bleed), 1);
    let read = format!("SELECT acknowledged_at IS NOT NULL FROM worklist WHERE study_uid = '{bleed}'");
    assert_eq!(node.query::<i64>(&read), 1);
}

/// Scanners do not wait until everything is scored again.
#[test]
fn rescore_gives_way_to_a_node_that_starts() {
    let mut node = that_has_judged("20", &[("TRIAGED__INFERENCE__MODEL", "models/m11.json")]);
    let settings = [("TRIAGED__INFERENCE__MODEL".to_owned(), "models/m11.json".to_owned())];
    let mut rescore = command(node.folder.path(), &settings);
    let rescore = rescore.args(["rescore", "--all"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    // Held where it has the lock, so that it is not done before the node asks for it.
    let signal = |name: &str, pid: u32| {
        assert!(std::process::Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
    };
    let lock = node.folder.path().join(triaged::node::LOCK);
    let deadline = std::time::Instant::now() + PATIENCE;
    while std::fs::read(&lock).unwrap() != b"scores\n" {
        assert!(std::time::Instant::now() < deadline, "rescore has not begun");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let pid = rescore.id();
    signal("-STOP", pid);
    let wanted = node.folder.path().join("triaged.wanted");
    assert!(!wanted.exists());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !wanted.exists() {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            signal("-CONT", pid);
        });
        node.restart();
    });
    let output = rescore.wait_with_output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && err.contains("a node starts on this data folder"), "{err}");
    node.wait_until("SELECT revision = 2 AND state = 'decided' AND slices_scored = 20 FROM worklist");
    // A second node is refused as ever.
    assert!(std::fs::read(&lock).unwrap().is_empty());
}

#[test]
fn check_finds_a_running_node_and_what_is_wrong() {
    let node = Node::start(&[]);
    let check = |port: u16, web: &str, model: Option<&str>| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_triaged"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TRIAGED__")) {
            command.env_remove(name);
        }
        let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/models/m10.json");
        command
            .env("TRIAGED__DATA_DIR", node.folder.path())
            .env("TRIAGED__DIMSE__LISTEN", "127.0.0.1")
            .env("TRIAGED__DIMSE__PORT", port.to_string())
            .env("TRIAGED__WEB__LISTEN", web)
            .env("TRIAGED__INFERENCE__DEVICE", "cpu")
            .env("TRIAGED__ARCHIVE__MIN_FREE_MIB", "16")
            .env("TRIAGED__INFERENCE__MODEL", model.unwrap_or(shipped));
        let output = command.arg("check").output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, lines) = check(node.dimse.port(), &node.web.to_string(), None);
    assert_eq!(code, 0, "{lines}");
    assert!(lines.contains("in use by a node that answers C-ECHO to TRIAGED"), "{lines}");
    assert!(lines.contains("in use by a node that is healthy"), "{lines}");
    assert!(lines.contains("ok    provider       the model runs on CPUExecutionProvider"), "{lines}");
    assert!(lines.contains("warn  notification"), "{lines}");

    // The ports swapped: each is in use by something else than what should be there.
    let (code, lines) = check(node.web.port(), &node.dimse.to_string(), Some("/nowhere/m10.json"));
    assert_eq!(code, 1, "{lines}");
    for name in ["DICOM port", "web", "model"] {
        assert!(lines.lines().any(|line| line.starts_with("FAIL") && line.contains(name)), "{name}: {lines}");
    }
}

#[test]
fn check_knows_a_node_that_answers_its_peers_alone_and_no_other_node_for_it() {
    let peers = "[[dimse.peers]]\nname = \"ct\"\nae_titles = [\"CT1\"]\n";
    let node = Node::start_with_file(peers, &[]);
    let check = |folder: &Path| {
        let port = [("TRIAGED__DIMSE__PORT".to_owned(), node.dimse.port().to_string())];
        let output = command(folder, &port).arg("check").output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        said.lines().find(|line| line.contains("DICOM port")).unwrap_or_default().to_owned()
    };
    let ours = check(node.folder.path());
    assert!(ours.starts_with("ok") && ours.contains("answers only the peers that [[dimse.peers]] names"), "{ours}");
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::copy(node.folder.path().join("triaged.toml"), elsewhere.path().join("triaged.toml")).unwrap();
    let other = check(elsewhere.path());
    assert!(other.starts_with("FAIL") && other.contains("not by a node of ours"), "{other}");
    assert!(!elsewhere.path().join("triaged.lock").exists());
}

/// A graph that gives logits scores a blank slice, and fails on a head: `check` says so before a patient comes.
#[test]
fn check_tries_the_model_on_phantoms() {
    let cards = tempfile::tempdir().unwrap();
    let mean = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/mean/mean");
    std::fs::copy(format!("{mean}.onnx"), cards.path().join("mean.onnx")).unwrap();
    let mut card: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(format!("{mean}.json")).unwrap()).unwrap();
    let mut check = |normalization: serde_json::Value| {
        card["transform"]["normalization"] = normalization;
        let path = cards.path().join("mean.json");
        std::fs::write(&path, card.to_string()).unwrap();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_triaged"))
            .env("TRIAGED__DATA_DIR", cards.path())
            .env("TRIAGED__INFERENCE__DEVICE", "cpu")
            .args(["check", "--model"])
            .arg(&path)
            .output()
            .unwrap();
        let lines = String::from_utf8(output.stdout).unwrap();
        let line = |name: &str| lines.lines().find(|line| line.contains(name)).unwrap_or_default().to_owned();
        (line("provider"), line("phantoms"))
    };
    let (provider, phantoms) = check(serde_json::json!({ "mean": 0.0, "deviation": 1.0 }));
    if provider.is_empty() {
        eprintln!("SKIP check_tries_the_model_on_phantoms: no ONNX Runtime");
        return;
    }
    // A model that says the mean of a head of it does not tell the two apart.
    assert!(phantoms.starts_with("warn") && phantoms.contains("16 phantom slices scored"), "{phantoms}");
    assert!(phantoms.contains("the bleeding one scores no higher"), "{phantoms}");
    // The mean of a head is now below 0, that of a blank slice is not.
    let (provider, phantoms) = check(serde_json::json!({ "mean": 0.5, "deviation": 0.25 }));
    assert!(provider.starts_with("ok"), "{provider}");
    assert!(phantoms.starts_with("FAIL") && phantoms.contains("is not a probability"), "{phantoms}");
    assert!(phantoms.contains("logits"), "{phantoms}");
}
