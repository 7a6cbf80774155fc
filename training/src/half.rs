//! Half-precision (float16) copies of an exported network, for GPUs: half the memory to move, and matrix units that multiply
//! twice as fast or more.
//!
//! Input and output stay float32, so that the node feeds a copy as it feeds the original. What lies between is float16, but
//! for the output unit and its sigmoid: a probability near 0 or 1 needs more than 11 bits of its logit.
//!
//! A processor has no float16 arithmetic: ONNX Runtime computes such a graph there in float32 and rounds nothing but the
//! weights. What a GPU does is told by [`rounded`], a float32 graph in which every value that a GPU would keep in float16 is
//! rounded to it; sums within an operation are float32 in both.

use half::f16;
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::comparison::Comparison;
use crate::heat_map::{self, HeatMapError};
use crate::onnx::*;

/// `TensorProto.DataType.FLOAT16`.
const FLOAT16: i32 = 10;

/// The largest move of the slice AUC with which a copy is written.
pub const LARGEST_MOVE: f64 = 0.002;

#[derive(Debug, thiserror::Error)]
pub enum HalfError {
    #[error("the exported model cannot be read: {0}")]
    Model(#[from] prost::DecodeError),
    #[error("the exported model lacks {0}")]
    Lacks(&'static str),
    #[error(transparent)]
    HeatMap(#[from] HeatMapError),
    #[error("{0} is not one of float32 alone: take the float32 model")]
    NotFloat(String),
    #[error("{0} holds {1}, which float16 cannot: its largest number is 65504")]
    TooLarge(String, f32),
}

/// What a half-precision copy was made from, and how it stands to that.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Halved {
    /// The file that it was made from.
    pub of: String,
    pub of_sha256: String,
    #[serde(flatten)]
    pub comparison: Comparison,
}

impl Halved {
    /// For people.
    pub fn text(&self) -> String {
        format!(
            "This is a half-precision copy (float16) of {}, for GPUs; thresholds and study rule are the original's, and all figures \
             below are the original's too. {} Measured on a processor, in a graph that rounds every value to float16 that a GPU keeps in it.",
            self.of,
            self.comparison.text()
        )
    }
}

/// The half-precision copy of a network's ONNX file, as bytes. The same file gives the same bytes.
///
/// # Errors
/// A file that is not of float32 throughout, a quantized one say, or with weights beyond float16.
pub fn halved(onnx: &[u8]) -> Result<Vec<u8>, HalfError> {
    let has_map = heat_map::is_in(onnx)?;
    let mut model = ModelProto::decode(heat_map::removed(onnx)?.as_slice())?;
    let graph = model.graph.as_mut().ok_or(HalfError::Lacks("its graph"))?;
    let output_unit = output_unit(graph)?;
    let kept = graph.node[output_unit].input[1..].to_vec();
    for tensor in graph.initializer.iter_mut().filter(|tensor| !kept.contains(&tensor.name().to_owned())) {
        let values = in_half(tensor)?;
        tensor.data_type = Some(FLOAT16);
        tensor.raw_data = Some(values.iter().flat_map(|value| value.to_le_bytes()).collect());
    }
    let image = graph.input.first().and_then(|input| input.name.clone()).ok_or(HalfError::Lacks("an input"))?;
    let features = graph.node[output_unit].input[0].clone();
    let (halved, widened) = (format!("{image}_half"), format!("{features}_float"));
    for node in &mut graph.node[..output_unit] {
        for name in node.input.iter_mut().filter(|name| **name == image) {
            name.clone_from(&halved);
        }
    }
    graph.node[output_unit].input[0].clone_from(&widened);
    graph.node.insert(output_unit, cast(&features, &widened, FLOAT));
    graph.node.insert(0, cast(&image, &halved, FLOAT16));
    let copy = model.encode_to_vec();
    // It stays float32, as the output unit does.
    Ok(if has_map { heat_map::added(&copy)? } else { copy })
}

/// The same network in float32, with every value rounded that a GPU keeps in float16: the input, the weights and what comes
/// out of each operation before the output unit. Without a heat map: it is for the probability's sake.
///
/// # Errors
/// As [`halved`].
pub fn rounded(onnx: &[u8]) -> Result<Vec<u8>, HalfError> {
    let mut model = ModelProto::decode(heat_map::removed(onnx)?.as_slice())?;
    let graph = model.graph.as_mut().ok_or(HalfError::Lacks("its graph"))?;
    let output_unit = output_unit(graph)?;
    let kept = graph.node[output_unit].input[1..].to_vec();
    for tensor in graph.initializer.iter_mut().filter(|tensor| !kept.contains(&tensor.name().to_owned())) {
        let values = in_half(tensor)?;
        tensor.raw_data = Some(values.iter().flat_map(|value| value.to_f32().to_le_bytes()).collect());
    }
    let image = graph.input.first().and_then(|input| input.name.clone()).ok_or(HalfError::Lacks("an input"))?;
    let name_of = |name: &str| format!("{name}_rounded");
    let mut nodes = Vec::with_capacity(3 * graph.node.len());
    let mut made = vec![image.clone()];
    let round = |name: &str, nodes: &mut Vec<NodeProto>| {
        let half = format!("{name}_half");
        nodes.push(cast(name, &half, FLOAT16));
        nodes.push(cast(&half, &name_of(name), FLOAT));
    };
    round(&image, &mut nodes);
    for (place, node) in graph.node.iter().enumerate() {
        let mut node = node.clone();
        for name in node.input.iter_mut().filter(|name| place <= output_unit && made.contains(name)) {
            *name = name_of(name);
        }
        let outputs = node.output.clone();
        nodes.push(node);
        if place < output_unit {
            for name in &outputs {
                round(name, &mut nodes);
            }
            made.extend(outputs);
        }
    }
    graph.node = nodes;
    Ok(model.encode_to_vec())
}

/// The place of the output unit: the matrix product whose sum the last sigmoid makes a probability.
fn output_unit(graph: &GraphProto) -> Result<usize, HalfError> {
    let sigmoid = graph.node.last().filter(|node| node.op_type() == "Sigmoid");
    sigmoid.ok_or(HalfError::Lacks("a sigmoid at its end"))?;
    let place = graph.node.len().checked_sub(2).ok_or(HalfError::Lacks("an output unit"))?;
    let unit = &graph.node[place];
    if unit.op_type() != "Gemm" || unit.input.len() < 2 {
        return Err(HalfError::Lacks("an output unit before its sigmoid"));
    }
    Ok(place)
}

fn in_half(tensor: &TensorProto) -> Result<Vec<f16>, HalfError> {
    if tensor.data_type != Some(FLOAT) {
        return Err(HalfError::NotFloat(tensor.name().to_owned()));
    }
    let (values, _) = tensor.raw_data().as_chunks::<4>();
    let half = |bytes: &[u8; 4]| {
        let value = f32::from_le_bytes(*bytes);
        let half = f16::from_f32(value);
        match half.is_finite() {
            true => Ok(half),
            false => Err(HalfError::TooLarge(tensor.name().to_owned(), value)),
        }
    };
    values.iter().map(half).collect()
}

fn cast(from: &str, to: &str, data_type: i32) -> NodeProto {
    NodeProto {
        input: vec![from.to_owned()],
        output: vec![to.to_owned()],
        name: Some(format!("{to}_cast")),
        op_type: Some("Cast".into()),
        attribute: vec![int("to", data_type.into())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::candidates::candidate;
    use crate::export;
    use crate::heat_map::HEAT_MAP;
    use crate::network::Network;
    use crate::runtime::{OnnxModel, RuntimeError};
    use burn::backend::flex::Flex;

    fn exported(name: &str, input: [usize; 3]) -> Vec<u8> {
        let layers = candidate(name).expect("a candidate").layers;
        let network = Network::<Flex>::new(&layers, input, 7, &Default::default()).expect("a network");
        export::onnx(&network, name, input).expect("an ONNX file")
    }

    #[test]
    fn a_copy_has_half_the_size_and_says_nearly_the_same() {
        for (name, input) in [("m11", [1, 64, 64]), ("m4", [1, 40, 40])] {
            let onnx = exported(name, input);
            let (copy, rounded) = (halved(&onnx).expect("a copy"), rounded(&onnx).expect("a rounded graph"));
            assert!(copy.len() * 10 < onnx.len() * 6, "{name}: {} of {}", copy.len(), onnx.len());
            let [channels, height, width] = input;
            let shape = [3, channels, height, width];
            let images: Vec<f32> =
                (0..shape.iter().product::<usize>()).map(|i| (i * 7919 % 1000) as f32 / 1000.0).collect();
            let said = |onnx: &[u8]| match OnnxModel::load(onnx) {
                Err(error @ (RuntimeError::NoLibrary | RuntimeError::Library { .. })) => {
                    eprintln!("SKIP a_copy_has_half_the_size_and_says_nearly_the_same: {error}");
                    None
                }
                model => Some(model.expect("a model").output(&images, shape).expect("probabilities")),
            };
            let (Some(float), Some(half), Some(rounded)) = (said(&onnx), said(&copy), said(&rounded)) else { return };
            for (float, other) in float.iter().zip(&half).chain(float.iter().zip(&rounded)) {
                assert!((float - other).abs() < 0.01, "{name}: {float} and {other}");
            }
            // m11's copy has a heat map that shows what the original's does.
            let map_of = |onnx: &[u8]| {
                let named = OnnxModel::load(onnx).expect("a model").output_named(HEAT_MAP, &images, shape);
                named.expect("a run").map(|map| map.values)
            };
            let (map, copied) = (map_of(&onnx), map_of(&copy));
            assert_eq!((map.is_some(), copied.is_some()), (name == "m11", name == "m11"));
            let (map, copied) = (map.unwrap_or_default(), copied.unwrap_or_default());
            assert!(map.iter().zip(&copied).all(|(a, b)| (a - b).abs() < 0.05), "{map:?} and {copied:?}");
            // The rounding is there: were it optimized away, both would be the same in every bit.
            assert_ne!(float, rounded, "{name}");
        }
    }

    #[test]
    fn what_float16_cannot_hold_and_what_is_quantized_is_refused() {
        let onnx = exported("m4", [1, 40, 40]);
        let changed = |change: fn(&mut TensorProto)| {
            let mut model = ModelProto::decode(onnx.as_slice()).expect("a model");
            change(&mut model.graph.as_mut().expect("a graph").initializer[0]);
            model.encode_to_vec()
        };
        let large = changed(|tensor| tensor.raw_data = Some(70000_f32.to_le_bytes().to_vec()));
        assert!(matches!(halved(&large), Err(HalfError::TooLarge(_, 70000.0))));
        let bytes = changed(|tensor| tensor.data_type = Some(INT8));
        assert!(matches!(rounded(&bytes), Err(HalfError::NotFloat(_))));
        assert!(matches!(
            halved(b"no model at all"),
            Err(HalfError::HeatMap(_) | HalfError::Model(_) | HalfError::Lacks(_))
        ));
    }
}
