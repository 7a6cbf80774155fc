//! A trial of a loaded model on phantoms: what would fail on patients' slices fails here, before any has come.

use triaged_imaging::model_input;
use triaged_imaging::phantom::{Lesion, PhantomSpec, series};

use super::engine::Engine;
use super::error::EngineError;
use triaged_model::{ModelCard, SeriesInput, SeriesPlace};

/// Slices of each phantom.
const SLICES: u32 = 8;

/// A model's answers about phantoms' slices.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trial {
    pub slices: usize,
    /// The highest probability of a healthy head's slices, and of a bleeding one's.
    pub healthy: f64,
    pub bleeding: f64,
    /// From which probability on the card has a slice positive.
    pub slice_threshold: f64,
    /// The sequence network's probability of the healthy series, and of the bleeding one, and from which on the
    /// card flags one, where it has such a network.
    pub series: Option<(f64, f64, f64)>,
}

/// The advice for whoever made a model whose values are wrong.
const WRONG_MAP: &str = "the heat map has values that are not between 0 and 1 (it needs a sigmoid at its end, too)";

impl Engine {
    /// Scores a healthy and a bleeding phantom, slice by slice, by the card's own transform.
    ///
    /// # Errors
    /// [`EngineError::Run`] for what would fail slices in a node: a model that gives logits where the card promises
    /// probabilities passes a blank slice, and fails on a head; so does one whose heat map is none.
    pub fn trial(&mut self) -> Result<Trial, EngineError> {
        let ModelCard { transform, heat_map, sequence, slice_threshold, .. } = self.info().card;
        let network = self.sequence();
        // The highest probability of a slice, and the probability of the series.
        let mut score = |lesion| -> Result<(f64, Option<f64>), EngineError> {
            let mut places = Vec::new();
            for object in series(&PhantomSpec { slices: SLICES, lesion, seed: 1 }) {
                let tensor = model_input(&object, 0, &transform)
                    .map_err(|error| EngineError::Run(format!("a phantom cannot be brought to its input: {error}")))?;
                for answer in self.first_lane().answer(&[&tensor])? {
                    if heat_map.is_some() && answer.heat_map.is_none() {
                        return Err(EngineError::Run(WRONG_MAP.into()));
                    }
                    places.push(SeriesPlace { position: None, probability: Some(answer.probability) });
                }
            }
            let highest = places.iter().filter_map(|place| place.probability).fold(0.0_f64, f64::max);
            let (Some(network), Some(card)) = (&network, &sequence) else { return Ok((highest, None)) };
            let read = network.read(&SeriesInput::new(&[places], card.spacing_mm));
            let read = read.map_err(|why| EngineError::Run(format!("the sequence network {}: {why}", card.file)))?;
            Ok((highest, Some(read.series)))
        };
        let ((healthy, healthy_series), (bleeding, bleeding_series)) = (score(None)?, score(Some(Lesion::Epidural))?);
        let threshold = sequence.as_ref().map(|sequence| sequence.threshold);
        let series = healthy_series.zip(bleeding_series).zip(threshold);
        let series = series.map(|((healthy, bleeding), threshold)| (healthy, bleeding, threshold));
        Ok(Trial { slices: 2 * SLICES as usize, healthy, bleeding, slice_threshold, series })
    }
}
