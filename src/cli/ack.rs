//! `triaged ack`: a person has seen a study.

use std::io::{self, Write};
use std::process::ExitCode;

use triaged::config::Settings;
use triaged::ledger::Ledger;

use super::{Result, existing_database, study, terminal};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Study Instance UID, the beginning of one, or an accession number
    study: String,
}

pub fn run(settings: &Settings, args: Args) -> Result {
    let ledger = Ledger::open(&existing_database(settings)?)?;
    let study_uid = study::find(&ledger, &args.study)?;
    let first = ledger.acknowledge(&study_uid)?;
    let what = if first { "acknowledged" } else { "was acknowledged before:" };
    writeln!(io::stdout().lock(), "{what} {}", terminal::clean(&study_uid))?;
    Ok(ExitCode::SUCCESS)
}
