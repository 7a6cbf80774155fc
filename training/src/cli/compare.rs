//! `compare`: two model cards side by side.

use std::path::Path;

use anyhow::Context;
use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table};
use serde_json::Value;
use triaged_model::{CardError, ModelCard};

use crate::describe::{input, layers, rule};
use crate::evaluate::Evaluation;
use crate::metrics::{Figures, Interval};
use crate::network::Layer;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table as wide as the terminal
    Terminal,
    /// A table in Markdown
    Markdown,
}

/// The text for a value that a card lacks.
const ABSENT: &str = "not recorded";

/// A table of two cards: what they are, how they were trained, on what, and what they were measured to do.
///
/// # Errors
/// A file that is not a card of this version, or whose figures are not as `export` writes them.
pub fn compare(a: &Path, b: &Path, format: Format) -> anyhow::Result<String> {
    let (a, b) = (read(a)?, read(b)?);
    let mut table = Table::new();
    match format {
        Format::Terminal => {
            table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
            table.set_content_arrangement(ContentArrangement::Dynamic);
        }
        Format::Markdown => {
            table.load_style(comfy_table::presets::ASCII_MARKDOWN);
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
    }
    table.set_header(["".into(), title(&a), title(&b)]);
    for (label, a, b) in paired(&facts(&a)?, &facts(&b)?) {
        table.add_row([label, a, b]);
    }
    Ok(format!("{table}\n"))
}

fn read(path: &Path) -> anyhow::Result<ModelCard> {
    let text = std::fs::read_to_string(path).map_err(|source| CardError::Read { path: path.into(), source })?;
    Ok(serde_json::from_str(&text).map_err(|source| CardError::Parse { path: path.into(), source })?)
}

fn title(card: &ModelCard) -> String {
    format!("{}, version {}", card.name, card.version)
}

/// Rows of both cards by their labels, in the order in which they come; where one has none, that it has none.
fn paired(a: &[(String, String)], b: &[(String, String)]) -> Vec<(String, String, String)> {
    let find = |facts: &[(String, String)], label: &str| {
        facts.iter().find(|(found, _)| found == label).map_or(ABSENT.into(), |(_, text)| text.clone())
    };
    let only_b = b.iter().filter(|(label, _)| a.iter().all(|(found, _)| found != label));
    let labels = a.iter().chain(only_b).map(|(label, _)| label);
    labels.map(|label| (label.clone(), find(a, label), find(b, label))).collect()
}

/// All that is compared: label and text.
fn facts(card: &ModelCard) -> anyhow::Result<Vec<(String, String)>> {
    let about = &card.about;
    let mut facts: Vec<(String, String)> = Vec::new();
    let mut add = |label: &str, text: String| facts.push((label.into(), text));
    let layer_list: Option<Vec<Layer>> = serde_json::from_value(about["architecture"]["layers"].clone()).ok();
    add("finding", card.finding.clone());
    add("architecture", layer_list.map_or(ABSENT.into(), |list| layers(&list)));
    add("parameters", about["architecture"]["parameters"].as_u64().map_or(ABSENT.into(), |count| count.to_string()));
    add("input", input(&card.transform));
    add("slice threshold", format!("{:.4}", card.slice_threshold));
    add("study rule", rule(&card.study_rule));
    if let Some(sequence) = &card.sequence {
        let text = format!("{}, a series is flagged from probability {:.4}", sequence.file, sequence.threshold);
        add("sequence network", text);
        let early = sequence.early_threshold.map_or("the study rule's own".into(), |early| format!("{early:.4}"));
        add("early alerts from", early);
    }
    // Whatever settings the card names: a later training may have further ones.
    if let Value::Object(training) = &about["training"] {
        for (name, value) in training.iter().filter(|(name, _)| *name != "history") {
            // Cards of before call it so.
            let name = if name == "witness" { "localization" } else { name };
            add(&format!("training: {}", name.replace('_', " ")), plain(value));
        }
    }
    for source in about["data"].as_array().into_iter().flatten() {
        let [patients, slices, positive, role] =
            ["patients", "slices", "positive_slices", "role"].map(|field| plain(&source[field]));
        let text = format!("{patients} patients, {slices} slices, {positive} positive; {role}");
        add(&format!("data: {}", plain(&source["source"])), text);
    }
    if about["split"].is_object() {
        let [by, seed, train, validation, test] =
            ["by", "seed", "train", "validation", "test"].map(|field| plain(&about["split"][field]));
        let text = format!("by {by}, seed {seed}: {train} training, {validation} validation, {test} test");
        add("split", text);
    }
    let crossed = &about["cross_validation"];
    if crossed.is_object() {
        let folds = crossed["folds"].as_array().map_or(0, Vec::len);
        let measured = evaluation(&crossed["pooled"]).with_context(|| format!("{}: cross_validation", card.name))?;
        add("measured", format!("by {folds}-fold cross-validation, {} patients", measured.patients));
        figures(&mut facts, "", &measured);
    } else if about["test"].is_object() {
        let measured = evaluation(&about["test"]).with_context(|| format!("{}: test", card.name))?;
        add("measured", format!("on {} held-out test patients", measured.patients));
        figures(&mut facts, "", &measured);
    }
    for (name, value) in about["sources"].as_object().into_iter().flatten() {
        let measured = evaluation(value).with_context(|| format!("{}: sources, {name}", card.name))?;
        figures(&mut facts, &format!("of these {name}, "), &measured);
    }
    if about["calibration"].is_object() {
        let number = |path: &str| about["calibration"].pointer(path).and_then(Value::as_f64);
        let text = |path: &str| number(path).map_or(ABSENT.into(), |value| format!("{value:.4}"));
        let scaling = format!("sigmoid({} · logit + {})", text("/a"), text("/b"));
        facts.push(("calibration".into(), scaling));
        for (name, key) in [("Brier score", "brier"), ("expected calibration error", "ece")] {
            let [before, after] = ["before", "after"].map(|when| text(&format!("/slices/{when}/{key}")));
            facts.push((format!("slices: {name}"), format!("{after}, before calibration {before}")));
        }
    }
    for (name, value) in about["other_sets"].as_object().into_iter().flatten() {
        let measured = evaluation(value).with_context(|| format!("{}: other_sets, {name}", card.name))?;
        figures(&mut facts, &format!("{name}, "), &measured);
    }
    let parity = &about["parity_with_onnx_runtime"]["largest_difference"];
    facts.push(("difference to ONNX Runtime".into(), parity.as_f64().map_or(ABSENT.into(), |d| format!("{d:.1e}"))));
    if let Some(difference) = about["quantized"]["slice_auc_difference"]["value"].as_f64() {
        facts.push(("slice AUC less the float network's".into(), format!("{difference:+.4}")));
    }
    Ok(facts)
}

fn evaluation(value: &Value) -> anyhow::Result<Evaluation> {
    serde_json::from_value(value.clone()).context("the card's figures are not as this version writes them")
}

/// The figures of slices and of studies, each with its 95 % interval.
fn figures(facts: &mut Vec<(String, String)>, of: &str, measured: &Evaluation) {
    for (what, figures) in [("slices", &measured.slices), ("studies", &measured.studies)] {
        let Figures { f2, accuracy, sensitivity, specificity, precision, auc, confusion, .. } = figures;
        let cell = |i: &Interval| format!("{:.3} ({:.3} to {:.3})", i.value, i.low, i.high);
        let or = |i: &Option<Interval>| i.as_ref().map_or("one class only".into(), cell);
        let rows = [
            ("AUC", or(auc)),
            ("F2", or(f2)),
            ("sensitivity", or(sensitivity)),
            ("specificity", or(specificity)),
            ("precision", cell(precision)),
            ("accuracy", cell(accuracy)),
            ("TN, FP, FN, TP", format!("{}, {}, {}, {}", confusion.tn, confusion.fp, confusion.fn_, confusion.tp)),
        ];
        facts.extend(rows.map(|(name, text)| (format!("{of}{what}: {name}"), text)));
    }
}

/// A setting in words: its value as it is, of an object each field's.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => "none".into(),
        Value::String(text) => text.replace('_', " "),
        // Settings are kept in single precision; as doubles they would show digits that nobody chose.
        Value::Number(number) if number.is_f64() => number.as_f64().map_or(ABSENT.into(), |n| (n as f32).to_string()),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| format!("{name} {}", plain(value))).collect::<Vec<String>>().join(", ")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Case, figures as measure};
    use serde_json::json;

    /// A study that is told right and one that is not; three slices each.
    fn evaluation(score: f64) -> Evaluation {
        let study = |positive| vec![Case { score: 0.1, positive: false }, Case { score, positive }];
        let cases = [study(true), study(false)];
        Evaluation { patients: 2, slices: measure(&cases, 0.5, 20, 1), studies: measure(&cases, 0.5, 20, 1) }
    }

    fn card(name: &str, about: Value) -> Value {
        json!({
            "format": 1, "name": name, "version": "1", "finding": "hemorrhage", "file": "none.onnx", "sha256": "",
            "input": "image", "output": "probability",
            "transform": { "name": "hounsfield_windows", "height": 64, "width": 64, "windows": [{ "center": 40.0, "width": 80.0 }] },
            "slice_threshold": 0.25, "study_rule": { "kind": "kth_highest", "k": 2, "threshold": 0.5 },
            "about": about,
        })
    }

    #[test]
    fn held_out_and_cross_validated_cards_stand_side_by_side() {
        let folder = tempfile::tempdir().expect("a folder");
        let (a, b) = (folder.path().join("a.json"), folder.path().join("b.json"));
        let held = json!({
            "architecture": { "layers": ["flatten", { "dense": { "units": 8 } }, "output"], "parameters": 1234 },
            "training": { "epochs": 3, "learning_rate": 0.001, "augmentation": { "flip": true }, "history": [1, 2] },
            "data": [{ "source": "here", "patients": 5, "slices": 50, "positive_slices": 7, "role": "training" }],
            "test": evaluation(0.9),
        });
        let crossed = json!({
            "cross_validation": { "folds": [1, 2, 3], "pooled": evaluation(0.2) },
            "sources": { "elsewhere": evaluation(0.2) },
            "calibration": {
                "a": 0.5, "b": -1.25, "slices": { "before": { "brier": 0.2, "ece": 0.1 }, "after": { "brier": 0.1, "ece": 0.02 } },
            },
            "other_sets": { "there": evaluation(0.9) },
        });
        std::fs::write(&a, card("left", held).to_string()).expect("a card");
        std::fs::write(&b, card("right", crossed).to_string()).expect("a card");
        let text = compare(&a, &b, Format::Markdown).expect("two cards");
        let row = |label: &str| -> Vec<String> {
            let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<String>>();
            let row = text.lines().map(cells).find(|cells| cells.get(1).is_some_and(|cell| cell == label));
            row.unwrap_or_else(|| panic!("no row {label} in\n{text}"))[2..4].to_vec()
        };
        assert_eq!(row(""), ["left, version 1", "right, version 1"]);
        assert_eq!(row("parameters"), ["1234", ABSENT]);
        assert_eq!(row("architecture"), ["flatten, dense 8 with ReLU, one sigmoid unit", ABSENT]);
        assert_eq!(row("training: learning rate"), ["0.001", ABSENT]);
        assert_eq!(row("training: augmentation"), ["flip true", ABSENT]);
        assert_eq!(row("data: here"), ["5 patients, 50 slices, 7 positive; training", ABSENT]);
        assert_eq!(row("measured"), ["on 2 held-out test patients", "by 3-fold cross-validation, 2 patients"]);
        assert_eq!(row("slices: TN, FP, FN, TP"), ["2, 1, 0, 1", "3, 0, 1, 0"]);
        assert!(row("studies: sensitivity")[0].starts_with("1.000 ("));
        assert_eq!(row("there, slices: TN, FP, FN, TP"), [ABSENT, "2, 1, 0, 1"]);
        assert_eq!(row("of these elsewhere, slices: TN, FP, FN, TP"), [ABSENT, "3, 0, 1, 0"]);
        assert_eq!(row("calibration"), [ABSENT, "sigmoid(0.5000 · logit + -1.2500)"]);
        assert_eq!(row("slices: Brier score"), [ABSENT, "0.1000, before calibration 0.2000"]);
        assert!(!text.contains("history"));
        // Drawn for a terminal it says the same.
        let drawn = compare(&a, &b, Format::Terminal).expect("two cards");
        assert!(drawn.contains("by 3-fold cross-validation, 2 patients"), "{drawn}");
    }

    #[test]
    fn what_is_no_card_is_one_clear_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let (good, bad) = (folder.path().join("good.json"), folder.path().join("bad.json"));
        std::fs::write(&good, card("left", Value::Null).to_string()).expect("a card");
        let message = |bad: &Path| format!("{:#}", compare(&good, bad, Format::Markdown).expect_err("no card"));
        assert!(message(&bad).contains("cannot read the model card"), "{}", message(&bad));
        std::fs::write(&bad, r#"{"format": 1}"#).expect("a file");
        assert!(message(&bad).contains("bad.json is not one this version implements"), "{}", message(&bad));
        std::fs::write(&bad, card("right", json!({ "test": { "patients": "many" } })).to_string()).expect("a card");
        assert!(message(&bad).contains("right: test: the card's figures"), "{}", message(&bad));
    }
}
