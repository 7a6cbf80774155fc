//! Real senders: DCMTK and pynetdicom push real CT in every transfer syntax, and every slice is scored.

use std::path::{Path, PathBuf};

use crate::support::{Node, dicom_files, has, phantom, python, real_data, run, storescu};

#[test]
fn echo_is_answered_to_dcmtk() {
    if !has("echoscu") {
        return;
    }
    let node = Node::start(&[]);
    let port = node.dimse.port().to_string();
    run("echoscu", &["-aec", "TRIAGED", "--repeat", "3", "127.0.0.1", &port]).unwrap();
}

#[test]
fn the_ge_series_ends_as_28_scored_slices_and_a_decided_study() {
    let Some(folder) = real_data("ge-head").filter(|_| has("storescu")) else { return };
    let node = Node::start(&[]);
    let port = node.dimse.port().to_string();
    let folder = folder.to_str().unwrap();
    // The folder has a licence file in it, at which storescu would stop.
    run("storescu", &["-aec", "TRIAGED", "127.0.0.1", &port, "+sd", "+sp", "*.dcm", folder]).unwrap();
    node.wait_for_slices(28);
    assert_eq!(node.query::<i64>("SELECT count(*) FROM slice_results WHERE state = 'scored'"), 28);
    node.wait_until("SELECT count(*) = 1 AND total(state = 'decided') = 1 FROM worklist");
    assert_eq!(node.query::<i64>("SELECT slices_scored FROM worklist"), 28);
    assert_eq!(node.query::<i64>("SELECT flagged IS NOT NULL AND score IS NOT NULL FROM worklist"), 1);
    // Promise 4: every number can be traced.
    let traced = "SELECT count(*) FROM slice_results WHERE length(model_sha256) = 64 AND model <> '' AND
                  provider = 'CPUExecutionProvider' AND received_at <= scored_at AND scored_at GLOB '20*T*:*:*.???Z'";
    assert_eq!(node.query::<i64>(traced), 28);
}

/// A transfer syntax with the storescu option that proposes it and the DCMTK command that makes it.
const TRANSFER_SYNTAXES: [(&str, &str, &[&str]); 10] = [
    ("1.2.840.10008.1.2", "-xi", &["dcmconv", "+ti"]),
    ("1.2.840.10008.1.2.1", "-xe", &["dcmconv", "+te"]),
    ("1.2.840.10008.1.2.2", "-xb", &["dcmconv", "+tb"]),
    ("1.2.840.10008.1.2.1.99", "-xd", &["dcmconv", "+td"]),
    ("1.2.840.10008.1.2.4.70", "-xs", &["dcmcjpeg", "+e1"]),
    ("1.2.840.10008.1.2.4.80", "-xt", &["dcmcjpls", "+el"]),
    ("1.2.840.10008.1.2.4.81", "-xu", &["dcmcjpls", "+en", "+md", "1"]),
    ("1.2.840.10008.1.2.5", "-xr", &["dcmcrle"]),
    ("1.2.840.10008.1.2.4.51", "-xx", &["dcmcjpeg", "+ee"]),
    ("1.2.840.10008.1.2.4.50", "-xy", &["dcmcjpeg", "+eb"]),
];

#[test]
fn every_transfer_syntax_is_received_and_scored() {
    if !["storescu", "dcmcjpls", "dcmodify"].iter().all(|program| has(program)) {
        return;
    }
    let node = Node::start(&[]);
    let phantom = phantom(&["--slices", "8", "--lesion", "intraparenchymal"]);
    let source = &dicom_files(phantom.path())[4];
    let folder = tempfile::tempdir().unwrap();
    for (syntax, option, make) in TRANSFER_SYNTAXES {
        let file = variant(source, folder.path(), syntax, make);
        storescu(&node, &[option, "-R"], &[file]).unwrap();
    }
    let mut expected = TRANSFER_SYNTAXES.len();
    if let Some(ct_ich) = real_data("ct-ich/stage_2_train") {
        storescu(&node, &["-xv", "-R"], &dicom_files(&ct_ich)[..1]).unwrap();
        expected += 1;
    }
    node.wait_for_slices(expected);
    let database = node.database();
    let mut statement = database
        .prepare("SELECT i.transfer_syntax, r.state, r.reason, r.probability FROM slice_results r JOIN instances i USING (sop_uid)")
        .unwrap();
    type Row = (String, String, Option<String>, Option<f64>);
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).unwrap();
    let rows: Vec<Row> = rows.map(|row| row.unwrap()).collect();
    let probability = |syntax: &str| {
        let row =
            rows.iter().find(|row| row.0 == syntax).unwrap_or_else(|| panic!("{syntax} did not arrive as it was sent"));
        assert_eq!(row.1, "scored", "{syntax}: {:?}", row.2);
        row.3.unwrap()
    };
    let plain = probability("1.2.840.10008.1.2.1");
    for (syntax, _, _) in TRANSFER_SYNTAXES {
        let lossless =
            !["1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.50"].contains(&syntax);
        let probability = probability(syntax);
        assert!(!lossless || probability == plain, "{syntax} is lossless, but scored {probability} and not {plain}");
    }
}

/// The object in another transfer syntax, under a SOP Instance UID of its own.
fn variant(source: &Path, folder: &Path, syntax: &str, make: &[&str]) -> PathBuf {
    let file = folder.join(format!("{syntax}.dcm"));
    let (program, options) = make.split_first().unwrap();
    let mut arguments: Vec<&std::ffi::OsStr> = options.iter().map(std::ffi::OsStr::new).collect();
    arguments.extend([source.as_os_str(), file.as_os_str()]);
    run(program, &arguments).unwrap();
    run("dcmodify", &["-nb", "-gin", file.to_str().unwrap()]).unwrap();
    file
}

#[test]
fn several_associations_of_pynetdicom_at_once_bring_one_study() {
    let (Some(folder), Some(python)) = (real_data("ge-head"), python()) else { return };
    let node = Node::start(&[]);
    let mut arguments =
        vec!["tests/peers/send.py".to_owned(), node.dimse.port().to_string(), "--associations=8".into()];
    arguments.extend(dicom_files(&folder).iter().map(|file| file.to_str().unwrap().to_owned()));
    let said = run(python.to_str().unwrap(), &arguments).unwrap();
    assert_eq!(said.lines().filter(|line| line.contains(" 0000")).count(), 28, "{said}");
    node.wait_for_slices(28);
    node.wait_until("SELECT count(*) = 1 AND total(state = 'decided') = 1 FROM worklist");
    assert_eq!(node.query::<i64>("SELECT revision FROM worklist"), 1, "the study was judged once, when all had ended");
}

#[test]
fn dcmsend_sends_a_patient_in_jpeg_2000() {
    let Some(folder) = real_data("ct-ich/stage_2_train").filter(|_| has("dcmsend")) else { return };
    let node = Node::start(&[]);
    let port = node.dimse.port().to_string();
    let mut arguments =
        vec!["-aec".to_owned(), "TRIAGED".into(), "--decompress-never".into(), "127.0.0.1".into(), port];
    arguments.extend(dicom_files(&folder)[..12].iter().map(|file| file.to_str().unwrap().to_owned()));
    run("dcmsend", &arguments).unwrap();
    node.wait_for_slices(12);
    assert_eq!(node.query::<i64>("SELECT count(*) FROM slice_results WHERE state = 'scored'"), 12);
}

#[test]
fn a_study_waits_while_an_association_that_brought_slices_of_it_is_open() {
    let (Some(folder), Some(python)) = (real_data("ge-head"), python()) else { return };
    let node = Node::start(&[("TRIAGED__TRIAGE__QUIET_SECONDS", "0")]);
    let files = dicom_files(&folder);
    let mut held = std::process::Command::new(python)
        .args(["tests/peers/send.py", &node.dimse.port().to_string(), "--hold"])
        .arg(&files[0])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    node.wait_for_slices(1);
    // The other association comes, brings the rest and goes; its slices are scored, and still the study is open.
    storescu(&node, &[], &files[1..6]).unwrap();
    node.wait_for_slices(6);
    node.wait_for_log("association released");
    assert_eq!(node.query::<String>("SELECT state FROM worklist"), "receiving");
    drop(held.stdin.take());
    assert!(held.wait().unwrap().success());
    node.wait_until("SELECT state = 'decided' FROM worklist");
    assert_eq!(node.query::<i64>("SELECT revision FROM worklist"), 1);
}

#[test]
fn a_late_slice_opens_the_next_revision() {
    let Some(folder) = real_data("ge-head").filter(|_| has("storescu")) else { return };
    let node = Node::start(&[("TRIAGED__TRIAGE__QUIET_SECONDS", "0")]);
    let files = dicom_files(&folder);
    storescu(&node, &[], &files[..3]).unwrap();
    node.wait_until("SELECT state = 'decided' FROM worklist");
    storescu(&node, &[], &files[3..4]).unwrap();
    node.wait_until("SELECT state = 'decided' AND revision = 2 AND slices_scored = 4 FROM worklist");
    assert_eq!(node.query::<i64>("SELECT count(*) FROM verdicts WHERE NOT provisional"), 2);
}

#[test]
fn stat_is_known_by_the_sender_or_by_an_attribute() {
    if !["storescu", "dcmodify"].iter().all(|program| has(program)) {
        return;
    }
    let node = Node::start(&[
        ("TRIAGED__TRIAGE__STAT_CALLING_AE_TITLES", "ED_CT"),
        ("TRIAGED__TRIAGE__STAT_ATTRIBUTES", "RequestedProcedurePriority=STAT"),
    ]);
    let phantom = phantom(&["--slices", "3"]);
    let files = dicom_files(phantom.path());
    run("dcmodify", &["-nb", "-i", "(0040,1003)=STAT", files[1].to_str().unwrap()]).unwrap();
    storescu(&node, &["-aet", "ED_CT"], &files[..1]).unwrap();
    storescu(&node, &["-aet", "CT2"], &files[1..]).unwrap();
    node.wait_for_slices(3);
    let sql = "SELECT group_concat(priority, ' ') FROM (SELECT priority FROM slices ORDER BY id)";
    assert_eq!(node.query::<String>(sql), "-1 -1 0");
}
