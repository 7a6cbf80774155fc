//! From two sources to one card: figures of each source, calibration, rules, mirror images; and what was written before
//! there were such things.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Folder, data_set, data_set_from, error_line, program, text};
use serde_json::Value;
use triaged_model::ModelCard;
use triaged_training::calibration::Platt;
use triaged_training::cross_validation::CrossValidation;
use triaged_training::data::{Cache, Index};
use triaged_training::evaluate::{Decision, Evaluation, Study, slices};
use triaged_training::files::{read_json, write_json};
use triaged_training::fit::read_run;
use triaged_training::metrics::best_f2_threshold;
use triaged_training::report;
use triaged_training::runtime::{OnnxModel, RuntimeError};

/// Trains m4 small on two sources, two folds and on all patients; mirror images are scored too. An ablation of one row is
/// put into the card.
fn trained(folder: &Path) -> PathBuf {
    let (here, there) = (folder.join("here"), folder.join("there"));
    data_set(&here, 10);
    data_set_from(&there, 50, 8);
    train(folder, &[])
}

/// Trains on what is there, or goes on.
fn train(folder: &Path, more: &[&str]) -> PathBuf {
    let (here, there, out) = (folder.join("here"), folder.join("there"), folder.join("run"));
    #[rustfmt::skip]
    let common = [
        "train", "--data", text(&here), "--data", text(&there), "--out", text(&out), "--candidate", "m4", "--size", "32",
        "--epochs", "2", "--batch", "8", "--folds", "2", "--test-time-flip",
    ];
    let output = program(&[&common, more].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("of them here, 10 patients") && said.contains("of them there, 8 patients"), "{said}");
    out
}

#[test]
fn another_sensitivity_is_another_decision_and_no_other_training() {
    let folder = Folder::new();
    let run = trained(folder.path());
    let networks = |run: &Path| {
        ["folds/fold-1", "folds/fold-2", ""].map(|part| read_run(&run.join(part)).expect("a run").1.epochs)
    };
    let (before, rule) = (networks(&run), |run: &Path| {
        let (card, _) = ModelCard::load(&run.join("model/m4.json")).expect("a card that the node takes");
        (card.study_rule.threshold(), card.about["training"]["study_sensitivity"].as_f64())
    });
    let (nine_of_ten, asked) = rule(&run);
    assert_eq!(asked, Some(0.9));
    train(folder.path(), &["--study-sensitivity", "1"]);
    assert!(networks(&run) == before, "epochs with their times: nothing was trained again");
    let (all, asked) = rule(&run);
    assert_eq!(asked, Some(1.0));
    assert!(all <= nine_of_ten, "{all} and {nine_of_ten}");
    let found: CrossValidation = read_json(&run.join("folds/cross-validation.json")).expect("figures");
    assert!(found.decisions.iter().all(|decision| decision.wanted_sensitivity == 1.0));
    let people = fs::read_to_string(run.join("model/m4.md")).expect("a card");
    assert!(people.contains("flags at least 100 % of the studies with hemorrhage, over all folds"), "{people}");
    assert!(people.contains("The run was begun asking for 90 %: this share was chosen later"), "{people}");
    train(folder.path(), &["--study-sensitivity", "0.9"]);
    let people = fs::read_to_string(run.join("model/m4.md")).expect("a card");
    assert!(people.contains("Nothing here records whether that share"), "{people}");
}

fn refused(output: &std::process::Output, words: &[&str]) {
    let line = error_line(output);
    assert_eq!(output.status.code(), Some(2), "{line}");
    assert!(words.iter().all(|word| line.contains(word)), "{line}");
}

#[test]
fn figures_of_other_folds_are_not_put_on_a_network() {
    let folder = Folder::new();
    let run = trained(folder.path());
    let (here, there, model) = (folder.path().join("here"), folder.path().join("there"), folder.path().join("model"));
    let export = |run: &Path, folds: &Path| {
        program(&["export", "--run", text(run), "--out", text(&model), "--cross-validation", text(folds)])
    };
    let make = |command: &str, out: &Path, more: &[&str]| {
        #[rustfmt::skip]
        let common = [
            command, "--out", text(out), "--candidate", "m4", "--size", "32", "--batch", "8", "--test-time-flip",
            "--data", text(&here),
        ];
        let output = program(&[&common, more].concat());
        assert!(output.status.success(), "{}", error_line(&output));
    };
    // Of other settings, of fewer data.
    let others = folder.path().join("others");
    make("cross-validate", &others, &["--data", text(&there), "--epochs", "1", "--folds", "2"]);
    refused(&export(&run, &others), &["fold-1 was not trained as", "something else"]);
    let fewer = folder.path().join("fewer");
    make("cross-validate", &fewer, &["--epochs", "2", "--folds", "2"]);
    refused(&export(&run, &fewer), &["fold-1 was not trained as", "slices gone: 48"]);
    // Of a network that has not seen all whom the card would say it has.
    let held = folder.path().join("held");
    make("fit", &held, &["--data", text(&there), "--epochs", "2", "--monitor", "last"]);
    refused(&export(&held, &run.join("folds")), &["held holds 8 patients back", "--cross-validation"]);
    // Of one that is not trained to its end.
    let path = run.join("state.json");
    let whole = fs::read_to_string(&path).expect("a state");
    let mut state: Value = serde_json::from_str(&whole).expect("JSON");
    state["epochs"].as_array_mut().expect("epochs").pop();
    state["best"] = 1.into();
    write_json(&path, &state).expect("written");
    refused(&export(&run, &run.join("folds")), &["has 1 of 2 epochs"]);
    assert!(!model.exists());
    fs::write(&path, whole).expect("written");
    let output = export(&run, &run.join("folds"));
    assert!(output.status.success(), "{}", error_line(&output));
}

#[test]
fn another_folders_figures_are_kept_where_nobody_in_it_was_trained_on_and_while_they_hold() {
    let folder = Folder::new();
    let run = trained(folder.path());
    let on = |data: &Path| {
        let folds = run.join("folds");
        let output =
            program(&["evaluate", "--run", text(&run), "--on", text(data), "--cross-validation", text(&folds)]);
        assert!(output.status.success(), "{}", error_line(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let export = || {
        let (model, folds) = (folder.path().join("model"), run.join("folds"));
        let output =
            program(&["export", "--run", text(&run), "--out", text(&model), "--cross-validation", text(&folds)]);
        assert!(output.status.success(), "{}", error_line(&output));
        let people = fs::read_to_string(model.join("m4.md")).expect("a card");
        (people, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // Two patients of what was trained on, under another name, beside two others.
    let copy = folder.path().join("copy");
    data_set_from(&copy, 8, 4);
    let said = on(&copy);
    assert!(said.contains("2 of these 4 patients were trained on or decided by (copy/P8, copy/P9)"), "{said}");
    assert!(!run.join("evaluation-on-copy.json").exists());
    let elsewhere = folder.path().join("elsewhere");
    data_set_from(&elsewhere, 40, 4);
    let said = on(&elsewhere);
    assert!(!said.contains("were trained on"), "{said}");
    let (people, _) = export();
    assert!(
        people.contains("On all of elsewhere, by the same decision") && !people.contains("On all of copy"),
        "{people}"
    );
    for part in [
        "trained on 18 patients,",
        "training, and measured out of fold",
        "all 18 in training",
        "that of the rule chosen on all",
    ] {
        assert!(people.contains(part), "{part} in {people}");
    }
    // By another decision they would be others.
    train(folder.path(), &["--study-sensitivity", "0.5"]);
    let (people, said) = export();
    assert!(!people.contains("On all of elsewhere"), "{people}");
    assert!(said.contains("evaluation-on-elsewhere.json is of another epoch, decision"), "{said}");
}

/// The raw probability, and that of the mirror image, of every slice in a `scores.csv`, by fold, source and id.
fn scores(path: &Path) -> BTreeMap<(String, String, String), (f64, Option<f64>)> {
    let mut reader = csv::Reader::from_path(path).expect("scores");
    let rows = reader.deserialize::<BTreeMap<String, String>>().map(|row| row.expect("a row"));
    rows.map(|row| {
        let key = (row["side"].clone(), row["source"].clone(), row["id"].clone());
        (key, (row["probability"].parse().expect("a number"), row["mirrored"].parse().ok()))
    })
    .collect()
}

#[test]
fn two_sources_become_one_card_that_tells_of_each() {
    let folder = Folder::new();
    let run = trained(folder.path());
    let found: CrossValidation = read_json(&run.join("folds/cross-validation.json")).expect("figures");
    assert_eq!(found.decisions.len(), 2);
    let sources = &found.supplement.sources;
    let patients: Vec<(&str, usize)> = sources.iter().map(|(name, own)| (name.as_str(), own.patients)).collect();
    assert_eq!(patients, [("here", 10), ("there", 8)]);
    assert_eq!(sources.values().map(|own| own.slices.cases).sum::<usize>(), found.pooled.slices.cases);
    assert!(sources.values().all(|own| own.slices.auc.is_some()));
    assert!(found.supplement.test_time_flip.is_some());
    assert_eq!(found.supplement.study_rules.iter().filter(|row| row.chosen).count(), 1);
    let all = scores(&run.join("folds/scores.csv"));
    assert_eq!(all.len(), 108);
    assert!(all.values().all(|(_, mirrored)| mirrored.is_some()));

    let (card, onnx) = ModelCard::load(&run.join("model/m4.json")).expect("a card that the node takes");
    let about = &card.about;
    assert_eq!(about["sources"]["there"]["patients"], 8);
    assert_eq!(about["study_rules"].as_array().map(Vec::len), Some(found.supplement.study_rules.len()));
    assert!(about["with_test_time_flip"]["slices"].is_object());
    let people = fs::read_to_string(run.join("model/m4.md")).expect("a card");
    for part in [
        "the 8 patients of there",
        "### Study rules",
        "longest run of positive slices",
        "not the figures of the model it runs",
    ] {
        assert!(people.contains(part), "{part} in {people}");
    }
    let page = fs::read_to_string(run.join("report/report.html")).expect("a page");
    for part in ["Of these, the patients of there", "With mirror images", "Study rules"] {
        assert!(page.contains(part), "{part}");
    }
    let platt: Option<Platt> = found.decision.calibration;
    assert_eq!(platt.is_some(), about["calibration"].is_object());
    let Some(platt) = platt else {
        panic!("the made-up hemorrhage is plain to see: a higher score makes it likelier");
    };
    assert!(people.contains("### Calibration") && page.contains("<b>Reliability</b>"));
    assert!(run.join("report/reliability.svg").exists());

    // The file says the calibrated probabilities of the network that was trained on all patients.
    let mut model = match OnnxModel::load(&onnx) {
        Err(RuntimeError::NoLibrary) => {
            eprintln!("SKIP calibrated probabilities of the exported model: ORT_DYLIB_PATH is not set");
            return;
        }
        model => model.expect("a model that ONNX Runtime reads"),
    };
    let here = folder.path().join("here");
    let output = program(&[
        "evaluate",
        "--run",
        text(&run),
        "--on",
        text(&here),
        "--cross-validation",
        text(&run.join("folds")),
    ]);
    assert!(output.status.success(), "{}", error_line(&output));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let index = Index::read(&here).expect("an index");
    let cache = Cache::new(card.transform.clone(), None).expect("no cache");
    for (patient, own) in index.patients() {
        let exported: Vec<f64> = own
            .iter()
            .map(|slice| {
                let image = cache.load(&slice.file).expect("an image");
                f64::from(model.output(&image, [1, 1, 32, 32]).expect("a probability")[0])
            })
            .collect();
        let line = said.lines().find(|line| line.starts_with(&format!("{patient}: "))).expect("a line a patient");
        let score: f64 = line.split(['e', ',']).find_map(|part| part.trim().parse().ok()).expect("a score");
        let judged = card.study_rule.judge(&exported).score;
        assert!((judged - score).abs() < 2e-4, "{patient}: the file gives {judged}, training says {line}");
    }
    assert!(platt.a > 0.0);
}

#[test]
fn a_cross_validation_of_before_calibration_still_becomes_a_card_and_a_report() {
    let folder = Folder::new();
    let run = trained(folder.path());
    let folds = run.join("folds");
    // What the program wrote then: six columns, and figures of the network's own scores.
    let scored = fs::read_to_string(folds.join("scores.csv")).expect("scores");
    let old: String = scored.lines().map(|line| line.rsplit_once(',').expect("columns").0.to_owned() + "\n").collect();
    fs::write(folds.join("scores.csv"), old).expect("written");
    let index: Index = read_json(&folds.join("fold-1/index.json")).expect("an index");
    let by_slice = scored_by_fold(&folds, &index, &scored);
    let rule = read_json::<CrossValidation>(&folds.join("cross-validation.json")).expect("figures").decision.study_rule;
    let decision = |fold: usize| Decision {
        slice_threshold: best_f2_threshold(&slices(&CrossValidation::others(&by_slice, fold))).expect("positives").0,
        study_rule: rule,
        calibration: None,
        wanted_sensitivity: 0.9,
        operating_point: Default::default(),
        reached: None,
    };
    let all = decision(by_slice.len());
    let judged: Vec<(&Study, Decision)> = by_slice
        .iter()
        .enumerate()
        .flat_map(|(fold, studies)| studies.iter().map(move |study| (study, fold)))
        .map(|(study, fold)| (study, decision(fold)))
        .collect();
    let mut figures: Value = read_json(&folds.join("cross-validation.json")).expect("figures");
    let object = figures.as_object_mut().expect("an object");
    object.retain(|key, _| ["folds", "pooled", "slices", "studies", "decision"].contains(&key.as_str()));
    object["pooled"] = serde_json::to_value(Evaluation::pooled(&judged, &all, 1)).expect("JSON");
    object["decision"] = serde_json::json!({ "slice_threshold": all.slice_threshold, "study_rule": rule });
    write_json(&folds.join("cross-validation.json"), &figures).expect("written");
    // Configurations had no such keys, and indexes no positions.
    for run in [run.clone(), folds.join("fold-1"), folds.join("fold-2")] {
        let mut config: Value = read_json(&run.join("config.json")).expect("a configuration");
        let object = config.as_object_mut().expect("an object");
        object.retain(|key, _| !["pretrained", "test_time_flip", "sources", "context"].contains(&key.as_str()));
        write_json(&run.join("config.json"), &config).expect("written");
    }

    report::write(&run, &folder.path().join("report")).expect("a report");
    let model = folder.path().join("model");
    let output = program(&["export", "--run", text(&run), "--out", text(&model), "--cross-validation", text(&folds)]);
    assert!(output.status.success(), "{}", error_line(&output));
    let (card, _) = ModelCard::load(&model.join("m4.json")).expect("a card");
    assert_eq!(card.slice_threshold, all.slice_threshold);
    assert!(card.about.get("calibration").is_none());
    // The same command goes on with such a folder: nothing is trained again, everything is judged anew.
    #[rustfmt::skip]
    let output = program(&[
        "cross-validate", "--data", text(&folder.path().join("here")), "--data", text(&folder.path().join("there")),
        "--out", text(&folds), "--candidate", "m4", "--size", "32", "--epochs", "2", "--batch", "8", "--folds", "2",
    ]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("going on after epoch 2"), "{said}");
    let anew: CrossValidation = read_json(&folds.join("cross-validation.json")).expect("figures");
    assert!(anew.decision.calibration.is_some() && anew.decisions.len() == 2);
}

/// Each fold's studies by the scores as they stand in the file.
fn scored_by_fold(folds: &Path, index: &Index, written: &str) -> Vec<Vec<Study>> {
    let known = {
        let path = folds.join("all.csv");
        fs::write(&path, written).expect("written");
        scores(&path)
    };
    let fold = |name: &str| {
        let of = |slice: &&triaged_training::data::Slice| {
            known.get(&(name.to_owned(), slice.source.clone(), slice.id.clone())).map(|(probability, _)| *probability)
        };
        let own: Vec<&triaged_training::data::Slice> =
            index.slices.iter().filter(|slice| of(slice).is_some()).collect();
        let scores: Vec<f64> = own.iter().filter_map(of).collect();
        Study::group(&own, &scores)
    };
    ["fold-1", "fold-2"].map(fold).to_vec()
}
