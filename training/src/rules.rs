//! Study rules: what makes one score of a study's slices, compared on patients, and the one to ship chosen.
//!
//! A rule that the node runs must be monotone ([`triaged_model::StudyRule`]): a further slice never lowers the score, so
//! an alert given early is never contradicted. Two others are compared for what they are worth and never shipped: the
//! *longest run* of positive slices, which a negative slice that arrives late and lies between can cut in two; and a
//! *learned* rule, which has too many weights for the patients at hand and need not rise with every score.

use std::collections::HashMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use triaged_model::StudyRule;

use crate::evaluate::{Decision, ROUNDS, Study};
use crate::logistic;
use crate::metrics::{Case, Figures, Interval, answers, auc, judged_figures};

/// The share of validation patients with hemorrhage that a study rule must flag where a recipe does not say. On further
/// patients it is that or less as often as more: who wants so much there asks for more here.
pub const WANTED_SENSITIVITY: f64 = 0.9;
/// Bootstrap samples behind the noise of a difference of two rules, and their seed: a choice must repeat.
const NOISE: (usize, u64) = (500, 1);
/// Of the learned rule: how many of a study's scores it reads, highest first, and what holds its weights small.
const LEARNED_SCORES: usize = 8;
const LEARNED_RIDGE: f64 = 1.0;

/// The rules that a card may name, the simplest first. Their thresholds are to be chosen.
fn shippable() -> impl Iterator<Item = StudyRule> {
    let threshold = 0.5;
    let highest = std::iter::once(StudyRule::TopKMean { k: 1, threshold });
    let kth = [2, 3, 4, 5].into_iter().map(move |k| StudyRule::KthHighest { k, threshold });
    let mean = [2, 3, 4, 5, 6, 8].into_iter().map(move |k| StudyRule::TopKMean { k, threshold });
    highest.chain(kth).chain(mean).chain([StudyRule::NoisyOr { threshold }])
}

/// The rule to ship, with the threshold that flags the `wanted` share of the studies with hemorrhage, by the scores of
/// validation studies. None where they lack a class.
///
/// Of the rules whose area under the ROC curve lies within noise of the best one's, the simplest. Within noise is a
/// difference of at most one standard error, which is taken from bootstrap samples of the patients, both rules on the
/// same ones.
pub fn choose(studies: &[Study], wanted: f64) -> Option<StudyRule> {
    let rules: Vec<StudyRule> = shippable().collect();
    let scored: Vec<Vec<Case>> =
        rules.iter().map(|rule| studies.iter().map(|study| study.case(rule)).collect()).collect();
    let areas = scored.iter().map(|cases| auc(cases)).collect::<Option<Vec<f64>>>()?;
    // The first of equal ones.
    let best = (0..rules.len()).reduce(|best, rule| if areas[rule] > areas[best] { rule } else { best })?;
    let noise = noise(&by_patient(studies), &scored, best);
    let chosen = (0..rules.len()).find(|&rule| areas[best] - areas[rule] <= noise[rule])?;
    Some(with_threshold(rules[chosen], threshold(&scored[chosen], wanted)?))
}

/// The places of each patient's studies, in the order in which patients first come.
fn by_patient(studies: &[Study]) -> Vec<Vec<usize>> {
    let mut place: HashMap<&str, usize> = HashMap::new();
    let mut patients: Vec<Vec<usize>> = Vec::new();
    for (i, study) in studies.iter().enumerate() {
        let patient = *place.entry(&study.patient).or_insert(patients.len());
        if patient == patients.len() {
            patients.push(Vec::new());
        }
        patients[patient].push(i);
    }
    patients
}

/// Of each rule the standard error of its area's difference to the best one's, over the studies of `patients`.
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

fn with_threshold(rule: StudyRule, threshold: f64) -> StudyRule {
    match rule {
        StudyRule::TopKMean { k, .. } => StudyRule::TopKMean { k, threshold },
        StudyRule::KthHighest { k, .. } => StudyRule::KthHighest { k, threshold },
        StudyRule::NoisyOr { .. } => StudyRule::NoisyOr { threshold },
    }
}

/// The highest threshold that flags the `wanted` share of the positives, moved halfway down to the next score so
/// that it does not lie on a case. None without a positive.
fn threshold(cases: &[Case], wanted: f64) -> Option<f64> {
    let mut positives: Vec<f64> = cases.iter().filter(|case| case.positive).map(|case| case.score).collect();
    positives.sort_unstable_by(|a, b| b.total_cmp(a));
    // A product that is a whole number must not be rounded up for its last bit.
    let needed = (wanted * positives.len() as f64 - 1e-9).ceil() as usize;
    let lowest = *positives.get(needed.checked_sub(1)?)?;
    let next = cases.iter().map(|case| case.score).filter(|score| *score < lowest).fold(0.0, f64::max);
    // A rule's threshold must be above 0 ([`StudyRule::check`]).
    Some(((lowest + next) / 2.0).max(f64::MIN_POSITIVE))
}

/// What one rule is worth: a line of the comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    pub rule: String,
    /// Whether a card may name it.
    pub shippable: bool,
    /// Whether the card does.
    pub chosen: bool,
    /// None with one class only.
    pub auc: Option<Interval>,
    /// This and what follows: each fold at the threshold that flags the wanted share of the other folds' studies
    /// with hemorrhage.
    pub sensitivity: Option<Interval>,
    pub specificity: Option<Interval>,
}

/// How a rule scores.
enum Aggregate {
    Rule(StudyRule),
    LongestRun,
    Learned,
}

impl Aggregate {
    fn name(&self) -> String {
        match self {
            Aggregate::Rule(rule) => name(rule),
            Aggregate::LongestRun => "longest run of positive slices".into(),
            Aggregate::Learned => format!("logistic regression over the {LEARNED_SCORES} highest"),
        }
    }

    /// Scores of `studies` by what the `others` teach. None where they teach nothing.
    fn score(&self, studies: &[Study], others: &[Study], slice_threshold: f64) -> Option<Vec<Case>> {
        match self {
            Aggregate::Rule(rule) => Some(studies.iter().map(|study| study.case(rule)).collect()),
            Aggregate::LongestRun => Some(studies.iter().map(|study| longest_run(study, slice_threshold)).collect()),
            Aggregate::Learned => {
                let learned = Learned::fit(others)?;
                Some(studies.iter().map(|study| learned.case(study)).collect())
            }
        }
    }
}

/// A rule in a few words, without its threshold.
pub fn name(rule: &StudyRule) -> String {
    match rule {
        StudyRule::TopKMean { k: 1, .. } => "highest".into(),
        StudyRule::TopKMean { k, .. } => format!("mean of the {k} highest"),
        StudyRule::KthHighest { k: 2, .. } => "2nd highest".into(),
        StudyRule::KthHighest { k: 3, .. } => "3rd highest".into(),
        StudyRule::KthHighest { k, .. } => format!("{k}th highest"),
        StudyRule::NoisyOr { .. } => "noisy-or".into(),
    }
}

/// Compares all rules over folds of scored studies, each fold judged by its decision, which the others made; `chosen` is
/// the rule that ships. Nothing of a fold decides about itself: calibration, threshold and the learned rule's weights come
/// from the other folds. The longest run is left out where the slices' order is not known.
pub fn compare(folds: &[Vec<Study>], decisions: &[Decision], chosen: &StudyRule, seed: u64) -> Vec<Compared> {
    let ordered = folds.iter().flatten().all(|study| study.is_ordered);
    let extra = [Aggregate::LongestRun, Aggregate::Learned];
    let extra = extra.into_iter().filter(|rule| ordered || !matches!(rule, Aggregate::LongestRun));
    let all = shippable().map(Aggregate::Rule).chain(extra);
    all.filter_map(|aggregate| {
        let measured = measure(&aggregate, folds, decisions, seed)?;
        let rule = if let Aggregate::Rule(rule) = &aggregate { Some(*rule) } else { None };
        Some(Compared {
            rule: aggregate.name(),
            shippable: rule.is_some(),
            chosen: rule == Some(with_threshold(*chosen, 0.5)),
            auc: measured.auc,
            sensitivity: measured.sensitivity,
            specificity: measured.specificity,
        })
    })
    .collect()
}

fn measure(aggregate: &Aggregate, folds: &[Vec<Study>], decisions: &[Decision], seed: u64) -> Option<Figures> {
    let (mut all, mut scores, mut verdicts) = (Vec::new(), Vec::new(), Vec::new());
    for (fold, (studies, decision)) in folds.iter().zip(decisions).enumerate() {
        let calibrated = |study: &Study| study.calibrated(decision.calibration.as_ref());
        let own: Vec<Study> = studies.iter().map(calibrated).collect();
        let others: Vec<Study> =
            (0..folds.len()).filter(|other| *other != fold).flat_map(|other| &folds[other]).map(calibrated).collect();
        let seen = aggregate.score(&others, &others, decision.slice_threshold)?;
        let threshold = threshold(&seen, decision.wanted_sensitivity)?;
        let cases = aggregate.score(&own, &others, decision.slice_threshold)?;
        verdicts.extend(answers(&cases, threshold));
        scores.extend(cases);
        all.extend(own);
    }
    let patients = by_patient(&all);
    let of = |cases: &[Case]| -> Vec<Vec<Case>> {
        patients.iter().map(|studies| studies.iter().map(|&i| cases[i]).collect()).collect()
    };
    Some(judged_figures(&of(&scores), &of(&verdicts), ROUNDS, seed))
}

/// How many slices that follow each other are positive, at most.
fn longest_run(study: &Study, slice_threshold: f64) -> Case {
    let runs = study.slices.chunk_by(|a, b| (a.score >= slice_threshold) == (b.score >= slice_threshold));
    let positive = runs.filter(|run| run[0].score >= slice_threshold).map(|run| run.len());
    Case { score: positive.max().unwrap_or(0) as f64, positive: study.is_positive() }
}

/// Logistic regression over a study's highest scores.
struct Learned {
    /// Of each feature, to bring them to one scale.
    means: Vec<f64>,
    deviations: Vec<f64>,
    weights: Vec<f64>,
}

impl Learned {
    fn fit(studies: &[Study]) -> Option<Self> {
        let rows: Vec<Vec<f64>> = studies.iter().map(highest).collect();
        let count = rows.len() as f64;
        let mean = |i: usize| rows.iter().map(|row| row[i]).sum::<f64>() / count;
        let means: Vec<f64> = (0..LEARNED_SCORES).map(mean).collect();
        let deviation = |i: usize| (rows.iter().map(|row| (row[i] - means[i]).powi(2)).sum::<f64>() / count).sqrt();
        let deviations = (0..LEARNED_SCORES).map(|i| deviation(i).max(1e-9)).collect();
        let learned = Self { means, deviations, weights: Vec::new() };
        let scaled: Vec<Vec<f64>> = rows.iter().map(|row| learned.scaled(row)).collect();
        let targets: Vec<f64> = studies.iter().map(|study| f64::from(u8::from(study.is_positive()))).collect();
        Some(Self { weights: logistic::fit(&scaled, &targets, LEARNED_RIDGE)?, ..learned })
    }

    fn scaled(&self, row: &[f64]) -> Vec<f64> {
        (0..LEARNED_SCORES).map(|i| (row[i] - self.means[i]) / self.deviations[i]).collect()
    }

    fn case(&self, study: &Study) -> Case {
        let logit = logistic::linear(&self.scaled(&highest(study)), &self.weights);
        Case { score: logistic::sigmoid(logit), positive: study.is_positive() }
    }
}

/// The highest scores, highest first; 0 where there are no more.
fn highest(study: &Study) -> Vec<f64> {
    let mut scores: Vec<f64> = study.slices.iter().map(|case| case.score).collect();
    scores.sort_unstable_by(|a, b| b.total_cmp(a));
    scores.resize(LEARNED_SCORES, 0.0);
    scores
}

/// The comparison as a table in Markdown; empty where nothing was compared.
pub fn table(compared: &[Compared]) -> String {
    if compared.is_empty() {
        return String::new();
    }
    let cell = |i: Interval| format!("{:.3} ({:.3} to {:.3})", i.value, i.low, i.high);
    let mut table = String::from("| study score | AUC | sensitivity | specificity | |\n|---|---|---|---|---|\n");
    for row in compared {
        let remark = match row {
            Compared { chosen: true, .. } => "**chosen**",
            Compared { shippable: false, .. } => "compared only",
            _ => "",
        };
        let [auc, sensitivity, specificity] =
            [row.auc, row.sensitivity, row.specificity].map(|figure| figure.map_or("one class only".into(), cell));
        table += &format!("| {} | {auc} | {sensitivity} | {specificity} | {remark} |\n", row.rule);
    }
    table
}

/// What the comparison means, for those who read it.
pub const EXPLAINED: &str = "Each fold's studies are judged at the threshold that flags the wanted share with \
    hemorrhage in the other folds. Chosen is the simplest rule (the topmost) whose AUC lies within one standard error of the best one's, by \
    bootstrap over patients. The longest run is not monotone, for a negative slice that arrives late may cut it in two, and \
    the learned rule need not rise with every score: neither is ever shipped.";

#[cfg(test)]
mod tests {
    use super::*;

    /// Studies whose slices score so; positive where the first of the pair says so.
    fn studies(of: &[(bool, &[f64])]) -> Vec<Study> {
        of.iter()
            .enumerate()
            .map(|(i, (positive, scores))| Study {
                patient: format!("a/{i}"),
                study: None,
                source: "a".into(),
                is_ordered: true,
                slices: scores.iter().map(|&score| Case { score, positive: *positive }).collect(),
            })
            .collect()
    }

    #[test]
    fn the_threshold_reaches_the_wanted_sensitivity_with_the_fewest_false_alarms() {
        let cases: Vec<Case> = (0..100).map(|i| Case { score: f64::from(i) / 100.0, positive: i % 5 == 0 }).collect();
        let found = threshold(&cases, 0.9).expect("positives");
        // 18 of 20 positives: all but 0.00 and 0.05. The next score below 0.10 is 0.09.
        assert!((found - 0.095).abs() < 1e-9, "{found}");
        // 19 of 20, for all that 0.95 is not in two's powers; and all of them.
        for (wanted, expected) in [(0.95, 0.045), (1.0, f64::MIN_POSITIVE)] {
            let found = threshold(&cases, wanted).expect("positives");
            assert!((found - expected).abs() < 1e-9, "{wanted}: {found}");
        }
    }

    #[test]
    fn the_simplest_rule_within_noise_is_chosen() {
        // Every rule orders these alike: the highest slice is the simplest.
        let clear: Vec<(bool, &[f64])> = vec![(true, &[0.9, 0.8, 0.7]), (false, &[0.2, 0.1, 0.1])];
        let chosen = choose(&studies(&clear.repeat(6)), 0.9).expect("both classes");
        assert!(matches!(chosen, StudyRule::TopKMean { k: 1, .. }), "{chosen:?}");
        // Half of the healthy have one slice above all others: only a rule over several slices tells.
        let noisy: Vec<(bool, &[f64])> = vec![
            (true, &[0.7, 0.6, 0.6]),
            (false, &[0.95, 0.1, 0.1]),
            (true, &[0.8, 0.7, 0.6]),
            (false, &[0.2, 0.1, 0.0]),
        ];
        let chosen = choose(&studies(&noisy.repeat(6)), 0.9).expect("both classes");
        assert!(matches!(chosen, StudyRule::KthHighest { k: 2, .. }), "{chosen:?}");
        assert!((chosen.threshold() - 0.35).abs() < 1e-9, "{chosen:?}");
        assert_eq!(choose(&studies(&[(true, &[0.5])]), 0.9), None);
    }

    #[test]
    fn studies_of_one_patient_stay_together() {
        let mut studies = studies(&[(true, &[0.9]), (false, &[0.1]), (true, &[0.8]), (false, &[0.2])]);
        studies[2].patient = studies[0].patient.clone();
        assert_eq!(by_patient(&studies), [vec![0, 2], vec![1], vec![3]]);
    }

    #[test]
    fn the_longest_run_is_of_slices_that_follow_each_other() {
        let run = |scores: &[f64]| longest_run(&studies(&[(true, scores)])[0], 0.5).score;
        assert_eq!(run(&[0.5, 0.6, 0.1, 0.9, 0.9, 0.9, 0.2, 0.7]), 3.0);
        assert_eq!(run(&[0.1, 0.2]), 0.0);
        assert_eq!(run(&[]), 0.0);
    }

    #[test]
    fn all_rules_are_compared_out_of_fold_and_only_one_is_chosen() {
        let fold = |lift: f64| {
            let scores: Vec<(bool, Vec<f64>)> = (0..8)
                .map(|i| {
                    (
                        i % 2 == 0,
                        (0..6).map(|s| if i % 2 == 0 && s < 3 { 0.8 } else { 0.2 } - lift * f64::from(s)).collect(),
                    )
                })
                .collect();
            studies(&scores.iter().map(|(positive, scores)| (*positive, scores.as_slice())).collect::<Vec<_>>())
        };
        let folds = [fold(0.001), fold(0.002), fold(0.003)];
        let rule = choose(&folds.concat(), 0.9).expect("both classes");
        let decision = Decision { slice_threshold: 0.5, study_rule: rule, calibration: None, wanted_sensitivity: 0.9 };
        let compared = compare(&folds, &[decision; 3], &rule, 1);
        assert_eq!(compared.len(), 14);
        assert_eq!(compared.iter().filter(|row| row.chosen).count(), 1);
        assert!(compared.iter().filter(|row| !row.shippable).all(|row| !row.chosen));
        let row = |name: &str| compared.iter().find(|row| row.rule.contains(name)).unwrap_or_else(|| panic!("{name}"));
        for name in ["highest", "noisy-or", "longest run", "logistic regression"] {
            assert_eq!(row(name).auc.map(|auc| auc.value), Some(1.0), "{name}");
            let found = (row(name).sensitivity, row(name).specificity);
            assert_eq!((found.0.map(|f| f.value), found.1.map(|f| f.value)), (Some(1.0), Some(1.0)), "{name}");
        }
        assert!(table(&compared).contains("| highest | 1.000 (1.000 to 1.000) |"), "{}", table(&compared));

        // Without an order of slices there are no runs.
        let unordered =
            folds.map(|fold| fold.into_iter().map(|s| Study { is_ordered: false, ..s }).collect::<Vec<_>>());
        assert_eq!(compare(&unordered, &[decision; 3], &rule, 1).len(), 13);
    }
}
