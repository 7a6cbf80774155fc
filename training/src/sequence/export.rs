//! From the network to an ONNX file of `[series, 2, bins]`, with any number of bins.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use prost::Message;

use super::network::{FAR, LEAST, LOGIT_SCALE, SequenceNetwork, TAPS};
use crate::export::values;
use crate::onnx::*;

/// The graph's input: `[series, 2, bins]`, see [`triaged_model::SeriesInput`].
pub const INPUT: &str = "series";
/// The graph's outputs: `[series, bins]`, 0 of an empty bin; and `[series, 1]`.
pub const SLICE_OUTPUT: &str = "slice_probability";
pub const SERIES_OUTPUT: &str = "series_probability";

/// The network as an ONNX file's bytes. The same network gives the same bytes. A series without any scored slice has no
/// probability (NaN).
pub fn onnx<B: Backend>(network: &SequenceNetwork<B>, name: &str) -> Vec<u8> {
    let mut graph = Graph::default();
    let smoothing = graph.tensor("smoothing", network.smoothing_kernel());
    let [first, second] = network.correction_kernels();
    let (first, second) = (graph.tensor("first", first), graph.tensor("second", second));
    let first_bias = graph.tensor("first_bias", network.first_bias.val());
    let lines = values(network.lines.val());
    let [scale, shift, series_scale, series_shift] =
        [("scale", 0), ("shift", 1), ("series_scale", 2), ("series_shift", 3)]
            .map(|(name, at)| graph.number(name, lines[at]));
    let (least, far, one) =
        (graph.number("least", LEAST as f32), graph.number("far", FAR as f32), graph.number("one", 1.0));
    let (zero, smaller) = (graph.number("zero", 0.0), graph.number("smaller", LOGIT_SCALE as f32));
    let (axis_1, axis_2) = (graph.axis("axis_1", 1), graph.axis("axis_2", 2));
    let pads = || vec![ints("kernel_shape", &[TAPS]), ints("pads", &[TAPS / 2, TAPS / 2])];

    graph.named("Split", &[INPUT], &["logits", "present"], vec![int("axis", 1)]);
    let logits = graph.node("Mul", &["logits", "present"], vec![]);
    let sum = graph.node("Conv", &[&logits, &smoothing], pads());
    let weight = graph.node("Conv", &["present", &smoothing], pads());
    let weight = graph.node("Clip", &[&weight, &least], vec![]);
    let mean = graph.node("Div", &[&sum, &weight], vec![]);
    let smooth = graph.node("Mul", &[&mean, "present"], vec![]);
    let small = graph.node("Mul", &[&smooth, &smaller], vec![]);
    let read = graph.node("Concat", &[&small, "present"], vec![int("axis", 1)]);
    let hidden = graph.node("Conv", &[&read, &first, &first_bias], pads());
    let hidden = graph.node("Relu", &[&hidden], vec![]);
    let hidden = graph.node("Mul", &[&hidden, "present"], vec![]);
    let correction = graph.node("Conv", &[&hidden, &second], pads());
    let scaled = graph.node("Mul", &[&smooth, &scale], vec![]);
    let shifted = graph.node("Add", &[&scaled, &shift], vec![]);
    let corrected = graph.node("Add", &[&shifted, &correction], vec![]);
    let bins = graph.node("Mul", &[&corrected, "present"], vec![]);
    let each = graph.node("Sigmoid", &[&bins], vec![]);
    let each = graph.node("Mul", &[&each, "present"], vec![]);
    graph.named("Squeeze", &[&each, &axis_1], &[SLICE_OUTPUT], vec![]);

    let absent = graph.node("Sub", &["present", &one], vec![]);
    let absent = graph.node("Mul", &[&absent, &far], vec![]);
    let there = graph.node("Add", &[&bins, &absent], vec![]);
    let highest = graph.node("ReduceMax", &[&there], vec![ints("axes", &[2]), int("keepdims", 1)]);
    let below = graph.node("Sub", &[&bins, &highest], vec![]);
    let below = graph.node("Min", &[&below, &zero], vec![]);
    let weight = graph.node("Exp", &[&below], vec![]);
    let weight = graph.node("Mul", &[&weight, "present"], vec![]);
    let weighted = graph.node("Mul", &[&weight, &bins], vec![]);
    let total = graph.node("ReduceSum", &[&weighted, &axis_2], vec![int("keepdims", 1)]);
    let weights = graph.node("ReduceSum", &[&weight, &axis_2], vec![int("keepdims", 1)]);
    let maximum = graph.node("Div", &[&total, &weights], vec![]);
    let scaled = graph.node("Mul", &[&maximum, &series_scale], vec![]);
    let whole = graph.node("Add", &[&scaled, &series_shift], vec![]);
    let whole = graph.node("Sigmoid", &[&whole], vec![]);
    graph.named("Squeeze", &[&whole, &axis_2], &[SERIES_OUTPUT], vec![]);
    graph.finish(name).encode_to_vec()
}

#[derive(Default)]
struct Graph {
    nodes: Vec<NodeProto>,
    weights: Vec<TensorProto>,
}

impl Graph {
    /// Keeps a weight and returns its name.
    fn tensor<B: Backend, const D: usize>(&mut self, name: &str, tensor: Tensor<B, D>) -> String {
        let dims = tensor.dims().map(|d| d as i64).to_vec();
        self.keep(name, dims, FLOAT, values(tensor).iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    fn number(&mut self, name: &str, value: f32) -> String {
        self.keep(name, Vec::new(), FLOAT, value.to_le_bytes().to_vec())
    }

    fn axis(&mut self, name: &str, axis: i64) -> String {
        self.keep(name, vec![1], INT64, axis.to_le_bytes().to_vec())
    }

    fn keep(&mut self, name: &str, dims: Vec<i64>, data_type: i32, raw_data: Vec<u8>) -> String {
        let (name, data_type, raw_data) = (name.to_owned(), Some(data_type), Some(raw_data));
        self.weights.push(TensorProto { dims, data_type, name: Some(name.clone()), raw_data });
        name
    }

    /// A node with one output, which is returned by its name.
    fn node(&mut self, op: &str, input: &[&str], attribute: Vec<AttributeProto>) -> String {
        let name = format!("{}_{}", self.nodes.len(), op.to_lowercase());
        self.named(op, input, &[&name], attribute);
        name
    }

    /// A node whose outputs have names.
    fn named(&mut self, op: &str, input: &[&str], output: &[&str], attribute: Vec<AttributeProto>) {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        self.nodes.push(NodeProto {
            input: owned(input),
            output: owned(output),
            name: Some(format!("{}_{}", self.nodes.len(), op.to_lowercase())),
            op_type: Some(op.into()),
            attribute,
        });
    }

    fn finish(self, name: &str) -> ModelProto {
        let (fixed, named) = (DimensionValue::Value, |name: &str| DimensionValue::Param(name.into()));
        model(GraphProto {
            node: self.nodes,
            name: Some(name.into()),
            initializer: self.weights,
            input: vec![float_tensor(INPUT, vec![named("series"), fixed(2), named("bins")])],
            output: vec![
                float_tensor(SLICE_OUTPUT, vec![named("series"), named("bins")]),
                float_tensor(SERIES_OUTPUT, vec![named("series"), fixed(1)]),
            ],
        })
    }
}
