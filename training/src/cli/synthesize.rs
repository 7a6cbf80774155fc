//! `synthesize`: bleeds and what looks like them, drawn into real heads without hemorrhage.

use std::path::PathBuf;

use anyhow::{Context, anyhow};
use clap::Args;

use crate::synthesis::{sheet, write};

#[derive(Clone, Args)]
pub struct SynthesizeArgs {
    /// A folder with heads without hemorrhage: labelled in the RSNA 2019 layout, of which the patients without any are taken, or of
    /// DICOM files without labels, which are all taken to be healthy; may be given more than once
    #[arg(long, required = true)]
    pub data: Vec<PathBuf>,
    /// Folder of the synthetic studies; new or empty
    #[arg(long)]
    pub out: PathBuf,
    /// Studies to draw: the heads in turn, four of five with blood
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub studies: u64,
    /// The first study's seed; the next ones count on
    #[arg(long, default_value_t = 1)]
    pub first_seed: u64,
    /// Also write a sheet of forty of the slices, a PNG for people to look at
    #[arg(long)]
    pub sheet: Option<PathBuf>,
}

pub fn do_synthesize(args: &SynthesizeArgs) -> anyhow::Result<()> {
    let written = write(&args.data, &args.out, args.studies, args.first_seed)?;
    for (kinds, studies) in &written.studies {
        println!("{kinds}: {studies} studies");
    }
    println!("{}: {} slices without blood, {} with", args.out.display(), written.negative, written.positive);
    if let Some(path) = &args.sheet {
        let png = sheet(&written.tiles).map_err(|error| anyhow!(error))?;
        std::fs::write(path, png).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
