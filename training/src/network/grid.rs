//! The position grid: a dense layer's weights interpolated from knots that are fewer than its positions.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

/// How positions of the flattened image hang on the knots of a coarser grid of `edge`×`edge`.
#[derive(Debug, Clone, PartialEq)]
pub struct PositionGrid {
    edge: usize,
    /// A knot reads the mean of its positions times this: the root of their number at the network's own input size, so
    /// that a reading varies about as much as a single position's would.
    gain: f32,
}

impl PositionGrid {
    pub fn new(edge: usize, positions: usize) -> Self {
        Self { edge, gain: (positions as f32 / (edge * edge) as f32).sqrt() }
    }

    pub fn knots(&self) -> usize {
        self.edge * self.edge
    }

    /// `[height · width, knots]`: bilinear weights of knots evenly spread over an image of that size, each at the middle
    /// of its share.
    pub fn weights<B: Backend>(&self, height: usize, width: usize, device: &B::Device) -> Tensor<B, 2> {
        let (edge, knots) = (self.edge, self.knots());
        let (rows, columns) = (linear(height, edge), linear(width, edge));
        let mut weights = vec![0.0; height * width * knots];
        for (place, row) in weights.chunks_exact_mut(knots).enumerate() {
            let (y, x) = (place / width, place % width);
            for (knot, weight) in row.iter_mut().enumerate() {
                *weight = rows[y * edge + knot / edge] * columns[x * edge + knot % edge];
            }
        }
        for knot in 0..knots {
            let sum: f32 = weights.iter().skip(knot).step_by(knots).sum();
            weights.iter_mut().skip(knot).step_by(knots).for_each(|weight| *weight *= self.gain / sum);
        }
        Tensor::from_data(TensorData::new(weights, [height * width, knots]), device)
    }
}

/// `[length, knots]`: the share of each knot in a place along a line, by linear interpolation; beyond the outer knots
/// theirs alone.
fn linear(length: usize, knots: usize) -> Vec<f32> {
    let mut shares = vec![0.0; length * knots];
    for (place, row) in shares.chunks_exact_mut(knots).enumerate() {
        let at = (place as f32 + 0.5) * knots as f32 / length as f32 - 0.5;
        let at = at.clamp(0.0, (knots - 1) as f32);
        let before = (at as usize).min(knots - 1);
        row[before] += 1.0 - (at - before as f32);
        if before + 1 < knots {
            row[before + 1] += at - before as f32;
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knots_share_a_line_linearly() {
        let shares = linear(4, 2);
        // Places 0.25, 0.75, 1.25, 1.75 of 2, knots at 0.5 and 1.5.
        assert_eq!(shares, [1.0, 0.0, 0.75, 0.25, 0.25, 0.75, 0.0, 1.0]);
        assert!(linear(40, 7).chunks(7).all(|row| (row.iter().sum::<f32>() - 1.0).abs() < 1e-6));
    }
}
