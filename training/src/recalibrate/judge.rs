//! What judges a study by a card, and so whose threshold is chosen: its sequence network, or where it has none its study rule.

use triaged_model::{ModelCard, SeriesScores};

use super::choice::Choice;
use super::studies::{Labelled, of_scored_slices};
use crate::data::Slice;
use crate::describe;
use crate::runtime::{OnnxModel, RuntimeError};
use crate::sequence::{ByBoth, Series, early_threshold};

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
            "a series is flagged when its sequence network gives it a probability of at least {:.4}, and a study with it; early alerts are \
             given from a score of {:.4} by the study rule.",
            sequence.threshold,
            card.early_rule().threshold()
        ),
    }
}

/// Why a sequence network gives no score.
#[derive(Debug, thiserror::Error)]
pub enum SequenceError {
    #[error("the sequence network fails on a series of {slices} slices: {source}")]
    Runtime { slices: usize, source: RuntimeError },
    #[error("the sequence network says of a series of {slices} slices what is no score: {why}")]
    Scores { slices: usize, why: String },
}

/// Studies of scored slices, by the card's judge; `sequence` is the card's sequence network, where it has one.
///
/// # Errors
/// [`SequenceError`].
pub fn of_slices(
    slices: &[(&Slice, f64)],
    card: &ModelCard,
    sequence: Option<&mut OnnxModel>,
) -> Result<Vec<Labelled>, SequenceError> {
    // In the order of patient and study, as the series are.
    let mut studies = of_scored_slices(slices, &card.study_rule);
    let (Some(of), Some(network)) = (&card.sequence, sequence) else { return Ok(studies) };
    for study in &mut studies {
        (study.early, study.score) = (Some(study.score), 0.0);
    }
    let mut last: Option<(String, Option<String>)> = None;
    let mut place = 0;
    for series in Series::group(slices.iter().copied()) {
        let input = series.input(None, of.spacing_mm);
        let count = series.slices.len();
        let [bins, said] = network
            .of_series(&input, [&of.slice_output, &of.series_output])
            .map_err(|source| SequenceError::Runtime { slices: count, source })?;
        let scores =
            SeriesScores::new(&bins, &said, &input).map_err(|why| SequenceError::Scores { slices: count, why })?;
        let key = (series.patient, series.study);
        place += usize::from(last.as_ref().is_some_and(|last| *last != key));
        last = Some(key);
        // As the node does: a study is flagged if one of its series is.
        studies[place].score = studies[place].score.max(scores.series);
    }
    Ok(studies)
}

/// The threshold of early alerts beside a chosen one of the sequence network, and what to say of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Early {
    /// The lowest from which on the sequence network confirms all early alerts on the site's studies.
    Chosen(f64),
    /// That of before: whatever was confirmed by a higher threshold is confirmed by a lower one.
    Kept,
    /// None are given: by the higher threshold the sequence network may not confirm them, and the table does not tell.
    Off,
}

impl Early {
    /// None for a card without a sequence network.
    pub fn of(card: &ModelCard, studies: &[Labelled], choice: &Choice) -> Option<Early> {
        let sequence = card.sequence.as_ref()?;
        let both = |study: &Labelled| Some(ByBoth { rule: study.early?, flagged: study.score >= choice.threshold });
        let by_both: Option<Vec<ByBoth>> = studies.iter().map(both).collect();
        Some(match by_both {
            Some(studies) => Early::Chosen(early_threshold(&studies, card.study_rule.threshold())),
            None if choice.threshold <= sequence.threshold => Early::Kept,
            None => Early::Off,
        })
    }

    /// For the card: none where it stays.
    pub fn threshold(self) -> Option<f64> {
        match self {
            Early::Chosen(threshold) => Some(threshold),
            Early::Kept => None,
            // A mean of probabilities reaches it where all of them are 1.
            Early::Off => Some(1.0),
        }
    }

    pub fn warning(self) -> Option<String> {
        (self == Early::Off).then(|| {
            "early alerts are off (early_threshold 1): the new threshold is higher, and a table of studies does not tell which early alerts the \
             sequence network would still confirm. Flagged studies are told when they are complete. With --data FOLDER early alerts get a \
             threshold of their own"
                .into()
        })
    }
}
