//! One session of ONNX Runtime, with the threads that are its share: what scores one slice, or one batch, at a time.

use ort::environment::Environment;
use ort::ep::ExecutionProviderDispatch;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::TensorRef;

use super::card::ModelCard;
use super::engine::{EngineError, first_line};
use super::priority::stand_back;
use crate::imaging::Tensor;

/// A session and the memory that its input is gathered in.
pub(super) struct Lane {
    session: Session,
    input: Vec<f32>,
}

impl Lane {
    /// A session of so many threads, 0: ONNX Runtime's choice. It is made on a thread that stands back: ONNX Runtime's own
    /// threads are started with it and inherit its priority.
    pub fn new(
        environment: &Environment,
        dispatch: Option<ExecutionProviderDispatch>,
        threads: usize,
        model: &[u8],
    ) -> ort::Result<Self> {
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
                    // What the provider cannot run would silently run on the CPU; here it is an error at start (promise 5).
                    builder = builder.with_execution_providers([dispatch])?.with_disable_cpu_fallback()?;
                }
                builder.commit_from_memory(model)
            });
            make.join()
        });
        let session =
            made.unwrap_or_else(|_| Err(ort::Error::new("ONNX Runtime panicked while it loaded the model")))?;
        Ok(Self { session, input: Vec::new() })
    }

    /// Whether the graph has what the card names; else what it lacks.
    pub fn check(&self, card: &ModelCard) -> Result<(), String> {
        let session = &self.session;
        for (what, named, has) in [
            ("input", &card.input, session.inputs().iter().any(|i| i.name() == card.input)),
            ("output", &card.output, session.outputs().iter().any(|o| o.name() == card.output)),
        ] {
            if !has {
                return Err(format!("the card names the {what} {named:?}, the graph has none of that name"));
            }
        }
        Ok(())
    }

    /// The probability of the finding for each slice, 0 to 1, scored as one batch.
    pub fn score(&mut self, card: &ModelCard, slices: &[&Tensor]) -> Result<Vec<f64>, EngineError> {
        let run = |error: ort::Error| EngineError::Run(first_line(&error.to_string()));
        let [channels, height, width] = card.transform.shape();
        self.input.clear();
        for slice in slices {
            assert_eq!(slice.shape, [channels, height, width], "tensors are made by the card's own transform");
            self.input.extend_from_slice(&slice.data);
        }
        let input =
            TensorRef::from_array_view(([slices.len(), channels, height, width], &self.input[..])).map_err(run)?;
        let outputs = self.session.run(ort::inputs![card.input.as_str() => input]).map_err(run)?;
        let (_, probabilities) = outputs[card.output.as_str()].try_extract_tensor::<f32>().map_err(run)?;
        if probabilities.len() != slices.len() {
            return Err(EngineError::Run(format!("{} values came for {} slices", probabilities.len(), slices.len())));
        }
        if let Some(wrong) = probabilities.iter().find(|p| !(0.0..=1.0).contains(*p)) {
            return Err(EngineError::Run(format!("{wrong} is not a probability")));
        }
        Ok(probabilities.iter().map(|p| f64::from(*p)).collect())
    }
}
