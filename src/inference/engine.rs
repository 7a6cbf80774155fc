//! The ONNX Runtime session: one a model, warmed up, with the execution provider that really runs.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;

use ort::environment::Environment;
use ort::ep::{self, ExecutionProviderDispatch};
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::TensorRef;
use tracing::{info, warn};

use super::card::{CardError, ModelCard};
use super::priority::stand_back;
use crate::assets;
use crate::config::{self, Device};
use crate::imaging::Tensor;

/// Slices scored at once where `inference.batch_size` is 0. On a CPU a batch gains nothing (m10: 23 to 25 ms a slice at
/// any batch from 1 to 32), but costs 66 MB of activations a slice.
const CPU_BATCH: usize = 1;
const GPU_BATCH: usize = 16;

/// Why there is no engine, or no scores.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Card(#[from] CardError),
    #[error(
        "ONNX Runtime cannot be loaded from {path}: {why}; run `make onnxruntime`, or name the library in \
         inference.onnxruntime"
    )]
    Library { path: PathBuf, why: String },
    #[error("inference.device = \"{device}\" cannot run here: {why}")]
    Device { device: &'static str, why: String },
    #[error("the model {model} cannot be run: {why}")]
    Model { model: String, why: String },
    #[error("the model failed: {0}")]
    Run(String),
}

/// A loaded model. Scores one batch at a time.
pub struct Engine {
    card: ModelCard,
    session: Session,
    provider: &'static str,
    fallback: Option<String>,
    batch_size: usize,
    input: Vec<f32>,
}

/// What others may know of the engine while it is at work.
#[derive(Debug, Clone)]
pub struct EngineInfo {
    pub card: ModelCard,
    /// As ONNX Runtime names it, e.g. `CPUExecutionProvider`.
    pub provider: &'static str,
    /// Why a better provider does not run, where `inference.device = "auto"` fell back.
    pub fallback: Option<String>,
    pub batch_size: usize,
}

impl EngineInfo {
    /// Says in the metrics whether this model runs, and as what: `verdict` or `shadow`.
    pub fn note_running(&self, role: &'static str, runs: bool) {
        let labels = [
            ("role", role.to_owned()),
            ("model", self.card.name.clone()),
            ("version", self.card.version.clone()),
            ("sha256", self.card.sha256.clone()),
            ("provider", self.provider.to_owned()),
        ];
        metrics::gauge!("triaged_model_info", &labels).set(if runs { 1.0 } else { 0.0 });
    }
}

impl Engine {
    /// Loads library, card and model, chooses the provider, and runs the model once. Takes seconds; blocks.
    pub fn load(settings: &config::Inference) -> Result<Engine, EngineError> {
        let (card, model) = ModelCard::load(&assets::model_card(&settings.model))?;
        let environment = environment(&assets::onnxruntime(&settings.onnxruntime))?;
        let candidates: &[Device] = match settings.device {
            Device::Auto => &[Device::Cuda, Device::Cpu],
            Device::Cuda => &[Device::Cuda],
            Device::Tensorrt => &[Device::Tensorrt],
            Device::Cpu => &[Device::Cpu],
        };
        let mut fallback = None;
        for &device in candidates {
            let began = Instant::now();
            match Engine::on(device, &environment, settings, &card, &model) {
                Ok(mut engine) => {
                    engine.fallback = fallback;
                    info!(
                        model = engine.card.name,
                        version = engine.card.version,
                        sha256 = engine.card.sha256,
                        provider = engine.provider,
                        batch_size = engine.batch_size,
                        seconds = format!("{:.1}", began.elapsed().as_secs_f64()),
                        "model ready"
                    );
                    return Ok(engine);
                }
                Err(error) if settings.device == Device::Auto && device != Device::Cpu => {
                    let why = first_line(&error.to_string());
                    warn!("inference.device = \"auto\" falls back to the CPU: {why}");
                    fallback = Some(why);
                }
                Err(error) => return Err(error),
            }
        }
        unreachable!("the last candidate returns either way")
    }

    fn on(
        device: Device,
        environment: &Environment,
        settings: &config::Inference,
        card: &ModelCard,
        model: &[u8],
    ) -> Result<Engine, EngineError> {
        let (provider, dispatch, name): (_, Option<ExecutionProviderDispatch>, _) = match device {
            Device::Cpu | Device::Auto => ("CPUExecutionProvider", None, "cpu"),
            Device::Cuda => {
                let cuda = ep::CUDA::default().with_device_id(settings.gpu).build().error_on_failure();
                ("CUDAExecutionProvider", Some(cuda), "cuda")
            }
            Device::Tensorrt => {
                let tensorrt = ep::TensorRT::default().with_device_id(settings.gpu).build().error_on_failure();
                ("TensorrtExecutionProvider", Some(tensorrt), "tensorrt")
            }
        };
        let on_gpu = dispatch.is_some();
        let wrong = |why: String| match on_gpu {
            true => EngineError::Device { device: name, why: first_line(&why) },
            false => EngineError::Model { model: card.name.clone(), why: first_line(&why) },
        };
        let session = session(environment, dispatch, settings.threads, model).map_err(|e| wrong(e.to_string()))?;
        for (what, named, has) in [
            ("input", &card.input, session.inputs().iter().any(|i| i.name() == card.input)),
            ("output", &card.output, session.outputs().iter().any(|o| o.name() == card.output)),
        ] {
            if !has {
                return Err(EngineError::Model {
                    model: card.name.clone(),
                    why: format!("the card names the {what} {named:?}, the graph has none of that name"),
                });
            }
        }
        let batch_size = match settings.batch_size {
            0 if on_gpu => GPU_BATCH,
            0 => CPU_BATCH,
            n => n,
        };
        let mut engine =
            Engine { card: card.clone(), session, provider, fallback: None, batch_size, input: Vec::new() };
        // Memory is claimed and kernels are chosen at the first run, not while a patient waits. The smallest and the
        // largest batch are different shapes to a GPU.
        for size in [1, batch_size] {
            engine.score_blank(size).map_err(|error| wrong(error.to_string()))?;
        }
        Ok(engine)
    }

    /// Whether the model scores a blank slice: tells a lost GPU from a slice that is to blame.
    pub fn still_runs(&mut self) -> bool {
        self.score_blank(1).is_ok()
    }

    fn score_blank(&mut self, size: usize) -> Result<(), EngineError> {
        let shape = self.card.transform.shape();
        let blank = Tensor { shape, data: vec![0.0; shape.iter().product()] };
        self.score(&vec![&blank; size]).map(drop)
    }

    /// The probability of the finding for each slice, 0 to 1.
    pub fn score(&mut self, slices: &[&Tensor]) -> Result<Vec<f64>, EngineError> {
        let run = |error: ort::Error| EngineError::Run(first_line(&error.to_string()));
        let [channels, height, width] = self.card.transform.shape();
        self.input.clear();
        for slice in slices {
            assert_eq!(slice.shape, [channels, height, width], "tensors are made by the card's own transform");
            self.input.extend_from_slice(&slice.data);
        }
        let input =
            TensorRef::from_array_view(([slices.len(), channels, height, width], &self.input[..])).map_err(run)?;
        let outputs = self.session.run(ort::inputs![self.card.input.as_str() => input]).map_err(run)?;
        let (_, probabilities) = outputs[self.card.output.as_str()].try_extract_tensor::<f32>().map_err(run)?;
        if probabilities.len() != slices.len() {
            return Err(EngineError::Run(format!("{} values came for {} slices", probabilities.len(), slices.len())));
        }
        if let Some(wrong) = probabilities.iter().find(|p| !(0.0..=1.0).contains(*p)) {
            return Err(EngineError::Run(format!("{wrong} is not a probability")));
        }
        Ok(probabilities.iter().map(|p| f64::from(*p)).collect())
    }

    pub fn info(&self) -> EngineInfo {
        EngineInfo {
            card: self.card.clone(),
            provider: self.provider,
            fallback: self.fallback.clone(),
            batch_size: self.batch_size,
        }
    }
}

/// A session, made on a thread that stands back: ONNX Runtime's own threads are started with it and inherit its priority.
fn session(
    environment: &Environment,
    dispatch: Option<ExecutionProviderDispatch>,
    threads: usize,
    model: &[u8],
) -> ort::Result<Session> {
    let made = std::thread::scope(|scope| {
        let make = scope.spawn(|| {
            stand_back();
            let mut builder = Session::builder(environment)?.with_optimization_level(GraphOptimizationLevel::All)?;
            // Its threads spin for some 20 ms after a slice by default, longer than the next one takes to come, and so keep the
            // cores from receiving and decoding. Asleep between operators, they cost a model alone some 5 %.
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
    made.unwrap_or_else(|_| Err(ort::Error::new("ONNX Runtime panicked while it loaded the model")))
}

/// ONNX Runtime allows one environment, of one library, in a process.
fn environment(library: &std::path::Path) -> Result<Environment, EngineError> {
    static ENVIRONMENT: Mutex<Option<Environment>> = Mutex::new(None);
    let mut environment = ENVIRONMENT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(environment) = &*environment {
        return Ok(environment.clone());
    }
    let wrong = |why: String| EngineError::Library { path: library.into(), why: first_line(&why) };
    let made = ort::init_from(library)
        .map_err(|error| wrong(error.to_string()))?
        .with_name("triaged")
        .with_telemetry(false)
        .build()
        .map_err(|error| wrong(error.to_string()))?;
    *environment = Some(made.clone());
    Ok(made)
}

/// ONNX Runtime's errors run over many lines; an administrator gets one.
fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().to_owned()
}
