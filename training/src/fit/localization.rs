//! The training of single positions of a slice ([`crate::network::Network::forward_with_positions`]): where blood is, from masks,
//! and whether there is any, from the slice's label.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData, activation};

use crate::data::mask::shares;
use crate::network::{Layer, positions};

/// How much the highest logit is preferred over the mean of all.
const SHARPNESS: f32 = 3.0;
/// A position whose field has at least this share of blood is one with blood; one with less, but some, is neither.
const BLOOD: f32 = 0.3;

/// Mean cross-entropy of the positions' logits `[batch, height, width]` over the slices that have a mask: half of it over
/// the positions with blood, half over those without. Masks have rows of `width` pixels, and the images that the logits are of
/// were `scale` times smaller. 0 where no slice has a mask.
pub(super) fn loss<B: Backend>(
    logits: Tensor<B, 3>,
    masks: &[Option<Vec<f32>>],
    width: usize,
    scale: f64,
    layers: &[Layer],
    device: &B::Device,
) -> Tensor<B, 1> {
    let [batch, rows, columns] = logits.dims();
    let (middle, step) = positions(layers);
    let fields = ((middle + 0.5) * scale - 0.5, step * scale);
    let (mut targets, mut weights) = (Vec::new(), Vec::new());
    for mask in masks {
        let shares = match mask {
            Some(mask) => shares(mask, width, fields, rows, columns),
            None => vec![0.0; rows * columns],
        };
        let with = shares.iter().filter(|share| **share >= BLOOD).count();
        let without = shares.iter().filter(|share| **share == 0.0).count();
        targets.extend(shares.iter().map(|share| f32::from(u8::from(*share >= BLOOD))));
        weights.extend(shares.iter().map(|&share| match share {
            _ if with == 0 || without == 0 => 0.0,
            0.0 => 0.5 / without as f32,
            share if share >= BLOOD => 0.5 / with as f32,
            _ => 0.0,
        }));
    }
    let known = masks.iter().flatten().count().max(1);
    let tensor = |values| Tensor::<B, 3>::from_data(TensorData::new(values, [batch, rows, columns]), device);
    let softplus = activation::relu(logits.clone()) + (logits.clone().abs().neg().exp() + 1.0).log();
    ((softplus - logits * tensor(targets)) * tensor(weights)).sum() / known as f32
}

/// The smooth maximum `[batch, 1]` of logits `[batch, height, width]`: near the highest, and all have a part.
pub(super) fn smooth_maximum<B: Backend>(logits: Tensor<B, 3>) -> Tensor<B, 2> {
    let logits: Tensor<B, 2> = logits.flatten(1, 2);
    let highest = logits.clone().max_dim(1).detach();
    let sum = ((logits - highest.clone()) * SHARPNESS).exp().mean_dim(1).log();
    highest + sum / SHARPNESS
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::flex::Flex;

    /// Positions of 2 pixels, the first one's middle at 0.5.
    const LAYERS: [Layer; 2] = [Layer::MaxPool { size: 2 }, Layer::Flatten];

    fn loss_of(logits: [[f32; 2]; 2], masks: &[Option<Vec<f32>>], width: usize, scale: f64) -> f32 {
        let device = Default::default();
        let logits = Tensor::<Flex, 3>::from_data([logits], &device);
        loss(logits, masks, width, scale, &LAYERS, &device).into_scalar()
    }

    #[test]
    fn positions_are_shown_where_blood_is() {
        // 4×4, blood in the upper right field.
        let mask: Vec<f32> = (0..16).map(|i| f32::from(u8::from(i / 4 < 2 && i % 4 >= 2))).collect();
        let right = loss_of([[-9.0, 9.0], [-9.0, -9.0]], &[Some(mask.clone())], 4, 1.0);
        assert!(right < 0.001, "{right}");
        // The missed field alone counts half.
        let missed = loss_of([[-9.0, -9.0], [-9.0, -9.0]], &[Some(mask)], 4, 1.0);
        assert!((missed - 4.5).abs() < 0.01, "{missed}");
        // The same head, the images half as large as the mask of 8×8.
        let mask: Vec<f32> = (0..64).map(|i| f32::from(u8::from(i / 8 < 4 && i % 8 >= 4))).collect();
        let half = loss_of([[-9.0, 9.0], [-9.0, -9.0]], &[Some(mask)], 8, 2.0);
        assert!(half < 0.001, "{half}");
    }

    #[test]
    fn without_a_mask_there_is_nothing_to_learn_here() {
        assert_eq!(loss_of([[5.0, -5.0], [1.0, 0.0]], &[None], 4, 1.0), 0.0);
        // A mask that is all blood has no other side to tell it from.
        assert_eq!(loss_of([[5.0, -5.0], [1.0, 0.0]], &[Some(vec![1.0; 16])], 4, 1.0), 0.0);
    }

    #[test]
    fn the_highest_position_decides_about_the_slice() {
        let device = Default::default();
        // Two slices of 100 positions: all of the first at -1, one of the second at 6.
        let mut positions = vec![-1.0f32; 200];
        positions[142] = 6.0;
        let positions = Tensor::<Flex, 3>::from_data(TensorData::new(positions, [2, 10, 10]), &device);
        let logits = smooth_maximum(positions).into_data().to_vec::<f32>().expect("f32");
        assert!((logits[0] + 1.0).abs() < 1e-5, "{logits:?}");
        // The maximum less the logarithm of the number of positions over the sharpness.
        assert!((logits[1] - (6.0 - 100f32.ln() / SHARPNESS)).abs() < 1e-3, "{logits:?}");
    }
}
