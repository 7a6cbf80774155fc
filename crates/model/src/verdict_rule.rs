//! The rule that a verdict was given by, as it is kept beside it.

use serde::{Deserialize, Serialize};

use crate::{Sequence, StudyRule};

/// A study rule over slices, or a sequence network over series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum VerdictRule {
    Slices(StudyRule),
    Sequence(SequenceRule),
}

/// A sequence network that gave a verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SequenceRule {
    kind: Kind,
    pub file: String,
    pub sha256: String,
    pub spacing_mm: f64,
    pub slice_threshold: f64,
    pub threshold: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Sequence,
}

impl From<&Sequence> for VerdictRule {
    fn from(sequence: &Sequence) -> VerdictRule {
        VerdictRule::Sequence(SequenceRule {
            kind: Kind::Sequence,
            file: sequence.file.clone(),
            sha256: sequence.sha256.clone(),
            spacing_mm: sequence.spacing_mm,
            slice_threshold: sequence.slice_threshold,
            threshold: sequence.threshold,
        })
    }
}

impl VerdictRule {
    /// As it is kept: JSON, a study rule as in the card.
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("a rule is names and numbers")
    }

    /// The kept text for people; none where a later version wrote something else.
    pub fn words_of(json: &str) -> Option<String> {
        Some(serde_json::from_str::<VerdictRule>(json).ok()?.words())
    }

    /// For people.
    pub fn words(&self) -> String {
        let nth = |k: u32| match k {
            1 => "the highest slice".into(),
            2 => "the 2nd highest slice".into(),
            3 => "the 3rd highest slice".into(),
            k => format!("the {k}th highest slice"),
        };
        match self {
            VerdictRule::Slices(StudyRule::TopKMean { k: 1, .. }) => nth(1),
            VerdictRule::Slices(StudyRule::TopKMean { k, .. }) => format!("the mean of the {k} highest slices"),
            VerdictRule::Slices(StudyRule::KthHighest { k, .. }) => nth(*k),
            VerdictRule::Slices(StudyRule::NoisyOr { .. }) => "noisy-or over the slices".into(),
            VerdictRule::Sequence(rule) => format!("the sequence network {} over whole series", rule.file),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_study_rule_is_kept_as_in_the_card_and_a_sequence_is_told_from_it() {
        let rule = StudyRule::TopKMean { k: 3, threshold: 0.5 };
        let kept = VerdictRule::Slices(rule).json();
        assert_eq!(kept, serde_json::to_string(&rule).expect("JSON"));
        assert_eq!(VerdictRule::words_of(&kept).as_deref(), Some("the mean of the 3 highest slices"));
        let sequence = Sequence {
            file: "m-sequence.onnx".into(),
            sha256: "0".repeat(64),
            input: "series".into(),
            slice_output: "a".into(),
            series_output: "b".into(),
            spacing_mm: 5.0,
            slice_threshold: 0.25,
            threshold: 0.5,
            early_threshold: None,
        };
        let kept = VerdictRule::from(&sequence).json();
        assert!(kept.starts_with(r#"{"kind":"sequence","file":"m-sequence.onnx","#), "{kept}");
        let words = VerdictRule::words_of(&kept);
        assert_eq!(words.as_deref(), Some("the sequence network m-sequence.onnx over whole series"));
        assert_eq!(VerdictRule::words_of(r#"{"kind":"vote"}"#), None);
        assert_eq!(VerdictRule::words_of("{}"), None);
    }
}
