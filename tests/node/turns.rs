//! No study waits for another: neither for one with many slices, nor for an association that stays open.

use std::path::PathBuf;
use std::process::Stdio;

use crate::support::{Node, dicom_files, has, phantoms, python, storescu};

/// The files of phantoms in one folder, a study each.
fn studies(sizes: &[u32]) -> (tempfile::TempDir, Vec<Vec<PathBuf>>) {
    let folder = tempfile::tempdir().unwrap();
    let write = |(number, slices): (usize, &u32)| {
        let place = folder.path().join(number.to_string());
        std::fs::create_dir(&place).unwrap();
        let drawn = phantoms::study(&["--slices", &slices.to_string()], number as u64);
        for (index, object) in drawn.iter().enumerate() {
            object.write_to_file(place.join(format!("{index:04}.dcm"))).unwrap();
        }
        dicom_files(&place)
    };
    let files = sizes.iter().enumerate().map(write).collect();
    (folder, files)
}

#[test]
fn a_study_does_not_wait_for_the_many_slices_of_another() {
    if !has("storescu") {
        return;
    }
    let node = Node::start(&[("TRIAGED__TRIAGE__QUIET_SECONDS", "0")]);
    let (_folder, files) = studies(&[120, 8]);
    std::thread::scope(|scope| {
        scope.spawn(|| storescu(&node, &["-aet", "PERFUSION"], &files[0]).unwrap());
        node.wait_until("SELECT count(*) >= 40 FROM slice_results WHERE calling_ae = 'PERFUSION'");
        storescu(&node, &["-aet", "STROKE"], &files[1]).unwrap();
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
    let (_folder, files) = studies(&[12, 11]);
    let studies = "SELECT count(*) FROM worklist WHERE state = 'decided' AND slices_scored = ";
    let mut held = std::process::Command::new(python)
        .args(["tests/peers/send.py", &node.dimse.port().to_string(), "--hold"])
        .args(&files[0])
        .args(&files[1])
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
