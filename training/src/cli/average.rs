//! `average`: one network with the mean weights of several trainings, as a run that is exported and measured like any other; of one training, its
//! own with BatchNorm's statistics taken anew.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use burn::tensor::backend::AutodiffBackend;
use clap::Args;
use triaged_kernels::ConvBackend;

use super::arguments::MachineArgs;
use super::folds::{CROSS_VALIDATION, fold_name};
use super::run_data::data_of;
use super::scores::{score_slices, scores_file, write_scores};
use super::trainings::{Training, data_of_all, folds, members, networks, trainings};
use crate::cross_validation::CrossValidation;
use crate::data::{Index, Side, Slice, Split};
use crate::evaluate::{Study, strata};
use crate::files::write_json;
use crate::fit::{self, State};
use crate::network::Network;

#[derive(Clone, Args)]
pub struct AverageArgs {
    /// A folder of `train`, with its folds in `folds`; several of the same network, input, seed, pretrained weights, measured slices
    /// and folds (what they only trained on may differ), or one, of which only BatchNorm's statistics are taken anew
    #[arg(long = "run", required = true)]
    pub runs: Vec<PathBuf>,
    /// The run's folder, which must not be there yet; its folds come to `folds` in it
    #[arg(long)]
    pub out: PathBuf,
    #[command(flatten)]
    pub machine: MachineArgs,
}

/// Averages the weights of the trainings, fold by fold and of the networks that were trained on all, and measures them out of fold.
pub fn do_average<B>(args: &AverageArgs, device: &B::Device) -> anyhow::Result<CrossValidation>
where
    B: AutodiffBackend + ConvBackend,
    B::InnerBackend: ConvBackend,
{
    if args.out.exists() {
        bail!("{} is there already; take another folder or delete it", args.out.display());
    }
    let trainings = trainings(&args.runs, None)?;
    let first = &trainings[0];
    for training in &trainings {
        if training.is_of_a_fold {
            bail!("{} has not seen the patients of its fold: name the training that saw all", training.run.display());
        }
        let begins = |of: &Training| (of.config.pretrained.clone(), of.config.seed);
        if begins(training) != begins(first) {
            bail!(
                "{} and {} did not begin with the same weights: the mean of theirs is no network",
                first.run.display(),
                training.run.display()
            );
        }
    }
    let config = &first.config;
    let folders = args.out.join("folds");
    let folds = folds(&trainings)?;
    let (index, split) = data_of_all(&trainings)?;
    std::fs::create_dir_all(&folders).with_context(|| format!("cannot make {}", folders.display()))?;
    let mut rows = scores_file(&folders)?;
    let (mut studies, mut labelled) = (Vec::new(), Vec::new());
    for number in 1..=folds.len() {
        let name = fold_name(number);
        eprintln!("{name} of {}", folds.len());
        let mut split = data_of(&first.folds.join(&name))?.1;
        for training in &trainings[1..] {
            split.add_train_only(&data_of(&training.folds.join(&name))?.1);
        }
        let folder = |training: &Training| training.folds.join(&name);
        let network = average::<B>(args, &trainings, folder, (&index, &split), &folders.join(&name), device)?;
        let slices: Vec<Slice> = split.slices(&index, Side::Test).into_iter().cloned().collect();
        let of: Vec<&Slice> = slices.iter().collect();
        let cache = config.cache(args.machine.cache.clone(), &index)?;
        let scores = score_slices(&network, config, &of, &cache, "its patients", device)?;
        write_scores(&mut rows, &name, &of, &scores)?;
        rows.flush().context("cannot write scores.csv")?;
        studies.push(Study::group(&of, &scores.plain));
        labelled.push((slices, scores.plain));
    }
    let mut crossed = CrossValidation::of(&studies, config.choosing(), config.seed)
        .context("the folds that are left after taking one out lack patients with or without hemorrhage")?;
    let labelled: Vec<(Vec<&Slice>, Vec<f64>)> =
        labelled.iter().map(|(slices, scores)| (slices.iter().collect(), scores.clone())).collect();
    crossed.supplement.strata = strata(&labelled, &crossed.decisions, config.seed);
    eprintln!("the network of all patients");
    average::<B>(args, &trainings, |training| training.run.clone(), (&index, &split), &args.out, device)?;
    // Last: figures stand only beside networks that are all there.
    write_json(&folders.join(CROSS_VALIDATION), &crossed)?;
    Ok(crossed)
}

/// The mean of the networks in each training's `folder`, written as the run `out`. Its statistics are those of draws from the first
/// training's side of that folder.
fn average<B>(
    args: &AverageArgs,
    trainings: &[Training],
    folder: impl Fn(&Training) -> PathBuf,
    (index, split): (&Index, &Split),
    out: &Path,
    device: &B::Device,
) -> anyhow::Result<Network<B::InnerBackend>>
where
    B: AutodiffBackend + ConvBackend,
    B::InnerBackend: ConvBackend,
{
    let first = folder(&trainings[0]);
    let (config, state) = fit::read_run(&first)?;
    let mean =
        fit::mean(&networks::<B::InnerBackend>(trainings, folder, None, device)?).context("no training is named")?;
    let (own_index, own_split) = data_of(&first)?;
    let train = own_split.slices(&own_index, Side::Train);
    let cache = config.cache(args.machine.cache.clone(), &own_index)?;
    let network = fit::with_statistics_of::<B>(mean, &config, &train, &cache, device)?;
    let best = state.best.with_context(|| format!("{} has no network", first.display()))?;
    fit::save_best(out, best, network.clone())?;
    fit::write_run(out, &config, &State { mean_of: members(trainings), ..state })?;
    write_json(&out.join("index.json"), index)?;
    write_json(&out.join("split.json"), split)?;
    Ok(network)
}
