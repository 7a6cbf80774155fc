//! Where a network finds what it scores: a map beside the probability, as a second output of the exported file.
//!
//! In a network that pools its last features and feeds them to one output unit, both are linear: the slice's logit is the mean of
//! a logit at each position ([`Network::forward_with_positions`]). So the map costs next to nothing, needs no training of
//! its own, and any file that was exported of such a network can be given one ([`added`]).
//!
//! A position's logit has no threshold of its own: a single position must lift the mean of all. The map is therefore relative. Logits
//! are interpolated to twice as many positions along either edge, those below 0 speak against the finding and count as 0, and
//! the rest are shares of the highest, or of 1 where that is below 1, times the slice's probability. The map covers the input evenly; its
//! highest value is at most the slice's probability, and all of it is 0 where no position speaks for the finding.
//!
//! [`Network::forward_with_positions`]: crate::network::Network::forward_with_positions

mod pointing;

use std::collections::BTreeSet;

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData, activation};
use prost::Message;

use crate::onnx::*;
pub use pointing::Pointing;

/// The name of the graph's output: float32 `[batch, rows, columns]`. Names of its nodes begin so too.
pub const HEAT_MAP: &str = "heat_map";
/// Values of the map for one position, along either edge.
const FINER: usize = 2;
/// Of a highest logit below this the map shows less than the slice's probability.
const FULL: f32 = 1.0;

#[derive(Debug, thiserror::Error)]
pub enum HeatMapError {
    #[error("the exported model cannot be read: {0}")]
    Model(#[from] prost::DecodeError),
    #[error(
        "a heat map is made of a network that pools its image before its one output unit (m11, m12 and their copies); this file \
         lacks {0}"
    )]
    Lacks(&'static str),
}

/// The file with a heat map as its second output, as bytes; one that has a heat map already gets it anew. The same file gives the
/// same bytes.
///
/// # Errors
/// [`HeatMapError::Lacks`] for a network whose slice logit is no mean over positions.
pub fn added(onnx: &[u8]) -> Result<Vec<u8>, HeatMapError> {
    let mut model = ModelProto::decode(onnx)?;
    let graph = model.graph.as_mut().ok_or(HeatMapError::Lacks("its graph"))?;
    take_out(graph);
    add(graph)?;
    Ok(model.encode_to_vec())
}

/// The file without its heat map.
///
/// # Errors
/// [`HeatMapError::Model`].
pub fn removed(onnx: &[u8]) -> Result<Vec<u8>, HeatMapError> {
    let mut model = ModelProto::decode(onnx)?;
    model.graph.as_mut().map(take_out);
    Ok(model.encode_to_vec())
}

/// Whether the file has a heat map.
///
/// # Errors
/// [`HeatMapError::Model`].
pub fn is_in(onnx: &[u8]) -> Result<bool, HeatMapError> {
    let model = ModelProto::decode(onnx)?;
    Ok(model.graph.is_some_and(|graph| graph.output.iter().any(|output| output.name.as_deref() == Some(HEAT_MAP))))
}

fn take_out(graph: &mut GraphProto) {
    let is_its = |name: &Option<String>| name.as_deref().is_some_and(|name| name.starts_with(HEAT_MAP));
    graph.node.retain(|node| !is_its(&node.name));
    graph.initializer.retain(|tensor| !is_its(&tensor.name));
    graph.output.retain(|output| !is_its(&output.name));
}

fn add(graph: &mut GraphProto) -> Result<(), HeatMapError> {
    let said = graph.output.first().and_then(|output| output.name.clone()).ok_or(HeatMapError::Lacks("an output"))?;
    let made_by = |name: &str| graph.node.iter().find(|node| node.output.iter().any(|output| output == name));
    let is = |node: &&NodeProto, op: &str| node.op_type() == op && !node.input.is_empty();
    let unit = made_by(&said).filter(|node| is(node, "Sigmoid")).and_then(|sigmoid| made_by(&sigmoid.input[0]));
    let unit = unit.filter(|node| is(node, "Gemm") && node.input.len() == 3);
    let unit = unit.ok_or(HeatMapError::Lacks("an output unit before its sigmoid"))?;
    let tensor = |name: &String| graph.initializer.iter().find(|tensor| tensor.name.as_ref() == Some(name));
    let (weight, bias) = tensor(&unit.input[1])
        .zip(tensor(&unit.input[2]))
        .filter(|(weight, bias)| weight.data_type == Some(FLOAT) && bias.data_type == Some(FLOAT))
        .ok_or(HeatMapError::Lacks("the output unit's weights"))?;

    // A half-precision copy widens what goes into the output unit.
    let mut fed = unit.input[0].as_str();
    let widened = made_by(fed).filter(|node| is(node, "Cast"));
    if let Some(cast) = widened {
        fed = &cast.input[0];
    }
    let pooled: Vec<&str> = match made_by(fed) {
        Some(concat) if is(&concat, "Concat") => concat.input.iter().map(String::as_str).collect(),
        _ => vec![fed],
    };
    let mut features = Vec::with_capacity(pooled.len());
    for name in pooled {
        let pool = made_by(name).filter(|node| is(node, "Flatten")).and_then(|flatten| made_by(&flatten.input[0]));
        let pool = pool.filter(|node| is(node, "GlobalAveragePool"));
        features
            .push(pool.ok_or(HeatMapError::Lacks("a global average pool before its output unit"))?.input[0].clone());
    }

    let size = size_of(graph, &features[0]).ok_or(HeatMapError::Lacks("an image of fixed size as its input"))?;
    let channels = weight.dims.first().copied().unwrap_or(0);
    let mut made = Made::default();
    let weight = made.constant("weight", FLOAT, &[1, channels, 1, 1], weight.raw_data().to_vec());
    let bias = made.constant("bias", FLOAT, &[1], bias.raw_data().to_vec());
    let image = [1.0, 1.0, FINER as f32, FINER as f32].iter().flat_map(|value: &f32| value.to_le_bytes()).collect();
    let scales = made.constant("scales", FLOAT, &[4], image);
    let full = made.constant("full", FLOAT, &[], FULL.to_le_bytes().to_vec());
    let whole = |values: &[i64]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let edges = made.constant("edges", INT64, &[2], whole(&[2, 3]));
    let channel = made.constant("channel", INT64, &[1], whole(&[1]));

    let mut image = features[0].clone();
    if features.len() > 1 {
        image = made.node("Concat", features, vec![int("axis", 1)]);
    }
    if widened.is_some() {
        image = made.node("Cast", vec![image], vec![int("to", FLOAT.into())]);
    }
    let logits = made.node("Conv", vec![image, weight, bias], vec![ints("kernel_shape", &[1, 1])]);
    let linear = vec![text("coordinate_transformation_mode", "half_pixel"), text("mode", "linear")];
    let finer = made.node("Resize", vec![logits, String::new(), scales], linear);
    let evidence = made.node("Relu", vec![finer], vec![]);
    let highest = made.node("ReduceMax", vec![evidence.clone()], vec![ints("axes", &[1, 2, 3]), int("keepdims", 1)]);
    let highest = made.node("Clip", vec![highest, full], vec![]);
    let share = made.node("Div", vec![evidence, highest], vec![]);
    let probability = made.node("Unsqueeze", vec![said.clone(), edges], vec![]);
    let map = made.node("Mul", vec![share, probability], vec![]);
    made.node("Squeeze", vec![map, channel], vec![]);
    if let Some(last) = made.nodes.last_mut() {
        last.output = vec![HEAT_MAP.into()];
    }
    graph.node.extend(made.nodes);
    graph.initializer.extend(made.constants);
    graph.output.push(batch_of(HEAT_MAP, &size.map(|edge| FINER * edge)));
    Ok(())
}

/// Height and width of an image in the graph: those of the input, less by every stride on the way.
fn size_of(graph: &GraphProto, image: &str) -> Option<[usize; 2]> {
    let (mut reached, mut ahead) = (BTreeSet::new(), vec![image]);
    let mut strides = 1;
    while let Some(name) = ahead.pop() {
        let Some(node) = graph.node.iter().find(|node| node.output.iter().any(|output| output == name)) else {
            continue;
        };
        // Where a block's input is added again, two ways lead to the same convolution.
        if reached.insert(name) {
            let stride = node.attribute.iter().find(|attribute| attribute.name.as_deref() == Some("strides"));
            strides *= stride.and_then(|stride| stride.ints.first()).map_or(1, |stride| (*stride).max(1) as usize);
            ahead.extend(node.input.iter().map(String::as_str));
        }
    }
    let shape = graph.input.first()?.r#type.as_ref()?.tensor_type.as_ref()?.shape.as_ref()?;
    let edge = |at: usize| match shape.dim.get(at)?.value {
        Some(DimensionValue::Value(pixels)) => usize::try_from(pixels).ok(),
        _ => None,
    };
    // One division after the other, rounded up each time, is one division by all.
    Some([edge(2)?.div_ceil(strides), edge(3)?.div_ceil(strides)])
}

/// Nodes and constants to add to a graph.
#[derive(Default)]
struct Made {
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
}

impl Made {
    fn constant(&mut self, role: &str, data_type: i32, dims: &[i64], raw: Vec<u8>) -> String {
        let name = format!("{HEAT_MAP}_{role}");
        self.constants.push(TensorProto {
            dims: dims.to_vec(),
            data_type: Some(data_type),
            name: Some(name.clone()),
            raw_data: Some(raw),
        });
        name
    }

    fn node(&mut self, op: &str, input: Vec<String>, attribute: Vec<AttributeProto>) -> String {
        let name = format!("{HEAT_MAP}_{}_{}", self.nodes.len(), op.to_lowercase());
        self.nodes.push(NodeProto {
            input,
            output: vec![name.clone()],
            name: Some(name.clone()),
            op_type: Some(op.into()),
            attribute,
        });
        name
    }
}

/// The map as Burn computes it, `[batch, rows, columns]`, of the slices' logits `[batch, 1]` and those of the positions
/// `[batch, height, width]`.
pub fn heat_map<B: Backend>(logits: Tensor<B, 2>, positions: Tensor<B, 3>) -> Tensor<B, 3> {
    let [batch, height, width] = positions.dims();
    let device = positions.device();
    let down = finer::<B>(height, &device).unsqueeze::<3>().repeat_dim(0, batch);
    let across = finer::<B>(width, &device).transpose().unsqueeze::<3>().repeat_dim(0, batch);
    let evidence = activation::relu(down.matmul(positions).matmul(across));
    let highest = evidence.clone().max_dim(1).max_dim(2).clamp_min(FULL);
    evidence / highest * activation::sigmoid(logits).reshape([batch, 1, 1])
}

/// Linear interpolation of values on an edge to [`FINER`] times as many, `[finer, edge]`: each at the middle of its part of the
/// edge, beyond the outermost middles as there.
fn finer<B: Backend>(edge: usize, device: &B::Device) -> Tensor<B, 2> {
    let mut weights = vec![0.0_f32; FINER * edge * edge];
    for (place, row) in weights.chunks_exact_mut(edge).enumerate() {
        let at = ((place as f32 + 0.5) / FINER as f32 - 0.5).clamp(0.0, edge as f32 - 1.0);
        let (before, share) = (at.floor() as usize, at.fract());
        row[before] += 1.0 - share;
        row[(before + 1).min(edge - 1)] += share;
    }
    Tensor::from_data(TensorData::new(weights, [FINER * edge, edge]), device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::candidates::candidate;
    use crate::export;
    use crate::network::Network;
    use burn::backend::flex::Flex;

    fn map_of(logits: [f32; 2], positions: [[[f32; 2]; 3]; 2]) -> Vec<f32> {
        let device = Default::default();
        let logits = Tensor::<Flex, 1>::from_floats(logits, &device).reshape([2, 1]);
        heat_map(logits, Tensor::from_data(positions, &device)).into_data().to_vec().expect("f32")
    }

    #[test]
    fn the_strongest_position_has_the_slices_probability() {
        let map = map_of([2.0, -9.0], [[[-3.0, -3.0], [8.0, -3.0], [-3.0, -3.0]], [[-1.0; 2]; 3]]);
        assert_eq!(map.len(), 2 * 6 * 4);
        let probability = 1.0 / (1.0 + (-2.0_f32).exp());
        // The position's own two rows lie a quarter of a step from its middle, its left columns on it or before it.
        let highest = map.iter().copied().fold(0.0, f32::max);
        assert!((highest - probability).abs() < 1e-6, "{highest}");
        assert_eq!(map[2 * 4], highest);
        assert_eq!((map[0], map[3], map[5 * 4]), (0.0, 0.0, 0.0));
        // Where nothing speaks for it, nothing is shown.
        assert!(map[24..].iter().all(|value| *value == 0.0));
        // Weak evidence is not made strong: at most half of 1.
        let weak = map_of([0.0, 0.0], [[[0.5; 2]; 3]; 2]);
        assert!(weak.iter().all(|value| (*value - 0.25).abs() < 1e-6), "{weak:?}");
    }

    #[test]
    fn a_map_is_taken_out_as_it_was_put_in_and_other_networks_get_none() {
        let device = Default::default();
        let file = |name: &str| {
            let network = Network::<Flex>::new(&candidate(name).expect("a candidate").layers, [1, 64, 64], 7, &device);
            export::onnx(&network.expect("a network"), name, [1, 64, 64]).expect("an ONNX file")
        };
        let with = file("m12");
        assert!(is_in(&with).expect("a model"));
        assert_eq!(added(&with).expect("a map"), with, "anew is the same");
        let without = removed(&with).expect("a model");
        assert!(!is_in(&without).expect("a model") && without.len() < with.len());
        assert_eq!(added(&without).expect("a map"), with);

        let flat = file("m10");
        assert!(!is_in(&flat).expect("a model"));
        let refused = added(&flat).expect_err("m10 flattens its image").to_string();
        assert!(refused.contains("a global average pool"), "{refused}");
        assert!(matches!(added(b"no model"), Err(HeatMapError::Model(_) | HeatMapError::Lacks(_))));
    }
}
