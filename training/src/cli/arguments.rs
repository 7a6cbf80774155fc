//! What the commands share of their arguments.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use triaged::imaging::{Transform, Window};

use crate::candidates::{NAMES, candidate};
use crate::data::{Augment, Index, OtherSizes, SplitBy};
use crate::fit::{FitConfig, Monitor, Schedule};
use crate::pretrained::{self, Pretrained};
use crate::recipe::Recipe;

#[derive(Clone, Args)]
pub struct DataArgs {
    /// A folder with stage_2_train.csv and stage_2_train/*.dcm; may be given more than once
    #[arg(long, required = true)]
    pub data: Vec<PathBuf>,
    /// A folder of the same layout that is trained on and never measured; may be given more than once
    #[arg(long)]
    pub train_only: Vec<PathBuf>,
    /// Images that are not 512×512: resize them, or discard them as the study did
    #[arg(long, value_enum, default_value = "resize")]
    pub other_sizes: OtherSizes,
}

#[derive(Clone, Args)]
pub struct FitArgs {
    /// The network: the study's m1 to m10, or m11 (EfficientNet-Lite0)
    #[arg(long, default_value = "m10", value_parser = NAMES)]
    pub candidate: String,
    /// Begin m11's training with the weights in this file, which `make pretrained` fetches; `none` draws them [default:
    /// .cache/pretrained/efficientnet-lite0-57934424.pth]
    #[arg(long, value_name = "PATH|none")]
    pub pretrained: Option<PathBuf>,
    /// Epochs at most [default: the study's for this network]
    #[arg(long)]
    pub epochs: Option<usize>,
    /// Slices a step [default: the study's for this network]
    #[arg(long)]
    pub batch: Option<usize>,
    /// The learning rate, or its highest [default: 0.001]
    #[arg(long)]
    pub learning_rate: Option<f64>,
    /// How the learning rate runs [default: constant]
    #[arg(long, value_enum)]
    pub schedule: Option<Schedule>,
    /// AdamW's weight decay; 0 is the study's Adam [default: 0]
    #[arg(long)]
    pub weight_decay: Option<f64>,
    /// Train the first dense layer on a grid of so many knots along an edge, instead of free at every position
    #[arg(long)]
    pub position_grid: Option<usize>,
    /// Epochs at the beginning that see the images at half their edge; needs --position-grid [default: 0]
    #[arg(long)]
    pub half_size_epochs: Option<usize>,
    /// The weight of a loss on single positions beside the network's own [default: 0]
    #[arg(long)]
    pub witness: Option<f64>,
    /// Epochs without a better validation that end the training
    #[arg(long, default_value_t = 5)]
    pub patience: usize,
    /// What of the validation makes an epoch the best [default: loss]
    #[arg(long, value_enum)]
    pub monitor: Option<Monitor>,
    /// Seed of split, sample, initial weights and augmentation
    #[arg(long, default_value_t = 2019)]
    pub seed: u64,
    /// Share of patients for validation
    #[arg(long, default_value_t = 0.2)]
    pub validation: f64,
    /// Share of patients for the test
    #[arg(long, default_value_t = 0.2)]
    pub test: f64,
    /// Split by patient, or by image as the study did
    #[arg(long, value_enum, default_value = "patient")]
    pub split: SplitBy,
    /// Train on a stratified random sample of so many training slices
    #[arg(long)]
    pub sample: Option<usize>,
    /// Draw so many slices an epoch, half of them positive, instead of each once with class weights
    #[arg(long)]
    pub balance: Option<usize>,
    /// Train on the slices as they are
    #[arg(long)]
    pub no_augment: bool,
    /// Feed stored values as the study did, instead of a Hounsfield window
    #[arg(long)]
    pub raw: bool,
    /// The Hounsfield window, CENTER,WIDTH
    #[arg(long, default_value = "40,80", value_parser = window)]
    pub window: Window,
    /// Edge of the input image [default: 512, of m11 224]
    #[arg(long)]
    pub size: Option<u32>,
    /// Train as the shipped m10 was: other defaults for --epochs, --batch, --balance, --monitor, --learning-rate,
    /// --schedule, --weight-decay, --position-grid, --half-size-epochs and --witness
    #[arg(long)]
    pub shipped: bool,
    #[command(flatten)]
    pub machine: MachineArgs,
}

#[derive(Clone, Args)]
pub struct MachineArgs {
    #[arg(long, value_enum, default_value = "cpu")]
    pub device: Device,
    /// Keep decoded slices in this folder (1 MiB a slice of 512×512), so that later epochs need not decode
    #[arg(long)]
    pub cache: Option<PathBuf>,
}

#[derive(Clone, Args)]
pub struct RunArgs {
    /// The run's folder, as `fit` wrote it
    #[arg(long)]
    pub run: PathBuf,
    #[command(flatten)]
    pub machine: MachineArgs,
}

#[derive(Clone, Args)]
pub struct ExportArgs {
    /// Folder of model and cards
    #[arg(long)]
    pub out: PathBuf,
    /// The card's version
    #[arg(long, default_value = "1")]
    pub card_version: String,
    /// Take decision and figures from this folder of `cross-validate`, for a run that was trained on all patients
    #[arg(long)]
    pub cross_validation: Option<PathBuf>,
}

#[derive(Clone, Args)]
pub struct FoldArgs {
    /// Parts into which the patients are divided; each is measured by a network trained on the others
    #[arg(long, default_value_t = 5)]
    pub folds: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Device {
    Cpu,
    Cuda,
}

/// CENTER,WIDTH in Hounsfield units.
pub fn window(text: &str) -> Result<Window, String> {
    let (center, width) = text.split_once(',').ok_or("needs CENTER,WIDTH")?;
    let number = |text: &str| text.trim().parse::<f32>().map_err(|error| error.to_string());
    let window = Window { center: number(center)?, width: number(width)? };
    if window.width > 0.0 { Ok(window) } else { Err("the width must be above 0".into()) }
}

impl DataArgs {
    pub fn index(&self) -> anyhow::Result<Index> {
        let folders = [self.data.clone(), self.train_only.clone()].concat();
        let index = Index::read_all(&folders, self.other_sizes)?;
        for line in index.problems.lines() {
            eprintln!("{line}");
        }
        Ok(index)
    }
}

impl DataArgs {
    /// The names of the sources that are only trained on.
    pub fn only(&self) -> Vec<String> {
        let name = |folder: &PathBuf| Some(folder.file_name()?.to_string_lossy().into_owned());
        self.train_only.iter().filter_map(name).collect()
    }
}

impl FitArgs {
    pub fn config(&self) -> anyhow::Result<FitConfig> {
        let candidate = candidate(&self.candidate).context("no such network")?;
        let edge = self.size.unwrap_or(if candidate.has_pretrained() { 224 } else { 512 });
        let (height, width) = (edge, edge);
        // Drawn weights take the same input, so that a comparison is about the weights alone.
        let normalization = candidate.has_pretrained().then_some(pretrained::NORMALIZATION);
        let transform = if self.raw {
            Transform::StoredValues { height, width }
        } else {
            Transform::HounsfieldWindows { height, width, windows: vec![self.window], normalization }
        };
        let augment = match () {
            () if self.no_augment => Augment::NONE,
            // A window cannot be jittered where there is none.
            () if self.raw => Augment { window: 0.0, ..Augment::DEFAULT },
            () => Augment::DEFAULT,
        };
        let recipe = if self.shipped { Recipe::SHIPPED } else { Recipe::study(&candidate) };
        let pretrained = match &self.pretrained {
            Some(path) if path == Path::new("none") => None,
            Some(_) if !candidate.has_pretrained() => bail!("there are no pretrained weights of {}", candidate.name),
            None if !candidate.has_pretrained() => None,
            path => Some(Pretrained::of(path.as_deref().unwrap_or(Path::new(pretrained::FILE)))?),
        };
        Ok(FitConfig {
            pretrained,
            epochs: self.epochs.unwrap_or(recipe.epochs),
            batch: self.batch.unwrap_or(recipe.batch),
            candidate,
            transform,
            seed: self.seed,
            learning_rate: self.learning_rate.unwrap_or(recipe.learning_rate),
            schedule: self.schedule.unwrap_or(recipe.schedule),
            weight_decay: self.weight_decay.unwrap_or(recipe.weight_decay),
            position_grid: self.position_grid.or(recipe.position_grid),
            half_size_epochs: self.half_size_epochs.unwrap_or(recipe.half_size_epochs),
            witness: self.witness.unwrap_or(recipe.witness),
            augment,
            balance: self.balance.or(recipe.balance),
            patience: self.patience,
            monitor: self.monitor.unwrap_or(recipe.monitor),
        })
    }
}
