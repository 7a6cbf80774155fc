//! What an epoch shows of the training slices.

use super::config::FitConfig;
use super::error::FitError;
use super::predict::draw;
use crate::data::{Draw, Slice, balanced, epoch_seed, levelled, plain};

/// How the slices of a training are drawn.
pub struct Draws {
    labels: Vec<bool>,
    /// Of each slice: how often it is drawn beside others of its class.
    shares: Vec<f64>,
}

impl Draws {
    /// # Errors
    /// [`FitError::OneClass`] where no slice of a class can be drawn.
    pub fn new(config: &FitConfig, train: &[&Slice]) -> Result<Self, FitError> {
        let labels: Vec<bool> = train.iter().map(|slice| slice.positive).collect();
        let drawn = |class: bool| train.iter().any(|slice| slice.positive == class && config.weight(slice) > 0.0);
        if !(drawn(true) && drawn(false)) {
            return Err(FitError::OneClass("training"));
        }
        let shares: Vec<f64> = train.iter().map(|slice| config.weight(slice)).collect();
        let shares = if config.level_sources { levelled(train, &shares) } else { shares };
        Ok(Self { labels, shares })
    }

    /// Which slices are positive.
    pub fn labels(&self) -> &[bool] {
        &self.labels
    }

    /// The draws of an epoch: so many, half of them positive, or every slice once.
    pub fn of_epoch(&self, config: &FitConfig, train: &[&Slice], epoch: usize, balance: Option<usize>) -> Vec<Draw> {
        let seed = |place| epoch_seed(config.seed, epoch, place);
        let order = match balance {
            Some(size) => balanced(&self.labels, &self.shares, size, seed(0)),
            None => plain(&self.labels, seed(0)),
        };
        let draw = |(place, i): (usize, usize)| {
            let draw = draw(train[i], Some((config.augment, seed(place + 1))));
            // Only localization has a use for masks.
            Draw { mask: train[i].mask.clone().filter(|_| config.localization > 0.0), ..draw }
        };
        order.into_iter().enumerate().map(draw).collect()
    }
}
