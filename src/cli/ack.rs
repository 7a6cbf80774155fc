//! `triaged ack`: a person has seen a study's verdict and takes care of it.

use std::io::{self, Write};
use std::process::ExitCode;

use triaged::config::Settings;
use triaged::ledger::{Acknowledged, Actor, Shown};

use super::{Failure, Result, actor, ledger_to_write, study, terminal};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Study Instance UID, the beginning or end of one, or an accession number
    study: String,
    /// Who has seen it [default: the user who runs this]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// A note that stays with the acknowledgement
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    /// Take the acknowledgement back: the study is unread again
    #[arg(long, conflicts_with = "note")]
    undo: bool,
    /// The verdict that was seen (`verdict_id` of the worklist): nothing is done where the study says something else since
    #[arg(long, value_name = "ID")]
    verdict: Option<i64>,
    /// Or the revision of the study that was seen
    #[arg(long, value_name = "N", conflicts_with = "verdict")]
    revision: Option<i64>,
}

/// The node tells who is to hear of it: what this process sees of the configuration may lack the service's environment.
pub fn run(settings: &Settings, args: Args) -> Result {
    let ledger = ledger_to_write(settings)?;
    let study_uid = study::find(&ledger, &args.study)?;
    let user = actor::actor();
    let actor = match args.by {
        Some(by) => Actor::person(by).by_way_of(&user),
        None => user,
    };
    let shown = terminal::clean(&study_uid);
    let mut out = io::stdout().lock();
    let seen = Shown { verdict: args.verdict, revision: args.revision, kind: None };
    if args.undo {
        if !ledger.undo_acknowledgement_as_shown(&study_uid, &actor, &seen)? {
            return Err(Failure::failed(format!("{shown} is not acknowledged")));
        }
        writeln!(out, "no longer acknowledged {shown}")?;
        return Ok(ExitCode::SUCCESS);
    }
    let what = match ledger.acknowledge_as_shown(&study_uid, &actor, args.note.as_deref(), &seen)? {
        Acknowledged::First => "acknowledged",
        Acknowledged::Before => "was acknowledged before:",
        Acknowledged::Seen => "marked as seen, for it is not flagged:",
    };
    writeln!(out, "{what} {shown}")?;
    Ok(ExitCode::SUCCESS)
}
