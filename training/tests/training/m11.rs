//! m11 through the commands: trained, cut off and gone on with, exported, with and without pretrained weights.

use std::path::{Path, PathBuf};
use std::process::Output;

use crate::support::{Folder, data_set, error_line, program, text};
use triaged_imaging::Transform;
use triaged_model::ModelCard;

/// Trains m11 on small images, into `out`.
fn train(data: &Path, out: &Path, more: &[&str]) -> Output {
    #[rustfmt::skip]
    let arguments = [
        "train", "--data", text(data), "--out", text(out), "--candidate", "m11", "--size", "32", "--batch", "8", "--seed",
        "5", "--patience", "9", "--folds", "0", "--schedule", "constant", "--balance", "48",
    ];
    program(&[&arguments, more].concat())
}

fn succeeds(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn refused(output: &Output, words: &[&str]) {
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    let line = error_line(output);
    assert!(words.iter().all(|word| line.contains(word)), "{line}");
}

#[test]
fn a_cut_off_run_ends_as_one_that_was_not_and_its_card_names_the_input() {
    let folder = Folder::new();
    let (data, whole, cut) = (folder.path().join("data"), folder.path().join("whole"), folder.path().join("cut"));
    data_set(&data, 12);
    succeeds(&train(&data, &whole, &["--pretrained", "none", "--epochs", "2", "--half-size-epochs", "1"]));
    let (card, onnx) = ModelCard::load(&whole.join("model/m11.json")).expect("a card that the node takes");
    assert_eq!(card.name, "m11");
    let Transform::HounsfieldWindows {
        height: 32,
        width: 32,
        windows,
        normalization: Some(normalization),
        crop_to_head: None,
    } = &card.transform
    else {
        panic!("{:?}", card.transform)
    };
    assert_eq!(windows.len(), 1);
    // 0 to 255, less 127, over 128.
    assert!(
        (normalization.mean * 255.0 - 127.0).abs() < 1e-3 && (normalization.deviation * 255.0 - 128.0).abs() < 1e-3
    );
    assert_eq!(card.about["training"]["pretrained"], serde_json::Value::Null);
    let parity = &card.about["parity_with_onnx_runtime"];
    if std::env::var_os("ORT_DYLIB_PATH").is_some() {
        let largest = parity["largest_difference"].as_f64().expect("a parity check");
        assert!(largest <= 1e-4, "{largest}");
    } else {
        eprintln!("SKIP parity of m11 with ONNX Runtime: ORT_DYLIB_PATH is not set");
    }
    let people = std::fs::read_to_string(whole.join("model/m11.md")).expect("a card for people");
    assert!(people.contains("EfficientNet-Lite0") && people.contains("4 inverted residual block(s)"), "{people}");
    assert!(people.contains("normalized by mean"), "{people}");

    // Cut off before it was exported: after six steps on images of 16 pixels, which are not what it is for, rounding alone
    // can take a probability further than the file's check allows.
    #[rustfmt::skip]
    succeeds(&program(&[
        "fit", "--data", text(&data), "--out", text(&cut), "--candidate", "m11", "--size", "32", "--batch", "8", "--seed",
        "5", "--patience", "9", "--schedule", "constant", "--balance", "48", "--pretrained", "none", "--epochs", "1",
        "--half-size-epochs", "1",
    ]));
    succeeds(&train(&data, &cut, &["--pretrained", "none", "--epochs", "2", "--half-size-epochs", "1"]));
    let (_, resumed) = ModelCard::load(&cut.join("model/m11.json")).expect("a card");
    assert!(resumed == onnx, "a run that was cut off must end as one that was not");
}

#[test]
fn pretrained_weights_are_begun_with_and_named_in_the_card() {
    let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/pretrained/efficientnet-lite0-57934424.pth");
    if !weights.exists() {
        eprintln!("SKIP pretrained_weights_are_begun_with: no pretrained weights (`make pretrained` fetches them)");
        return;
    }
    let folder = Folder::new();
    let (data, run) = (folder.path().join("data"), folder.path().join("run"));
    data_set(&data, 12);
    let begun = ["--pretrained", text(&weights), "--epochs", "1"];
    succeeds(&train(&data, &run, &begun));
    let (card, _) = ModelCard::load(&run.join("model/m11.json")).expect("a card that the node takes");
    let pretrained = &card.about["training"]["pretrained"];
    assert!(pretrained["sha256"].as_str().is_some_and(|sha256| sha256.starts_with("57934424")));
    assert!(pretrained["source"].as_str().is_some_and(|source| source.contains("Apache License 2.0")));
    let people = std::fs::read_to_string(run.join("model/m11.md")).expect("a card for people");
    assert!(people.contains("trained on ImageNet"), "{people}");

    // The same weights under another name are the same; none are not.
    let moved = folder.path().join("moved.pth");
    std::fs::copy(&weights, &moved).expect("a copy");
    succeeds(&train(&data, &run, &["--pretrained", text(&moved), "--epochs", "1"]));
    refused(&train(&data, &run, &["--pretrained", "none", "--epochs", "1"]), &["another configuration"]);
}

#[test]
fn what_m11_cannot_do_is_refused_in_one_line() {
    let folder = Folder::new();
    let data = folder.path().join("data");
    data_set(&data, 12);
    let run = |name: &str| -> PathBuf { folder.path().join(name) };
    let none = ["--pretrained", "none"];
    let absent = run("absent.pth");
    let missing = train(&data, &run("a"), &["--pretrained", text(&absent)]);
    refused(&missing, &["cannot read the pretrained weights", "absent.pth", "make pretrained"]);
    let other = data.join("stage_2_train.csv");
    let labels = train(&data, &run("b"), &["--pretrained", text(&other)]);
    refused(&labels, &["is not the file of EfficientNet-Lite0's weights"]);
    let grid = train(&data, &run("c"), &[&none[..], &["--position-grid", "2"]].concat());
    refused(&grid, &["does not flatten its image"]);
    #[rustfmt::skip]
    let m4 = program(&[
        "fit", "--data", text(&data), "--out", text(&run("e")), "--candidate", "m4", "--size", "32", "--pretrained",
        text(&other),
    ]);
    refused(&m4, &["pretrained is set", "no weights of this network"]);
}
