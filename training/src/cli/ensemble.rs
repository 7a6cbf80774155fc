//! `ensemble`: several trainings of one recipe's network as one model.
//!
//! Networks that begin with the same weights and see other draws err on other slices; the mean of their logits errs less than each. Its
//! figures are as honest as one network's where all trainings have the same folds: each patient is scored by the mean of the
//! networks, one of each training, that were trained without them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use triaged_kernels::ConvBackend;

use super::arguments::MachineArgs;
use super::evaluate::{print_supplement, warn_of};
use super::export::{checked, commit, write};
use super::folds::CROSS_VALIDATION;
use super::scores::{scores_file, write_scores};
use super::trainings::{Fold, check_name, data_of_all, ensemble, folds, networks, trainings};
use crate::card::{Measured, Trained};
use crate::cross_validation::CrossValidation;
use crate::data::Slice;
use crate::evaluate::{Study, strata};
use crate::export;
use crate::files::write_json;
use crate::fit::Scores;

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

pub fn do_ensemble<B: ConvBackend>(args: &EnsembleArgs, device: &B::Device, device_name: &str) -> anyhow::Result<()> {
    if args.runs.len() < 2 {
        bail!("--run: two trainings or more make an ensemble");
    }
    for (place, second) in args.runs.iter().enumerate() {
        let is_it = |first: &PathBuf| {
            std::fs::canonicalize(first).ok().is_some_and(|path| std::fs::canonicalize(second).ok() == Some(path))
        };
        if args.runs[..place].iter().any(is_it) {
            bail!("--run {} is given twice: the mean of a network with itself is that network", second.display());
        }
    }
    let trainings = trainings(&args.runs, None)?;
    let (index, split) = data_of_all(&trainings)?;
    let first = &trainings[0];
    let config = &first.config;
    let folds = folds(&trainings)?;
    let labelled: Vec<(Vec<&Slice>, Vec<f64>)> =
        folds.iter().map(|fold| (fold.slices.iter().collect(), fold.scores.clone())).collect();
    let studies: Vec<Vec<Study>> = labelled.iter().map(|(slices, scores)| Study::group(slices, scores)).collect();
    let mut crossed = CrossValidation::of(&studies, config.choosing(), config.seed)
        .context("the folds that are left after taking one out lack patients with or without hemorrhage")?;
    crossed.supplement.strata = strata(&labelled, &crossed.decisions, config.seed);
    println!("{} patients in {} folds\n\n{}", crossed.pooled.patients, crossed.folds.len(), crossed.table());
    print_supplement(&crossed.supplement);
    warn_of(&crossed.decision);

    // The mean of logits that are all scaled alike is the scaled mean.
    let networks =
        networks::<B>(&trainings, |training| training.run.clone(), crossed.decision.calibration.as_ref(), device)?;
    let name = args.name.clone().unwrap_or_else(|| format!("{}-ensemble", config.candidate.name));
    check_name(&name)?;
    let onnx = export::mean_onnx(&networks, &name, config.shape())?;
    let cache = config.cache(args.machine.cache.clone(), &index)?;
    let patients: Vec<&Slice> = index.slices.iter().filter(|slice| !split.train_only.contains(&slice.source)).collect();
    let parity = checked::<B>(&networks, &onnx, &patients, &cache, device)?;
    let ensemble = ensemble(name, &trainings);
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    write_json(&args.out.join(CROSS_VALIDATION), &crossed)?;
    let trained = Trained {
        name: &ensemble.name,
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
