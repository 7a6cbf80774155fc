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
    /// Score: the probability that at least one slice is positive, were the slices independent: 1 − Π(1 − p). They are
    /// not, so it grows with their number; the threshold is far above a slice's.
    NoisyOr { threshold: f64 },
}

/// A head CT has fewer slices than this, so a rule that wants so many flags nobody.
const TOO_MANY: u32 = 1024;

/// A rule's answer about a study.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judgement {
    pub score: f64,
    pub threshold: f64,
    pub flagged: bool,
}

impl StudyRule {
    pub fn threshold(&self) -> f64 {
        match *self {
            StudyRule::TopKMean { threshold, .. }
            | StudyRule::KthHighest { threshold, .. }
            | StudyRule::NoisyOr { threshold } => threshold,
        }
    }

    /// The same rule with another threshold.
    pub fn with_threshold(self, threshold: f64) -> StudyRule {
        match self {
            StudyRule::TopKMean { k, .. } => StudyRule::TopKMean { k, threshold },
            StudyRule::KthHighest { k, .. } => StudyRule::KthHighest { k, threshold },
            StudyRule::NoisyOr { .. } => StudyRule::NoisyOr { threshold },
        }
    }

    /// Judges the probabilities of a study's scored slices, in any order. No slices: score 0, not flagged.
    pub fn judge(&self, probabilities: &[f64]) -> Judgement {
        let mut sorted = probabilities.to_vec();
        sorted.sort_unstable_by(|a, b| b.total_cmp(a));
        let score = match *self {
            StudyRule::TopKMean { k, .. } => sorted.iter().take(k as usize).sum::<f64>() / f64::from(k),
            StudyRule::KthHighest { k, .. } => sorted.get(k as usize - 1).copied().unwrap_or(0.0),
            StudyRule::NoisyOr { .. } => 1.0 - sorted.iter().map(|probability| 1.0 - probability).product::<f64>(),
        };
        let threshold = self.threshold();
        Judgement { score, threshold, flagged: !sorted.is_empty() && score >= threshold }
    }

    /// Whether the rule's numbers make sense: `k` from 1 to 1,023, threshold above 0 and at most 1.
    pub fn check(&self) -> Result<(), String> {
        if let StudyRule::TopKMean { k: 0, .. } | StudyRule::KthHighest { k: 0, .. } = self {
            return Err("the study rule's k is 0".into());
        }
        if let StudyRule::TopKMean { k: k @ TOO_MANY.., .. } | StudyRule::KthHighest { k: k @ TOO_MANY.., .. } = self {
            return Err(format!("the study rule's k is {k}: no study would ever be flagged"));
        }
        let threshold = self.threshold();
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
        for rule in [
            StudyRule::TopKMean { k: 1, threshold: 0.1 },
            StudyRule::KthHighest { k: 2, threshold: 0.1 },
            StudyRule::NoisyOr { threshold: 0.1 },
        ] {
            assert!(!rule.judge(&[]).flagged);
        }
    }

    #[test]
    fn noisy_or_is_the_chance_of_any() {
        let rule = StudyRule::NoisyOr { threshold: 0.75 };
        // 1 − ½ · ½, exactly the threshold; in any order, and slices of 0 add nothing.
        assert_eq!(rule.judge(&[0.5, 0.5]), Judgement { score: 0.75, threshold: 0.75, flagged: true });
        assert_eq!(rule.judge(&[0.0, 0.5, 0.0, 0.5]).score, 0.75);
        assert_eq!(rule.judge(&[0.25, 1.0, 0.5]).score, 1.0);
        assert!(!rule.judge(&[0.5]).flagged);
        let card = r#"{"kind": "noisy_or", "threshold": 0.75}"#;
        assert_eq!(serde_json::from_str::<StudyRule>(card).expect("a rule"), rule);
        assert!(serde_json::from_str::<StudyRule>(r#"{"kind": "noisy_or", "k": 2, "threshold": 0.75}"#).is_err());
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(StudyRule::TopKMean { k: 0, threshold: 0.5 }.check().is_err());
        assert!(StudyRule::KthHighest { k: 1, threshold: 0.0 }.check().is_err());
        assert!(StudyRule::KthHighest { k: 0, threshold: 0.5 }.check().is_err());
        assert!(StudyRule::KthHighest { k: 1, threshold: f64::NAN }.check().is_err());
        for k in [1024, u32::MAX] {
            let why = StudyRule::KthHighest { k, threshold: 0.5 }.check().unwrap_err();
            assert!(why.contains(&format!("k is {k}")) && why.contains("no study would ever be flagged"), "{why}");
            assert!(StudyRule::TopKMean { k, threshold: 0.5 }.check().is_err());
        }
        assert!(StudyRule::NoisyOr { threshold: 1.5 }.check().is_err());
        assert!(StudyRule::NoisyOr { threshold: 1.0 }.check().is_ok());
    }

    fn rules(k: u32) -> [StudyRule; 3] {
        let threshold = 0.5;
        [StudyRule::TopKMean { k, threshold }, StudyRule::KthHighest { k, threshold }, StudyRule::NoisyOr { threshold }]
    }

    proptest! {
        #[test]
        fn a_further_slice_never_lowers_the_score(
            mut slices in proptest::collection::vec(0.0f64..=1.0, 0..40), further in 0.0f64..=1.0, k in 1u32..8,
        ) {
            for rule in rules(k) {
                let before = rule.judge(&slices).score;
                slices.push(further);
                prop_assert!(rule.judge(&slices).score >= before - 1e-12);
            }
        }

        #[test]
        fn a_higher_probability_never_lowers_the_score_and_no_order_changes_it(
            mut slices in proptest::collection::vec(0.0f64..=1.0, 1..40), place in any::<prop::sample::Index>(),
            up in 0.0f64..=1.0, k in 1u32..8,
        ) {
            for rule in rules(k) {
                let before = rule.judge(&slices).score;
                prop_assert!((0.0..=1.0).contains(&before));
                let turned: Vec<f64> = slices.iter().rev().copied().collect();
                prop_assert_eq!(rule.judge(&turned).score, before);
                let place = place.index(slices.len());
                slices[place] += up * (1.0 - slices[place]);
                prop_assert!(rule.judge(&slices).score >= before - 1e-12);
            }
        }
    }
}
