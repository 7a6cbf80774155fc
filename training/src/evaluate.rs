//! From scores to decisions and figures: the slice threshold and the study rule, chosen on validation patients, and
//! what they do on patients that neither the network nor they have seen.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use triaged::triage::StudyRule;

use crate::data::Slice;
use crate::metrics::{Case, Figures, Interval, auc, best_f2_threshold, figures};

/// Bootstrap samples behind each interval.
const ROUNDS: usize = 2000;
/// The share of validation patients with hemorrhage that a study rule must flag.
pub const WANTED_SENSITIVITY: f64 = 0.9;

/// A patient's scored slices. A patient is a study here: the data sets have one study a patient.
#[derive(Debug, Clone, PartialEq)]
pub struct Study {
    pub patient: String,
    pub slices: Vec<Case>,
}

impl Study {
    /// Groups scored slices by patient.
    pub fn group(slices: &[&Slice], scores: &[f64]) -> Vec<Study> {
        let mut studies: BTreeMap<&str, Vec<Case>> = BTreeMap::new();
        for (slice, &score) in slices.iter().zip(scores) {
            studies.entry(&slice.patient).or_default().push(Case { score, positive: slice.positive });
        }
        studies.into_iter().map(|(patient, slices)| Study { patient: patient.into(), slices }).collect()
    }

    /// The study's score by a rule, and whether any slice is labelled positive.
    pub fn case(&self, rule: &StudyRule) -> Case {
        let probabilities: Vec<f64> = self.slices.iter().map(|case| case.score).collect();
        Case { score: rule.judge(&probabilities).score, positive: self.slices.iter().any(|case| case.positive) }
    }
}

/// What a model card says of when to flag.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Highest F2 on the validation patients' slices.
    pub slice_threshold: f64,
    pub study_rule: StudyRule,
}

/// Chooses on validation studies. None where they lack a class.
///
/// Of the rules, the one whose scores order the studies best (AUC; of equal ones the one with the widest gap between
/// the classes' mean scores). Its threshold flags at least [`WANTED_SENSITIVITY`] of the studies with hemorrhage and as
/// few others as that allows; it lies halfway between the last score it must flag and the next one below.
pub fn decide(studies: &[Study]) -> Option<Decision> {
    let slices: Vec<Case> = studies.iter().flat_map(|study| study.slices.iter().copied()).collect();
    let (slice_threshold, _) = best_f2_threshold(&slices)?;
    let rules = [1, 2, 3, 4, 5, 6, 8].into_iter().map(|k| StudyRule::TopKMean { k, threshold: 0.5 });
    let rules = rules.chain([2, 3, 4, 5].into_iter().map(|k| StudyRule::KthHighest { k, threshold: 0.5 }));
    let mut best: Option<((f64, f64), StudyRule)> = None;
    for rule in rules {
        let cases: Vec<Case> = studies.iter().map(|study| study.case(&rule)).collect();
        let rank = (auc(&cases)?, gap(&cases));
        if best.as_ref().is_none_or(|(found, _)| rank > *found) {
            best = Some((rank, with_threshold(rule, threshold(&cases)?)));
        }
    }
    Some(Decision { slice_threshold, study_rule: best?.1 })
}

fn gap(cases: &[Case]) -> f64 {
    let mean = |positive: bool| {
        let scores: Vec<f64> = cases.iter().filter(|case| case.positive == positive).map(|case| case.score).collect();
        scores.iter().sum::<f64>() / scores.len().max(1) as f64
    };
    mean(true) - mean(false)
}

fn with_threshold(rule: StudyRule, threshold: f64) -> StudyRule {
    match rule {
        StudyRule::TopKMean { k, .. } => StudyRule::TopKMean { k, threshold },
        StudyRule::KthHighest { k, .. } => StudyRule::KthHighest { k, threshold },
        StudyRule::NoisyOr { .. } => StudyRule::NoisyOr { threshold },
    }
}

/// The highest threshold that flags [`WANTED_SENSITIVITY`] of the positives, moved halfway down to the next score so
/// that it does not lie on a case.
fn threshold(cases: &[Case]) -> Option<f64> {
    let mut positives: Vec<f64> = cases.iter().filter(|case| case.positive).map(|case| case.score).collect();
    positives.sort_unstable_by(|a, b| b.total_cmp(a));
    let needed = (WANTED_SENSITIVITY * positives.len() as f64).ceil() as usize;
    let lowest = *positives.get(needed.checked_sub(1)?)?;
    let next = cases.iter().map(|case| case.score).filter(|score| *score < lowest).fold(0.0, f64::max);
    // A rule's threshold must be above 0 ([`StudyRule::check`]).
    Some(((lowest + next) / 2.0).max(f64::MIN_POSITIVE))
}

/// A run's decision, and its figures on the patients it was made on and on those nobody has seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeldOut {
    pub decision: Decision,
    pub validation: Evaluation,
    pub test: Evaluation,
}

/// Slice and study figures with intervals by patient.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    pub patients: usize,
    pub slices: Figures,
    pub studies: Figures,
}

impl Evaluation {
    pub fn of(studies: &[Study], decision: &Decision, seed: u64) -> Self {
        let slices: Vec<Vec<Case>> = studies.iter().map(|study| study.slices.clone()).collect();
        let whole: Vec<Vec<Case>> = studies.iter().map(|study| vec![study.case(&decision.study_rule)]).collect();
        Self {
            patients: studies.len(),
            slices: figures(&slices, decision.slice_threshold, ROUNDS, seed),
            studies: figures(&whole, decision.study_rule.threshold(), ROUNDS, seed),
        }
    }

    /// Of studies each of which has a decision of its own. Counts and what follows from them are by those; the areas
    /// under the curves are over the scores as they are, the studies' by `decision`'s rule.
    pub fn pooled(studies: &[(&Study, Decision)], decision: &Decision, seed: u64) -> Self {
        let answer =
            |case: &Case, threshold: f64| Case { score: f64::from(u8::from(case.score >= threshold)), ..*case };
        let slices: Vec<Vec<Case>> = studies.iter().map(|(study, _)| study.slices.clone()).collect();
        let answers: Vec<Vec<Case>> = studies
            .iter()
            .map(|(study, own)| study.slices.iter().map(|case| answer(case, own.slice_threshold)).collect())
            .collect();
        let whole: Vec<Vec<Case>> = studies.iter().map(|(study, _)| vec![study.case(&decision.study_rule)]).collect();
        let verdicts: Vec<Vec<Case>> = studies
            .iter()
            .map(|(study, own)| vec![answer(&study.case(&own.study_rule), own.study_rule.threshold())])
            .collect();
        let of = |scores: &[Vec<Case>], answers: &[Vec<Case>]| Figures {
            auc: figures(scores, 0.5, ROUNDS, seed).auc,
            ..figures(answers, 0.5, ROUNDS, seed)
        };
        Self { patients: studies.len(), slices: of(&slices, &answers), studies: of(&whole, &verdicts) }
    }

    /// A table in Markdown.
    pub fn table(&self) -> String {
        let cell = |i: Interval| format!("{:.3} ({:.3} to {:.3})", i.value, i.low, i.high);
        let auc = |i: Option<Interval>| i.map_or("one class only".into(), cell);
        let (a, b) = (&self.slices, &self.studies);
        let mut table = format!(
            "| | slices ({}, {} positive) | studies ({}, {} positive) |\n|---|---|---|\n",
            a.cases, a.positives, b.cases, b.positives
        );
        for (name, left, right) in [
            ("AUC", auc(a.auc), auc(b.auc)),
            ("F2", cell(a.f2), cell(b.f2)),
            ("sensitivity", cell(a.sensitivity), cell(b.sensitivity)),
            ("specificity", cell(a.specificity), cell(b.specificity)),
            ("precision", cell(a.precision), cell(b.precision)),
            ("accuracy", cell(a.accuracy), cell(b.accuracy)),
        ] {
            table += &format!("| {name} | {left} | {right} |\n");
        }
        let counts = |f: &Figures| {
            let c = f.confusion;
            format!("{}, {}, {}, {}", c.tn, c.fp, c.fn_, c.tp)
        };
        table + &format!("| TN, FP, FN, TP | {} | {} |\n", counts(a), counts(b))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten studies of 20 slices; the last four have hemorrhage on five slices, which score 0.5 to 0.8 by study. Two of
    /// the others have one slice each that scores 0.95: noise that a rule over several slices sees through.
    fn studies() -> Vec<Study> {
        (0..10)
            .map(|p| Study {
                patient: format!("{p}"),
                slices: (0..20)
                    .map(|s| {
                        let positive = p >= 6 && s < 5;
                        let score = match () {
                            () if positive => 0.5 + 0.1 * f64::from(p - 6),
                            () if p < 2 && s == 9 => 0.95,
                            () => 0.01 * f64::from(p),
                        };
                        Case { score, positive }
                    })
                    .collect(),
            })
            .collect()
    }

    #[test]
    fn the_rule_sees_through_single_slices() {
        let decision = decide(&studies()).expect("both classes");
        let cases: Vec<Case> = studies().iter().map(|study| study.case(&decision.study_rule)).collect();
        let flagged: Vec<bool> = cases.iter().map(|c| c.score >= decision.study_rule.threshold()).collect();
        assert_eq!(flagged, [[false; 6].as_slice(), &[true; 4]].concat());
        decision.study_rule.check().expect("a rule the node takes");
        assert!(decision.slice_threshold > 0.09 && decision.slice_threshold < 0.5);
    }

    #[test]
    fn the_threshold_reaches_the_wanted_sensitivity_with_the_fewest_false_alarms() {
        let cases: Vec<Case> = (0..100).map(|i| Case { score: f64::from(i) / 100.0, positive: i % 5 == 0 }).collect();
        let threshold = threshold(&cases).expect("positives");
        // 18 of 20 positives: all but 0.00 and 0.05. The next score below 0.10 is 0.09.
        assert!((threshold - 0.095).abs() < 1e-9, "{threshold}");
    }

    #[test]
    fn one_class_decides_nothing() {
        let mut studies = studies();
        studies.truncate(5);
        assert_eq!(decide(&studies), None);
    }

    #[test]
    fn an_evaluation_counts_patients_slices_and_studies() {
        let decision = decide(&studies()).expect("both classes");
        let evaluation = Evaluation::of(&studies(), &decision, 1);
        assert_eq!((evaluation.patients, evaluation.slices.cases, evaluation.studies.cases), (10, 200, 10));
        assert_eq!((evaluation.slices.positives, evaluation.studies.positives), (20, 4));
        assert_eq!(evaluation.studies.sensitivity.value, 1.0);
        assert!(
            evaluation.table().contains("| TN, FP, FN, TP | 178, 2, 0, 20 | 6, 0, 0, 4 |"),
            "{}",
            evaluation.table()
        );
    }
}
