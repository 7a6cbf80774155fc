//! The figures of slices and studies by a decision.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::decision::Decision;
use super::study::Study;
use crate::metrics::{Case, Figures, Interval, answers, judged_figures};

/// Bootstrap samples behind each interval.
pub const ROUNDS: usize = 2000;

/// Slice and study figures with intervals by patient.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    pub patients: usize,
    pub slices: Figures,
    pub studies: Figures,
}

impl Evaluation {
    /// Figures of studies that one decision judges.
    pub fn of(studies: &[Study], decision: &Decision, seed: u64) -> Self {
        Self::pooled(&studies.iter().map(|study| (study, *decision)).collect::<Vec<_>>(), decision, seed)
    }

    /// Figures of studies each of which has a decision of its own. Counts and what follows from them are by those, calibration
    /// included; the areas under the curves are over the scores on the one scale of `decision`, the studies' by its rule. A fold's own
    /// calibration is made on the others: where their scores are high, the fold's are low beside them, and are lowered further. That
    /// disorders folds whose scores are alike. Intervals are by patient, who may have several studies: their own, or of a
    /// split by image one in each fold.
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
            patient.verdicts.extend(answers(&[calibrated.case(&own.study_rule)], own.study_rule.threshold()));
            let on_one_scale = study.calibrated(decision.calibration.as_ref());
            patient.studies.push(on_one_scale.case(&decision.study_rule));
            patient.slices.extend(on_one_scale.slices);
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
