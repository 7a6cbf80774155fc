//! A study's scored slices.

use std::collections::{BTreeMap, HashMap};

use triaged_model::StudyRule;

use crate::calibration::Platt;
use crate::data::Slice;
use crate::metrics::Case;

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

/// All studies' slices.
pub fn slices(studies: &[Study]) -> Vec<Case> {
    studies.iter().flat_map(|study| study.slices.iter().copied()).collect()
}

/// The places of each patient's studies, in the order in which patients first come.
pub(super) fn by_patient(studies: &[Study]) -> Vec<Vec<usize>> {
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

/// Cases of studies, by patient.
pub(super) fn of_patients(patients: &[Vec<usize>], cases: &[Case]) -> Vec<Vec<Case>> {
    patients.iter().map(|studies| studies.iter().map(|&i| cases[i]).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::tests::studies;

    #[test]
    fn studies_of_one_patient_stay_together() {
        let mut studies = studies(&[(true, &[0.9]), (false, &[0.1]), (true, &[0.8]), (false, &[0.2])]);
        studies[2].patient = studies[0].patient.clone();
        assert_eq!(by_patient(&studies), [vec![0, 2], vec![1], vec![3]]);
    }
}
