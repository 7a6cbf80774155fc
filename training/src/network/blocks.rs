//! The convolutions of mobile networks as modules: each without bias, followed by batch normalisation and, but for the last
//! of a block, ReLU6. [`steps`] says of which a layer is made.

use burn::module::{Module, Param};
use burn::nn::{BatchNorm, BatchNormConfig};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use rand::RngExt;
use rand::rngs::StdRng;
use triaged_kernels::{ConvBackend, mobile};

use super::layer::Layer;
use super::steps::{Role, Step, steps};
use super::{NORM_EPSILON, NORM_MOMENTUM};

/// A convolution without bias and its batch normalisation, epsilon and momentum as the other networks'.
#[derive(Module, Debug)]
pub struct NormedConv<B: Backend> {
    /// As [`Step::weight`] has it.
    pub weight: Param<Tensor<B, 4>>,
    pub norm: BatchNorm<B>,
}

impl<B: Backend> NormedConv<B> {
    /// Weights from a normal distribution of variance 2 / (kernel² · filters of a channel), as EfficientNet's authors
    /// draw them.
    pub fn new(step: &Step, rng: &mut StdRng, device: &B::Device) -> Self {
        let shape = step.weight();
        let fan_out = step.kernel * step.kernel * if step.role == Role::Depthwise { 1 } else { step.filters };
        let deviation = (2.0 / fan_out as f64).sqrt();
        let weight: Vec<f32> = (0..shape.iter().product()).map(|_| (normal(rng) * deviation) as f32).collect();
        let norm = BatchNormConfig::new(step.filters).with_epsilon(NORM_EPSILON).with_momentum(NORM_MOMENTUM);
        Self { weight: Param::from_data(TensorData::new(weight, shape), device), norm: norm.init(device) }
    }
}

/// A draw from the standard normal distribution (Box and Muller, 1958).
fn normal(rng: &mut StdRng) -> f64 {
    let (radius, angle) = (1.0 - rng.random::<f64>(), rng.random::<f64>());
    (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
}

impl<B: ConvBackend> NormedConv<B> {
    fn forward(&self, image: Tensor<B, 4>, step: &Step, shortcut: Option<Tensor<B, 4>>) -> Tensor<B, 4> {
        let weight = self.weight.val();
        let image = match step.role {
            Role::Stem => mobile::stem(image, weight),
            Role::Depthwise => mobile::depthwise(image, weight, step.stride),
            Role::Expand | Role::Project | Role::Head => mobile::pointwise(image, weight),
        };
        mobile::batch_norm(&self.norm, image, shortcut, step.rectified())
    }
}

/// A layer's output for an image batch; takes the layer's convolutions from `convs`. On an autodiff backend by the
/// batch's statistics, which are noted in the running ones; on a plain one by those.
pub fn forward<'a, B: ConvBackend>(
    convs: &mut impl Iterator<Item = &'a NormedConv<B>>,
    layer: &Layer,
    image: Tensor<B, 4>,
) -> Tensor<B, 4> {
    let mut image = image;
    let mut block = None;
    for step in steps(layer, image.dims()[1]) {
        if step.opens {
            block = Some(image.clone());
        }
        let shortcut = block.take_if(|_| step.shortcut);
        image = convs.next().expect("built with the layers").forward(image, &step, shortcut);
    }
    image
}
