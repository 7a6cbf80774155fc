//! How to train where nothing else is asked for: as the study did, or as the shipped m10 was trained.

use crate::candidates::Candidate;
use crate::fit::{Monitor, Schedule};

/// Defaults of a training.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    pub epochs: usize,
    pub batch: usize,
    pub learning_rate: f64,
    pub schedule: Schedule,
    pub weight_decay: f64,
    pub position_grid: Option<usize>,
    pub half_size_epochs: usize,
    pub witness: f64,
    pub balance: Option<usize>,
    pub monitor: Monitor,
}

impl Recipe {
    /// The shipped m10's, for some dozens of patients: most weights on a position grid, most epochs at half size (a
    /// quarter of the time), classes balanced by drawing, and the last epoch kept, since validation sets are too small to
    /// choose by.
    pub const SHIPPED: Recipe = Recipe {
        epochs: 11,
        batch: 4,
        learning_rate: 5e-4,
        schedule: Schedule::OneCycle,
        weight_decay: 0.01,
        position_grid: Some(5),
        half_size_epochs: 9,
        witness: 1.0,
        balance: Some(4000),
        monitor: Monitor::Last,
    };

    /// The study's for a candidate: Adam at 1e-3, every slice once an epoch with class weights, the epoch with the lowest
    /// validation loss kept.
    pub fn study(candidate: &Candidate) -> Self {
        Self {
            epochs: candidate.epochs,
            batch: candidate.batch,
            learning_rate: 1e-3,
            schedule: Schedule::Constant,
            weight_decay: 0.0,
            position_grid: None,
            half_size_epochs: 0,
            witness: 0.0,
            balance: None,
            monitor: Monitor::Loss,
        }
    }
}
