//! The study rule: how the probabilities of a study's slices become one score and a flag.
//!
//! Every rule is monotone: a further slice, or a higher probability, never lowers the score. So a provisional alert,
//! given as soon as the slices scored so far suffice, is never contradicted by those that follow.

use serde::{Deserialize, Serialize};

/// The rule and its threshold, chosen by training on validation patients and carried in the model card.
/// A study is flagged when its score is at least the threshold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum StudyRule {
    /// Score: the mean of the `k` highest probabilities; slices that are missing to make `k` count as zero.
    TopKMean { k: u32, threshold: f64 },
    /// Score: the probability of the `k`-th highest slice, so at least `k` slices reach the threshold.
    KthHighest { k: u32, threshold: f64 },
}

/// What a rule says of a study.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judgement {
    pub score: f64,
    pub threshold: f64,
    pub flagged: bool,
}

impl StudyRule {
    pub fn threshold(&self) -> f64 {
        match *self {
            StudyRule::TopKMean { threshold, .. } | StudyRule::KthHighest { threshold, .. } => threshold,
        }
    }

    /// Judges the probabilities of a study's scored slices, in any order. No slices: score 0, not flagged.
    pub fn judge(&self, probabilities: &[f64]) -> Judgement {
        let mut sorted = probabilities.to_vec();
        sorted.sort_unstable_by(|a, b| b.total_cmp(a));
        let score = match *self {
            StudyRule::TopKMean { k, .. } => sorted.iter().take(k as usize).sum::<f64>() / f64::from(k),
            StudyRule::KthHighest { k, .. } => sorted.get(k as usize - 1).copied().unwrap_or(0.0),
        };
        let threshold = self.threshold();
        Judgement { score, threshold, flagged: !sorted.is_empty() && score >= threshold }
    }

    /// Whether the rule's numbers make sense: `k` at least 1, threshold above 0 and at most 1.
    pub fn check(&self) -> Result<(), String> {
        let (StudyRule::TopKMean { k, threshold } | StudyRule::KthHighest { k, threshold }) = *self;
        if k == 0 {
            return Err("the study rule's k is 0".into());
        }
        if !(threshold > 0.0 && threshold <= 1.0) {
            return Err(format!("the study rule's threshold {threshold} is not above 0 and at most 1"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn top_k_mean_counts_missing_slices_as_zero() {
        let rule = StudyRule::TopKMean { k: 4, threshold: 0.5 };
        assert_eq!(rule.judge(&[0.9, 0.9]).score, 0.45);
        assert!(!rule.judge(&[0.9, 0.9]).flagged);
        assert!(rule.judge(&[0.1, 0.9, 0.6, 0.5, 0.3]).flagged);
    }

    #[test]
    fn a_study_without_slices_is_never_flagged() {
        for rule in [StudyRule::TopKMean { k: 1, threshold: 0.1 }, StudyRule::KthHighest { k: 2, threshold: 0.1 }] {
            assert!(!rule.judge(&[]).flagged);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(StudyRule::TopKMean { k: 0, threshold: 0.5 }.check().is_err());
        assert!(StudyRule::KthHighest { k: 1, threshold: 0.0 }.check().is_err());
        assert!(StudyRule::KthHighest { k: 1, threshold: f64::NAN }.check().is_err());
    }

    proptest! {
        #[test]
        fn a_further_slice_never_lowers_the_score(
            mut slices in proptest::collection::vec(0.0f64..=1.0, 0..40), further in 0.0f64..=1.0, k in 1u32..8,
        ) {
            for rule in [StudyRule::TopKMean { k, threshold: 0.5 }, StudyRule::KthHighest { k, threshold: 0.5 }] {
                let before = rule.judge(&slices).score;
                slices.push(further);
                prop_assert!(rule.judge(&slices).score >= before - 1e-12);
            }
        }
    }
}
