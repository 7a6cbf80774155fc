//! `half`: a half-precision copy of an exported model, for GPUs, with what the rounding costs stated in its cards.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use sha2::{Digest, Sha256};
use triaged_model::ModelCard;

use crate::data::{Cache, Index, OtherSizes};
use crate::evaluate::ROUNDS;
use crate::files::write_json;
use crate::half::{Halved, LARGEST_MOVE, halved, rounded};
use crate::metrics::{Case, auc, auc_difference};
use crate::progress::Progress;
use crate::runtime::{self, OnnxModel};

/// Seed of the bootstrap.
const SEED: u64 = 2019;

#[derive(Clone, Args)]
pub struct HalfArgs {
    /// The float32 model's card, NAME.json; its file and NAME.md lie beside it
    #[arg(long)]
    pub card: PathBuf,
    /// Slices that both are compared on: a folder with stage_2_train.csv and stage_2_train/*.dcm
    #[arg(long)]
    pub data: PathBuf,
    /// Folder of model and cards
    #[arg(long)]
    pub out: PathBuf,
    /// The copy's name [default: NAME-fp16]
    #[arg(long)]
    pub name: Option<String>,
}

/// Writes the copy and its cards, unless it moves the slice AUC too far.
pub fn do_half(args: &HalfArgs) -> anyhow::Result<()> {
    runtime::check()?;
    let (card, onnx) = ModelCard::load(&args.card)?;
    let name = args.name.clone().unwrap_or_else(|| format!("{}-fp16", card.name));
    if name.is_empty() || name.contains(['/', '.']) {
        bail!("--name {name}: a name such as m11-fp16");
    }
    let index = Index::read_sized(&args.data, OtherSizes::Resize)?;
    let copy = halved(&onnx)?;
    let figures = compare(&card, &onnx, &index)?;
    let moved = figures.slice_auc_difference.value.abs();
    if moved.is_nan() || moved >= LARGEST_MOVE {
        bail!("the slice AUC moves by {moved:.4} in half precision, {LARGEST_MOVE} or more: no copy is written");
    }
    println!("{}", figures.text());
    write(&args.card, card, name, &copy, &figures, &args.out)
}

/// Both graphs on each slice, in ONNX Runtime on the processor.
fn compare(card: &ModelCard, onnx: &[u8], index: &Index) -> anyhow::Result<Halved> {
    let cache = Cache::new(card.transform.clone(), None)?;
    let [channels, height, width] = cache.shape();
    let (mut float, mut half) = (OnnxModel::load(onnx)?, OnnxModel::load(&rounded(onnx)?)?);
    let mut patients: BTreeMap<&str, Vec<(Case, Case)>> = BTreeMap::new();
    let mut progress = Progress::new("both precisions", index.slices.len());
    for slice in &index.slices {
        let image = cache.input(&slice.file)?;
        let said = |model: &mut OnnxModel| -> anyhow::Result<Case> {
            let probability = model.output(&image, [1, channels, height, width])?;
            let score = f64::from(*probability.first().context("the model says nothing")?);
            Ok(Case { score, positive: slice.positive })
        };
        let pair = (said(&mut half)?, said(&mut float)?);
        patients.entry(&slice.patient).or_default().push(pair);
        progress.advance(1, "");
    }
    progress.finish("");
    let patients: Vec<Vec<(Case, Case)>> = patients.into_values().collect();
    let pairs: Vec<(Case, Case)> = patients.concat();
    let float: Vec<Case> = pairs.iter().map(|(_, float)| *float).collect();
    let differences: Vec<f64> = pairs.iter().map(|(half, float)| (half.score - float.score).abs()).collect();
    let classes = "the slices are of one class only: the AUC needs both";
    let answer = |case: &Case| case.score >= card.slice_threshold;
    Ok(Halved {
        of: card.name.clone(),
        of_sha256: card.sha256.clone(),
        source: index.slices.first().map(|slice| slice.source.clone()).context("there are no slices")?,
        slices: pairs.len(),
        positive: float.iter().filter(|case| case.positive).count(),
        patients: patients.len(),
        float_slice_auc: auc(&float).context(classes)?,
        slice_auc_difference: auc_difference(&patients, ROUNDS, SEED).context(classes)?,
        // `max` would pass over what is not a number.
        largest_difference: differences.iter().copied().fold(0.0, |most, d| if d <= most { most } else { d }),
        mean_difference: differences.iter().sum::<f64>() / differences.len() as f64,
        answers_changed: pairs.iter().filter(|(half, float)| answer(half) != answer(float)).count(),
    })
}

fn write(
    original: &Path,
    card: ModelCard,
    name: String,
    onnx: &[u8],
    figures: &Halved,
    folder: &Path,
) -> anyhow::Result<()> {
    let text_path = original.with_extension("md");
    let text = std::fs::read_to_string(&text_path).with_context(|| format!("cannot read {}", text_path.display()))?;
    let text = in_text(&text, &card.name, &name, figures)
        .with_context(|| format!("{} is no card as `export` writes them", text_path.display()))?;
    let mut about = card.about.clone();
    let fields = about.as_object_mut().with_context(|| format!("{} has no `about`", original.display()))?;
    fields.insert("half".into(), serde_json::to_value(figures)?);
    let sha256 = hex::encode(Sha256::digest(onnx));
    // The copy's scores are the original's but for roundings, so its series are read by the same network.
    let sequence = card.load_sequence(original)?;
    let card = ModelCard { file: format!("{name}.onnx"), sha256, name: name.clone(), about, ..card };
    let out = |extension: &str| folder.join(format!("{name}.{extension}"));
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    std::fs::write(out("onnx"), onnx).with_context(|| format!("cannot write {}", out("onnx").display()))?;
    if let (Some(named), Some(bytes)) = (&card.sequence, sequence) {
        let file = folder.join(&named.file);
        std::fs::write(&file, bytes).with_context(|| format!("cannot write {}", file.display()))?;
    }
    write_json(&out("json"), &card)?;
    std::fs::write(out("md"), text).with_context(|| format!("cannot write {}", out("md").display()))?;
    // Read back as the node will: what is refused here would stop a node.
    ModelCard::load(&out("json"))?;
    eprintln!("wrote {}, its cards beside it", out("onnx").display());
    Ok(())
}

/// The original's card for people, with the copy's name and what it costs put where the model is described.
fn in_text(text: &str, of: &str, name: &str, figures: &Halved) -> Option<String> {
    const MODEL: &str = "## The model\n\n";
    let rest = text.strip_prefix(&format!("# {of},"))?;
    let place = rest.find(MODEL)? + MODEL.len();
    let (before, after) = rest.split_at(place);
    Some(format!("# {name},{before}{}\n\n{after}", figures.text()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Interval;

    #[test]
    fn the_card_for_people_says_what_the_copy_costs_before_all_figures() {
        let difference = Interval { value: 0.0001, low: -0.0002, high: 0.0003 };
        let figures = Halved {
            of: "m11".into(),
            of_sha256: "0".repeat(64),
            source: "ct-ich".into(),
            slices: 100,
            positive: 10,
            patients: 5,
            float_slice_auc: 0.9,
            slice_auc_difference: difference,
            largest_difference: 0.01,
            mean_difference: 0.001,
            answers_changed: 1,
        };
        let text =
            in_text("# m11, version 2\n\n## The model\n\nA network.\n", "m11", "m11-fp16", &figures).expect("a card");
        assert!(
            text.starts_with("# m11-fp16, version 2\n\n## The model\n\nThis is a half-precision copy (float16) of m11")
        );
        assert!(
            text.contains("differs by +0.00010 (-0.00020 to +0.00030)") && text.ends_with("\n\nA network.\n"),
            "{text}"
        );
        assert_eq!(in_text("# another, version 2\n", "m11", "m11-fp16", &figures), None);
    }
}
