//! How to train: one file for everything that decides about a network but its data and its seed.
//!
//! Two recipes are part of the program, [`SHIPPED`]; others are read from a path. Where none is asked for, a candidate of
//! the study is trained as the study did ([`Recipe::published`]).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use triaged_imaging::{HeadCrop, Normalization, Transform, Window};

use crate::candidates::{Candidate, candidate};
use crate::data::Augment;
use crate::evaluate::{OperatingPoint, WANTED_SENSITIVITY};
use crate::fit::{FitConfig, Monitor, Schedule};
use crate::pretrained::{Pretrained, PretrainedError};
use crate::publication;

/// The recipes that need no file, by name.
pub const SHIPPED: [(&str, &str); 3] = [
    ("m10", include_str!("../recipes/m10.toml")),
    ("m11", include_str!("../recipes/m11.toml")),
    ("m12", include_str!("../recipes/m12.toml")),
];

/// Epochs without a better validation that end a training, unless a recipe says otherwise; the study's.
const PATIENCE: usize = 5;

/// Everything that decides how a network is trained, but for the data and the seed. What is left out of a file is not
/// done: no augmentation, no position grid and so on; a key that means nothing is an error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The network, as [`candidate`] knows it.
    pub candidate: String,
    /// Edge of the input image.
    pub size: u32,
    /// Hounsfield windows, one channel each; none: stored values, as in the study.
    pub windows: Vec<Window>,
    /// Follows the windows (and, in training, the augmentation).
    #[serde(default)]
    pub normalization: Option<Normalization>,
    /// Comes before the windows.
    #[serde(default)]
    pub crop_to_head: Option<HeadCrop>,
    /// As in [`FitConfig`], like all that follows.
    pub epochs: usize,
    pub batch: usize,
    pub learning_rate: f64,
    pub schedule: Schedule,
    #[serde(default)]
    pub weight_decay: f64,
    #[serde(default)]
    pub balance: Option<usize>,
    pub monitor: Monitor,
    #[serde(default = "patience")]
    pub patience: usize,
    #[serde(default)]
    pub position_grid: Option<usize>,
    #[serde(default)]
    pub half_size_epochs: usize,
    #[serde(default, alias = "witness")]
    pub localization: f64,
    #[serde(default)]
    pub pretrained: Option<PathBuf>,
    #[serde(default)]
    pub test_time_flip: bool,
    #[serde(default = "study_sensitivity")]
    pub study_sensitivity: f64,
    #[serde(default)]
    pub context: bool,
    #[serde(default)]
    pub augmentation: Augment,
    #[serde(default)]
    pub sources: BTreeMap<String, f64>,
    #[serde(default)]
    pub level_sources: bool,
    #[serde(default)]
    pub averaging: f64,
    #[serde(default)]
    pub statistics: usize,
    #[serde(default)]
    pub label_smoothing: f64,
    #[serde(default)]
    pub operating_point: OperatingPoint,
}

fn patience() -> usize {
    PATIENCE
}

fn study_sensitivity() -> f64 {
    WANTED_SENSITIVITY
}

#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    #[error(
        "there is no recipe {name}: it is neither one of {} nor a file that can be read ({source})",
        shipped_names()
    )]
    Read { name: String, source: std::io::Error },
    #[error("the recipe {name}, line {line}: {why}")]
    Parse { name: String, line: usize, why: String },
    #[error("there is no network {0}")]
    Candidate(String),
    #[error(transparent)]
    Pretrained(#[from] PretrainedError),
    #[error("the recipe's {key} {why}")]
    Value { key: String, why: &'static str },
}

fn shipped_names() -> String {
    SHIPPED.map(|(name, _)| name).join(", ")
}

impl Recipe {
    /// A shipped recipe by its name, or the one in a file.
    ///
    /// # Errors
    /// [`RecipeError`]: no such name or file, or what is in it is no recipe.
    pub fn open(name: &str) -> Result<Self, RecipeError> {
        match SHIPPED.iter().find(|(shipped, _)| *shipped == name) {
            Some((_, text)) => Self::parse(name, text),
            None => {
                let failed = |source| RecipeError::Read { name: name.into(), source };
                Self::parse(name, &std::fs::read_to_string(Path::new(name)).map_err(failed)?)
            }
        }
    }

    /// Reads a recipe's text; `name` is for errors.
    fn parse(name: &str, text: &str) -> Result<Self, RecipeError> {
        let recipe: Self = toml::from_str(text).map_err(|error| {
            let before = error.span().map_or("", |span| &text[..span.start.min(text.len())]);
            let line = before.matches('\n').count() + 1;
            RecipeError::Parse { name: name.into(), line, why: error.message().replace('\n', " ") }
        })?;
        recipe.check()?;
        Ok(recipe)
    }

    /// The recipe by which a network is trained where none is named: a candidate of the study by the study's, others by the
    /// shipped one of their name.
    ///
    /// # Errors
    /// [`RecipeError::Candidate`] where there is no such network.
    pub fn of_candidate(name: &str) -> Result<Self, RecipeError> {
        let known = candidate(name).ok_or_else(|| RecipeError::Candidate(name.into()))?;
        match publication::quick_evaluation(name) {
            None if SHIPPED.iter().any(|(shipped, _)| *shipped == name) => Self::open(name),
            _ => Ok(Self::published(&known)),
        }
    }

    /// The study's for a candidate: Adam at 1e-3, every slice once an epoch with class weights, the epoch with the lowest
    /// validation loss kept. But for two things: the input is the brain window, and it is augmented.
    pub fn published(candidate: &Candidate) -> Self {
        Self {
            candidate: candidate.name.clone(),
            size: publication::SIDE,
            windows: vec![Window { center: 40.0, width: 80.0 }],
            normalization: None,
            crop_to_head: None,
            epochs: candidate.epochs,
            batch: candidate.batch,
            learning_rate: 1e-3,
            schedule: Schedule::Constant,
            weight_decay: 0.0,
            balance: None,
            monitor: Monitor::Loss,
            patience: PATIENCE,
            position_grid: None,
            half_size_epochs: 0,
            localization: 0.0,
            pretrained: None,
            test_time_flip: false,
            study_sensitivity: WANTED_SENSITIVITY,
            context: false,
            augmentation: Augment::DEFAULT,
            sources: BTreeMap::new(),
            level_sources: false,
            averaging: 0.0,
            statistics: 0,
            label_smoothing: 0.0,
            operating_point: OperatingPoint::default(),
        }
    }

    /// The model's input.
    pub fn transform(&self) -> Transform {
        let (height, width) = (self.size, self.size);
        if self.windows.is_empty() {
            return Transform::StoredValues { height, width };
        }
        Transform::HounsfieldWindows {
            height,
            width,
            crop_to_head: self.crop_to_head,
            windows: self.windows.clone(),
            normalization: self.normalization,
        }
    }

    /// Feeds stored values, as the study did: windows, the head and the normalization are told by Hounsfield units.
    pub fn feed_stored_values(&mut self) {
        (self.windows, self.normalization, self.crop_to_head) = (Vec::new(), None, None);
    }

    /// The training that this asks for.
    ///
    /// # Errors
    /// [`RecipeError::Candidate`] where the network is none, [`RecipeError::Value`] where a number makes no sense.
    pub fn config(&self, seed: u64) -> Result<FitConfig, RecipeError> {
        self.check()?;
        let candidate = candidate(&self.candidate).ok_or_else(|| RecipeError::Candidate(self.candidate.clone()))?;
        let pretrained = match (&self.pretrained, candidate.original()) {
            (None, _) => None,
            (Some(_), None) => {
                return Err(RecipeError::Value {
                    key: "pretrained".into(),
                    why: "is set, but there are no weights of this network to begin with",
                });
            }
            (Some(path), Some(original)) => Some(Pretrained::of(path, original)?),
        };
        Ok(FitConfig {
            candidate,
            pretrained,
            transform: self.transform(),
            seed,
            epochs: self.epochs,
            batch: self.batch,
            learning_rate: self.learning_rate,
            schedule: self.schedule,
            weight_decay: self.weight_decay,
            position_grid: self.position_grid,
            half_size_epochs: self.half_size_epochs,
            localization: self.localization,
            // A window cannot be jittered where there is none.
            augment: if self.windows.is_empty() {
                Augment { window: 0.0, ..self.augmentation }
            } else {
                self.augmentation
            },
            balance: self.balance,
            patience: self.patience,
            monitor: self.monitor,
            test_time_flip: self.test_time_flip,
            study_sensitivity: self.study_sensitivity,
            context: self.context,
            sources: self.sources.clone(),
            level_sources: self.level_sources,
            averaging: self.averaging,
            statistics: self.statistics,
            label_smoothing: self.label_smoothing,
            operating_point: self.operating_point,
            // No matter of a recipe.
            sample: None,
        })
    }

    fn check(&self) -> Result<(), RecipeError> {
        let value = |key: &str, why| Err(RecipeError::Value { key: key.into(), why });
        let finite = |number: f64| number.is_finite() && number >= 0.0;
        let Augment { shift, rotate, zoom, window, .. } = self.augmentation;
        match () {
            () if self.size == 0 => value("size", "is 0"),
            () if self.batch == 0 => value("batch", "is 0"),
            () if self.patience == 0 => value("patience", "is 0: a training would end before its first epoch"),
            () if self.balance == Some(0) => value("balance", "is 0"),
            () if !(self.study_sensitivity > 0.0 && self.study_sensitivity <= 1.0) => {
                value("study_sensitivity", "must be above 0 and at most 1")
            }
            () if !self.operating_point.is_sound() => {
                value("operating_point", "has shares that are not above 0 and at most 1")
            }
            () if !(finite(self.learning_rate) && self.learning_rate > 0.0) => value("learning_rate", "is not above 0"),
            () if !finite(self.weight_decay) => value("weight_decay", "is below 0"),
            () if !finite(self.localization) => value("localization", "is below 0"),
            () if self.transform().check().is_err() => value(
                "windows",
                "have a width, or their normalization a deviation, that is not above 0, or crop_to_head shares not from 0 to 1",
            ),
            () if self.windows.is_empty() && self.normalization.is_some() => {
                value("normalization", "needs windows: stored values are fed as they are")
            }
            () if self.windows.is_empty() && self.crop_to_head.is_some() => {
                value("crop_to_head", "needs windows: stored values are fed as they are")
            }
            () if !(0.0..1.0).contains(&self.averaging) => value("averaging", "must be at least 0 and below 1"),
            () if self.statistics > 0 && self.monitor != Monitor::Last => {
                value("statistics", "are taken of the last epoch: set monitor to \"last\"")
            }
            () if !(0.0..1.0).contains(&self.label_smoothing) => {
                value("label_smoothing", "must be at least 0 and below 1")
            }
            () if self.level_sources && self.balance.is_none() => {
                value("level_sources", "needs balanced draws: set balance")
            }
            () if [shift, rotate, zoom, window].iter().any(|&bound| !finite(f64::from(bound))) => {
                value("augmentation", "has a bound below 0")
            }
            () if zoom >= 1.0 || window >= 1.0 => value("augmentation", "has a zoom or window of 1 or more"),
            () if self.sources.values().any(|&weight| !finite(weight)) => value("sources", "have a weight below 0"),
            () if !self.sources.is_empty() && self.balance.is_none() => {
                value("sources", "have weights, which need balanced draws: set balance")
            }
            () => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pretrained;

    #[test]
    fn the_shipped_recipes_are_what_the_documentation_says() {
        let [m10, m12] = ["m10", "m12"].map(|name| Recipe::open(name).expect("a shipped recipe"));
        let window = Window { center: 40.0, width: 80.0 };
        let documented = Recipe {
            candidate: "m10".into(),
            size: 512,
            windows: vec![window],
            normalization: None,
            epochs: 11,
            batch: 4,
            learning_rate: 5e-4,
            schedule: Schedule::OneCycle,
            weight_decay: 0.01,
            balance: Some(2000),
            monitor: Monitor::Last,
            patience: 5,
            position_grid: Some(5),
            half_size_epochs: 9,
            localization: 1.0,
            pretrained: None,
            test_time_flip: false,
            study_sensitivity: WANTED_SENSITIVITY,
            context: false,
            augmentation: Augment { flip: true, shift: 0.06, rotate: 15.0, zoom: 0.1, window: 0.1 },
            sources: m12.sources.clone(),
            crop_to_head: m12.crop_to_head,
            level_sources: true,
            averaging: 0.98,
            statistics: 0,
            label_smoothing: 0.0,
            operating_point: m12.operating_point,
        };
        assert!(m12.crop_to_head.is_some() && m12.sources.len() == 5);
        assert_eq!(m10, documented);
        let m11 = Recipe::open("m11").expect("m11's recipe");
        let found = (m11.candidate.as_str(), m11.size, m11.epochs, m11.batch, m11.balance, m11.learning_rate);
        assert_eq!(found, ("m11", 320, 6, 16, Some(1200), 1e-3));
        assert_eq!((m11.schedule, m11.monitor, m11.weight_decay), (Schedule::OneCycle, Monitor::Last, 0.01));
        assert_eq!(m11.windows, [window]);
        assert_eq!((m11.test_time_flip, m11.study_sensitivity), (true, 0.95));
        // The data of the pretrained weights, and the place where `make pretrained` puts them.
        assert_eq!(m11.normalization, Some(pretrained::NORMALIZATION));
        assert_eq!(m11.pretrained.as_deref(), Some(Path::new(pretrained::LITE0.file)));
        let Augment { flip, shift, rotate, zoom, window } = m11.augmentation;
        assert!(flip && shift > 0.0 && (15.0..=20.0).contains(&rotate) && zoom > 0.0 && window > 0.0);
    }

    #[test]
    fn a_recipe_that_says_witness_means_localization() {
        let today = SHIPPED[0].1;
        let before = today.replace("localization = 1.0", "witness = 1.0");
        assert_ne!(before, today);
        assert_eq!(Recipe::parse("m10", &before).expect("a recipe"), Recipe::open("m10").expect("m10's recipe"));
    }

    #[test]
    fn a_recipe_becomes_the_training_it_describes() {
        let config = Recipe::open("m10").expect("m10's recipe").config(7).expect("a training");
        assert_eq!((config.candidate.name.as_str(), config.seed, config.transform.shape()), ("m10", 7, [1, 512, 512]));
        let raw = Recipe { windows: vec![], crop_to_head: None, ..Recipe::open("m10").expect("m10's recipe") };
        let raw = raw.config(7).expect("a training");
        assert_eq!(raw.transform, Transform::StoredValues { height: 512, width: 512 });
        assert_eq!(raw.augment.window, 0.0, "stored values have no window to jitter");
        let study = Recipe::of_candidate("m10").expect("m10");
        assert_eq!((study.epochs, study.batch, study.balance, study.monitor), (5, 16, None, Monitor::Loss));
        assert!(Recipe::of_candidate("m0").is_err());
    }

    #[test]
    fn a_recipe_says_where_it_is_wrong() {
        let (text, _) = SHIPPED[0].1.split_once("[sources]").expect("m10's recipe weights its sources");
        let why = |text: &str| Recipe::parse("mine.toml", text).expect_err("no recipe").to_string();
        let unknown = why(&text.replace("batch = 4", "bach = 4"));
        assert!(unknown.contains("mine.toml, line 14") && unknown.contains("bach"), "{unknown}");
        assert!(why(&text.replace("flip = true", "flop = true")).contains("flop"));
        assert!(why(&text.replace("epochs = 11", "epochs = \"many\"")).contains("mine.toml, line 13"));
        assert!(why(&text.replace("batch = 4", "batch = 0")).contains("batch is 0"));
        assert!(why(&text.replace("batch = 4", "batch = 4\npatience = 0")).contains("patience is 0"));
        assert!(why(&(text.replace("balance = 2000", "") + "[sources]\na = 1.0\n")).contains("set balance"));
        assert!(why(&(text.to_owned() + "[sources]\na = -1.0\n")).contains("weight below 0"));
        let best = text.replace("monitor = \"last\"", "monitor = \"loss\"\nstatistics = 2048");
        assert!(why(&best).contains("set monitor to \"last\""), "{}", why(&best));
        for share in ["0.0", "1.1", "nan"] {
            let text = text.replace("localization = 1.0", &format!("localization = 1.0\nstudy_sensitivity = {share}"));
            assert!(why(&text).contains("study_sensitivity must be above 0 and at most 1"), "{share}");
        }
        let absent = Recipe::open("no/such.toml").expect_err("no recipe").to_string();
        assert!(absent.contains("no/such.toml") && absent.contains("m10, m11, m12"), "{absent}");
    }
}
