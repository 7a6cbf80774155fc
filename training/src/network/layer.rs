//! One layer of a network, as a recipe's candidate lists it.

use serde::{Deserialize, Serialize};

/// One layer. Convolutions are valid, stride 1, square, followed by ReLU; the pool's stride is its size. Stem, inverted
/// residual and head are made of convolutions of their own kind, which [`steps`](fn@super::steps) tells.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// Over the channels, epsilon 1e-3, momentum 0.99 (Keras: the share of the old value that stays).
    BatchNorm,
    Conv {
        filters: usize,
        kernel: usize,
    },
    MaxPool {
        size: usize,
    },
    Dropout {
        rate: f64,
    },
    /// Stride 2, padded as TensorFlow's "SAME", without bias; then BatchNorm and ReLU6.
    Stem {
        filters: usize,
        kernel: usize,
    },
    /// Inverted residual blocks (M. Sandler et al.: MobileNetV2, 2018), so many of them, the first with the stride: a 1×1
    /// convolution to `expansion` times the channels (none where that is 1), a depthwise one, a 1×1 one to the filters,
    /// each with BatchNorm, all but the last with ReLU6; the block's input is added where it is of its output's size.
    InvertedResidual {
        filters: usize,
        kernel: usize,
        stride: usize,
        expansion: usize,
        repeats: usize,
    },
    /// A 1×1 convolution without bias, BatchNorm, ReLU6.
    Head {
        filters: usize,
    },
    /// The mean of each channel.
    GlobalAveragePool,
    Flatten,
    /// With ReLU.
    Dense {
        units: usize,
    },
    /// One unit, sigmoid: the probability.
    Output,
}

/// Whether the logit of these layers is the mean of a logit at each position: the mean of each channel goes into the output
/// unit alone, and both are linear. Dropout does nothing at inference.
pub fn has_position_logits(layers: &[Layer]) -> bool {
    let mut after = layers.iter().skip_while(|layer| !layer.flattens());
    after.next() == Some(&Layer::GlobalAveragePool)
        && after.all(|layer| matches!(layer, Layer::Dropout { .. } | Layer::Output))
}

impl Layer {
    /// Whether it makes a list of numbers of an image.
    pub fn flattens(&self) -> bool {
        matches!(self, Layer::Flatten | Layer::GlobalAveragePool)
    }
}
