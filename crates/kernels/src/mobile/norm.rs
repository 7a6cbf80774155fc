//! Batch normalisation with ReLU6 and a shortcut, over channels-last positions: `[positions, channels]`.
//!
//! At these sizes memory decides, so there are as few passes as the mathematics allows: forward one for the statistics
//! and one for the values, backward one for the two sums and one for the gradient. What ReLU6 let through is computed
//! again from the input rather than kept.
//!
//! Positions are worked through some at a time as one run of values, against per-channel factors repeated to its
//! length, so that few channels fill vectors as well as many do.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::buffers;

/// Values that a thread takes at a time: two or three such runs stay in the L2 cache.
const CHUNK: usize = 1 << 15;
/// Values of a run of repeated factors, at least.
const RUN: usize = 256;

/// Factors of each channel, repeated for a run of positions.
struct Repeated(Vec<f32>);

impl Repeated {
    fn new(factors: impl Iterator<Item = f32>) -> Self {
        let factors: Vec<f32> = factors.collect();
        Self(factors.repeat(run_positions(factors.len())))
    }
}

/// Positions of a run.
fn run_positions(channels: usize) -> usize {
    RUN.div_ceil(channels)
}

/// Values of a chunk: whole runs.
fn chunk_len(channels: usize) -> usize {
    CHUNK.next_multiple_of(run_positions(channels) * channels)
}

/// Normalisation: `γ (x − mean) / √(variance + ε) + β`.
#[derive(Debug, Clone)]
pub struct Normal {
    pub gamma: Vec<f32>,
    pub beta: Vec<f32>,
    pub mean: Vec<f32>,
    pub variance: Vec<f32>,
    pub epsilon: f32,
}

impl Normal {
    fn channels(&self) -> usize {
        self.gamma.len()
    }

    fn inverse_deviation(&self) -> impl Iterator<Item = f32> {
        self.variance.iter().map(|variance| 1.0 / (variance + self.epsilon).sqrt())
    }

    /// `scale · x + shift` is the normalised value.
    fn scale(&self) -> Vec<f32> {
        self.gamma.iter().zip(self.inverse_deviation()).map(|(gamma, inverse)| gamma * inverse).collect()
    }

    fn shift(&self) -> Vec<f32> {
        let by_mean = self.mean.iter().zip(self.scale());
        self.beta.iter().zip(by_mean).map(|(beta, (mean, scale))| beta - mean * scale).collect()
    }
}

/// Mean and biased variance of each channel. Each chunk's are computed about its own mean, and joined in order, so that
/// a mean far from zero costs no digits.
pub fn statistics(input: &[f32], channels: usize) -> (Vec<f32>, Vec<f32>) {
    let chunks: Vec<(f64, Vec<f32>, Vec<f64>)> = input
        .par_chunks(chunk_len(channels))
        .map(|chunk| {
            let count = (chunk.len() / channels) as f64;
            let run = run_positions(channels) * channels;
            let sums = Arch::new().dispatch(Sums { run, values: chunk });
            let mean: Vec<f32> = fold(&sums, channels).iter().map(|sum| (sum / count) as f32).collect();
            let mean_of_run = Repeated::new(mean.iter().copied());
            let squares = Arch::new().dispatch(Squares { mean: &mean_of_run.0, values: chunk });
            (count, mean, fold(&squares, channels))
        })
        .collect();
    let mut count = 0.0f64;
    let (mut mean, mut squares) = (vec![0.0f64; channels], vec![0.0f64; channels]);
    for (n, chunk_mean, chunk_squares) in chunks {
        let total = count + n;
        for channel in 0..channels {
            let off = f64::from(chunk_mean[channel]) - mean[channel];
            mean[channel] += off * n / total;
            squares[channel] += chunk_squares[channel] + off * off * count * n / total;
        }
        count = total;
    }
    (mean.iter().map(|&mean| mean as f32).collect(), squares.iter().map(|sum| (sum / count) as f32).collect())
}

/// The sums of a run's positions, by channel.
fn fold(run: &[f32], channels: usize) -> Vec<f64> {
    let mut sums = vec![0.0f64; channels];
    for position in run.chunks_exact(channels) {
        sums.iter_mut().zip(position).for_each(|(sum, value)| *sum += f64::from(*value));
    }
    sums
}

/// The normalised values, clipped where asked, plus the shortcut's.
pub fn forward(normal: &Normal, input: &[f32], shortcut: Option<&[f32]>, clip6: bool) -> Vec<f32> {
    let channels = normal.channels();
    let (scale, shift) = (Repeated::new(normal.scale().into_iter()), Repeated::new(normal.shift().into_iter()));
    let mut output = buffers::take(input.len());
    let len = chunk_len(channels);
    output.par_chunks_mut(len).zip(input.par_chunks(len)).enumerate().for_each(|(i, (output, input))| {
        let shortcut = shortcut.map(|shortcut| &shortcut[i * len..][..input.len()]);
        Arch::new().dispatch(Forward { scale: &scale.0, shift: &shift.0, input, shortcut, clip6, output });
    });
    output
}

/// Gradients of γ and β, and, where asked for, of the input.
pub struct Gradients {
    pub gamma: Vec<f32>,
    pub beta: Vec<f32>,
    pub input: Option<Vec<f32>>,
}

/// Backward from the output's gradient. `by_batch`: mean and variance are those of `input`, and the gradient flows
/// through them too.
pub fn backward(
    normal: &Normal,
    input: &[f32],
    gradient: &[f32],
    clip6: bool,
    by_batch: bool,
    wants_input: bool,
) -> Gradients {
    let channels = normal.channels();
    let positions = input.len() / channels;
    let (scale, shift) = (Repeated::new(normal.scale().into_iter()), Repeated::new(normal.shift().into_iter()));
    let mean = Repeated::new(normal.mean.iter().copied());
    let len = chunk_len(channels);

    // Σ g and Σ g (x − mean), g being what ReLU6 lets through.
    let chunks: Vec<[Vec<f64>; 2]> = input
        .par_chunks(len)
        .zip(gradient.par_chunks(len))
        .map(|(input, gradient)| {
            let kept = Through { scale: &scale.0, shift: &shift.0, clip6 };
            let sums = Arch::new().dispatch(BackwardSums { kept, mean: &mean.0, input, gradient });
            sums.map(|sums| fold(&sums, channels))
        })
        .collect();
    let (mut beta, mut moment) = (vec![0.0f64; channels], vec![0.0f64; channels]);
    for [sums, moments] in &chunks {
        beta.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
        moment.iter_mut().zip(moments).for_each(|(total, sum)| *total += sum);
    }
    let inverse: Vec<f64> = normal.inverse_deviation().map(f64::from).collect();
    let gamma: Vec<f64> = moment.iter().zip(&inverse).map(|(moment, inverse)| moment * inverse).collect();

    let input = wants_input.then(|| {
        // dx = γ/σ · (g − Σg/n − x̂ · Σ(g x̂)/n), x̂ = (x − mean)/σ: per channel scale · g − slope · (x − mean) − offset.
        let n = if by_batch { positions as f64 } else { f64::INFINITY };
        let scales = normal.scale();
        let per_channel = || scales.iter().map(|&scale| f64::from(scale)).enumerate();
        let slope = Repeated::new(per_channel().map(|(c, scale)| (scale * gamma[c] * inverse[c] / n) as f32));
        let offset = Repeated::new(per_channel().map(|(c, scale)| (scale * beta[c] / n) as f32));
        let mut output = buffers::take(input.len());
        output.par_chunks_mut(len).zip(input.par_chunks(len).zip(gradient.par_chunks(len))).for_each(
            |(output, (input, gradient))| {
                let kept = Through { scale: &scale.0, shift: &shift.0, clip6 };
                let (mean, slope, offset) = (&mean.0, &slope.0, &offset.0);
                Arch::new().dispatch(Backward { kept, mean, slope, offset, input, gradient, output });
            },
        );
        output
    });
    Gradients {
        gamma: gamma.iter().map(|&value| value as f32).collect(),
        beta: beta.iter().map(|&value| value as f32).collect(),
        input,
    }
}

/// Calls `each` for every vector of some slices of one length, what does not fill one padded with zeros: with the
/// inputs' values and the outputs', whose new ones it returns.
#[inline(always)]
fn sweep<S: Simd, const I: usize, const O: usize>(
    simd: S,
    inputs: [&[f32]; I],
    outputs: [&mut [f32]; O],
    each: impl Fn([S::f32s; I], [S::f32s; O]) -> [S::f32s; O],
) {
    let len = outputs[0].len();
    let inputs = inputs.map(|input| S::as_simd_f32s(&input[..len]));
    let outputs = outputs.map(|output| S::as_mut_simd_f32s(&mut output[..len]));
    for v in 0..len / S::F32_LANES {
        let new = each(std::array::from_fn(|i| inputs[i].0[v]), std::array::from_fn(|o| outputs[o].0[v]));
        for o in 0..O {
            outputs[o].0[v] = new[o];
        }
    }
    if !len.is_multiple_of(S::F32_LANES) {
        let new = each(
            std::array::from_fn(|i| simd.partial_load_f32s(inputs[i].1)),
            std::array::from_fn(|o| simd.partial_load_f32s(outputs[o].1)),
        );
        for o in 0..O {
            simd.partial_store_f32s(outputs[o].1, new[o]);
        }
    }
}

/// The sums of each channel over a chunk, for each position of a run apart.
struct Sums<'a> {
    run: usize,
    values: &'a [f32],
}

impl WithSimd for Sums<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<f32> {
        let mut sums = vec![0.0f32; self.run];
        for values in self.values.chunks(self.run) {
            let sums = &mut sums[..values.len()];
            sweep(
                simd,
                [values],
                [sums],
                #[inline(always)]
                |[value], [sum]| [simd.add_f32s(sum, value)],
            );
        }
        sums
    }
}

/// The sums of squares about the mean.
struct Squares<'a> {
    mean: &'a [f32],
    values: &'a [f32],
}

impl WithSimd for Squares<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<f32> {
        let mut sums = vec![0.0f32; self.mean.len()];
        for values in self.values.chunks(self.mean.len()) {
            let sums = &mut sums[..values.len()];
            sweep(
                simd,
                [values, self.mean],
                [sums],
                #[inline(always)]
                |[value, mean], [sum]| {
                    let off = simd.sub_f32s(value, mean);
                    [simd.mul_add_e_f32s(off, off, sum)]
                },
            );
        }
        sums
    }
}

struct Forward<'a> {
    scale: &'a [f32],
    shift: &'a [f32],
    input: &'a [f32],
    shortcut: Option<&'a [f32]>,
    clip6: bool,
    output: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { scale, shift, input, shortcut, clip6, output } = self;
        let run = scale.len();
        let (zero, six) = (simd.splat_f32s(0.0), simd.splat_f32s(6.0));
        for (r, (output, input)) in output.chunks_mut(run).zip(input.chunks(run)).enumerate() {
            let factors = [input, scale, shift];
            if clip6 {
                // By comparison rather than minimum and maximum, which drop a NaN.
                sweep(
                    simd,
                    factors,
                    [&mut *output],
                    #[inline(always)]
                    |[x, scale, shift], _| {
                        let value = simd.mul_add_e_f32s(x, scale, shift);
                        let value = select(simd, simd.less_than_f32s(value, zero), zero, value);
                        [select(simd, simd.greater_than_f32s(value, six), six, value)]
                    },
                );
            } else {
                sweep(
                    simd,
                    factors,
                    [&mut *output],
                    #[inline(always)]
                    |[x, scale, shift], _| [simd.mul_add_e_f32s(x, scale, shift)],
                );
            }
            if let Some(shortcut) = shortcut {
                let shortcut = &shortcut[r * run..][..output.len()];
                sweep(
                    simd,
                    [shortcut],
                    [output],
                    #[inline(always)]
                    |[shortcut], [value]| [simd.add_f32s(value, shortcut)],
                );
            }
        }
    }
}

/// `yes` where the mask is set, `no` elsewhere. pulp's own choice between floats is not inlined where instructions of AVX2
/// are compiled, and costs two calls a vector there: two fifths of a training.
#[inline(always)]
fn select<S: Simd>(simd: S, mask: S::m32s, yes: S::f32s, no: S::f32s) -> S::f32s {
    let bits = simd.select_u32s(mask, simd.transmute_u32s_f32s(yes), simd.transmute_u32s_f32s(no));
    simd.transmute_f32s_u32s(bits)
}

/// The gradient that ReLU6 lets through at `scale · x + shift`. A NaN there counts as alive, to stay in view.
#[derive(Clone, Copy)]
struct Through<'a> {
    scale: &'a [f32],
    shift: &'a [f32],
    clip6: bool,
}

impl Through<'_> {
    #[inline(always)]
    fn gradient<S: Simd>(&self, simd: S, x: S::f32s, g: S::f32s, scale: S::f32s, shift: S::f32s) -> S::f32s {
        if !self.clip6 {
            return g;
        }
        let (zero, six) = (simd.splat_f32s(0.0), simd.splat_f32s(6.0));
        let value = simd.mul_add_e_f32s(x, scale, shift);
        let g = select(simd, simd.less_than_or_equal_f32s(value, zero), zero, g);
        select(simd, simd.greater_than_or_equal_f32s(value, six), zero, g)
    }
}

/// `Σ g` and `Σ g (x − mean)` of a chunk, for each position of a run apart.
struct BackwardSums<'a> {
    kept: Through<'a>,
    mean: &'a [f32],
    input: &'a [f32],
    gradient: &'a [f32],
}

impl WithSimd for BackwardSums<'_> {
    type Output = [Vec<f32>; 2];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> [Vec<f32>; 2] {
        let Self { kept, mean, input, gradient } = self;
        let run = mean.len();
        let (mut sums, mut moments) = (vec![0.0f32; run], vec![0.0f32; run]);
        for (input, gradient) in input.chunks(run).zip(gradient.chunks(run)) {
            let totals = [&mut sums[..input.len()], &mut moments[..input.len()]];
            let inputs = [input, gradient, kept.scale, kept.shift, mean];
            sweep(
                simd,
                inputs,
                totals,
                #[inline(always)]
                |[x, g, scale, shift, mean], [sum, moment]| {
                    let g = kept.gradient(simd, x, g, scale, shift);
                    [simd.add_f32s(sum, g), simd.mul_add_e_f32s(g, simd.sub_f32s(x, mean), moment)]
                },
            );
        }
        [sums, moments]
    }
}

/// `scale · g − slope · (x − mean) − offset`.
struct Backward<'a> {
    kept: Through<'a>,
    mean: &'a [f32],
    slope: &'a [f32],
    offset: &'a [f32],
    input: &'a [f32],
    gradient: &'a [f32],
    output: &'a mut [f32],
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { kept, mean, slope, offset, input, gradient, output } = self;
        let run = mean.len();
        for (output, (input, gradient)) in output.chunks_mut(run).zip(input.chunks(run).zip(gradient.chunks(run))) {
            let inputs = [input, gradient, kept.scale, kept.shift, mean, slope, offset];
            sweep(
                simd,
                inputs,
                [output],
                #[inline(always)]
                |[x, g, scale, shift, mean, slope, offset], _| {
                    let g = kept.gradient(simd, x, g, scale, shift);
                    let by_statistics = simd.mul_add_e_f32s(slope, simd.sub_f32s(x, mean), offset);
                    [simd.sub_f32s(simd.mul_f32s(scale, g), by_statistics)]
                },
            );
        }
    }
}
