//! The Burn module that a list of layers describes, initialised as Keras does; mobile networks' layers as their authors
//! do ([`crate::blocks`]).
//!
//! A network may be trained with its first dense layer *on a position grid* ([`Network::on_grid`]): the weights that
//! read the flattened image are then not free at each of its positions but interpolated from a coarse grid of knots, so
//! that what is learned of a lesion on one side of the head holds beside it too. Of m10's 6.6 million weights all but
//! 1 % lie there. [`Network::spread`] writes the interpolated weights out: the same function, as the plain network.
//! On a grid a network takes images of any size, so it can begin its training on small ones.

use burn::module::{Module, Param, RunningState};
use burn::nn::{BatchNorm, BatchNormConfig, DropoutConfig};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData, activation, module};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::blocks::{self, NormedConv, steps};
use crate::candidates::{Layer, LayerError, Size, sizes};
use triaged_kernels::mobile::batch_norm;
use triaged_kernels::{ConvBackend, conv_relu_pool};

/// Added to the variance by BatchNorm (Keras' default).
pub const NORM_EPSILON: f64 = 1e-3;
/// The share of the batch's own statistics in BatchNorm's running ones: Keras' momentum 0.99, which counts the share
/// of the old value, the other way round.
pub const NORM_MOMENTUM: f64 = 0.01;

/// A network: image batches in, one logit an image out.
#[derive(Module, Debug)]
pub struct Network<B: Backend> {
    /// One, or none where the layers have no BatchNorm.
    pub norms: Vec<BatchNorm<B>>,
    pub convs: Vec<Conv<B>>,
    /// The dense layers, the output unit last.
    pub denses: Vec<Dense<B>>,
    #[module(skip)]
    pub layers: Vec<Layer>,
    #[module(skip)]
    grid: Option<PositionGrid>,
    /// The convolutions of stem, inverted residual blocks and head, in order.
    pub blocks: Vec<NormedConv<B>>,
}

/// A [`Network`]'s record as it was before there were blocks: all but those, in the same order.
#[derive(Module, Debug)]
pub struct Earlier<B: Backend> {
    norms: Vec<BatchNorm<B>>,
    convs: Vec<Conv<B>>,
    denses: Vec<Dense<B>>,
    #[module(skip)]
    layers: Vec<Layer>,
    #[module(skip)]
    grid: Option<PositionGrid>,
}

/// The filters of the last convolution that are witnesses ([`Network::forward_both`]), at most all of them.
const WITNESSES: usize = 8;
/// What witnesses that all are silent say, as a logit: no.
const SILENCE: f32 = -2.0;
/// How much the strongest voice is preferred over the mean of all.
const WITNESS_SHARPNESS: f32 = 3.0;

/// How positions of the flattened image hang on the knots of a coarser grid of `edge`×`edge`.
#[derive(Debug, Clone, PartialEq)]
struct PositionGrid {
    edge: usize,
    /// A knot reads the mean of its positions times this: the root of their number at the network's own input size, so
    /// that a reading varies about as much as a single position's would.
    gain: f32,
}

impl PositionGrid {
    fn new(edge: usize, positions: usize) -> Self {
        Self { edge, gain: (positions as f32 / (edge * edge) as f32).sqrt() }
    }

    fn knots(&self) -> usize {
        self.edge * self.edge
    }

    /// `[height · width, knots]`: bilinear weights of knots evenly spread over an image of that size, each at the middle
    /// of its share.
    fn weights<B: Backend>(&self, height: usize, width: usize, device: &B::Device) -> Tensor<B, 2> {
        let (edge, knots) = (self.edge, self.knots());
        let (rows, columns) = (linear(height, edge), linear(width, edge));
        let mut weights = vec![0.0; height * width * knots];
        for (place, row) in weights.chunks_exact_mut(knots).enumerate() {
            let (y, x) = (place / width, place % width);
            for (knot, weight) in row.iter_mut().enumerate() {
                *weight = rows[y * edge + knot / edge] * columns[x * edge + knot % edge];
            }
        }
        for knot in 0..knots {
            let sum: f32 = weights.iter().skip(knot).step_by(knots).sum();
            weights.iter_mut().skip(knot).step_by(knots).for_each(|weight| *weight *= self.gain / sum);
        }
        Tensor::from_data(TensorData::new(weights, [height * width, knots]), device)
    }
}

/// The image that Flatten gets.
fn flattened(layers: &[Layer], input: [usize; 3]) -> Result<Size, LayerError> {
    let [channels, height, width] = input;
    let sizes = sizes(layers, input)?;
    let before = layers.iter().position(Layer::flattens).and_then(|flatten| flatten.checked_sub(1));
    Ok(before.map_or(Size::Image { channels, height, width }, |before| sizes[before]))
}

/// `[length, knots]`: the share of each knot in a place along a line, by linear interpolation; beyond the outer knots
/// theirs alone.
fn linear(length: usize, knots: usize) -> Vec<f32> {
    let mut shares = vec![0.0; length * knots];
    for (place, row) in shares.chunks_exact_mut(knots).enumerate() {
        let at = (place as f32 + 0.5) * knots as f32 / length as f32 - 0.5;
        let at = at.clamp(0.0, (knots - 1) as f32);
        let before = (at as usize).min(knots - 1);
        row[before] += 1.0 - (at - before as f32);
        if before + 1 < knots {
            row[before + 1] += at - before as f32;
        }
    }
    shares
}

/// Weight `[filters, channels, kernel, kernel]` and bias `[filters]`.
#[derive(Module, Debug)]
pub struct Conv<B: Backend> {
    pub weight: Param<Tensor<B, 4>>,
    pub bias: Param<Tensor<B, 1>>,
}

/// Weight `[inputs, units]` and bias `[units]`.
#[derive(Module, Debug)]
pub struct Dense<B: Backend> {
    pub weight: Param<Tensor<B, 2>>,
    pub bias: Param<Tensor<B, 1>>,
}

impl<B: Backend> Network<B> {
    /// A fresh network for an input of `[channels, height, width]`: Glorot-uniform weights drawn from `seed`, the same
    /// on every backend, and zero biases.
    pub fn new(layers: &[Layer], input: [usize; 3], seed: u64, device: &B::Device) -> Result<Self, LayerError> {
        let mut rng = StdRng::seed_from_u64(seed);
        let [channels, height, width] = input;
        let mut before = Size::Image { channels, height, width };
        let (mut norms, mut convs, mut denses, mut blocks) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (layer, after) in layers.iter().zip(sizes(layers, input)?) {
            match (*layer, before) {
                (Layer::BatchNorm, Size::Image { channels, .. }) => {
                    let config = BatchNormConfig::new(channels).with_epsilon(NORM_EPSILON).with_momentum(NORM_MOMENTUM);
                    norms.push(config.init(device));
                }
                (Layer::Conv { filters, kernel }, Size::Image { channels, .. }) => {
                    let window = kernel * kernel;
                    let weight = glorot(&mut rng, channels * window, filters * window, filters * channels * window);
                    convs.push(Conv {
                        weight: Param::from_data(TensorData::new(weight, [filters, channels, kernel, kernel]), device),
                        bias: Param::from_tensor(Tensor::zeros([filters], device)),
                    });
                }
                (Layer::Dense { .. } | Layer::Output, Size::Flat(inputs)) => {
                    let units = if let Layer::Dense { units } = *layer { units } else { 1 };
                    let weight = glorot(&mut rng, inputs, units, inputs * units);
                    denses.push(Dense {
                        weight: Param::from_data(TensorData::new(weight, [inputs, units]), device),
                        bias: Param::from_tensor(Tensor::zeros([units], device)),
                    });
                }
                (layer, Size::Image { channels, .. }) => {
                    blocks.extend(steps(&layer, channels).iter().map(|step| NormedConv::new(step, &mut rng, device)));
                }
                _ => {}
            }
            before = after;
        }
        Ok(Self { norms, convs, denses, layers: layers.to_vec(), grid: None, blocks })
    }

    /// A fresh network whose first dense layer lies on a grid of `edge`×`edge` knots.
    pub fn on_grid(
        layers: &[Layer],
        input: [usize; 3],
        edge: usize,
        seed: u64,
        device: &B::Device,
    ) -> Result<Self, LayerError> {
        let mut network = Self::new(layers, input, seed, device)?;
        if !layers.contains(&Layer::Flatten) {
            return Err(LayerError::NoPositions);
        }
        let Size::Image { channels, height, width } = flattened(layers, input)? else {
            unreachable!("flattened() gives an image")
        };
        if edge == 0 || edge > height.min(width) {
            return Err(LayerError::Grid { edge, height, width });
        }
        let first = network.denses.first_mut().expect("every network has an output unit");
        let (inputs, units) = (channels * edge * edge, first.weight.dims()[1]);
        // A stream of its own: the other weights are the same with and without a grid.
        let mut rng = StdRng::seed_from_u64(seed ^ edge as u64);
        let weight = glorot(&mut rng, inputs, units, inputs * units);
        first.weight = Param::from_data(TensorData::new(weight, [inputs, units]), device);
        network.grid = Some(PositionGrid::new(edge, height * width));
        Ok(network)
    }

    /// The plain network that computes the same for images of `[channels, height, width]`: the weights on the grid
    /// interpolated to every position.
    pub fn spread(mut self, input: [usize; 3]) -> Result<Self, LayerError> {
        let Size::Image { channels, height, width } = flattened(&self.layers, input)? else {
            unreachable!("flattened() gives an image")
        };
        if let (Some(grid), Some(first)) = (self.grid.take(), self.denses.first_mut()) {
            let weight = first.weight.val();
            let units = weight.dims()[1];
            let spread = grid
                .weights::<B>(height, width, &weight.device())
                .unsqueeze::<3>()
                .repeat_dim(0, channels)
                .matmul(weight.reshape([channels, grid.knots(), units]));
            first.weight = Param::from_tensor(spread.reshape([channels * height * width, units]));
        }
        Ok(self)
    }
}

impl<B: Backend> Network<B> {
    /// This network, which has no blocks, with an earlier program's record of it.
    pub fn load_earlier(self, record: EarlierRecord<B>) -> Self {
        let Earlier { norms, convs, denses, layers, grid } = self.without_blocks().load_record(record);
        Self { norms, convs, denses, layers, grid, blocks: Vec::new() }
    }

    /// This network as an earlier program had it.
    pub fn without_blocks(self) -> Earlier<B> {
        Earlier { norms: self.norms, convs: self.convs, denses: self.denses, layers: self.layers, grid: self.grid }
    }

    /// The network with what BatchNorm's running statistics still hold of where they start, mean 0 and variance 1, taken
    /// out, after `steps` training steps. Keras leaves it in, and a long training forgets it; after 100 steps it would
    /// still be over a third, and the network would be judged on inputs unlike those it learned from. Of a `pretrained`
    /// network the blocks' statistics stay as they are: they start where they belong.
    pub fn settled(mut self, steps: usize, pretrained: bool) -> Self {
        let left = (1.0 - NORM_MOMENTUM).powf(steps as f64);
        if steps > 0 {
            let blocks = self.blocks.iter_mut().filter(|_| !pretrained).map(|conv| &mut conv.norm);
            for norm in self.norms.iter_mut().chain(blocks) {
                let mean = norm.running_mean.value() / (1.0 - left);
                // A channel that is constant has none, but for what rounding leaves.
                let variance = ((norm.running_var.value() - left) / (1.0 - left)).clamp_min(0.0);
                norm.running_mean = RunningState::new(mean);
                norm.running_var = RunningState::new(variance);
            }
        }
        self
    }
}

/// Uniform within ±√(6 / (fan in + fan out)).
fn glorot(rng: &mut StdRng, fan_in: usize, fan_out: usize, count: usize) -> Vec<f32> {
    let limit = (6.0 / (fan_in + fan_out) as f64).sqrt() as f32;
    (0..count).map(|_| rng.random_range(-limit..limit)).collect()
}

impl<B: ConvBackend> Network<B> {
    /// Logits `[batch, 1]` of images `[batch, channels, height, width]`. On an autodiff backend BatchNorm uses (and
    /// notes) the batch's statistics and dropout drops; on a plain one neither.
    pub fn forward(&self, images: Tensor<B, 4>) -> Tensor<B, 2> {
        self.head(self.features(images))
    }

    /// The logits `[batch, 1]`, and the voices `[batch, height, width]` of the witnesses at each position.
    ///
    /// Witnesses are the first filters of the last convolution. A training may ask of them to answer where blood is and to
    /// be silent elsewhere: their sum, less [`SILENCE`], is a logit of each position. The dense layers sum over all
    /// positions, where a lesion of a hundredth of the head is lost among what all heads have, until there are filters that
    /// answer to nothing else.
    pub fn forward_both(&self, images: Tensor<B, 4>) -> (Tensor<B, 2>, Tensor<B, 3>) {
        let features = self.features(images);
        let [batch, channels, height, width] = features.dims();
        let witnesses = features.clone().narrow(1, 0, WITNESSES.min(channels));
        let voices = witnesses.sum_dim(1).reshape([batch, height, width]) + SILENCE;
        (self.head(features), voices)
    }

    /// The image that is flattened or pooled whole, `[batch, channels, height, width]`.
    pub fn features(&self, images: Tensor<B, 4>) -> Tensor<B, 4> {
        let (mut norms, mut convs, mut blocks) = (self.norms.iter(), self.convs.iter(), self.blocks.iter());
        let mut image = images;
        let mut layers = self.layers.iter().peekable();
        while let Some(layer) = layers.next() {
            image = match *layer {
                Layer::BatchNorm => batch_norm(norms.next().expect("built with the layers"), image, None, false),
                Layer::Conv { .. } => {
                    let conv = convs.next().expect("built with the layers");
                    // A pool that follows at once is computed with the convolution.
                    let pool = match layers.peek() {
                        Some(Layer::MaxPool { size }) => {
                            layers.next();
                            *size
                        }
                        _ => 1,
                    };
                    conv_relu_pool(image, conv.weight.val(), conv.bias.val(), pool)
                }
                Layer::MaxPool { size } => module::max_pool2d(image, [size; 2], [size; 2], [0; 2], [1; 2], false),
                Layer::Dropout { rate } => DropoutConfig::new(rate).init().forward(image),
                Layer::Stem { .. } | Layer::InvertedResidual { .. } | Layer::Head { .. } => {
                    blocks::forward(&mut blocks, layer, image)
                }
                Layer::Flatten | Layer::GlobalAveragePool => break,
                Layer::Dense { .. } | Layer::Output => unreachable!("sizes() has checked that the image is flattened"),
            };
        }
        image
    }

    /// From the image that is flattened to the logits.
    fn head(&self, image: Tensor<B, 4>) -> Tensor<B, 2> {
        let mut denses = self.denses.iter();
        let mut layers = self.layers.iter().skip_while(|layer| !layer.flattens());
        let pooled = layers.next() == Some(&Layer::GlobalAveragePool);
        let mut flat: Tensor<B, 2> = match &self.grid {
            _ if pooled => {
                let [batch, channels, height, width] = image.dims();
                image.reshape([batch, channels, height * width]).mean_dim(2).reshape([batch, channels])
            }
            None => image.flatten(1, 3),
            Some(grid) => {
                let [batch, channels, height, width] = image.dims();
                let weights = grid.weights::<B>(height, width, &image.device());
                let rows = image.reshape([batch * channels, height * width]);
                rows.matmul(weights).reshape([batch, channels * grid.knots()])
            }
        };
        for layer in layers {
            flat = match *layer {
                Layer::Dense { .. } => activation::relu(denses.next().expect("built with the layers").forward(flat)),
                Layer::Output => denses.next().expect("built with the layers").forward(flat),
                Layer::Dropout { rate } => DropoutConfig::new(rate).init().forward(flat),
                _ => unreachable!("sizes() has checked that nothing else follows Flatten"),
            };
        }
        flat
    }
}

/// The smooth maximum `[batch, 1]` of voices `[batch, height, width]`: near the highest, and all have a part.
pub fn strongest<B: Backend>(voices: Tensor<B, 3>) -> Tensor<B, 2> {
    let voices: Tensor<B, 2> = voices.flatten(1, 2);
    let highest = voices.clone().max_dim(1).detach();
    let sum = ((voices - highest.clone()) * WITNESS_SHARPNESS).exp().mean_dim(1).log();
    highest + sum / WITNESS_SHARPNESS
}

impl<B: Backend> Dense<B> {
    fn forward(&self, input: Tensor<B, 2>) -> Tensor<B, 2> {
        input.matmul(self.weight.val()) + self.bias.val().unsqueeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::candidates::{NAMES, candidate, parameters};
    use burn::backend::autodiff::Autodiff;
    use burn::backend::flex::Flex;
    use burn::module::AutodiffModule;
    use burn::optim::{AdamWConfig, GradientsParams, Optimizer};
    use burn::tensor::Tolerance;

    /// Large enough for every candidate's three pools, small enough for a test.
    const SMALL: [usize; 3] = [1, 64, 64];

    #[test]
    fn the_module_has_the_parameters_the_description_counts() {
        let device = Default::default();
        for name in NAMES {
            let layers = candidate(name).expect("a candidate").layers;
            let network = Network::<Flex>::new(&layers, SMALL, 1, &device).expect("a network");
            assert_eq!(network.num_params(), parameters(&layers, SMALL).expect("a network"), "{name}");
            let logits = network.forward(Tensor::ones([3, 1, 64, 64], &device));
            assert_eq!(logits.dims(), [3, 1], "{name}");
        }
    }

    #[test]
    fn settled_statistics_are_those_of_the_batches() {
        let device = Default::default();
        let layers = candidate("m1").expect("m1").layers;
        let network = Network::<Autodiff<Flex>>::new(&layers, [1, 2, 2], 1, &device).expect("a network");
        // Mean 2, variance 1.25.
        let batch = Tensor::<Autodiff<Flex>, 1>::from_floats([0.5, 1.5, 2.5, 3.5], &device).reshape([1, 1, 2, 2]);
        for _ in 0..5 {
            network.forward(batch.clone());
        }
        let norm = &network.valid().settled(5, false).norms[0];
        let value = |state: &RunningState<Tensor<Flex, 1>>| state.value().into_scalar();
        assert!((value(&norm.running_mean) - 2.0).abs() < 1e-4, "{}", value(&norm.running_mean));
        assert!((value(&norm.running_var) - 1.25).abs() < 1e-3, "{}", value(&norm.running_var));
    }

    #[test]
    fn a_network_on_a_grid_spreads_to_a_plain_one_that_says_the_same() {
        let device = Default::default();
        for (name, edge) in [("m10", 1), ("m10", 2), ("m2", 5), ("m1", 4)] {
            let layers = candidate(name).expect("a candidate").layers;
            let input = [1, 64, 70];
            let network = Network::<Flex>::on_grid(&layers, input, edge, 5, &device).expect("a network");
            let images: Vec<f32> = (0..2 * 64 * 70).map(|i| ((i * 7919) % 1009) as f32 / 1009.0).collect();
            let images = Tensor::<Flex, 4>::from_data(TensorData::new(images, [2, 1, 64, 70]), &device);
            let before = network.forward(images.clone()).into_data();
            let spread = network.clone().spread(input).expect("a network");
            assert!(network.num_params() < parameters(&layers, input).expect("a network"), "{name}");
            assert_eq!(spread.num_params(), parameters(&layers, input).expect("a network"), "{name}");
            spread.forward(images).into_data().assert_approx_eq::<f32>(&before, Tolerance::absolute(1e-4));
        }
        let layers = candidate("m10").expect("m10").layers;
        assert!(Network::<Flex>::on_grid(&layers, SMALL, 0, 5, &device).is_err());
        assert!(Network::<Flex>::on_grid(&layers, SMALL, 4, 5, &device).is_err(), "m10 flattens 3 by 3 here");
        let pooled = candidate("m11").expect("m11").layers;
        let refused = Network::<Flex>::on_grid(&pooled, SMALL, 2, 5, &device);
        assert_eq!(refused.err(), Some(LayerError::NoPositions));
    }

    #[test]
    fn m11_learns_in_all_its_layers_and_notes_statistics() {
        type Trained = Autodiff<Flex>;
        let device = Default::default();
        let layers = candidate("m11").expect("m11").layers;
        let layers: Vec<Layer> = layers.into_iter().filter(|layer| !matches!(layer, Layer::Dropout { .. })).collect();
        let mut network = Network::<Trained>::new(&layers, [1, 33, 40], 11, &device).expect("a network");
        // Stripes that stand, and stripes that lie.
        let pixel = |i: usize| {
            let (image, row, column) = (i / (33 * 40), i / 40 % 33, i % 40);
            let along = if image % 2 == 0 { row } else { column };
            (((along + image) / 3 % 2) as f32) * 2.0 - 1.0 + ((i * 7919) % 1009) as f32 / 2000.0
        };
        let images: Vec<f32> = (0..8 * 33 * 40).map(pixel).collect();
        let images = Tensor::<Trained, 4>::from_data(TensorData::new(images, [8, 1, 33, 40]), &device);
        let signs: Vec<f32> = (0..8).map(|i| if i % 2 == 0 { 1.0 } else { -1.0 }).collect();
        let signs = Tensor::<Trained, 2>::from_data(TensorData::new(signs, [8, 1]), &device);
        let mut adam = AdamWConfig::new().init::<Trained, Network<Trained>>();
        let mut losses = Vec::new();
        for _ in 0..6 {
            let loss = ((network.forward(images.clone()) * signs.clone()).neg().exp() + 1.0).log().mean();
            losses.push(loss.clone().into_scalar());
            let grads = loss.backward();
            for (at, conv) in network.blocks.iter().enumerate() {
                let largest = conv.weight.val().grad(&grads).expect("a gradient").abs().max().into_scalar();
                assert!(largest > 0.0 && largest.is_finite(), "convolution {at}: {largest}");
                let largest = conv.norm.gamma.val().grad(&grads).expect("a gradient").abs().max().into_scalar();
                assert!(largest > 0.0 && largest.is_finite(), "normalization {at}: {largest}");
            }
            let grads = GradientsParams::from_grads(grads, &network);
            network = adam.step(1e-3, network, grads);
        }
        assert!(losses[5] < 0.5 * losses[0], "{losses:?}");
        // Six steps from variance 1 by a hundredth each, and of a pretrained network nothing taken out afterwards. A channel
        // may be constant, and a variance may happen to be 1.
        let settled = network.valid().settled(6, true);
        for (at, conv) in settled.blocks.iter().enumerate() {
            let start = 0.99f32.powi(6);
            let variance = conv.norm.running_var.value().into_data().to_vec::<f32>().expect("f32");
            assert!(variance.iter().all(|&value| value > start - 1e-5), "normalization {at}: {variance:?}");
            let noted = variance.iter().filter(|&&value| value > start + 1e-5 && (value - 1.0).abs() > 1e-6).count();
            assert!(10 * noted > 9 * variance.len(), "normalization {at}: {variance:?}");
        }
        // Of a fresh one where they start is taken out: what is left is the batches' own.
        let fresh = network.valid().settled(6, false);
        for (at, (noted, own)) in settled.blocks.iter().zip(&fresh.blocks).enumerate() {
            let values = |conv: &NormedConv<Flex>, of: fn(&BatchNorm<Flex>) -> Tensor<Flex, 1>| {
                of(&conv.norm).into_data().to_vec::<f32>().expect("f32")
            };
            let start = 0.99f32.powi(6);
            for (place, (noted, own)) in values(noted, |n| n.running_var.value())
                .into_iter()
                .zip(values(own, |n| n.running_var.value()))
                .enumerate()
            {
                assert!((own * (1.0 - start) + start - noted).abs() < 1e-5, "normalization {at}, {place}: {own}");
            }
            for (noted, own) in
                values(noted, |n| n.running_mean.value()).into_iter().zip(values(own, |n| n.running_mean.value()))
            {
                assert!((own * (1.0 - start) - noted).abs() < 1e-5, "normalization {at}: mean {own}");
            }
        }
        // At inference a slice's logit is its own, whatever lies beside it in the batch.
        let images = images.inner();
        let all = settled.forward(images.clone()).narrow(0, 2, 1).into_data();
        settled.forward(images.narrow(0, 2, 1)).into_data().assert_approx_eq::<f32>(&all, Tolerance::absolute(1e-4));
    }

    #[test]
    fn the_strongest_voice_speaks_for_the_slice() {
        let device = Default::default();
        let layers = candidate("m10").expect("m10").layers;
        let network = Network::<Flex>::new(&layers, SMALL, 3, &device).expect("a network");
        let images = Tensor::<Flex, 4>::ones([3, 1, 64, 64], &device);
        let (logits, voices) = network.forward_both(images.clone());
        logits.into_data().assert_eq(&network.forward(images).into_data(), true);
        assert_eq!(voices.dims(), [3, 3, 3]);
        assert!(voices.min().into_scalar() >= SILENCE, "filters that are silenced say no");

        // Two slices of 100 positions: one silent, one with a voice of 6 at one of them.
        let mut voices = vec![-1.0f32; 200];
        voices[142] = 6.0;
        let voices = Tensor::<Flex, 3>::from_data(TensorData::new(voices, [2, 10, 10]), &device);
        let logits = strongest(voices).into_data().to_vec::<f32>().expect("f32");
        assert!((logits[0] + 1.0).abs() < 1e-5, "{logits:?}");
        // The maximum less the logarithm of the number of positions over the sharpness.
        assert!((logits[1] - (6.0 - 100f32.ln() / WITNESS_SHARPNESS)).abs() < 1e-3, "{logits:?}");
    }

    #[test]
    fn knots_share_a_line_linearly() {
        let shares = linear(4, 2);
        // Places 0.25, 0.75, 1.25, 1.75 of 2, knots at 0.5 and 1.5.
        assert_eq!(shares, [1.0, 0.0, 0.75, 0.25, 0.25, 0.75, 0.0, 1.0]);
        assert!(linear(40, 7).chunks(7).all(|row| (row.iter().sum::<f32>() - 1.0).abs() < 1e-6));
    }

    #[test]
    fn initial_weights_repeat_with_the_seed_and_stay_within_glorots_limit() {
        let device = Default::default();
        let layers = candidate("m8").expect("m8").layers;
        let weights = |seed| {
            let network = Network::<Flex>::new(&layers, SMALL, seed, &device).expect("a network");
            network.convs[1].weight.val().into_data().to_vec::<f32>().expect("f32")
        };
        assert_eq!(weights(7), weights(7));
        assert_ne!(weights(7), weights(8));
        let limit = (6.0f32 / (9 * 64 + 9 * 64) as f32).sqrt();
        let largest = weights(7).iter().fold(0.0f32, |m, w| m.max(w.abs()));
        assert!(largest <= limit && largest > 0.99 * limit, "{largest} against {limit}");
    }
}
