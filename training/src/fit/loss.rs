//! The loss that is trained on, and the one that validation is judged by.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData, activation};

use crate::metrics::Case;

/// n / (2 · n_class) for the negatives and the positives.
pub(super) fn class_weights(labels: &[bool]) -> [f32; 2] {
    let positives = labels.iter().filter(|label| **label).count();
    [labels.len() - positives, positives].map(|count| labels.len() as f32 / (2 * count) as f32)
}

/// Mean weighted binary cross-entropy of logits, in the form that does not overflow.
pub(crate) fn loss_of<B: Backend>(
    logits: Tensor<B, 2>,
    positive: &[bool],
    weights: [f32; 2],
    device: &B::Device,
) -> Tensor<B, 1> {
    let column = |values: Vec<f32>| Tensor::<B, 2>::from_data(TensorData::new(values, [positive.len(), 1]), device);
    let label = column(positive.iter().map(|&p| f32::from(u8::from(p))).collect());
    let weight = column(positive.iter().map(|&p| weights[usize::from(p)]).collect());
    let softplus = activation::relu(logits.clone()) + (logits.clone().abs().neg().exp() + 1.0).log();
    ((softplus - logits * label) * weight).mean()
}

/// Class-weighted mean cross-entropy of probabilities: each class counts half, whatever its share.
pub(super) fn mean_loss(cases: &[Case]) -> f64 {
    let of = |positive: bool| {
        let losses: Vec<f64> = cases
            .iter()
            .filter(|case| case.positive == positive)
            .map(|case| -(if positive { case.score } else { 1.0 - case.score }).max(1e-7).ln())
            .collect();
        losses.iter().sum::<f64>() / losses.len().max(1) as f64
    };
    (of(false) + of(true)) / 2.0
}
