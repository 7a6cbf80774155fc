//! The study rule to ship, chosen among those that a card may name.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use triaged_model::StudyRule;

use super::operating_point::{Choosing, Chosen, OperatingPoint, Reached};
use super::study::{Study, by_patient, of_patients};
use crate::metrics::{Case, auc};

/// Bootstrap samples behind the noise of a difference of two rules, and their seed: a choice must repeat.
const NOISE: (usize, u64) = (500, 1);

/// The rules that a card may name, the simplest first. Their thresholds are to be chosen.
pub(super) fn shippable() -> impl Iterator<Item = StudyRule> {
    let threshold = 0.5;
    let highest = std::iter::once(StudyRule::TopKMean { k: 1, threshold });
    let kth = [2, 3, 4, 5].into_iter().map(move |k| StudyRule::KthHighest { k, threshold });
    let mean = [2, 3, 4, 5, 6, 8].into_iter().map(move |k| StudyRule::TopKMean { k, threshold });
    highest.chain(kth).chain(mean).chain([StudyRule::NoisyOr { threshold }])
}

/// The rules to choose among: where both sensitivity and specificity are asked for, means over several slices, which the
/// noise of one does not carry away, the middle of them first.
pub(super) fn candidates(point: OperatingPoint) -> Vec<StudyRule> {
    match point {
        OperatingPoint::Both { .. } => [3, 4, 2, 6, 1].map(|k| StudyRule::TopKMean { k, threshold: 0.5 }).into(),
        OperatingPoint::Sensitivity => shippable().collect(),
    }
}

/// The rule to ship, with its threshold and what that reaches, by the scores of validation studies. None where they lack a class.
///
/// Chooses the first of the rules whose area under the ROC curve lies within noise of the best one's. Within noise is a
/// difference of at most one standard error, which is taken from bootstrap samples of the patients, both rules on the
/// same ones.
pub fn choose(studies: &[Study], choosing: impl Into<Choosing>) -> Option<(StudyRule, Option<Reached>)> {
    let choosing = choosing.into();
    let rules = candidates(choosing.point);
    let scored: Vec<Vec<Case>> =
        rules.iter().map(|rule| studies.iter().map(|study| study.case(rule)).collect()).collect();
    let areas = scored.iter().map(|cases| auc(cases)).collect::<Option<Vec<f64>>>()?;
    // The first of equal ones.
    let best = (0..rules.len()).reduce(|best, rule| if areas[rule] > areas[best] { rule } else { best })?;
    let patients = by_patient(studies);
    let noise = noise(&patients, &scored, best);
    let chosen = (0..rules.len()).find(|&rule| areas[best] - areas[rule] <= noise[rule])?;
    let Chosen { threshold, reached } = choosing.chosen(&of_patients(&patients, &scored[chosen]))?;
    Some((rules[chosen].with_threshold(threshold), reached))
}

/// The standard error, for each rule, of its area's difference to the best one's, over the studies of `patients`.
fn noise(patients: &[Vec<usize>], scored: &[Vec<Case>], best: usize) -> Vec<f64> {
    let (rounds, seed) = NOISE;
    let mut rng = StdRng::seed_from_u64(seed);
    let mut differences: Vec<Vec<f64>> = vec![Vec::new(); scored.len()];
    for _ in 0..rounds {
        let drawn: Vec<usize> =
            (0..patients.len()).flat_map(|_| &patients[rng.random_range(0..patients.len())]).copied().collect();
        let area = |cases: &[Case]| auc(&drawn.iter().map(|&i| cases[i]).collect::<Vec<Case>>());
        // A sample of one class says nothing of an area.
        let Some(of_best) = area(&scored[best]) else { continue };
        for (cases, differences) in scored.iter().zip(&mut differences) {
            differences.extend(area(cases).map(|area| of_best - area));
        }
    }
    let deviation = |values: &Vec<f64>| {
        let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        (squares / (values.len() as f64 - 1.0).max(1.0)).sqrt()
    };
    differences.iter().map(deviation).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::tests::studies;

    #[test]
    fn the_simplest_rule_within_noise_is_chosen() {
        // Every rule orders these alike: the highest slice is the simplest.
        let clear: Vec<(bool, &[f64])> = vec![(true, &[0.9, 0.8, 0.7]), (false, &[0.2, 0.1, 0.1])];
        let (chosen, _) = choose(&studies(&clear.repeat(6)), 0.9).expect("both classes");
        assert!(matches!(chosen, StudyRule::TopKMean { k: 1, .. }), "{chosen:?}");
        // Half of the healthy have one slice above all others: only a rule over several slices tells.
        let noisy: Vec<(bool, &[f64])> = vec![
            (true, &[0.7, 0.6, 0.6]),
            (false, &[0.95, 0.1, 0.1]),
            (true, &[0.8, 0.7, 0.6]),
            (false, &[0.2, 0.1, 0.0]),
        ];
        let (chosen, _) = choose(&studies(&noisy.repeat(6)), 0.9).expect("both classes");
        assert!(matches!(chosen, StudyRule::KthHighest { k: 2, .. }), "{chosen:?}");
        assert!((chosen.threshold() - 0.35).abs() < 1e-9, "{chosen:?}");
        assert_eq!(choose(&studies(&[(true, &[0.5])]), 0.9), None);
    }
}
