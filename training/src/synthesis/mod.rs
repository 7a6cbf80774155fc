//! Bleeds drawn into real heads that have none: more patients with subtle blood than a hospital can give, with masks.
//!
//! A synthetic study is a patient's whole series with a bleed in some neighbouring slices: the tissue's place is taken by blood of
//! the density that the literature gives for its age, with partial volume at its borders and through the slice, the brain pushed
//! aside where it has mass, and the slice's own noise in it. A fifth of the studies has only what looks like blood. What is not
//! drawn on stays as it was stored, to the bit.
//!
//! The networks that learn from it must not be measured on the patients it was made of: `stage_2_origins.csv`
//! ([`crate::data::Origin`]) says who they are, and every split keeps to that.

mod anatomy;
mod chance;
mod drawing;
mod extra_axial;
mod fluid;
mod focal;
mod mimic;
mod output;
mod plane;
mod sheet;
mod stack;
mod study;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::data::{IndexError, ORIGINS};
use drawing::{Drawing, Head};
pub use sheet::{Tile, sheet};
use stack::{Source, healthy};

#[derive(Debug, thiserror::Error)]
pub enum SynthesisError {
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error("{} {source}", source.path.display())]
    Read {
        #[from]
        source: triaged_imaging::ReadError,
    },
    #[error("cannot decode {file}: {source}")]
    Decode { file: PathBuf, source: triaged_imaging::ImagingError },
    #[error("cannot write {path}: {why}")]
    Write { path: PathBuf, why: String },
    #[error(
        "{0} holds files already, and what is left of another synthesis would be trained on too; name a new folder"
    )]
    NotEmpty(PathBuf),
    #[error(
        "{0} holds synthetic studies: what is made of them could be trained on beside the patients that they were made of; name a folder of patients"
    )]
    Synthetic(PathBuf),
    #[error(
        "there is no head to draw into in {0}: a series without hemorrhage of eight slices or more is needed, with pixel spacing and \
         positions, and a closed skull in four of them"
    )]
    NoHead(String),
}

/// What was written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Written {
    /// Studies by the kinds of blood that they show; of none where there is none.
    pub studies: Vec<(String, usize)>,
    pub negative: usize,
    pub positive: usize,
    /// For a sheet: the slice of each study that shows most of what was drawn.
    pub tiles: Vec<Tile>,
}

/// Writes `studies` synthetic studies, made of the series without hemorrhage in `folders` in turn, with seeds from `first_seed` on.
///
/// # Errors
/// [`SynthesisError`]: a folder that cannot be read or has no head to draw into, one to write to that is not empty.
pub fn write(folders: &[PathBuf], out: &Path, studies: u64, first_seed: u64) -> Result<Written, SynthesisError> {
    if std::fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(SynthesisError::NotEmpty(out.into()));
    }
    let mut sources = Vec::new();
    for folder in folders {
        sources.extend(healthy(folder)?);
    }
    let named = || folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", ");
    if sources.is_empty() {
        return Err(SynthesisError::NoHead(named()));
    }
    output::prepare(out)?;
    // A head is read once, for all studies that are drawn into it.
    let written: Vec<Vec<output::Study>> = (0..sources.len() as u64)
        .into_par_iter()
        .map(|place| {
            let own: Vec<u64> = (0..studies).filter(|study| study % sources.len() as u64 == place).collect();
            draw_into(&sources[place as usize], &own, sources.len() as u64, first_seed, out)
        })
        .collect::<Result<_, _>>()?;
    let mut written = written.concat();
    written.sort_by_key(|study| study.seed);
    if written.is_empty() {
        return Err(SynthesisError::NoHead(named()));
    }
    output::finish(out, &written)
}

fn draw_into(
    source: &Source,
    studies: &[u64],
    sources: u64,
    first_seed: u64,
    out: &Path,
) -> Result<Vec<output::Study>, SynthesisError> {
    if studies.is_empty() {
        return Ok(vec![]);
    }
    let Some(stack) = source.load()? else { return Ok(vec![]) };
    let head = Head::new(stack);
    if head.anatomy.usable().len() < 4 {
        return Ok(vec![]);
    }
    let mut written = Vec::with_capacity(studies.len());
    for &study in studies {
        let seed = first_seed + study;
        let mut drawing = Drawing::new(&head);
        // Another kind in each head, and in a head another one at each of its turns.
        let mimics = study::draw(&mut drawing, study + study / sources, seed);
        written.push(output::write(out, source, &drawing, seed, mimics)?);
    }
    Ok(written)
}

/// The file that names whom each synthetic patient was made of.
pub fn origins(folder: &Path) -> PathBuf {
    folder.join(ORIGINS)
}
