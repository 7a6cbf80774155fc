//! `evaluate`: a run's decision, and its figures on patients it has not seen.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail};

use super::arguments::{MachineArgs, RunArgs};
use super::cross_validate::CROSS_VALIDATION;
use super::fit::data_of;
use crate::conv::ConvBackend;
use crate::data::{Cache, Draw, Index, Side, Slice};
use crate::evaluate::{Decision, Evaluation, HeldOut, Study, decide};
use crate::fit::{self, draw, predict, read_json, write_json};

/// Scores validation and test, decides on the first, measures both; writes `scores.csv` and `evaluation.json`.
pub fn score<B: ConvBackend>(run: &Path, machine: &MachineArgs, device: &B::Device) -> anyhow::Result<HeldOut> {
    let (config, state) = fit::read_run(run)?;
    let (index, split) = data_of(run)?;
    let cache = Cache::new(config.transform.clone(), machine.cache.clone())?;
    let network = fit::best::<B>(run, &config, &state, device)?;
    let mut rows = csv::Writer::from_path(run.join("scores.csv")).context("cannot write scores.csv")?;
    rows.write_record(SCORES)?;
    let mut studies = Vec::new();
    for (side, name) in [(Side::Validation, "validation"), (Side::Test, "test")] {
        let slices = split.slices(&index, side);
        if slices.is_empty() {
            bail!(
                "{} holds no {name} patients back: its figures come from a cross-validation (export \
                     --cross-validation FOLDER) or from another folder (evaluate --on FOLDER)",
                run.display()
            );
        }
        let draws: Vec<Draw> = slices.iter().map(|slice| draw(slice, None)).collect();
        let scores = predict(&network, draws, &cache, config.batch, name, device)?;
        write_scores(&mut rows, name, &slices, &scores)?;
        studies.push(Study::group(&slices, &scores));
    }
    rows.flush().context("cannot write scores.csv")?;
    let decision = decide(&studies[0]).context("the validation patients are all with or all without hemorrhage")?;
    let [validation, test] = [0, 1].map(|i| Evaluation::of(&studies[i], &decision, config.seed));
    let all = HeldOut { decision, validation, test };
    write_json(&run.join("evaluation.json"), &all)?;
    Ok(all)
}

/// The columns of a `scores.csv`.
pub const SCORES: [&str; 6] = ["side", "source", "patient", "id", "label", "probability"];

/// A row a slice; `side` names the side or fold that it stands on.
pub fn write_scores<W: std::io::Write>(
    rows: &mut csv::Writer<W>,
    side: &str,
    slices: &[&Slice],
    scores: &[f64],
) -> anyhow::Result<()> {
    for (slice, score) in slices.iter().zip(scores) {
        let label = if slice.positive { "1" } else { "0" };
        rows.write_record([side, &slice.source, &slice.patient, &slice.id, label, &score.to_string()])?;
    }
    Ok(())
}

pub fn print_evaluation(name: &str, evaluation: &Evaluation) {
    println!("{name}, {} patients\n\n{}", evaluation.patients, evaluation.table());
}

/// All slices of another folder, by the decision that the run's `evaluate`, or a cross-validation,
/// made.
pub fn measure_on<B: ConvBackend>(
    args: &RunArgs,
    folder: &Path,
    cross_validation: Option<&Path>,
    device: &B::Device,
) -> anyhow::Result<()> {
    let (config, state) = fit::read_run(&args.run)?;
    let made = match cross_validation {
        Some(folder) => folder.join(CROSS_VALIDATION),
        None => args.run.join("evaluation.json"),
    };
    let made: serde_json::Value = read_json(&made).context("evaluate the run itself first")?;
    let decision: Decision = serde_json::from_value(made["decision"].clone()).context("no decision")?;
    let index = Index::read(folder)?;
    for line in index.problems.lines() {
        eprintln!("{line}");
    }
    let cache = Cache::new(config.transform.clone(), args.machine.cache.clone())?;
    let network = fit::best::<B>(&args.run, &config, &state, device)?;
    let slices: Vec<&Slice> = index.slices.iter().collect();
    let draws: Vec<Draw> = slices.iter().map(|slice| draw(slice, None)).collect();
    let scores = predict(&network, draws, &cache, config.batch, "scoring", device)?;
    let studies = Study::group(&slices, &scores);
    for study in &studies {
        let case = study.case(&decision.study_rule);
        let flagged = case.score >= decision.study_rule.threshold();
        println!(
            "{}: score {:.4}, {}, labelled {}",
            study.patient,
            case.score,
            if flagged { "flagged" } else { "not flagged" },
            if case.positive { "positive" } else { "negative" }
        );
    }
    let evaluation = Evaluation::of(&studies, &decision, config.seed);
    print_evaluation(&folder.display().to_string(), &evaluation);
    let name = folder.file_name().map_or_else(|| "folder".into(), |name| name.to_string_lossy().into_owned());
    write_json(&args.run.join(format!("{ON}{name}.json")), &evaluation)?;
    Ok(())
}

/// How the files begin that [`measure_on`] leaves with a run.
const ON: &str = "evaluation-on-";

/// What [`measure_on`] has left with a run, by the folder's name.
pub fn others(run: &Path) -> anyhow::Result<BTreeMap<String, Evaluation>> {
    let mut others = BTreeMap::new();
    for entry in std::fs::read_dir(run).with_context(|| format!("cannot list {}", run.display()))? {
        let path = entry?.path();
        let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if let Some(name) = file.strip_prefix(ON).and_then(|name| name.strip_suffix(".json")) {
            others.insert(name.to_owned(), read_json(&path)?);
        }
    }
    Ok(others)
}
