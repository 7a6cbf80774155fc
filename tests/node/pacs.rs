//! Tests of the objects that leave the node by C-STORE: reports and key images to PACS, and images that go on, whatever the peers do.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::attacks::{jpeg_2000_bomb, jpeg_of_empty_scans, status_of};
use crate::orthanc::Orthanc;
use crate::support::raw_store::{JPEG_2000, JPEG_EXTENDED, Sender, encapsulated, head_ct};
use crate::support::{Node, PATIENCE, card, dicom_files, free_port, has, phantom, python, storescu};
use crate::tls::{self, Authority};

const SR: &str = "1.2.840.10008.5.1.4.1.1.88.34";

/// A program that is ended with the test.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// DCMTK's storescp on a port, into a folder.
fn storescp(port: u16, folder: &Path, options: &[&str]) -> Peer {
    let child = Command::new("storescp")
        .args(options)
        .args(["-od", folder.to_str().unwrap(), &port.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Peer(child.unwrap())
}

/// The PACS with whims, and its port.
fn whims(options: &[&str]) -> Option<(Peer, u16)> {
    let python = python()?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/store_scp.py");
    let mut child = Command::new(python).arg(script).args(options).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let port = lines.next().unwrap().unwrap().parse().unwrap();
    // Its later lines would fill the pipe.
    std::thread::spawn(move || lines.for_each(drop));
    Some((Peer(child), port))
}

fn pacs(name: &str, port: u16, more: &str) -> String {
    format!(
        "[[notify.channels]]\nname = '{name}'\nkind = 'pacs'\naddress = '127.0.0.1:{port}'\ncalled_ae_title = 'ANY'\n{more}\n"
    )
}

fn forward(name: &str, port: u16, more: &str) -> String {
    format!(
        "[[forward]]\nname = '{name}'\naddress = '127.0.0.1:{port}'\ncalled_ae_title = 'ANY'\nfirst_retry_seconds = 0.2\n{more}\n"
    )
}

/// A bleeding phantom in the node, judged as flagged.
fn flagged(node: &Node, slices: usize) -> tempfile::TempDir {
    let series = phantom(&["--slices", &slices.to_string(), "--lesion", "epidural"]);
    storescu(node, &[], &dicom_files(series.path())).unwrap();
    node.wait_until("SELECT count(*) = 1 AND total(state = 'decided' AND flagged = 1) = 1 FROM worklist");
    series
}

fn files_in(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

/// Every slice is positive, so that what is tested here does not depend on a model.
fn flags_all(folder: &Path) -> String {
    card(folder, |card| {
        card["study_rule"] = serde_json::json!({ "kind": "kth_highest", "k": 2, "threshold": 1e-9 });
    })
}

#[test]
fn images_report_and_key_image_lie_in_orthanc_and_in_a_second_pacs() {
    if !has("storescp") || !has("storescu") {
        return;
    }
    let Some(orthanc) = Orthanc::start_with(&serde_json::json!({}), free_port()) else { return };
    let second = tempfile::tempdir().unwrap();
    let port = free_port();
    let _storescp = storescp(port, second.path(), &[]);
    let models = tempfile::tempdir().unwrap();
    let file = [
        "triage.provisional_alerts = false\n".to_owned(),
        pacs("orthanc", orthanc.dicom, ""),
        pacs("second", port, "key_image = false"),
        forward("orthanc", orthanc.dicom, ""),
    ];
    let node = Node::start_with_file(&file.concat(), &[("TRIAGED__INFERENCE__MODEL", &flags_all(models.path()))]);
    flagged(&node, 10);
    node.wait_until("SELECT count(*) = 2 AND total(state = 'delivered') = 2 FROM notification_log");
    node.wait_until("SELECT count(*) = 10 AND total(state = 'stored') = 10 FROM forward_log");
    assert_eq!(node.query::<i64>("SELECT count(*) FROM document_log WHERE state = 'stored'"), 3);
    assert_eq!(orthanc.get("/statistics")["CountInstances"], 12);
    assert_eq!(orthanc.get("/statistics")["CountStudies"], 1, "all of it is one study");
    let series = orthanc.get("/series");
    let mut modalities: Vec<String> = (series.as_array().unwrap().iter())
        .map(|id| orthanc.get(&format!("/series/{}", id.as_str().unwrap()))["MainDicomTags"]["Modality"].to_string())
        .collect();
    modalities.sort();
    assert_eq!(modalities, ["\"CT\"", "\"OT\"", "\"SR\""]);
    assert_eq!(files_in(second.path()), 1, "the report alone");
    // The study's JSON tells each delivery, instance by instance.
    let study: String = node.query("SELECT study_uid FROM worklist");
    let (status, body) = node.get(&format!("/api/v1/studies/{study}"));
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (status, body["documents"].as_array().unwrap().len(), body["forwards"].as_array().unwrap().len()),
        (200, 3, 10)
    );
    let check = node.cli(&["check", "--send-test"]);
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(said.contains("the PACS answered C-ECHO") && said.contains("0 pending, 0 failed"), "{said}");
}

/// A PACS for key images gets nothing of a study that is not flagged, and nobody was told of that study.
#[test]
fn a_pacs_that_gets_no_document_is_nobody_who_was_told() {
    if !has("storescp") || !has("storescu") {
        return;
    }
    let (port, folder, models) = (free_port(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let _storescp = storescp(port, folder.path(), &[]);
    let model = card(models.path(), |card| {
        card["study_rule"] = serde_json::json!({ "kind": "kth_highest", "k": 1000, "threshold": 1.0 });
    });
    let route = "[[notify.routes]]\nevents = ['not_flagged']\nchannels = ['pictures']\n";
    let file = [&pacs("pictures", port, "report = false"), route].concat();
    let node = Node::start_with_file(&file, &[("TRIAGED__INFERENCE__MODEL", &model)]);
    let series = phantom(&["--slices", "30"]);
    storescu(&node, &[], &dicom_files(series.path())).unwrap();
    node.wait_until("SELECT count(*) = 1 AND total(state = 'delivered') = 1 FROM notification_log");
    assert_eq!(node.query::<String>("SELECT verdict FROM worklist"), "not flagged");
    assert_eq!(node.query::<i64>("SELECT notified_at IS NULL FROM worklist"), 1);
    assert_eq!(node.query::<String>("SELECT kind || ' ' || state FROM document_log"), "key-image unavailable");
    assert_eq!(files_in(folder.path()), 0);
}

#[test]
fn a_peer_that_is_down_has_everything_once_it_is_back_over_a_kill() {
    if !has("storescp") || !has("storescu") {
        return;
    }
    let (port, folder, models) = (free_port(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = [
        "triage.provisional_alerts = false\nnotify.longest_retry_seconds = 1\n".to_owned(),
        pacs("pacs", port, "timeout_seconds = 5"),
        forward("pacs", port, "longest_retry_seconds = 1\ntimeout_seconds = 5"),
    ];
    let mut node = Node::start_with_file(&file.concat(), &[("TRIAGED__INFERENCE__MODEL", &flags_all(models.path()))]);
    flagged(&node, 10);
    node.wait_until("SELECT count(*) = 1 AND total(state = 'pending' AND attempts > 0 AND last_error LIKE '%connect%') = 1 FROM notification_log");
    node.wait_until("SELECT count(*) = 10 AND total(state = 'pending') = 10 FROM forward_log");
    node.kill();
    let _storescp = storescp(port, folder.path(), &[]);
    node.restart();
    node.wait_until("SELECT total(state = 'delivered') = 1 FROM notification_log");
    node.wait_until("SELECT total(state = 'stored') = 10 FROM forward_log");
    assert_eq!(files_in(folder.path()), 12);
    // Killed while it sends: what was sent and not yet noted goes again, which harms nobody.
    let series = phantom(&["--slices", "40", "--seed", "2"]);
    storescu(&node, &[], &dicom_files(series.path())).unwrap();
    node.wait_until("SELECT count(*) >= 1 FROM forward_log WHERE attempts > 0 OR state = 'pending'");
    node.kill();
    node.restart();
    node.wait_until("SELECT count(*) = 50 AND total(state = 'stored') = 50 FROM forward_log");
}

#[test]
fn a_pacs_that_takes_half_refuses_or_hangs_ends_in_a_state_for_each_instance() {
    let Some((_half, half)) = whims(&["--only", SR]) else { return };
    let Some((_busy, busy)) = whims(&["--status", "A700,A700"]) else { return };
    let Some((_never, never)) = whims(&["--hang"]) else { return };
    let models = tempfile::tempdir().unwrap();
    let file = [
        "triage.provisional_alerts = false\nnotify.first_retry_seconds = 0.1\nnotify.longest_retry_seconds = 0.2\n"
            .to_owned(),
        pacs("half", half, ""),
        pacs("busy", busy, ""),
        pacs("never", never, "timeout_seconds = 1"),
        forward("half", half, "max_attempts = 2"),
    ];
    let node = Node::start_with_file(&file.concat(), &[("TRIAGED__INFERENCE__MODEL", &flags_all(models.path()))]);
    flagged(&node, 4);
    node.wait_until(
        "SELECT count(*) = 1 FROM notification_log WHERE channel = 'busy' AND state = 'delivered' AND attempts = 2",
    );
    node.wait_until("SELECT count(*) = 1 FROM notification_log WHERE channel = 'half' AND state = 'dead'");
    node.wait_until("SELECT count(*) = 1 FROM notification_log WHERE channel = 'never' AND attempts > 1 AND last_error LIKE '%silent%'");
    let state = |channel: &str, kind: &str| -> String {
        node.query(&format!("SELECT state FROM document_log WHERE channel = '{channel}' AND kind = '{kind}'"))
    };
    assert_eq!((state("half", "report"), state("half", "key-image")), ("stored".into(), "refused".into()));
    assert_eq!((state("busy", "report"), state("busy", "key-image")), ("stored".into(), "stored".into()));
    let why: String = node.query("SELECT error FROM document_log WHERE state = 'refused'");
    assert!(why.contains("the key-image: the peer accepts no Secondary Capture Image Storage"), "{why}");
    // The peer accepts no presentation context for CT at all: the images fail, each with its reason, and can be sent again.
    node.wait_until("SELECT count(*) = 4 FROM forward_log WHERE last_error LIKE '%accepted none%' OR state = 'failed'");
}

#[test]
fn images_go_uncompressed_to_a_peer_that_takes_nothing_else_and_over_tls() {
    if tls::skipped() || !has("storescp") || !has("dcmcjpeg") {
        return;
    }
    let authority = Authority::new();
    let (peer_key, peer_certificate) = authority.sign("pacs");
    let (key, certificate) = authority.sign("triaged");
    let ca = authority.path("ca.pem");
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
    let _storescp = storescp(
        port,
        folder.path(),
        &["+tls", &path(&peer_key), &path(&peer_certificate), "+cf", &path(&ca), "-rc", "+xe"],
    );
    let (ca_text, certificate, key) = (path(&ca), path(&certificate), path(&key));
    let node = Node::start_with_file(
        &forward("secure", port, "tls = true\ncalling_ae_titles = ['ct1']"),
        &[
            ("TRIAGED__DIMSE__TLS__PEER_CA", &ca_text),
            ("TRIAGED__DIMSE__TLS__CERTIFICATE", &certificate),
            ("TRIAGED__DIMSE__TLS__KEY", &key),
        ],
    );
    let series = phantom(&["--slices", "3"]);
    let packed = tempfile::tempdir().unwrap();
    for (number, file) in dicom_files(series.path()).iter().enumerate() {
        let out = packed.path().join(format!("{number}.dcm"));
        crate::support::run("dcmcjpeg", &["+e1", file.to_str().unwrap(), out.to_str().unwrap()]).unwrap();
    }
    storescu(&node, &["-xs", "-aet", "CT1"], &dicom_files(packed.path())).unwrap();
    node.wait_until("SELECT count(*) = 3 AND total(state = 'stored') = 3 FROM forward_log");
    assert_eq!(node.query::<String>("SELECT DISTINCT transfer_syntax FROM forward_log"), "1.2.840.10008.1.2.1");
    let begun = Instant::now();
    while files_in(folder.path()) < 3 {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(20));
    }
    // Another scanner's images are not for this destination.
    let other = phantom(&["--slices", "3", "--seed", "9"]);
    storescu(&node, &["-aet", "CT2"], &dicom_files(other.path())).unwrap();
    node.wait_for_slices(6);
    assert_eq!(node.query::<i64>("SELECT count(*) FROM forward_log"), 3);
}

/// Promise 8 for what goes out: decompressing for a peer runs in a process of its own, too.
#[test]
fn an_object_that_cannot_be_decompressed_for_a_peer_costs_itself() {
    if !has("storescp") || !has("dcmcjpeg") || !has("dcmcjpls") {
        return;
    }
    let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
    let _storescp = storescp(port, folder.path(), &["+xe"]);
    let node = Node::start_with_file(&forward("plain", port, ""), &[]);
    let bombs = [
        ("2.25.1", JPEG_EXTENDED, jpeg_of_empty_scans(40_000)),
        ("2.25.2", JPEG_2000, jpeg_2000_bomb(512)),
        ("2.25.3", JPEG_2000, jpeg_2000_bomb(1)),
    ];
    for (uid, syntax, codestream) in &bombs {
        let object = [head_ct(uid, 1, 512, &[]), encapsulated(&[codestream])].concat();
        assert_eq!(Sender::associate(&node, "ATTACKER", syntax).store(uid, &object), 0);
    }
    // It says to be more than any process may hold.
    let object = [head_ct("2.25.4", 16_384, 4096, &[]), encapsulated(&[&[0; 512]])].concat();
    assert_eq!(Sender::associate(&node, "ATTACKER", JPEG_2000).store("2.25.4", &object), 0);
    let pid = node.pid();
    let series = phantom(&["--slices", "4"]);
    let packed = tempfile::tempdir().unwrap();
    for (number, file) in dicom_files(series.path()).iter().enumerate() {
        let out = packed.path().join(format!("{number}.dcm"));
        let (program, option) = if number % 2 == 0 { ("dcmcjpeg", "+e1") } else { ("dcmcjpls", "+el") };
        crate::support::run(program, &[option, file.to_str().unwrap(), out.to_str().unwrap()]).unwrap();
        let offer = if number % 2 == 0 { "-xs" } else { "-xt" };
        storescu(&node, &[offer, "-aet", "CT1"], &[out]).unwrap();
    }
    let healthy = "SELECT count(*) = 4 FROM forward_log WHERE state = 'stored' AND sop_uid NOT LIKE '2.25._'";
    node.wait_until(healthy);
    node.wait_until("SELECT count(*) = 4 FROM forward_log WHERE state = 'failed' AND sop_uid LIKE '2.25._'");
    for (uid, why) in
        [("2.25.1", "cannot convert"), ("2.25.2", "cannot convert"), ("2.25.3", "cannot convert"), ("2.25.4", "MiB")]
    {
        let error: String = node.query(&format!("SELECT last_error FROM forward_log WHERE sop_uid = '{uid}'"));
        println!("{uid}: {error}");
        assert!(error.contains(why), "{uid}: {error}");
    }
    assert_eq!(node.pid(), pid);
    let memory = status_of(node.pid(), "VmHWM:");
    assert!(memory < 512 << 10, "{memory} KiB");
}
