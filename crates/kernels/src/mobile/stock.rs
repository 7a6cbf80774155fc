//! The operations by Burn's own, for backends without kernels of ours and as what those are tested against.

use burn::tensor::backend::Backend;
use burn::tensor::ops::{ConvOptions, FloatTensor, PaddedConvOptions};
use burn::tensor::{Tensor, module};

use super::{Affine, Norm, Statistics, same_padding, unwrap, wrap};

pub fn pointwise<B: Backend>(input: FloatTensor<B>, weight: FloatTensor<B>) -> FloatTensor<B> {
    let options = ConvOptions::new([1, 1], [0, 0], [1, 1], 1);
    unwrap::<B, 4>(module::conv2d(wrap(input), wrap(weight), None, options))
}

pub fn depthwise<B: Backend>(input: FloatTensor<B>, weight: FloatTensor<B>, stride: usize) -> FloatTensor<B> {
    let input = wrap::<B, 4>(input);
    let channels = input.dims()[1];
    same(input, wrap(weight), stride, channels)
}

pub fn stem<B: Backend>(input: FloatTensor<B>, weight: FloatTensor<B>) -> FloatTensor<B> {
    same::<B>(wrap(input), wrap(weight), 2, 1)
}

fn same<B: Backend>(input: Tensor<B, 4>, weight: Tensor<B, 4>, stride: usize, groups: usize) -> FloatTensor<B> {
    let [_, _, height, width] = input.dims();
    let kernel = weight.dims()[2];
    let ((top, bottom), (left, right)) = (same_padding(height, kernel, stride), same_padding(width, kernel, stride));
    let options = PaddedConvOptions::asymmetric([stride; 2], [top, left], [bottom, right], [1, 1], groups);
    unwrap(module::conv2d(input, weight, None, options))
}

pub fn norm<B: Backend>(
    input: FloatTensor<B>,
    affine: Affine<FloatTensor<B>>,
    running: Statistics<FloatTensor<B>>,
    shortcut: Option<FloatTensor<B>>,
    how: Norm,
) -> (FloatTensor<B>, Option<Statistics<FloatTensor<B>>>) {
    let input = wrap::<B, 4>(input);
    let channels = input.dims()[1];
    let spread = |tensor: FloatTensor<B>| wrap::<B, 1>(tensor).reshape([1, channels, 1, 1]);
    let (mean, variance, batch) = if how.training {
        let mean = mean_by_channel(input.clone());
        let variance = mean_by_channel((input.clone() - mean.clone()).square());
        let flat = |tensor: &Tensor<B, 4>| unwrap(tensor.clone().detach().reshape([channels]));
        let batch = Statistics { mean: flat(&mean), variance: flat(&variance) };
        (mean, variance, Some(batch))
    } else {
        (spread(running.mean).detach(), spread(running.variance).detach(), None)
    };
    let normal = (input - mean) / (variance + how.epsilon).sqrt();
    let mut output = normal * spread(affine.gamma) + spread(affine.beta);
    if how.clip6 {
        output = output.clamp(0.0, 6.0);
    }
    if let Some(shortcut) = shortcut {
        output = output + wrap(shortcut);
    }
    (unwrap(output), batch)
}

fn mean_by_channel<B: Backend>(tensor: Tensor<B, 4>) -> Tensor<B, 4> {
    tensor.mean_dim(0).mean_dim(2).mean_dim(3)
}
