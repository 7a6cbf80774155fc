//! `ensemble`: two trainings with the same folds in one file.

use std::path::{Path, PathBuf};
use std::process::Output;

use crate::support::{Folder, data_set, error_line, program, text};
use triaged_model::ModelCard;
use triaged_training::calibration::logit;

pub fn train(data: &Path, out: &Path, more: &[&str]) {
    #[rustfmt::skip]
    let arguments = [
        "train", "--data", text(data), "--out", text(out), "--candidate", "m4", "--size", "32", "--batch", "8", "--folds", "2",
    ];
    succeeds(&program(&[&arguments, more].concat()));
}

pub fn succeeds(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The probabilities of a `scores.csv`, by fold and id.
pub fn scores(folder: &Path) -> Vec<(String, f64)> {
    let mut rows = csv(&folder.join("scores.csv"));
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    rows
}

fn csv(path: &Path) -> Vec<(String, f64)> {
    let text = std::fs::read_to_string(path).expect("scores");
    let row = |line: &str| {
        let cells: Vec<&str> = line.split(',').collect();
        (format!("{} {}", cells[0], cells[3]), cells[5].parse().expect("a probability"))
    };
    text.lines().skip(1).map(row).collect()
}

#[test]
fn two_trainings_with_the_same_folds_become_one_model_with_figures_out_of_fold() {
    let folder = Folder::new();
    let data = folder.path().join("data");
    data_set(&data, 12);
    let run = |name: &str| -> PathBuf { folder.path().join(name) };
    let (short, long, apart, out) = (run("short"), run("long"), run("apart"), run("model"));
    train(&data, &short, &["--epochs", "1", "--seed", "5"]);
    train(&data, &long, &["--epochs", "2", "--seed", "5"]);
    #[rustfmt::skip]
    let made = program(&[
        "ensemble", "--run", text(&short), "--run", text(&long), "--name", "both", "--out", text(&out),
    ]);
    succeeds(&made);
    let (card, onnx) = ModelCard::load(&out.join("both.json")).expect("a card that the node takes");
    let (single, _) = ModelCard::load(&short.join("model/m4.json")).expect("a card");
    assert_eq!((card.name.as_str(), card.file.as_str()), ("both", "both.onnx"));
    assert!(onnx.len() > 1_000);
    let about = &card.about;
    assert_eq!(about["architecture"]["networks"].as_u64(), Some(2));
    let parameters = |card: &ModelCard| card.about["architecture"]["parameters"].as_u64().expect("a number");
    assert_eq!(parameters(&card), 2 * parameters(&single));
    let members = about["ensemble"]["members"].as_array().expect("members");
    assert_eq!(members.iter().map(|member| member["epochs"].as_u64()).collect::<Vec<_>>(), [Some(1), Some(2)]);
    if std::env::var_os("ORT_DYLIB_PATH").is_some() {
        let largest = about["parity_with_onnx_runtime"]["largest_difference"].as_f64().expect("a parity check");
        assert!(largest <= 1e-4, "{largest}");
    } else {
        eprintln!("SKIP parity of the ensemble with ONNX Runtime: ORT_DYLIB_PATH is not set");
    }
    let people = std::fs::read_to_string(out.join("both.md")).expect("a card for people");
    assert!(people.contains("The file holds 2 networks") && people.contains("2-fold cross-validation"), "{people}");

    // Each patient out of fold: by the mean of both trainings' logits in the fold that has not seen them.
    let (a, b, mean) = (scores(&short.join("folds")), scores(&long.join("folds")), scores(&out));
    assert_eq!((a.len(), b.len(), mean.len()), (72, 72, 72));
    for ((a, b), mean) in a.iter().zip(&b).zip(&mean) {
        assert_eq!((&a.0, &b.0), (&mean.0, &mean.0));
        assert!(((logit(a.1) + logit(b.1)) / 2.0 - logit(mean.1)).abs() < 1e-6, "{a:?} {b:?} {mean:?}");
    }

    // A fold's network may stand for its training; the figures are the same, the file is not.
    let (fold, other) = (long.join("folds/fold-1"), run("other"));
    #[rustfmt::skip]
    succeeds(&program(&[
        "ensemble", "--run", text(&short), "--run", text(&fold), "--name", "both", "--out", text(&other),
    ]));
    let (of_fold, bytes) = ModelCard::load(&other.join("both.json")).expect("a card that the node takes");
    assert!(bytes != onnx && scores(&other) == mean);
    assert_eq!(of_fold.about["ensemble"]["members"][1]["is_of_a_fold"].as_bool(), Some(true));
    let people = std::fs::read_to_string(other.join("both.md")).expect("a card for people");
    assert!(people.contains("on all patients but one fold's"), "{people}");

    // Other folds are refused: a network would be measured on what it was trained on.
    train(&data, &apart, &["--epochs", "1", "--seed", "6"]);
    let refused = program(&["ensemble", "--run", text(&short), "--run", text(&apart), "--out", text(&run("none"))]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(error_line(&refused).contains("its folds are others"), "{}", error_line(&refused));
    assert!(!run("none").exists());
    let twice =
        program(&["ensemble", "--run", text(&short), "--run", text(&short.join(".")), "--out", text(&run("none"))]);
    assert!(error_line(&twice).contains("is given twice") && !run("none").exists(), "{}", error_line(&twice));
    let alone = program(&["ensemble", "--run", text(&short), "--out", text(&run("none"))]);
    assert_eq!(alone.status.code(), Some(2));
}
