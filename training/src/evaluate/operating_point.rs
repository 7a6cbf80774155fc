//! The threshold of a study rule, among the scores of the studies that it is chosen on.
//!
//! With some twenty bleeding patients the threshold that flags just 95 of 100 of them hangs on one patient's score, and
//! on other patients it flags fewer as often as more. The alternative asks for both sensitivity and specificity, and takes
//! the threshold at which the most bootstrap samples of the patients have both: it lies within the gap
//! that both leave, away from its edges. Where the studies are so alike that hardly a sample has both at any threshold, there is no
//! such gap, and the middle of all thresholds would be shipped: the sensitivity alone decides then, and the card says so.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::metrics::{Case, Confusion};

/// Bootstrap samples of the patients, and their seed: a choice must repeat.
const SAMPLES: (usize, u64) = (1000, 1);

/// Below this share of the samples with both, both are out of reach: the best threshold is then one of a few samples of a thousand, so of
/// chance. So low, because the wish itself may be a high one: of m12's four folds, with 0.95 and 0.75 asked for, some have one sample in
/// a hundred with both and others one in three, and where there is any peak the threshold at it is nearer to both than another. What share it
/// is stands in the card.
const HOPELESS: f64 = 0.005;

/// What a study rule's threshold does of the studies that it was chosen on, where both sensitivity and specificity were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Reached {
    /// The share of the bootstrap samples of the patients that have both: at the threshold, or where that is by the sensitivity
    /// alone at the best of all thresholds.
    pub samples_with_both: f64,
    /// Whether both were out of reach, so that the sensitivity alone decided.
    pub by_sensitivity_alone: bool,
    /// At the threshold, of the very studies that it was chosen on.
    pub sensitivity: f64,
    pub specificity: f64,
}

impl Reached {
    /// For people.
    pub fn text(&self) -> String {
        let Self { samples_with_both, sensitivity, specificity, by_sensitivity_alone } = self;
        let share = 100.0 * samples_with_both;
        let how = match by_sensitivity_alone {
            true => format!(
                "**Both were out of reach: at no threshold more than {share:.1} % of the bootstrap samples have them, so the threshold \
                 is by the sensitivity alone.**"
            ),
            false => format!("At the threshold {share:.1} % of the bootstrap samples have both."),
        };
        format!(
            "{how} Of the very studies that it was chosen on it has a sensitivity of {sensitivity:.3} and a specificity of {specificity:.3}."
        )
    }
}

/// A threshold, and what it reaches where both shares were asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Chosen {
    pub threshold: f64,
    pub reached: Option<Reached>,
}

/// How a study rule and its threshold are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choosing {
    /// The share of the studies with hemorrhage that is to be flagged, where the point asks for nothing else.
    pub sensitivity: f64,
    pub point: OperatingPoint,
}

impl From<f64> for Choosing {
    /// By the share of the studies with hemorrhage alone.
    fn from(sensitivity: f64) -> Self {
        Self { sensitivity, point: OperatingPoint::Sensitivity }
    }
}

impl Choosing {
    /// The threshold for these patients' studies. None where they lack a class that it needs.
    pub fn threshold(&self, patients: &[Vec<Case>]) -> Option<f64> {
        self.chosen(patients).map(|chosen| chosen.threshold)
    }

    /// As [`Choosing::threshold`], with what it reaches.
    pub fn chosen(&self, patients: &[Vec<Case>]) -> Option<Chosen> {
        match self.point {
            OperatingPoint::Sensitivity => {
                Some(Chosen { threshold: share(&patients.concat(), self.sensitivity)?, reached: None })
            }
            OperatingPoint::Both { sensitivity, specificity } => both(patients, sensitivity, specificity),
        }
    }

    /// For people: what the threshold does of the studies that it is chosen on.
    pub fn text(&self) -> String {
        match self.point {
            OperatingPoint::Sensitivity => format!(
                "study rule's threshold flags at least {:.0} % of the studies with hemorrhage",
                100.0 * self.sensitivity
            ),
            OperatingPoint::Both { sensitivity, specificity } => format!(
                "study rule's threshold is that at which the most bootstrap samples of the patients have a sensitivity of at \
                 least {sensitivity} and a specificity of at least {specificity}"
            ),
        }
    }
}

/// How a study rule's threshold is chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum OperatingPoint {
    /// The highest threshold that flags the share of the studies with hemorrhage that the recipe asks for.
    #[default]
    Sensitivity,
    /// The threshold at which the most bootstrap samples of the patients have at least this sensitivity and this
    /// specificity.
    Both { sensitivity: f64, specificity: f64 },
}

impl OperatingPoint {
    /// Whether the shares lie above 0 and are at most 1.
    pub fn is_sound(&self) -> bool {
        match *self {
            OperatingPoint::Sensitivity => true,
            OperatingPoint::Both { sensitivity, specificity } => {
                [sensitivity, specificity].iter().all(|&share| share > 0.0 && share <= 1.0)
            }
        }
    }
}

/// The threshold at which the most bootstrap samples of `patients`, each with its studies' scores, have both. Of
/// thresholds that are equally good the middle one. Where hardly a sample has both, that of the sensitivity alone. None where there
/// are not both classes.
pub fn both(patients: &[Vec<Case>], sensitivity: f64, specificity: f64) -> Option<Chosen> {
    let mut scores: Vec<f64> = patients.iter().flatten().map(|case| case.score).collect();
    scores.sort_unstable_by(f64::total_cmp);
    scores.dedup();
    let lowest = scores.first().copied()?;
    // Between any two scores, and below the lowest.
    let mut thresholds = vec![lowest / 2.0];
    thresholds.extend(scores.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0));
    let mut good = vec![0u32; thresholds.len()];
    let (rounds, seed) = SAMPLES;
    let mut rng = StdRng::seed_from_u64(seed);
    let mut told = 0_u32;
    for _ in 0..rounds {
        let drawn = (0..patients.len()).flat_map(|_| &patients[rng.random_range(0..patients.len())]);
        let (mut positives, mut negatives): (Vec<f64>, Vec<f64>) = (Vec::new(), Vec::new());
        for case in drawn {
            if case.positive { positives.push(case.score) } else { negatives.push(case.score) }
        }
        if positives.is_empty() || negatives.is_empty() {
            continue;
        }
        told += 1;
        let above = |scores: &[f64], threshold: f64| scores.iter().filter(|&&score| score >= threshold).count() as f64;
        for (&threshold, good) in thresholds.iter().zip(&mut good) {
            let hits = above(&positives, threshold) / positives.len() as f64;
            let passed = 1.0 - above(&negatives, threshold) / negatives.len() as f64;
            *good += u32::from(hits >= sensitivity && passed >= specificity);
        }
    }
    if told == 0 {
        return None;
    }
    let most = good.iter().copied().max()?;
    let best: Vec<f64> =
        thresholds.iter().zip(&good).filter(|(_, good)| **good == most).map(|(&threshold, _)| threshold).collect();
    let samples_with_both = f64::from(most) / f64::from(told);
    let by_sensitivity_alone = samples_with_both < HOPELESS;
    let cases = patients.concat();
    let threshold = match by_sensitivity_alone {
        true => share(&cases, sensitivity)?,
        // A rule's threshold must be above 0.
        false => best[best.len() / 2].max(f64::MIN_POSITIVE),
    };
    let counts = Confusion::at(threshold, &cases);
    Some(Chosen {
        threshold,
        reached: Some(Reached {
            samples_with_both,
            by_sensitivity_alone,
            sensitivity: counts.sensitivity()?,
            specificity: counts.specificity()?,
        }),
    })
}

/// The highest threshold that flags the `wanted` share of the positives, moved halfway down to the next score so
/// that it does not lie on a case. None without a positive.
fn share(cases: &[Case], wanted: f64) -> Option<f64> {
    let mut positives: Vec<f64> = cases.iter().filter(|case| case.positive).map(|case| case.score).collect();
    positives.sort_unstable_by(|a, b| b.total_cmp(a));
    // A product that is a whole number must not be rounded up for its last bit.
    let needed = (wanted * positives.len() as f64 - 1e-9).ceil() as usize;
    let lowest = *positives.get(needed.checked_sub(1)?)?;
    let next = cases.iter().map(|case| case.score).filter(|score| *score < lowest).fold(0.0, f64::max);
    // A rule's threshold must be above 0 ([`StudyRule::check`]).
    Some(((lowest + next) / 2.0).max(f64::MIN_POSITIVE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threshold_reaches_the_wanted_sensitivity_with_the_fewest_false_alarms() {
        let cases: Vec<Case> = (0..100).map(|i| Case { score: f64::from(i) / 100.0, positive: i % 5 == 0 }).collect();
        let found = share(&cases, 0.9).expect("positives");
        // 18 of 20 positives: all but 0.00 and 0.05. The next score below 0.10 is 0.09.
        assert!((found - 0.095).abs() < 1e-9, "{found}");
        // 19 of 20, for all that 0.95 is not in two's powers; and all of them.
        for (wanted, expected) in [(0.95, 0.045), (1.0, f64::MIN_POSITIVE)] {
            let found = share(&cases, wanted).expect("positives");
            assert!((found - expected).abs() < 1e-9, "{wanted}: {found}");
        }
    }

    fn patients(scores: &[(f64, bool)]) -> Vec<Vec<Case>> {
        scores.iter().map(|&(score, positive)| vec![Case { score, positive }]).collect()
    }

    #[test]
    fn the_threshold_lies_in_the_gap_and_not_at_its_edge() {
        // Negatives from 0.01 to 0.20, positives from 0.60 to 0.79.
        let negatives = (1..=20).map(|i| (f64::from(i) / 100.0, false));
        let positives = (0..20).map(|i| (0.6 + f64::from(i) / 100.0, true));
        let apart = patients(&negatives.chain(positives).collect::<Vec<_>>());
        let chosen = both(&apart, 0.95, 0.95).expect("both classes");
        assert_eq!(chosen.threshold, (0.2 + 0.6) / 2.0);
        let reached = chosen.reached.expect("both were asked for");
        assert_eq!((reached.samples_with_both, reached.by_sensitivity_alone), (1.0, false));
        assert_eq!((reached.sensitivity, reached.specificity), (1.0, 1.0));
    }

    #[test]
    fn a_single_patient_does_not_carry_it_away() {
        // One positive scores as the lowest negatives do: at 0.95 of 20 the edge would be the next one, at 0.6.
        let negatives = (1..=20).map(|i| (f64::from(i) / 100.0, false));
        let positives = (0..19).map(|i| (0.6 + f64::from(i) / 100.0, true)).chain([(0.005, true)]);
        let found = both(&patients(&negatives.chain(positives).collect::<Vec<_>>()), 0.9, 0.8).expect("both classes");
        let found = found.threshold;
        assert!(found > 0.15 && found < 0.6, "{found}");
    }

    #[test]
    fn where_both_are_out_of_reach_the_sensitivity_alone_decides_and_says_so() {
        // Upside down: who bleeds scores lowest.
        let negatives = (1..=20).map(|i| (0.6 + f64::from(i) / 100.0, false));
        let positives = (1..=20).map(|i| (f64::from(i) / 100.0, true));
        let cases: Vec<(f64, bool)> = negatives.chain(positives).collect();
        let found = both(&patients(&cases), 0.9, 0.9).expect("both classes");
        let reached = found.reached.expect("both were asked for");
        assert!(reached.by_sensitivity_alone && reached.samples_with_both < HOPELESS, "{reached:?}");
        assert_eq!((reached.sensitivity, reached.specificity), (0.9, 0.0));
        assert_eq!(Some(found.threshold), share(&patients(&cases).concat(), 0.9));
        assert!(reached.text().contains("out of reach"), "{}", reached.text());
    }

    #[test]
    fn one_class_has_no_threshold() {
        assert_eq!(both(&patients(&[(0.5, true), (0.6, true)]), 0.9, 0.8), None);
        assert_eq!(both(&[], 0.9, 0.8), None);
    }
}
