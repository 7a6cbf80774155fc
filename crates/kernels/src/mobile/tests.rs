//! The CPU's operations and their gradients against Burn's stock ones, at small odd sizes.

use burn::backend::{Autodiff, Flex};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Distribution, TensorData, TensorMetadata};

use super::*;

type Cpu = Autodiff<Flex>;
/// Reads one leaf's gradient.
type Gradient<'a> = &'a dyn Fn(&<Cpu as AutodiffBackend>::Gradients) -> TensorData;

const SMALL: Norm = Norm { epsilon: 1e-3, training: true, clip6: true };

fn draw<const D: usize>(seed: u64, dims: [usize; D], mean: f64, deviation: f64) -> Tensor<Flex, D> {
    let device = Default::default();
    Flex::seed(&device, seed);
    Tensor::random(dims, Distribution::Normal(mean, deviation), &device)
}

/// A leaf of the graph.
fn leaf<const D: usize>(tensor: Tensor<Flex, D>) -> Tensor<Cpu, D> {
    Tensor::from_inner(tensor).require_grad()
}

/// Seen as `[n, c, h, w]` with channels innermost in memory, as our own operations hand tensors on.
fn channels_inside(tensor: Tensor<Flex, 4>) -> Tensor<Flex, 4> {
    let copied = Tensor::from_data(tensor.permute([0, 2, 3, 1]).into_data(), &Default::default());
    copied.permute([0, 3, 1, 2])
}

/// The output and, of `Σ output · r`, the gradients of the leaves.
fn outcome(output: Tensor<Cpu, 4>, leaves: &[Gradient<'_>]) -> Vec<TensorData> {
    let r = Tensor::from_inner(draw(99, output.dims(), 0.3, 1.0));
    let grads = (output.clone() * r).sum().backward();
    let mut all = vec![output.into_data()];
    all.extend(leaves.iter().map(|leaf| leaf(&grads)));
    all
}

fn gradient<const D: usize>(tensor: &Tensor<Cpu, D>) -> impl Fn(&<Cpu as AutodiffBackend>::Gradients) -> TensorData {
    let tensor = tensor.clone();
    move |grads| tensor.grad(grads).expect("a gradient reached it").into_data()
}

fn assert_equal(what: &str, ours: &[TensorData], stock: &[TensorData]) {
    assert_eq!(ours.len(), stock.len());
    for (i, (ours, stock)) in ours.iter().zip(stock).enumerate() {
        assert_eq!(ours.shape, stock.shape, "{what}, value {i}");
        let (a, b) = (ours.to_vec::<f32>().expect("f32"), stock.to_vec::<f32>().expect("f32"));
        let scale = b.iter().fold(1.0f32, |most, v| most.max(v.abs()));
        let worst = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
        // `fold` drops a NaN, so they are counted apart.
        assert!(a.iter().chain(&b).all(|v| v.is_finite()), "{what}, value {i}: not finite");
        assert!(worst <= 3e-5 * scale, "{what}, value {i} (0 is the output): off by {worst} in {scale}");
    }
}

/// Both ways of one convolution: output, gradients of input and weight.
fn convolutions(
    input: &Tensor<Flex, 4>,
    weight: &Tensor<Flex, 4>,
    ours: impl Fn(FloatTensor<Cpu>, FloatTensor<Cpu>) -> FloatTensor<Cpu>,
    stock: impl Fn(FloatTensor<Cpu>, FloatTensor<Cpu>) -> FloatTensor<Cpu>,
) -> [Vec<TensorData>; 2] {
    let run = |operation: &dyn Fn(FloatTensor<Cpu>, FloatTensor<Cpu>) -> FloatTensor<Cpu>| {
        let (input, weight) = (leaf(input.clone()), leaf(weight.clone()));
        let output = wrap(operation(unwrap(input.clone()), unwrap(weight.clone())));
        outcome(output, &[&gradient(&input), &gradient(&weight)])
    };
    [run(&ours), run(&stock)]
}

#[test]
fn padding_as_tensorflow_pads() {
    // By hand from the definition: the last window must end at or past the edge.
    assert_eq!(same_padding(224, 3, 2), (0, 1));
    assert_eq!(same_padding(7, 3, 2), (1, 1));
    assert_eq!(same_padding(112, 5, 2), (1, 2));
    assert_eq!(same_padding(9, 5, 1), (2, 2));
    assert_eq!(same_padding(9, 1, 1), (0, 0));
    assert_eq!(same_padding(5, 1, 2), (0, 0));
}

#[test]
fn pointwise_equals_stock() {
    // The last has positions enough for sums in parts.
    for (dims, filters) in [([1, 16, 7, 5], 96), ([3, 5, 6, 4], 17), ([2, 1, 3, 3], 2), ([3, 5, 61, 63], 17)] {
        let (input, weight) = (draw(1, dims, 0.1, 0.5), draw(2, [filters, dims[1], 1, 1], 0.0, 0.5));
        for input in [input.clone(), channels_inside(input)] {
            let [ours, stock] = convolutions(&input, &weight, Cpu::pointwise, stock::pointwise::<Cpu>);
            assert_equal(&format!("{dims:?} to {filters}"), &ours, &stock);
        }
    }
}

#[test]
fn depthwise_equals_stock() {
    for dims in [[1, 16, 7, 7], [3, 5, 9, 8], [2, 33, 6, 19], [1, 32, 14, 13], [2, 3, 1, 2], [1, 17, 40, 36]] {
        for (kernel, stride) in [(3, 1), (3, 2), (5, 1), (5, 2), (7, 1)] {
            let (input, weight) = (draw(1, dims, 0.1, 0.5), draw(2, [dims[1], 1, kernel, kernel], 0.0, 0.5));
            for input in [input.clone(), channels_inside(input)] {
                let [ours, stock] = convolutions(
                    &input,
                    &weight,
                    |input, weight| Cpu::depthwise(input, weight, stride),
                    |input, weight| stock::depthwise::<Cpu>(input, weight, stride),
                );
                assert_equal(&format!("{dims:?}, kernel {kernel}, stride {stride}"), &ours, &stock);
            }
        }
    }
}

#[test]
fn stem_equals_stock() {
    for (dims, filters) in [([2, 1, 22, 20], 32), ([3, 3, 9, 17], 32), ([1, 2, 37, 5], 7)] {
        let (input, weight) = (draw(1, dims, 0.1, 0.5), draw(2, [filters, dims[1], 3, 3], 0.0, 0.5));
        for input in [input.clone(), channels_inside(input)] {
            let [ours, stock] = convolutions(&input, &weight, Cpu::stem, stock::stem::<Cpu>);
            assert_equal(&format!("{dims:?} to {filters}"), &ours, &stock);
        }
    }
}

#[test]
fn norm_equals_stock() {
    for dims in [[1, 16, 7, 5], [3, 5, 61, 63], [2, 300, 4, 3], [3, 33, 40, 41], [2, 1, 5, 5]] {
        for (training, clip6, shortcut) in [
            (true, true, false),
            (true, false, true),
            (true, false, false),
            (true, true, true),
            (false, true, false),
            (false, false, true),
        ] {
            let how = Norm { training, clip6, ..SMALL };
            let channels = dims[1];
            // A mean far from zero, as a dead start of training may have it.
            let input = channels_inside(draw(1, dims, 20.0, 2.0));
            let factors = [(2, 1.5), (3, 1.0), (4, 19.0)].map(|(seed, mean)| draw(seed, [channels], mean, 0.5));
            let variance = draw(5, [channels], 3.0, 0.3).abs();
            let shortcut = shortcut.then(|| draw(6, dims, 0.0, 1.0));
            let run = |ours: bool| {
                let input = leaf(input.clone());
                let [gamma, beta, mean] = factors.clone().map(leaf);
                let variance = leaf(variance.clone());
                let shortcut = shortcut.clone().map(leaf);
                let (output, batch) = (if ours { Cpu::norm } else { stock::norm::<Cpu> })(
                    unwrap(input.clone()),
                    Affine { gamma: unwrap(gamma.clone()), beta: unwrap(beta.clone()) },
                    Statistics { mean: unwrap(mean), variance: unwrap(variance) },
                    shortcut.clone().map(unwrap),
                    how,
                );
                let shortcut = shortcut.unwrap_or_else(|| input.clone());
                let mut all = outcome(
                    wrap(output),
                    &[&gradient(&input), &gradient(&gamma), &gradient(&beta), &gradient(&shortcut)],
                );
                assert_eq!(batch.is_some(), training);
                if let Some(batch) = batch {
                    all.push(wrap::<Cpu, 1>(batch.mean).into_data());
                    all.push(wrap::<Cpu, 1>(batch.variance).into_data());
                }
                all
            };
            assert_equal(&format!("{dims:?}, {how:?}"), &run(true), &run(false));
        }
    }
}

#[test]
fn batch_norm_is_burns_module() {
    let device = Default::default();
    for dims in [[2, 1, 15, 13], [3, 5, 4, 6]] {
        let run = |ours: bool| {
            let mut module = burn::nn::BatchNormConfig::new(dims[1]).with_epsilon(1e-3).init::<Cpu>(&device);
            module.gamma = burn::module::Param::from_tensor(Tensor::from_inner(draw(2, [dims[1]], 1.5, 0.3)));
            // Two steps, so that running statistics mix twice; then as in use.
            let mut all = Vec::new();
            for seed in [3, 4] {
                let input = leaf(draw(seed, dims, 2.0, 1.5));
                let output =
                    if ours { batch_norm(&module, input.clone(), None, false) } else { module.forward(input.clone()) };
                let gamma = module.gamma.val();
                all.extend(outcome(output, &[&gradient(&input), &gradient(&gamma)]));
            }
            all.push(module.running_mean.value_sync().into_data());
            all.push(module.running_var.value_sync().into_data());
            let module = burn::module::AutodiffModule::valid(&module);
            let input = draw(5, dims, 2.0, 1.5);
            all.push(if ours { batch_norm(&module, input, None, false) } else { module.forward(input) }.into_data());
            all
        };
        assert_equal(&format!("{dims:?}"), &run(true), &run(false));
    }
}

/// A block of the network: expansion, depthwise, projection, shortcut. Every gradient, the input's among them, which
/// the shortcut and the expansion both feed.
fn block(ours: bool) -> Vec<TensorData> {
    let dims = [3, 12, 14, 15];
    let input = leaf(channels_inside(draw(1, dims, 0.0, 1.0)));
    let expand = leaf(draw(2, [72, 12, 1, 1], 0.0, 0.3));
    let depth = leaf(draw(3, [72, 1, 5, 5], 0.0, 0.3));
    let project = leaf(draw(4, [12, 72, 1, 1], 0.0, 0.3));
    let norm = |tensor: FloatTensor<Cpu>, clip6: bool, shortcut: Option<FloatTensor<Cpu>>| {
        let channels = tensor.shape()[1];
        let [gamma, beta] = [(5, 1.0), (6, 0.5)].map(|(seed, mean)| draw(seed, [channels], mean, 0.1));
        (if ours { Cpu::norm } else { stock::norm::<Cpu> })(
            tensor,
            Affine { gamma: unwrap(leaf(gamma.clone())), beta: unwrap(leaf(beta.clone())) },
            Statistics { mean: unwrap(leaf(gamma)), variance: unwrap(leaf(beta)) },
            shortcut,
            Norm { clip6, ..SMALL },
        )
        .0
    };
    let pointwise = if ours { Cpu::pointwise } else { stock::pointwise::<Cpu> };
    let depthwise = if ours { Cpu::depthwise } else { stock::depthwise::<Cpu> };
    // Normalised before, as after another block, so that its gradient passes through the sum of both ways.
    let before = norm(unwrap(input.clone()), false, None);
    let wide = norm(pointwise(before.clone(), unwrap(expand.clone())), true, None);
    let wide = norm(depthwise(wide, unwrap(depth.clone()), 1), true, None);
    let output = norm(pointwise(wide, unwrap(project.clone())), false, Some(before));
    outcome(wrap(output), &[&gradient(&input), &gradient(&expand), &gradient(&depth), &gradient(&project)])
}

#[test]
fn a_block_with_shortcut_equals_stock() {
    assert_equal("a block", &block(true), &block(false));
}

#[test]
fn a_run_repeats_bit_for_bit_whatever_the_threads() {
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads start");
        pool.install(|| block(true))
    };
    let (one, four) = (with(1), with(4));
    for (one, four) in one.iter().zip(&four) {
        assert_eq!(one.as_bytes(), four.as_bytes());
    }
}

#[test]
fn a_nan_is_not_hidden() {
    let device = Default::default();
    let dims = [1, 4, 6, 6];
    let all_nan = |tensor: Tensor<Flex, 4>| tensor.into_data().to_vec::<f32>().expect("f32").iter().all(|v| v.is_nan());
    let nan = || Tensor::<Flex, 4>::full(dims, f32::NAN, &device);
    assert!(all_nan(pointwise(nan(), Tensor::ones([3, 4, 1, 1], &device))));
    assert!(all_nan(depthwise(nan(), Tensor::ones([4, 1, 3, 3], &device), 2)));
    assert!(all_nan(stem(nan(), Tensor::ones([3, 4, 3, 3], &device))));
    for training in [true, false] {
        let one = || Tensor::<Flex, 1>::ones([4], &device);
        let affine = Affine { gamma: one(), beta: one() };
        let statistics = Statistics { mean: one(), variance: one() };
        assert!(all_nan(norm(nan(), affine, statistics, None, Norm { training, ..SMALL }).0));

        // And backward: one in a gradient of a live position reaches the weights.
        let input = leaf(draw(1, dims, 0.0, 1.0));
        let gamma = leaf(Tensor::ones([4], &device));
        let constant = |value: f32| Tensor::<Cpu, 1>::full([4], value, &device);
        let (output, _) = norm(
            input,
            Affine { gamma: gamma.clone(), beta: constant(3.0) },
            Statistics { mean: constant(0.0), variance: constant(1.0) },
            None,
            Norm { training, ..SMALL },
        );
        let grads = (output * f32::NAN).sum().backward();
        let gamma = gamma.grad(&grads).expect("gamma").into_data().to_vec::<f32>().expect("f32");
        assert!(gamma.iter().all(|v| v.is_nan()), "{gamma:?}");
    }
}
