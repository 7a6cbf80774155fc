//! The Burn module that a list of layers describes, initialised as Keras does.

use burn::module::{Module, Param, RunningState};
use burn::nn::{BatchNorm, BatchNormConfig, DropoutConfig};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData, activation, module};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::candidates::{Layer, LayerError, Size, sizes};
use crate::conv::{ConvBackend, conv_relu_pool};

/// Added to the variance by BatchNorm (Keras' default).
pub const NORM_EPSILON: f64 = 1e-3;
/// The share of the batch's own statistics in BatchNorm's running ones: Keras' momentum 0.99, which counts the share
/// of the old value, the other way round.
const NORM_MOMENTUM: f64 = 0.01;

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
        let (mut norms, mut convs, mut denses) = (Vec::new(), Vec::new(), Vec::new());
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
                _ => {}
            }
            before = after;
        }
        Ok(Self { norms, convs, denses, layers: layers.to_vec() })
    }
}

impl<B: Backend> Network<B> {
    /// The network with what BatchNorm's running statistics still hold of where they start, mean 0 and variance 1, taken
    /// out, after `steps` training steps. Keras leaves it in, and a long training forgets it; after 100 steps it would
    /// still be over a third, and the network would be judged on inputs unlike those it learned from.
    pub fn settled(mut self, steps: usize) -> Self {
        let left = (1.0 - NORM_MOMENTUM).powf(steps as f64);
        if steps > 0 {
            for norm in &mut self.norms {
                let mean = norm.running_mean.value() / (1.0 - left);
                let variance = (norm.running_var.value() - left) / (1.0 - left);
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
        let (mut norms, mut convs, mut denses) = (self.norms.iter(), self.convs.iter(), self.denses.iter());
        let mut image = images;
        let mut layers = self.layers.iter().peekable();
        while let Some(layer) = layers.next() {
            image = match *layer {
                Layer::BatchNorm => norms.next().expect("built with the layers").forward(image),
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
                Layer::Flatten => break,
                Layer::Dense { .. } | Layer::Output => unreachable!("sizes() has checked that Flatten comes first"),
            };
        }
        let mut flat: Tensor<B, 2> = image.flatten(1, 3);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::candidates::{NAMES, candidate, parameters};
    use burn::backend::autodiff::Autodiff;
    use burn::backend::flex::Flex;
    use burn::module::AutodiffModule;

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
        let norm = &network.valid().settled(5).norms[0];
        let value = |state: &RunningState<Tensor<Flex, 1>>| state.value().into_scalar();
        assert!((value(&norm.running_mean) - 2.0).abs() < 1e-4, "{}", value(&norm.running_mean));
        assert!((value(&norm.running_var) - 1.25).abs() < 1e-3, "{}", value(&norm.running_var));
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
