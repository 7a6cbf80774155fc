//! The network's first convolution, stride 2 from few channels to many: patches of some output rows at a time are laid
//! out beside each other (a few hundred kilobytes, in the cache) and multiplied with the weights.

use rayon::prelude::*;

use super::matrix::{Matrix, multiply};
use super::same_padding;
use crate::buffers;
use crate::sum::sum;

/// The convolution's stride.
pub const STRIDE: usize = 2;
/// Output rows whose patches are laid out together.
const BAND: usize = 8;

/// The sizes of an operation, with how the input `[batch, channels, height, width]` lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub batch: usize,
    pub channels: usize,
    pub height: usize,
    pub width: usize,
    pub filters: usize,
    /// The square kernel's edge.
    pub kernel: usize,
    /// From one slice, channel, row and column to the next.
    pub steps: [usize; 4],
}

impl Shape {
    /// Output height and width.
    pub fn output(&self) -> [usize; 2] {
        [self.height.div_ceil(STRIDE), self.width.div_ceil(STRIDE)]
    }

    /// Values of a patch.
    fn taps(&self) -> usize {
        self.channels * self.kernel * self.kernel
    }

    fn slice_len(&self) -> usize {
        let [h, w] = self.output();
        h * w * self.filters
    }

    /// For each output row of the band and position in it, calls `tap` with the tap's place in the patches and, unless
    /// it lies outside the slice, its place in the input.
    fn for_taps(&self, slice: usize, band: usize, mut tap: impl FnMut(usize, Option<usize>)) {
        let [out_height, out_width] = self.output();
        let [top, left] = [self.height, self.width].map(|size| same_padding(size, self.kernel, STRIDE).0);
        let mut at = 0;
        for y in band * BAND..((band + 1) * BAND).min(out_height) {
            for x in 0..out_width {
                for c in 0..self.channels {
                    for ky in 0..self.kernel {
                        let row = (y * STRIDE + ky).checked_sub(top).filter(|&row| row < self.height);
                        for kx in 0..self.kernel {
                            let column = (x * STRIDE + kx).checked_sub(left).filter(|&column| column < self.width);
                            let [n, channel, h, w] = self.steps;
                            let place =
                                row.zip(column).map(|(row, column)| slice * n + c * channel + row * h + column * w);
                            tap(at, place);
                            at += 1;
                        }
                    }
                }
            }
        }
    }

    /// The patches of a band, position by position, each `[channel][ky][kx]`.
    fn patches(&self, input: &[f32], slice: usize, band: usize, patches: &mut Vec<f32>) {
        patches.clear();
        self.for_taps(slice, band, |_, place| patches.push(place.map_or(0.0, |place| input[place])));
    }
}

/// `weight` is `[filter][channel][ky][kx]`, the output `[batch, height, width, filters]`.
pub fn forward(shape: &Shape, weight: &[f32], input: &[f32]) -> Vec<f32> {
    let mut output = buffers::take(shape.batch * shape.slice_len());
    let weight = Matrix::new(weight, shape.taps()).transposed();
    output.par_chunks_exact_mut(shape.slice_len()).enumerate().for_each(|(slice, output)| {
        let mut patches = Vec::new();
        let band_len = BAND * shape.output()[1] * shape.filters;
        for (band, output) in output.chunks_mut(band_len).enumerate() {
            shape.patches(input, slice, band, &mut patches);
            multiply(Matrix::new(&patches, shape.taps()), weight, output, false);
        }
    });
    output
}

/// The gradient of the weight from that of the output.
pub fn weight_gradient(shape: &Shape, input: &[f32], gradient: &[f32]) -> Vec<f32> {
    let slices: Vec<Vec<f32>> = gradient
        .par_chunks_exact(shape.slice_len())
        .enumerate()
        .map(|(slice, gradient)| {
            let mut total = vec![0.0; shape.filters * shape.taps()];
            let mut patches = Vec::new();
            let band_len = BAND * shape.output()[1] * shape.filters;
            for (band, gradient) in gradient.chunks(band_len).enumerate() {
                shape.patches(input, slice, band, &mut patches);
                let gradient = Matrix::new(gradient, shape.filters).transposed();
                multiply(gradient, Matrix::new(&patches, shape.taps()), &mut total, true);
            }
            total
        })
        .collect();
    sum(slices.iter().map(Vec::as_slice))
}

/// The gradient of the input, `[batch, channels, height, width]` without gaps, from that of the output.
pub fn input_gradient(shape: &Shape, weight: &[f32], gradient: &[f32]) -> Vec<f32> {
    let slice_len = shape.channels * shape.height * shape.width;
    let one = Shape { steps: [0, shape.height * shape.width, shape.width, 1], ..*shape };
    let mut output = vec![0.0; shape.batch * slice_len];
    output.par_chunks_exact_mut(slice_len).zip(gradient.par_chunks_exact(shape.slice_len())).for_each(
        |(output, gradient)| {
            let band_len = BAND * shape.output()[1] * shape.filters;
            let mut patches = vec![0.0; BAND * shape.output()[1] * shape.taps()];
            for (band, gradient) in gradient.chunks(band_len).enumerate() {
                let patches = &mut patches[..gradient.len() / shape.filters * shape.taps()];
                multiply(Matrix::new(gradient, shape.filters), Matrix::new(weight, shape.taps()), patches, false);
                one.for_taps(0, band, |at, place| {
                    if let Some(place) = place {
                        output[place] += patches[at];
                    }
                });
            }
        },
    );
    output
}
