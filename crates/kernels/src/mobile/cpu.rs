//! The CPU backend's own operations, with their gradients.

use std::sync::Arc;

use burn::backend::autodiff::Autodiff;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::{Flex, FlexTensor};
use burn::tensor::ops::FloatTensor;
use burn::tensor::{TensorData, TensorMetadata};
use rayon::prelude::*;

use super::{Affine, MobileBackend, Norm, Statistics, depthwise, norm, pointwise, stem, stock};
use crate::buffers;
use crate::layout::{accumulate, channels_first, channels_last, steps, values};
use crate::sum::sum;

fn tensor<const D: usize>(values: Vec<f32>, dims: [usize; D]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, dims))
}

fn vector(tensor: &FlexTensor) -> Vec<f32> {
    values(&tensor.to_contiguous()).to_vec()
}

impl MobileBackend for Flex {
    fn pointwise(input: FlexTensor, weight: FlexTensor) -> FlexTensor {
        let (output, PointwiseState { input, .. }) = pointwise_forward(input, weight);
        buffers::give(input);
        output
    }

    fn depthwise(input: FlexTensor, weight: FlexTensor, stride: usize) -> FlexTensor {
        let shape = depthwise_shape(&input, &weight, stride);
        if !shape.is_supported() {
            return stock::depthwise::<Self>(input, weight, stride);
        }
        let (output, DepthwiseState { input, .. }) = depthwise_forward(shape, input, weight);
        buffers::give(input);
        output
    }

    fn stem(input: FlexTensor, weight: FlexTensor) -> FlexTensor {
        stem_forward(input, weight).0
    }

    fn norm(
        input: FlexTensor,
        affine: Affine<FlexTensor>,
        statistics: Statistics<FlexTensor>,
        shortcut: Option<FlexTensor>,
        how: Norm,
    ) -> (FlexTensor, Option<Statistics<FlexTensor>>) {
        let done = norm_forward(input, affine, statistics, shortcut, how);
        buffers::give(done.state.input);
        (done.output, done.batch)
    }
}

impl<C: CheckpointStrategy> MobileBackend for Autodiff<Flex, C> {
    fn pointwise(input: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [input.node.clone(), weight.node.clone()];
        let (output, state) = pointwise_forward(input.primitive, weight.primitive);
        match PointwiseBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(state, output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn depthwise(input: FloatTensor<Self>, weight: FloatTensor<Self>, stride: usize) -> FloatTensor<Self> {
        let shape = depthwise_shape(&input.primitive, &weight.primitive, stride);
        if !shape.is_supported() {
            return stock::depthwise::<Self>(input, weight, stride);
        }
        let nodes = [input.node.clone(), weight.node.clone()];
        let (output, state) = depthwise_forward(shape, input.primitive, weight.primitive);
        match DepthwiseBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(state, output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn stem(input: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [input.node.clone(), weight.node.clone()];
        let (output, state) = stem_forward(input.primitive, weight.primitive);
        match StemBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(state, output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn norm(
        input: FloatTensor<Self>,
        affine: Affine<FloatTensor<Self>>,
        statistics: Statistics<FloatTensor<Self>>,
        shortcut: Option<FloatTensor<Self>>,
        how: Norm,
    ) -> (FloatTensor<Self>, Option<Statistics<FloatTensor<Self>>>) {
        let Affine { gamma, beta } = affine;
        let nodes = [input.node.clone(), gamma.node.clone(), beta.node.clone()];
        let shortcut_node = shortcut.as_ref().map(|shortcut| shortcut.node.clone());
        let Normed { output, batch, state } = norm_forward(
            input.primitive,
            Affine { gamma: gamma.primitive, beta: beta.primitive },
            Statistics { mean: statistics.mean.primitive, variance: statistics.variance.primitive },
            shortcut.map(|shortcut| shortcut.primitive),
            how,
        );
        let output = match shortcut_node {
            None => match NormBackward.prepare::<C>(nodes).compute_bound().stateful() {
                OpsKind::Tracked(prep) => prep.finish(state, output),
                OpsKind::UnTracked(prep) => prep.finish(output),
            },
            Some(shortcut) => {
                let [input, gamma, beta] = nodes;
                match NormBackward.prepare::<C>([input, gamma, beta, shortcut]).compute_bound().stateful() {
                    OpsKind::Tracked(prep) => prep.finish(state, output),
                    OpsKind::UnTracked(prep) => prep.finish(output),
                }
            }
        };
        let constant = |tensor| <Self as burn::tensor::backend::AutodiffBackend>::from_inner(tensor);
        let batch = batch.map(|batch| Statistics { mean: constant(batch.mean), variance: constant(batch.variance) });
        (output, batch)
    }
}

#[derive(Clone, Debug)]
struct PointwiseState {
    /// Channels last.
    input: FlexTensor,
    weight: FlexTensor,
}

fn pointwise_forward(input: FlexTensor, weight: FlexTensor) -> (FlexTensor, PointwiseState) {
    let [n, channels, h, w]: [usize; 4] = input.shape().dims();
    let [filters, of, one, also_one]: [usize; 4] = weight.shape().dims();
    assert_eq!([of, one, also_one], [channels, 1, 1], "a 1×1 kernel over {channels} channels");
    let (input, weight) = (channels_last(input), weight.to_contiguous());
    let output = pointwise::forward(values(&input), values(&weight), channels);
    (channels_first(tensor(output, [n, h, w, filters])), PointwiseState { input, weight })
}

#[derive(Debug)]
struct PointwiseBackward;

impl Backward<Flex, 2> for PointwiseBackward {
    type State = PointwiseState;

    fn backward(self, ops: Ops<PointwiseState, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = channels_last(grads.consume::<Flex>(&ops.node));
        let PointwiseState { input, weight } = ops.state;
        let [on_input, on_weight] = ops.parents;
        let [n, h, w, channels]: [usize; 4] = input.shape().dims();
        let filters = weight.shape()[0];
        if let Some(node) = on_weight {
            let total = pointwise::weight_gradient(values(&gradient), values(&input), channels, filters);
            grads.register::<Flex>(node.id, tensor(total, [filters, channels, 1, 1]));
        }
        buffers::give(input);
        if let Some(node) = on_input {
            let total = pointwise::input_gradient(values(&gradient), values(&weight), channels);
            accumulate(grads, |parent| parent.node = node, tensor(total, [n, h, w, channels]));
        }
        buffers::give(gradient);
    }
}

#[derive(Clone, Debug)]
struct DepthwiseState {
    shape: depthwise::Shape,
    /// Channels last.
    input: FlexTensor,
    weight: FlexTensor,
}

fn depthwise_shape(input: &FlexTensor, weight: &FlexTensor, stride: usize) -> depthwise::Shape {
    let [_, channels, height, width]: [usize; 4] = input.shape().dims();
    let [of, one, kernel, also_kernel]: [usize; 4] = weight.shape().dims();
    assert_eq!([of, one, also_kernel], [channels, 1, kernel], "a square kernel for each of {channels} channels");
    depthwise::Shape { height, width, channels, kernel, stride }
}

fn depthwise_forward(shape: depthwise::Shape, input: FlexTensor, weight: FlexTensor) -> (FlexTensor, DepthwiseState) {
    let n = input.shape()[0];
    let (input, weight) = (channels_last(input), weight.to_contiguous());
    let mut output = buffers::take(n * shape.output_len());
    output
        .par_chunks_exact_mut(shape.output_len())
        .zip(values(&input).par_chunks_exact(shape.input_len()))
        .for_each(|(output, input)| depthwise::forward(&shape, values(&weight), input, output));
    let [h, w] = shape.output();
    (channels_first(tensor(output, [n, h, w, shape.channels])), DepthwiseState { shape, input, weight })
}

#[derive(Debug)]
struct DepthwiseBackward;

impl Backward<Flex, 2> for DepthwiseBackward {
    type State = DepthwiseState;

    fn backward(self, ops: Ops<DepthwiseState, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = channels_last(grads.consume::<Flex>(&ops.node));
        let DepthwiseState { shape, input, weight } = ops.state;
        let [on_input, on_weight] = ops.parents;
        let n = input.shape()[0];

        let inputs = values(&input).par_chunks_exact(shape.input_len());
        let slices = inputs.zip(values(&gradient).par_chunks_exact(shape.output_len()));
        let (parts, on_input): (Vec<Vec<f32>>, _) = match on_input {
            Some(node) => {
                let mut total = buffers::take(n * shape.input_len());
                let parts = slices
                    .zip(total.par_chunks_exact_mut(shape.input_len()))
                    .map(|((input, gradient), to)| {
                        depthwise::backward(&shape, values(&weight), input, gradient, Some(to))
                    })
                    .collect();
                (parts, Some((node, total)))
            }
            None => {
                let of = |(input, gradient)| depthwise::backward(&shape, values(&weight), input, gradient, None);
                (slices.map(of).collect(), None)
            }
        };
        buffers::give(input);
        buffers::give(gradient);
        if let Some(node) = on_weight {
            // Summed in the batch's order, so that a run repeats bit for bit whatever the threads did.
            let total = sum(parts.iter().map(Vec::as_slice));
            let dims = [shape.channels, 1, shape.kernel, shape.kernel];
            grads.register::<Flex>(node.id, tensor(total, dims));
        }
        if let Some((node, total)) = on_input {
            accumulate(
                grads,
                |parent| parent.node = node,
                tensor(total, [n, shape.height, shape.width, shape.channels]),
            );
        }
    }
}

#[derive(Clone, Debug)]
struct StemState {
    shape: stem::Shape,
    /// In the memory order that `shape` tells.
    input: FlexTensor,
    weight: FlexTensor,
}

fn stem_forward(input: FlexTensor, weight: FlexTensor) -> (FlexTensor, StemState) {
    let [batch, channels, height, width]: [usize; 4] = input.shape().dims();
    let [filters, of, kernel, also_kernel]: [usize; 4] = weight.shape().dims();
    assert_eq!([of, also_kernel], [channels, kernel], "square kernels over {channels} channels");
    // A view of a part or a flipped one is laid out anew; any permutation is read as it is.
    let input = if steps(&input).is_some() { input } else { input.to_contiguous() };
    let steps = steps(&input).expect("contiguous now");
    let shape = stem::Shape { batch, channels, height, width, filters, kernel, steps };
    let weight = weight.to_contiguous();
    let output = stem::forward(&shape, values(&weight), input.storage());
    let [h, w] = shape.output();
    (channels_first(tensor(output, [batch, h, w, filters])), StemState { shape, input, weight })
}

#[derive(Debug)]
struct StemBackward;

impl Backward<Flex, 2> for StemBackward {
    type State = StemState;

    fn backward(self, ops: Ops<StemState, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = channels_last(grads.consume::<Flex>(&ops.node));
        let StemState { shape, input, weight } = ops.state;
        let [on_input, on_weight] = ops.parents;
        if let Some(node) = on_weight {
            let total = stem::weight_gradient(&shape, input.storage(), values(&gradient));
            let dims = [shape.filters, shape.channels, shape.kernel, shape.kernel];
            grads.register::<Flex>(node.id, tensor(total, dims));
        }
        if let Some(node) = on_input {
            let total = stem::input_gradient(&shape, values(&weight), values(&gradient));
            let dims = [shape.batch, shape.channels, shape.height, shape.width];
            grads.register::<Flex>(node.id, tensor(total, dims));
        }
        buffers::give(gradient);
    }
}

#[derive(Clone, Debug)]
struct NormState {
    normal: Arc<norm::Normal>,
    /// Channels last, before normalising.
    input: FlexTensor,
    how: Norm,
}

struct Normed {
    output: FlexTensor,
    batch: Option<Statistics<FlexTensor>>,
    state: NormState,
}

fn norm_forward(
    input: FlexTensor,
    affine: Affine<FlexTensor>,
    statistics: Statistics<FlexTensor>,
    shortcut: Option<FlexTensor>,
    how: Norm,
) -> Normed {
    let [n, channels, h, w]: [usize; 4] = input.shape().dims();
    let input = channels_last(input);
    let (mean, variance) = match how.training {
        true => norm::statistics(values(&input), channels),
        false => (vector(&statistics.mean), vector(&statistics.variance)),
    };
    let batch = how
        .training
        .then(|| Statistics { mean: tensor(mean.clone(), [channels]), variance: tensor(variance.clone(), [channels]) });
    let (gamma, beta) = (vector(&affine.gamma), vector(&affine.beta));
    for factors in [&gamma, &beta, &mean, &variance] {
        assert_eq!(factors.len(), channels, "one factor for each channel");
    }
    let normal = norm::Normal { gamma, beta, mean, variance, epsilon: how.epsilon };
    let shortcut = shortcut.map(|shortcut| {
        assert_eq!(shortcut.shape(), [n, channels, h, w].into(), "the shortcut of a block of unchanged shape");
        channels_last(shortcut)
    });
    let output = norm::forward(&normal, values(&input), shortcut.as_ref().map(values), how.clip6);
    let output = channels_first(tensor(output, [n, h, w, channels]));
    Normed { output, batch, state: NormState { normal: Arc::new(normal), input, how } }
}

/// Parents: input, γ, β, and the shortcut where there is one.
#[derive(Debug)]
struct NormBackward;

impl<const N: usize> Backward<Flex, N> for NormBackward {
    type State = NormState;

    fn backward(self, ops: Ops<NormState, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = channels_last(grads.consume::<Flex>(&ops.node));
        let NormState { normal, input, how } = ops.state;
        let mut parents = ops.parents.into_iter();
        let [on_input, on_gamma, on_beta, on_shortcut] = std::array::from_fn(|_| parents.next().flatten());
        let [n, h, w, channels]: [usize; 4] = input.shape().dims();
        let done =
            norm::backward(&normal, values(&input), values(&gradient), how.clip6, how.training, on_input.is_some());
        buffers::give(input);
        for (node, values) in [(on_gamma, done.gamma), (on_beta, done.beta)] {
            if let Some(node) = node {
                grads.register::<Flex>(node.id, tensor(values, [channels]));
            }
        }
        if let Some((node, values)) = on_input.zip(done.input) {
            accumulate(grads, |parent| parent.node = node, tensor(values, [n, h, w, channels]));
        }
        match on_shortcut {
            Some(node) => accumulate(grads, |parent| parent.node = node, gradient),
            None => buffers::give(gradient),
        }
    }
}
