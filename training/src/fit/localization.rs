//! The training of single positions of a slice ([`crate::network::Network::forward_with_positions`]): where blood is, from masks,
//! and whether there is any, from the slice's label.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData, activation};

use crate::data::mask::shares;
use crate::network::{Layer, positions};

/// How much the highest logit is preferred over the mean of all.
const SHARPNESS: f32 = 3.0;
/// A position whose field has at least this share of blood is one with blood, or half of the largest share of the slice's
/// fields where that is less: a small bleed fills no field. One with less, but some, is neither.
const BLOOD: f32 = 0.3;

/// The positions with and without blood of a batch's slices that have a mask.
pub(super) struct Targets {
    dims: [usize; 3],
    /// 1 at a position with blood, else 0.
    blood: Vec<f32>,
    /// Of a slice half over the positions with blood and half over those without, in sum 1; 0 at those that are neither,
    /// and where there is no mask.
    weights: Vec<f32>,
    /// Slices that have a mask, at least 1.
    known: usize,
}

impl Targets {
    /// For positions of `[batch, height, width]`. Masks have rows of `width` pixels, and the images that the positions are of
    /// were `scale` times smaller.
    pub fn new(masks: &[Option<Vec<f32>>], width: usize, scale: f64, layers: &[Layer], dims: [usize; 3]) -> Self {
        let [_, rows, columns] = dims;
        let (middle, step) = positions(layers);
        let fields = ((middle + 0.5) * scale - 0.5, step * scale);
        let (mut blood, mut weights) = (Vec::new(), Vec::new());
        for mask in masks {
            let shares = match mask {
                Some(mask) => shares(mask, width, fields, rows, columns),
                None => vec![0.0; rows * columns],
            };
            let least = BLOOD.min(shares.iter().copied().fold(0.0, f32::max) / 2.0);
            let is_blood = |share: f32| share > 0.0 && share >= least;
            let with = shares.iter().filter(|share| is_blood(**share)).count();
            let without = shares.iter().filter(|share| **share == 0.0).count();
            blood.extend(shares.iter().map(|share| f32::from(u8::from(is_blood(*share)))));
            weights.extend(shares.iter().map(|&share| match share {
                _ if with == 0 || without == 0 => 0.0,
                0.0 => 0.5 / without as f32,
                share if is_blood(share) => 0.5 / with as f32,
                _ => 0.0,
            }));
        }
        Self { dims, blood, weights, known: masks.iter().flatten().count().max(1) }
    }

    fn tensor<B: Backend>(&self, values: &[f32], device: &B::Device) -> Tensor<B, 3> {
        Tensor::from_data(TensorData::new(values.to_vec(), self.dims), device)
    }
}

/// Mean cross-entropy of the positions' logits `[batch, height, width]` over the slices that have a mask: half of it over
/// the positions with blood, half over those without. 0 where no slice has a mask.
pub(super) fn loss<B: Backend>(logits: Tensor<B, 3>, targets: &Targets, device: &B::Device) -> Tensor<B, 1> {
    let blood = targets.tensor::<B>(&targets.blood, device);
    let softplus = activation::relu(logits.clone()) + (logits.clone().abs().neg().exp() + 1.0).log();
    ((softplus - logits * blood) * targets.tensor(&targets.weights, device)).sum() / targets.known as f32
}

/// As [`loss`], of the positions' logits less the middle between the slice's mean logit with blood and that without, for
/// networks whose slice logit is the mean of these very logits.
///
/// Their level says whether the slice bleeds, and a bleed at one of 64 positions must lift that one 64 times as far as
/// cross-entropy at single positions asks for. So only the difference within a slice is learned here: the middle has no gradient, and what
/// positions with blood are lifted together is what those without are lowered, which leaves the slice's logit where it is.
pub(super) fn contrast<B: Backend>(logits: Tensor<B, 3>, targets: &Targets, device: &B::Device) -> Tensor<B, 1> {
    // The weights of either side sum to a half, so this is the middle of their two means.
    let weighted = logits.clone().detach() * targets.tensor(&targets.weights, device);
    let middle = weighted.sum_dim(1).sum_dim(2);
    loss(logits - middle, targets, device)
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
        loss(logits, &Targets::new(masks, width, scale, &LAYERS, [1, 2, 2]), &device).into_scalar()
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
    fn a_bleed_that_fills_no_field_is_shown_all_the_same() {
        // 8×8, four pixels of blood in the upper left field of 16, one in the upper right one.
        let mask: Vec<f32> = (0..64).map(|i| f32::from(u8::from([0, 1, 8, 9, 4].contains(&i)))).collect();
        let targets = Targets::new(&[Some(mask)], 8, 2.0, &LAYERS, [1, 2, 2]);
        assert_eq!(targets.blood, [1.0, 0.0, 0.0, 0.0]);
        assert_eq!(targets.weights, [0.5, 0.0, 0.25, 0.25]);
    }

    /// What is learned of a difference does not move the mean, which is the slice's own logit.
    #[test]
    fn a_contrast_leaves_the_mean_of_the_positions_where_it_is() {
        use burn::backend::autodiff::Autodiff;
        type B = Autodiff<Flex>;
        let device = Default::default();
        let mask: Vec<f32> = (0..16).map(|i| f32::from(u8::from(i / 4 < 2 && i % 4 >= 2))).collect();
        let targets = Targets::new(&[Some(mask), None], 4, 1.0, &LAYERS, [2, 2, 2]);
        let of = |level: f32| {
            let logits = [[[0.3, 0.5], [-0.2, 0.1]], [[9.0, -9.0], [1.0, 2.0]]];
            let logits = Tensor::<B, 3>::from_data(logits, &device) + level;
            let logits = logits.detach().require_grad();
            let loss = contrast(logits.clone(), &targets, &device);
            let grads = loss.backward();
            let gradient = logits.grad(&grads).expect("a gradient").into_data().to_vec::<f32>().expect("f32");
            (loss.into_scalar(), gradient)
        };
        let (loss, gradient) = of(0.0);
        assert!(loss > 0.3, "{loss}");
        assert!(gradient[1] < -0.1 && gradient[0] > 0.0 && gradient[2] > 0.0, "{gradient:?}");
        // To first order in the spread of those without.
        assert!(gradient[..4].iter().sum::<f32>().abs() < 0.01, "{gradient:?}");
        assert_eq!(gradient[4..], [0.0; 4], "nothing is known of the second slice");
        // Whatever the level.
        let (high, _) = of(20.0);
        assert!((high - loss).abs() < 1e-4, "{high} and {loss}");
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
