//! Convolution + ReLU + max pooling as one operation: Burn's stock kernels on every backend, except that the CPU
//! backend (and its autodiff) takes the fused arithmetic in `kernel.rs`, gradient-checked against the stock one.

mod kernel;

use std::sync::Arc;

use burn::backend::autodiff::Autodiff;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::{Flex, FlexTensor};
use burn::tensor::backend::Backend;
use burn::tensor::ops::{ConvOptions, FloatTensor};
use burn::tensor::{Tensor, TensorData, TensorMetadata, TensorPrimitive, activation, module};
use rayon::prelude::*;

use crate::buffers;
use crate::layout::{channels_first, channels_last, values};
use crate::mobile::MobileBackend;
use crate::sum::sum;
use kernel::{BackwardLayout, BlockShape, ForwardWeights, Saved};

/// A backend that can compute the block. `input` is `[batch, channels, height, width]`, `weight`
/// `[filters, channels, kernel, kernel]`, `bias` `[filters]`; valid padding, stride 1; the pool's stride is its size,
/// and 1 means no pooling. Every such backend has the operations of [`crate::mobile`] too.
pub trait ConvBackend: MobileBackend {
    fn conv_relu_pool(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        pool: usize,
    ) -> FloatTensor<Self> {
        stock::<Self>(input, weight, bias, pool)
    }
}

/// The block on tensors; see [`ConvBackend::conv_relu_pool`].
pub fn conv_relu_pool<B: ConvBackend>(
    input: Tensor<B, 4>,
    weight: Tensor<B, 4>,
    bias: Tensor<B, 1>,
    pool: usize,
) -> Tensor<B, 4> {
    let output = B::conv_relu_pool(
        input.into_primitive().tensor(),
        weight.into_primitive().tensor(),
        bias.into_primitive().tensor(),
        pool,
    );
    Tensor::from_primitive(TensorPrimitive::Float(output))
}

fn stock<B: Backend>(
    input: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    pool: usize,
) -> FloatTensor<B> {
    let tensor = module::conv2d(
        Tensor::<B, 4>::from_primitive(TensorPrimitive::Float(input)),
        Tensor::from_primitive(TensorPrimitive::Float(weight)),
        Some(Tensor::from_primitive(TensorPrimitive::Float(bias))),
        ConvOptions::new([1, 1], [0, 0], [1, 1], 1),
    );
    let tensor = activation::relu(tensor);
    let tensor = match pool {
        1 => tensor,
        _ => module::max_pool2d(tensor, [pool; 2], [pool; 2], [0; 2], [1; 2], false),
    };
    tensor.into_primitive().tensor()
}

#[cfg(feature = "cuda")]
mod cuda {
    use super::*;
    use burn::backend::Cuda;

    impl ConvBackend for Cuda {}
    impl<C: CheckpointStrategy> ConvBackend for Autodiff<Cuda, C> {}
}

impl ConvBackend for Flex {
    fn conv_relu_pool(input: FlexTensor, weight: FlexTensor, bias: FlexTensor, pool: usize) -> FlexTensor {
        forward(input, weight, bias, pool).output
    }
}

impl<C: CheckpointStrategy> ConvBackend for Autodiff<Flex, C> {
    fn conv_relu_pool(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        pool: usize,
    ) -> FloatTensor<Self> {
        let nodes = [input.node.clone(), weight.node.clone(), bias.node.clone()];
        let done = forward(input.primitive, weight.primitive, bias.primitive, pool);
        match FusedBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(done.state, done.output),
            OpsKind::UnTracked(prep) => prep.finish(done.output),
        }
    }
}

/// The backward pass's input. Tensors share their storage with the graph's own.
#[derive(Clone, Debug)]
struct State {
    shape: BlockShape,
    /// Channels last.
    input: FlexTensor,
    weight: FlexTensor,
    /// Pooled, channels last.
    output: FlexTensor,
    argmax: Arc<Vec<u8>>,
}

struct Forward {
    /// `[batch, filters, height, width]`, a view of `state.output`.
    output: FlexTensor,
    state: State,
}

fn forward(input: FlexTensor, weight: FlexTensor, bias: FlexTensor, pool: usize) -> Forward {
    let [batch, channels, height, width]: [usize; 4] = input.shape().dims();
    let [filters, _, kernel, _]: [usize; 4] = weight.shape().dims();
    let shape = BlockShape { height, width, channels, filters, kernel, pool };
    assert!(shape.is_supported(), "a block that no candidate describes: {shape:?}");
    let (input, weight, bias) = (channels_last(input), weight.to_contiguous(), bias.to_contiguous());
    let packed = ForwardWeights::pack(&shape, values(&weight), values(&bias));
    let mut output = buffers::take(batch * shape.output_len());
    let mut argmax = vec![0u8; output.len()];
    output
        .par_chunks_exact_mut(shape.output_len())
        .zip(argmax.par_chunks_exact_mut(shape.output_len()))
        .zip(values(&input).par_chunks_exact(shape.input_len()))
        .for_each(|((output, argmax), input)| kernel::forward(&shape, &packed, input, output, argmax));
    let [h, w] = shape.pooled();
    let output = FlexTensor::from_data(TensorData::new(output, [batch, h, w, filters]));
    let state = State { shape, input, weight, output: output.clone(), argmax: Arc::new(argmax) };
    Forward { output: channels_first(output), state }
}

#[derive(Debug)]
struct FusedBackward;

impl Backward<Flex, 3> for FusedBackward {
    type State = State;

    fn backward(self, ops: Ops<State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = channels_last(grads.consume::<Flex>(&ops.node));
        let State { shape, input, weight, output, argmax } = ops.state;
        let [on_input, on_weight, on_bias] = ops.parents;
        let batch = input.shape()[0];

        let layout = BackwardLayout::new(&shape);
        let packed = on_input.is_some().then(|| layout.pack(&shape, values(&weight)));
        let (inputs, pooled, slopes) = (values(&input), values(&output), values(&gradient));
        let slice = |i: usize, on_input: Option<&mut [f32]>| {
            let outputs = i * shape.output_len()..(i + 1) * shape.output_len();
            let saved = Saved {
                input: &inputs[i * shape.input_len()..(i + 1) * shape.input_len()],
                output: &pooled[outputs.clone()],
                argmax: &argmax[outputs.clone()],
            };
            kernel::backward(&shape, &layout, saved, &slopes[outputs], packed.as_deref().zip(on_input))
        };
        let (slices, on_input): (Vec<kernel::Gradients>, _) = match on_input {
            Some(node) => {
                let mut all = buffers::take(batch * shape.input_len());
                let targets = all.par_chunks_exact_mut(shape.input_len()).enumerate();
                (targets.map(|(i, target)| slice(i, Some(target))).collect(), Some((node, all)))
            }
            None => ((0..batch).into_par_iter().map(|i| slice(i, None)).collect(), None),
        };
        // Summed in the batch's order, so that a run repeats bit for bit whatever the threads did.
        if let Some(node) = on_weight {
            let total = sum(slices.iter().map(|slice| slice.weights.as_slice()));
            let dims = [shape.filters, shape.channels, shape.kernel, shape.kernel];
            grads.register::<Flex>(node.id, FlexTensor::from_data(TensorData::new(total, dims)));
        }
        if let Some(node) = on_bias {
            let total = sum(slices.iter().map(|slice| slice.bias.as_slice()));
            grads.register::<Flex>(node.id, FlexTensor::from_data(TensorData::new(total, [shape.filters])));
        }
        if let Some((node, all)) = on_input {
            let dims = [batch, shape.height, shape.width, shape.channels];
            let all = FlexTensor::from_data(TensorData::new(all, dims));
            grads.register::<Flex>(node.id, channels_first(all));
        }
        for done in [input, output, gradient] {
            buffers::give(done);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Distribution;

    type Cpu = Autodiff<Flex>;

    /// Forward values and the three gradients of `Σ output · r`, by the fused block or the stock operations.
    fn run(fused: bool, dims: [usize; 4], filters: usize, kernel: usize, pool: usize) -> Vec<TensorData> {
        let device = Default::default();
        let draw = |seed: u64, shape: Vec<usize>| {
            Flex::seed(&device, seed);
            let flat: usize = shape.iter().product();
            let tensor = Tensor::<Flex, 1>::random([flat], Distribution::Normal(0.1, 0.5), &device);
            TensorData::new(tensor.into_data().to_vec::<f32>().expect("f32"), shape)
        };
        let [_, channels, ..] = dims;
        let input = Tensor::<Cpu, 4>::from_data(draw(1, dims.to_vec()), &device).require_grad();
        let weight =
            Tensor::<Cpu, 4>::from_data(draw(2, vec![filters, channels, kernel, kernel]), &device).require_grad();
        let bias = Tensor::<Cpu, 1>::from_data(draw(3, vec![filters]), &device).require_grad();
        let output = if fused {
            conv_relu_pool(input.clone(), weight.clone(), bias.clone(), pool)
        } else {
            Tensor::from_primitive(TensorPrimitive::Float(stock::<Cpu>(
                input.clone().into_primitive().tensor(),
                weight.clone().into_primitive().tensor(),
                bias.clone().into_primitive().tensor(),
                pool,
            )))
        };
        let r = Tensor::<Cpu, 4>::from_data(draw(4, output.dims().to_vec()), &device);
        let grads = (output.clone() * r).sum().backward();
        vec![
            output.into_data(),
            input.grad(&grads).expect("input").into_data(),
            weight.grad(&grads).expect("weight").into_data(),
            bias.grad(&grads).expect("bias").into_data(),
        ]
    }

    #[test]
    fn the_fused_block_and_its_gradients_equal_the_stock_operations() {
        // Like each of the candidates' blocks, at small sizes, with remainders that pooling drops and channel and
        // filter counts that do not fill a vector.
        for (dims, filters, kernel, pool) in [
            ([2, 1, 20, 22], 64, 6, 3),
            ([3, 64, 11, 13], 64, 3, 2),
            ([1, 3, 9, 7], 5, 3, 2),
            ([2, 1, 8, 8], 4, 3, 1),
            ([1, 2, 4, 4], 17, 3, 2),
        ] {
            let (fused, stock) = (run(true, dims, filters, kernel, pool), run(false, dims, filters, kernel, pool));
            for (what, (fused, stock)) in ["output", "input", "weight", "bias"].iter().zip(fused.iter().zip(&stock)) {
                assert_eq!(fused.shape, stock.shape, "{what} of {dims:?}");
                let (a, b) = (fused.to_vec::<f32>().expect("f32"), stock.to_vec::<f32>().expect("f32"));
                let scale = b.iter().fold(1.0f32, |m, v| m.max(v.abs()));
                let worst = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
                assert!(worst <= 2e-5 * scale, "{what} of {dims:?}, kernel {kernel}: off by {worst} in {scale}");
            }
        }
    }

    #[test]
    fn a_nan_is_not_hidden() {
        let device = Default::default();
        let output = conv_relu_pool(
            Tensor::<Flex, 4>::full([1, 1, 8, 8], f32::NAN, &device),
            Tensor::ones([2, 1, 3, 3], &device),
            Tensor::zeros([2], &device),
            2,
        );
        assert!(output.into_data().to_vec::<f32>().expect("f32").iter().all(|v| v.is_nan()));
    }
}
