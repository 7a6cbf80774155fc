//! Training: all series at once, for a fixed number of steps, drawn back to the smoothing that the network begins with.

use burn::backend::autodiff::Autodiff;
use burn::backend::flex::Flex;
use burn::module::AutodiffModule;
use burn::optim::{AdamConfig, GradientsParams, Optimizer};
use burn::tensor::{ElementConversion, Tensor, TensorData, activation};
use serde::{Deserialize, Serialize};
use triaged_model::SeriesInput;

use super::network::{Logits, SequenceNetwork};

/// How the network is trained.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Length of a bin in mm.
    pub spacing_mm: f64,
    pub steps: usize,
    pub learning_rate: f64,
    /// What the squared distance to the untrained network costs, beside the mean cross-entropies.
    pub decay: f64,
    /// What the mean cross-entropy of series counts beside that of bins.
    pub series_weight: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { spacing_mm: 5.0, steps: 200, learning_rate: 0.02, decay: 0.1, series_weight: 0.2 }
    }
}

/// A series to learn from.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    pub input: SeriesInput,
    /// Whether a slice of a bin has the finding, of each bin.
    pub positive: Vec<bool>,
}

type Backend = Autodiff<Flex>;

/// Series as one batch, the shorter ones filled up with empty bins, and what is known of them.
struct Batch {
    input: Tensor<Backend, 3>,
    positive: Tensor<Backend, 2>,
    present: Tensor<Backend, 2>,
    series: Tensor<Backend, 2>,
}

impl Batch {
    fn new(examples: &[Example]) -> Self {
        let bins = examples.iter().map(|example| example.input.len()).max().unwrap_or(0);
        let (mut input, mut positive, mut present, mut series) = (vec![], vec![], vec![], vec![]);
        for Example { input: of_series, positive: labels } in examples {
            let values = of_series.values();
            let padded =
                |part: &[f32]| part.iter().copied().chain(std::iter::repeat(0.0)).take(bins).collect::<Vec<_>>();
            let (logits, there) = values.split_at(of_series.len());
            input.extend([padded(logits), padded(there)].concat());
            present.extend(padded(there));
            positive.extend(padded(&labels.iter().map(|label| f32::from(u8::from(*label))).collect::<Vec<_>>()));
            series.push(f32::from(u8::from(labels.contains(&true))));
        }
        let (count, device) = (examples.len(), Default::default());
        let matrix = |values: Vec<f32>, columns| Tensor::from_data(TensorData::new(values, [count, columns]), &device);
        Self {
            input: Tensor::from_data(TensorData::new(input, [count, 2, bins]), &device),
            positive: matrix(positive, bins),
            present: matrix(present, bins),
            series: matrix(series, 1),
        }
    }

    fn loss(&self, network: &SequenceNetwork<Backend>, series_weight: f64) -> Tensor<Backend, 1> {
        let Logits { bins, series } = network.forward(self.input.clone());
        let of_bins = cross_entropy(bins, self.positive.clone()) * self.present.clone();
        let of_bins = of_bins.sum() / self.present.clone().sum();
        of_bins + cross_entropy(series, self.series.clone()).mean() * series_weight
    }
}

/// Of logits, in the form that does not overflow.
fn cross_entropy(logits: Tensor<Backend, 2>, target: Tensor<Backend, 2>) -> Tensor<Backend, 2> {
    let softplus = activation::relu(logits.clone()) + (logits.clone().abs().neg().exp() + 1.0).log();
    softplus - logits * target
}

/// The trained network, and its loss before and after. The same examples and settings give the same network. None where there
/// is nothing to learn from, or the loss is no number.
pub fn fit(examples: &[Example], settings: &Settings) -> Option<(SequenceNetwork<Flex>, [f64; 2])> {
    if examples.iter().all(|example| example.input.is_empty()) {
        return None;
    }
    let batch = Batch::new(examples);
    let begun = SequenceNetwork::<Backend>::new(&Default::default());
    let mut network = begun.clone();
    let mut adam = AdamConfig::new().init::<Backend, SequenceNetwork<Backend>>();
    let value = |network: &SequenceNetwork<Backend>| -> f64 {
        batch.loss(network, settings.series_weight).into_scalar().elem()
    };
    let before = value(&network);
    for step in 0..settings.steps {
        let loss = batch.loss(&network, settings.series_weight) + network.distance(&begun) * settings.decay;
        let gradients = GradientsParams::from_grads(loss.backward(), &network);
        // Falls to 0, so that the last steps settle.
        let rate = settings.learning_rate * (1.0 - step as f64 / settings.steps as f64);
        network = adam.step(rate, network, gradients);
    }
    let after = value(&network);
    (before.is_finite() && after.is_finite()).then(|| (network.valid(), [before, after]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use triaged_model::SeriesPlace;

    /// Series in which three neighbours with a middling score bleed, and a single slice with a high one does not.
    fn examples() -> Vec<Example> {
        let series = |number: usize| {
            let bleeds = number.is_multiple_of(2);
            let at = 4 + number % 9;
            let hit = |i: usize| if bleeds { i.abs_diff(at) <= 1 } else { i == at };
            let place = |i: usize| SeriesPlace {
                position: None,
                probability: Some(if hit(i) { if bleeds { 0.5 } else { 0.8 } } else { 0.05 + 0.01 * (i % 3) as f64 }),
            };
            let places: Vec<SeriesPlace> = (0..18).map(place).collect();
            Example { input: SeriesInput::new(&[places], 5.0), positive: (0..18).map(|i| bleeds && hit(i)).collect() }
        };
        (0..24).map(series).collect()
    }

    #[test]
    fn it_learns_that_neighbours_count_and_repeats() {
        let settings = Settings { decay: 0.001, ..Settings::default() };
        let (network, [before, after]) = fit(&examples(), &settings).expect("series");
        assert!(after < 0.8 * before, "{before} {after}");
        let again = fit(&examples(), &settings).expect("series").0;
        let kernel =
            |network: &SequenceNetwork<Flex>| network.smoothing_kernel().into_data().to_vec::<f32>().expect("f32");
        assert_eq!(kernel(&network), kernel(&again));
    }

    #[test]
    fn a_strong_decay_leaves_the_smoothing_and_nothing_teaches_nothing() {
        let strong = Settings { decay: 1e4, learning_rate: 1e-4, ..Settings::default() };
        let (network, _) = fit(&examples(), &strong).expect("series");
        let kernel = network.smoothing_kernel().into_data().to_vec::<f32>().expect("f32");
        assert!(kernel.iter().zip([0.1, 0.2, 0.4, 0.2, 0.1]).all(|(a, b)| (a - b).abs() < 0.01), "{kernel:?}");
        assert!(fit(&[], &Settings::default()).is_none());
    }
}
