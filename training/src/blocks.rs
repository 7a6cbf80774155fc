//! Mobile networks' layers as what they are made of: convolutions without bias, each followed by batch normalisation and,
//! but for the last of a block, ReLU6.
//!
//! [`steps`] takes a layer apart; the Burn module here, its parameters, the import of pretrained weights
//! ([`crate::pretrained`]) and the ONNX graph ([`crate::export`]) all walk what it gives.

use burn::module::{Module, Param};
use burn::nn::{BatchNorm, BatchNormConfig};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use rand::RngExt;
use rand::rngs::StdRng;

use crate::candidates::Layer;
use crate::model::{NORM_EPSILON, NORM_MOMENTUM};
use triaged_kernels::ConvBackend;
use triaged_kernels::mobile;

/// What a convolution is to its layer. Its kernel reads all channels at one position, but for the stem's, which reads all
/// channels of a neighbourhood, and the depthwise one's, which reads a neighbourhood of its own channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Stem,
    /// Opens a block: more channels.
    Expand,
    Depthwise,
    /// Ends a block: back to few channels, without ReLU6.
    Project,
    Head,
}

/// One convolution with its batch normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    pub role: Role,
    /// Channels of its input.
    pub channels: usize,
    /// Channels of its output.
    pub filters: usize,
    /// Edge of its kernel; padded as TensorFlow's "SAME" ([`mobile::same_padding`]).
    pub kernel: usize,
    pub stride: usize,
    /// It reads the input of an inverted residual block.
    pub opens: bool,
    /// That input is added to its output.
    pub shortcut: bool,
}

impl Step {
    /// ReLU6 follows.
    pub fn rectified(&self) -> bool {
        self.role != Role::Project
    }

    /// `[filters, channels of a kernel, kernel, kernel]`.
    pub fn weight(&self) -> [usize; 4] {
        let channels = if self.role == Role::Depthwise { 1 } else { self.channels };
        [self.filters, channels, self.kernel, self.kernel]
    }

    /// Parameters, the normalisation's running mean and variance among them.
    pub fn parameters(&self) -> usize {
        self.weight().iter().product::<usize>() + 4 * self.filters
    }
}

/// The convolutions that a layer is made of, where it gets so many channels; none for a layer of another kind.
pub fn steps(layer: &Layer, channels: usize) -> Vec<Step> {
    let plain =
        |role, channels, filters| Step { role, channels, filters, kernel: 1, stride: 1, opens: false, shortcut: false };
    match *layer {
        Layer::Stem { filters, kernel } => vec![Step { kernel, stride: 2, ..plain(Role::Stem, channels, filters) }],
        Layer::Head { filters } => vec![plain(Role::Head, channels, filters)],
        Layer::InvertedResidual { filters, kernel, stride, expansion, repeats } => {
            let mut steps = Vec::new();
            let (mut channels, mut stride) = (channels, stride);
            for _ in 0..repeats {
                let wide = channels * expansion;
                let expands = expansion != 1;
                if expands {
                    steps.push(Step { opens: true, ..plain(Role::Expand, channels, wide) });
                }
                steps.push(Step { kernel, stride, opens: !expands, ..plain(Role::Depthwise, wide, wide) });
                let shortcut = stride == 1 && channels == filters;
                steps.push(Step { shortcut, ..plain(Role::Project, wide, filters) });
                (channels, stride) = (filters, 1);
            }
            steps
        }
        _ => Vec::new(),
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_of_two_blocks_is_six_convolutions_and_one_shortcut() {
        let layer = Layer::InvertedResidual { filters: 24, kernel: 5, stride: 2, expansion: 6, repeats: 2 };
        let steps = steps(&layer, 16);
        let roles: Vec<Role> = steps.iter().map(|step| step.role).collect();
        let block = [Role::Expand, Role::Depthwise, Role::Project];
        assert_eq!(roles, [block, block].concat());
        assert_eq!(
            steps.iter().map(|step| step.weight()).collect::<Vec<_>>(),
            [[96, 16, 1, 1], [96, 1, 5, 5], [24, 96, 1, 1], [144, 24, 1, 1], [144, 1, 5, 5], [24, 144, 1, 1]]
        );
        assert_eq!(steps.iter().map(|step| step.stride).collect::<Vec<_>>(), [1, 2, 1, 1, 1, 1]);
        assert_eq!(steps.iter().map(|step| step.opens).collect::<Vec<_>>(), [true, false, false, true, false, false]);
        assert_eq!(
            steps.iter().map(|step| step.shortcut).collect::<Vec<_>>(),
            [false, false, false, false, false, true]
        );
    }

    #[test]
    fn a_block_that_does_not_expand_begins_with_its_depthwise_convolution() {
        let layer = Layer::InvertedResidual { filters: 32, kernel: 3, stride: 1, expansion: 1, repeats: 1 };
        let steps = steps(&layer, 32);
        assert_eq!(steps.len(), 2);
        assert!(steps[0].role == Role::Depthwise && steps[0].opens && steps[1].shortcut);
        assert_eq!(steps[0].parameters() + steps[1].parameters(), 9 * 32 + 128 + 32 * 32 + 128);
    }
}
