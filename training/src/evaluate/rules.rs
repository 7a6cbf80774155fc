//! Study rules compared: each makes one score of a study's slices.
//!
//! A rule that the node runs must be monotone ([`triaged_model::StudyRule`]): a further slice never lowers the score, so
//! an alert given early is never contradicted. Two others are compared for what they are worth and never shipped: the
//! *longest run* of positive slices, which a negative slice that arrives late and lies between can cut in two; and a
//! *learned* rule, which has too many weights for the patients at hand and need not rise with every score.

use serde::{Deserialize, Serialize};
use triaged_model::StudyRule;

use super::choose::{candidates, shippable};
use super::decision::Decision;
use super::evaluation::ROUNDS;
use super::learned::{Learned, SCORES};
use super::operating_point::OperatingPoint;
use super::study::{Study, by_patient, of_patients};
use crate::metrics::{Case, Figures, Interval, answers, judged_figures};

/// One rule's figures: a line of the comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    pub rule: String,
    /// Whether a card may name it.
    pub shippable: bool,
    /// Whether it was one of those to choose among: where both sensitivity and specificity are asked for, means alone are. Tables of
    /// before this was noted name none.
    #[serde(default = "yes")]
    pub candidate: bool,
    /// Whether the card does.
    pub chosen: bool,
    /// None with one class only.
    pub auc: Option<Interval>,
    /// This and what follows: each fold at the threshold that flags the wanted share of the other folds' studies
    /// with hemorrhage.
    pub sensitivity: Option<Interval>,
    pub specificity: Option<Interval>,
}

fn yes() -> bool {
    true
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
            Aggregate::Learned => format!("logistic regression over the {SCORES} highest"),
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

/// Compares all rules over folds of scored studies, each fold judged by its decision, which the others made; `shipped` is
/// the decision made on all. Nothing of a fold decides about itself: calibration, threshold and the learned rule's weights come
/// from the other folds. The area under the curve is over scores on one scale, as [`Evaluation::pooled`](super::Evaluation::pooled) has
/// it. The longest run is left out where the slices' order is not known.
pub fn compare(folds: &[Vec<Study>], decisions: &[Decision], shipped: &Decision, seed: u64) -> Vec<Compared> {
    let ordered = folds.iter().flatten().all(|study| study.is_ordered);
    let extra = [Aggregate::LongestRun, Aggregate::Learned];
    let extra = extra.into_iter().filter(|rule| ordered || !matches!(rule, Aggregate::LongestRun));
    let point = decisions.first().map_or(OperatingPoint::Sensitivity, |decision| decision.operating_point);
    let mut rules = candidates(point);
    for rule in shippable() {
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    let all = rules.into_iter().map(Aggregate::Rule).chain(extra);
    all.filter_map(|aggregate| {
        let measured = measure(&aggregate, folds, decisions, shipped, seed)?;
        let rule = if let Aggregate::Rule(rule) = &aggregate { Some(*rule) } else { None };
        Some(Compared {
            rule: aggregate.name(),
            shippable: rule.is_some(),
            candidate: rule.is_some_and(|rule| candidates(point).contains(&rule)),
            chosen: rule == Some(shipped.study_rule.with_threshold(0.5)),
            auc: measured.auc,
            sensitivity: measured.sensitivity,
            specificity: measured.specificity,
        })
    })
    .collect()
}

fn measure(
    aggregate: &Aggregate,
    folds: &[Vec<Study>],
    decisions: &[Decision],
    shipped: &Decision,
    seed: u64,
) -> Option<Figures> {
    let (mut all, mut scores, mut verdicts) = (Vec::new(), Vec::new(), Vec::new());
    for (fold, (studies, decision)) in folds.iter().zip(decisions).enumerate() {
        // The fold's studies and the others', as a decision calibrates them.
        let sides = |decision: &Decision| -> (Vec<Study>, Vec<Study>) {
            let calibrated = |study: &Study| study.calibrated(decision.calibration.as_ref());
            let others = (0..folds.len()).filter(|other| *other != fold).flat_map(|other| &folds[other]);
            (studies.iter().map(calibrated).collect(), others.map(calibrated).collect())
        };
        let (own, others) = sides(decision);
        let seen = aggregate.score(&others, &others, decision.slice_threshold)?;
        let threshold = decision.choosing().threshold(&of_patients(&by_patient(&others), &seen))?;
        verdicts.extend(answers(&aggregate.score(&own, &others, decision.slice_threshold)?, threshold));
        let (own, others) = sides(shipped);
        scores.extend(aggregate.score(&own, &others, shipped.slice_threshold)?);
        all.extend(own);
    }
    let patients = by_patient(&all);
    Some(judged_figures(&of_patients(&patients, &scores), &of_patients(&patients, &verdicts), ROUNDS, seed))
}

/// How many slices that follow each other are positive, at most.
fn longest_run(study: &Study, slice_threshold: f64) -> Case {
    let runs = study.slices.chunk_by(|a, b| (a.score >= slice_threshold) == (b.score >= slice_threshold));
    let positive = runs.filter(|run| run[0].score >= slice_threshold).map(|run| run.len());
    Case { score: positive.max().unwrap_or(0) as f64, positive: study.is_positive() }
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
            Compared { shippable: false, .. } | Compared { candidate: false, .. } => "compared only",
            _ => "",
        };
        let [auc, sensitivity, specificity] =
            [row.auc, row.sensitivity, row.specificity].map(|figure| figure.map_or("one class only".into(), cell));
        table += &format!("| {} | {auc} | {sensitivity} | {specificity} | {remark} |\n", row.rule);
    }
    table
}

/// An explanation of the comparison for its readers.
pub const EXPLAINED: &str = "Each fold's studies are judged at the threshold that is chosen for the rule on the other \
    folds. Chosen is the topmost rule, of those that are not compared only, whose AUC lies within one standard \
    error of the best one's among them, by bootstrap over patients. The longest run is not monotone, for a negative slice that arrives late may cut it in two, and \
    the learned rule need not rise with every score: neither is ever shipped.";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::choose::choose;
    use crate::evaluate::tests::studies;

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
        let (rule, _) = choose(&folds.concat(), 0.9).expect("both classes");
        let decision = Decision {
            slice_threshold: 0.5,
            study_rule: rule,
            calibration: None,
            wanted_sensitivity: 0.9,
            operating_point: Default::default(),
            reached: None,
        };
        let compared = compare(&folds, &[decision; 3], &Decision { study_rule: rule, ..decision }, 1);
        assert_eq!(compared.len(), 14);
        assert_eq!(compared.iter().filter(|row| row.chosen).count(), 1);
        assert!(compared.iter().filter(|row| !row.shippable).all(|row| !row.chosen));
        let row = |name: &str| compared.iter().find(|row| row.rule.contains(name)).unwrap_or_else(|| panic!("{name}"));
        for name in ["highest", "noisy-or", "longest run", "logistic regression"] {
            assert_eq!(row(name).auc.map(|auc| auc.value), Some(1.0), "{name}");
            let found = (row(name).sensitivity, row(name).specificity);
            assert_eq!((found.0.map(|f| f.value), found.1.map(|f| f.value)), (Some(1.0), Some(1.0)), "{name}");
        }
        // Four bleed of eight that have one name each in the folds: one of four is the exact limit of the smaller class.
        let low = crate::metrics::Interval::of_count(4, 4).expect("some").low;
        let line = format!("| highest | 1.000 ({low:.3} to 1.000) |");
        assert!(table(&compared).contains(&line), "{}", table(&compared));

        // Without an order of slices there are no runs.
        let unordered =
            folds.map(|fold| fold.into_iter().map(|s| Study { is_ordered: false, ..s }).collect::<Vec<_>>());
        assert_eq!(compare(&unordered, &[decision; 3], &Decision { study_rule: rule, ..decision }, 1).len(), 13);
    }
}
