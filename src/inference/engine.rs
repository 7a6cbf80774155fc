//! The ONNX Runtime session: one a model, warmed up, with the execution provider that really runs.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;

use ort::environment::Environment;
use ort::ep::{self, ExecutionProviderDispatch};
use tracing::{info, warn};

use super::card::{CardError, ModelCard};
use super::lane::Lane;
use crate::assets;
use crate::config::{self, Device};
use crate::imaging::Tensor;

/// Slices scored at once where `inference.batch_size` is 0: on a GPU in one batch, on a CPU each in a lane of its own, at most
/// so many. Cores that share a slice wait for each other at every layer, those that have one each do not; but each lane
/// has its own copy of the weights and its own activations (m10: 92 MB).
const GPU_BATCH: usize = 16;
const LANES: usize = 4;

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
    /// At least one.
    lanes: Vec<Lane>,
    provider: &'static str,
    fallback: Option<String>,
    batch_size: usize,
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
        let threads = match settings.threads {
            0 => std::thread::available_parallelism().map_or(1, |cores| cores.get()),
            threads => threads,
        };
        let (lanes, batch_size) = match (on_gpu, settings.batch_size) {
            (true, 0) => (1, GPU_BATCH),
            (true, n) => (1, n),
            (false, 0) => (threads.min(LANES), threads.min(LANES)),
            (false, n) => (threads.min(LANES).min(n), n),
        };
        let share = |lane| match on_gpu {
            // ONNX Runtime's own choice, of which little use is made.
            true => settings.threads,
            false => threads / lanes + usize::from(lane < threads % lanes),
        };
        let lane = |lane| Lane::new(environment, dispatch.clone(), share(lane), model);
        let lanes = (0..lanes).map(lane).collect::<ort::Result<Vec<Lane>>>().map_err(|e| wrong(e.to_string()))?;
        lanes[0].check(card).map_err(|why| EngineError::Model { model: card.name.clone(), why })?;
        let mut engine = Engine { card: card.clone(), lanes, provider, fallback: None, batch_size };
        // Memory is claimed and kernels are chosen at the first run, not while a patient waits. The smallest and the
        // largest batch are different shapes to a GPU.
        for size in [1, batch_size] {
            engine.score_blank(size).map_err(|error| wrong(error.to_string()))?;
        }
        Ok(engine)
    }

    /// Whether the model scores a blank slice: tells a lost GPU from a slice that is to blame.
    pub fn still_runs(&mut self) -> bool {
        self.score_blank(self.lanes.len()).is_ok()
    }

    fn score_blank(&mut self, size: usize) -> Result<(), EngineError> {
        let shape = self.card.transform.shape();
        let blank = Tensor { shape, data: vec![0.0; shape.iter().product()] };
        self.score(&vec![&blank; size]).map(drop)
    }

    /// The probability of the finding for each slice, 0 to 1. The slices are shared out among the lanes.
    pub fn score(&mut self, slices: &[&Tensor]) -> Result<Vec<f64>, EngineError> {
        let card = &self.card;
        let share = slices.len().div_ceil(self.lanes.len()).max(1);
        let mut shares = self.lanes.iter_mut().zip(slices.chunks(share));
        let Some((first, own)) = shares.next() else { return Ok(Vec::new()) };
        std::thread::scope(|scope| {
            let mut others = Vec::new();
            for (lane, slices) in shares {
                // The thread stands back as the one that starts it does.
                let started =
                    std::thread::Builder::new().name("lane".into()).spawn_scoped(scope, || lane.score(card, slices));
                others.push(started.map_err(|error| EngineError::Run(format!("no thread could be started: {error}")))?);
            }
            let mut scores = first.score(card, own)?;
            for other in others {
                let panicked = |_| Err(EngineError::Run("ONNX Runtime panicked".into()));
                scores.extend(other.join().unwrap_or_else(panicked)?);
            }
            Ok(scores)
        })
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
pub(super) fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    #[test]
    fn lanes_score_each_slice_in_its_place() {
        let mut settings = Settings::load(None, &[]).expect("the defaults").inference;
        settings.model = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/mean/mean.json").into();
        settings.device = Device::Cpu;
        for (threads, batch_size, lanes) in [(3, 5, 3), (7, 0, 4), (2, 1, 1), (1, 0, 1)] {
            let settings = config::Inference { threads, batch_size, ..settings.clone() };
            let mut engine = match Engine::load(&settings) {
                Err(error @ EngineError::Library { .. }) => {
                    eprintln!("SKIP lanes_score_each_slice_in_its_place: {error}");
                    return;
                }
                engine => engine.expect("an engine"),
            };
            assert_eq!(engine.lanes.len(), lanes);
            assert_eq!(engine.info().batch_size, if batch_size == 0 { lanes } else { batch_size });
            // The model's probability is the mean of its input.
            let shape = engine.card.transform.shape();
            let slices: Vec<Tensor> =
                (0..7).map(|i| Tensor { shape, data: vec![i as f32 / 8.0; shape.iter().product()] }).collect();
            for count in 0..=slices.len() {
                let scores = engine.score(&slices[..count].iter().collect::<Vec<_>>()).expect("scores");
                let expected: Vec<f64> = (0..count).map(|i| i as f64 / 8.0).collect();
                assert!(scores.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{scores:?}");
                assert_eq!(scores.len(), count);
            }
            // What one lane refuses fails the whole batch, which the pipeline then scores one by one.
            let broken = Tensor { shape, data: vec![f32::NAN; shape.iter().product()] };
            let mut batch: Vec<&Tensor> = slices.iter().collect();
            batch.push(&broken);
            assert!(matches!(engine.score(&batch), Err(EngineError::Run(_))));
            assert!(engine.still_runs());
        }
    }
}
