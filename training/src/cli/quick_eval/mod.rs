//! `quick-eval`: the study's protocol, each candidate on a stratified random sample of its own size.
//!
//! A candidate's run lies in a folder of its name: what `fit` keeps there, and its figures. A candidate whose run is
//! finished is not trained again, one that was cut off goes on.

mod table;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use burn::tensor::backend::AutodiffBackend;
use clap::Args;
use clap::builder::PossibleValuesParser;
use triaged_imaging::Window;
use triaged_kernels::ConvBackend;

use crate::candidates::{Candidate, PUBLISHED, candidate};
use crate::cli::arguments::{DataArgs, MachineArgs, window};
use crate::cli::run_data::{begin, check_begun};
use crate::data::{Augment, Cache, Draw, Index, Problems, Side, Slice, Split, SplitBy, stratified};
use crate::files::{read_json, write_json};
use crate::fit::{self, FitConfig, draw, predict};
use crate::metrics::{Case, Confusion, auc, best_f2_threshold};
use crate::network::{Network, parameters};
use crate::publication;
use crate::recipe::Recipe;

use table::{Row, table, write_rows};

const ALL: &str = "all";
/// The figures of a finished run, in its folder.
const FIGURES: &str = "quick-eval.json";

#[derive(Clone, Args)]
pub struct QuickEvalArgs {
    /// The networks
    #[arg(required = true, value_name = "CANDIDATE", value_parser = PossibleValuesParser::new(PUBLISHED.iter().copied().chain([ALL])))]
    pub candidates: Vec<String>,
    #[command(flatten)]
    pub data: DataArgs,
    /// Folder of the runs, quick-eval.csv and the loss curves
    #[arg(long)]
    pub out: PathBuf,
    /// Epochs at most [default: the study's for each network]
    #[arg(long)]
    pub epochs: Option<usize>,
    /// Slices of the sample, test and validation included [default: the study's for each network]
    #[arg(long)]
    pub samples: Option<usize>,
    /// Slices a step [default: the study's for each network]
    #[arg(long)]
    pub batch: Option<usize>,
    #[arg(long, default_value_t = 1e-3)]
    pub learning_rate: f64,
    /// Epochs without a lower validation loss that end a training
    #[arg(long, default_value_t = 5)]
    pub patience: usize,
    /// Split the sample by patient, or by image as the study did
    #[arg(long, value_enum, default_value = "patient")]
    pub split: SplitBy,
    /// Seed of sample, split and initial weights
    #[arg(long, default_value_t = 2019)]
    pub seed: u64,
    /// Feed a Hounsfield window, CENTER,WIDTH [default: the stored values, as the study]
    #[arg(long, value_parser = window)]
    pub window: Option<Window>,
    /// Edge of the input image
    #[arg(long, default_value_t = publication::SIDE)]
    pub size: u32,
    #[command(flatten)]
    pub machine: MachineArgs,
}

impl QuickEvalArgs {
    /// The networks asked for, each once, in the study's order.
    fn names(&self) -> Vec<&'static str> {
        let asked = |name: &str| self.candidates.iter().any(|asked| asked == name || asked == ALL);
        PUBLISHED.iter().copied().filter(|name| asked(name)).collect()
    }

    fn config(&self, name: &str) -> anyhow::Result<FitConfig> {
        let candidate = candidate(name).context("no such network")?;
        let candidate = Candidate { samples: self.samples.unwrap_or(candidate.samples), ..candidate };
        let recipe = Recipe {
            size: self.size,
            windows: self.window.into_iter().collect(),
            epochs: self.epochs.unwrap_or(candidate.epochs),
            batch: self.batch.unwrap_or(candidate.batch),
            learning_rate: self.learning_rate,
            patience: self.patience,
            augmentation: Augment::NONE,
            ..Recipe::published(&candidate)
        };
        Ok(FitConfig { candidate, ..recipe.config(self.seed)? })
    }

    /// A stratified random sample of the index, and its split: a fifth for the test, a fifth of the rest for validation.
    fn sample(&self, index: &Index, size: usize) -> anyhow::Result<(Index, Split)> {
        let labels: Vec<bool> = index.slices.iter().map(|slice| slice.positive).collect();
        let slices = stratified(&labels, size, self.seed).into_iter().map(|i| index.slices[i].clone()).collect();
        let sample = Index { slices, problems: Problems::default() };
        let validation = (1.0 - publication::TEST) * publication::VALIDATION;
        let split = Split::new(&sample, self.split, validation, publication::TEST, &self.data.only(), self.seed)?;
        Ok((sample, split))
    }
}

/// Trains and measures the candidates that are not finished yet; writes `quick-eval.csv` anew after each.
pub fn do_quick_eval<B>(args: &QuickEvalArgs, device: &B::Device) -> anyhow::Result<()>
where
    B: AutodiffBackend + ConvBackend,
    B::InnerBackend: ConvBackend,
{
    let index = args.data.index()?;
    // All that can be refused is refused before the first training.
    let mut jobs = Vec::new();
    for name in args.names() {
        let config = args.config(name)?;
        parameters(&config.candidate.layers, config.transform.shape())
            .with_context(|| format!("{name} at this size"))?;
        let (sample, split) = args.sample(&index, config.candidate.samples).with_context(|| name.to_owned())?;
        check_begun(&args.out.join(name), &sample, &split)?;
        jobs.push((name, config, sample, split));
    }
    let names = comparable(args, &index)?;
    for (name, config, sample, split) in jobs {
        let run = args.out.join(name);
        match finished(&run, &config)? {
            Some(_) => eprintln!("{name}: finished before"),
            None => {
                let row = evaluate::<B>(args, &run, &config, &sample, &split, device).context(name)?;
                write_json(&run.join(FIGURES), &row)?;
                let (_, state) = fit::read_run(&run)?;
                write_rows(&args.out.join(format!("{name}-loss.csv")), &state.epochs)?;
            }
        }
        write_rows(&args.out.join("quick-eval.csv"), &rows(&args.out, &names)?)?;
    }
    println!("{}", table(&rows(&args.out, &names)?));
    Ok(())
}

/// The row of a run with this configuration, if it is finished.
fn finished(run: &Path, config: &FitConfig) -> anyhow::Result<Option<Row>> {
    if !run.join(FIGURES).exists() {
        return Ok(None);
    }
    let row: Row = read_json(&run.join(FIGURES))?;
    let (found, state) = fit::read_run(run)?;
    let done = found == *config && state.is_done(config) && row.epochs == state.epochs.len();
    Ok(done.then_some(row))
}

/// The candidates that may stand in one table: those of this call, and those finished before on the same data by the same
/// split, sample size, input and seed. Others are named.
fn comparable(args: &QuickEvalArgs, index: &Index) -> anyhow::Result<Vec<&'static str>> {
    let asked = args.names();
    let mut names = Vec::new();
    for &name in PUBLISHED {
        let run = args.out.join(name);
        if asked.contains(&name) {
            names.push(name);
        } else if run.join(FIGURES).exists() {
            let (found, _) = fit::read_run(&run)?;
            let config = args.config(name)?;
            let sampled = args.sample(index, config.candidate.samples);
            let same_data = sampled.is_ok_and(|(sample, split)| check_begun(&run, &sample, &split).is_ok());
            if same_data && found.transform == config.transform && found.seed == config.seed {
                names.push(name);
            } else {
                eprintln!(
                    "{name} was run before on other data, by another split or sample, or with another input or seed, and is \
                     left out of the table"
                );
            }
        }
    }
    Ok(names)
}

/// The rows of those of some candidates that are finished.
fn rows(out: &Path, names: &[&str]) -> anyhow::Result<Vec<Row>> {
    let figures = names.iter().map(|name| out.join(name).join(FIGURES)).filter(|path| path.exists());
    figures.map(|path| Ok(read_json(&path)?)).collect()
}

fn evaluate<B>(
    args: &QuickEvalArgs,
    run: &Path,
    config: &FitConfig,
    sample: &Index,
    split: &Split,
    device: &B::Device,
) -> anyhow::Result<Row>
where
    B: AutodiffBackend + ConvBackend,
    B::InnerBackend: ConvBackend,
{
    let cache = Cache::new(config.transform.clone(), args.machine.cache.clone())?;
    begin(run, sample, split)?;
    let [train, validation, test] = [Side::Train, Side::Validation, Side::Test].map(|side| split.slices(sample, side));
    eprintln!(
        "{}: {} of the {} slices the sample asks for; {} to train on, {} to validate, {} for the test; {} epochs of \
         batches of {}",
        config.candidate.name,
        sample.slices.len(),
        config.candidate.samples,
        train.len(),
        validation.len(),
        test.len(),
        config.epochs,
        config.batch
    );
    let (network, state) = fit::fit::<B>(run, config, &train, &validation, &cache, device)?;
    if let (Some((epoch, batch)), Some(best)) = (state.nan, state.best) {
        eprintln!("the loss stopped being a number in epoch {epoch}, batch {batch}: epoch {best} is measured");
    }
    let (held, _) = score(&network, &validation, &cache, config.batch, "validation", device)?;
    let (threshold, _) = best_f2_threshold(&held).context("no positive validation slices")?;
    let (cases, seconds) = score(&network, &test, &cache, config.batch, "test", device)?;
    let counts = Confusion::at(threshold, &cases);
    let trained: f64 = state.epochs.iter().map(|epoch| epoch.seconds).sum();
    Ok(Row {
        candidate: config.candidate.name.clone(),
        parameters: parameters(&config.candidate.layers, config.transform.shape())?,
        samples: sample.slices.len(),
        train: train.len(),
        validation: validation.len(),
        test: test.len(),
        epochs: state.epochs.len(),
        best_epoch: state.best,
        threshold,
        f2: counts.f2(),
        accuracy: counts.accuracy(),
        sensitivity: counts.sensitivity(),
        precision: counts.precision(),
        specificity: counts.specificity(),
        auc: auc(&cases),
        training_seconds_a_slice: trained / (state.epochs.len() * train.len()).max(1) as f64,
        seconds_a_slice: seconds / test.len() as f64,
    })
}

/// Scored slices, and the seconds that took.
fn score<B: ConvBackend>(
    network: &Network<B>,
    slices: &[&Slice],
    cache: &Cache,
    batch: usize,
    what: &str,
    device: &B::Device,
) -> anyhow::Result<(Vec<Case>, f64)> {
    let begun = Instant::now();
    let draws: Vec<Draw> = slices.iter().map(|slice| draw(slice, None)).collect();
    let scores = predict(network, draws, cache, batch, what, device)?;
    let seconds = begun.elapsed().as_secs_f64();
    let cases = slices.iter().zip(scores).map(|(slice, score)| Case { score, positive: slice.positive });
    Ok((cases.collect(), seconds))
}
