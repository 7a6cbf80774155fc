//! Arguments that several commands share.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use triaged_imaging::Window;

use crate::data::{Augment, Index, OtherSizes, SplitBy, check_apart, source_name};
use crate::fit::{FitConfig, Monitor, Schedule};
use crate::recipe::{Recipe, RecipeError};

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
    /// How to train: m10, m11, m12 or a file (training/recipes/m10.toml shows one) [default: as the study trained the network]
    #[arg(long, value_name = "NAME|FILE")]
    pub recipe: Option<String>,
    /// The network, m1 to m12 [default: the recipe's, else m10]
    #[arg(long)]
    pub candidate: Option<String>,
    #[command(flatten)]
    pub instead: RecipeArgs,
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
    #[command(flatten)]
    pub machine: MachineArgs,
}

/// Values that stand in place of the recipe's.
#[derive(Clone, Args)]
#[command(next_help_heading = "Instead of what the recipe says")]
pub struct RecipeArgs {
    /// Epochs at most
    #[arg(long)]
    pub epochs: Option<usize>,
    /// Slices a step
    #[arg(long)]
    pub batch: Option<usize>,
    /// The learning rate, or its highest
    #[arg(long)]
    pub learning_rate: Option<f64>,
    /// How the learning rate runs
    #[arg(long, value_enum)]
    pub schedule: Option<Schedule>,
    /// AdamW's weight decay; 0 is the study's Adam
    #[arg(long)]
    pub weight_decay: Option<f64>,
    /// Train the first dense layer on a grid of so many knots along an edge, instead of free at every position
    #[arg(long)]
    pub position_grid: Option<usize>,
    /// Epochs at the beginning that see the images at half their edge; needs --position-grid
    #[arg(long)]
    pub half_size_epochs: Option<usize>,
    /// The weight of a loss on single positions beside the network's own
    #[arg(long, alias = "witness")]
    pub localization: Option<f64>,
    /// Epochs without a better validation that end the training
    #[arg(long)]
    pub patience: Option<usize>,
    /// The figure of the validation that makes an epoch the best
    #[arg(long, value_enum)]
    pub monitor: Option<Monitor>,
    /// Draw so many slices an epoch, half of them positive, instead of each once with class weights
    #[arg(long)]
    pub balance: Option<usize>,
    /// Train on the slices as they are
    #[arg(long)]
    pub no_augment: bool,
    /// Feed stored values as the study did, instead of Hounsfield windows
    #[arg(long, conflicts_with = "window")]
    pub raw: bool,
    /// A Hounsfield window, CENTER,WIDTH; given more than once, a channel each
    #[arg(long, value_parser = window)]
    pub window: Vec<Window>,
    /// Edge of the input image
    #[arg(long)]
    pub size: Option<u32>,
    /// Begin the training with the weights in this file, which `make pretrained` fetches; `none` draws them
    #[arg(long, value_name = "PATH|none")]
    pub pretrained: Option<PathBuf>,
    /// Also score each slice as the mean of itself and its mirror image, to report beside the figures
    #[arg(long)]
    pub test_time_flip: bool,
    /// The share of validation studies with hemorrhage that the study rule must flag, above 0 and at most 1
    #[arg(long)]
    pub study_sensitivity: Option<f64>,
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
    /// The model's name [default: the network's]
    #[arg(long)]
    pub name: Option<String>,
    /// The card's version
    #[arg(long, default_value = "1")]
    pub card_version: String,
    /// Take decision and figures from this folder of `cross-validate`, for a run that was trained on all patients
    #[arg(long)]
    pub cross_validation: Option<PathBuf>,
    /// Put the table in this folder of `ablate` into the cards
    #[arg(long)]
    pub ablation: Option<PathBuf>,
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
        check_apart(&index.slices, &self.only())?;
        Ok(index)
    }
}

impl DataArgs {
    /// The names of the sources that are only trained on.
    pub fn only(&self) -> Vec<String> {
        self.train_only.iter().map(|folder| source_name(folder)).collect()
    }
}

impl FitArgs {
    /// The recipe with what the flags put in its place.
    pub fn recipe(&self) -> Result<Recipe, RecipeError> {
        let mut recipe = match &self.recipe {
            Some(name) => Recipe::open(name)?,
            None => Recipe::of_candidate(self.candidate.as_deref().unwrap_or("m10"))?,
        };
        if let Some(candidate) = &self.candidate {
            recipe.candidate = candidate.clone();
        }
        self.instead.put(&mut recipe);
        Ok(recipe)
    }

    pub fn config(&self) -> Result<FitConfig, RecipeError> {
        Ok(FitConfig { sample: self.sample, ..self.recipe()?.config(self.seed)? })
    }
}

impl RecipeArgs {
    fn put(&self, recipe: &mut Recipe) {
        fn put<T: Clone>(given: &Option<T>, of: &mut T) {
            if let Some(given) = given {
                *of = given.clone();
            }
        }
        put(&self.epochs, &mut recipe.epochs);
        put(&self.batch, &mut recipe.batch);
        put(&self.learning_rate, &mut recipe.learning_rate);
        put(&self.schedule, &mut recipe.schedule);
        put(&self.weight_decay, &mut recipe.weight_decay);
        put(&self.half_size_epochs, &mut recipe.half_size_epochs);
        put(&self.localization, &mut recipe.localization);
        put(&self.patience, &mut recipe.patience);
        put(&self.monitor, &mut recipe.monitor);
        put(&self.size, &mut recipe.size);
        put(&self.study_sensitivity, &mut recipe.study_sensitivity);
        recipe.position_grid = self.position_grid.or(recipe.position_grid);
        recipe.balance = self.balance.or(recipe.balance);
        recipe.test_time_flip |= self.test_time_flip;
        if let Some(path) = &self.pretrained {
            recipe.pretrained = Some(path.clone()).filter(|path| path != Path::new("none"));
        }
        if self.no_augment {
            recipe.augmentation = Augment::NONE;
        }
        if self.raw {
            recipe.feed_stored_values();
        } else if !self.window.is_empty() {
            recipe.windows = self.window.clone();
        }
    }
}
