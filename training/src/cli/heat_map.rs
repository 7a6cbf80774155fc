//! `heat-map`: gives a model that was exported before its heat map, and measures where a map points.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use sha2::{Digest, Sha256};
use triaged_model::ModelCard;

use crate::card::MAP;
use crate::data::{Cache, Index, OtherSizes};
use crate::files::write_json;
use crate::heat_map::{self, HEAT_MAP, Pointing};
use crate::progress::Progress;
use crate::runtime::{self, OnnxModel};

#[derive(Clone, Args)]
pub struct HeatMapArgs {
    /// The model's card, NAME.json; its file and NAME.md lie beside it
    #[arg(long)]
    pub card: PathBuf,
    /// Write the model with a heat map, and its cards, into this folder; the card's own is allowed
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Measure how often the map's box hits the blood, on the slices of this folder that have a mask (stage_2_masks)
    #[arg(long, required_unless_present = "out")]
    pub on: Option<PathBuf>,
}

/// Writes the copy, and measures the map.
pub fn do_heat_map(args: &HeatMapArgs) -> anyhow::Result<()> {
    let (card, onnx) = ModelCard::load(&args.card)?;
    let onnx = heat_map::added(&onnx)?;
    if let Some(folder) = &args.out {
        write(&args.card, &card, &onnx, folder)?;
    }
    match &args.on {
        Some(data) => measure(&card, &onnx, data),
        None => Ok(()),
    }
}

fn write(original: &Path, card: &ModelCard, onnx: &[u8], folder: &Path) -> anyhow::Result<()> {
    let text_path = original.with_extension("md");
    let text = std::fs::read_to_string(&text_path).with_context(|| format!("cannot read {}", text_path.display()))?;
    let text = in_text(&text).with_context(|| format!("{} is no card as `export` writes them", text_path.display()))?;
    let sha256 = hex::encode(Sha256::digest(onnx));
    let sequence = card.load_sequence(original)?;
    let card = ModelCard { heat_map: Some(HEAT_MAP.into()), sha256, ..card.clone() };
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let file = folder.join(&card.file);
    std::fs::write(&file, onnx).with_context(|| format!("cannot write {}", file.display()))?;
    let out = |extension: &str| folder.join(&card.file).with_extension(extension);
    if let (Some(sequence), Some(bytes)) = (&card.sequence, sequence) {
        let file = folder.join(&sequence.file);
        std::fs::write(&file, bytes).with_context(|| format!("cannot write {}", file.display()))?;
    }
    std::fs::write(out("md"), text).with_context(|| format!("cannot write {}", out("md").display()))?;
    write_json(&out("json"), &card)?;
    // Read back as the node will: what is refused here would stop a node.
    ModelCard::load(&out("json"))?;
    eprintln!("wrote {}, its cards beside it", file.display());
    Ok(())
}

/// The card for people with the map named where the model is described.
fn in_text(text: &str) -> Option<String> {
    if text.contains(MAP) {
        return Some(text.to_owned());
    }
    let place = text.find("\n\n## Training\n")?;
    let (before, after) = text.split_at(place);
    Some(format!("{before}{MAP}{after}"))
}

fn measure(card: &ModelCard, onnx: &[u8], data: &Path) -> anyhow::Result<()> {
    runtime::check()?;
    let index = Index::read_sized(data, OtherSizes::Resize)?;
    let masked: Vec<_> = index.slices.iter().filter_map(|slice| Some((slice, slice.mask.as_ref()?))).collect();
    anyhow::ensure!(!masked.is_empty(), "{} has no masks (stage_2_masks/ID_xxx.pbm) beside its slices", data.display());
    let cache = Cache::new(card.transform.clone(), None)?;
    let [channels, height, width] = cache.shape();
    let mut model = OnnxModel::load(onnx)?;
    let mut pointing = Pointing::default();
    let mut progress = Progress::new("where the map points", masked.len());
    for (slice, mask) in &masked {
        let image = cache.input(&slice.file)?;
        let shape = [1, channels, height, width];
        let probability = model.output(&image, shape)?.first().copied().context("the model says nothing")?;
        let map = model.output_named(HEAT_MAP, &image, shape)?.context("the model has no heat map")?;
        let [_, rows, columns] = map.shape[..] else { anyhow::bail!("the heat map has another shape than it should") };
        let blood = cache.mask(&slice.file, mask)?;
        let is_positive = f64::from(probability) >= card.slice_threshold;
        pointing.count(is_positive, &map.values, [rows as usize, columns as usize], &blood, width);
        progress.advance(1, "");
    }
    progress.finish("");
    println!("{}", pointing.text());
    Ok(())
}
