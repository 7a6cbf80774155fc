//! A batch of one size whose input and outputs are bound to memory once, in place of a copy that ONNX Runtime makes anew
//! for each run.

use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, RunOptions, Session};
use ort::value::Tensor as Value;

use super::graph::Graph;
use triaged_imaging::Tensor;

/// The run option that tells recorded graphs of one session from each other: each batch size has its own.
const GRAPH_ID: &str = "gpu_graph_id";

/// The memory that batches are bound to; a GPU is named by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Memory {
    /// Ordinary memory: nothing is gained, but the code is the same, so a machine without a GPU can test it.
    #[cfg_attr(not(test), allow(dead_code, reason = "only tests bind on a CPU"))]
    Host,
    /// Page-locked memory, which the GPU reads and writes by itself.
    Pinned(i32),
    /// Page-locked memory, and memory of the GPU whose addresses stay the same, as the replay of recorded launches needs it.
    Graph(i32),
}

/// Bound input and output of so many slices. Fields are dropped from the top: tensors go before the binding, which keeps the
/// session, and with it the allocator of their memory, alive.
pub(super) struct Bound {
    input_name: String,
    input: Value<f32>,
    /// One for each output of the graph that is read.
    outputs: Vec<Value<f32>>,
    replayed: Option<Replayed>,
    binding: IoBinding,
}

/// The memory that a replay reads and writes.
struct Replayed {
    input: Value<f32>,
    outputs: Vec<Value<f32>>,
    options: RunOptions,
}

impl Bound {
    pub fn new(session: &Session, graph: &Graph, size: usize, memory: Memory) -> ort::Result<Self> {
        let [channels, height, width] = graph.input_shape;
        let allocator = |device: AllocationDevice<'static>, gpu, kind| {
            Allocator::new(session, MemoryInfo::new(device, gpu, AllocatorType::Device, kind)?)
        };
        let host = match memory {
            Memory::Host => Allocator::default(),
            Memory::Pinned(gpu) | Memory::Graph(gpu) => {
                allocator(AllocationDevice::CUDA_PINNED, gpu, MemoryType::CPUOutput)?
            }
        };
        let input_shape = [size, channels, height, width];
        let mut input = Value::<f32>::new(&host, input_shape)?;
        // A batch that is not full is filled up with slices that were there before: never with what memory happened to hold.
        input.try_extract_tensor_mut::<f32>()?.1.fill(0.0);
        let made = |allocator: &Allocator| -> ort::Result<Vec<Value<f32>>> {
            graph.outputs.iter().map(|output| Value::<f32>::new(allocator, output.shape(size))).collect()
        };
        let mut outputs = made(&host)?;
        let mut binding = session.create_binding()?;
        let replayed = match memory {
            Memory::Graph(gpu) => {
                let device = allocator(AllocationDevice::CUDA, gpu, MemoryType::Default)?;
                let input = Value::<f32>::new(&device, input_shape)?;
                let mut outputs = made(&device)?;
                binding.bind_input(graph.input.as_str(), &input)?;
                bind_outputs(&mut binding, graph, &mut outputs)?;
                let mut options = RunOptions::new()?;
                options.set(GRAPH_ID, size.to_string())?;
                Some(Replayed { input, outputs, options })
            }
            Memory::Host | Memory::Pinned(_) => {
                bind_outputs(&mut binding, graph, &mut outputs)?;
                None
            }
        };
        Ok(Self { input_name: graph.input.clone(), input, outputs, replayed, binding })
    }

    /// Scores at most as many slices as were bound; returns what each output says of all slices that were bound.
    pub fn run(&mut self, session: &mut Session, slices: &[&Tensor]) -> ort::Result<Vec<Vec<f32>>> {
        let (_, values) = self.input.try_extract_tensor_mut::<f32>()?;
        let mut left = values;
        for slice in slices {
            let (place, rest) = left
                .split_at_mut_checked(slice.data.len())
                .ok_or_else(|| ort::Error::new("there are more slices than were bound"))?;
            place.copy_from_slice(&slice.data);
            left = rest;
        }
        match &mut self.replayed {
            None => {
                // Binding is what copies to the GPU; on a CPU the memory itself is the input.
                self.binding.bind_input(self.input_name.as_str(), &self.input)?;
                self.binding.synchronize_inputs()?;
                session.run_binding(&self.binding)?;
                self.binding.synchronize_outputs()?;
            }
            Some(Replayed { input, outputs, options }) => {
                self.input.copy_into(&mut *input)?;
                session.run_binding_with_options(&self.binding, options)?;
                for (from, to) in outputs.iter().zip(&mut self.outputs) {
                    from.copy_into(to)?;
                }
            }
        }
        self.outputs.iter().map(|output| Ok(output.try_extract_tensor::<f32>()?.1.to_vec())).collect()
    }
}

fn bind_outputs(binding: &mut IoBinding, graph: &Graph, outputs: &mut [Value<f32>]) -> ort::Result<()> {
    graph.outputs.iter().zip(outputs).try_for_each(|(named, value)| binding.bind_output(named.name.as_str(), value))
}
