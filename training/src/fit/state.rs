//! A run's folder: what it was begun with, and where it stands.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::config::{FitConfig, Schedule};
use super::error::FitError;
use crate::files::{read_json, write_json};

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
            return Err(FitError::OtherConfig { path: run.into() });
        }
    }
    Ok(())
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
    let state = State { epochs: Vec::new(), best: None, nan: None, first_sensitivity: None };
    save_state(run, &state)?;
    Ok(state)
}

pub(super) fn save_state(run: &Path, state: &State) -> Result<(), FitError> {
    Ok(write_json(&run.join(STATE), state)?)
}
