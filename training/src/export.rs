//! From a trained network to an ONNX file: the same list of layers, walked once more.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use prost::Message;
use triaged_kernels::mobile::same_padding;

use crate::heat_map;
use crate::network::{
    Layer, LayerError, NORM_EPSILON, Network, NormedConv, Role, Size, Step, has_position_logits, sizes, steps,
};
use crate::onnx::*;

/// The graph's input: `[batch, channels, height, width]`.
pub const INPUT: &str = "image";
/// The graph's output: `[batch, 1]`, the probability.
pub const OUTPUT: &str = "probability";

/// The network as an ONNX file's bytes, for images of `[channels, height, width]` in batches of any size. Dropout does
/// nothing at inference and has no node, and the normalisation of [`NormedConv`]s lies in their weights. A network that has
/// position logits has a second output, its [heat map](crate::heat_map). The same network gives the same bytes.
pub fn onnx<B: Backend>(network: &Network<B>, name: &str, input: [usize; 3]) -> Result<Vec<u8>, LayerError> {
    mean_onnx(std::slice::from_ref(network), name, input)
}

/// As [`onnx`], of several networks that see the same image: the probability is that of the mean of their logits. Their output
/// units are one, over what all of them feed theirs, each with its share of the weight.
pub fn mean_onnx<B: Backend>(networks: &[Network<B>], name: &str, input: [usize; 3]) -> Result<Vec<u8>, LayerError> {
    let mut graph = Graph::new(name);
    let (mut features, mut weights, mut bias) = (Vec::new(), Vec::new(), 0.0);
    let share = 1.0 / networks.len() as f32;
    for network in networks {
        graph.last = INPUT.into();
        graph.network(network, input)?;
        features.push(graph.last.clone());
        let output = network.denses.last().expect("every network has an output unit");
        weights.extend(values(output.weight.val()).into_iter().map(|weight| weight * share));
        bias += values(output.bias.val())[0] * share;
    }
    if features.len() > 1 {
        graph.last = features.remove(0);
        graph.node("Concat", features, vec![int("axis", 1)]);
    }
    let weights = vec![graph.values("weight", &[weights.len(), 1], &weights), graph.values("bias", &[1], &[bias])];
    graph.node("Gemm", weights, vec![]);
    graph.node("Sigmoid", vec![], vec![]);
    let bytes = graph.finish(input).encode_to_vec();
    if networks.iter().all(|network| has_position_logits(&network.layers)) {
        return Ok(heat_map::added(&bytes).expect("the graph was just built of a pool and an output unit"));
    }
    Ok(bytes)
}

impl Graph {
    /// A network's nodes but for its output unit.
    fn network<B: Backend>(&mut self, network: &Network<B>, input: [usize; 3]) -> Result<(), LayerError> {
        let graph = self;
        let (mut norms, mut convs, mut denses) = (network.norms.iter(), network.convs.iter(), network.denses.iter());
        let mut blocks = network.blocks.iter();
        let built = "the module was built from these layers";
        let [channels, height, width] = input;
        let mut before = Size::Image { channels, height, width };
        for (layer, after) in network.layers.iter().zip(sizes(&network.layers, input)?) {
            match *layer {
                Layer::BatchNorm => {
                    let norm = norms.next().expect(built);
                    let weights = vec![
                        graph.weight("scale", norm.gamma.val()),
                        graph.weight("shift", norm.beta.val()),
                        graph.weight("mean", norm.running_mean.value()),
                        graph.weight("variance", norm.running_var.value()),
                    ];
                    graph.node("BatchNormalization", weights, vec![float("epsilon", NORM_EPSILON as f32)]);
                }
                Layer::Conv { kernel, .. } => {
                    let conv = convs.next().expect(built);
                    let weights =
                        vec![graph.weight("weight", conv.weight.val()), graph.weight("bias", conv.bias.val())];
                    graph.node("Conv", weights, vec![ints("kernel_shape", &[kernel, kernel])]);
                    graph.node("Relu", vec![], vec![]);
                }
                Layer::MaxPool { size } => {
                    let attributes = vec![ints("kernel_shape", &[size, size]), ints("strides", &[size, size])];
                    graph.node("MaxPool", vec![], attributes);
                }
                Layer::Dropout { .. } => {}
                Layer::Stem { .. } | Layer::InvertedResidual { .. } | Layer::Head { .. } => {
                    let Size::Image { channels, height, width } = before else {
                        unreachable!("sizes() has checked that it is an image")
                    };
                    let (mut size, mut block) = ([height, width], String::new());
                    for step in steps(layer, channels) {
                        if step.opens {
                            block.clone_from(&graph.last);
                        }
                        graph.normed(blocks.next().expect(built), &step, size);
                        if step.shortcut {
                            graph.node("Add", vec![block.clone()], vec![]);
                        }
                        size = size.map(|edge| edge.div_ceil(step.stride));
                    }
                }
                Layer::GlobalAveragePool => {
                    graph.node("GlobalAveragePool", vec![], vec![]);
                    graph.node("Flatten", vec![], vec![int("axis", 1)]);
                }
                Layer::Flatten => graph.node("Flatten", vec![], vec![int("axis", 1)]),
                Layer::Dense { .. } => {
                    let dense = denses.next().expect(built);
                    let weights =
                        vec![graph.weight("weight", dense.weight.val()), graph.weight("bias", dense.bias.val())];
                    graph.node("Gemm", weights, vec![]);
                    graph.node("Relu", vec![], vec![]);
                }
                // The last of all; of several networks they are one.
                Layer::Output => {}
            }
            before = after;
        }
        Ok(())
    }
}

/// A chain of nodes, each fed by the one before it, some also by an earlier one.
struct Graph {
    name: String,
    nodes: Vec<NodeProto>,
    weights: Vec<TensorProto>,
    /// The node that reads this one's output.
    last: String,
}

impl Graph {
    fn new(name: &str) -> Self {
        Self { name: name.into(), nodes: Vec::new(), weights: Vec::new(), last: INPUT.into() }
    }

    /// Keeps a weight of the node to come, and returns its name in the graph.
    fn weight<B: Backend, const D: usize>(&mut self, role: &str, tensor: Tensor<B, D>) -> String {
        let shape = tensor.dims();
        self.values(role, &shape, &values(tensor))
    }

    /// As [`Self::weight`], of numbers in a shape; a single number has none.
    fn values(&mut self, role: &str, shape: &[usize], values: &[f32]) -> String {
        let name = format!("{}_{role}", self.nodes.len());
        self.weights.push(TensorProto {
            dims: shape.iter().map(|&d| d as i64).collect(),
            data_type: Some(FLOAT),
            name: Some(name.clone()),
            raw_data: Some(values.iter().flat_map(|v| v.to_le_bytes()).collect()),
        });
        name
    }

    /// A convolution with its normalisation folded into weight and bias, and ReLU6 where it has one, for an image of
    /// `size`, height and width.
    fn normed<B: Backend>(&mut self, conv: &NormedConv<B>, step: &Step, size: [usize; 2]) {
        let norm = &conv.norm;
        let scale: Vec<f64> = values(norm.gamma.val())
            .iter()
            .zip(values(norm.running_var.value()))
            .map(|(&gamma, variance)| f64::from(gamma) / (f64::from(variance) + norm.epsilon).sqrt())
            .collect();
        let shifted = values(norm.beta.val()).into_iter().zip(values(norm.running_mean.value())).zip(&scale);
        let bias: Vec<f32> =
            shifted.map(|((beta, mean), scale)| (f64::from(beta) - f64::from(mean) * scale) as f32).collect();
        let mut weight = values(conv.weight.val());
        for (kernels, scale) in weight.chunks_exact_mut(step.weight()[1..].iter().product()).zip(&scale) {
            kernels.iter_mut().for_each(|value| *value = (f64::from(*value) * scale) as f32);
        }
        let weights = vec![self.values("weight", &step.weight(), &weight), self.values("bias", &[step.filters], &bias)];
        let [(top, bottom), (left, right)] = size.map(|edge| same_padding(edge, step.kernel, step.stride));
        let groups = if step.role == Role::Depthwise { step.channels } else { 1 };
        let attributes = vec![
            int("group", groups as i64),
            ints("kernel_shape", &[step.kernel; 2]),
            ints("pads", &[top, left, bottom, right]),
            ints("strides", &[step.stride; 2]),
        ];
        self.node("Conv", weights, attributes);
        if step.rectified() {
            let bounds = vec![self.values("least", &[], &[0.0]), self.values("most", &[], &[6.0])];
            self.node("Clip", bounds, vec![]);
        }
    }

    fn node(&mut self, op: &str, weights: Vec<String>, attribute: Vec<AttributeProto>) {
        let name = format!("{}_{}", self.nodes.len(), op.to_lowercase());
        let input = [vec![std::mem::replace(&mut self.last, name.clone())], weights].concat();
        self.nodes.push(NodeProto {
            input,
            output: vec![name.clone()],
            name: Some(name),
            op_type: Some(op.into()),
            attribute,
        });
    }

    fn finish(mut self, [channels, height, width]: [usize; 3]) -> ModelProto {
        if let Some(node) = self.nodes.last_mut() {
            node.output = vec![OUTPUT.into()];
        }
        model(GraphProto {
            node: self.nodes,
            name: Some(self.name),
            initializer: self.weights,
            input: vec![batch_of(INPUT, &[channels, height, width])],
            output: vec![batch_of(OUTPUT, &[1])],
        })
    }
}

/// The numbers of a tensor, in the order of its rows.
pub(crate) fn values<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().to_vec().expect("converted to f32")
}
