//! The operations of a MobileNet-like network: pointwise, depthwise and stem convolution, and batch normalisation fused
//! with ReLU6 and a block's shortcut. Burn's stock kernels on every backend; the CPU backend and its autodiff have
//! their own.
//!
//! All tensors are `[batch, channels, height, width]` to the caller. The CPU's own operations keep channels innermost
//! in memory and hand out permuted views, as [`crate::conv`] does; between two of them nothing is copied.

mod batch_norm;
mod cpu;
mod depthwise;
mod matrix;
mod norm;
mod pointwise;
mod stem;
mod stock;

pub use batch_norm::batch_norm;
use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Tensor, TensorPrimitive};

/// A backend that can compute the operations; the functions of this module take tensors and say what each does.
pub trait MobileBackend: Backend {
    fn pointwise(input: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        stock::pointwise::<Self>(input, weight)
    }

    fn depthwise(input: FloatTensor<Self>, weight: FloatTensor<Self>, stride: usize) -> FloatTensor<Self> {
        stock::depthwise::<Self>(input, weight, stride)
    }

    fn stem(input: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        stock::stem::<Self>(input, weight)
    }

    fn norm(
        input: FloatTensor<Self>,
        affine: Affine<FloatTensor<Self>>,
        statistics: Statistics<FloatTensor<Self>>,
        shortcut: Option<FloatTensor<Self>>,
        how: Norm,
    ) -> (FloatTensor<Self>, Option<Statistics<FloatTensor<Self>>>) {
        stock::norm::<Self>(input, affine, statistics, shortcut, how)
    }
}

/// How [`norm`](fn@norm) normalises.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Norm {
    /// Added to the variance.
    pub epsilon: f32,
    /// By the batch's own statistics, with the gradient through them; else by the running ones.
    pub training: bool,
    /// Followed by ReLU6, `min(max(x, 0), 6)`.
    pub clip6: bool,
}

/// Batch normalisation's learnt scale and offset, each `[channels]`.
#[derive(Debug, Clone)]
pub struct Affine<T> {
    pub gamma: T,
    pub beta: T,
}

/// Mean and variance of each channel over batch, height and width, each `[channels]`; the variance is the biased one (divided by the
/// count, not by the count less one).
#[derive(Debug, Clone)]
pub struct Statistics<T> {
    pub mean: T,
    pub variance: T,
}

/// 1×1 convolution without bias: `[n, c, h, w]` and `weight` `[o, c, 1, 1]` to `[n, o, h, w]`.
pub fn pointwise<B: MobileBackend>(input: Tensor<B, 4>, weight: Tensor<B, 4>) -> Tensor<B, 4> {
    wrap(B::pointwise(unwrap(input), unwrap(weight)))
}

/// Each channel convolved by its own kernel, without bias: `[n, c, h, w]` and `weight` `[c, 1, k, k]` to
/// `[n, c, ⌈h / stride⌉, ⌈w / stride⌉]`, zeros outside as by [`same_padding`].
pub fn depthwise<B: MobileBackend>(input: Tensor<B, 4>, weight: Tensor<B, 4>, stride: usize) -> Tensor<B, 4> {
    wrap(B::depthwise(unwrap(input), unwrap(weight), stride))
}

/// The network's first convolution, stride 2 and without bias: `[n, c, h, w]` and `weight` `[o, c, k, k]` to
/// `[n, o, ⌈h / 2⌉, ⌈w / 2⌉]`, zeros outside as by [`same_padding`].
pub fn stem<B: MobileBackend>(input: Tensor<B, 4>, weight: Tensor<B, 4>) -> Tensor<B, 4> {
    wrap(B::stem(unwrap(input), unwrap(weight)))
}

/// Batch normalisation, then ReLU6 where asked, then a block's `shortcut` added where it has one (all
/// `[n, c, h, w]`). In training also the batch's statistics, which carry no gradient: updating the running ones is the
/// caller's. Not in training, `statistics` are constants.
pub fn norm<B: MobileBackend>(
    input: Tensor<B, 4>,
    affine: Affine<Tensor<B, 1>>,
    statistics: Statistics<Tensor<B, 1>>,
    shortcut: Option<Tensor<B, 4>>,
    how: Norm,
) -> (Tensor<B, 4>, Option<Statistics<Tensor<B, 1>>>) {
    let (output, batch) = B::norm(
        unwrap(input),
        Affine { gamma: unwrap(affine.gamma), beta: unwrap(affine.beta) },
        Statistics { mean: unwrap(statistics.mean), variance: unwrap(statistics.variance) },
        shortcut.map(unwrap),
        how,
    );
    (wrap(output), batch.map(|batch| Statistics { mean: wrap(batch.mean), variance: wrap(batch.variance) }))
}

/// TensorFlow's "SAME": zeros before and after an edge of `size`, so that `⌈size / stride⌉` positions result. Where
/// the total is odd, the end gets one more than the beginning.
pub fn same_padding(size: usize, kernel: usize, stride: usize) -> (usize, usize) {
    let total = ((size.div_ceil(stride) - 1) * stride + kernel).saturating_sub(size);
    (total / 2, total - total / 2)
}

fn unwrap<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> FloatTensor<B> {
    tensor.into_primitive().tensor()
}

fn wrap<B: Backend, const D: usize>(tensor: FloatTensor<B>) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(tensor))
}

#[cfg(feature = "cuda")]
mod cuda {
    use super::MobileBackend;
    use burn::backend::{Autodiff, Cuda, autodiff::checkpoint::strategy::CheckpointStrategy};

    impl MobileBackend for Cuda {}
    impl<C: CheckpointStrategy> MobileBackend for Autodiff<Cuda, C> {}
}

#[cfg(test)]
mod tests;
