//! Measurements at start that decide how batches get to a GPU, and how large they are.

use std::time::{Duration, Instant};

use tracing::{debug, info};

use super::bound::Memory;
use super::error::EngineError;
use super::lane::{Lane, ladder};
use crate::config::{self, Binding};

/// Runs of which the median counts.
const RUNS: usize = 7;

/// Chooses binding and, where `measure_batch`, the lanes' batch size; returns the binding that runs. All lanes get what the
/// first is measured with: they are alike.
///
/// # Errors
/// A GPU that does not score one blank slice.
pub(super) fn tune(
    lanes: &mut [Lane],
    settings: &config::Inference,
    measure_batch: bool,
) -> Result<Binding, EngineError> {
    let Some((first, others)) = lanes.split_first_mut() else { return Ok(settings.cuda.binding) };
    if measure_batch {
        let target = Duration::from_secs_f64(settings.cuda.batch_ms / 1000.0);
        let sizes = ladder(first.batch_size());
        let batch_size = largest_within(&sizes, target, |size| time_of(first, size))?;
        info!(batch_size, target_ms = settings.cuda.batch_ms, "batch size measured");
        first.set_batch_size(batch_size);
    }
    let mut binding = settings.cuda.binding;
    let mut memory = None;
    if binding == Binding::Auto {
        let size = first.batch_size();
        let plain = time_of(first, size)?;
        first.set_memory(Some(Memory::Pinned(settings.gpu)));
        // A card or a library that cannot do this can do without.
        let pinned = time_of(first, size);
        debug!(?plain, ?pinned, size, "bindings measured");
        (binding, memory) = match pinned {
            Ok(pinned) if pinned < plain => (Binding::Pinned, Some(Memory::Pinned(settings.gpu))),
            Ok(_) => (Binding::Plain, None),
            Err(error) => {
                info!("page-locked memory is not used: {error}");
                (Binding::Plain, None)
            }
        };
        first.set_memory(memory);
    }
    let batch_size = first.batch_size();
    for lane in others {
        lane.set_batch_size(batch_size);
        if settings.cuda.binding == Binding::Auto {
            lane.set_memory(memory);
        }
    }
    Ok(binding)
}

/// The median time of a batch, the first runs left out: they choose kernels and claim memory.
fn time_of(lane: &mut Lane, size: usize) -> Result<Duration, EngineError> {
    for _ in 0..3 {
        lane.score_blank(size)?;
    }
    let mut times = Vec::with_capacity(RUNS);
    for _ in 0..RUNS {
        let began = Instant::now();
        lane.score_blank(size)?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    Ok(times[RUNS / 2])
}

/// The largest of ascending sizes that takes no longer than `target`; the smallest, where none does. A size that fails, for
/// want of memory say, ends the search.
fn largest_within<E: std::fmt::Display>(
    sizes: &[usize],
    target: Duration,
    mut time_of: impl FnMut(usize) -> Result<Duration, E>,
) -> Result<usize, E> {
    let mut largest = sizes.first().copied().unwrap_or(1);
    time_of(largest)?;
    for &size in sizes.iter().skip(1) {
        match time_of(size) {
            Ok(time) if time <= target => largest = size,
            Ok(_) => break,
            Err(error) => {
                info!(size, "this batch does not run, smaller ones do: {error}");
                break;
            }
        }
    }
    Ok(largest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_batch_within_the_target_is_taken() {
        let ms = |size: usize| Ok::<_, String>(Duration::from_millis(2 + size as u64));
        let sizes = [1, 2, 4, 8, 16];
        for (target, expected) in [(0, 1), (3, 1), (4, 2), (12, 8), (17, 8), (18, 16), (1000, 16)] {
            assert_eq!(largest_within(&sizes, Duration::from_millis(target), ms), Ok(expected), "{target} ms");
        }
    }

    #[test]
    fn a_batch_that_does_not_fit_ends_the_search_and_a_gpu_that_runs_nothing_is_an_error() {
        let fits =
            |most: usize| move |size: usize| if size <= most { Ok(Duration::ZERO) } else { Err("out of memory") };
        let second = Duration::from_secs(1);
        assert_eq!(largest_within(&[1, 2, 4, 8], second, fits(4)), Ok(4));
        assert_eq!(largest_within(&[1, 2, 4, 8], second, fits(0)), Err("out of memory"));
    }
}
