//! Studies of scored slices, judged by a card: by its sequence network, or where it has none by its study rule.

use triaged_model::{ModelCard, SeriesScores};

use super::studies::{Labelled, of_scored_slices};
use crate::data::Slice;
use crate::runtime::{OnnxModel, RuntimeError};
use crate::sequence::Series;

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
