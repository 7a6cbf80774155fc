//! The study's protocol on a small made-up data set.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::SystemTime;

use crate::support::{Folder, data_set, error_line, program, text};
use triaged_training::candidates::candidate;
use triaged_training::network::parameters;

fn quick_eval(data: &Path, out: &Path, candidates: &[&str], more: &[&str]) -> Output {
    let fixed = ["--data", text(data), "--out", text(out), "--size", "32", "--epochs", "2", "--window", "40,80"];
    program(&[&["quick-eval"], candidates, &fixed, more].concat())
}

/// The rows of a table by their first field, each as column to field.
fn rows(path: &Path) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_path(path).expect("a table");
    let rows = reader.deserialize::<BTreeMap<String, String>>().map(|row| row.expect("a row"));
    rows.map(|row| (row["candidate"].clone(), row)).collect()
}

fn changed(path: &Path) -> SystemTime {
    fs::metadata(path).and_then(|about| about.modified()).expect("a file")
}

#[test]
fn candidates_are_trained_once_and_stand_beside_the_study() {
    let folder = Folder::new();
    let (data, out) = (folder.path().join("data"), folder.path().join("out"));
    data_set(&data, 20);
    let first = quick_eval(&data, &out, &["m1"], &["--samples", "100"]);
    assert!(first.status.success(), "{}", error_line(&first));
    let table = rows(&out.join("quick-eval.csv"));
    assert_eq!(table.keys().collect::<Vec<_>>(), ["m1"]);
    let row = &table["m1"];
    let number = |column: &str| row[column].parse::<f64>().unwrap_or_else(|error| panic!("{column}: {error}"));
    let layers = candidate("m1").expect("m1").layers;
    assert_eq!(row["parameters"], parameters(&layers, [1, 32, 32]).expect("a network").to_string());
    // A hundred of 120 slices; of ten patients a stratum two are tested, and 0.16 of ten validated.
    assert_eq!(row["samples"], "100");
    assert_eq!(number("train") + number("validation") + number("test"), 100.0);
    assert_eq!(row["epochs"], "2");
    for figure in ["threshold", "f2", "accuracy", "sensitivity", "precision", "specificity", "auc"] {
        assert!((0.0..=1.0).contains(&number(figure)), "{figure}");
    }
    let (p, r) = (number("precision"), number("sensitivity"));
    if p + r > 0.0 {
        assert!((number("f2") - 5.0 * p * r / (4.0 * p + r)).abs() < 1e-9);
    }
    assert!(number("seconds_a_slice") > 0.0 && number("training_seconds_a_slice") > 0.0);
    let split: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(out.join("m1/split.json")).expect("a split")).expect("JSON");
    let sides = split["sides"].as_object().expect("sides");
    let count = |side: &str| sides.values().filter(|found| *found == side).count();
    assert_eq!((count("test"), count("validation"), count("train")), (4, 4, 12));
    let curve = fs::read_to_string(out.join("m1-loss.csv")).expect("a loss curve");
    let lines: Vec<&str> = curve.lines().collect();
    assert_eq!(lines[0], "epoch,loss,validation_loss,validation_auc,seconds");
    assert_eq!(lines.len(), 3);
    // Beside the study's own.
    let said = String::from_utf8_lossy(&first.stdout);
    assert!(said.contains("(0.536)") && said.contains("(0.906)") && said.contains("F2 0.648"), "{said}");

    // A second candidate joins; the first is not trained again.
    let before = changed(&out.join("m1/state.json"));
    let second = quick_eval(&data, &out, &["m4", "m1"], &["--samples", "100"]);
    assert!(second.status.success(), "{}", error_line(&second));
    assert!(String::from_utf8_lossy(&second.stderr).contains("m1: finished before"));
    assert_eq!(changed(&out.join("m1/state.json")), before);
    let both = rows(&out.join("quick-eval.csv"));
    assert_eq!(both.keys().collect::<Vec<_>>(), ["m1", "m4"]);
    assert_eq!(both["m1"], table["m1"]);

    // More epochs go on from the last.
    let arguments =
        ["quick-eval", "m1", "--data", text(&data), "--out", text(&out), "--size", "32", "--window", "40,80"];
    let longer = program(&[&arguments[..], &["--samples", "100", "--epochs", "3"]].concat());
    assert!(longer.status.success(), "{}", error_line(&longer));
    let longer = rows(&out.join("quick-eval.csv"));
    assert_eq!((longer["m1"]["epochs"].as_str(), longer["m4"]["epochs"].as_str()), ("3", "2"));

    // Another sample, split or input in the same folder is refused, and what is there stays.
    let kept = fs::read(out.join("quick-eval.csv")).expect("a table");
    for other in [&["--samples", "80"][..], &["--samples", "100", "--split", "image"]] {
        let refused = quick_eval(&data, &out, &["m4"], other);
        assert_eq!(refused.status.code(), Some(2));
        assert!(error_line(&refused).contains("other data, another sample or split"), "{}", error_line(&refused));
    }
    let refused = quick_eval(&data, &out, &["m4"], &["--samples", "100", "--learning-rate", "0.01"]);
    assert!(error_line(&refused).contains("another configuration"), "{}", error_line(&refused));
    assert_eq!(fs::read(out.join("quick-eval.csv")).expect("a table"), kept);
}

#[test]
fn a_table_has_no_rows_of_another_split() {
    let folder = Folder::new();
    let (data, out) = (folder.path().join("data"), folder.path().join("out"));
    data_set(&data, 12);
    let first = quick_eval(&data, &out, &["m1"], &[]);
    assert!(first.status.success(), "{}", error_line(&first));
    let second = quick_eval(&data, &out, &["m4"], &["--split", "image"]);
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(second.status.success() && said.contains("m1 was run before"), "{said}");
    assert_eq!(rows(&out.join("quick-eval.csv")).keys().collect::<Vec<_>>(), ["m4"]);
    // Its own run is still there, and stands in a table of its split.
    let third = quick_eval(&data, &out, &["m1"], &[]);
    assert!(String::from_utf8_lossy(&third.stderr).contains("m1: finished before"));
    assert_eq!(rows(&out.join("quick-eval.csv")).keys().collect::<Vec<_>>(), ["m1"]);
}

#[test]
fn what_cannot_be_trained_is_refused_before_the_first_training() {
    let folder = Folder::new();
    let (data, out) = (folder.path().join("data"), folder.path().join("out"));
    data_set(&data, 12);
    // At 32×32 the third pool of m7 has nothing left.
    let all = quick_eval(&data, &out, &["all"], &[]);
    assert_eq!(all.status.code(), Some(2));
    assert!(error_line(&all).contains("m7 at this size"), "{}", error_line(&all));
    assert_eq!(quick_eval(&data, &out, &["m11"], &[]).status.code(), Some(2));
    assert_eq!(quick_eval(&data, &out, &[], &[]).status.code(), Some(2));
    if cfg!(feature = "cuda") {
        eprintln!("SKIP quick-eval without CUDA: this build has CUDA");
    } else {
        let cuda = quick_eval(&data, &out, &["m1"], &["--device", "cuda"]);
        assert_eq!(cuda.status.code(), Some(2));
        assert!(error_line(&cuda).contains("no CUDA"), "{}", error_line(&cuda));
    }
    assert!(!out.exists());
}
