//! `put-ablation`: an ablation takes longer than a training, and need not be there when the model is exported.

use std::path::Path;

use anyhow::{Context, bail};
use triaged_model::ModelCard;

use super::ablate;
use crate::files::write_json;

/// Puts the table in a folder of `ablate` into both cards of a model. Nothing else of them changes.
///
/// # Errors
/// Cards that are not as `export` writes them, or whose model is not the one they name; files that cannot be read or written.
pub fn put_ablation(path: &Path, folder: &Path) -> anyhow::Result<()> {
    let ablation = ablate::read(folder)?;
    let (mut card, _) = ModelCard::load(path)?;
    ablate::check_of(&ablation, &card, folder)?;
    let text_path = path.with_extension("md");
    let text = std::fs::read_to_string(&text_path).with_context(|| format!("cannot read {}", text_path.display()))?;
    let (Some(about), Some(text)) = (card.about.as_object_mut(), ablation.in_text(&text)) else {
        bail!("{} and {} are not cards as `export` writes them", path.display(), text_path.display());
    };
    about.insert("ablation".into(), serde_json::to_value(&ablation)?);
    std::fs::write(&text_path, text).with_context(|| format!("cannot write {}", text_path.display()))?;
    write_json(path, &card)?;
    eprintln!("{}: {} rows put in", path.display(), ablation.outcomes.len());
    Ok(())
}
