//! The loss that is trained on, and the one that validation is judged by.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData, activation};

use crate::metrics::Case;

/// n / (2 · n_class) for the negatives and the positives.
pub(super) fn class_weights(labels: &[bool]) -> [f32; 2] {
    let positives = labels.iter().filter(|label| **label).count();
    [labels.len() - positives, positives].map(|count| labels.len() as f32 / (2 * count) as f32)
}

/// Mean weighted binary cross-entropy of logits, in the form that does not overflow. `smoothing` is the share of a label that
/// is spread over both classes.
pub(crate) fn loss_of<B: Backend>(
    logits: Tensor<B, 2>,
    positive: &[bool],
    weights: [f32; 2],
    smoothing: f64,
    device: &B::Device,
) -> Tensor<B, 1> {
    let column = |values: Vec<f32>| Tensor::<B, 2>::from_data(TensorData::new(values, [positive.len(), 1]), device);
    let spread = smoothing as f32 / 2.0;
    let label = column(positive.iter().map(|&p| if p { 1.0 - spread } else { spread }).collect());
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

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::flex::Flex;

    #[test]
    fn smoothed_labels_are_missed_least_a_little_inside() {
        let device = Default::default();
        let loss = |logit: f32, positive: bool, smoothing: f64| -> f32 {
            let logits = Tensor::<Flex, 2>::from_floats([[logit]], &device);
            loss_of(logits, &[positive], [1.0, 1.0], smoothing, &device).into_scalar()
        };
        // By hand: the logit of 0.95 is ln 19, and there the loss is the entropy of 0.95 and 0.05.
        let entropy = -(0.95_f32 * 0.95_f32.ln() + 0.05 * 0.05_f32.ln());
        assert!((loss(19_f32.ln(), true, 0.1) - entropy).abs() < 1e-6);
        assert!((loss(-(19_f32.ln()), false, 0.1) - entropy).abs() < 1e-6);
        assert!(loss(6.0, true, 0.1) > loss(19_f32.ln(), true, 0.1), "being surer costs");
        assert!(loss(6.0, true, 0.0) < loss(19_f32.ln(), true, 0.0), "and not without smoothing");
    }
}
