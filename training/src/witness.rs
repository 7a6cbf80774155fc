//! What the witnesses ([`crate::model::Network::forward_both`]) learn from masks: where in a slice blood is.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData, activation};

use crate::candidates::{Layer, positions};
use crate::data::mask::shares;

/// A position whose field has at least this share of blood is one with blood; one with less, but some, is neither.
const BLOOD: f32 = 0.3;

/// Mean cross-entropy of the voices `[batch, height, width]` of the slices that have a mask: half of it over the positions
/// with blood, half over those without. Masks have rows of `width` pixels, and the images that the voices speak of were
/// `scale` times smaller. 0 where no slice has a mask.
pub fn loss<B: Backend>(
    voices: Tensor<B, 3>,
    masks: &[Option<Vec<f32>>],
    width: usize,
    scale: f64,
    layers: &[Layer],
    device: &B::Device,
) -> Tensor<B, 1> {
    let [batch, rows, columns] = voices.dims();
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
    let softplus = activation::relu(voices.clone()) + (voices.clone().abs().neg().exp() + 1.0).log();
    ((softplus - voices * tensor(targets)) * tensor(weights)).sum() / known as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::flex::Flex;

    /// Positions of 2 pixels, the first one's middle at 0.5.
    const LAYERS: [Layer; 2] = [Layer::MaxPool { size: 2 }, Layer::Flatten];

    fn loss_of(voices: [[f32; 2]; 2], masks: &[Option<Vec<f32>>], width: usize, scale: f64) -> f32 {
        let device = Default::default();
        let voices = Tensor::<Flex, 3>::from_data([voices], &device);
        loss(voices, masks, width, scale, &LAYERS, &device).into_scalar()
    }

    #[test]
    fn the_witness_is_shown_where_blood_is() {
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
}
