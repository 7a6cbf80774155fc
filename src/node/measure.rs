//! Measures the node minute by minute, for the plots of the node page.

use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::archive::Archive;
use crate::ledger::{Ledger, Measurement, Queue, Result, SliceTimes, format_time};

/// How often it is measured.
const EVERY: Duration = Duration::from_secs(60);

/// Slices of a minute that are looked at, at most: the newest.
const MOST_SLICES: u32 = 5000;

/// Measures until `stop`, for the first time at once.
pub(super) async fn run(ledger: Ledger, archive: Archive, stop: CancellationToken) {
    let mut since = format_time(Timestamp::now());
    loop {
        let (reader, archive, before) = (ledger.clone(), archive.clone(), since.clone());
        let measured = tokio::task::spawn_blocking(move || measure(&reader, &archive, &before)).await;
        let noted = match measured {
            Ok(Ok(measurement)) => {
                since.clone_from(&measurement.at);
                ledger.note_measurement(measurement).await
            }
            Ok(Err(error)) => Err(error),
            Err(_) => return,
        };
        if let Err(error) = noted {
            warn!("the node cannot be measured for its page: {error}");
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = stop.cancelled() => return,
        }
    }
}

fn measure(ledger: &Ledger, archive: &Archive, since: &str) -> Result<Measurement> {
    let at = format_time(Timestamp::now());
    let times = ledger.newest_slice_times(MOST_SLICES)?;
    let mut seconds: Vec<f64> =
        times.iter().filter(|slice| slice.scored_at.as_str() >= since).filter_map(SliceTimes::seconds).collect();
    seconds.sort_by(f64::total_cmp);
    let quantile = |share: f64| seconds.get(((seconds.len().max(1) - 1) as f64 * share).round() as usize).copied();
    Ok(Measurement {
        at,
        waiting: ledger.queue_depth()?,
        free_bytes: archive.free_bytes().ok(),
        slices: seconds.len() as u64,
        median_seconds: quantile(0.5),
        most_seconds: quantile(0.95),
    })
}
