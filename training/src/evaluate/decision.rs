//! When to flag: calibration, slice threshold and study rule, chosen on validation patients.

use serde::{Deserialize, Serialize};
use triaged_model::StudyRule;

use super::choose::choose;
use super::operating_point::{Choosing, OperatingPoint, Reached};
use super::study::{Study, slices};
use crate::calibration::Platt;
use crate::metrics::best_f2_threshold;

/// The share of validation patients with hemorrhage that a study rule must flag where a recipe does not say. On further
/// patients it is that or less as often as more: who wants so much there asks for more here.
pub const WANTED_SENSITIVITY: f64 = 0.9;

/// The card's rules for flagging, and the calibration that makes probabilities of the network's scores.
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
    /// The threshold's further condition.
    #[serde(default)]
    pub operating_point: OperatingPoint,
    /// What the threshold reaches of both shares, where both were asked for. None in decisions of before it was noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<Reached>,
}

impl Decision {
    /// Whether another decision judges alike: what was noted of it beside that may differ.
    pub fn judges_as(&self, other: &Self) -> bool {
        Self { reached: None, ..*self } == Self { reached: None, ..*other }
    }

    /// That both shares were asked for and could not be had.
    pub fn warning(&self) -> Option<String> {
        let reached = self.reached.filter(|reached| reached.by_sensitivity_alone)?;
        Some(format!("the study rule's threshold: {}", reached.text().replace("**", "")))
    }

    /// How it was chosen.
    pub fn choosing(&self) -> Choosing {
        Choosing { sensitivity: self.wanted_sensitivity, point: self.operating_point }
    }
}

/// Decisions of before it could be asked for have none.
fn wanted() -> f64 {
    WANTED_SENSITIVITY
}

/// Decides on validation studies, by the network's own scores: a calibration, and of the calibrated scores the slice
/// threshold and the study rule (`choose.rs`). None where the studies, or their slices, lack a class.
pub fn decide(studies: &[Study], choosing: impl Into<Choosing>) -> Option<Decision> {
    let choosing = choosing.into();
    let calibration = Platt::fit(&slices(studies));
    let studies: Vec<Study> = studies.iter().map(|study| study.calibrated(calibration.as_ref())).collect();
    let (slice_threshold, _) = best_f2_threshold(&slices(&studies))?;
    let (study_rule, reached) = choose(&studies, choosing)?;
    Some(Decision {
        slice_threshold,
        study_rule,
        calibration,
        wanted_sensitivity: choosing.sensitivity,
        operating_point: choosing.point,
        reached,
    })
}
