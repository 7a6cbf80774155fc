//! Depthwise convolution of one slice, height × width × channels, zeros outside as TensorFlow's "SAME" has them.
//!
//! As many padded rows of the input as the kernel is high live in a ring in the L2 cache, so the inner loops know no
//! edge. Of a run of output positions all channels are done before the next run: memory is read and written in order.

use pulp::{Arch, Simd, WithSimd};

use super::same_padding;

/// Output positions of a run.
const RUN: usize = 16;

/// The sizes of an operation: input height, width and channels; the square kernel's edge; stride.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub kernel: usize,
    pub stride: usize,
}

impl Shape {
    /// Output height and width.
    pub fn output(&self) -> [usize; 2] {
        [self.height.div_ceil(self.stride), self.width.div_ceil(self.stride)]
    }

    pub fn input_len(&self) -> usize {
        self.height * self.width * self.channels
    }

    pub fn output_len(&self) -> usize {
        let [h, w] = self.output();
        h * w * self.channels
    }

    /// Whether the kernels below were compiled for it.
    pub fn is_supported(&self) -> bool {
        matches!(self.kernel, 3 | 5) && self.stride > 0 && self.input_len() > 0
    }

    /// Zeros above and to the left.
    fn before(&self) -> [usize; 2] {
        [self.height, self.width].map(|size| same_padding(size, self.kernel, self.stride).0)
    }

    /// Positions of a padded row: every output's window lies in it.
    fn padded_width(&self) -> usize {
        let [_, left] = self.before();
        (left + self.width).max((self.output()[1] - 1) * self.stride + self.kernel)
    }
}

/// One slice forward; `weight` is `[channel][ky][kx]`.
pub fn forward(shape: &Shape, weight: &[f32], input: &[f32], output: &mut [f32]) {
    assert!(shape.is_supported(), "no kernel for {shape:?}");
    assert_eq!(weight.len(), shape.channels * shape.kernel * shape.kernel);
    assert_eq!(input.len(), shape.input_len());
    assert_eq!(output.len(), shape.output_len());
    let arch = Arch::new();
    match shape.kernel {
        3 => arch.dispatch(Forward::<3> { shape, weight, input, output }),
        _ => arch.dispatch(Forward::<5> { shape, weight, input, output }),
    }
}

/// One slice backward: the gradient of the weight, and, where asked for, that of the input into `input_gradient`.
pub fn backward(
    shape: &Shape,
    weight: &[f32],
    input: &[f32],
    gradient: &[f32],
    mut input_gradient: Option<&mut [f32]>,
) -> Vec<f32> {
    assert!(shape.is_supported(), "no kernel for {shape:?}");
    assert_eq!(weight.len(), shape.channels * shape.kernel * shape.kernel);
    assert_eq!(input.len(), shape.input_len());
    assert_eq!(gradient.len(), shape.output_len());
    assert!(input_gradient.as_ref().is_none_or(|values| values.len() == shape.input_len()));
    if shape.stride == 1
        && let Some(to) = input_gradient.take()
    {
        // With stride 1 "SAME" pads both sides alike, and what each input gave to the outputs around it is gathered by
        // the turned kernel; faster than to scatter it from each output.
        let turned: Vec<f32> =
            weight.chunks_exact(shape.kernel * shape.kernel).flat_map(|kernel| kernel.iter().rev().copied()).collect();
        forward(shape, &turned, gradient, to);
    }
    let arch = Arch::new();
    match shape.kernel {
        3 => arch.dispatch(Backward::<3> { shape, weight, input, gradient, input_gradient }),
        _ => arch.dispatch(Backward::<5> { shape, weight, input, gradient, input_gradient }),
    }
}

struct Forward<'a, const K: usize> {
    shape: &'a Shape,
    weight: &'a [f32],
    input: &'a [f32],
    output: &'a mut [f32],
}

impl<const K: usize> WithSimd for Forward<'_, K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { shape, weight, input, output } = self;
        let &Shape { channels, stride, .. } = shape;
        let [_, width] = shape.output();
        let weight = pack::<S, K>(simd, weight, channels);
        let mut rows = Rows::<S, K>::new(simd, shape);
        for (y, output) in output.chunks_exact_mut(width * channels).enumerate() {
            rows.load(simd, shape, input, y * stride);
            let rows = rows.window(y * stride);
            for first in (0..width).step_by(RUN) {
                for (v, kernel) in weight.iter().enumerate() {
                    for x in first..(first + RUN).min(width) {
                        let mut sum = simd.splat_f32s(0.0);
                        for ky in 0..K {
                            for kx in 0..K {
                                let pixel = rows[ky][(x * stride + kx) * weight.len() + v];
                                sum = simd.mul_add_e_f32s(kernel[ky][kx], pixel, sum);
                            }
                        }
                        store(simd, &mut output[x * channels..][..channels], v, sum);
                    }
                }
            }
        }
    }
}

struct Backward<'a, const K: usize> {
    shape: &'a Shape,
    weight: &'a [f32],
    input: &'a [f32],
    gradient: &'a [f32],
    input_gradient: Option<&'a mut [f32]>,
}

impl<const K: usize> WithSimd for Backward<'_, K> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<f32> {
        let Self { shape, weight, input, gradient, mut input_gradient } = self;
        let &Shape { channels, stride, .. } = shape;
        let [_, width] = shape.output();
        let weight = pack::<S, K>(simd, weight, channels);
        let vectors = weight.len();
        let mut sums = vec![[[simd.splat_f32s(0.0); K]; K]; vectors];
        let mut rows = Rows::<S, K>::new(simd, shape);
        let mut spread = Rows::<S, K>::new(simd, shape);
        for (y, gradient) in gradient.chunks_exact(width * channels).enumerate() {
            rows.load(simd, shape, input, y * stride);
            let rows = rows.window(y * stride);
            if let Some(to) = input_gradient.as_deref_mut() {
                spread.unload(simd, shape, to, y * stride);
            }
            let spread = spread.window_mut(y * stride);
            for first in (0..width).step_by(RUN) {
                let run = first..(first + RUN).min(width);
                for (v, (kernel, sums)) in weight.iter().zip(&mut sums).enumerate() {
                    let mut totals = *sums;
                    for x in run.clone() {
                        let slope = load(simd, &gradient[x * channels..][..channels], v);
                        for ky in 0..K {
                            for kx in 0..K {
                                let pixel = rows[ky][(x * stride + kx) * vectors + v];
                                totals[ky][kx] = simd.mul_add_e_f32s(slope, pixel, totals[ky][kx]);
                            }
                        }
                    }
                    *sums = totals;
                    if input_gradient.is_none() {
                        continue;
                    }
                    for x in run.clone() {
                        let slope = load(simd, &gradient[x * channels..][..channels], v);
                        for ky in 0..K {
                            for kx in 0..K {
                                let target = &mut spread[ky][(x * stride + kx) * vectors + v];
                                *target = simd.mul_add_e_f32s(slope, kernel[ky][kx], *target);
                            }
                        }
                    }
                }
            }
        }
        if let Some(to) = input_gradient {
            let [top, _] = shape.before();
            spread.unload(simd, shape, to, top + shape.height);
        }
        unpack::<S, K>(simd, &sums, channels)
    }
}

/// The kernels of each vector of channels, zeros where the last has none.
#[inline(always)]
fn pack<S: Simd, const K: usize>(simd: S, weight: &[f32], channels: usize) -> Vec<[[S::f32s; K]; K]> {
    let mut lanes = vec![0.0; S::F32_LANES];
    let mut vector = |first: usize, tap: usize| {
        for (i, lane) in lanes.iter_mut().enumerate() {
            *lane = weight.get((first + i) * K * K + tap).copied().unwrap_or(0.0);
        }
        simd.partial_load_f32s(&lanes)
    };
    (0..channels)
        .step_by(S::F32_LANES)
        .map(|first| std::array::from_fn(|ky| std::array::from_fn(|kx| vector(first, ky * K + kx))))
        .collect()
}

/// Back to `[channel][ky][kx]`.
#[inline(always)]
fn unpack<S: Simd, const K: usize>(simd: S, kernels: &[[[S::f32s; K]; K]], channels: usize) -> Vec<f32> {
    let mut weight = vec![0.0; channels * K * K];
    let mut lanes = vec![0.0; S::F32_LANES];
    for (v, kernel) in kernels.iter().enumerate() {
        for (tap, vector) in kernel.as_flattened().iter().enumerate() {
            simd.partial_store_f32s(&mut lanes, *vector);
            for (lane, channel) in lanes.iter().zip(v * S::F32_LANES..channels) {
                weight[channel * K * K + tap] = *lane;
            }
        }
    }
    weight
}

#[inline(always)]
fn load<S: Simd>(simd: S, position: &[f32], vector: usize) -> S::f32s {
    let (whole, rest) = S::as_simd_f32s(position);
    whole.get(vector).copied().unwrap_or_else(|| simd.partial_load_f32s(rest))
}

#[inline(always)]
fn store<S: Simd>(simd: S, position: &mut [f32], vector: usize, values: S::f32s) {
    let (whole, rest) = S::as_mut_simd_f32s(position);
    match whole.get_mut(vector) {
        Some(target) => *target = values,
        None => simd.partial_store_f32s(rest, values),
    }
}

/// `K` neighbouring rows of a padded slice, each position's channels filled up to whole vectors.
struct Rows<S: Simd, const K: usize> {
    /// Row `r` of the padded slice is `rings[r % K]` while it is here.
    rings: [Vec<S::f32s>; K],
    vectors: usize,
    /// The row after the last that was loaded, or the first that was not unloaded.
    next: usize,
}

impl<S: Simd, const K: usize> Rows<S, K> {
    #[inline(always)]
    fn new(simd: S, shape: &Shape) -> Self {
        let vectors = shape.channels.div_ceil(S::F32_LANES);
        let zero = simd.splat_f32s(0.0);
        Self { rings: std::array::from_fn(|_| vec![zero; shape.padded_width() * vectors]), vectors, next: 0 }
    }

    /// Rows `first` and after of the padded input come here.
    #[inline(always)]
    fn load(&mut self, simd: S, shape: &Shape, input: &[f32], first: usize) {
        let [top, left] = shape.before();
        let row_len = shape.width * shape.channels;
        for row in self.next.max(first)..first + K {
            let ring = &mut self.rings[row % K];
            if row < top || row >= top + shape.height {
                ring.fill(simd.splat_f32s(0.0));
                continue;
            }
            let positions = input[(row - top) * row_len..][..row_len].chunks_exact(shape.channels);
            for (to, position) in ring[left * self.vectors..].chunks_exact_mut(self.vectors).zip(positions) {
                let (whole, rest) = S::as_simd_f32s(position);
                to[..whole.len()].copy_from_slice(whole);
                if !rest.is_empty() {
                    to[whole.len()] = simd.partial_load_f32s(rest);
                }
            }
        }
        self.next = first + K;
    }

    /// Rows before `end` leave for the input's gradient, and zeros take their place.
    #[inline(always)]
    fn unload(&mut self, simd: S, shape: &Shape, gradient: &mut [f32], end: usize) {
        let [top, left] = shape.before();
        let row_len = shape.width * shape.channels;
        for row in self.next..end {
            let ring = &mut self.rings[row % K];
            if row >= top && row < top + shape.height {
                let positions = gradient[(row - top) * row_len..][..row_len].chunks_exact_mut(shape.channels);
                for (from, position) in ring[left * self.vectors..].chunks_exact(self.vectors).zip(positions) {
                    let (whole, rest) = S::as_mut_simd_f32s(position);
                    whole.copy_from_slice(&from[..whole.len()]);
                    if !rest.is_empty() {
                        simd.partial_store_f32s(rest, from[whole.len()]);
                    }
                }
            }
            ring.fill(simd.splat_f32s(0.0));
        }
        self.next = end;
    }

    /// Rows `first` to `first + K - 1`.
    #[inline(always)]
    fn window(&self, first: usize) -> [&[S::f32s]; K] {
        std::array::from_fn(|k| self.rings[(first + k) % K].as_slice())
    }

    #[inline(always)]
    fn window_mut(&mut self, first: usize) -> [&mut [S::f32s]; K] {
        let mut rows = self.rings.each_mut().map(Vec::as_mut_slice);
        rows.rotate_left(first % K);
        rows
    }
}
