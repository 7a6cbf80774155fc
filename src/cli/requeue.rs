//! `triaged requeue`: dead letters are sent again.

use std::io::{self, Write};
use std::process::ExitCode;

use triaged::config::Settings;
use triaged::ledger::{Outbox, Reader};
use triaged::plural::counted;

use super::terminal::{Screen, text_or_dash};
use super::{Result, actor, existing_database, ledger_to_write, study};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The notification to send again; without it and without --all, the dead ones are listed
    #[arg(value_name = "ID", conflicts_with = "all")]
    id: Option<i64>,
    /// Send every dead notification, and every image that could not be forwarded, again
    #[arg(long)]
    all: bool,
}

pub fn run(settings: &Settings, args: Args) -> Result {
    let database = existing_database(settings)?;
    let mut out = io::stdout().lock();
    if args.id.is_none() && !args.all {
        let mut dead = Reader::open(&database)?.notifications(None)?;
        dead.retain(|row| row.state == "dead");
        if dead.is_empty() {
            writeln!(out, "no notification is dead")?;
            return Ok(ExitCode::SUCCESS);
        }
        let rows = dead.iter().map(|row| {
            let mut cells = study::notification_cells(row);
            // The state is the same for all; who it is about is not.
            cells[3] = text_or_dash(row.study_uid.as_deref());
            (false, cells)
        });
        let header =
            ["id", "revision", "channel", "study", "attempts", "created (UTC)", "delivered (UTC)", "last error"];
        write!(out, "{}", Screen::of_stdout().table(&header, rows.collect()))?;
        writeln!(out, "`triaged requeue ID` or `triaged requeue --all` sends them again")?;
        return Ok(ExitCode::SUCCESS);
    }
    let ledger = ledger_to_write(settings)?;
    let requeued = ledger.requeue_dead(args.id, &actor::actor())?;
    if args.all {
        let forwards = ledger.requeue_forwards()?;
        if forwards > 0 {
            writeln!(out, "{} will be forwarded again", counted(forwards, "image"))?;
        }
    }
    writeln!(out, "{} will be sent again", counted(requeued, "notification"))?;
    Ok(ExitCode::SUCCESS)
}
