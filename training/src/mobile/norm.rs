//! Batch normalisation with ReLU6 and a shortcut, over channels-last positions: `[positions, channels]`.
//!
//! At these sizes memory decides, so there are as few passes as the mathematics allows: forward one for the statistics
//! and one for the values, backward one for the two sums and one for the gradient. What ReLU6 let through is computed
//! again from the input rather than kept.
//!
//! Positions are worked through some at a time as one run of values, against per-channel factors repeated to its
//! length, so that few channels fill vectors as well as many do.

use pulp::Arch;
use rayon::prelude::*;

use super::buffers;

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

/// What normalising is: `γ (x − mean) / √(variance + ε) + β`.
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
    let chunks: Vec<(f64, Vec<f32>, Vec<f32>)> = input
        .par_chunks(chunk_len(channels))
        .map(|chunk| {
            let count = (chunk.len() / channels) as f64;
            let run = run_positions(channels) * channels;
            let mean: Vec<f32> = Arch::new()
                .dispatch(|| {
                    let mut sums = vec![0.0f32; run];
                    for values in chunk.chunks(run) {
                        for (sum, value) in sums.iter_mut().zip(values) {
                            *sum += value;
                        }
                    }
                    sums
                })
                .chunks_exact(channels)
                .fold(vec![0.0f64; channels], fold)
                .iter()
                .map(|sum| (sum / count) as f32)
                .collect();
            let about = Repeated::new(mean.iter().copied());
            let squares = Arch::new().dispatch(|| {
                let mut sums = vec![0.0f32; run];
                for values in chunk.chunks(run) {
                    for ((sum, value), mean) in sums.iter_mut().zip(values).zip(&about.0) {
                        let off = value - mean;
                        *sum += off * off;
                    }
                }
                sums
            });
            let squares = squares.chunks_exact(channels).fold(vec![0.0f64; channels], fold);
            (count, mean, squares.iter().map(|&sum| sum as f32).collect())
        })
        .collect();
    let mut count = 0.0f64;
    let (mut mean, mut squares) = (vec![0.0f64; channels], vec![0.0f64; channels]);
    for (n, chunk_mean, chunk_squares) in chunks {
        let total = count + n;
        for channel in 0..channels {
            let off = f64::from(chunk_mean[channel]) - mean[channel];
            mean[channel] += off * n / total;
            squares[channel] += f64::from(chunk_squares[channel]) + off * off * count * n / total;
        }
        count = total;
    }
    (mean.iter().map(|&mean| mean as f32).collect(), squares.iter().map(|sum| (sum / count) as f32).collect())
}

fn fold(mut sums: Vec<f64>, position: &[f32]) -> Vec<f64> {
    sums.iter_mut().zip(position).for_each(|(sum, value)| *sum += f64::from(*value));
    sums
}

/// ReLU6 that lets a NaN through.
#[inline(always)]
fn relu6(value: f32) -> f32 {
    let value = if value < 0.0 { 0.0 } else { value };
    if value > 6.0 { 6.0 } else { value }
}

/// The normalised values, clipped where asked, plus the shortcut's.
pub fn forward(normal: &Normal, input: &[f32], shortcut: Option<&[f32]>, clip6: bool) -> Vec<f32> {
    let channels = normal.channels();
    let (scale, shift) = (Repeated::new(normal.scale().into_iter()), Repeated::new(normal.shift().into_iter()));
    let mut output = buffers::take(input.len());
    let len = chunk_len(channels);
    output.par_chunks_mut(len).zip(input.par_chunks(len)).enumerate().for_each(|(i, (output, input))| {
        let shortcut = shortcut.map(|shortcut| &shortcut[i * len..][..input.len()]);
        Arch::new().dispatch(|| {
            let run = scale.0.len();
            for (r, (output, input)) in output.chunks_mut(run).zip(input.chunks(run)).enumerate() {
                let factors = scale.0.iter().zip(&shift.0);
                for ((output, input), (scale, shift)) in output.iter_mut().zip(input).zip(factors) {
                    *output = input * scale + shift;
                }
                if clip6 {
                    output.iter_mut().for_each(|value| *value = relu6(*value));
                }
                if let Some(shortcut) = shortcut {
                    let shortcut = &shortcut[r * run..][..output.len()];
                    output.iter_mut().zip(shortcut).for_each(|(value, shortcut)| *value += shortcut);
                }
            }
        });
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
    let run = scale.0.len();
    let len = chunk_len(channels);

    // Σ g and Σ g (x − mean), g being what ReLU6 lets through.
    let chunks: Vec<[Vec<f64>; 2]> = input
        .par_chunks(len)
        .zip(gradient.par_chunks(len))
        .map(|(input, gradient)| {
            let sums = Arch::new().dispatch(|| {
                let (mut sums, mut moments) = (vec![0.0f32; run], vec![0.0f32; run]);
                for (input, gradient) in input.chunks(run).zip(gradient.chunks(run)) {
                    let factors = scale.0.iter().zip(&shift.0).zip(&mean.0);
                    let sums = sums.iter_mut().zip(&mut moments);
                    for (((x, g), ((scale, shift), mean)), (sum, moment)) in
                        input.iter().zip(gradient).zip(factors).zip(sums)
                    {
                        let g = through(*x, *g, *scale, *shift, clip6);
                        *sum += g;
                        *moment += g * (x - mean);
                    }
                }
                [sums, moments]
            });
            sums.map(|sums| sums.chunks_exact(channels).fold(vec![0.0f64; channels], fold))
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
                Arch::new().dispatch(|| {
                    for (output, (input, gradient)) in
                        output.chunks_mut(run).zip(input.chunks(run).zip(gradient.chunks(run)))
                    {
                        let factors = scale.0.iter().zip(&shift.0).zip(&mean.0).zip(slope.0.iter().zip(&offset.0));
                        let values = output.iter_mut().zip(input.iter().zip(gradient));
                        for ((output, (x, g)), (((scale, shift), mean), (slope, offset))) in values.zip(factors) {
                            let g = through(*x, *g, *scale, *shift, clip6);
                            *output = scale * g - slope * (x - mean) - offset;
                        }
                    }
                });
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

/// The gradient that ReLU6 lets through at `scale · x + shift`. A NaN there counts as alive, to stay in view.
#[inline(always)]
fn through(x: f32, gradient: f32, scale: f32, shift: f32, clip6: bool) -> f32 {
    let value = x * scale + shift;
    let silenced = clip6 & ((value <= 0.0) | (value >= 6.0));
    if silenced { 0.0 } else { gradient }
}
