//! Copies of an exported model in another precision: compared with it, and written with cards that say what the copy costs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};
use triaged_model::ModelCard;

use super::trainings::check_name;
use crate::comparison::Comparison;
use crate::data::{Cache, Slice};
use crate::evaluate::ROUNDS;
use crate::files::write_json;
use crate::metrics::{Case, auc, auc_difference};
use crate::progress::Progress;
use crate::runtime::OnnxModel;

/// Seed of the bootstrap, and of samples.
pub const SEED: u64 = 2019;

/// The model that a copy is made of.
///
/// # Errors
/// A card that cannot be read, or one of a copy: what a second rounding costs would be stated of the first.
pub fn original(card: &Path) -> anyhow::Result<(ModelCard, Vec<u8>)> {
    let (read, onnx) = ModelCard::load(card)?;
    for (field, what) in [("quantized", "an eight-bit"), ("half", "a half-precision")] {
        if !read.about[field].is_null() {
            bail!("{} is {what} copy already: name the card of the model that it was made of", card.display());
        }
    }
    Ok((read, onnx))
}

/// The model with this card, as the files `original` and `copy`, on each slice of one folder, in ONNX Runtime on the processor. Decoded slices
/// are kept in the folder `kept`, where one is named.
pub fn compare(
    card: &ModelCard,
    original: &[u8],
    copy: &[u8],
    slices: &[&Slice],
    kept: Option<PathBuf>,
) -> anyhow::Result<Comparison> {
    let cache = Cache::new(card.transform.clone(), kept)?;
    let [channels, height, width] = cache.shape();
    let (mut original, mut copy) = (OnnxModel::load(original)?, OnnxModel::load(copy)?);
    let mut patients: BTreeMap<&str, Vec<(Case, Case)>> = BTreeMap::new();
    let mut progress = Progress::new("both precisions", slices.len());
    for slice in slices {
        let image = cache.input(&slice.file)?;
        let said = |model: &mut OnnxModel| -> anyhow::Result<Case> {
            let probability = model.output(&image, [1, channels, height, width])?;
            let score = f64::from(*probability.first().context("the model says nothing")?);
            Ok(Case { score, positive: slice.positive })
        };
        let pair = (said(&mut copy)?, said(&mut original)?);
        patients.entry(&slice.patient).or_default().push(pair);
        progress.advance(1, "");
    }
    progress.finish("");
    let patients: Vec<Vec<(Case, Case)>> = patients.into_values().collect();
    let pairs: Vec<(Case, Case)> = patients.concat();
    let float: Vec<Case> = pairs.iter().map(|(_, float)| *float).collect();
    let differences: Vec<f64> = pairs.iter().map(|(copy, float)| (copy.score - float.score).abs()).collect();
    let classes = "the slices are of one class only: the AUC needs both";
    let answer = |case: &Case| case.score >= card.slice_threshold;
    let source = slices.first().map(|slice| slice.source.clone()).context("there are no slices")?;
    Ok(Comparison {
        was_trained_on: names_source(card, &source),
        source,
        slices: pairs.len(),
        positive: float.iter().filter(|case| case.positive).count(),
        patients: patients.len(),
        float_slice_auc: auc(&float).context(classes)?,
        slice_auc_difference: auc_difference(&patients, ROUNDS, SEED).context(classes)?,
        // `max` would pass over what is not a number.
        largest_difference: differences.iter().copied().fold(0.0, |most, d| if d <= most { most } else { d }),
        mean_difference: differences.iter().sum::<f64>() / differences.len() as f64,
        answers_changed: pairs.iter().filter(|(copy, float)| answer(copy) != answer(float)).count(),
    })
}

/// Whether a card names a folder of this name among the data of its model.
pub fn names_source(card: &ModelCard, source: &str) -> bool {
    card.about["data"].as_array().is_some_and(|data| data.iter().any(|data| data["source"] == source))
}

/// The copy's name, as asked for or else the original's with an ending.
///
/// # Errors
/// No name for a file, or the original's, whose files the copy would replace.
pub fn name_of(card: &ModelCard, asked: Option<&String>, ending: &str) -> anyhow::Result<String> {
    let name = asked.cloned().unwrap_or_else(|| format!("{}-{ending}", card.name));
    check_name(&name)?;
    if name == card.name {
        bail!("--name {name}: that is the original, which a copy does not replace");
    }
    Ok(name)
}

/// What the cards of a copy say of it.
pub struct Costs {
    /// The field of `about` that has the figures.
    pub field: &'static str,
    pub figures: serde_json::Value,
    /// For people.
    pub text: String,
}

/// Writes a copy of the model whose card is `original` under another name, with its cards.
pub fn write(
    original: &Path,
    card: ModelCard,
    name: String,
    onnx: &[u8],
    costs: Costs,
    folder: &Path,
) -> anyhow::Result<()> {
    let text_path = original.with_extension("md");
    let text = std::fs::read_to_string(&text_path).with_context(|| format!("cannot read {}", text_path.display()))?;
    let text = in_text(&text, &card.name, &name, &costs.text)
        .with_context(|| format!("{} is no card as `export` writes them", text_path.display()))?;
    let mut about = card.about.clone();
    let fields = about.as_object_mut().with_context(|| format!("{} has no `about`", original.display()))?;
    fields.insert(costs.field.into(), costs.figures);
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
fn in_text(text: &str, of: &str, name: &str, costs: &str) -> Option<String> {
    const MODEL: &str = "## The model\n\n";
    let rest = text.strip_prefix(&format!("# {of},"))?;
    let place = rest.find(MODEL)? + MODEL.len();
    let (before, after) = rest.split_at(place);
    Some(format!("# {name},{before}{costs}\n\n{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_card_for_people_says_what_the_copy_costs_before_all_figures() {
        let text = in_text("# m11, version 2\n\n## The model\n\nA network.\n", "m11", "m11-fp16", "This is a copy.");
        let expected = "# m11-fp16, version 2\n\n## The model\n\nThis is a copy.\n\nA network.\n";
        assert_eq!(text.as_deref(), Some(expected));
        assert_eq!(in_text("# another, version 2\n", "m11", "m11-fp16", "This is a copy."), None);
    }
}
