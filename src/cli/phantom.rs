//! `triaged phantom`: a synthetic series on disk.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use triaged_imaging::phantom::{Lesion, PhantomSpec, series};

use super::send::Report;
use super::{Failure, Result};

/// The lesion that is none.
const NONE: &str = "none";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder to write to; it is made if it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The bleed
    #[arg(long, default_value = NONE, value_parser = lesions())]
    lesion: String,
    /// Slices from skull base to vertex
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1000))]
    slices: u32,
    /// Another seed is another person; the same seed gives the same objects
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

fn lesions() -> PossibleValuesParser {
    std::iter::once(NONE).chain(Lesion::ALL.map(Lesion::name)).collect::<Vec<_>>().into()
}

pub fn run(args: Args) -> Result {
    let lesion = Lesion::ALL.into_iter().find(|lesion| lesion.name() == args.lesion);
    fs::create_dir_all(&args.out)
        .map_err(|error| Failure::wrong(format!("cannot make the folder {}: {error}", args.out.display())))?;
    let bar = Report::new().bar(args.slices.into());
    let mut study = String::new();
    let spec = PhantomSpec { slices: args.slices, lesion, seed: args.seed };
    for (number, object) in (1..).zip(series(&spec)) {
        let path = args.out.join(format!("{number:04}.dcm"));
        object
            .write_to_file(&path)
            .map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display())))?;
        if study.is_empty() {
            let uid = object.get(dicom_dictionary_std::tags::STUDY_INSTANCE_UID).and_then(|uid| uid.to_str().ok());
            study = uid.unwrap_or_default().trim_end_matches(['\0', ' ']).to_owned();
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    // The study UID alone, so that a script can take it.
    writeln!(io::stdout().lock(), "{study}")?;
    Ok(ExitCode::SUCCESS)
}
