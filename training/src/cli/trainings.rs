//! Finished trainings with the same folds, which may become one model.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use triaged_kernels::ConvBackend;

use super::folds::{CROSS_VALIDATION, fold_name, folds_of};
use super::run_data::data_of;
use crate::calibration::{Platt, logit};
use crate::card::Ensemble;
use crate::cross_validation::CrossValidation;
use crate::data::{Index, Side, Slice, Split};
use crate::files::read_json;
use crate::fit::{self, FitConfig, Member, State};
use crate::logistic::sigmoid;
use crate::network::Network;
use crate::run::out_of_fold;

/// A finished training, and what its folds say.
pub struct Training {
    /// Its folder.
    pub run: PathBuf,
    /// The folder of its folds.
    pub folds: PathBuf,
    pub config: FitConfig,
    pub state: State,
    pub index: Index,
    pub split: Split,
    /// Whether it is a fold's network, which has not seen that fold's patients.
    pub is_of_a_fold: bool,
    pub crossed: CrossValidation,
    /// By fold, source and id: the network's own probability.
    scores: HashMap<(String, String, String), f64>,
}

/// A fold's slices with the probability of the mean of all trainings' logits.
pub struct Fold {
    pub name: String,
    pub slices: Vec<Slice>,
    pub scores: Vec<f64>,
}

/// Finished trainings; `folds` stands in place of the folder of the first's.
///
/// # Errors
/// A training that is not finished, whose network the node cannot feed, or that was measured on other slices than the first.
pub fn trainings(runs: &[PathBuf], folds: Option<&Path>) -> anyhow::Result<Vec<Training>> {
    let mut all: Vec<Training> = Vec::with_capacity(runs.len());
    for run in runs {
        let folds = folds.filter(|_| all.is_empty()).map_or_else(|| folds_folder(run), Path::to_path_buf);
        let training = training(run, folds)?;
        if let Some(first) = all.first() {
            let measured = |of: &Training| of.index.measured(&of.split.train_only);
            if let Some(how) = measured(first).difference(&measured(&training)) {
                bail!("{} and {} were measured on other slices ({how})", first.run.display(), run.display());
            }
        }
        all.push(training);
    }
    Ok(all)
}

/// The slices that any of the trainings has seen, and the sources that are only trained on.
pub fn data_of_all(trainings: &[Training]) -> anyhow::Result<(Index, Split)> {
    let first = trainings.first().context("no training is named")?;
    let (mut index, mut split) = (first.index.clone(), first.split.clone());
    for training in trainings {
        index.add_trained_on(&training.index, &training.split.train_only).map_err(anyhow::Error::msg)?;
        split.add_train_only(&training.split);
    }
    Ok((index, split))
}

/// What a card says of them.
pub fn ensemble(name: String, trainings: &[Training]) -> Ensemble {
    Ensemble { name, members: members(trainings) }
}

/// What a card says of each.
pub fn members(trainings: &[Training]) -> Vec<Member> {
    let member = |training: &Training| Member {
        is_of_a_fold: training.is_of_a_fold,
        epochs: training.state.epochs.len(),
        draws_per_epoch: training.config.balance,
        seed: training.config.seed,
        seconds: training.state.epochs.iter().map(|epoch| epoch.seconds).sum::<f64>().round(),
        train_only: training.split.train_only.clone(),
        slice_auc: training.crossed.pooled.slices.auc,
        study_auc: training.crossed.pooled.studies.auc,
    };
    trainings.iter().map(member).collect()
}

/// Refuses a name that is no file's.
pub fn check_name(name: &str) -> anyhow::Result<()> {
    if name.is_empty() || name.contains(['/', '.']) {
        bail!("--name {name}: a name such as m12");
    }
    Ok(())
}

/// The folder with the folds of a training: its own or, for a fold, the one around it.
fn folds_folder(run: &Path) -> PathBuf {
    match run.parent() {
        Some(parent) if parent.join(CROSS_VALIDATION).exists() => parent.into(),
        _ => run.join("folds"),
    }
}

fn training(run: &Path, folds: PathBuf) -> anyhow::Result<Training> {
    let (config, state) = fit::read_run(run)?;
    // A fold's network, as good as any other's of the folds that are measured, lies in their folder.
    let is_of_a_fold = run.parent() == Some(folds.as_path());
    let crossed = match is_of_a_fold {
        false => folds_of(run, &folds)?,
        true if state.is_done(&config) => read_json(&folds.join(CROSS_VALIDATION))?,
        true => bail!("{} is not finished", run.display()),
    };
    if config.context {
        bail!("{} sees neighbouring slices: the node has no such input, and no model can be made of it", run.display());
    }
    let (index, split) = data_of(run)?;
    let rows = out_of_fold(&folds)?;
    let scores = rows.into_iter().map(|(fold, slice, score)| ((fold, slice.source, slice.id), score)).collect();
    Ok(Training { run: run.into(), folds, config, state, index, split, is_of_a_fold, crossed, scores })
}

/// The folds, which all trainings must have alike.
///
/// # Errors
/// Trainings of different networks, inputs, operating points or folds.
pub fn folds(trainings: &[Training]) -> anyhow::Result<Vec<Fold>> {
    let first = trainings.first().context("no training is named")?;
    let mut folds = Vec::new();
    for training in trainings {
        let same = training.config.transform == first.config.transform
            && training.config.candidate.layers == first.config.candidate.layers
            && training.config.choosing() == first.config.choosing();
        if !same || training.crossed.folds.len() != first.crossed.folds.len() {
            bail!(
                "{} and {} have another network, input, operating point or number of folds: they are no one model",
                first.run.display(),
                training.run.display()
            );
        }
    }
    for number in 1..=first.crossed.folds.len() {
        let name = fold_name(number);
        let (index, split) = data_of(&first.folds.join(&name))?;
        let slices: Vec<Slice> = split.slices(&index, Side::Test).into_iter().cloned().collect();
        let mut scores = Vec::with_capacity(slices.len());
        for slice in &slices {
            let key = (name.clone(), slice.source.clone(), slice.id.clone());
            let mut sum = 0.0;
            for training in trainings {
                let score = training.scores.get(&key).with_context(|| {
                    format!(
                        "{} did not score {} in {name}: its folds are others, and a network would be measured on what it was trained on",
                        training.run.display(),
                        slice.id
                    )
                })?;
                sum += logit(*score);
            }
            scores.push(sigmoid(sum / trainings.len() as f64));
        }
        folds.push(Fold { name, slices, scores });
    }
    Ok(folds)
}

/// Each training's network that is kept in the folder that is named for it, calibrated where a calibration is given.
pub fn networks<B: ConvBackend>(
    trainings: &[Training],
    folder: impl Fn(&Training) -> PathBuf,
    calibration: Option<&Platt>,
    device: &B::Device,
) -> anyhow::Result<Vec<Network<B>>> {
    let network = |training| -> anyhow::Result<Network<B>> {
        let folder = folder(training);
        let (config, state) = fit::read_run(&folder)?;
        let network = fit::best::<B>(&folder, &config, &state, device)?;
        Ok(match calibration {
            Some(platt) => platt.folded(network),
            None => network,
        })
    };
    trainings.iter().map(network).collect()
}
