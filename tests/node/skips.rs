//! Tests of the report on skipped tests (scripts/skips.py): each is counted and named, whichever runner ran it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The reporter's output for a runner's report; none where there is no Python, said aloud.
fn reported(report: &str) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report");
    fs::write(&path, report).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/skips.py");
    let Ok(output) = Command::new("python3").arg(script).arg(path).output() else {
        eprintln!("SKIP the report of skipped tests: python3 is not installed");
        return None;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn every_skip_in_a_report_of_nextest_is_named() {
    let junit = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="nextest-run" tests="4"><testsuite name="triaged::node" tests="4">
<testcase name="web::page" classname="triaged::node"><system-out>running 1 test</system-out></testcase>
<testcase name="pixels::png" classname="triaged::node"><system-err>SKIP: /x &lt;y&gt; is not there
SKIP &quot;dcmcjpeg&quot; is not installed
</system-err></testcase>
<testcase name="send::one" classname="triaged::node"><system-out>SKIP: /x &lt;y&gt; is not there</system-out></testcase>
<testcase name="send::two" classname="triaged::node"><system-err>a word before SKIP   no room
SKIPPED is another word</system-err></testcase>
</testsuite></testsuites>"#;
    let Some(text) = reported(junit) else { return };
    let expected = "Skipped, whole or in part: 3 tests\n  \"dcmcjpeg\" is not installed\n      triaged::node pixels::png\n  \
                    /x <y> is not there\n      triaged::node pixels::png\n      triaged::node send::one\n  no room\n      \
                    triaged::node send::two\n";
    assert_eq!(text, expected);
}

#[test]
fn every_skip_in_the_output_of_cargo_test_is_named() {
    let output = "running 3 tests\ntest a::one ... ok\ntest b ... ok\n\nsuccesses:\n\n---- a::one stdout ----\nSKIP no Orthanc\n\n\n\
                  ---- b stdout ----\nhello\n\n\nsuccesses:\n    a::one\n    b\n\ntest result: ok. 3 passed\n";
    let Some(text) = reported(output) else { return };
    assert_eq!(text, "Skipped, whole or in part: 1 test\n  no Orthanc\n      a::one\n");
    assert_eq!(reported("running 1 test\ntest b ... ok\n").as_deref(), Some("Skipped: nothing\n"));
}

/// All Rust sources of the workspace.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_skip_in_the_sources_says_why() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "tests", "benches", "crates", "training"] {
        sources(&root.join(folder), &mut files);
    }
    let own = Path::new(file!()).file_name();
    let mut count = 0;
    for file in files.iter().filter(|file| file.file_name() != own) {
        let text = fs::read_to_string(file).unwrap();
        for line in text.lines().filter(|line| line.contains("\"SKIP")) {
            let why = line.split("\"SKIP").nth(1).unwrap();
            assert!(why.starts_with(' ') && why.len() > 5, "{}: {line}: write \"SKIP <why>\"", file.display());
            count += 1;
        }
    }
    assert!(count > 20, "{count} skips found in {} files", files.len());
}
