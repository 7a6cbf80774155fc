//! `triaged report`: the structured report or the key image of a study, into a file.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use triaged::assets;
use triaged::config::Settings;
use triaged::decoding::{Frames, THIS_PROGRAM};
use triaged::ledger::Reader;
use triaged::notify;
use triaged::report::{Kind, ReportError, Reports, Which};
use triaged_model::ModelCard;

use super::{Failure, Result, existing_database, shown, study};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Study Instance UID, the beginning or end of one, or an accession number
    study: String,
    /// The file to write; - for standard output
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The key image instead of the structured report
    #[arg(long)]
    key_image: bool,
    /// The last verdict of this revision, instead of the latest verdict
    #[arg(long, value_name = "N")]
    revision: Option<i64>,
}

pub fn run(settings: &Settings, args: Args) -> Result {
    let ledger = Reader::open(&existing_database(settings)?)?;
    let study_uid = study::find(&ledger, &args.study)?;
    let (card, _) = ModelCard::load(&assets::model_card(&settings.inference.model))
        .map_err(|error| Failure::wrong(format!("the model card says what is found, and {error}")))?;
    let zone = notify::zone(&settings.notify.time_zone)
        .map_err(|why| Failure::wrong(format!("configuration: notify.time_zone: {why}")))?;
    let frames = Frames::start(THIS_PROGRAM.into(), &settings.inference);
    let reports = Reports::new(&settings.data_dir, &card.finding, zone, frames);
    let which = args.revision.map_or(Which::Latest, Which::Revision);
    let kind = if args.key_image { Kind::KeyImage } else { Kind::Report };
    let document = reports.make(&ledger, &study_uid, &which, kind).map_err(|error| match error {
        ReportError::Ledger(error) => Failure::from(error),
        unavailable => Failure::failed(unavailable.to_string()),
    })?;
    if args.out.as_os_str() == "-" {
        let mut out = io::stdout().lock();
        if out.is_terminal() {
            return Err(Failure::wrong("a DICOM file is not written to a terminal; --out FILE names a file"));
        }
        out.write_all(&document.file)?;
        return Ok(ExitCode::SUCCESS);
    }
    std::fs::write(&args.out, &document.file)
        .map_err(|error| Failure::failed(format!("cannot write {}: {error}", args.out.display())))?;
    writeln!(io::stdout().lock(), "{} written to {}", kind.as_str(), shown(&args.out))?;
    Ok(ExitCode::SUCCESS)
}
