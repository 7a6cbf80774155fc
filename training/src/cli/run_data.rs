//! The slices of a run and who stands on which side, noted in its folder.

use std::path::Path;

use anyhow::{Context, bail};

use crate::data::{Index, Split};
use crate::files::{read_json, write_json};

/// Index and split of a run, as [`begin`] noted them.
pub fn data_of(run: &Path) -> anyhow::Result<(Index, Split)> {
    Ok((read_json(&run.join("index.json"))?, read_json(&run.join("split.json"))?))
}

/// Refuses a run's folder that was begun on other slices or another split: its network has been trained on some of those
/// that it would be tested on.
pub fn check_begun(run: &Path, index: &Index, split: &Split) -> anyhow::Result<()> {
    if !run.join("split.json").exists() {
        return Ok(());
    }
    let (begun, begun_split) = data_of(run)?;
    match begun.difference(index).or_else(|| begun_split.difference(split)) {
        None => Ok(()),
        Some(how) => bail!(
            "{} was begun with other data, another sample or split ({how}); take another folder or delete it",
            run.display()
        ),
    }
}

/// Notes index and split with a run. One that was begun must have the same; it is noted where the files lie by now.
pub fn begin(run: &Path, index: &Index, split: &Split) -> anyhow::Result<()> {
    check_begun(run, index, split)?;
    std::fs::create_dir_all(run).with_context(|| format!("cannot make {}", run.display()))?;
    write_json(&run.join("index.json"), index)?;
    Ok(write_json(&run.join("split.json"), split)?)
}
