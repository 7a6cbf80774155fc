//! Structured report and key image: made on demand, valid for validators that nobody here wrote, the same at every making.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::tags;
use triaged_imaging::attributes::text;
use triaged_imaging::read_file;

use crate::support::{Node, card, dicom_files, has, phantom, python, run, storescu};

/// Status and body of a GET that may answer with bytes.
pub fn get_bytes(node: &Node, path: &str) -> (u16, Vec<u8>) {
    let mut socket = TcpStream::connect(node.web).unwrap();
    write!(socket, "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", node.web).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let status = std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
    (status, answer[end + 4..].to_vec())
}

/// dicom3tools' dciodvfy: every line that begins with "Error".
pub fn dciodvfy(file: &Path) -> Vec<String> {
    let output = Command::new("dciodvfy").arg("-new").arg(file).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(!said.trim().is_empty(), "it names at least the IOD");
    said.lines().filter(|line| line.starts_with("Error")).map(str::to_owned).collect()
}

/// pixelmed's DicomSRValidator, which knows the templates; `None` where it is not installed.
pub fn sr_validator(file: &Path) -> Option<Vec<String>> {
    let jar = Path::new("/usr/share/java/pixelmed.jar");
    if !jar.is_file() || !has("java") {
        eprintln!("SKIP pixelmed's DicomSRValidator is not installed (make test-deps)");
        return None;
    }
    let output = Command::new("java")
        .args([
            // It runs for seconds: the second compiler costs more than its code saves.
            "-XX:TieredStopAtLevel=1",
            "-XX:+UseSerialGC",
            "-Xss64m",
            "-Djdk.xml.xpathExprOpLimit=0",
            "-Djdk.xml.xpathExprGrpLimit=0",
            "-Djdk.xml.xpathTotalOpLimit=0",
        ])
        .args(["-cp", "/usr/share/java/pixelmed.jar:/usr/share/java/commons-codec.jar:/usr/share/java/jsonp-api.jar"])
        .arg("com.pixelmed.validate.DicomSRValidator")
        .arg(file)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains("Root Template") || said.contains("TID"), "it looked at the templates: {said}");
    Some(said.lines().filter(|line| line.contains("Error")).map(str::to_owned).collect())
}

/// Writes both documents of the only study into a folder, by the command line, and checks that HTTP gives the same bytes.
pub fn documents(node: &Node, folder: &Path) -> (PathBuf, PathBuf) {
    let study: String = node.query("SELECT study_uid FROM worklist");
    let make = |kind: &str, options: &[&str]| {
        let path = folder.join(format!("{kind}.dcm"));
        let mut arguments = vec!["report", &study, "--out", path.to_str().unwrap()];
        arguments.extend(options);
        let output = node.cli(&arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let (status, body) = get_bytes(node, &format!("/api/v1/studies/{study}/{kind}.dcm"));
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        assert!(body == std::fs::read(&path).unwrap(), "{kind}: the command and the web server make the same");
        path
    };
    (make("report", &[]), make("key-image", &["--key-image"]))
}

/// All validators that are here. Each error fails.
pub fn validate(report: &Path, key_image: &Path) {
    if has("dciodvfy") {
        assert_eq!(dciodvfy(report), [""; 0], "the report");
        assert_eq!(dciodvfy(key_image), [""; 0], "the key image");
    }
    if let Some(errors) = sr_validator(report) {
        assert_eq!(errors, [""; 0]);
    }
    if has("dsrdump") {
        let said = run("dsrdump", &[report]).unwrap();
        assert!(said.contains("Imaging Measurement Report"), "{said}");
        assert!(!said.lines().any(|line| line.starts_with("E: ")), "{said}");
    }
}

/// highdicom's reading of the report, a fact a line.
pub fn highdicom(report: &Path) -> Option<String> {
    let python = python()?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/read_report.py");
    match run(python.to_str().unwrap(), &[Path::new(script), report]) {
        Err(said) if said.contains("SKIP highdicom is not here") => {
            eprintln!("SKIP highdicom is not in .venv (make test-deps)");
            None
        }
        read => Some(read.unwrap()),
    }
}

#[test]
fn a_flagged_study_has_a_report_and_a_key_image_that_pass_every_validator() {
    let models = tempfile::tempdir().unwrap();
    let model = card(models.path(), |card| {
        card["study_rule"] = serde_json::json!({ "kind": "kth_highest", "k": 2, "threshold": 1e-9 });
    });
    let node = Node::start(&[("TRIAGED__INFERENCE__MODEL", &model)]);
    let series = phantom(&["--slices", "12", "--lesion", "epidural"]);
    storescu(&node, &[], &dicom_files(series.path())).unwrap();
    node.wait_until("SELECT count(*) = 1 AND total(state = 'decided' AND flagged = 1) = 1 FROM worklist");
    let folder = tempfile::tempdir().unwrap();
    let (report, key_image) = documents(&node, folder.path());
    validate(&report, &key_image);
    let source = read_file(&dicom_files(series.path())[0]).unwrap();
    for path in [&report, &key_image] {
        let object = read_file(path).unwrap();
        for tag in [tags::STUDY_INSTANCE_UID, tags::PATIENT_NAME, tags::PATIENT_ID, tags::ACCESSION_NUMBER] {
            assert_eq!(text(&object, tag), text(&source, tag), "{tag}");
        }
        assert_ne!(text(&object, tags::SERIES_INSTANCE_UID), text(&source, tags::SERIES_INSTANCE_UID));
    }
    let top: String =
        node.query("SELECT sop_uid FROM slice_results WHERE state = 'scored' ORDER BY probability DESC LIMIT 1");
    if let Some(read) = highdicom(&report) {
        for fact in ["finding 1386000 SCT", "evaluation 52101004 SCT Present", "algorithm spot", "certainty"] {
            assert!(read.contains(fact), "{fact}: {read}");
        }
        assert!(read.contains(&format!("source {top}")), "{read}");
    }
    if let Ok(folder) = std::env::var("TRIAGED_TEST_DOCUMENTS") {
        std::fs::copy(&report, Path::new(&folder).join("report.dcm")).unwrap();
        std::fs::copy(&key_image, Path::new(&folder).join("key-image.dcm")).unwrap();
    }
}

#[test]
fn a_later_verdict_is_a_new_instance_that_names_the_one_before() {
    // A rule that no study meets: what is tested here does not depend on a model.
    let models = tempfile::tempdir().unwrap();
    let model = card(models.path(), |card| {
        card["study_rule"] = serde_json::json!({ "kind": "kth_highest", "k": 1000, "threshold": 1.0 });
    });
    let node = Node::start(&[("TRIAGED__INFERENCE__MODEL", &model), ("TRIAGED__TRIAGE__PROVISIONAL_ALERTS", "false")]);
    let series = phantom(&["--slices", "30"]);
    let files = dicom_files(series.path());
    storescu(&node, &[], &files[..29]).unwrap();
    node.wait_until("SELECT count(*) = 1 FROM worklist WHERE state = 'decided' AND revision = 1");
    let folder = tempfile::tempdir().unwrap();
    let (first, _) = documents(&node, folder.path());
    let first_bytes = std::fs::read(&first).unwrap();
    let first = read_file(&first).unwrap();
    assert!(first.get(tags::PREDECESSOR_DOCUMENTS_SEQUENCE).is_none());
    storescu(&node, &[], &files[29..]).unwrap();
    node.wait_until("SELECT count(*) = 1 FROM worklist WHERE state = 'decided' AND revision = 2");
    let (second_file, key_image) = documents(&node, folder.path());
    validate(&second_file, &key_image);
    let second = read_file(&second_file).unwrap();
    assert_eq!(text(&first, tags::SERIES_INSTANCE_UID), text(&second, tags::SERIES_INSTANCE_UID));
    let named = second.get(tags::PREDECESSOR_DOCUMENTS_SEQUENCE).unwrap().items().unwrap()[0]
        .get(tags::REFERENCED_SERIES_SEQUENCE)
        .unwrap()
        .items()
        .unwrap()[0]
        .get(tags::REFERENCED_SOP_SEQUENCE)
        .unwrap()
        .items()
        .unwrap()[0]
        .clone();
    assert_eq!(text(&named, tags::REFERENCED_SOP_INSTANCE_UID), text(&first, tags::SOP_INSTANCE_UID));
    // The first one can still be had, as it was: what came later is not in it.
    let study: String = node.query("SELECT study_uid FROM worklist");
    let again = folder.path().join("again.dcm");
    let output = node.cli(&["report", &study, "--revision", "1", "--out", again.to_str().unwrap()]);
    assert!(output.status.success());
    assert!(std::fs::read(&again).unwrap() == first_bytes, "what came later is not in it");
    if has("dsrdump") {
        let said = run("dsrdump", &[&second_file]).unwrap();
        assert!(!said.to_lowercase().contains("normal") && !said.contains("Absent"), "no clearance: {said}");
        // As the model's phantoms go, it is one or the other; neither is a clearance.
        let verdict: String = node.query("SELECT verdict FROM worklist");
        assert!(said.contains(if verdict == "not flagged" { "Not flagged" } else { "Indeterminate" }), "{said}");
        assert!(
            !std::fs::read(&second_file).unwrap().windows(9).any(|bytes| bytes == b"272519000"),
            "nor is the code one"
        );
    }
}

#[test]
fn odd_headers_of_senders_end_in_valid_documents() {
    // Without a heat map: `boxes` is about reports with regions.
    let models = tempfile::tempdir().unwrap();
    let model = card(models.path(), |card| drop(card.as_object_mut().unwrap().remove("heat_map")));
    let node = Node::start(&[("TRIAGED__INFERENCE__MODEL", &model)]);
    let series = phantom(&["--slices", "8"]);
    let edited = tempfile::tempdir().unwrap();
    // Three character sets in one name, by escape sequences, and text that would be HTML, HL7 or a formula elsewhere.
    let name = b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B";
    for (number, path) in (0..).zip(dicom_files(series.path())) {
        let mut object = read_file(&path).unwrap();
        let text = |tag, vr, value: &str| DataElement::new(tag, vr, PrimitiveValue::from(value));
        object.put(text(tags::SPECIFIC_CHARACTER_SET, VR::CS, "\\ISO 2022 IR 87"));
        object.put(DataElement::new(tags::PATIENT_NAME, VR::PN, PrimitiveValue::U8(name.to_vec().into())));
        object.put(text(tags::ACCESSION_NUMBER, VR::SH, "=1+1|<b>&"));
        object.put(text(tags::PATIENT_ID, VR::LO, "\"><script>|^~&"));
        object.put(text(tags::PATIENT_BIRTH_DATE, VR::DA, "31.12.60"));
        object.put(text(tags::PATIENT_SEX, VR::CS, "W"));
        for tag in [tags::STUDY_DATE, tags::STUDY_TIME, tags::STUDY_ID, tags::REFERRING_PHYSICIAN_NAME] {
            object.remove_element(tag);
        }
        object.write_to_file(edited.path().join(format!("{number}.dcm"))).unwrap();
    }
    storescu(&node, &[], &dicom_files(edited.path())).unwrap();
    node.wait_until("SELECT count(*) = 1 AND total(state = 'decided') = 1 FROM worklist");
    let folder = tempfile::tempdir().unwrap();
    let (report, key_image) = documents(&node, folder.path());
    validate(&report, &key_image);
    for path in [&report, &key_image] {
        let object = read_file(path).unwrap();
        assert_eq!(text(&object, tags::PATIENT_NAME).as_deref(), Some("Yamada^Tarou=山田^太郎=やまだ^たろう"));
        assert_eq!(text(&object, tags::PATIENT_ID).as_deref(), Some("\"><script>|^~&"));
        assert_eq!(text(&object, tags::PATIENT_BIRTH_DATE), None);
    }
    if let Some(read) = highdicom(&report) {
        assert!(read.contains("patient Yamada^Tarou=山田^太郎=やまだ^たろう"), "{read}");
    }
}

#[test]
fn uids_that_break_every_rule_still_name_the_study() {
    let node = Node::start(&[]);
    let series = phantom(&["--slices", "4"]);
    let edited = tempfile::tempdir().unwrap();
    let uid = format!("1.02.ABC-<&{}", "x".repeat(53));
    assert_eq!(uid.len(), 64);
    for path in dicom_files(series.path()) {
        let mut object = read_file(&path).unwrap();
        object.put(DataElement::new(tags::STUDY_INSTANCE_UID, VR::UI, PrimitiveValue::from(uid.as_str())));
        object.write_to_file(edited.path().join(path.file_name().unwrap())).unwrap();
    }
    let to = node.dimse.to_string();
    let sent = node.cli(&["send", edited.path().to_str().unwrap(), "--to", &to]);
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    node.wait_until("SELECT count(*) = 1 AND total(state = 'decided') = 1 FROM worklist");
    let out = edited.path().join("report");
    let output = node.cli(&["report", &uid, "--out", out.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text(&read_file(&out).unwrap(), tags::STUDY_INSTANCE_UID), Some(uid));
}

#[test]
fn what_has_no_document_says_why() {
    let node = Node::start(&[("TRIAGED__TRIAGE__QUIET_SECONDS", "3600")]);
    let (status, body) = get_bytes(&node, "/api/v1/studies/1.2.3/report.dcm");
    assert_eq!((status, String::from_utf8_lossy(&body).contains("no study")), (404, true));
    let series = phantom(&["--slices", "3"]);
    storescu(&node, &[], &dicom_files(series.path())).unwrap();
    let study: String = node.query("SELECT study_uid FROM worklist");
    let (status, body) = get_bytes(&node, &format!("/api/v1/studies/{study}/report.dcm"));
    assert_eq!((status, String::from_utf8_lossy(&body).contains("no verdict yet")), (404, true));
    let (status, _) = get_bytes(&node, &format!("/api/v1/studies/{study}/report.dcm?revision=x"));
    assert_eq!(status, 400);
    let output = node.cli(&["report", &study, "--out", "-"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no verdict yet"));
}
