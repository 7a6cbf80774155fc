//! `cross-validate`: every patient scored by a network that has not seen them.

use std::path::Path;

use anyhow::Context;
use burn::tensor::backend::AutodiffBackend;
use triaged_kernels::ConvBackend;

use super::arguments::{DataArgs, FitArgs, FoldArgs};
use super::fit::train;
use super::folds::{CROSS_VALIDATION, check_folds, fold_name};
use super::run_data::begin;
use super::scores::{flipped_studies, score_slices, scores_file, write_scores};
use crate::cross_validation::CrossValidation;
use crate::data::{Index, Side, Split};
use crate::evaluate::{Study, strata};
use crate::files::{Lock, write_json};
use crate::fit::{self, FitConfig, Monitor};

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
    let _lock = Lock::of(out)?;
    // Figures of before are not those of what is trained and scored from here on.
    match std::fs::remove_file(out.join(CROSS_VALIDATION)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot replace {}", out.join(CROSS_VALIDATION).display()));
        }
        _ => {}
    }
    let mut rows = scores_file(out)?;
    let (mut scored, mut labelled, mut flipped) = (Vec::with_capacity(splits.len()), Vec::new(), Vec::new());
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
        labelled.push((slices, scores.plain));
    }
    let mut all = CrossValidation::of(&scored, config.choosing(), args.seed)
        .context("the folds that are left after taking one out lack patients with or without hemorrhage")?;
    all.supplement.strata = strata(&labelled, &all.decisions, args.seed);
    if !flipped.is_empty() {
        all.supplement.test_time_flip =
            CrossValidation::of(&flipped, config.choosing(), args.seed).map(|flipped| flipped.pooled);
    }
    write_json(&out.join(CROSS_VALIDATION), &all)?;
    Ok(all)
}
