//! The folder of a cross-validation: a run's folder for each fold, and their figures.

use std::path::Path;

use anyhow::{Context, bail};

use super::run_data::{check_begun, data_of};
use crate::cross_validation::CrossValidation;
use crate::data::{Index, Side, Split};
use crate::files::read_json;
use crate::fit;

/// The file that a cross-validation leaves in its folder, beside `scores.csv` and a run's folder for each fold.
pub const CROSS_VALIDATION: &str = "cross-validation.json";

/// A fold's folder, counted from 1.
pub fn fold_name(number: usize) -> String {
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
