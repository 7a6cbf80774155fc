//! Figures of a binary classifier.
//!
//! F2 = 5·P·R / (4·P + R) with precision P and sensitivity R. What the m10 study's table calls "specificity" is
//! precision: every one of its rows satisfies this formula with it. Here each word has its usual meaning.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::exact;

/// F2 of a precision and a sensitivity; 0 where both are 0.
pub fn f2(precision: f64, sensitivity: f64) -> f64 {
    ratio(5.0 * precision * sensitivity, 4.0 * precision + sensitivity)
}

fn ratio(part: f64, whole: f64) -> f64 {
    if whole == 0.0 { 0.0 } else { part / whole }
}

/// Counts of right and wrong answers. Sensitivity needs a positive and specificity a negative; other figures whose
/// denominator is empty are 0: precision and F2 where nothing is flagged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion {
    pub tn: u64,
    pub fp: u64,
    pub fn_: u64,
    pub tp: u64,
}

impl Confusion {
    /// Counts scores against labels: positive where the score is at least the threshold.
    pub fn at(threshold: f64, cases: &[Case]) -> Self {
        let mut counts = Self::default();
        for case in cases {
            match (case.positive, case.score >= threshold) {
                (false, false) => counts.tn += 1,
                (false, true) => counts.fp += 1,
                (true, false) => counts.fn_ += 1,
                (true, true) => counts.tp += 1,
            }
        }
        counts
    }

    pub fn accuracy(&self) -> f64 {
        ratio((self.tn + self.tp) as f64, (self.tn + self.fp + self.fn_ + self.tp) as f64)
    }

    /// None without a positive.
    pub fn sensitivity(&self) -> Option<f64> {
        let positives = self.tp + self.fn_;
        (positives > 0).then(|| self.tp as f64 / positives as f64)
    }

    /// None without a negative.
    pub fn specificity(&self) -> Option<f64> {
        let negatives = self.tn + self.fp;
        (negatives > 0).then(|| self.tn as f64 / negatives as f64)
    }

    pub fn precision(&self) -> f64 {
        ratio(self.tp as f64, (self.tp + self.fp) as f64)
    }

    pub fn f2(&self) -> f64 {
        f2(self.precision(), self.sensitivity().unwrap_or(0.0))
    }
}

/// A scored slice or study with its label.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Case {
    pub score: f64,
    pub positive: bool,
}

/// Cases that score 1 where they are flagged by a threshold, and 0 where not.
pub fn answers(cases: &[Case], threshold: f64) -> Vec<Case> {
    cases.iter().map(|case| Case { score: f64::from(u8::from(case.score >= threshold)), ..*case }).collect()
}

/// Area under the ROC curve: the chance that a positive scores above a negative, ties counting half. None with one
/// class only.
pub fn auc(cases: &[Case]) -> Option<f64> {
    let mut sorted: Vec<&Case> = cases.iter().collect();
    sorted.sort_unstable_by(|a, b| a.score.total_cmp(&b.score));
    let positives = cases.iter().filter(|case| case.positive).count() as f64;
    let negatives = cases.len() as f64 - positives;
    if positives == 0.0 || negatives == 0.0 {
        return None;
    }
    let mut below = 0.0;
    let mut area = 0.0;
    for tied in sorted.chunk_by(|a, b| a.score == b.score) {
        let positive = tied.iter().filter(|case| case.positive).count() as f64;
        let negative = tied.len() as f64 - positive;
        area += positive * (below + negative / 2.0);
        below += negative;
    }
    Some(area / (positives * negatives))
}

/// The threshold with the highest F2, halfway between the two scores it separates, and that F2. None without a
/// positive. Of equal ones the highest, which flags least.
pub fn best_f2_threshold(cases: &[Case]) -> Option<(f64, f64)> {
    let positives = cases.iter().filter(|case| case.positive).count() as f64;
    if positives == 0.0 {
        return None;
    }
    let mut sorted: Vec<&Case> = cases.iter().collect();
    sorted.sort_unstable_by(|a, b| b.score.total_cmp(&a.score));
    let (mut flagged, mut hits) = (0.0, 0.0);
    let mut best: Option<(f64, f64)> = None;
    let groups: Vec<&[&Case]> = sorted.chunk_by(|a, b| a.score == b.score).collect();
    for (i, group) in groups.iter().enumerate() {
        flagged += group.len() as f64;
        hits += group.iter().filter(|case| case.positive).count() as f64;
        let here = f2(hits / flagged, hits / positives);
        if best.is_none_or(|(_, f2)| here > f2) {
            let lowest = group[0].score;
            let next = groups.get(i + 1).map_or(0.0, |group| group[0].score);
            best = Some(((lowest + next) / 2.0, here));
        }
    }
    best
}

/// A figure with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

impl Interval {
    /// The percentile interval of bootstrap samples; of none, the value alone.
    pub(crate) fn of(value: f64, mut samples: Vec<f64>) -> Self {
        samples.sort_unstable_by(f64::total_cmp);
        let at = |q: f64| samples.get((q * (samples.len() as f64 - 1.0)).round() as usize).copied().unwrap_or(value);
        Self { value, low: at(0.025), high: at(0.975) }
    }

    /// The share `hits` of `all` with exact 95 % limits. None of nothing.
    pub fn of_count(hits: usize, all: usize) -> Option<Self> {
        exact::limits(hits, all).map(|[low, high]| Self { value: hits as f64 / all as f64, low, high })
    }

    /// Widens the interval of a share among so many patients to the exact limits, as if each patient were one case and the share
    /// of them the same. Patients are what was drawn at random, and their slices stand or fall together, so that this is the fewest cases that
    /// the share can be of: with slices that say more it is too wide, and never too narrow. A bootstrap alone knows no other share than
    /// those that it can draw: of one patient it says "0.500 (0.500 to 0.500)". A count between two whole numbers has the lower limit of the one
    /// and the upper of the other.
    pub(crate) fn widened(self, patients: usize) -> Self {
        let hits = self.value * patients as f64;
        // A product that is a whole number must not be rounded past it for its last bit.
        let (below, above) = ((hits + 1e-9).floor() as usize, (hits - 1e-9).ceil() as usize);
        match (Self::of_count(below.min(patients), patients), Self::of_count(above.min(patients), patients)) {
            (Some(below), Some(above)) => {
                Self { low: self.low.min(below.low), high: self.high.max(above.high), ..self }
            }
            _ => self,
        }
    }

    /// An area under the curve of 1, or of 0, among so many patients of the smaller class: bootstrap samples hold no other. The area is the
    /// share of pairs in order, and as many pairs as the smaller class has patients can be made of which no two share one. Those are
    /// independent cases, all of them in order, whose exact limit holds (as for any share of none: J. A. Hanley, A. Lippman-Hand:
    /// If Nothing Goes Wrong, Is Everything All Right? JAMA 249, 1983). Other areas stay.
    fn of_pairs(self, patients: usize) -> Self {
        if self.value == 1.0 || self.value == 0.0 { self.widened(patients) } else { self }
    }
}

/// The figures of one set of cases at one threshold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    pub cases: usize,
    pub positives: usize,
    pub confusion: Confusion,
    /// None without a positive.
    pub f2: Option<Interval>,
    pub accuracy: Interval,
    /// None without a positive.
    pub sensitivity: Option<Interval>,
    /// None without a negative.
    pub specificity: Option<Interval>,
    /// The figure that the study calls "specificity".
    pub precision: Interval,
    /// None with one class only.
    pub auc: Option<Interval>,
}

/// Figures over patients' cases, with percentile intervals from `rounds` bootstrap samples of whole patients: a
/// patient's slices stand or fall together. A sample in which a figure does not exist (AUC with one class,
/// sensitivity without a positive) is left out of that figure's interval. Shares, and what is 1 or 0, have the wider of that and the exact
/// limits with patients as cases (`Interval::widened`).
pub fn figures(patients: &[Vec<Case>], threshold: f64, rounds: usize, seed: u64) -> Figures {
    let verdicts: Vec<Vec<Case>> = patients.iter().map(|cases| answers(cases, threshold)).collect();
    judged_figures(patients, &verdicts, rounds, seed)
}

/// As [`figures`], of cases that were not all judged by one threshold: areas are over the patients' cases, counts over
/// the same patients' [`answers`].
pub fn judged_figures(patients: &[Vec<Case>], verdicts: &[Vec<Case>], rounds: usize, seed: u64) -> Figures {
    let all: Vec<Case> = patients.concat();
    let confusion = Confusion::at(0.5, &verdicts.concat());
    let point = values(&confusion, auc(&all));
    let mut samples: [Vec<f64>; 6] = Default::default();
    let mut rng = StdRng::seed_from_u64(seed);
    for _ in 0..rounds {
        let drawn: Vec<usize> = (0..patients.len()).map(|_| rng.random_range(0..patients.len())).collect();
        let of = |cases: &[Vec<Case>]| drawn.iter().flat_map(|&i| &cases[i]).copied().collect::<Vec<Case>>();
        let drawn = values(&Confusion::at(0.5, &of(verdicts)), auc(&of(patients)));
        for (samples, value) in samples.iter_mut().zip(drawn) {
            samples.extend(value);
        }
    }
    let mut intervals = point.into_iter().zip(samples).map(|(value, samples)| Some(Interval::of(value?, samples)));
    let mut next = || intervals.next().flatten();
    let always = "accuracy and precision always exist";
    let with = |class: bool| patients.iter().filter(|cases| cases.iter().any(|case| case.positive == class)).count();
    let (positive, negative) = (with(true), with(false));
    let flagged = verdicts.iter().filter(|cases| cases.iter().any(|case| case.score >= 0.5)).count();
    let f2 = next();
    let accuracy = next().expect(always).widened(patients.len());
    let sensitivity = next().map(|found| found.widened(positive));
    let specificity = next().map(|found| found.widened(negative));
    let precision = next().expect(always).widened(flagged);
    Figures {
        cases: all.len(),
        positives: all.iter().filter(|case| case.positive).count(),
        confusion,
        // Of a sensitivity and a precision of 1 no sample has another F2: that of their lower limits is the least that both may be.
        f2: f2.map(|f2| match sensitivity {
            Some(sensitivity) if f2.value == 1.0 => {
                Interval { low: f2.low.min(self::f2(precision.low, sensitivity.low)), ..f2 }
            }
            _ => f2,
        }),
        accuracy,
        sensitivity,
        specificity,
        precision,
        auc: next().map(|auc| auc.of_pairs(positive.min(negative))),
    }
}

/// How much larger the area under the first scores' ROC curve is than that under the second's, of patients' cases that
/// both have scored; the interval is 95 %, from `rounds` bootstrap samples of whole patients, both on the same ones. None
/// with one class only.
pub fn auc_difference(patients: &[Vec<(Case, Case)>], rounds: usize, seed: u64) -> Option<Interval> {
    let between = |drawn: &[&(Case, Case)]| {
        let (first, second): (Vec<Case>, Vec<Case>) = drawn.iter().copied().copied().unzip();
        Some(auc(&first)? - auc(&second)?)
    };
    let value = between(&patients.iter().flatten().collect::<Vec<_>>())?;
    let mut rng = StdRng::seed_from_u64(seed);
    let samples = (0..rounds).filter_map(|_| {
        let drawn: Vec<&(Case, Case)> =
            (0..patients.len()).flat_map(|_| &patients[rng.random_range(0..patients.len())]).collect();
        between(&drawn)
    });
    Some(Interval::of(value, samples.collect()))
}

fn values(counts: &Confusion, auc: Option<f64>) -> [Option<f64>; 6] {
    let (sensitivity, specificity) = (counts.sensitivity(), counts.specificity());
    let f2 = sensitivity.map(|_| counts.f2());
    [f2, Some(counts.accuracy()), sensitivity, specificity, Some(counts.precision()), auc]
}

/// Mean and standard deviation (of a sample) over the folds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MeanSd {
    pub mean: f64,
    pub sd: f64,
}

impl MeanSd {
    /// None of nothing; one value has deviation 0.
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        (!values.is_empty()).then(|| Self { mean, sd: (squares / (n - 1.0).max(1.0)).sqrt() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cases(of: &[(f64, bool)]) -> Vec<Case> {
        of.iter().map(|&(score, positive)| Case { score, positive }).collect()
    }

    #[test]
    fn auc_counts_pairs_in_order() {
        // 3 positives × 2 negatives: 0.9 beats both, 0.5 beats 0.2 and ties 0.5, 0.1 beats none: (2 + 1.5 + 0) / 6.
        let mixed = cases(&[(0.9, true), (0.5, true), (0.5, false), (0.2, false), (0.1, true)]);
        assert!((auc(&mixed).expect("two classes") - 3.5 / 6.0).abs() < 1e-12);
        assert_eq!(auc(&cases(&[(0.9, true)])), None);
    }

    #[test]
    fn the_best_threshold_is_best() {
        let mixed = cases(&[(0.9, true), (0.8, false), (0.6, true), (0.4, false), (0.3, false), (0.05, false)]);
        let (threshold, best) = best_f2_threshold(&mixed).expect("positives");
        assert_eq!(threshold, 0.5);
        assert_eq!(best, Confusion::at(threshold, &mixed).f2());
        for step in 0..=100 {
            assert!(Confusion::at(f64::from(step) / 100.0, &mixed).f2() <= best);
        }
        assert_eq!(best_f2_threshold(&cases(&[(0.5, false)])), None);
    }

    #[test]
    fn intervals_hold_the_value_and_repeat_with_the_seed() {
        let patients: Vec<Vec<Case>> = (0..20)
            .map(|p| cases(&[(f64::from(p) / 20.0, p % 3 == 0 || p > 15), (f64::from(p * 7 % 20) / 20.0, p > 12)]))
            .collect();
        let found = figures(&patients, 0.5, 300, 5);
        assert_eq!(found, figures(&patients, 0.5, 300, 5));
        assert_eq!(found.cases, 40);
        for interval in [found.f2, found.sensitivity, found.specificity, found.auc] {
            let interval = interval.expect("two classes");
            assert!(interval.low <= interval.value && interval.value <= interval.high, "{interval:?}");
            assert!(interval.low < interval.high, "{interval:?}");
        }
    }

    #[test]
    fn what_a_sample_says_nothing_of_is_left_out_and_not_0() {
        // One of four patients is positive, and a third of all samples lacks them; they and two others are told right.
        let patients: Vec<Vec<Case>> =
            [(0.9, true), (0.1, false), (0.2, false), (0.8, false)].map(|one| cases(&[one])).into();
        let found = figures(&patients, 0.5, 500, 3);
        let sensitivity = found.sensitivity.expect("a positive");
        assert_eq!((sensitivity.value, sensitivity.high), (1.0, 1.0));
        // One patient proves next to nothing: 0.025 is the exact limit of one of one.
        assert!((sensitivity.low - 0.025).abs() < 1e-9, "{sensitivity:?}");
        assert!(found.f2.is_some_and(|f2| f2.low > 0.0), "{:?}", found.f2);
        let negatives = figures(&patients[1..], 0.5, 500, 3);
        assert_eq!((negatives.f2, negatives.sensitivity, negatives.auc), (None, None, None));
        assert!(negatives.specificity.is_some_and(|specificity| (specificity.value - 2.0 / 3.0).abs() < 1e-12));
        assert_eq!(figures(&patients[..1], 0.5, 500, 3).specificity, None);
    }

    /// The fewer patients there are and the fewer of them were told wrong, the less an interval may narrow.
    #[test]
    fn few_patients_give_no_narrow_interval_at_any_value() {
        let of = |hits: usize, all: usize| {
            let patients: Vec<Vec<Case>> = (0..all)
                .flat_map(|i| [cases(&[(if i < hits { 0.9 } else { 0.1 }, true)]), cases(&[(0.2, false)])])
                .collect();
            figures(&patients, 0.5, 300, 1)
        };
        for (hits, all) in [(10, 10), (9, 10), (5, 10), (1, 10), (0, 10), (1, 1), (22, 23)] {
            let exact = Interval::of_count(hits, all).expect("some");
            let found = of(hits, all).sensitivity.expect("positives");
            assert!(found.low <= exact.low && found.high >= exact.high, "{hits} of {all}: {found:?}");
        }
        // One patient with two slices, one of them found.
        let half = figures(&[cases(&[(0.9, true), (0.1, true)])], 0.5, 100, 1).sensitivity.expect("positives");
        assert_eq!((half.value, half.low, half.high), (0.5, 0.0, 1.0));
        // All is right: exact limits of ten of ten for what is of a class, of twenty for the accuracy.
        let right = of(10, 10);
        let [ten, twenty] = [10, 20].map(|all| Interval::of_count(all, all).expect("some").low);
        let lows =
            [right.auc, right.f2, Some(right.precision), Some(right.accuracy)].map(|found| found.expect("both").low);
        for (low, expected) in lows.into_iter().zip([ten, ten, ten, twenty]) {
            assert!((low - expected).abs() < 1e-9, "{low} for {expected}");
        }
    }

    #[test]
    fn mean_and_deviation_are_those_of_a_sample() {
        let MeanSd { mean, sd } = MeanSd::of(&[1.0, 2.0, 3.0, 4.0]).expect("values");
        assert!((mean - 2.5).abs() < 1e-12 && (sd - (5.0f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(MeanSd::of(&[7.0]), Some(MeanSd { mean: 7.0, sd: 0.0 }));
        assert_eq!(MeanSd::of(&[]), None);
    }
}
