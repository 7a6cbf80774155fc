//! 1×1 convolution over channels-last positions: three matrix products, of which each divides its work in a way that
//! depends on the sizes alone, so that sums have one order whatever the number of threads.

use rayon::prelude::*;

use super::matrix::{Matrix, multiply};
use crate::buffers;
use crate::sum::sum;

/// Values of input and output that one product handles together: they stay in the L2 cache.
const CHUNK: usize = 1 << 16;
/// But at least so many positions, to make up for the weights that every product packs.
const FEWEST: usize = 192;
/// Parts that a sum over all positions is divided into.
const PARTS: usize = 16;

/// `[positions, channels]` by `weight` `[filters, channels]` to `[positions, filters]`.
pub fn forward(input: &[f32], weight: &[f32], channels: usize) -> Vec<f32> {
    let filters = weight.len() / channels;
    let mut output = buffers::take(input.len() / channels * filters);
    let rows = (CHUNK / (channels + filters)).max(FEWEST);
    output.par_chunks_mut(rows * filters).zip(input.par_chunks(rows * channels)).for_each(|(output, input)| {
        multiply(Matrix::new(input, channels), Matrix::new(weight, channels).transposed(), output, false);
    });
    output
}

/// The gradient of the input, `[positions, channels]`, from that of the output.
pub fn input_gradient(gradient: &[f32], weight: &[f32], channels: usize) -> Vec<f32> {
    let filters = weight.len() / channels;
    let mut output = buffers::take(gradient.len() / filters * channels);
    let rows = (CHUNK / (channels + filters)).max(FEWEST);
    output.par_chunks_mut(rows * channels).zip(gradient.par_chunks(rows * filters)).for_each(|(output, gradient)| {
        multiply(Matrix::new(gradient, filters), Matrix::new(weight, channels), output, false);
    });
    output
}

/// The gradient of the weight, `[filters, channels]`, from that of the output.
pub fn weight_gradient(gradient: &[f32], input: &[f32], channels: usize, filters: usize) -> Vec<f32> {
    let positions = input.len() / channels;
    if positions < PARTS * 512 {
        // Few positions, many weights: each part is some of the filters.
        let mut total = vec![0.0; filters * channels];
        let some = filters.div_ceil(PARTS).next_multiple_of(8);
        total.par_chunks_mut(some * channels).enumerate().for_each(|(part, total)| {
            let filters_here = part * some..part * some + total.len() / channels;
            let gradient = Matrix::new(gradient, filters).columns(filters_here);
            multiply(gradient.transposed(), Matrix::new(input, channels), total, false);
        });
        return total;
    }
    let part = positions.div_ceil(PARTS);
    let rows = (CHUNK / (channels + filters)).max(FEWEST);
    let parts: Vec<Vec<f32>> = gradient
        .par_chunks(part * filters)
        .zip(input.par_chunks(part * channels))
        .map(|(gradient, input)| {
            let mut sum = vec![0.0; filters * channels];
            for (gradient, input) in gradient.chunks(rows * filters).zip(input.chunks(rows * channels)) {
                multiply(Matrix::new(gradient, filters).transposed(), Matrix::new(input, channels), &mut sum, true);
            }
            sum
        })
        .collect();
    sum(parts.iter().map(Vec::as_slice))
}
