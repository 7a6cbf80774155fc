//! The model, loaded and warmed up in its lanes, with the execution provider that really runs.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;

use ort::environment::Environment;
use ort::ep::{self, ExecutionProviderDispatch};
use tracing::{info, warn};

use super::lane::Lane;
use crate::assets;
use crate::config::{self, Device};
use triaged_model::{CardError, ModelCard};

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

/// A loaded model: lanes, each of which scores one batch at a time, and none of which waits for another.
pub struct Engine {
    info: EngineInfo,
    /// At least one.
    lanes: Vec<Lane>,
}

/// What others may know of the engine while it is at work.
#[derive(Debug, Clone)]
pub struct EngineInfo {
    pub card: ModelCard,
    /// As ONNX Runtime names it, e.g. `CPUExecutionProvider`.
    pub provider: &'static str,
    /// Why a better provider does not run, where `inference.device = "auto"` fell back.
    pub fallback: Option<String>,
    /// Slices scored at once, in all lanes together.
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
                    engine.info.fallback = fallback;
                    let info = &engine.info;
                    info!(
                        model = info.card.name,
                        version = info.card.version,
                        sha256 = info.card.sha256,
                        provider = info.provider,
                        batch_size = info.batch_size,
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
        let lane = |lane| Lane::new(environment, dispatch.clone(), share(lane), batch_size / lanes, card, model);
        let mut lanes = (0..lanes).map(lane).collect::<ort::Result<Vec<Lane>>>().map_err(|e| wrong(e.to_string()))?;
        lanes[0].check().map_err(|why| EngineError::Model { model: card.name.clone(), why })?;
        // Memory is claimed and kernels are chosen at the first run, not while a patient waits.
        for lane in &mut lanes {
            lane.warm_up().map_err(|error| wrong(error.to_string()))?;
        }
        let info = EngineInfo { card: card.clone(), provider, fallback: None, batch_size };
        Ok(Engine { info, lanes })
    }

    /// What scores; each lane belongs on a thread of its own.
    pub(super) fn into_lanes(self) -> Vec<Lane> {
        self.lanes
    }

    pub fn info(&self) -> EngineInfo {
        self.info.clone()
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
    use triaged_imaging::Tensor;

    #[test]
    fn cores_are_shared_out_among_lanes() {
        let mut settings = Settings::load(None, &[]).expect("the defaults").inference;
        settings.model = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/mean/mean.json").into();
        settings.device = Device::Cpu;
        for (threads, batch_size, lanes, batch) in
            [(3, 5, 3, 1), (3, 8, 3, 2), (7, 0, 4, 1), (2, 1, 1, 1), (1, 0, 1, 1)]
        {
            let settings = config::Inference { threads, batch_size, ..settings.clone() };
            let engine = match Engine::load(&settings) {
                Err(error @ EngineError::Library { .. }) => {
                    eprintln!("SKIP cores_are_shared_out_among_lanes: {error}");
                    return;
                }
                engine => engine.expect("an engine"),
            };
            let info = engine.info();
            assert_eq!(info.batch_size, if batch_size == 0 { lanes } else { batch_size });
            let found = engine.into_lanes();
            assert_eq!(found.len(), lanes);
            for mut lane in found {
                assert_eq!(lane.batch_size(), batch);
                // The model's probability is the mean of its input.
                let shape = info.card.transform.shape();
                let mean = |mean| Tensor { shape, data: vec![mean; shape.iter().product()] };
                let slices: Vec<Tensor> = (0..7).map(|i| mean(i as f32 / 8.0)).collect();
                for count in 0..=slices.len() {
                    let scores = lane.score(&slices[..count].iter().collect::<Vec<_>>()).expect("scores");
                    let expected: Vec<f64> = (0..count).map(|i| i as f64 / 8.0).collect();
                    assert!(scores.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{scores:?}");
                    assert_eq!(scores.len(), count);
                }
                // One slice that is refused fails its batch, which the pipeline then scores one by one.
                let broken = mean(f32::NAN);
                assert!(matches!(lane.score(&[&slices[0], &broken]), Err(EngineError::Run(_))));
                assert!(lane.still_runs());
            }
        }
    }
}
