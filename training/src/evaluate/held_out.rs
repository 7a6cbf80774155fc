//! The figures of a run that held patients back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::decision::{Decision, decide};
use super::evaluation::Evaluation;
use super::operating_point::Choosing;
use super::rules::{Compared, compare};
use super::study::Study;
use super::supplement::Supplement;

/// A run's decision, and its figures on the patients it was made on and on those nobody has seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeldOut {
    pub decision: Decision,
    pub validation: Evaluation,
    pub test: Evaluation,
    /// Figures of the test patients, except those of the rules.
    #[serde(flatten)]
    pub supplement: Supplement,
}

/// Into how many parts validation patients are divided to compare rules on them.
const PARTS: usize = 5;

impl HeldOut {
    /// Decides on validation studies and measures both. None where the validation studies lack a class.
    pub fn of(validation: &[Study], test: &[Study], choosing: impl Into<Choosing>, seed: u64) -> Option<Self> {
        let decision = decide(validation, choosing)?;
        let judged: Vec<(&Study, Decision)> = test.iter().map(|study| (study, decision)).collect();
        let supplement = Supplement {
            study_rules: compare_within(validation, &decision, seed),
            ..Supplement::of(&judged, &decision, seed)
        };
        Some(Self {
            decision,
            validation: Evaluation::of(validation, &decision, seed),
            test: Evaluation::of(test, &decision, seed),
            supplement,
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
        (0..parts.len()).map(|part| decide(&others(part), decision.choosing())).collect();
    decisions.map_or(Vec::new(), |decisions| compare(&parts, &decisions, decision, seed))
}
