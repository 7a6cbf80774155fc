//! What judges a study by a card, and so whose threshold is chosen: its sequence network, or where it has none its study rule.

use triaged_model::ModelCard;

use crate::describe;

/// A threshold of the study rule's score that means no early alerts: only a score of 1 itself still gives one.
pub const OFF: f64 = 1.0;

/// The threshold of a card's verdicts on studies.
pub fn threshold(card: &ModelCard) -> f64 {
    card.sequence.as_ref().map_or(card.study_rule.threshold(), |sequence| sequence.threshold)
}

/// The card with other thresholds. `early` is for a card with a sequence network alone: that of the study rule's early alerts.
pub fn with_thresholds(card: &ModelCard, threshold: f64, early: Option<f64>) -> ModelCard {
    let mut card = card.clone();
    match &mut card.sequence {
        Some(sequence) => {
            sequence.threshold = threshold;
            sequence.early_threshold = early.or(sequence.early_threshold);
        }
        None => card.study_rule = card.study_rule.with_threshold(threshold),
    }
    card
}

/// In words, with the thresholds.
pub fn text(card: &ModelCard) -> String {
    match &card.sequence {
        None => describe::rule(&card.study_rule),
        Some(sequence) => format!(
            "a series is flagged when its sequence network gives it a probability of at least {:.4}, and a study with it; {}.",
            sequence.threshold,
            early_text(card)
        ),
    }
}

/// From which score of the study rule on early alerts are given, in words.
pub fn early_text(card: &ModelCard) -> String {
    match card.early_rule().threshold() {
        OFF => "early alerts are off".into(),
        threshold => format!("early alerts are given from a score of {threshold:.4} by the study rule"),
    }
}
