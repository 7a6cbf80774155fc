//! No study waits for another: neither for one with many slices, nor for an association that stays open.

use std::process::Stdio;

use crate::support::phantoms::study_files;
use crate::support::{Node, has, python, storescu};

#[test]
fn a_study_does_not_wait_for_the_many_slices_of_another() {
    if !has("storescu") {
        return;
    }
    let node = Node::start(&[("TRIAGED__TRIAGE__QUIET_SECONDS", "0")]);
    let [(_large, large), (_small, small)] =
        [("120", 0), ("8", 1)].map(|(slices, number)| study_files(&["--slices", slices], number));
    std::thread::scope(|scope| {
        scope.spawn(|| storescu(&node, &["-aet", "PERFUSION"], &large).unwrap());
        node.wait_until("SELECT count(*) >= 40 FROM slice_results WHERE calling_ae = 'PERFUSION'");
        storescu(&node, &["-aet", "STROKE"], &small).unwrap();
    });
    node.wait_for_slices(128);
    // Both scored side by side: while the small study was scored, the large one got not much more than as many turns.
    let meanwhile = "WITH stroke AS (SELECT min(received_at) AS first, max(scored_at) AS last FROM slice_results
                                     WHERE calling_ae = 'STROKE')
                     SELECT count(*) FROM slice_results, stroke
                     WHERE calling_ae = 'PERFUSION' AND scored_at > first AND scored_at < last";
    let behind = "SELECT count(*) FROM slice_results WHERE calling_ae = 'PERFUSION'
                    AND scored_at > (SELECT max(scored_at) FROM slice_results WHERE calling_ae = 'STROKE')";
    let (meanwhile, behind) = (node.query::<i64>(meanwhile), node.query::<i64>(behind));
    assert!(meanwhile < 60, "{meanwhile} slices of the large study were scored before the small one's 8");
    assert!(behind > 0, "nothing was left of the large study, so this tested nothing");
}

#[test]
fn a_complete_study_is_judged_beside_an_association_that_stays_open() {
    let Some(python) = python() else { return };
    let node = Node::start(&[("TRIAGED__TRIAGE__QUIET_SECONDS", "0")]);
    let [(_first, first), (_second, second)] =
        [("12", 0), ("11", 1)].map(|(slices, number)| study_files(&["--slices", slices], number));
    let studies = "SELECT count(*) FROM worklist WHERE state = 'decided' AND slices_scored = ";
    let mut held = std::process::Command::new(python)
        .args(["tests/peers/send.py", &node.dimse.port().to_string(), "--hold"])
        .args(&first)
        .args(&second)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // The association has gone on to the next study: the first is complete.
    node.wait_until(&format!("{studies}12"));
    // The second is what the association brought last. It waits longer, and not for ever.
    node.wait_until(&format!("{studies}11"));
    assert!(!node.log().contains("association released"), "the association was to stay open");
    drop(held.stdin.take());
    assert!(held.wait().unwrap().success());
}
