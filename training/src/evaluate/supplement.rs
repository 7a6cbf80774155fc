//! The figures that stand beside those of all patients.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::decision::Decision;
use super::department::Department;
use super::evaluation::Evaluation;
use super::rules::Compared;
use super::strata::Stratum;
use super::study::Study;
use crate::calibration::{Calibrated, Reliability};
use crate::metrics::{Case, answers};

/// Figures that are told beside those of all patients.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Supplement {
    /// Figures of each source's patients, where several sources are measured.
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
    /// The verdicts as a department would see them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub department: Option<Department>,
    /// By kind and size of the bleed; put in by who knows the slices' labels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub strata: Vec<Stratum>,
}

/// By patient, whether each study is flagged by its own decision.
fn verdicts(judged: &[(&Study, Decision)]) -> Vec<Vec<Case>> {
    let mut patients: BTreeMap<&str, Vec<Case>> = BTreeMap::new();
    for (study, own) in judged {
        let case = study.calibrated(own.calibration.as_ref()).case(&own.study_rule);
        patients.entry(&study.patient).or_default().extend(answers(&[case], own.study_rule.threshold()));
    }
    patients.into_values().collect()
}

impl Supplement {
    /// The sources and the reliability of judged studies. Rules and flips are put in by the caller that has them.
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
            department: Department::of(&verdicts(judged), seed),
            strata: Vec::new(),
        }
    }
}
