//! Promise 6: one alarm, and it arrives.

use crate::support::{Node, Receiver, card, dicom_files, has, phantom, real_data, storescu};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::Sha256;

/// A card whose rule every study meets with its second slice.
fn flags_all(card: &mut serde_json::Value) {
    card["study_rule"] = json!({ "kind": "kth_highest", "k": 2, "threshold": 1e-9 });
}

/// A card whose rule no study meets.
fn flags_none(card: &mut serde_json::Value) {
    card["study_rule"] = json!({ "kind": "kth_highest", "k": 1000, "threshold": 1.0 });
}

#[test]
fn a_flagged_study_is_told_once_with_a_valid_signature_before_it_is_complete() {
    let Some(ge) = real_data("ge-head").filter(|_| has("storescu")) else { return };
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&[]);
    let node = Node::start(&[
        ("TRIAGED__INFERENCE__MODEL", &card(folder.path(), flags_all)),
        ("TRIAGED__NOTIFY__WEBHOOK__URL", &receiver.url),
        ("TRIAGED__NOTIFY__WEBHOOK__SECRET", "a shared secret"),
    ]);
    let files = dicom_files(&ge);
    storescu(&node, &[], &files).unwrap();
    let alert = receiver.wait_for(1).remove(0);
    let body: serde_json::Value = serde_json::from_slice(&alert.body).unwrap();
    let study: String = node.query("SELECT study_uid FROM worklist");
    assert_eq!(body["study_uid"], json!(study), "{body}");
    assert!(!String::from_utf8_lossy(&alert.body).contains("QMNx85rKkkg"), "no patient ID unless configured");
    let mut mac = Hmac::<Sha256>::new_from_slice(b"a shared secret").unwrap();
    mac.update(alert.headers["x-triaged-timestamp"].as_bytes());
    mac.update(b".");
    mac.update(&alert.body);
    let signature = hex::encode(mac.finalize().into_bytes());
    assert_eq!(alert.headers["x-triaged-signature"], format!("sha256={signature}"));
    node.wait_until("SELECT state = 'decided' AND flagged = 1 AND notified_at IS NOT NULL FROM worklist");
    assert_eq!(
        node.query::<i64>("SELECT provisional FROM verdicts ORDER BY id LIMIT 1"),
        1,
        "the first verdict did not wait"
    );
    // A late slice, the next revision: the study is judged anew, and nobody is called twice.
    let late = tempfile::tempdir().unwrap();
    let file = late.path().join("late.dcm");
    std::fs::copy(&files[0], &file).unwrap();
    crate::support::run("dcmodify", &["-nb", "-gin", file.to_str().unwrap()]).unwrap();
    storescu(&node, &[], &[file]).unwrap();
    node.wait_until("SELECT state = 'decided' AND revision = 2 AND flagged = 1 FROM worklist");
    assert_eq!(node.query::<i64>("SELECT count(*) FROM notification_log"), 1);
    assert_eq!(receiver.requests().len(), 1);
    // Who was called can say so.
    assert!(node.cli(&["ack", &study]).status.success());
    assert_eq!(node.query::<i64>("SELECT acknowledged_at IS NOT NULL FROM worklist"), 1);
}

#[test]
fn a_study_that_is_not_flagged_calls_nobody() {
    let Some(ge) = real_data("ge-head").filter(|_| has("storescu")) else { return };
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&[]);
    let node = Node::start(&[
        ("TRIAGED__INFERENCE__MODEL", &card(folder.path(), flags_none)),
        ("TRIAGED__NOTIFY__WEBHOOK__URL", &receiver.url),
    ]);
    storescu(&node, &[], &dicom_files(&ge)).unwrap();
    node.wait_until("SELECT count(*) = 1 AND total(state = 'decided' AND flagged IS 0) = 1 FROM worklist");
    assert_eq!(node.query::<i64>("SELECT count(*) FROM notification_log"), 0);
    assert!(receiver.requests().is_empty());
}

#[test]
fn an_alarm_outlives_a_receiver_that_is_down_and_a_node_that_is_killed() {
    let Some(ge) = real_data("ge-head").filter(|_| has("storescu")) else { return };
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&[503, 503, 503]);
    let mut node = Node::start(&[
        ("TRIAGED__INFERENCE__MODEL", &card(folder.path(), flags_all)),
        ("TRIAGED__NOTIFY__WEBHOOK__URL", &receiver.url),
        ("TRIAGED__NOTIFY__FIRST_RETRY_SECONDS", "0.2"),
    ]);
    storescu(&node, &[], &dicom_files(&ge)[..4]).unwrap();
    receiver.wait_for(1);
    node.restart();
    let alerts = receiver.wait_for(4);
    node.wait_until("SELECT count(*) = 1 AND total(state = 'delivered') = 1 FROM notification_log");
    for alert in &alerts {
        assert_eq!(alert.headers["idempotency-key"], alerts[0].headers["idempotency-key"]);
        assert_eq!(alert.body, alerts[0].body);
    }
}

#[test]
fn a_dead_letter_is_seen_and_can_be_sent_again() {
    let Some(ge) = real_data("ge-head").filter(|_| has("storescu")) else { return };
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&[404]);
    let node = Node::start(&[
        ("TRIAGED__INFERENCE__MODEL", &card(folder.path(), flags_all)),
        ("TRIAGED__NOTIFY__WEBHOOK__URL", &receiver.url),
    ]);
    storescu(&node, &[], &dicom_files(&ge)[..4]).unwrap();
    node.wait_until(
        "SELECT count(*) = 1 AND total(state = 'dead' AND last_error LIKE '%404%') = 1 FROM notification_log",
    );
    assert!(node.cli(&["requeue", "--all"]).status.success());
    receiver.wait_for(2);
    node.wait_until("SELECT state = 'delivered' FROM notification_log");
}

#[test]
fn rescoring_is_the_next_revision_and_alarms_again_only_for_another_model() {
    let Some(ge) = real_data("ge-head").filter(|_| has("storescu")) else { return };
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&[]);
    let mut node = Node::start(&[
        ("TRIAGED__INFERENCE__MODEL", &card(folder.path(), flags_all)),
        ("TRIAGED__NOTIFY__WEBHOOK__URL", &receiver.url),
    ]);
    storescu(&node, &[], &dicom_files(&ge)[..4]).unwrap();
    node.wait_until("SELECT state = 'decided' FROM worklist");
    receiver.wait_for(1);
    // While the node runs, it does the work; after it ended, the command does.
    for revision in [2, 3] {
        let output = node.cli(&["rescore", "--all"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        node.wait_until(&format!(
            "SELECT state = 'decided' AND revision = {revision} AND slices_scored = 4 FROM worklist"
        ));
        if revision == 2 {
            assert!(node.terminate().success());
        }
    }
    assert_eq!(node.query::<i64>("SELECT count(*) FROM scores"), 12, "every score is kept");
    assert_eq!(node.query::<i64>("SELECT count(*) FROM notification_log"), 1);
    assert_eq!(receiver.requests().len(), 1);
}

#[test]
fn a_revision_is_told_to_who_heard_of_the_flag_and_wants_to_hear_of_more() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&[]);
    let node = Node::start(&[
        ("TRIAGED__INFERENCE__MODEL", &card(folder.path(), flags_all)),
        ("TRIAGED__NOTIFY__WEBHOOK__URL", &receiver.url),
        ("TRIAGED__NOTIFY__EVENTS", "flagged,revised"),
        ("TRIAGED__TRIAGE__PROVISIONAL_ALERTS", "false"),
    ]);
    let series = phantom(&["--slices", "6"]);
    let files = dicom_files(series.path());
    storescu(&node, &[], &files[..4]).unwrap();
    node.wait_until("SELECT count(*) = 1 FROM worklist WHERE state = 'decided' AND revision = 1 AND flagged = 1");
    storescu(&node, &[], &files[4..]).unwrap();
    node.wait_until("SELECT count(*) = 1 FROM worklist WHERE state = 'decided' AND revision = 2 AND flagged = 1");
    let kinds: Vec<String> =
        receiver.wait_for(2).iter().map(|request| request.headers["x-triaged-event"].clone()).collect();
    assert_eq!(kinds, ["alert", "revised"]);
    assert_eq!(node.query::<i64>("SELECT count(*) FROM notification_log"), 2);
}
