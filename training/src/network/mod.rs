//! The Burn module that a list of layers describes, initialised as Keras does; mobile networks' layers as their authors
//! do ([`NormedConv`]).
//!
//! A network may be trained with its first dense layer *on a position grid* ([`Network::on_grid`]): the weights that
//! read the flattened image are then not free at each of its positions but interpolated from a coarse grid of knots, so
//! that what is learned of a lesion on one side of the head holds beside it too. Of m10's 6.6 million weights all but
//! 1 % lie there. [`Network::spread`] writes the interpolated weights out: the same function, as the plain network.
//! On a grid a network takes images of any size, so it can begin its training on small ones.

mod blocks;
mod grid;
mod layer;
mod sizes;
mod steps;

use burn::module::{Module, Param, RunningState};
use burn::nn::{BatchNorm, BatchNormConfig, DropoutConfig};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData, activation, module};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use triaged_kernels::mobile::batch_norm;
use triaged_kernels::{ConvBackend, conv_relu_pool};

pub use blocks::NormedConv;
use grid::PositionGrid;
pub use layer::{Layer, has_position_logits};
pub use sizes::{LayerError, Size, parameters, positions, sizes};
pub use steps::{Role, Step, steps};

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

/// The filters of the last convolution that localization asks about ([`Network::forward_with_positions`]), at most all.
const LOCALIZATION_FILTERS: usize = 8;
/// A position's logit where all of those filters are 0: no blood.
const POSITION_OFFSET: f32 = -2.0;

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

impl<B: ConvBackend> Network<B> {
    /// Logits `[batch, 1]` of images `[batch, channels, height, width]`. On an autodiff backend BatchNorm uses (and
    /// notes) the batch's statistics and dropout drops; on a plain one neither.
    pub fn forward(&self, images: Tensor<B, 4>) -> Tensor<B, 2> {
        self.head(self.features(images))
    }

    /// The logits `[batch, 1]`, and a logit of each position, `[batch, height, width]`.
    ///
    /// Where the features are pooled and go into the output unit, a position's logit is what that unit makes of its
    /// features; the slice's is the mean of them.
    ///
    /// In a network that flattens, a position's logit is the sum of the first filters of the last convolution, plus
    /// `POSITION_OFFSET`. A training may ask these filters to answer where blood is and nowhere else. The dense layers sum over
    /// all positions, where a lesion of a hundredth of the head is lost among what all heads have, until there are filters that
    /// answer to nothing else.
    pub fn forward_with_positions(&self, images: Tensor<B, 4>) -> (Tensor<B, 2>, Tensor<B, 3>) {
        let features = self.features(images);
        let [batch, channels, height, width] = features.dims();
        if has_position_logits(&self.layers) {
            let rows = features.clone().permute([0, 2, 3, 1]).reshape([batch * height * width, channels]);
            let unit = self.denses.last().expect("every network has an output unit");
            return (self.head(features), unit.forward(rows).reshape([batch, height, width]));
        }
        let filters = features.clone().narrow(1, 0, LOCALIZATION_FILTERS.min(channels));
        let positions = filters.sum_dim(1).reshape([batch, height, width]) + POSITION_OFFSET;
        (self.head(features), positions)
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

impl<B: Backend> Dense<B> {
    fn forward(&self, input: Tensor<B, 2>) -> Tensor<B, 2> {
        input.matmul(self.weight.val()) + self.bias.val().unsqueeze()
    }
}

/// The image that Flatten gets.
fn flattened(layers: &[Layer], input: [usize; 3]) -> Result<Size, LayerError> {
    let [channels, height, width] = input;
    let sizes = sizes(layers, input)?;
    let before = layers.iter().position(Layer::flattens).and_then(|flatten| flatten.checked_sub(1));
    Ok(before.map_or(Size::Image { channels, height, width }, |before| sizes[before]))
}

/// Uniform within ±√(6 / (fan in + fan out)).
fn glorot(rng: &mut StdRng, fan_in: usize, fan_out: usize, count: usize) -> Vec<f32> {
    let limit = (6.0 / (fan_in + fan_out) as f64).sqrt() as f32;
    (0..count).map(|_| rng.random_range(-limit..limit)).collect()
}

#[cfg(test)]
mod tests;
