//! `sequence`: from the scores of a cross-validation to a second network in the card.

use std::fs;
use std::path::Path;
use std::process::Output;

use crate::recalibrate::of_few_slices;
use crate::support::{Folder, data_set, error_line, program, text};
use serde_json::Value;
use triaged_model::ModelCard;

fn succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn train(data: &Path, out: &Path, folds: &str) {
    #[rustfmt::skip]
    succeeds(&program(&[
        "train", "--data", text(data), "--out", text(out), "--candidate", "m4", "--size", "32", "--batch", "8", "--folds", folds,
        "--epochs", "1", "--seed", "5",
    ]));
}

#[test]
fn the_scores_of_a_cross_validation_train_a_sequence_network_that_the_card_names() {
    let folder = Folder::new();
    let path = |name: &str| folder.path().join(name);
    let (data, run) = (path("data"), path("run"));
    data_set(&data, 18);
    train(&data, &run, "3");
    let (model, out, figures) = (run.join("model/m4.json"), path("out"), path("figures.json"));
    #[rustfmt::skip]
    let told = succeeds(&program(&[
        "sequence", "--run", text(&run), "--card", text(&model), "--out", text(&out), "--figures", text(&figures), "--steps", "40",
    ]));
    assert!(told.contains("| AUC, difference |") && told.contains("With early alerts"), "{told}");
    let (before, onnx) = ModelCard::load(&model).expect("the card of before");
    let new = out.join("m4.json");
    let (card, same) = ModelCard::load(&new).expect("a card that the node takes");
    assert!(onnx == same, "the slices' network stays");
    let sequence = card.sequence.clone().expect("a sequence");
    assert_eq!((sequence.file.as_str(), sequence.spacing_mm), ("m4-sequence.onnx", 5.0));
    assert!(card.load_sequence(&new).expect("its file").is_some_and(|bytes| bytes.len() > 1_000));
    assert_eq!((before.study_rule, before.slice_threshold), (card.study_rule, card.slice_threshold));
    let about = &card.about["sequence"];
    assert_eq!(about["parameters"].as_u64(), Some(37));
    assert_eq!(
        (about["slices"]["with"]["cases"].as_u64(), about["studies"]["with"]["cases"].as_u64()),
        (Some(108), Some(18))
    );
    // The same patients, by the slices' network alone: the cross-validation's own figures.
    let pooled = &before.about["cross_validation"]["pooled"];
    for of in ["slices", "studies"] {
        let (without, pooled) = (&about[of]["without"], &pooled[of]);
        assert_eq!((&without["confusion"], &without["auc"]["value"]), (&pooled["confusion"], &pooled["auc"]["value"]));
    }
    let read: Value = serde_json::from_str(&fs::read_to_string(&figures).expect("figures")).expect("JSON");
    assert_eq!(&read, about);
    let people = fs::read_to_string(out.join("m4.md")).expect("a card for people");
    assert_eq!(people.matches("## The sequence network\n").count(), 1);

    // Again into its own folder: the same files.
    let files = |folder: &Path| {
        ["m4.json", "m4.md", "m4-sequence.onnx"].map(|name| fs::read(folder.join(name)).expect("a file"))
    };
    let first = files(&out);
    let again = program(&["sequence", "--run", text(&run), "--card", text(&new), "--out", text(&out), "--steps", "40"]);
    succeeds(&again);
    assert!(first == files(&out));
    // A site chooses the sequence network's threshold, and the study rule's stays.
    let site = path("site");
    #[rustfmt::skip]
    succeeds(&program(&[
        "recalibrate", "--card", text(&of_few_slices(&new, &path("few"))), "--data", text(&data), "--sensitivity", "0.6", "--out", text(&site),
    ]));
    let read = |path: &Path| ModelCard::load(path).expect("a card that the node takes").0;
    let name = read(&new).name;
    let (before, after) = (read(&new), read(&site.join(format!("{name}-site.json"))));
    assert_eq!(before.study_rule, after.study_rule);
    assert_ne!(before.sequence.map(|s| s.threshold), after.sequence.map(|s| s.threshold));

    // Scores without an index beside them need the folder they are of; those of another network are refused.
    let bare = path("bare");
    fs::create_dir_all(&bare).expect("a folder");
    for name in ["scores.csv", "cross-validation.json"] {
        fs::copy(run.join("folds").join(name), bare.join(name)).expect("a copy");
    }
    let refused = program(&["sequence", "--run", text(&bare)]);
    assert!(refused.status.code() == Some(2) && error_line(&refused).contains("--data"), "{}", error_line(&refused));
    let told_again = succeeds(&program(&["sequence", "--run", text(&bare), "--data", text(&data), "--steps", "40"]));
    assert_eq!(told, told_again);
    let other = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/m10.json");
    let refused = program(&["sequence", "--run", text(&run), "--card", text(&other), "--out", text(&bare)]);
    let said = error_line(&refused);
    assert!(refused.status.code() == Some(2) && said.contains("not the card that these scores decided"), "{said}");
}

#[test]
fn two_folds_are_too_few_to_choose_on_patients_that_were_not_learned_from() {
    let folder = Folder::new();
    let (data, run) = (folder.path().join("data"), folder.path().join("run"));
    data_set(&data, 12);
    train(&data, &run, "2");
    let refused = program(&["sequence", "--run", text(&run)]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(error_line(&refused).contains("2 folds are too few"), "{}", error_line(&refused));
}
