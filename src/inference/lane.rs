//! One session of ONNX Runtime, with the threads that are its share: what scores one slice, or one batch, at a time.

use std::collections::BTreeMap;

use ort::environment::Environment;
use ort::ep::ExecutionProviderDispatch;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::TensorRef;

use super::bound::{Bound, Memory};
use super::error::{EngineError, first_line};
use super::graph::Graph;
use crate::priority::stand_back;
use triaged_imaging::Tensor;
use triaged_model::{HeatMap, ModelCard};

/// How a lane is made.
#[derive(Clone, Default)]
pub(super) struct Plan {
    /// None: ONNX Runtime's own, the CPU.
    pub dispatch: Option<ExecutionProviderDispatch>,
    /// Threads of the session; 0: ONNX Runtime's choice.
    pub threads: usize,
    /// Slices that it scores at once, at most.
    pub batch_size: usize,
    /// Whether batches are filled up to 1, 2, 4 … slices, or [`Plan::batch_size`]. For each shape that is new to it, a GPU's
    /// library searches for the fastest kernel anew, and that must not happen while a patient waits.
    pub padded: bool,
    /// How a batch gets to the model; none: from ordinary memory that is not bound.
    pub memory: Option<Memory>,
}

/// A session and the memory that its input is gathered in.
pub(super) struct Lane {
    session: Session,
    graph: Graph,
    batch_size: usize,
    padded: bool,
    input: Vec<f32>,
    memory: Option<Memory>,
    /// By the number of slices.
    bound: BTreeMap<usize, Bound>,
}

/// A model's answer about a slice.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The probability of the finding, 0 to 1.
    pub probability: f64,
    /// The place of the finding. None where the card names no such output, or what came is no map: the probability counts all the same.
    pub heat_map: Option<HeatMap>,
}

/// Why there is no lane.
pub(super) enum NoLane {
    /// ONNX Runtime, or the provider, refuses.
    Runtime(ort::Error),
    /// The graph is not what its card says.
    Graph(String),
}

impl Lane {
    /// A session as planned. It is made on a thread that stands back: ONNX Runtime's own threads are started with it and
    /// inherit its priority.
    pub fn new(environment: &Environment, plan: Plan, card: &ModelCard, model: &[u8]) -> Result<Self, NoLane> {
        let Plan { dispatch, threads, batch_size, padded, memory } = plan;
        let made = std::thread::scope(|scope| {
            let make = scope.spawn(|| {
                stand_back();
                let mut builder =
                    Session::builder(environment)?.with_optimization_level(GraphOptimizationLevel::All)?;
                // Its threads spin for some 20 ms after a slice by default, longer than the next one takes to come, and so
                // keep the cores from receiving and decoding.
                builder = builder.with_intra_op_spinning(false)?;
                if threads > 0 {
                    builder = builder.with_intra_threads(threads)?;
                }
                if let Some(dispatch) = dispatch {
                    // An operator that the provider lacks would silently run on the CPU; here it is an error at start (promise 5).
                    builder = builder.with_execution_providers([dispatch])?.with_disable_cpu_fallback()?;
                }
                builder.commit_from_memory(model)
            });
            make.join()
        });
        let session = made
            .unwrap_or_else(|_| Err(ort::Error::new("ONNX Runtime panicked while it loaded the model")))
            .map_err(NoLane::Runtime)?;
        let graph = Graph::of(&session, card).map_err(NoLane::Graph)?;
        let bound = BTreeMap::new();
        Ok(Self { session, graph, batch_size, padded, input: Vec::new(), memory, bound })
    }

    /// Slices that it scores at once, at most.
    pub fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// Changes how many slices it scores at once, at most.
    pub fn set_batch_size(&mut self, batch_size: usize) {
        self.batch_size = batch_size;
        self.bound.retain(|size, _| *size <= batch_size);
    }

    /// Changes how batches get to the model.
    pub fn set_memory(&mut self, memory: Option<Memory>) {
        self.memory = memory;
        self.bound.clear();
    }

    /// The batches that it runs, by their number of slices: each one a shape of its own to a GPU. Ends with the largest.
    pub fn sizes(&self) -> Vec<usize> {
        match self.padded {
            true => ladder(self.batch_size),
            false if self.batch_size == 1 => vec![1],
            false => vec![1, self.batch_size],
        }
    }

    /// Scores blank slices, in batches of each size. Twice where launches are recorded: that happens at the second run.
    pub fn warm_up(&mut self) -> Result<(), EngineError> {
        let runs = if matches!(self.memory, Some(Memory::Graph(_))) { 3 } else { 1 };
        for size in self.sizes() {
            for _ in 0..runs {
                self.score_blank(size)?;
            }
        }
        Ok(())
    }

    /// Whether it scores a blank slice: tells a lost GPU from a slice that is to blame.
    pub fn still_runs(&mut self) -> bool {
        self.score_blank(1).is_ok()
    }

    /// Scores so many blank slices as one batch.
    pub fn score_blank(&mut self, size: usize) -> Result<(), EngineError> {
        let shape = self.graph.input_shape;
        let blank = Tensor { shape, data: vec![0.0; shape.iter().product()] };
        self.score(&vec![&blank; size]).map(drop)
    }

    /// The probability of the finding for each slice, 0 to 1, scored as one batch.
    ///
    /// # Errors
    /// As [`Lane::answer`].
    pub fn score(&mut self, slices: &[&Tensor]) -> Result<Vec<f64>, EngineError> {
        Ok(self.answer(slices)?.into_iter().map(|answer| answer.probability).collect())
    }

    /// The model's output for each slice, scored as one batch.
    ///
    /// # Errors
    /// [`EngineError::Run`] where the model fails, or gives what is no probability.
    pub fn answer(&mut self, slices: &[&Tensor]) -> Result<Vec<Answer>, EngineError> {
        if slices.is_empty() {
            return Ok(Vec::new());
        }
        let run = |error: ort::Error| EngineError::Run(first_line(&error.to_string()));
        let shape = self.graph.input_shape;
        for slice in slices {
            assert_eq!(slice.shape, shape, "tensors are made by the card's own transform");
        }
        let size = match self.padded {
            true => ladder(self.batch_size).into_iter().find(|size| *size >= slices.len()).unwrap_or(slices.len()),
            false => slices.len(),
        };
        let mut outputs = match self.memory {
            None => self.run_plain(slices, size),
            Some(memory) => self.run_bound(slices, size, memory),
        }
        .map_err(run)?;
        let heat_maps = if outputs.len() > 1 { outputs.pop() } else { None };
        let mut probabilities = outputs.pop().unwrap_or_default();
        if probabilities.len() != size {
            return Err(EngineError::Run(format!("{} values came for {size} slices", probabilities.len())));
        }
        // The slices that filled the batch up.
        probabilities.truncate(slices.len());
        if let Some(wrong) = probabilities.iter().find(|p| !(0.0..=1.0).contains(*p)) {
            return Err(EngineError::Run(format!("{wrong} is not a probability")));
        }
        let map_of = |slice: usize| {
            let (rows, columns) = self.graph.heat_map()?;
            let values = heat_maps.as_ref()?.get(slice * rows * columns..(slice + 1) * rows * columns)?;
            HeatMap::new(rows, columns, values.to_vec())
        };
        let answer = |(slice, probability): (usize, &f32)| Answer {
            probability: f64::from(*probability),
            heat_map: map_of(slice),
        };
        Ok(probabilities.iter().enumerate().map(answer).collect())
    }

    fn run_plain(&mut self, slices: &[&Tensor], size: usize) -> ort::Result<Vec<Vec<f32>>> {
        let [channels, height, width] = self.graph.input_shape;
        self.input.clear();
        for slice in slices {
            self.input.extend_from_slice(&slice.data);
        }
        self.input.resize(size * channels * height * width, 0.0);
        let input = TensorRef::from_array_view(([size, channels, height, width], &self.input[..]))?;
        let outputs = self.session.run(ort::inputs![self.graph.input.as_str() => input])?;
        let read = |name: &str| Ok(outputs[name].try_extract_tensor::<f32>()?.1.to_vec());
        self.graph.outputs.iter().map(|output| read(&output.name)).collect()
    }

    fn run_bound(&mut self, slices: &[&Tensor], size: usize, memory: Memory) -> ort::Result<Vec<Vec<f32>>> {
        use std::collections::btree_map::Entry;
        let bound = match self.bound.entry(size) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(place) => place.insert(Bound::new(&self.session, &self.graph, size, memory)?),
        };
        bound.run(&mut self.session, slices)
    }
}

/// 1, 2, 4 … below `most`, and `most`.
pub(super) fn ladder(most: usize) -> Vec<usize> {
    let powers = (0..usize::BITS).map(|power| 1 << power).take_while(|size| *size < most);
    powers.chain([most.max(1)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_filled_up_to_few_sizes() {
        assert_eq!(ladder(1), [1]);
        assert_eq!(ladder(2), [1, 2]);
        assert_eq!(ladder(16), [1, 2, 4, 8, 16]);
        assert_eq!(ladder(24), [1, 2, 4, 8, 16, 24]);
    }
}
