//! Whether the exported file says what the network says: the same images through ONNX Runtime.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData, activation};
use serde::{Deserialize, Serialize};
use triaged_kernels::ConvBackend;

use crate::heat_map::{HEAT_MAP, heat_map};
use crate::network::Network;
use crate::runtime::{OnnxModel, RuntimeError};

/// The largest difference of two probabilities that counts as agreement.
pub const TOLERANCE: f64 = 1e-4;

#[derive(Debug, thiserror::Error)]
pub enum ParityError {
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error("the network and its ONNX file differ by {worst} in a probability, more than {TOLERANCE}")]
    Differ { worst: f64 },
    #[error("the network and its ONNX file differ by {worst} in a value of the heat map, more than {TOLERANCE}")]
    HeatMap { worst: f64 },
}

/// The result of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Parity {
    pub slices: usize,
    /// The largest difference of two probabilities.
    pub largest_difference: f64,
    /// The largest difference of two values of the heat map, where the file has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heat_map_difference: Option<f64>,
}

/// Compares a network, or the mean of several networks' logits, with its ONNX file on images in `[batch, channels, height, width]`
/// order.
///
/// # Errors
/// [`ParityError::Differ`] or [`ParityError::HeatMap`] past [`TOLERANCE`]; else as the runtime's.
pub fn compare<B: ConvBackend>(
    networks: &[Network<B>],
    model: &mut OnnxModel,
    images: &[f32],
    shape: [usize; 4],
    device: &B::Device,
) -> Result<Parity, ParityError> {
    let onnx = model.output(images, shape)?;
    let tensor = Tensor::<B, 4>::from_data(TensorData::new(images.to_vec(), shape), device);
    let said = networks.iter().map(|network| network.forward_with_positions(tensor.clone()));
    let sum = said.reduce(|(logits, positions), (a, b)| (logits + a, positions + b)).expect("at least one network");
    let (logits, positions) = (sum.0 / networks.len() as f64, sum.1 / networks.len() as f64);
    let largest_difference = difference(activation::sigmoid(logits.clone()), &onnx);
    // A difference that is not a number must not pass as small.
    let is_apart = |difference: f64| difference.is_nan() || difference > TOLERANCE;
    if is_apart(largest_difference) {
        return Err(ParityError::Differ { worst: largest_difference });
    }
    let map = model.output_named(HEAT_MAP, images, shape)?;
    let heat_map_difference = map.map(|map| difference(heat_map(logits, positions), &map.values));
    match heat_map_difference.filter(|worst| is_apart(*worst)) {
        Some(worst) => Err(ParityError::HeatMap { worst }),
        None => Ok(Parity { slices: shape[0], largest_difference, heat_map_difference }),
    }
}

/// The largest difference of two values; not a number where one is none or where there are more of one than of the other.
fn difference<B: Backend, const D: usize>(burn: Tensor<B, D>, onnx: &[f32]) -> f64 {
    let burn = burn.into_data().convert::<f32>();
    let burn = burn.as_slice::<f32>().expect("converted to f32 in the line above");
    if burn.len() != onnx.len() {
        return f64::NAN;
    }
    // `max` would drop a NaN; a difference that is not a number must not pass as none.
    let differences = burn.iter().zip(onnx).map(|(a, b)| f64::from((a - b).abs()));
    differences
        .fold(0.0, |worst, difference| if difference > worst || difference.is_nan() { difference } else { worst })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::candidates::{NAMES, PUBLISHED, candidate};
    use crate::export;
    use crate::runtime::LIBRARY;
    use burn::backend::flex::Flex;
    use burn::module::{Param, RunningState};
    use std::slice;

    /// The network with BatchNorm statistics and biases that a mistake in the export would show.
    fn unlike_fresh(name: &str, input: [usize; 3]) -> Network<Flex> {
        let device = Default::default();
        let layers = candidate(name).expect("a candidate").layers;
        let mut network = Network::<Flex>::new(&layers, input, 3, &device).expect("a network");
        for norm in &mut network.norms {
            norm.running_mean = RunningState::new(Tensor::from_floats([0.3], &device));
            norm.running_var = RunningState::new(Tensor::from_floats([0.2], &device));
            norm.gamma = Param::from_tensor(Tensor::from_floats([1.5], &device));
            norm.beta = Param::from_tensor(Tensor::from_floats([-0.1], &device));
        }
        for conv in &mut network.convs {
            conv.bias = Param::from_tensor(conv.bias.val() + 0.05);
        }
        for (at, conv) in network.blocks.iter_mut().enumerate() {
            let channels = conv.norm.gamma.dims()[0];
            // Another number for each channel, from `least` on, up to 1 more.
            let spread = |least: f32, salt: usize| {
                let values = (0..channels).map(|c| least + ((c * 7919 + at * 31 + salt) % 101) as f32 / 101.0);
                Tensor::<Flex, 1>::from_data(TensorData::new(values.collect::<Vec<f32>>(), [channels]), &device)
            };
            conv.norm.running_mean = RunningState::new(spread(-0.5, 1));
            conv.norm.running_var = RunningState::new(spread(0.2, 2));
            conv.norm.gamma = Param::from_tensor(spread(0.5, 3));
            conv.norm.beta = Param::from_tensor(spread(-0.5, 4));
        }
        if !network.blocks.is_empty() {
            // So many rectified channels would add up to a probability of 1, whatever the image.
            let output = network.denses.last_mut().expect("an output unit");
            output.weight = Param::from_tensor(output.weight.val() * 0.1);
        }
        network
    }

    #[test]
    fn every_candidate_exported_says_what_the_network_says() {
        let shape = [3, 1, 70, 70];
        let images: Vec<f32> = (0..3 * 70 * 70).map(|i| ((i * 7919) % 1009) as f32 / 1009.0).collect();
        for name in NAMES {
            let network = unlike_fresh(name, [1, 70, 70]);
            let bytes = export::onnx(&network, name, [1, 70, 70]).expect("an exportable network");
            let mut model = match OnnxModel::load(&bytes) {
                Err(RuntimeError::NoLibrary) => {
                    eprintln!("SKIP every_candidate_exported_says_what_the_network_says: {LIBRARY} is not set");
                    return;
                }
                model => model.expect("a model that ONNX Runtime reads"),
            };
            let parity =
                compare(slice::from_ref(&network), &mut model, &images, shape, &Default::default()).expect(name);
            assert!(parity.largest_difference < 1e-5, "{name}: {parity:?}");
            assert_eq!(parity.heat_map_difference.is_some(), !PUBLISHED.contains(&name), "{name}");
            // Any batch size.
            assert_eq!(model.output(&images[..70 * 70], [1, 1, 70, 70]).expect("a batch of one").len(), 1);

            let other = unlike_fresh(if name == "m1" { "m4" } else { "m1" }, [1, 70, 70]);
            let differ = compare(slice::from_ref(&other), &mut model, &images, shape, &Default::default());
            assert!(matches!(differ, Err(ParityError::Differ { .. })), "{name} against another: {differ:?}");
        }
    }

    #[test]
    fn m11_exported_says_what_the_network_says_at_its_own_size_and_at_another() {
        for shape in [[2, 1, 224, 224], [1, 3, 320, 320], [2, 1, 101, 64]] {
            let input = [shape[1], shape[2], shape[3]];
            let network = unlike_fresh("m11", input);
            let bytes = export::onnx(&network, "m11", input).expect("an exportable network");
            let mut model = match OnnxModel::load(&bytes) {
                Err(RuntimeError::NoLibrary) => {
                    eprintln!("SKIP m11_exported_says_what_the_network_says: {LIBRARY} is not set");
                    return;
                }
                model => model.expect("a model that ONNX Runtime reads"),
            };
            let count = shape.iter().product::<usize>();
            let images: Vec<f32> = (0..count).map(|i| ((i * 7919) % 1009) as f32 / 504.5 - 1.0).collect();
            let parity =
                compare(slice::from_ref(&network), &mut model, &images, shape, &Default::default()).expect("agreement");
            assert!(parity.largest_difference < 1e-5, "{shape:?}: {parity:?}");
            assert!(parity.heat_map_difference.is_some_and(|d| d < 1e-4), "{shape:?}: {parity:?}");
            // Two values along either edge for 32 pixels, and no map of nothing.
            let map = model.output_named(HEAT_MAP, &images, shape).expect("a run").expect("a heat map");
            let edge = |pixels: usize| 2 * pixels.div_ceil(32) as i64;
            assert_eq!(map.shape, [shape[0] as i64, edge(shape[2]), edge(shape[3])]);
            let map = map.values;
            assert!(map.iter().any(|value| *value > 0.0) && map.iter().all(|value| (0.0..=1.0).contains(value)));
            // A probability of almost 0 or 1 would hide a difference.
            let probabilities = model.output(&images, shape).expect("probabilities");
            assert!(probabilities.iter().all(|p| (0.01..0.99).contains(p)), "{probabilities:?}");
        }
    }

    #[test]
    fn several_networks_in_one_file_say_the_mean_of_their_logits() {
        let shape = [2, 1, 64, 96];
        let (input, device) = ([1, 64, 96], Default::default());
        let one = unlike_fresh("m12", input);
        let mut other = unlike_fresh("m12", input);
        let output = other.denses.last_mut().expect("an output unit");
        output.weight = Param::from_tensor(output.weight.val() * -1.5);
        output.bias = Param::from_tensor(output.bias.val() + 2.0);
        let both = [one, other];
        let bytes = export::mean_onnx(&both, "m12", input).expect("an exportable network");
        let mut model = match OnnxModel::load(&bytes) {
            Err(RuntimeError::NoLibrary) => {
                eprintln!("SKIP several_networks_in_one_file: {LIBRARY} is not set");
                return;
            }
            model => model.expect("a model that ONNX Runtime reads"),
        };
        let count = shape.iter().product::<usize>();
        let images: Vec<f32> = (0..count).map(|i| ((i * 7919) % 1009) as f32 / 504.5 - 1.0).collect();
        let parity = compare(&both, &mut model, &images, shape, &device).expect("agreement");
        assert!(parity.largest_difference < 1e-5, "{parity:?}");
        assert!(parity.heat_map_difference.is_some_and(|d| d < 1e-4), "{parity:?}");
        let single = compare(&both[..1], &mut model, &images, shape, &device);
        assert!(matches!(single, Err(ParityError::Differ { .. })), "{single:?}");
        // A half-precision copy is made of it as of a single network.
        let half = crate::half::rounded(&bytes).expect("a copy");
        compare(&both, &mut OnnxModel::load(&half).expect("a model"), &images, shape, &device).expect_err("rounded");
        crate::half::halved(&bytes).expect("a copy");
    }
}
