//! Eight-bit copies of an exported network, for processors without a GPU: convolutions on bytes instead of floats.
//!
//! The graph stays one of floats, with pairs of QuantizeLinear and DequantizeLinear around each operation (QDQ): what a
//! runtime makes of them is its own, and one that makes nothing of them computes nearly the same. Activations are bytes from 0
//! to 255 over the range that calibration slices showed; weights are symmetric with a scale for each output channel.
//! (B. Jacob et al.: Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, 2018.)
//! The mean that rounding the weights adds to an output channel is taken out of its bias. (M. Nagel et al.: Data-Free
//! Quantization Through Weight Equalization and Bias Correction, 2019; here with means that were seen.)
//!
//! Two things are kept from it:
//! - Weights have 7 bits, -64 to 64. Processors without VNNI add two products of a byte and a weight in 16 bits, and
//!   saturate there: with 8 bits a model could say one thing in the laboratory and another in a hospital. With 7 the sum
//!   is at most 2 · 255 · 64 = 32,640, below 32,767, and no processor saturates.
//! - The first convolutions and the output unit stay floats. The first block's depthwise channels differ so much in range
//!   that with them in bytes the error of m11's logits is nearly twice as large.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use serde::{Deserialize, Serialize};

use crate::comparison::Comparison;
use crate::heat_map::{self, HeatMapError};
use crate::metrics::Interval;
use crate::onnx::*;
use crate::runtime::{OnnxModel, RuntimeError, Span};

/// Convolutions of each network that stay floats, counted from its image: the stem and the first block's.
pub const FLOAT_CONVOLUTIONS: usize = 3;
/// The largest weight, of 7 bits.
const LARGEST_WEIGHT: f32 = 64.0;
/// Bits of activations, and of weights.
pub const BITS: (u32, u32) = (8, 7);
/// The limit of biases, which have the scale of input times weight; far enough below 2³¹ for sums.
const LARGEST_BIAS: f32 = 1_073_741_824.0;

#[derive(Debug, thiserror::Error)]
pub enum QuantizeError {
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error("the exported model cannot be read: {0}")]
    Model(#[from] prost::DecodeError),
    #[error("the exported model lacks {0}")]
    Lacks(String),
    #[error("the network is broken: {0} is not a number, or infinite")]
    NotFinite(String),
    #[error(transparent)]
    HeatMap(#[from] HeatMapError),
    #[error("no calibration slices")]
    NoSlices,
}

/// How an eight-bit copy stands to the network it was made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Quantized {
    pub activation_bits: u32,
    pub weight_bits: u32,
    pub float_convolutions: usize,
    /// Slices that the ranges were taken from, of the training side.
    pub calibration_slices: usize,
    /// The float networks' slice AUC on the patients that the figures are of, fold by fold.
    pub float_slice_auc: Option<Interval>,
    /// The copies' slice AUC less the float networks', on the same slices.
    pub slice_auc_difference: Option<Interval>,
    /// By the float folds' own study rule.
    pub float_study_auc: Option<Interval>,
    /// Probabilities compared: those of the folds, each by its own calibration.
    pub slices: usize,
    pub largest_difference: f64,
    pub mean_difference: f64,
}

/// The largest move of a folder's slice AUC with which a copy of a file is written.
pub const LARGEST_MOVE: f64 = 0.01;

/// What an eight-bit copy of an exported file was made from, and how it stands to that. It has no figures of its own: networks that have
/// not seen a patient are not at hand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuantizedFile {
    /// The file that it was made from.
    pub of: String,
    pub of_sha256: String,
    pub activation_bits: u32,
    pub weight_bits: u32,
    pub float_convolutions: usize,
    /// Slices that the ranges were taken from, and the folder that has them.
    pub calibration_slices: usize,
    pub calibration_source: String,
    /// On the other slices of that folder, and on those of others.
    pub comparisons: Vec<Comparison>,
}

impl QuantizedFile {
    /// For people.
    pub fn text(&self) -> String {
        let comparisons: Vec<String> = self.comparisons.iter().map(Comparison::text).collect();
        format!(
            "This is an eight-bit copy of {}, for processors without a GPU (QDQ: {} bits for activations, {} for weights; a network's first \
             {} convolutions and the output unit are floats), its ranges from {} slices of {}. Thresholds and rules are the original's, and so \
             are all figures below: the folds' networks were not at hand, of which a copy of its own figures would be made. {}",
            self.of,
            self.activation_bits,
            self.weight_bits,
            self.float_convolutions,
            self.calibration_slices,
            self.calibration_source,
            comparisons.join(" ")
        )
    }
}

impl Quantized {
    /// For people.
    pub fn text(&self) -> String {
        let auc = |auc: Option<Interval>| auc.map_or("one class only".into(), |auc| format!("{:.4}", auc.value));
        let difference = self
            .slice_auc_difference
            .map_or("one class only".into(), |d| format!("{:+.4} ({:+.4} to {:+.4})", d.value, d.low, d.high));
        format!(
            "This is an eight-bit copy, for processors without a GPU (QDQ: {} bits for activations, {} for weights; a network's first {} \
             convolutions and the output unit are floats), its ranges from {} slices of the training side. All figures below are \
             of such copies of the folds' networks, in ONNX Runtime, decided on their own scores. The float networks' slice AUC on \
             the same patients is {}, their study AUC {}; the copies' slice AUC differs by {difference}. Probabilities of the \
             {} slices, each by its own calibration, differ by {:.3} at most and by {:.4} in the mean.",
            self.activation_bits,
            self.weight_bits,
            self.float_convolutions,
            self.calibration_slices,
            auc(self.float_slice_auc),
            auc(self.float_study_auc),
            self.slices,
            self.largest_difference,
            self.mean_difference,
        )
    }
}

/// The ranges of tensors that were seen, by name.
type Seen = BTreeMap<String, Span>;

/// An eight-bit copy of a network's ONNX file, as bytes; `images` are calibration slices, each `[channels, height,
/// width]`. The same file and slices give the same bytes.
pub fn quantized<E: From<QuantizeError>>(
    onnx: &[u8],
    images: impl Iterator<Item = Result<Vec<f32>, E>>,
    shape: [usize; 3],
) -> Result<Vec<u8>, E> {
    let has_map = heat_map::is_in(onnx).map_err(QuantizeError::from)?;
    let plain = heat_map::removed(onnx).map_err(QuantizeError::from)?;
    let model = ModelProto::decode(plain.as_slice()).map_err(QuantizeError::from)?;
    let graph = model.graph.as_ref().ok_or_else(|| QuantizeError::Lacks("its graph".into()))?;
    let plan = Plan::of(graph);
    let seen = observe(&model, &plan, images, shape)?;
    let copy = rewrite(&model, graph, &plan, &seen)?.encode_to_vec();
    // It stays one of floats, as the output unit does.
    Ok(if has_map { heat_map::added(&copy).map_err(QuantizeError::from)? } else { copy })
}

/// The same network without its last sigmoid, and without a heat map: it says logits. A probability in 32 bits loses what a calibration needs of
/// those near 0 and 1.
pub fn logits(onnx: &[u8]) -> Result<Vec<u8>, QuantizeError> {
    let mut model = ModelProto::decode(heat_map::removed(onnx)?.as_slice())?;
    let graph = model.graph.as_mut().ok_or_else(|| QuantizeError::Lacks("its graph".into()))?;
    let last = graph.node.pop().filter(|node| node.op_type() == "Sigmoid");
    let last = last.ok_or_else(|| QuantizeError::Lacks("a sigmoid at its end".into()))?;
    let before = graph.node.last_mut().ok_or_else(|| QuantizeError::Lacks("its output unit".into()))?;
    before.output = last.output;
    Ok(model.encode_to_vec())
}

/// The parts of a graph that become bytes.
struct Plan {
    /// By node.
    nodes: Vec<bool>,
    /// Tensors that are bytes in between.
    tensors: BTreeSet<String>,
    /// Tensors that come out of such nodes.
    produced: BTreeSet<String>,
}

impl Plan {
    /// All convolutions but each network's first, with what limits their output, and sums of what they give.
    fn of(graph: &GraphProto) -> Self {
        let mut plan = Self { nodes: Vec::new(), tensors: BTreeSet::new(), produced: BTreeSet::new() };
        // By tensor: the most convolutions on a way to it. A file may hold several networks, each with a stem of its own.
        let mut depths: BTreeMap<&str, usize> = BTreeMap::new();
        for node in &graph.node {
            let data = |at: usize| node.input.get(at).is_some_and(|input| plan.produced.contains(input));
            let before = node.input.iter().filter_map(|input| depths.get(input.as_str())).max().copied().unwrap_or(0);
            let depth = before + usize::from(node.op_type() == "Conv");
            depths.extend(node.output.iter().map(|output| (output.as_str(), depth)));
            let takes = match node.op_type() {
                "Conv" => depth > FLOAT_CONVOLUTIONS,
                "Clip" => data(0),
                "Add" => data(0) && data(1),
                _ => false,
            };
            plan.nodes.push(takes);
            if takes {
                plan.produced.extend(node.output.iter().cloned());
            }
        }
        for (node, _) in graph.node.iter().zip(&plan.nodes).filter(|(_, takes)| **takes) {
            let data = if node.op_type() == "Add" { 2 } else { 1 };
            // A value that only a limit reads is never seen: the runtime makes the limit part of the convolution.
            let readers: Vec<&NodeProto> =
                graph.node.iter().filter(|reader| reader.input.contains(&node.output[0])).collect();
            let limited = matches!(readers.as_slice(), [only] if only.op_type() == "Clip");
            if node.op_type() != "Clip" {
                plan.tensors.extend(node.input.iter().take(data).cloned());
            }
            if !limited {
                plan.tensors.insert(node.output[0].clone());
            }
        }
        plan
    }
}

/// The ranges of the plan's tensors over the images.
fn observe<E: From<QuantizeError>>(
    model: &ModelProto,
    plan: &Plan,
    images: impl Iterator<Item = Result<Vec<f32>, E>>,
    [channels, height, width]: [usize; 3],
) -> Result<Seen, E> {
    let mut probe = model.clone();
    if let Some(graph) = &mut probe.graph {
        let output = |name: &String| ValueInfoProto { name: Some(name.clone()), r#type: None };
        graph.output.extend(plan.tensors.iter().map(output));
    }
    let mut probe = OnnxModel::load(&probe.encode_to_vec()).map_err(QuantizeError::from)?;
    let (mut seen, mut count) = (Seen::new(), 0.0);
    for image in images {
        count += 1.0;
        for (name, new) in probe.spans(&image?, [1, channels, height, width]).map_err(QuantizeError::from)? {
            if !(new.low.is_finite() && new.high.is_finite()) {
                return Err(QuantizeError::NotFinite(name).into());
            }
            // 0 is padding, and must be a byte.
            let nothing = || Span { low: 0.0, high: 0.0, means: vec![0.0; new.means.len()] };
            let span = seen.entry(name).or_insert_with(nothing);
            (span.low, span.high) = (span.low.min(new.low), span.high.max(new.high));
            span.means.iter_mut().zip(new.means).for_each(|(mean, new)| *mean += (new - *mean) / count);
        }
    }
    if seen.is_empty() { Err(QuantizeError::NoSlices.into()) } else { Ok(seen) }
}

/// A byte's scale, and the byte that stands for 0.
fn scale(span: &Span) -> (f32, u8) {
    let scale = ((span.high - span.low) / 255.0).max(f32::MIN_POSITIVE);
    (scale, (-span.low / scale).round().clamp(0.0, 255.0) as u8)
}

fn rewrite(model: &ModelProto, graph: &GraphProto, plan: &Plan, seen: &Seen) -> Result<ModelProto, QuantizeError> {
    let lacks = |name: &str| QuantizeError::Lacks(name.to_owned());
    let span_of = |name: &str| seen.get(name).ok_or_else(|| lacks(name));
    let mut made = Made::default();
    let mut gone = BTreeSet::new();
    for (node, &takes) in graph.node.iter().zip(&plan.nodes) {
        let mut node = node.clone();
        if takes && node.op_type() == "Conv" {
            let find = |name: &String| graph.initializer.iter().find(|tensor| tensor.name.as_ref() == Some(name));
            let part = |at: usize| {
                let named = || lacks(&format!("input {at} of {}", node.name()));
                node.input.get(at).and_then(find).ok_or_else(named)
            };
            let (weight, bias) = (part(1)?, part(2)?);
            gone.extend([node.input[1].clone(), node.input[2].clone()]);
            let names = made.weights(weight, bias, span_of(&node.input[0])?)?;
            node.input.splice(1..3, names);
        }
        for name in &mut node.input {
            if plan.tensors.contains(name) && (takes || plan.produced.contains(name)) {
                *name = dequantized(name);
            }
        }
        let outputs = node.output.clone();
        made.nodes.push(node);
        for name in outputs.iter().filter(|name| plan.tensors.contains(*name)) {
            made.bytes_between(name, scale(span_of(name)?));
        }
    }
    let kept = graph.initializer.iter().filter(|tensor| tensor.name.as_ref().is_none_or(|name| !gone.contains(name)));
    let graph =
        GraphProto { initializer: kept.cloned().chain(made.weights).collect(), node: made.nodes, ..graph.clone() };
    Ok(ModelProto { graph: Some(graph), ..model.clone() })
}

fn dequantized(name: &str) -> String {
    format!("{name}_dequantized")
}

/// The new graph's parts.
#[derive(Default)]
struct Made {
    nodes: Vec<NodeProto>,
    weights: Vec<TensorProto>,
}

impl Made {
    /// A tensor made bytes, and floats again.
    fn bytes_between(&mut self, name: &str, (scale, zero): (f32, u8)) {
        let scale = self.tensor(format!("{name}_scale"), FLOAT, &[], scale.to_le_bytes().to_vec());
        let zero = self.tensor(format!("{name}_zero"), UINT8, &[], vec![zero]);
        let bytes = format!("{name}_quantized");
        self.node("QuantizeLinear", [name.to_owned(), scale.clone(), zero.clone()], bytes.clone(), Vec::new());
        self.node("DequantizeLinear", [bytes, scale, zero], dequantized(name), Vec::new());
    }

    /// A convolution's weights and bias, a scale each output channel, for an input as it was seen; returns the names of
    /// both as floats.
    fn weights(
        &mut self,
        weight: &TensorProto,
        bias: &TensorProto,
        input: &Span,
    ) -> Result<[String; 2], QuantizeError> {
        let (kernels, biases) = (floats(weight), floats(bias));
        if let Some(broken) = [(weight, &kernels), (bias, &biases)]
            .into_iter()
            .find_map(|(tensor, values)| values.iter().any(|value| !value.is_finite()).then_some(tensor))
        {
            return Err(QuantizeError::NotFinite(broken.name().to_owned()));
        }
        let (input_scale, _) = scale(input);
        // Filters, then the channels that each sees: all, or of a depthwise convolution its own.
        let size = (kernels.len() / biases.len().max(1)).max(1);
        let seen = weight.dims.get(1).map_or(1, |&channels| channels.max(1) as usize);
        let area = (size / seen).max(1);
        let (mut scales, mut bytes, mut sums) = (Vec::new(), Vec::new(), Vec::new());
        for (filter, (kernel, bias)) in kernels.chunks_exact(size).zip(&biases).enumerate() {
            let largest = kernel.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
            // A channel of almost no weights would have a bias beyond its integers.
            let least = bias.abs() / (input_scale * LARGEST_BIAS);
            let scale = (largest / LARGEST_WEIGHT).max(least).max(f32::MIN_POSITIVE);
            let rounded: Vec<i8> = kernel.iter().map(|value| (value / scale).round() as i8).collect();
            let added = kernel.chunks(area).zip(rounded.chunks(area)).enumerate().map(|(channel, (exact, rounded))| {
                let error: f64 =
                    exact.iter().zip(rounded).map(|(v, r)| f64::from(*r) * f64::from(scale) - f64::from(*v)).sum();
                let mean = if seen == 1 && input.means.len() == biases.len() { filter } else { channel };
                error * input.means.get(mean).copied().unwrap_or(0.0)
            });
            let bias = f64::from(*bias) - added.sum::<f64>();
            sums.push((bias / (f64::from(input_scale) * f64::from(scale))).round() as i32);
            bytes.extend(rounded);
            scales.push(scale);
        }
        let channels = [biases.len() as i64];
        let floats = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let [weight_name, bias_name] = [weight, bias].map(|tensor| tensor.name().to_owned());
        let of = |name: &str, what: &str| format!("{name}_{what}");
        let weight = [
            self.tensor(of(&weight_name, "bytes"), INT8, &weight.dims, bytes.iter().map(|&byte| byte as u8).collect()),
            self.tensor(of(&weight_name, "scale"), FLOAT, &channels, floats(&scales)),
            self.tensor(of(&weight_name, "zero"), INT8, &channels, vec![0; biases.len()]),
        ];
        let both: Vec<f32> = scales.iter().map(|scale| scale * input_scale).collect();
        let bias = [
            self.tensor(of(&bias_name, "sums"), INT32, &channels, sums.iter().flat_map(|v| v.to_le_bytes()).collect()),
            self.tensor(of(&bias_name, "scale"), FLOAT, &channels, floats(&both)),
            self.tensor(of(&bias_name, "zero"), INT32, &channels, vec![0; 4 * biases.len()]),
        ];
        self.node("DequantizeLinear", weight, dequantized(&weight_name), vec![int("axis", 0)]);
        self.node("DequantizeLinear", bias, dequantized(&bias_name), vec![int("axis", 0)]);
        Ok([dequantized(&weight_name), dequantized(&bias_name)])
    }

    fn tensor(&mut self, name: String, data_type: i32, dims: &[i64], raw: Vec<u8>) -> String {
        self.weights.push(TensorProto {
            dims: dims.to_vec(),
            data_type: Some(data_type),
            name: Some(name.clone()),
            raw_data: Some(raw),
        });
        name
    }

    fn node(&mut self, op: &str, input: [String; 3], output: String, attribute: Vec<AttributeProto>) {
        self.nodes.push(NodeProto {
            input: input.to_vec(),
            name: Some(format!("{output}_{}", op.to_lowercase())),
            output: vec![output],
            op_type: Some(op.into()),
            attribute,
        });
    }
}

/// A tensor's values.
fn floats(tensor: &TensorProto) -> Vec<f32> {
    let (values, _) = tensor.raw_data().as_chunks::<4>();
    values.iter().map(|value| f32::from_le_bytes(*value)).collect()
}
