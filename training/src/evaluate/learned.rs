//! A study score by logistic regression over its highest slice scores; compared with the rules, never shipped.

use super::study::Study;
use crate::logistic;
use crate::metrics::Case;

/// How many of a study's scores are read, highest first.
pub(super) const SCORES: usize = 8;
/// Keeps the weights small.
const RIDGE: f64 = 1.0;

/// Logistic regression over a study's highest scores.
pub(super) struct Learned {
    /// Mean and deviation of each feature, to bring them to one scale.
    means: Vec<f64>,
    deviations: Vec<f64>,
    weights: Vec<f64>,
}

impl Learned {
    pub(super) fn fit(studies: &[Study]) -> Option<Self> {
        let rows: Vec<Vec<f64>> = studies.iter().map(highest).collect();
        let count = rows.len() as f64;
        let mean = |i: usize| rows.iter().map(|row| row[i]).sum::<f64>() / count;
        let means: Vec<f64> = (0..SCORES).map(mean).collect();
        let deviation = |i: usize| (rows.iter().map(|row| (row[i] - means[i]).powi(2)).sum::<f64>() / count).sqrt();
        let deviations = (0..SCORES).map(|i| deviation(i).max(1e-9)).collect();
        let learned = Self { means, deviations, weights: Vec::new() };
        let scaled: Vec<Vec<f64>> = rows.iter().map(|row| learned.scaled(row)).collect();
        let targets: Vec<f64> = studies.iter().map(|study| f64::from(u8::from(study.is_positive()))).collect();
        Some(Self { weights: logistic::fit(&scaled, &targets, RIDGE)?, ..learned })
    }

    fn scaled(&self, row: &[f64]) -> Vec<f64> {
        (0..SCORES).map(|i| (row[i] - self.means[i]) / self.deviations[i]).collect()
    }

    pub(super) fn case(&self, study: &Study) -> Case {
        let logit = logistic::linear(&self.scaled(&highest(study)), &self.weights);
        Case { score: logistic::sigmoid(logit), positive: study.is_positive() }
    }
}

/// The highest scores, highest first; 0 where there are no more.
fn highest(study: &Study) -> Vec<f64> {
    let mut scores: Vec<f64> = study.slices.iter().map(|case| case.score).collect();
    scores.sort_unstable_by(|a, b| b.total_cmp(a));
    scores.resize(SCORES, 0.0);
    scores
}
