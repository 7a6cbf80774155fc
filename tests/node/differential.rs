//! Pixels beside DCMTK, GDCM, pydicom, libjpeg, CharLS and OpenJPEG: every transfer syntax, and faults in headers.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use triaged_imaging::{decode_frame, read_bytes, read_header_bytes};

use crate::support;
use crate::support::oracle::{self, Question};

/// `tests/peers/pixels.py` makes the objects, with the peers' encoders, and says what each must give.
#[test]
fn every_object_has_the_hounsfield_units_that_its_maker_says() {
    let Some(python) = support::python() else { return };
    let available = |program: &Path, arguments: &[&str]| {
        Command::new(program).args(arguments).output().is_ok_and(|run| run.status.success())
    };
    if !available(&python, &["-c", "import gdcm, jpeg_ls, PIL, openjpeg"]) {
        eprintln!("SKIP the packages of tests/requirements.txt are not all installed (make test-deps)");
        return;
    }
    if !available(Path::new("dcmcjpeg"), &["--version"]) {
        eprintln!("SKIP dcmcjpeg is not installed");
        return;
    }
    let dcmtk = support::run("dcmcjpeg", &["--version"]).unwrap();
    let question = Question { script: "pixels.py", versions: &dcmtk, ..Question::default() };
    let (folder, said) = oracle::made(&question).expect("there is Python");
    print!("{said}");

    let truth = std::fs::read(folder.join("truth.json")).unwrap();
    let truth: BTreeMap<String, Vec<f32>> = serde_json::from_slice(&truth).unwrap();
    assert!(truth.len() > 300, "{} objects", truth.len());
    let mut wrong = Vec::new();
    for (name, right) in &truth {
        let bytes = std::fs::read(folder.join(format!("{name}.dcm"))).unwrap();
        let seen = read_bytes(&bytes)
            .map_err(|error| error.to_string())
            .and_then(|object| decode_frame(&object, 0).map_err(|error| error.to_string()));
        match seen {
            Ok(frame) if frame.hounsfield() == *right => {}
            Ok(_) => wrong.push(format!("{name}: other Hounsfield units")),
            Err(why) => wrong.push(format!("{name}: {why}")),
        }
        if let Err(error) = read_header_bytes(&bytes) {
            wrong.push(format!("{name}, the header: {error}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} are wrong:\n{}", wrong.len(), truth.len(), wrong.join("\n"));
}
