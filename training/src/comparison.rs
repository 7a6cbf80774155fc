//! How a copy of a model in another precision stands to the model, on slices of one folder.

use serde::{Deserialize, Serialize};

use crate::metrics::Interval;

/// The copy's answers beside the original's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The folder's name, as `about.data` of a card names sources.
    pub source: String,
    pub slices: usize,
    pub positive: usize,
    pub patients: usize,
    /// Whether the model was trained on slices of that folder: on such it is better than on others, and so is its copy.
    #[serde(default)]
    pub was_trained_on: bool,
    /// The original's.
    pub float_slice_auc: f64,
    /// The copy's less the original's, on the same slices; with a 95 % interval, bootstrap over patients.
    pub slice_auc_difference: Interval,
    /// The difference of probabilities.
    pub largest_difference: f64,
    pub mean_difference: f64,
    /// Slices whose answer at the slice threshold is another one.
    pub answers_changed: usize,
}

impl Comparison {
    /// For people, from "On the" on.
    pub fn text(&self) -> String {
        let Interval { value, low, high, .. } = self.slice_auc_difference;
        format!(
            "On the {} slices of {} ({} with hemorrhage, {} patients{}) the original's slice AUC is {:.4}, the \
             copy's differs by {value:+.5} ({low:+.5} to {high:+.5}); probabilities differ by {:.4} at most and by {:.5} in the mean, and {} \
             slices are answered otherwise.",
            self.slices,
            self.source,
            self.positive,
            self.patients,
            if self.was_trained_on { "; the model was trained on that folder" } else { "" },
            self.float_slice_auc,
            self.largest_difference,
            self.mean_difference,
            self.answers_changed,
        )
    }
}
