//! `ensemble`: several trainings of one recipe's network as one model.
//!
//! Networks that begin with the same weights and see other draws err on other slices; the mean of their logits errs less than each. Its
//! figures are as honest as one network's where all trainings have the same folds: each patient is scored by the mean of the
//! networks, one of each training, that were trained without them.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use triaged_kernels::ConvBackend;

use super::arguments::MachineArgs;
use super::evaluate::print_supplement;
use super::export::{checked, commit, write};
use super::folds::{CROSS_VALIDATION, fold_name, folds_of};
use super::run_data::data_of;
use super::scores::{scores_file, write_scores};
use crate::calibration::logit;
use crate::card::{Ensemble, Measured, Member, Trained};
use crate::cross_validation::CrossValidation;
use crate::data::{Index, Side, Slice, Split};
use crate::evaluate::{Study, strata};
use crate::export;
use crate::files::{read_json, write_json};
use crate::fit::{self, FitConfig, Scores, State};
use crate::logistic::sigmoid;
use crate::run::out_of_fold;

#[derive(Clone, Args)]
pub struct EnsembleArgs {
    /// A folder of `train`, with its folds in `folds`, or one of such a training's fold-N folders; two or more, of the same network,
    /// input, measured slices and folds; what they only trained on may differ
    #[arg(long = "run", required = true)]
    pub runs: Vec<PathBuf>,
    /// The model's name [default: the network's, with -ensemble]
    #[arg(long)]
    pub name: Option<String>,
    /// Folder of model and cards
    #[arg(long)]
    pub out: PathBuf,
    /// The card's version
    #[arg(long, default_value = "1")]
    pub card_version: String,
    #[command(flatten)]
    pub machine: MachineArgs,
}

/// A training, and what its folds say.
struct Training {
    config: FitConfig,
    state: State,
    index: Index,
    split: Split,
    /// Whether it is a fold's network, which has not seen that fold's patients.
    is_of_a_fold: bool,
    crossed: CrossValidation,
    /// By fold, source and id: the network's own probability.
    scores: HashMap<(String, String, String), f64>,
}

/// A fold's slices with their scores.
struct Fold {
    name: String,
    slices: Vec<Slice>,
    scores: Vec<f64>,
}

pub fn do_ensemble<B: ConvBackend>(args: &EnsembleArgs, device: &B::Device, device_name: &str) -> anyhow::Result<()> {
    if args.runs.len() < 2 {
        bail!("--run: two trainings or more make an ensemble");
    }
    let first_run = &args.runs[0];
    let (mut index, mut split) = data_of(first_run)?;
    let trainings = args.runs.iter().map(|run| training(run, first_run, &index)).collect::<anyhow::Result<Vec<_>>>()?;
    for training in &trainings {
        index.add_trained_on(&training.index, &training.split.train_only).map_err(anyhow::Error::msg)?;
        split.add_train_only(&training.split);
    }
    let first = &trainings[0];
    let config = &first.config;
    let folds = folds(args, &trainings)?;
    let labelled: Vec<(Vec<&Slice>, Vec<f64>)> =
        folds.iter().map(|fold| (fold.slices.iter().collect(), fold.scores.clone())).collect();
    let studies: Vec<Vec<Study>> = labelled.iter().map(|(slices, scores)| Study::group(slices, scores)).collect();
    let mut crossed = CrossValidation::of(&studies, config.choosing(), config.seed)
        .context("the folds that are left after taking one out lack patients with or without hemorrhage")?;
    crossed.supplement.strata = strata(&labelled, &crossed.decisions, config.seed);
    println!("{} patients in {} folds\n\n{}", crossed.pooled.patients, crossed.folds.len(), crossed.table());
    print_supplement(&crossed.supplement);

    let mut networks = Vec::with_capacity(trainings.len());
    for (run, training) in args.runs.iter().zip(&trainings) {
        let network = fit::best::<B>(run, &training.config, &training.state, device)?;
        // The mean of logits that are all scaled alike is the scaled mean.
        networks.push(match crossed.decision.calibration {
            Some(platt) => platt.folded(network),
            None => network,
        });
    }
    let name = args.name.clone().unwrap_or_else(|| format!("{}-ensemble", config.candidate.name));
    if name.is_empty() || name.contains(['/', '.']) {
        bail!("--name {name}: a name such as m12");
    }
    let onnx = export::mean_onnx(&networks, &name, config.shape())?;
    let cache = config.cache(args.machine.cache.clone(), &index)?;
    let patients: Vec<&Slice> = index.slices.iter().filter(|slice| !split.train_only.contains(&slice.source)).collect();
    let parity = checked::<B>(&networks, &onnx, &patients, &cache, device)?;
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
    let ensemble = Ensemble { name, members: trainings.iter().map(member).collect() };
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    write_json(&args.out.join(CROSS_VALIDATION), &crossed)?;
    let trained = Trained {
        config,
        state: &first.state,
        index: &index,
        split: &split,
        measured: &Measured::Crossed(crossed),
        // The figures of one network on other folders are not those of their mean.
        others: &BTreeMap::new(),
        parity: parity.as_ref(),
        quantized: None,
        ensemble: Some(&ensemble),
        ablation: None,
        commit: &commit(),
        device: device_name,
        version: &args.card_version,
    };
    write(&trained, &onnx, &args.out)?;
    let mut rows = scores_file(&args.out)?;
    for Fold { name, slices, scores } in folds {
        let scores = Scores { plain: scores, mirrored: None };
        write_scores(&mut rows, &name, &slices.iter().collect::<Vec<_>>(), &scores)?;
    }
    rows.flush().context("cannot write scores.csv")
}

/// The folder with the folds of a training: its own or, for a fold, the one around it.
fn folds_folder(run: &Path) -> PathBuf {
    match run.parent() {
        Some(parent) if parent.join(CROSS_VALIDATION).exists() => parent.into(),
        _ => run.join("folds"),
    }
}

/// A finished training with its folds.
fn training(run: &Path, first: &Path, index: &Index) -> anyhow::Result<Training> {
    let folds = folds_folder(run);
    let (config, state) = fit::read_run(run)?;
    let crossed = match folds == run.join("folds") {
        true => folds_of(run, &folds)?,
        // A fold's network: as good as any other's of the folds that are measured.
        false if state.is_done(&config) => read_json(&folds.join(CROSS_VALIDATION))?,
        false => bail!("{} is not finished", run.display()),
    };
    if config.context {
        bail!("{} sees neighbouring slices: the node has no such input, and no model can be made of it", run.display());
    }
    let (own, split) = data_of(run)?;
    let (_, first_split) = data_of(first)?;
    if let Some(how) = index.measured(&first_split.train_only).difference(&own.measured(&split.train_only)) {
        bail!("{} and {} were measured on other slices ({how})", first.display(), run.display());
    }
    let rows = out_of_fold(&folds)?;
    let scores = rows.into_iter().map(|(fold, slice, score)| ((fold, slice.source, slice.id), score)).collect();
    Ok(Training { config, state, index: own, split, is_of_a_fold: folds != run.join("folds"), crossed, scores })
}

/// The folds, which all trainings must have alike, with the mean of their logits as a probability.
fn folds(args: &EnsembleArgs, trainings: &[Training]) -> anyhow::Result<Vec<Fold>> {
    let first = &trainings[0];
    let mut folds = Vec::new();
    for (run, training) in args.runs.iter().zip(trainings) {
        let same = training.config.transform == first.config.transform
            && training.config.candidate.layers == first.config.candidate.layers
            && training.config.choosing() == first.config.choosing();
        if !same || training.crossed.folds.len() != first.crossed.folds.len() {
            bail!(
                "{} and {} have another network, input, operating point or number of folds: they are no one model",
                args.runs[0].display(),
                run.display()
            );
        }
    }
    for number in 1..=first.crossed.folds.len() {
        let name = fold_name(number);
        let (index, split) = data_of(&folds_folder(&args.runs[0]).join(&name))?;
        let slices: Vec<Slice> = split.slices(&index, Side::Test).into_iter().cloned().collect();
        let mut scores = Vec::with_capacity(slices.len());
        for slice in &slices {
            let key = (name.clone(), slice.source.clone(), slice.id.clone());
            let mut sum = 0.0;
            for (run, training) in args.runs.iter().zip(trainings) {
                let score = training.scores.get(&key).with_context(|| {
                    format!(
                        "{} did not score {} in {name}: its folds are others, and a network would be measured on what it was trained on",
                        run.display(),
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
