//! One session of ONNX Runtime, with the threads that are its share: what scores one slice, or one batch, at a time.

use ort::environment::Environment;
use ort::ep::ExecutionProviderDispatch;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::TensorRef;

use super::engine::{EngineError, first_line};
use super::priority::stand_back;
use triaged_imaging::Tensor;
use triaged_model::ModelCard;

/// A session and the memory that its input is gathered in.
pub(super) struct Lane {
    session: Session,
    card: ModelCard,
    batch_size: usize,
    input: Vec<f32>,
}

impl Lane {
    /// A session of so many threads, 0: ONNX Runtime's choice, for batches of so many slices at most. It is made on a thread
    /// that stands back: ONNX Runtime's own threads are started with it and inherit its priority.
    pub fn new(
        environment: &Environment,
        dispatch: Option<ExecutionProviderDispatch>,
        threads: usize,
        batch_size: usize,
        card: &ModelCard,
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
        Ok(Self { session, card: card.clone(), batch_size, input: Vec::new() })
    }

    /// Slices that it scores at once, at most.
    pub fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// Whether the graph has what the card names; else what it lacks.
    pub fn check(&self) -> Result<(), String> {
        let (session, card) = (&self.session, &self.card);
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

    /// Scores blank slices. The smallest and the largest batch are different shapes to a GPU.
    pub fn warm_up(&mut self) -> Result<(), EngineError> {
        self.score_blank(1)?;
        self.score_blank(self.batch_size)
    }

    /// Whether it scores a blank slice: tells a lost GPU from a slice that is to blame.
    pub fn still_runs(&mut self) -> bool {
        self.score_blank(1).is_ok()
    }

    fn score_blank(&mut self, size: usize) -> Result<(), EngineError> {
        let shape = self.card.transform.shape();
        let blank = Tensor { shape, data: vec![0.0; shape.iter().product()] };
        self.score(&vec![&blank; size]).map(drop)
    }

    /// The probability of the finding for each slice, 0 to 1, scored as one batch.
    pub fn score(&mut self, slices: &[&Tensor]) -> Result<Vec<f64>, EngineError> {
        if slices.is_empty() {
            return Ok(Vec::new());
        }
        let run = |error: ort::Error| EngineError::Run(first_line(&error.to_string()));
        let card = &self.card;
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
