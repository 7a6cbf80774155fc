//! `evaluate`: a run's decision, and its figures on patients it has not seen.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use triaged_kernels::ConvBackend;

use super::arguments::{MachineArgs, RunArgs};
use super::folds::folds_of;
use super::run_data::data_of;
use super::scores::{flipped_studies, score_slices, scores_file, write_scores};
use crate::calibration::Calibrated;
use crate::data::{Draw, Index, Origin, Side, Slice, Split, few, source_name, twins};
use crate::evaluate::{Decision, Evaluation, HeldOut, Study, Supplement, rules};
use crate::files::{read_json, write_json};
use crate::fit::{self, State, draw, predict};

/// Scores validation and test, decides on the first, measures both; writes `scores.csv` and `evaluation.json`.
pub fn score<B: ConvBackend>(run: &Path, machine: &MachineArgs, device: &B::Device) -> anyhow::Result<HeldOut> {
    let (config, state) = fit::read_run(run)?;
    let (index, split) = data_of(run)?;
    let cache = config.cache(machine.cache.clone(), &index)?;
    let network = fit::best::<B>(run, &config, &state, device)?;
    let mut rows = scores_file(run)?;
    let (mut studies, mut flipped) = (Vec::new(), Vec::new());
    for (side, name) in [(Side::Validation, "validation"), (Side::Test, "test")] {
        let slices = split.slices(&index, side);
        if slices.is_empty() {
            bail!(
                "{} holds no {name} patients back: its figures come from a cross-validation (export \
                     --cross-validation FOLDER) or from another folder (evaluate --on FOLDER)",
                run.display()
            );
        }
        let scored = score_slices(&network, &config, &slices, &cache, name, device)?;
        write_scores(&mut rows, name, &slices, &scored)?;
        flipped.extend(flipped_studies(&slices, &scored));
        studies.push(Study::group(&slices, &scored.plain));
    }
    rows.flush().context("cannot write scores.csv")?;
    let held = |of: &[Vec<Study>]| HeldOut::of(&of[0], &of[1], config.choosing(), config.seed);
    let mut all = held(&studies).context("the validation patients are all with or all without hemorrhage")?;
    if !flipped.is_empty() {
        all.supplement.test_time_flip = held(&flipped).map(|flipped| flipped.test);
    }
    warn_of(&all.decision);
    write_json(&run.join("evaluation.json"), &all)?;
    Ok(all)
}

/// Says on standard error what a decision could not have.
pub fn warn_of(decision: &Decision) {
    decision.warning().iter().for_each(|line| eprintln!("{line}"));
}

pub fn print_evaluation(name: &str, evaluation: &Evaluation) {
    println!("{name}, {} patients\n\n{}", evaluation.patients, evaluation.table());
}

/// Prints the figures beside those of all patients: by source, with mirror images, and by rule.
pub fn print_supplement(supplement: &Supplement) {
    for (source, evaluation) in &supplement.sources {
        print_evaluation(&format!("\nof them {source}"), evaluation);
    }
    if let Some(flipped) = &supplement.test_time_flip {
        print_evaluation("\nwith each slice scored as the mean of itself and its mirror image", flipped);
    }
    if let Some(Calibrated { before, after }) = &supplement.reliability {
        println!(
            "\ncalibration of slices: Brier score {:.4} before, {:.4} after; expected calibration error {:.4} before, {:.4} after",
            before.brier, after.brier, before.ece, after.ece
        );
    }
    if !supplement.study_rules.is_empty() {
        println!("\n{}", rules::table(&supplement.study_rules));
    }
}

/// The record that `evaluate --on` leaves with a run: figures, and their data.
#[derive(Serialize, Deserialize)]
struct Elsewhere {
    folder: PathBuf,
    decision: Decision,
    /// The epoch whose network was measured.
    epoch: Option<usize>,
    #[serde(flatten)]
    evaluation: Evaluation,
}

/// All slices of another folder, by the decision that the run's `evaluate`, or a cross-validation, made. Where network or
/// decision were made on some of its patients, the figures are shown and not kept.
pub fn measure_on<B: ConvBackend>(
    args: &RunArgs,
    folder: &Path,
    cross_validation: Option<&Path>,
    device: &B::Device,
) -> anyhow::Result<()> {
    let (config, state) = fit::read_run(&args.run)?;
    let decision = match cross_validation {
        Some(folds) => folds_of(&args.run, folds)?.decision,
        None => {
            let made: HeldOut =
                read_json(&args.run.join("evaluation.json")).context("evaluate the run itself first")?;
            made.decision
        }
    };
    let index = Index::read(folder)?;
    for line in index.problems.lines() {
        eprintln!("{line}");
    }
    let (own, split) = data_of(&args.run)?;
    let seen = seen(&own, &split, &index);
    let cache = config.cache(args.machine.cache.clone(), &index)?;
    let network = fit::best::<B>(&args.run, &config, &state, device)?;
    let slices: Vec<&Slice> = index.slices.iter().collect();
    let draws: Vec<Draw> = slices.iter().map(|slice| draw(slice, None)).collect();
    let scores = predict(&network, draws, &cache, config.batch, "scoring", device)?;
    let studies = Study::group(&slices, &scores);
    for study in &studies {
        let case = study.calibrated(decision.calibration.as_ref()).case(&decision.study_rule);
        let flagged = case.score >= decision.study_rule.threshold();
        println!(
            "{}: score {:.4}, {}, labelled {}",
            study.name(),
            case.score,
            if flagged { "flagged" } else { "not flagged" },
            if case.positive { "positive" } else { "negative" }
        );
    }
    let evaluation = Evaluation::of(&studies, &decision, config.seed);
    print_evaluation(&folder.display().to_string(), &evaluation);
    let path = args.run.join(format!("{ON}{}.json", source_name(folder)));
    if path.exists() {
        let before =
            read_json::<Elsewhere>(&path).map_or("another training".into(), |of| of.folder.display().to_string());
        eprintln!("{}, of {before}, is replaced", path.display());
        std::fs::remove_file(&path).with_context(|| format!("cannot replace {}", path.display()))?;
    }
    if !seen.is_empty() {
        let all = evaluation.patients;
        let warning = format!(
            "{} of these {all} patients were trained on or decided by ({}): the figures are too good, and not kept for the card",
            seen.len(),
            few(&seen)
        );
        println!("\n{warning}");
        eprintln!("{warning}");
        return Ok(());
    }
    let folder = std::path::absolute(folder).with_context(|| format!("where is {}?", folder.display()))?;
    write_json(&path, &Elsewhere { folder, decision, epoch: state.best, evaluation })?;
    Ok(())
}

/// The patients of another index some slice of whom is one that a run was trained on, or decided by. A slice is told by its
/// image, its pixels or its UIDs, wherever it lies and whatever it is called; where that cannot be read any more, by folder and names.
fn seen(own: &Index, split: &Split, other: &Index) -> Vec<String> {
    let used = [Side::Train, Side::Validation].into_iter().flat_map(|side| split.slices(own, side));
    let patients: BTreeSet<&str> = used.map(|slice| slice.patient.as_str()).collect();
    let mut known: HashMap<&str, Vec<&Slice>> = HashMap::new();
    for slice in own.slices.iter().filter(|slice| patients.contains(slice.patient.as_str())) {
        known.entry(&slice.id).or_default().push(slice);
    }
    let same = |a: &Slice, b: &Slice| match (std::fs::read(&a.file), std::fs::read(&b.file)) {
        (Ok(a), Ok(b)) => a == b,
        _ => (&a.source, &a.patient) == (&b.source, &b.patient),
    };
    let is_known =
        |slice: &&Slice| known.get(slice.id.as_str()).is_some_and(|of| of.iter().any(|own| same(own, slice)));
    // Synthetic slices are other images than those they were made of.
    let origins: Vec<&Origin> = own
        .slices
        .iter()
        .filter(|slice| patients.contains(slice.patient.as_str()))
        .filter_map(|slice| slice.origin.as_ref())
        .collect();
    // Nor need those that are measured be patients: they may be made of the run's, or of the same as its own synthetic ones.
    let used: Vec<&Slice> = own.slices.iter().filter(|slice| patients.contains(slice.patient.as_str())).collect();
    let is_made_of_used = |origin: &Origin| {
        origins.contains(&origin) || used.iter().any(|slice| origin.names(&slice.patient, slice.study.as_deref()))
    };
    // Under other names and in other bytes, too.
    let twins = twins(&used, &other.slices.iter().collect::<Vec<_>>());
    let twins: BTreeSet<(&str, &str)> =
        twins.iter().map(|twin| (twin.other.source.as_str(), twin.other.id.as_str())).collect();
    let is_known = |slice: &&Slice| {
        twins.contains(&(slice.source.as_str(), slice.id.as_str()))
            || is_known(slice)
            || origins.iter().any(|origin| origin.names(&slice.patient, slice.study.as_deref()))
            || slice.origin.as_ref().is_some_and(is_made_of_used)
    };
    let seen = other.patients().into_iter().filter(|(_, slices)| slices.iter().any(is_known));
    seen.map(|(patient, _)| patient.to_owned()).collect()
}

/// How the files begin that [`measure_on`] leaves with a run.
const ON: &str = "evaluation-on-";

/// The results that [`measure_on`] has left with a run, by the folder's name. Those of another epoch's network or by another
/// decision than this one is named and left out.
pub fn others(run: &Path, state: &State, decision: &Decision) -> anyhow::Result<BTreeMap<String, Evaluation>> {
    let mut others = BTreeMap::new();
    for entry in std::fs::read_dir(run).with_context(|| format!("cannot list {}", run.display()))? {
        let path = entry?.path();
        let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let Some(name) = file.strip_prefix(ON).and_then(|name| name.strip_suffix(".json")) else { continue };
        match serde_json::from_value::<Elsewhere>(read_json(&path)?) {
            Ok(found) if found.epoch == state.best && found.decision.judges_as(decision) => {
                others.insert(name.to_owned(), found.evaluation);
            }
            _ => eprintln!(
                "{} is of another epoch, decision or version of this program, and left out of the card; `evaluate --on` that \
                 folder again",
                path.display()
            ),
        }
    }
    Ok(others)
}
