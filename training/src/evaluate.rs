//! From scores to decisions and figures: the slice threshold and the study rule, chosen on validation patients, and
//! what they do on patients that neither the network nor they have seen.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use triaged_model::StudyRule;

use crate::calibration::{Calibrated, Platt, Reliability};
use crate::data::Slice;
use crate::metrics::{Case, Figures, Interval, answers, best_f2_threshold, judged_figures};
use crate::rules::{self, Compared};

/// Bootstrap samples behind each interval.
pub const ROUNDS: usize = 2000;

/// A study's scored slices. Of slices that name no study, a patient's are one.
#[derive(Debug, Clone, PartialEq)]
pub struct Study {
    pub patient: String,
    /// Which of the patient's studies, where there are several.
    pub study: Option<String>,
    pub source: String,
    /// In their order along the body, where that is known.
    pub slices: Vec<Case>,
    pub is_ordered: bool,
}

impl Study {
    /// Groups scored slices by study, in the order of patients' names.
    pub fn group(slices: &[&Slice], scores: &[f64]) -> Vec<Study> {
        type Scored<'a> = Vec<(&'a Slice, f64)>;
        let mut patients: BTreeMap<&str, BTreeMap<Option<&str>, Scored>> = BTreeMap::new();
        for (slice, &score) in slices.iter().zip(scores) {
            let studies = patients.entry(&slice.patient).or_default();
            studies.entry(slice.study.as_deref()).or_default().push((slice, score));
        }
        let mut grouped = Vec::new();
        for (patient, studies) in patients {
            let several = studies.len() > 1;
            for (study, mut slices) in studies {
                // Places in two series are no order of their slices together.
                let one_series = slices.iter().all(|(slice, _)| slice.series == slices[0].0.series);
                let is_ordered = one_series && slices.iter().all(|(slice, _)| slice.position.is_some());
                if is_ordered {
                    slices.sort_by_key(|(slice, _)| slice.position);
                }
                grouped.push(Study {
                    patient: patient.into(),
                    study: study.filter(|_| several).map(str::to_owned),
                    source: slices[0].0.source.clone(),
                    slices: slices.iter().map(|&(slice, score)| Case { score, positive: slice.positive }).collect(),
                    is_ordered,
                });
            }
        }
        grouped
    }

    /// The patient, and which of their studies, where there are several.
    pub fn name(&self) -> String {
        self.study.as_ref().map_or(self.patient.clone(), |study| format!("{}, study {study}", self.patient))
    }

    /// Whether any slice is labelled positive.
    pub fn is_positive(&self) -> bool {
        self.slices.iter().any(|case| case.positive)
    }

    /// The study's score by a rule, of the slices' scores as they are, and its label.
    pub fn case(&self, rule: &StudyRule) -> Case {
        let probabilities: Vec<f64> = self.slices.iter().map(|case| case.score).collect();
        Case { score: rule.judge(&probabilities).score, positive: self.is_positive() }
    }

    /// With calibrated scores; the same where there is no calibration.
    pub fn calibrated(&self, calibration: Option<&Platt>) -> Self {
        let mut study = self.clone();
        if let Some(platt) = calibration {
            study.slices.iter_mut().for_each(|case| case.score = platt.apply(case.score));
        }
        study
    }
}

/// What a model card says of when to flag, and what makes probabilities of the network's scores.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Highest F2 on the validation patients' slices; of calibrated scores, as the rule's.
    pub slice_threshold: f64,
    pub study_rule: StudyRule,
    /// None in decisions of before there was one, or where validation had none to give.
    #[serde(default)]
    pub calibration: Option<Platt>,
    /// The share of the studies with hemorrhage that the study rule's threshold had to flag.
    #[serde(default = "wanted")]
    pub wanted_sensitivity: f64,
}

/// Of decisions of before it could be asked for.
fn wanted() -> f64 {
    rules::WANTED_SENSITIVITY
}

/// Decides on validation studies, by the network's own scores: a calibration, and of the calibrated scores the slice
/// threshold and the study rule ([`rules::choose`]) that flags the `wanted` share of the studies with hemorrhage. None where
/// the studies, or their slices, lack a class.
pub fn decide(studies: &[Study], wanted: f64) -> Option<Decision> {
    let calibration = Platt::fit(&slices(studies));
    let studies: Vec<Study> = studies.iter().map(|study| study.calibrated(calibration.as_ref())).collect();
    let (slice_threshold, _) = best_f2_threshold(&slices(&studies))?;
    Some(Decision {
        slice_threshold,
        study_rule: rules::choose(&studies, wanted)?,
        calibration,
        wanted_sensitivity: wanted,
    })
}

/// All studies' slices.
pub fn slices(studies: &[Study]) -> Vec<Case> {
    studies.iter().flat_map(|study| study.slices.iter().copied()).collect()
}

/// What is told beside the figures of all patients.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Beside {
    /// Of each source's patients, where several sources are measured.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sources: BTreeMap<String, Evaluation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reliability: Option<Calibrated>,
    /// The study rules, compared out of fold; those of held-out figures on the validation patients.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub study_rules: Vec<Compared>,
    /// With each slice scored as the mean of itself and its mirror image, by a decision made on such scores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_time_flip: Option<Evaluation>,
}

impl Beside {
    /// Of judged studies: their sources and their reliability. Rules and flips are put in by who has them.
    pub fn of(judged: &[(&Study, Decision)], decision: &Decision, seed: u64) -> Self {
        let names: BTreeSet<&str> = judged.iter().map(|(study, _)| study.source.as_str()).collect();
        let source = |name: &str| {
            let own: Vec<(&Study, Decision)> =
                judged.iter().filter(|(study, _)| study.source == name).copied().collect();
            (name.to_owned(), Evaluation::pooled(&own, decision, seed))
        };
        let sources = if names.len() > 1 { names.into_iter().map(source).collect() } else { BTreeMap::new() };
        let raw: Vec<Case> = judged.iter().flat_map(|(study, _)| study.slices.iter().copied()).collect();
        let calibrated: Vec<Case> =
            judged.iter().flat_map(|(study, own)| study.calibrated(own.calibration.as_ref()).slices).collect();
        let reliability = || Some(Calibrated { before: Reliability::of(&raw)?, after: Reliability::of(&calibrated)? });
        let is_calibrated = judged.iter().any(|(_, own)| own.calibration.is_some());
        Self {
            sources,
            reliability: is_calibrated.then(reliability).flatten(),
            study_rules: Vec::new(),
            test_time_flip: None,
        }
    }
}

/// A run's decision, and its figures on the patients it was made on and on those nobody has seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeldOut {
    pub decision: Decision,
    pub validation: Evaluation,
    pub test: Evaluation,
    /// Of the test patients, but for the rules.
    #[serde(flatten)]
    pub beside: Beside,
}

/// Into how many parts validation patients are divided to compare rules on them.
const PARTS: usize = 5;

impl HeldOut {
    /// Decides on validation studies and measures both. None where the validation studies lack a class.
    pub fn of(validation: &[Study], test: &[Study], wanted: f64, seed: u64) -> Option<Self> {
        let decision = decide(validation, wanted)?;
        let judged: Vec<(&Study, Decision)> = test.iter().map(|study| (study, decision)).collect();
        let beside =
            Beside { study_rules: compare_within(validation, &decision, seed), ..Beside::of(&judged, &decision, seed) };
        Some(Self {
            decision,
            validation: Evaluation::of(validation, &decision, seed),
            test: Evaluation::of(test, &decision, seed),
            beside,
        })
    }
}

/// Compares rules on studies that are no folds: on parts of their patients, each judged by what the others decide. Empty where the
/// others of some part lack a class.
fn compare_within(studies: &[Study], decision: &Decision, seed: u64) -> Vec<Compared> {
    let mut patients: BTreeMap<&str, Vec<&Study>> = BTreeMap::new();
    studies.iter().for_each(|study| patients.entry(&study.patient).or_default().push(study));
    let mut parts = vec![Vec::new(); PARTS];
    for positive in [true, false] {
        let class = patients.values().filter(|own| own.iter().any(|study| study.is_positive()) == positive);
        class.enumerate().for_each(|(i, own)| parts[i % PARTS].extend(own.iter().copied().cloned()));
    }
    parts.retain(|part| !part.is_empty());
    let others = |part: usize| -> Vec<Study> {
        (0..parts.len()).filter(|other| *other != part).flat_map(|other| parts[other].clone()).collect()
    };
    let decisions: Option<Vec<Decision>> =
        (0..parts.len()).map(|part| decide(&others(part), decision.wanted_sensitivity)).collect();
    decisions.map_or(Vec::new(), |decisions| rules::compare(&parts, &decisions, &decision.study_rule, seed))
}

/// Slice and study figures with intervals by patient.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    pub patients: usize,
    pub slices: Figures,
    pub studies: Figures,
}

impl Evaluation {
    /// Of studies that one decision judges.
    pub fn of(studies: &[Study], decision: &Decision, seed: u64) -> Self {
        Self::pooled(&studies.iter().map(|study| (study, *decision)).collect::<Vec<_>>(), decision, seed)
    }

    /// Of studies each of which has a decision of its own, and is calibrated by it. Counts and what follows from them are
    /// by those; the areas under the curves are over the scores as they are, the studies' by `decision`'s rule. Intervals
    /// are by patient, who may have several studies: their own, or of a split by image one in each fold.
    pub fn pooled(studies: &[(&Study, Decision)], decision: &Decision, seed: u64) -> Self {
        #[derive(Default)]
        struct Patient {
            slices: Vec<Case>,
            answers: Vec<Case>,
            studies: Vec<Case>,
            verdicts: Vec<Case>,
        }
        let mut patients: BTreeMap<&str, Patient> = BTreeMap::new();
        for (study, own) in studies {
            let calibrated = study.calibrated(own.calibration.as_ref());
            let patient = patients.entry(&study.patient).or_default();
            patient.answers.extend(answers(&calibrated.slices, own.slice_threshold));
            patient.studies.push(calibrated.case(&decision.study_rule));
            patient.verdicts.extend(answers(&[calibrated.case(&own.study_rule)], own.study_rule.threshold()));
            patient.slices.extend(calibrated.slices);
        }
        let all = |cases: fn(&Patient) -> &Vec<Case>| -> Vec<Vec<Case>> {
            patients.values().map(|patient| cases(patient).clone()).collect()
        };
        let slices = judged_figures(&all(|patient| &patient.slices), &all(|patient| &patient.answers), ROUNDS, seed);
        let studies = judged_figures(&all(|patient| &patient.studies), &all(|patient| &patient.verdicts), ROUNDS, seed);
        Self { patients: patients.len(), slices, studies }
    }

    /// A table in Markdown.
    pub fn table(&self) -> String {
        let cell = |i: Interval| format!("{:.3} ({:.3} to {:.3})", i.value, i.low, i.high);
        let or = |i: Option<Interval>| i.map_or("one class only".into(), cell);
        let (a, b) = (&self.slices, &self.studies);
        let mut table = format!(
            "| | slices ({}, {} positive) | studies ({}, {} positive) |\n|---|---|---|\n",
            a.cases, a.positives, b.cases, b.positives
        );
        for (name, left, right) in [
            ("AUC", or(a.auc), or(b.auc)),
            ("F2", or(a.f2), or(b.f2)),
            ("sensitivity", or(a.sensitivity), or(b.sensitivity)),
            ("specificity", or(a.specificity), or(b.specificity)),
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
                study: None,
                source: "a".into(),
                is_ordered: false,
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
        let decision = decide(&studies(), 0.9).expect("both classes");
        let calibrated = studies().into_iter().map(|study| study.calibrated(decision.calibration.as_ref()));
        let cases: Vec<Case> = calibrated.map(|study| study.case(&decision.study_rule)).collect();
        let flagged: Vec<bool> = cases.iter().map(|c| c.score >= decision.study_rule.threshold()).collect();
        assert_eq!(flagged, [[false; 6].as_slice(), &[true; 4]].concat());
        decision.study_rule.check().expect("a rule the node takes");
        // Between scores of 0.09 and 0.5, calibrated.
        let platt = decision.calibration.expect("both classes");
        assert!(decision.slice_threshold > platt.apply(0.09) && decision.slice_threshold < platt.apply(0.5));
    }

    #[test]
    fn a_patients_studies_are_judged_each_for_itself() {
        let slice = |study: Option<&str>, series: &str, position: i64, positive: bool| Slice {
            id: format!("{study:?}{series}{position}"),
            source: "a".into(),
            patient: "a/p".into(),
            study: study.map(str::to_owned),
            series: Some(series.into()),
            positive,
            file: "none".into(),
            mask: None,
            size: None,
            position: Some(position),
        };
        // Before: bleeding, in two series. After: one series, its slices out of order.
        let slices = [
            slice(Some("before"), "1", 0, true),
            slice(Some("after"), "3", 5, false),
            slice(Some("before"), "2", 0, false),
            slice(Some("after"), "3", 4, false),
        ];
        let studies = Study::group(&slices.iter().collect::<Vec<_>>(), &[0.9, 0.2, 0.3, 0.1]);
        let names: Vec<String> = studies.iter().map(Study::name).collect();
        assert_eq!(names, ["a/p, study after", "a/p, study before"]);
        assert_eq!(studies.iter().map(Study::is_positive).collect::<Vec<_>>(), [false, true]);
        assert_eq!(studies[0].slices.iter().map(|case| case.score).collect::<Vec<_>>(), [0.1, 0.2]);
        assert_eq!(studies.iter().map(|study| study.is_ordered).collect::<Vec<_>>(), [true, false]);
        // Still one patient of the interval.
        let decision = Decision {
            slice_threshold: 0.5,
            study_rule: StudyRule::TopKMean { k: 1, threshold: 0.5 },
            calibration: None,
            wanted_sensitivity: 0.9,
        };
        let evaluation = Evaluation::of(&studies, &decision, 1);
        assert_eq!((evaluation.patients, evaluation.studies.cases), (1, 2));

        // Of an older index, which names no study, a patient is one.
        let old: Vec<Slice> = slices.map(|slice| Slice { study: None, series: None, ..slice }).into();
        let studies = Study::group(&old.iter().collect::<Vec<_>>(), &[0.9, 0.2, 0.3, 0.1]);
        assert_eq!((studies.len(), studies[0].name().as_str()), (1, "a/p"));
    }

    #[test]
    fn one_class_decides_nothing() {
        let mut studies = studies();
        studies.truncate(5);
        assert_eq!(decide(&studies, 0.9), None);
    }

    #[test]
    fn an_evaluation_counts_patients_slices_and_studies() {
        let decision = decide(&studies(), 0.9).expect("both classes");
        let evaluation = Evaluation::of(&studies(), &decision, 1);
        assert_eq!((evaluation.patients, evaluation.slices.cases, evaluation.studies.cases), (10, 200, 10));
        assert_eq!((evaluation.slices.positives, evaluation.studies.positives), (20, 4));
        assert_eq!(evaluation.studies.sensitivity.map(|found| found.value), Some(1.0));
        assert!(
            evaluation.table().contains("| TN, FP, FN, TP | 178, 2, 0, 20 | 6, 0, 0, 4 |"),
            "{}",
            evaluation.table()
        );
    }
}
