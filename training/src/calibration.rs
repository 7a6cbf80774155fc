//! Probabilities that mean what they say: Platt scaling, and how well scores agree with what is seen.
//!
//! A network that was trained on balanced draws, or too long on few patients, says 0.9 where 3 of 10 slices have
//! hemorrhage. Platt scaling (J. Platt: Probabilistic Outputs for Support Vector Machines, 1999) puts a·logit + b in the
//! logit's place, fitted on validation slices. It is monotone: no order, no ROC curve changes. [`Platt::folded`] writes
//! it into the network's output unit, so that a runtime needs to know nothing of it.

use burn::module::Param;
use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};

use crate::logistic::{self, sigmoid};
use crate::metrics::Case;
use crate::network::Network;

/// Bins of equal width that the expected calibration error is taken over.
const BINS: usize = 10;

/// Platt scaling: the calibrated probability is sigmoid(`a` · logit + `b`), with `a` above 0.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Platt {
    pub a: f64,
    pub b: f64,
}

impl Platt {
    /// With the highest likelihood of the labels, these as Platt has them: (n₊ + 1)/(n₊ + 2) for positives and
    /// 1/(n₋ + 2) for negatives, which keeps `a` finite where scores separate the classes. None with one class only, or
    /// where a higher score does not make hemorrhage likelier.
    pub fn fit(cases: &[Case]) -> Option<Self> {
        let positives = cases.iter().filter(|case| case.positive).count() as f64;
        let negatives = cases.len() as f64 - positives;
        if positives == 0.0 || negatives == 0.0 {
            return None;
        }
        let rows: Vec<Vec<f64>> = cases.iter().map(|case| vec![logit(case.score)]).collect();
        let target =
            |case: &Case| if case.positive { (positives + 1.0) / (positives + 2.0) } else { 1.0 / (negatives + 2.0) };
        let targets: Vec<f64> = cases.iter().map(target).collect();
        let weights = logistic::fit(&rows, &targets, 0.0)?;
        (weights[0] > 0.0).then(|| Self { a: weights[0], b: weights[1] })
    }

    /// The calibrated probability.
    pub fn apply(&self, probability: f64) -> f64 {
        sigmoid(self.a * logit(probability) + self.b)
    }

    /// The network whose probabilities are calibrated: its output unit's weights times `a`, its bias times `a` plus `b`.
    pub fn folded<B: Backend>(&self, mut network: Network<B>) -> Network<B> {
        let output = network.denses.last_mut().expect("every network has an output unit");
        output.weight = Param::from_tensor(output.weight.val() * self.a);
        output.bias = Param::from_tensor(output.bias.val() * self.a + self.b);
        network
    }
}

/// The logit of a probability, finite.
pub fn logit(probability: f64) -> f64 {
    let within = probability.clamp(f64::MIN_POSITIVE, 1.0 - f64::EPSILON / 2.0);
    (within / (1.0 - within)).ln()
}

/// How scores agree with labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reliability {
    /// Mean squared difference of score and label: 0 is perfect, and a constant score of the share of positives has that
    /// share times one less it.
    pub brier: f64,
    /// Expected calibration error: over ten bins of equal width, the mean difference of score and share of positives.
    pub ece: f64,
    /// The bins with cases.
    pub bins: Vec<Bin>,
}

/// The cases whose scores lie in one bin.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    pub cases: usize,
    pub positives: usize,
    pub mean_score: f64,
}

impl Bin {
    /// The share of the cases that are positive.
    pub fn share(&self) -> f64 {
        self.positives as f64 / self.cases as f64
    }
}

impl Reliability {
    /// The calibration of scores from 0 to 1; none where there are no scores.
    pub fn of(cases: &[Case]) -> Option<Self> {
        let mut bins = [(0usize, 0usize, 0.0); BINS];
        for case in cases {
            let (count, positives, sum) = &mut bins[((case.score * BINS as f64) as usize).min(BINS - 1)];
            *count += 1;
            *positives += usize::from(case.positive);
            *sum += case.score;
        }
        let bins: Vec<Bin> = bins
            .into_iter()
            .filter(|(cases, ..)| *cases > 0)
            .map(|(cases, positives, sum)| Bin { cases, positives, mean_score: sum / cases as f64 })
            .collect();
        let all = cases.len() as f64;
        let label = |case: &Case| f64::from(u8::from(case.positive));
        (!cases.is_empty()).then(|| Self {
            brier: cases.iter().map(|case| (case.score - label(case)).powi(2)).sum::<f64>() / all,
            ece: bins.iter().map(|bin| (bin.mean_score - bin.share()).abs() * bin.cases as f64 / all).sum(),
            bins,
        })
    }
}

/// How slices' scores agree with labels as the network gives them, and calibrated, on patients by whom they were not
/// calibrated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibrated {
    pub before: Reliability,
    pub after: Reliability,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::candidates::candidate;
    use burn::backend::flex::Flex;
    use burn::tensor::{Tensor, TensorData, activation};

    /// Cases of which at each score the share that a known scaling of it says is positive: an overconfident network's.
    fn overconfident(known: Platt) -> Vec<Case> {
        (1..100)
            .flat_map(|step| {
                let score = f64::from(step) / 100.0;
                let positives = (1000.0 * known.apply(score)).round() as usize;
                (0..1000).map(move |i| Case { score, positive: i < positives })
            })
            .collect()
    }

    #[test]
    fn a_known_scaling_is_found_again_and_makes_scores_reliable() {
        let known = Platt { a: 0.4, b: -1.3 };
        let cases = overconfident(known);
        let found = Platt::fit(&cases).expect("both classes");
        assert!((found.a - known.a).abs() < 0.01 && (found.b - known.b).abs() < 0.01, "{found:?}");
        let calibrated: Vec<Case> = cases.iter().map(|case| Case { score: found.apply(case.score), ..*case }).collect();
        let (before, after) = (Reliability::of(&cases).expect("cases"), Reliability::of(&calibrated).expect("cases"));
        assert!(before.ece > 0.1 && after.ece < 0.01, "{} and {}", before.ece, after.ece);
        assert!(after.brier < before.brier);
    }

    #[test]
    fn scores_keep_their_order() {
        let platt = Platt { a: 0.3, b: 2.0 };
        let scores = [0.0, 1e-300, 1e-9, 0.2, 0.7, 1.0 - 1e-9, 1.0];
        let calibrated = scores.map(|score| platt.apply(score));
        assert!(calibrated.windows(2).all(|pair| pair[0] < pair[1]), "{calibrated:?}");
        assert!(calibrated.iter().all(|score| (0.0..=1.0).contains(score)));
    }

    #[test]
    fn what_cannot_be_calibrated_is_not() {
        let case = |score, positive| Case { score, positive };
        assert_eq!(Platt::fit(&[]), None);
        assert_eq!(Platt::fit(&[case(0.2, true), case(0.3, true)]), None);
        // Worse than chance: a falling scaling would turn the network round.
        let backwards: Vec<Case> = (0..100).map(|i| case(f64::from(i) / 100.0, i < 30)).collect();
        assert_eq!(Platt::fit(&backwards), None);
        // Scores that separate the classes have a scaling all the same.
        let separate: Vec<Case> = (0..100).map(|i| case(f64::from(i) / 100.0, i >= 70)).collect();
        assert!(Platt::fit(&separate).is_some_and(|platt| platt.a.is_finite() && platt.a > 1.0));
    }

    #[test]
    fn brier_and_calibration_error_are_as_computed_by_hand() {
        let case = |score, positive| Case { score, positive };
        // Two bins: 0.1 and 0.15 without, 0.85 with; 0.82 without.
        let cases = [case(0.11, false), case(0.15, false), case(0.85, true), case(0.82, false)];
        let found = Reliability::of(&cases).expect("cases");
        let brier = (0.11f64.powi(2) + 0.15f64.powi(2) + 0.15f64.powi(2) + 0.82f64.powi(2)) / 4.0;
        assert!((found.brier - brier).abs() < 1e-12);
        assert_eq!(found.bins.len(), 2);
        assert_eq!((found.bins[1].cases, found.bins[1].positives, found.bins[1].share()), (2, 1, 0.5));
        let ece = 0.5 * 0.13 + 0.5 * (0.835 - 0.5);
        assert!((found.ece - ece).abs() < 1e-12, "{}", found.ece);
    }

    #[test]
    fn the_folded_network_says_the_calibrated_scores() {
        let device = Default::default();
        let layers = candidate("m10").expect("m10").layers;
        let network = Network::<Flex>::new(&layers, [1, 64, 64], 3, &device).expect("a network");
        let images: Vec<f32> = (0..5 * 64 * 64).map(|i| ((i * 7919) % 1009) as f32 / 1009.0).collect();
        let images = Tensor::<Flex, 4>::from_data(TensorData::new(images, [5, 1, 64, 64]), &device);
        let say = |network: &Network<Flex>| -> Vec<f64> {
            activation::sigmoid(network.forward(images.clone())).into_data().convert::<f64>().iter::<f64>().collect()
        };
        let platt = Platt { a: 2.5, b: -0.8 };
        let (before, after) = (say(&network), say(&platt.folded(network.clone())));
        for (before, after) in before.iter().zip(after) {
            assert!((platt.apply(*before) - after).abs() < 1e-6, "{before} became {after}");
            assert!((before - after).abs() > 0.01, "a scaling that changes something");
        }
    }
}
