//! The network: a smoothing over neighbouring bins, a small correction by two convolutions, and a smooth maximum over the series.
//!
//! All kernels are symmetric, so a stack that was scanned from the neck up scores as one from the crown down. Empty bins have no part
//! in anything: the smoothing is the mean of the neighbours that are there.

use burn::module::{Module, Param};
use burn::tensor::backend::Backend;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Tensor, TensorData, activation, module};

/// Bins that a kernel spans.
pub const TAPS: usize = 5;
/// Own values of a symmetric kernel: the centre, the neighbours, those beyond.
const OWN: usize = TAPS.div_ceil(2);
/// Channels of the correction.
pub const CHANNELS: usize = 3;
/// What the correction reads: the smoothed logits, and where bins are not empty.
pub const READ: usize = 2;
/// Smoothed logits go into the correction by this much smaller.
pub const LOGIT_SCALE: f64 = 0.25;
/// The smoothing that it begins with, from the centre outwards.
const SMOOTHING: [f32; OWN] = [0.4, 0.2, 0.1];
/// Subtracted from an empty bin's logit where the highest is looked for.
pub const FAR: f64 = 1e4;
/// The least weight that a smoothing divides by: that of a bin without neighbours is more.
pub const LEAST: f64 = 1e-6;

/// The sequence network.
#[derive(Module, Debug)]
pub struct SequenceNetwork<B: Backend> {
    /// Logarithms of the smoothing's weights, `[OWN]`.
    pub smoothing: Param<Tensor<B, 1>>,
    /// `[CHANNELS, READ, OWN]`.
    pub first: Param<Tensor<B, 3>>,
    /// `[CHANNELS]`.
    pub first_bias: Param<Tensor<B, 1>>,
    /// `[1, CHANNELS, OWN]`.
    pub second: Param<Tensor<B, 3>>,
    /// Scale and shift of the smoothed logit, then of the series' logit.
    pub lines: Param<Tensor<B, 1>>,
}

/// Its answer in logits.
pub struct Logits<B: Backend> {
    /// `[series, bins]`; 0 where a bin is empty.
    pub bins: Tensor<B, 2>,
    /// `[series, 1]`.
    pub series: Tensor<B, 2>,
}

impl<B: Backend> SequenceNetwork<B> {
    /// Untrained: the smoothing, without a correction.
    pub fn new(device: &B::Device) -> Self {
        let parameter = |values: Vec<f32>| Tensor::<B, 1>::from_data(TensorData::from(values.as_slice()), device);
        // The correction is 0 until `second` has learned something; the channels must differ for that.
        let first: Vec<f32> = (0..CHANNELS * READ * OWN).map(|i| 0.4 * (1.0 + 2.3 * i as f32).sin()).collect();
        Self {
            smoothing: Param::from_tensor(parameter(SMOOTHING.map(f32::ln).to_vec())),
            first: Param::from_tensor(parameter(first).reshape([CHANNELS, READ, OWN])),
            first_bias: Param::from_tensor(parameter(vec![0.1; CHANNELS])),
            second: Param::from_tensor(parameter(vec![0.0; CHANNELS * OWN]).reshape([1, CHANNELS, OWN])),
            lines: Param::from_tensor(parameter(vec![1.0, 0.0, 1.0, 0.0])),
        }
    }

    /// The number of its parameters.
    pub fn parameters() -> usize {
        OWN + CHANNELS * READ * OWN + CHANNELS + CHANNELS * OWN + 4
    }

    /// The smoothing's kernel `[1, 1, TAPS]`; its values are above 0 and add up to 1.
    pub fn smoothing_kernel(&self) -> Tensor<B, 3> {
        activation::softmax(symmetric(self.smoothing.val().reshape([1, 1, OWN])), 2)
    }

    /// The correction's kernels `[CHANNELS, READ, TAPS]` and `[1, CHANNELS, TAPS]`.
    pub fn correction_kernels(&self) -> [Tensor<B, 3>; 2] {
        [symmetric(self.first.val()), symmetric(self.second.val())]
    }

    /// For series as [`triaged_model::SeriesInput`] makes them, `[series, 2, bins]`.
    pub fn forward(&self, input: Tensor<B, 3>) -> Logits<B> {
        let [series, _, bins] = input.dims();
        let present = input.clone().slice([0..series, 1..2, 0..bins]);
        let logits = input.slice([0..series, 0..1, 0..bins]) * present.clone();
        let conv = |x, kernel, bias| module::conv1d(x, kernel, bias, ConvOptions::new([1], [TAPS / 2], [1], 1));
        let kernel = self.smoothing_kernel();
        let weight = conv(present.clone(), kernel.clone(), None).clamp_min(LEAST);
        let smooth = conv(logits, kernel, None) / weight * present.clone();
        let [first, second] = self.correction_kernels();
        let read = Tensor::cat(vec![smooth.clone() * LOGIT_SCALE, present.clone()], 1);
        let hidden = activation::relu(conv(read, first, Some(self.first_bias.val())));
        // As beyond the ends of a series, which a batch fills up with empty bins.
        let correction = conv(hidden * present.clone(), second, None);
        let line = |at: usize| self.lines.val().narrow(0, at, 1).reshape([1, 1, 1]);
        let logits = (smooth * line(0) + line(1) + correction) * present.clone();
        // The mean of the logits, each weighted by its exponential: near the highest where one stands out.
        let highest = (logits.clone() + (present.clone() - 1.0) * FAR).max_dim(2).detach();
        // An empty bin's exponential must not overflow before it is taken for nothing.
        let weight = (logits.clone() - highest).clamp_max(0.0).exp() * present;
        let maximum = (weight.clone() * logits.clone()).sum_dim(2) / weight.sum_dim(2);
        let whole = maximum * line(2) + line(3);
        Logits { bins: logits.reshape([series, bins]), series: whole.reshape([series, 1]) }
    }

    /// Sum of the squared differences of all parameters to another network's.
    pub fn distance(&self, other: &Self) -> Tensor<B, 1> {
        fn squares<B: Backend, const D: usize>(a: &Param<Tensor<B, D>>, b: &Param<Tensor<B, D>>) -> Tensor<B, 1> {
            let difference = a.val() - b.val().detach();
            (difference.clone() * difference).sum()
        }
        squares(&self.smoothing, &other.smoothing)
            + squares(&self.first, &other.first)
            + squares(&self.first_bias, &other.first_bias)
            + squares(&self.second, &other.second)
            + squares(&self.lines, &other.lines)
    }
}

/// Kernels of `TAPS` from their own values, which lie in the last dimension from the centre outwards.
fn symmetric<B: Backend>(own: Tensor<B, 3>) -> Tensor<B, 3> {
    let [outputs, inputs, _] = own.dims();
    let tap = |at: usize| own.clone().slice([0..outputs, 0..inputs, at..at + 1]);
    Tensor::cat(vec![tap(2), tap(1), tap(0), tap(1), tap(2)], 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::flex::Flex;
    use triaged_model::{SeriesInput, SeriesPlace};

    type Network = SequenceNetwork<Flex>;

    fn said(network: &Network, logits: &[Option<f32>]) -> (Vec<f32>, f32) {
        let bins = logits.len();
        let values: Vec<f32> = logits
            .iter()
            .map(|l| l.unwrap_or(0.0))
            .chain(logits.iter().map(|l| if l.is_some() { 1.0 } else { 0.0 }))
            .collect();
        let input = Tensor::<Flex, 3>::from_data(TensorData::new(values, [1, 2, bins]), &Default::default());
        let Logits { bins, series } = network.forward(input);
        let values = |tensor: Tensor<Flex, 2>| tensor.into_data().to_vec::<f32>().expect("float32");
        (values(bins), values(series)[0])
    }

    /// A network whose correction is not 0.
    fn trained() -> Network {
        let mut network = Network::new(&Default::default());
        network.second = Param::from_tensor(network.second.val() + 0.3);
        network.lines = Param::from_tensor(network.lines.val() * 0.9 + 0.2);
        network
    }

    #[test]
    fn untrained_it_is_a_smoothing_that_passes_over_empty_bins() {
        let network = Network::new(&Default::default());
        let (bins, _) = said(&network, &[Some(0.0), Some(0.0), Some(10.0), Some(0.0), Some(0.0), Some(0.0)]);
        let expected = [1.0 / 0.7, 2.0 / 0.9, 4.0, 2.0, 1.0 / 0.9, 0.0];
        assert!(bins.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{bins:?}");
        let (bins, series) = said(&network, &[Some(2.0), None, Some(4.0)]);
        assert!((bins[0] - (0.4 * 2.0 + 0.1 * 4.0) / 0.5).abs() < 1e-5 && bins[1] == 0.0, "{bins:?}");
        assert!(series > 2.0 && series < 4.0);
        // One slice is its own smoothing, and its own series.
        let (bins, series) = said(&network, &[Some(-3.0)]);
        assert!((bins[0] + 3.0).abs() < 1e-5 && (series + 3.0).abs() < 1e-5, "{bins:?} {series}");
    }

    #[test]
    fn the_direction_of_the_scan_and_empty_bins_at_its_ends_change_nothing() {
        let network = trained();
        let mut logits: Vec<Option<f32>> = (0..13).map(|i| Some(((i * 7) % 11) as f32 - 6.0)).collect();
        logits[5] = None;
        let (bins, series) = said(&network, &logits);
        logits.reverse();
        let (mut turned, turned_series) = said(&network, &logits);
        turned.reverse();
        assert!(bins.iter().zip(&turned).all(|(a, b)| (a - b).abs() < 1e-4), "{bins:?} {turned:?}");
        assert!((series - turned_series).abs() < 1e-4);
        logits.extend([None; 20]);
        assert!((said(&network, &logits).1 - series).abs() < 1e-4, "as padded for a batch");
    }

    /// What the node relies on where two stacks are one input ([`triaged_model::MOST_EMPTY`]).
    #[test]
    fn bins_beyond_a_gap_have_no_part_in_a_bins_score() {
        let network = trained();
        let part = |level: f64| {
            let place = |i: i32| SeriesPlace { position: Some(f64::from(i) * 5.0), probability: Some(level) };
            (0..8).map(place).collect::<Vec<_>>()
        };
        let bins = |second: f64| {
            let input = SeriesInput::new(&[part(0.2), part(second)], 5.0);
            let tensor = TensorData::new(input.values(), [1, 2, input.len()]);
            let logits = network.forward(Tensor::<Flex, 3>::from_data(tensor, &Default::default())).bins;
            logits.into_data().to_vec::<f32>().expect("float32")[..8].to_vec()
        };
        assert_eq!(bins(0.01), bins(0.99));
    }

    #[test]
    fn it_has_some_tens_of_parameters() {
        let network = Network::new(&Default::default());
        assert_eq!(network.num_params(), Network::parameters());
        assert_eq!(Network::parameters(), 37);
    }
}
