//! `triaged results`: the worklist, a study slice by slice, and two models beside each other.

use std::process::ExitCode;

use clap::Subcommand;
use triaged::config::Settings;
use triaged::ledger::Reader;

use super::{Result, compare, existing_database, study, worklist};

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: worklist::Args,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show a study: verdicts, notifications, and a bar for each slice
    Show(study::Args),
    /// Compare the model in shadow with the model that counts, over the studies that both have judged
    Compare(compare::Args),
}

pub fn run(settings: &Settings, args: Args) -> Result {
    let ledger = Reader::open(&existing_database(settings)?)?;
    match args.command {
        None => worklist::run(&ledger, args.list)?,
        Some(Command::Show(args)) => study::run(&ledger, args)?,
        Some(Command::Compare(args)) => compare::run(settings, &ledger, args)?,
    }
    Ok(ExitCode::SUCCESS)
}
