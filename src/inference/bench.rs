//! The model measured alone, by the code that runs it in the node: the same sessions, batches and memory, without receiving,
//! queue and ledger.

use std::path::PathBuf;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::engine::Engine;
use super::error::EngineError;
use super::lane::Lane;
use crate::config::{Binding, Inference};
use triaged_imaging::{ImagingError, ReadError, Tensor, model_input, read_file};

/// The measurement that was asked for, beside the settings.
pub struct Bench {
    /// DICOM files, of which the first frames are scored.
    pub files: Vec<PathBuf>,
    /// How long full batches are scored in all lanes, and how long batches of each size in one lane.
    pub time: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("{path} {source}")]
    Read { path: PathBuf, source: ReadError },
    #[error("{path} cannot be a model's input: {source}")]
    Input { path: PathBuf, source: ImagingError },
    #[error("there are no slices to score")]
    NoSlices,
}

/// The measurement's results. Times are in milliseconds.
#[derive(Debug, Serialize)]
pub struct Measured {
    pub model: String,
    pub sha256: String,
    /// The execution provider that really ran, and why no better one did.
    pub provider: String,
    pub fallback: Option<String>,
    pub binding: Binding,
    pub lanes: usize,
    /// Slices of a lane's batch.
    pub batch: usize,
    pub load_seconds: f64,
    pub batches: usize,
    pub batch_ms: f64,
    pub batch_ms_95th: f64,
    /// In all lanes together.
    pub slices_a_second: f64,
    /// One lane alone with batches of each size that it runs, the first of one slice.
    pub sizes: Vec<Size>,
    pub decode: Decode,
    /// A probability for each file in its order, each scored in a batch with others.
    pub probabilities: Vec<f64>,
}

/// A batch of so many slices, from tensors to probabilities.
#[derive(Debug, Serialize)]
pub struct Size {
    pub slices: usize,
    pub ms: f64,
    pub ms_95th: f64,
    pub slices_a_second: f64,
}

/// From files, which the system has in memory, to tensors.
#[derive(Debug, Serialize)]
pub struct Decode {
    pub threads: usize,
    pub slices_a_second: f64,
    /// With one thread alone.
    pub slices_a_second_one_thread: f64,
}

/// Loads the model as a node with these settings would, scores the slices over and over, and says how fast that was.
pub fn bench(settings: &Inference, bench: &Bench) -> Result<Measured, BenchError> {
    if bench.files.is_empty() {
        return Err(BenchError::NoSlices);
    }
    let began = Instant::now();
    let engine = Engine::load(settings)?;
    let load_seconds = began.elapsed().as_secs_f64();
    let info = engine.info();
    let transform = &info.card.transform;
    let decode = |path: &PathBuf| {
        let object = read_file(path).map_err(|source| BenchError::Read { path: path.clone(), source })?;
        model_input(&object, 0, transform).map_err(|source| BenchError::Input { path: path.clone(), source })
    };
    let tensors = bench.files.iter().map(decode).collect::<Result<Vec<Tensor>, BenchError>>()?;
    let threads = match settings.decode_threads {
        0 => std::thread::available_parallelism().map_or(1, |cores| cores.get()),
        threads => threads,
    };
    let decodes =
        |threads| rate(threads, bench.time / 4, |turn| decode(&bench.files[turn % bench.files.len()]).is_ok());
    let decode = Decode { threads, slices_a_second_one_thread: decodes(1), slices_a_second: decodes(threads) };

    let mut lanes = engine.into_lanes();
    let (batch, count) = (lanes[0].batch_size(), lanes.len());
    let mut probabilities = Vec::with_capacity(tensors.len());
    for slices in tensors.chunks(batch) {
        probabilities.extend(lanes[0].score(&slices.iter().collect::<Vec<_>>())?);
    }
    let measured_sizes = lanes[0].sizes();
    let share = bench.time / measured_sizes.len() as u32;
    let mut sizes = Vec::with_capacity(measured_sizes.len());
    for slices in measured_sizes {
        let times = score_for(&mut lanes[0], &tensors, slices, share)?;
        let ms = quantile(&times, 0.5);
        let slices_a_second = slices as f64 * 1000.0 / ms;
        sizes.push(Size { slices, ms, ms_95th: quantile(&times, 0.95), slices_a_second });
    }
    // All lanes at once, each on a thread of its own, as in the node.
    let ready = Barrier::new(count);
    let (times, seconds) = std::thread::scope(|scope| {
        let run = |mut lane: Lane| {
            let (ready, tensors) = (&ready, &tensors);
            scope.spawn(move || {
                // State that belongs to a thread, such as recorded launches, is made anew on this one.
                let warm = lane.warm_up();
                ready.wait();
                warm?;
                let began = Instant::now();
                let times = score_for(&mut lane, tensors, batch, bench.time)?;
                Ok::<_, EngineError>((times, began.elapsed().as_secs_f64()))
            })
        };
        let lanes: Vec<_> = lanes.drain(..).map(run).collect();
        let (mut all, mut longest) = (Vec::new(), 0.0_f64);
        for lane in lanes {
            let (times, seconds) =
                lane.join().map_err(|_| EngineError::Run("a lane panicked; this is a bug".into()))??;
            all.extend(times);
            longest = longest.max(seconds);
        }
        Ok::<_, EngineError>((all, longest))
    })?;
    Ok(Measured {
        model: info.card.name.clone(),
        sha256: info.card.sha256.clone(),
        provider: info.provider.into(),
        fallback: info.fallback.clone(),
        binding: info.binding,
        lanes: count,
        batch,
        load_seconds,
        batches: times.len(),
        batch_ms: quantile(&times, 0.5),
        batch_ms_95th: quantile(&times, 0.95),
        slices_a_second: (times.len() * batch) as f64 / seconds,
        sizes,
        decode,
        probabilities,
    })
}

/// Scores batches until the time is over, at least three; returns how long each took.
fn score_for(lane: &mut Lane, tensors: &[Tensor], batch: usize, time: Duration) -> Result<Vec<Duration>, EngineError> {
    let began = Instant::now();
    let mut times = Vec::new();
    // Other slices each time: one batch over and over would be in the caches.
    let mut slices = tensors.iter().cycle();
    while began.elapsed() < time || times.len() < 3 {
        let slices: Vec<&Tensor> = slices.by_ref().take(batch).collect();
        let began = Instant::now();
        lane.score(&slices)?;
        times.push(began.elapsed());
    }
    Ok(times)
}

/// How often a second threads get something done; each turn has a number of its own.
fn rate(threads: usize, time: Duration, work: impl Fn(usize) -> bool + Sync) -> f64 {
    let (turns, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while began.elapsed() < time {
                    if work(turns.fetch_add(1, Ordering::Relaxed)) {
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    done.into_inner() as f64 / began.elapsed().as_secs_f64()
}

/// In milliseconds.
fn quantile(times: &[Duration], share: f64) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let place = ((sorted.len() as f64 - 1.0) * share).round() as usize;
    sorted.get(place).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_sorted_times() {
        let times: Vec<Duration> = [5, 1, 4, 2, 3].map(Duration::from_millis).into();
        assert_eq!((quantile(&times, 0.0), quantile(&times, 0.5), quantile(&times, 1.0)), (1.0, 3.0, 5.0));
        assert!(quantile(&[], 0.5).is_nan());
    }
}
