//! A run's folder: what it was begun with, and where it stands.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::config::{FitConfig, Schedule};
use super::error::FitError;
use crate::files::{FileError, read_json, write_json};
use crate::metrics::Interval;

const STATE: &str = "state.json";
const CONFIG: &str = "config.json";

/// One epoch's outcome.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    pub epoch: usize,
    pub loss: f64,
    /// None without validation slices.
    pub validation_loss: Option<f64>,
    pub validation_auc: Option<f64>,
    pub seconds: f64,
}

/// One of several trainings that make a model, and what its folds say alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Whether it has not seen the patients of one fold; else it was trained on all.
    #[serde(default)]
    pub is_of_a_fold: bool,
    pub epochs: usize,
    pub draws_per_epoch: Option<usize>,
    pub seed: u64,
    pub seconds: f64,
    /// The sources that it was only trained on, beside those that are measured.
    #[serde(default)]
    pub train_only: Vec<String>,
    pub slice_auc: Option<Interval>,
    /// By the study rule that its own folds chose.
    pub study_auc: Option<Interval>,
}

/// The progress of a run. It names the checkpoint's folder, so that replacing this one file moves the run forward whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub epochs: Vec<Epoch>,
    /// The best epoch so far, whose weights are kept.
    pub best: Option<usize>,
    /// Epoch and batch at which the loss stopped being a number, if it did.
    pub nan: Option<(usize, usize)>,
    /// The share of studies to flag ([`FitConfig::study_sensitivity`]) that was asked for when the run was begun, where
    /// another was since, with epochs trained and figures to be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_sensitivity: Option<f64>,
    /// The trainings of which the run's network has the mean weights ([`crate::fit::mean()`]); none where it was trained itself. The epochs
    /// are the first's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mean_of: Vec<Member>,
}

impl State {
    /// Whether there is nothing more to do: all epochs run, none better for too long, or no number any more.
    pub fn is_done(&self, config: &FitConfig) -> bool {
        let run = self.epochs.len();
        let waited = self.best.map_or(0, |best| run - best);
        self.nan.is_some() || run >= config.epochs || waited >= config.patience
    }
}

/// A run's configuration and where it stands.
pub fn read_run(run: &Path) -> Result<(FitConfig, State), FitError> {
    Ok((read_json(&run.join(CONFIG))?, read_json(&run.join(STATE))?))
}

/// Refuses a run's folder that was begun with a configuration that this one cannot go on with.
///
/// # Errors
/// [`FitError::OtherConfig`], and [`FitError::File`] where there is a configuration that cannot be read.
pub fn check_begun(run: &Path, config: &FitConfig) -> Result<(), FitError> {
    let path = run.join(CONFIG);
    if path.exists() {
        let found: FitConfig = read_json(&path)?;
        let epochs = if config.schedule == Schedule::Constant { config.epochs } else { found.epochs };
        let same = FitConfig {
            epochs,
            patience: config.patience,
            test_time_flip: config.test_time_flip,
            study_sensitivity: config.study_sensitivity,
            operating_point: config.operating_point,
            ..found
        };
        if same != *config {
            return Err(FitError::OtherConfig { path: run.into(), keys: different_keys(&same, config) });
        }
    }
    Ok(())
}

/// The keys in which two configurations differ, each with what was and what is; long values by the key alone.
fn different_keys(before: &FitConfig, now: &FitConfig) -> String {
    let values = |config: &FitConfig| serde_json::to_value(config).unwrap_or_default();
    let (before, now) = (values(before), values(now));
    let names = |of: &serde_json::Value| of.as_object().into_iter().flat_map(|object| object.keys().cloned()).collect();
    let keys: BTreeSet<String> = [names(&before), names(&now)].into_iter().flat_map(|keys: Vec<String>| keys).collect();
    let told = |key: &String| match (before[key].to_string(), now[key].to_string()) {
        (was, is) if was == is => None,
        (was, is) if was.len() + is.len() <= 80 => Some(format!("{key} was {was}, now {is}")),
        _ => Some(key.clone()),
    };
    keys.iter().filter_map(told).collect::<Vec<_>>().join(", ")
}

/// Notes a run that is finished as it begins.
///
/// # Errors
/// [`FitError::File`] where the folder cannot be written.
pub fn write_run(run: &Path, config: &FitConfig, state: &State) -> Result<(), FitError> {
    std::fs::create_dir_all(run).map_err(|source| FileError { path: run.into(), source })?;
    write_json(&run.join(CONFIG), config)?;
    save_state(run, state)
}

/// Starts a run's folder, or reads where it stands.
pub(super) fn begin(run: &Path, config: &FitConfig) -> Result<State, FitError> {
    check_begun(run, config)?;
    let path = run.join(CONFIG);
    let before: Option<FitConfig> = if path.exists() { Some(read_json(&path)?) } else { None };
    let path = run.join(STATE);
    if path.exists() {
        let mut state: State = read_json(&path)?;
        if let Some(last) = state.epochs.last() {
            eprintln!("{}: going on after epoch {}", run.display(), last.epoch);
            let before = before.map(|before| before.study_sensitivity);
            if let Some(before) = before.filter(|before| *before != config.study_sensitivity) {
                state.first_sensitivity.get_or_insert(before);
                save_state(run, &state)?;
            }
        }
        write_json(&run.join(CONFIG), config)?;
        return Ok(state);
    }
    write_json(&run.join(CONFIG), config)?;
    let state = State { epochs: Vec::new(), best: None, nan: None, first_sensitivity: None, mean_of: Vec::new() };
    save_state(run, &state)?;
    Ok(state)
}

pub(super) fn save_state(run: &Path, state: &State) -> Result<(), FitError> {
    Ok(write_json(&run.join(STATE), state)?)
}
