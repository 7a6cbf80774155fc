//! Slices scored by a network, and the file that keeps their scores.

use std::path::Path;

use anyhow::Context;
use triaged_kernels::ConvBackend;

use crate::data::{Cache, Draw, Slice};
use crate::evaluate::Study;
use crate::fit::{FitConfig, Scores, draw, predict_both};
use crate::network::Network;

/// Scores slices, and their mirror images where the configuration asks for them.
pub fn score_slices<B: ConvBackend>(
    network: &Network<B>,
    config: &FitConfig,
    slices: &[&Slice],
    cache: &Cache,
    what: &str,
    device: &B::Device,
) -> anyhow::Result<Scores> {
    let draws: Vec<Draw> = slices.iter().map(|slice| draw(slice, None)).collect();
    Ok(predict_both(network, draws, cache, config.batch, what, config.test_time_flip, device)?)
}

/// The studies with each slice scored as the mean of itself and its mirror image, where mirror images were scored.
pub fn flipped_studies(slices: &[&Slice], scores: &Scores) -> Option<Vec<Study>> {
    let mirrored = scores.mirrored.as_ref()?;
    let means: Vec<f64> = scores.plain.iter().zip(mirrored).map(|(plain, mirrored)| (plain + mirrored) / 2.0).collect();
    Some(Study::group(slices, &means))
}

/// The columns of a `scores.csv`; the last is empty where mirror images were not scored.
const SCORES: [&str; 7] = ["side", "source", "patient", "id", "label", "probability", "mirrored"];

/// A new `scores.csv`.
pub fn scores_file(folder: &Path) -> anyhow::Result<csv::Writer<std::fs::File>> {
    let mut rows = csv::Writer::from_path(folder.join("scores.csv")).context("cannot write scores.csv")?;
    rows.write_record(SCORES)?;
    Ok(rows)
}

/// A row a slice, with the network's own probability, not calibrated; `side` names the side or fold that it stands on.
pub fn write_scores<W: std::io::Write>(
    rows: &mut csv::Writer<W>,
    side: &str,
    slices: &[&Slice],
    scores: &Scores,
) -> anyhow::Result<()> {
    for (i, (slice, score)) in slices.iter().zip(&scores.plain).enumerate() {
        let label = if slice.positive { "1" } else { "0" };
        let mirrored = scores.mirrored.as_ref().map_or(String::new(), |mirrored| mirrored[i].to_string());
        rows.write_record([side, &slice.source, &slice.patient, &slice.id, label, &score.to_string(), &mirrored])?;
    }
    Ok(())
}
