//! Everything that decides how a network is trained.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use triaged_imaging::Transform;

use crate::candidates::Candidate;
use crate::data::{Augment, Cache, Index, LoadError, Neighbours, Slice};
use crate::evaluate::{Choosing, OperatingPoint, WANTED_SENSITIVITY};
use crate::pretrained::Pretrained;

/// Everything that decides how a network is trained; saved with the run. A run is only resumed with the same, but for
/// how long: more epochs and more patience make it go on; and but for how it is scored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FitConfig {
    pub candidate: Candidate,
    /// The weights to begin with, but for the output unit's; none: drawn ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretrained: Option<Pretrained>,
    pub transform: Transform,
    pub seed: u64,
    pub epochs: usize,
    pub batch: usize,
    /// The highest, where the schedule changes it.
    pub learning_rate: f64,
    pub schedule: Schedule,
    /// AdamW's weight decay; 0 makes it Adam, the study's.
    pub weight_decay: f64,
    /// Knots along an edge of the grid that the first dense layer is trained on ([`crate::network::Network::on_grid`]); none: free
    /// weights at every position, as in the study.
    pub position_grid: Option<usize>,
    /// The first epochs that see the images at half their edge, at a quarter of the time; needs the position grid.
    pub half_size_epochs: usize,
    /// The weight of the loss on single positions beside the network's own
    /// ([`crate::network::Network::forward_with_positions`]); 0: none, as in the study. Runs of before call it `witness`.
    #[serde(alias = "witness")]
    pub localization: f64,
    pub augment: Augment,
    /// Draws an epoch, half of them positive; none: every training slice once, classes weighted n / (2 · n_class).
    pub balance: Option<usize>,
    /// Epochs without a better validation that end the training.
    pub patience: usize,
    pub monitor: Monitor,
    /// Whether slices are scored a second time, as the mean of a slice and its mirror image. Decides nothing.
    #[serde(default)]
    pub test_time_flip: bool,
    /// The share of validation studies with hemorrhage that the study rule must flag. Decides nothing of the training.
    #[serde(default = "wanted")]
    pub study_sensitivity: f64,
    /// How often a slice of a source is drawn beside one of the same class whose source is not named; needs balanced
    /// draws.
    #[serde(default)]
    pub sources: BTreeMap<String, f64>,
    /// Whether a source has the same share of the draws with hemorrhage and of those without ([`crate::data::levelled`]);
    /// needs balanced draws.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub level_sources: bool,
    /// The share of itself that the average of the weights keeps at a step; 0: the weights as they are.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub averaging: f64,
    /// Draws that BatchNorm's statistics are taken anew from when the training is done; 0: those of the last steps stay.
    #[serde(default, skip_serializing_if = "is_none")]
    pub statistics: usize,
    /// The share of each label that is spread over both classes: 0.1 trains on 0.95 and 0.05 in place of 1 and 0; 0: none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub label_smoothing: f64,
    /// How the study rule's threshold is chosen. Decides nothing of the training.
    #[serde(default)]
    pub operating_point: OperatingPoint,
    /// How many of the training side's slices are trained on, a stratified random sample; none: all. Runs of before it was noted have
    /// none, sampled or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<usize>,
    /// Whether the network sees the slices before and after each one too, as further channels. The node knows no such
    /// input: for experiments.
    #[serde(default)]
    pub context: bool,
}

fn is_none(draws: &usize) -> bool {
    *draws == 0
}

/// Runs of before it could be asked for have none.
fn wanted() -> f64 {
    WANTED_SENSITIVITY
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

impl FitConfig {
    /// `[channels, height, width]` of the network's input.
    pub fn shape(&self) -> [usize; 3] {
        let [channels, height, width] = self.transform.shape();
        [if self.context { 3 * channels } else { channels }, height, width]
    }

    /// The source of the network's input; slices are looked for in the index.
    ///
    /// # Errors
    /// [`LoadError`] where the folder cannot be made, or neighbours are asked for and not known.
    pub fn cache(&self, folder: Option<PathBuf>, index: &Index) -> Result<Cache, LoadError> {
        let cache = Cache::new(self.transform.clone(), folder)?;
        Ok(if self.context { cache.with_neighbours(Neighbours::of(index)?) } else { cache })
    }

    /// How the study rule is chosen.
    pub fn choosing(&self) -> Choosing {
        Choosing { sensitivity: self.study_sensitivity, point: self.operating_point }
    }

    /// How often a slice is drawn beside others of its class.
    pub fn weight(&self, slice: &Slice) -> f64 {
        self.sources.get(&slice.source).copied().unwrap_or(1.0)
    }
}

/// The figure of the validation that decides which epoch is best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Monitor {
    /// The lowest loss, as in the study.
    Loss,
    /// The highest area under the ROC curve of the slices.
    Auc,
    /// Nothing: the last epoch is kept, for validation sets too small to choose by.
    Last,
}

/// How the learning rate runs over a training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// The same throughout, as in the study.
    Constant,
    /// Up from a 25th over the first fifth of all steps, then down to nothing along a cosine (L. N. Smith, N. Topin:
    /// Super-Convergence, 2017). Asking for more epochs changes it, so such a run cannot be made longer.
    OneCycle,
}

impl Schedule {
    /// The rate of a step, counted from 0, as a share of the highest.
    pub(super) fn share(self, step: usize, steps: usize) -> f64 {
        const START: f64 = 1.0 / 25.0;
        const RISE: f64 = 0.2;
        let done = (step as f64 + 0.5) / steps.max(1) as f64;
        match self {
            Schedule::Constant => 1.0,
            Schedule::OneCycle if done < RISE => START + (1.0 - START) * done / RISE,
            Schedule::OneCycle => (1.0 + (std::f64::consts::PI * (done - RISE) / (1.0 - RISE)).cos()) / 2.0,
        }
    }
}
