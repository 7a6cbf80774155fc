//! `ablate`: the recipe with one thing changed at a time, cross-validated on the same folds.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use burn::tensor::backend::AutodiffBackend;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use triaged_kernels::ConvBackend;
use triaged_model::ModelCard;

use super::arguments::{DataArgs, FitArgs, FoldArgs};
use super::cross_validate::cross_validate;
use super::folds::check_folds;
use crate::ablation::{Ablation, Outcome, Row, Subject, Variant, is_synthetic, shorten, shortened};
use crate::data::{Index, Side, Split};
use crate::files::{read_json, write_json};
use crate::fit::{FitConfig, Monitor};
use crate::recipe::Recipe;
use crate::run::Run;

/// A finished row's record of how it was made.
const ROW: &str = "row.json";
/// The whole table, for a card.
const ABLATION: &str = "ablation.json";

#[derive(Clone, Args)]
pub struct AblateArgs {
    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    pub fit: FitArgs,
    #[command(flatten)]
    pub folds: FoldArgs,
    /// Changes to try, a row each [default: everything that changes something]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub rows: Vec<Row>,
    /// Train and measure only so many of the folds; at least 2
    #[arg(long)]
    pub only_folds: Option<usize>,
    /// Folder of the table and of the rows' cross-validations
    #[arg(long)]
    pub out: PathBuf,
}

/// The inputs of a finished row.
#[derive(PartialEq, Serialize, Deserialize)]
struct Finished {
    config: FitConfig,
    splits: Vec<Split>,
}

/// A row that is to be trained.
struct Job {
    row: Row,
    config: FitConfig,
    index: Index,
    splits: Vec<Split>,
    shortened: String,
}

/// Trains and measures what is not finished yet; writes the table anew after each row.
pub fn do_ablate<B>(args: &AblateArgs, device: &B::Device) -> anyhow::Result<()>
where
    B: AutodiffBackend + ConvBackend,
    B::InnerBackend: ConvBackend,
{
    let jobs = jobs(args)?;
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    let mut ablation =
        Ablation { recipe: name(args), folds: args.folds.folds, seed: args.fit.seed, outcomes: Vec::new(), of: None };
    let mut failed = Vec::new();
    for job in jobs {
        let (row, shortened) = (job.row, job.shortened.clone());
        if row == Row::Recipe {
            ablation.of = Some(subject(&job));
        }
        let folder = args.out.join(row.name());
        match train_row::<B>(args, job, &folder, device).with_context(|| row.name()) {
            Ok(()) => {}
            // Nothing can be compared with it.
            Err(error) if row == Row::Recipe => return Err(error),
            Err(error) => {
                eprintln!("left out: {error:#}");
                failed.push(row.name());
                continue;
            }
        }
        let recipe = Run::read(&args.out.join(Row::Recipe.name()))?;
        let run = Run::read(&folder)?;
        ablation.outcomes.push(Outcome::of(row, &run, &recipe, &shortened, args.fit.seed));
        write(&ablation, &args.out)?;
    }
    println!("{}\n\n{}", ablation.caption(), ablation.table());
    eprintln!("wrote {}", args.out.join("ablation.md").display());
    if !failed.is_empty() {
        bail!("the table lacks {}, which could not be trained (see above)", failed.join(", "));
    }
    Ok(())
}

/// Trains and measures a row in its folder, unless that is done.
fn train_row<B>(args: &AblateArgs, job: Job, folder: &Path, device: &B::Device) -> anyhow::Result<()>
where
    B: AutodiffBackend + ConvBackend,
    B::InnerBackend: ConvBackend,
{
    let wanted = Finished { config: job.config, splits: job.splits };
    if folder.join(ROW).exists() {
        if read_json::<Finished>(&folder.join(ROW))? != wanted {
            bail!(
                "{} was made with another recipe, seed or other data; take another folder or delete it",
                folder.display()
            );
        }
        check_folds(folder, &job.index, &wanted.splits)?;
        eprintln!("{}: finished before", job.row.name());
        return Ok(());
    }
    eprintln!("{}: {}", job.row.name(), job.row.text());
    cross_validate::<B>(&wanted.config, &args.fit, &job.index, &wanted.splits, folder, device)?;
    write_json(&folder.join(ROW), &wanted)?;
    forget_networks(folder, wanted.splits.len());
    Ok(())
}

/// What a row is about.
fn subject(job: &Job) -> Subject {
    let only: &[String] = job.splits.first().map_or(&[], |split| &split.train_only);
    let measured: BTreeSet<String> = job
        .index
        .slices
        .iter()
        .filter(|slice| !only.contains(&slice.source))
        .map(|slice| slice.source.clone())
        .collect();
    Subject {
        layers: job.config.candidate.layers.clone(),
        transform: job.config.transform.clone(),
        measured: measured.into_iter().collect(),
    }
}

/// Refuses a table of another network, input or measured sources than the card's. One of before that was noted is taken, and that is said.
///
/// # Errors
/// In what the model is another one.
pub fn check_of(ablation: &Ablation, card: &ModelCard, folder: &Path) -> anyhow::Result<()> {
    match ablation.of.as_ref().map(|of| of.difference(card)) {
        Some(None) => Ok(()),
        Some(Some(how)) => bail!("the table in {} is not of {}: {how}", folder.display(), card.name),
        None => {
            eprintln!(
                "{} does not say which network its table is of: whether it is {} was not checked",
                folder.display(),
                card.name
            );
            Ok(())
        }
    }
}

/// All that can be refused is refused here, before the first training.
fn jobs(args: &AblateArgs) -> anyhow::Result<Vec<Job>> {
    let folds = args.folds.folds;
    let only = args.only_folds.unwrap_or(folds);
    if only < 2 || only > folds {
        bail!("of {folds} folds at least 2 and at most all can be measured, not {only}");
    }
    let written = args.fit.recipe()?;
    let written = match &args.fit.recipe {
        Some(name) => Recipe { candidate: written.candidate.clone(), ..Recipe::open(name)? },
        None => Recipe::of_candidate(&written.candidate)?,
    };
    let mut used = args.fit.recipe()?;
    if args.fit.instead.epochs.is_some() && args.fit.instead.half_size_epochs.is_none() {
        let epochs = used.epochs;
        used = Recipe { epochs: written.epochs, ..used };
        shorten(&mut used, epochs);
    }
    // Nobody is held back for validation.
    used.monitor = Monitor::Last;
    // Figures are without it: scoring mirror images would only take time.
    used.test_time_flip = false;
    let index = args.data.index()?;
    let extras = args.data.only();
    let whole = Variant {
        recipe: used,
        split: args.fit.split,
        extra_sets: !extras.is_empty(),
        synthetic: extras.iter().any(|source| is_synthetic(source)),
    };
    let splits = Split::folds(&index, whole.split, folds, &extras, args.fit.seed)?;
    let train = splits[0].slices(&index, Side::Train).len();
    let asked: Vec<Row> = if args.rows.is_empty() { Row::value_variants().to_vec() } else { args.rows.clone() };
    let mut jobs = Vec::new();
    // In their own order, the recipe first, whether or not it was asked for.
    for &row in Row::value_variants().iter().filter(|row| **row == Row::Recipe || asked.contains(row)) {
        let Some(variant) = row.change(&whole, train) else {
            if !args.rows.is_empty() {
                bail!("the row {} changes nothing of this recipe and these data", row.name());
            }
            continue;
        };
        let mut index = index.clone();
        if !variant.extra_sets {
            index.slices.retain(|slice| !extras.contains(&slice.source));
        } else if whole.synthetic && !variant.synthetic {
            index.slices.retain(|slice| !is_synthetic(&slice.source));
        }
        let mut splits = Split::folds(&index, variant.split, folds, &extras, args.fit.seed)?;
        splits.truncate(only);
        // A row's own change is no shortening of it.
        let base = row.change(&Variant { recipe: written.clone(), ..whole.clone() }, train);
        let base = base.map_or_else(|| written.clone(), |variant| variant.recipe);
        let shortened = shortened(&base, &variant.recipe, folds, only);
        let config = match variant.recipe.config(args.fit.seed) {
            Ok(config) => config,
            Err(error) if args.rows.is_empty() => {
                eprintln!("{}: left out, {error}", row.name());
                continue;
            }
            Err(error) => return Err(error).with_context(|| row.name()),
        };
        jobs.push(Job { row, config, index, splits, shortened });
    }
    Ok(jobs)
}

fn name(args: &AblateArgs) -> String {
    match (&args.fit.recipe, &args.fit.candidate) {
        (Some(recipe), _) => recipe.clone(),
        (None, candidate) => format!("of the study for {}", candidate.as_deref().unwrap_or("m10")),
    }
}

fn write(ablation: &Ablation, out: &Path) -> anyhow::Result<()> {
    let keep = |name: &str, bytes: &[u8]| {
        let (path, draft) = (out.join(name), out.join(format!("{name}.draft")));
        std::fs::write(&draft, bytes)
            .and_then(|()| std::fs::rename(&draft, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    };
    keep("ablation.csv", &ablation.csv()?)?;
    keep("ablation.md", format!("{}\n\n{}", ablation.caption(), ablation.table()).as_bytes())?;
    Ok(write_json(&out.join(ABLATION), ablation)?)
}

/// The table that `ablate` left in a folder.
pub fn read(folder: &Path) -> anyhow::Result<Ablation> {
    read_json(&folder.join(ABLATION)).with_context(|| format!("{} is no folder of `ablate`", folder.display()))
}

/// A finished row keeps its scores, not its networks. What cannot be removed costs space, nothing else.
fn forget_networks(row: &Path, folds: usize) {
    for fold in 1..=folds {
        for entry in std::fs::read_dir(row.join(format!("fold-{fold}"))).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("checkpoint-") || name.starts_with("best-") {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }
}
