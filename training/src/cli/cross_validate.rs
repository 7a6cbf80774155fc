//! `cross-validate`: every patient scored by a network that has not seen them.

use std::path::Path;

use anyhow::{Context, bail};
use burn::tensor::backend::AutodiffBackend;

use super::arguments::{DataArgs, FitArgs, FoldArgs};
use super::evaluate::{flipped_studies, score_slices, scores_file, write_scores};
use super::fit::{begin, check_begun, data_of, train};
use crate::cross_validation::CrossValidation;
use crate::data::{Index, Side, Split};
use crate::evaluate::Study;
use crate::fit::{self, FitConfig, Monitor, read_json, write_json};
use triaged_kernels::ConvBackend;

/// What a cross-validation leaves in its folder, beside `scores.csv` and a run's folder for each fold.
pub const CROSS_VALIDATION: &str = "cross-validation.json";

/// Trains a network a fold and puts the figures together. Nobody is held back for validation: a fold's network is that of
/// its last epoch. A cross-validation that was cut off goes on in the fold and epoch it was in.
pub fn do_cross_validate<B>(
    data: &DataArgs,
    index: &Index,
    args: &FitArgs,
    folds: &FoldArgs,
    out: &Path,
    device: &B::Device,
) -> anyhow::Result<CrossValidation>
where
    B: AutodiffBackend + ConvBackend,
    B::InnerBackend: ConvBackend,
{
    let config = FitConfig { monitor: Monitor::Last, ..args.config()? };
    let splits = Split::folds(index, args.split, folds.folds, &data.only(), args.seed)?;
    cross_validate::<B>(&config, args, index, &splits, out, device)
}

/// A fold's folder, counted from 1.
fn fold_name(number: usize) -> String {
    format!("fold-{number}")
}

/// Refuses a folder whose folds were begun on other slices or in another division: a finished network would be tested on
/// what it was trained on.
pub fn check_folds(out: &Path, index: &Index, splits: &[Split]) -> anyhow::Result<()> {
    (1..).zip(splits).try_for_each(|(number, split)| check_begun(&out.join(fold_name(number)), index, split))
}

/// The figures of a finished cross-validation, in `folds`, of networks that were trained as that of `run`, each on all but
/// its fold's of the patients that `run` was trained on.
///
/// # Errors
/// Folds or a run that are not finished, that are of other settings or data, or of which the run holds patients back.
pub fn folds_of(run: &Path, folds: &Path) -> anyhow::Result<CrossValidation> {
    let made: CrossValidation = read_json(&folds.join(CROSS_VALIDATION)).with_context(|| {
        format!("{} is no finished cross-validation (`train` makes one, or `cross-validate`)", folds.display())
    })?;
    let (config, state) = fit::read_run(run)?;
    if !state.is_done(&config) {
        let (done, all) = (state.epochs.len(), config.epochs);
        bail!("{} has {done} of {all} epochs, its folds have all; train it to its end first", run.display());
    }
    let (index, split) = data_of(run)?;
    for number in 1..=made.folds.len() {
        let fold = folds.join(fold_name(number));
        let apart = |how: &str| {
            format!(
                "{} was not trained as {} was{how}: its figures would be of something else",
                fold.display(),
                run.display()
            )
        };
        let (own, state) = fit::read_run(&fold)?;
        if own != config || !state.is_done(&own) {
            bail!(apart(""));
        }
        let (of_fold, folds_split) = data_of(&fold)?;
        if let Some(how) = index.difference(&of_fold) {
            bail!(apart(&format!(" ({how})")));
        }
        if split.train_only != folds_split.train_only {
            bail!(apart(" (other sources are only trained on)"));
        }
    }
    let held = split.count(Side::Validation) + split.count(Side::Test);
    if held > 0 {
        bail!(
            "{} holds {held} patients back, whom its folds were trained on: train it on all of them (fit --validation 0 --test \
             0 --monitor last, or `train`), or take its own figures, without --cross-validation",
            run.display()
        );
    }
    Ok(made)
}

/// As [`do_cross_validate`], by a given configuration on given splits, each a fold.
pub fn cross_validate<B>(
    config: &FitConfig,
    args: &FitArgs,
    index: &Index,
    splits: &[Split],
    out: &Path,
    device: &B::Device,
) -> anyhow::Result<CrossValidation>
where
    B: AutodiffBackend + ConvBackend,
    B::InnerBackend: ConvBackend,
{
    let cache = config.cache(args.machine.cache.clone(), index)?;
    // All that can be refused is refused before the first training, and before what is there is written over.
    check_folds(out, index, splits)?;
    for number in 1..=splits.len() {
        fit::check_begun(&out.join(fold_name(number)), config)?;
    }
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    // Figures of before are not those of what is trained and scored from here on.
    match std::fs::remove_file(out.join(CROSS_VALIDATION)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot replace {}", out.join(CROSS_VALIDATION).display()));
        }
        _ => {}
    }
    let mut rows = scores_file(out)?;
    let (mut scored, mut flipped) = (Vec::with_capacity(splits.len()), Vec::new());
    for (number, split) in (1..).zip(splits) {
        let name = fold_name(number);
        let run = out.join(&name);
        eprintln!("{name} of {}", splits.len());
        begin(&run, index, split)?;
        train::<B>(config, args, index, split, &run, device)?;
        let (_, state) = fit::read_run(&run)?;
        let network = fit::best::<B::InnerBackend>(&run, config, &state, device)?;
        let slices = split.slices(index, Side::Test);
        let scores = score_slices(&network, config, &slices, &cache, "its patients", device)?;
        write_scores(&mut rows, &name, &slices, &scores)?;
        rows.flush().context("cannot write scores.csv")?;
        flipped.extend(flipped_studies(&slices, &scores));
        scored.push(Study::group(&slices, &scores.plain));
    }
    let mut all = CrossValidation::of(&scored, config.study_sensitivity, args.seed)
        .context("the folds that are left after taking one out lack patients with or without hemorrhage")?;
    if !flipped.is_empty() {
        all.beside.test_time_flip =
            CrossValidation::of(&flipped, config.study_sensitivity, args.seed).map(|flipped| flipped.pooled);
    }
    write_json(&out.join(CROSS_VALIDATION), &all)?;
    Ok(all)
}
