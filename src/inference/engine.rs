//! The model, loaded and warmed up in its lanes, with the execution provider that really runs.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use ort::environment::Environment;
use ort::ep::{self, ExecutionProvider, ExecutionProviderDispatch};
use tracing::{info, warn};

use super::bound::Memory;
use super::error::{EngineError, first_line};
use super::lane::{Lane, NoLane, Plan};
use super::sequence::SequenceSession;
use super::{libraries, tuning};
use crate::assets;
use crate::config::{self, Binding, Device};
use triaged_model::{ModelCard, SeriesNetwork};

/// Slices that TensorRT scores as one batch where `inference.batch_size` is 0: it builds its engine anew, in minutes, for each
/// batch that is larger than those before, so none is measured.
const TENSORRT_BATCH: usize = 16;
/// The largest batch that is measured on a GPU where `inference.batch_size` is 0.
const LARGEST_BATCH: usize = 64;
/// Lanes on a CPU at most, one a thread. Cores that share a slice wait for each other at every layer, those that have one each
/// do not; but each lane has its own copy of the weights and its own activations (m10: 92 MB).
const LANES: usize = 4;

/// A loaded model: lanes, each of which scores one batch at a time, and none of which waits for another.
pub struct Engine {
    info: EngineInfo,
    /// At least one.
    lanes: Vec<Lane>,
    /// Reads whole series, where the card has such a network.
    sequence: Option<Arc<SequenceSession>>,
}

/// Facts about the engine that others may read while it is at work.
#[derive(Debug, Clone)]
pub struct EngineInfo {
    pub card: ModelCard,
    /// As ONNX Runtime names it, e.g. `CPUExecutionProvider`.
    pub provider: &'static str,
    /// Why a better provider does not run, where `inference.device = "auto"` fell back.
    pub fallback: Option<String>,
    /// Slices scored at once, in all lanes together.
    pub batch_size: usize,
    pub lanes: usize,
    /// How batches get to the model, as it was set or, for [`Binding::Auto`], as it was measured to be the fastest.
    pub binding: Binding,
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

/// The card that these settings name, with its sequence network and without loading the network that scores slices: what makes verdicts
/// of scores that are there. Blocks.
///
/// # Errors
/// A card or a sequence network that a node would refuse, too.
pub fn load_judge(settings: &config::Inference) -> Result<(ModelCard, Option<Arc<dyn SeriesNetwork>>), EngineError> {
    let path = assets::model_card(&settings.model);
    let (card, _) = ModelCard::load(&path)?;
    if card.sequence.is_none() {
        return Ok((card, None));
    }
    let environment = environment(&assets::onnxruntime(&settings.onnxruntime))?;
    let sequence = SequenceSession::load(&environment, &card, &path)?;
    Ok((card, sequence.map(|sequence| Arc::new(sequence) as Arc<dyn SeriesNetwork>)))
}

impl Engine {
    /// Loads library, card and model, chooses the provider, and runs the model once. Takes seconds; blocks.
    pub fn load(settings: &config::Inference) -> Result<Engine, EngineError> {
        let path = assets::model_card(&settings.model);
        let (card, model) = ModelCard::load(&path)?;
        let library = assets::onnxruntime(&settings.onnxruntime);
        let environment = environment(&library)?;
        let sequence = SequenceSession::load(&environment, &card, &path)?.map(Arc::new);
        let candidates: &[Device] = match settings.device {
            Device::Auto => &[Device::Cuda, Device::Cpu],
            Device::Cuda => &[Device::Cuda],
            Device::Tensorrt => &[Device::Tensorrt],
            Device::Cpu => &[Device::Cpu],
        };
        let mut fallback = None;
        for &device in candidates {
            let began = Instant::now();
            match Engine::on(device, &environment, &library, settings, &card, &model) {
                Ok(mut engine) => {
                    engine.info.fallback = fallback;
                    engine.sequence = sequence;
                    let info = &engine.info;
                    info!(
                        model = info.card.name,
                        version = info.card.version,
                        sha256 = info.card.sha256,
                        provider = info.provider,
                        batch_size = info.batch_size,
                        lanes = info.lanes,
                        binding = ?info.binding,
                        sequence = info.card.sequence.as_ref().map(|sequence| &sequence.file),
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
        library: &Path,
        settings: &config::Inference,
        card: &ModelCard,
        model: &[u8],
    ) -> Result<Engine, EngineError> {
        let (name, provider) = match device {
            Device::Cpu | Device::Auto => ("cpu", "CPUExecutionProvider"),
            Device::Cuda => ("cuda", ep::CUDA::NAME),
            Device::Tensorrt => ("tensorrt", ep::TensorRT::NAME),
        };
        let dispatch = dispatch(device, settings);
        let on_gpu = dispatch.is_some();
        if on_gpu && !is_built_in(device) {
            return Err(EngineError::Build { device: name, library: library.into() });
        }
        let wrong = |why: String| match on_gpu {
            true => EngineError::Device { device: name, why: with_missing(first_line(&why), library, device) },
            false => EngineError::Model { model: card.name.clone(), why: first_line(&why) },
        };
        let threads = match settings.threads {
            0 => std::thread::available_parallelism().map_or(1, |cores| cores.get()),
            threads => threads,
        };
        // Lanes, and the slices of a lane; 0: to be measured.
        let (lanes, share) = match (device, settings.batch_size) {
            (Device::Cuda, batch_size) => (settings.cuda.lanes.max(1), batch_size),
            (Device::Tensorrt, 0) => (settings.cuda.lanes.max(1), TENSORRT_BATCH),
            (Device::Tensorrt, batch_size) => (settings.cuda.lanes.max(1), batch_size),
            (_, 0) => (threads.min(LANES), 1),
            (_, batch_size) => {
                let lanes = threads.min(LANES).min(batch_size);
                (lanes, batch_size / lanes)
            }
        };
        let plan = |lane| Plan {
            dispatch: dispatch.clone(),
            threads: match on_gpu {
                // ONNX Runtime's own choice, of which little use is made.
                true => settings.threads,
                false => threads / lanes + usize::from(lane < threads % lanes),
            },
            batch_size: if share == 0 { LARGEST_BATCH } else { share },
            padded: device == Device::Cuda,
            memory: match (device, settings.cuda.binding) {
                (Device::Cuda, Binding::Pinned) => Some(Memory::Pinned(settings.gpu)),
                (Device::Cuda, Binding::Graph) => Some(Memory::Graph(settings.gpu)),
                _ => None,
            },
        };
        let lane = |lane| Lane::new(environment, plan(lane), card, model);
        let mut lanes = (0..lanes).map(lane).collect::<Result<Vec<Lane>, NoLane>>().map_err(|error| match error {
            NoLane::Runtime(error) => wrong(error.to_string()),
            NoLane::Graph(why) => EngineError::Model { model: card.name.clone(), why },
        })?;
        let mut binding = if device == Device::Cuda { settings.cuda.binding } else { Binding::Plain };
        if device == Device::Cuda {
            let tuned = tuning::tune(&mut lanes, settings, share == 0).map_err(|error| wrong(error.to_string()))?;
            binding = tuned;
        }
        // Memory is claimed and kernels are chosen at the first run, not while a patient waits.
        for lane in &mut lanes {
            lane.warm_up().map_err(|error| wrong(error.to_string()))?;
        }
        let batch_size = match (on_gpu, settings.batch_size) {
            (false, batch_size) if batch_size > 0 => batch_size,
            _ => lanes.iter().map(Lane::batch_size).sum(),
        };
        let info = EngineInfo { card: card.clone(), provider, fallback: None, batch_size, lanes: lanes.len(), binding };
        Ok(Engine { info, lanes, sequence: None })
    }

    /// The lane that is always there.
    pub(super) fn first_lane(&mut self) -> &mut Lane {
        self.lanes.first_mut().expect("an engine has a lane")
    }

    /// The network that reads whole series; none where the card has none.
    pub fn sequence(&self) -> Option<Arc<dyn SeriesNetwork>> {
        self.sequence.clone().map(|sequence| sequence as Arc<dyn SeriesNetwork>)
    }

    /// The lanes, which score; each belongs on a thread of its own.
    pub(super) fn into_lanes(self) -> Vec<Lane> {
        self.lanes
    }

    pub fn info(&self) -> EngineInfo {
        self.info.clone()
    }
}

/// The execution provider of a GPU; none for a CPU.
fn dispatch(device: Device, settings: &config::Inference) -> Option<ExecutionProviderDispatch> {
    match device {
        Device::Cpu | Device::Auto => None,
        Device::Cuda => {
            let cuda = ep::CUDA::default()
                .with_device_id(settings.gpu)
                .with_tf32(settings.cuda.tf32)
                .with_prefer_nhwc(settings.cuda.channels_last)
                .with_cuda_graph(settings.cuda.binding == Binding::Graph);
            Some(cuda.build().error_on_failure())
        }
        Device::Tensorrt => Some(ep::TensorRT::default().with_device_id(settings.gpu).build().error_on_failure()),
    }
}

/// Whether the library that was loaded has the provider at all. One that does not answer is asked to run, which tells more.
fn is_built_in(device: Device) -> bool {
    match device {
        Device::Cpu | Device::Auto => true,
        Device::Cuda => ep::CUDA::is_available().unwrap_or(true),
        Device::Tensorrt => ep::TensorRT::is_available().unwrap_or(true),
    }
}

/// Names the libraries that a GPU's provider needs and the system's loader does not find: ONNX Runtime names the first at most.
fn with_missing(why: String, library: &Path, device: Device) -> String {
    match libraries::missing(library, device).as_slice() {
        [] => why,
        missing => format!("{why}; the system's loader does not find {} (see docs/gpu.md)", missing.join(", ")),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use triaged_imaging::Tensor;

    fn settings() -> config::Inference {
        let mut settings = Settings::load(None, &[]).expect("the defaults").inference;
        settings.model = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/mean/mean.json").into();
        settings.device = Device::Cpu;
        settings
    }

    /// Batches filled up to few sizes and bound memory, as a GPU has them, here on a CPU in ordinary memory.
    #[test]
    fn a_bound_batch_that_is_filled_up_says_what_a_plain_one_says() {
        let settings = settings();
        let library = assets::onnxruntime("");
        let environment = match environment(&library) {
            Err(error @ EngineError::Library { .. }) => {
                eprintln!("SKIP a_bound_batch_that_is_filled_up_says_what_a_plain_one_says: {error}");
                return;
            }
            environment => environment.expect("an environment"),
        };
        let (card, model) = ModelCard::load(&assets::model_card(&settings.model)).expect("a model");
        let shape = card.transform.shape();
        let slices: Vec<Tensor> =
            (0..13).map(|i| Tensor { shape, data: vec![i as f32 / 16.0; shape.iter().product()] }).collect();
        for memory in [None, Some(Memory::Host)] {
            let plan = Plan { threads: 1, batch_size: 6, padded: true, memory, dispatch: None };
            let lane = Lane::new(&environment, plan, &card, &model);
            let mut lane = lane.ok().expect("a lane");
            assert_eq!(lane.sizes(), [1, 2, 4, 6]);
            lane.warm_up().expect("a run");
            // From many slices to few: what an earlier batch left behind must not be taken for a slice of this one.
            for count in (0..=slices.len()).rev().chain(0..=slices.len()) {
                let scores = lane.score(&slices[..count].iter().collect::<Vec<_>>()).expect("scores");
                let expected: Vec<f64> = (0..count).map(|i| i as f64 / 16.0).collect();
                assert_eq!(scores.len(), count);
                assert!(scores.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{count}: {scores:?}");
            }
            // One slice that is refused fails its batch, and nothing else.
            let broken = Tensor { shape, data: vec![f32::NAN; shape.iter().product()] };
            assert!(matches!(lane.score(&[&slices[0], &broken]), Err(EngineError::Run(_))));
            assert!(lane.still_runs());
            lane.set_batch_size(2);
            assert_eq!(lane.sizes(), [1, 2]);
            assert!(lane.score(&[&slices[3]]).is_ok_and(|scores| (scores[0] - 0.1875).abs() < 1e-5));
        }
    }

    #[test]
    fn cores_are_shared_out_among_lanes() {
        let settings = settings();
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
