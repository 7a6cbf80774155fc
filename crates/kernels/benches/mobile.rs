//! A training step's forward and backward of a network of EfficientNet-Lite0's shape (no optimiser, no data), by the
//! operations of `mobile`: `cargo bench -p triaged-kernels --bench mobile -- [batch] [size] [steps]`.

use std::time::Instant;

use burn::backend::{Autodiff, Flex};
use burn::tensor::{Distribution, Tensor};
use triaged_kernels::mobile::{Affine, Norm, Statistics, depthwise, norm, pointwise, stem};

type Cpu = Autodiff<Flex>;

/// Kernel, stride, expansion, filters, repeats.
const STAGES: [[usize; 5]; 7] = [
    [3, 1, 1, 16, 1],
    [3, 2, 6, 24, 2],
    [5, 2, 6, 40, 2],
    [3, 2, 6, 80, 3],
    [5, 1, 6, 112, 3],
    [5, 2, 6, 192, 4],
    [3, 1, 6, 320, 1],
];

/// A convolution's weight and what normalises its output.
struct Unit {
    weight: Tensor<Cpu, 4>,
    affine: Affine<Tensor<Cpu, 1>>,
}

impl Unit {
    fn new(dims: [usize; 4]) -> Self {
        let device = Default::default();
        let fan_in = (dims[1] * dims[2] * dims[3]) as f64;
        let draw = Distribution::Normal(0.0, (2.0 / fan_in).sqrt());
        Self {
            weight: Tensor::random(dims, draw, &device).require_grad(),
            affine: Affine {
                gamma: Tensor::ones([dims[0]], &device).require_grad(),
                beta: Tensor::zeros([dims[0]], &device).require_grad(),
            },
        }
    }

    fn norm(&self, input: Tensor<Cpu, 4>, clip6: bool, shortcut: Option<Tensor<Cpu, 4>>) -> Tensor<Cpu, 4> {
        let device = Default::default();
        let channels = self.affine.gamma.dims();
        let running = Statistics { mean: Tensor::zeros(channels, &device), variance: Tensor::ones(channels, &device) };
        norm(input, self.affine.clone(), running, shortcut, Norm { epsilon: 1e-3, training: true, clip6 }).0
    }
}

struct Block {
    expand: Option<Unit>,
    depth: Unit,
    project: Unit,
    stride: usize,
    shortcut: bool,
}

struct Network {
    stem: Unit,
    blocks: Vec<Block>,
    head: Unit,
}

impl Network {
    fn new() -> Self {
        let mut channels = 32;
        let mut blocks = Vec::new();
        for [kernel, first_stride, expansion, filters, repeats] in STAGES {
            for repeat in 0..repeats {
                let stride = if repeat == 0 { first_stride } else { 1 };
                let wide = channels * expansion;
                blocks.push(Block {
                    expand: (expansion > 1).then(|| Unit::new([wide, channels, 1, 1])),
                    depth: Unit::new([wide, 1, kernel, kernel]),
                    project: Unit::new([filters, wide, 1, 1]),
                    stride,
                    shortcut: stride == 1 && channels == filters,
                });
                channels = filters;
            }
        }
        Self { stem: Unit::new([32, 1, 3, 3]), blocks, head: Unit::new([1280, channels, 1, 1]) }
    }

    fn forward(&self, input: Tensor<Cpu, 4>) -> Tensor<Cpu, 2> {
        let mut tensor = self.stem.norm(stem(input, self.stem.weight.clone()), true, None);
        for block in &self.blocks {
            let shortcut = block.shortcut.then(|| tensor.clone());
            if let Some(unit) = &block.expand {
                tensor = unit.norm(pointwise(tensor, unit.weight.clone()), true, None);
            }
            tensor = block.depth.norm(depthwise(tensor, block.depth.weight.clone(), block.stride), true, None);
            tensor = block.project.norm(pointwise(tensor, block.project.weight.clone()), false, shortcut);
        }
        tensor = self.head.norm(pointwise(tensor, self.head.weight.clone()), true, None);
        let [n, channels, h, w] = tensor.dims();
        tensor.reshape([n, channels, h * w]).mean_dim(2).reshape([n, channels])
    }
}

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let number = |i: usize, default| numbers.get(i).copied().unwrap_or(default);
    let (batch, size, steps) = (number(0, 16), number(1, 224), number(2, 6));
    let device = Default::default();
    let network = Network::new();
    let input = Tensor::<Cpu, 4>::random([batch, 1, size, size], Distribution::Normal(0.0, 1.0), &device);
    for step in 0..steps {
        let start = Instant::now();
        let output = network.forward(input.clone());
        let forward = start.elapsed();
        let gradients = output.sum().backward();
        let all = start.elapsed();
        drop(gradients);
        let ms = |time: std::time::Duration| time.as_secs_f64() * 1e3 / batch as f64;
        println!(
            "step {step}: {:.1} ms a slice, forward {:.1}, backward {:.1} (batch {batch}, {size}×{size}, {} threads)",
            ms(all),
            ms(forward),
            ms(all - forward),
            rayon::current_num_threads()
        );
    }
}
