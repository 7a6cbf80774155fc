//! `triaged results` without a study: the worklist.

use std::io::{self, Write};

use triaged::ledger::{Reader, WorklistFilter, WorklistRow};

use super::Result;
use super::output::{Format, write_json, write_records};
use super::terminal::{Screen, moment, moment_or_dash, number_or_dash, text_or_dash};

/// Rows of the table where `--limit` does not say; JSON and CSV give all.
const ROWS_FOR_PEOPLE: u32 = 200;

#[derive(Debug, clap::Args)]
// Its group would have the name of that of the arguments that it is part of, which a debug build of clap refuses.
#[group(skip)]
pub struct Args {
    /// How to write it: a table for people, or all columns of the database view `worklist`
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Only studies that are flagged
    #[arg(long)]
    flagged: bool,
    /// At most so many studies; 0 is all [default: 200 in the table, all in JSON and CSV]
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
}

pub fn run(ledger: &Reader, args: Args) -> Result<()> {
    let default = (args.format == Format::Table).then_some(ROWS_FOR_PEOPLE);
    let limit = args.limit.or(default).filter(|&limit| limit > 0);
    // One more than is shown tells whether there are more.
    let filter = WorklistFilter {
        flagged_only: args.flagged,
        limit: limit.map(|limit| limit.saturating_add(1)),
        ..Default::default()
    };
    let mut rows = ledger.worklist(&filter)?;
    let shown = limit.map_or(rows.len(), |limit| rows.len().min(limit as usize));
    let more = rows.len() > shown;
    rows.truncate(shown);
    match args.format {
        Format::Json => write_json(&rows),
        Format::Csv => write_records(&rows),
        Format::Table => {
            let mut out = io::stdout().lock();
            if rows.is_empty() {
                let what = if args.flagged { "no study is flagged" } else { "no study has been received" };
                writeln!(out, "{what}")?;
                return Ok(());
            }
            write!(out, "{}", table(&rows, Screen::of_stdout()))?;
            if more {
                writeln!(out, "… and more: --limit 0 shows all")?;
            }
            Ok(())
        }
    }
}

/// "slices" is scored of received; what was not scored is listed beside it, because a study with few scored slices is
/// hardly triaged.
fn table(rows: &[WorklistRow], screen: Screen) -> String {
    let cells = rows.iter().map(|row| {
        let alarm = row.flagged == Some(true) && row.is_unread();
        let cells = vec![
            verdict(row),
            number_or_dash(row.score),
            format!("{}/{}", row.slices_scored, row.slices_received),
            (row.slices_ineligible + row.slices_failed).to_string(),
            moment(&row.last_received_at),
            moment_or_dash(row.notified_at.as_deref()),
            moment_or_dash(row.acknowledged_at.as_deref()),
            text_or_dash(row.accession_number.as_deref()),
            text_or_dash(row.patient_id.as_deref()),
            text_or_dash(Some(&row.study_uid)),
        ];
        (alarm, cells)
    });
    let header = [
        "verdict",
        "score",
        "scored",
        "not scored",
        "last slice (UTC)",
        "notified (UTC)",
        "acknowledged (UTC)",
        "accession",
        "patient",
        "study",
    ];
    screen.table(&header, cells.collect())
}

/// The verdict as people read it: "FLAGGED", "not flagged", "incomplete", "not triaged" or "receiving".
pub fn verdict(row: &WorklistRow) -> String {
    match (row.flagged, row.state.as_str()) {
        (Some(true), "receiving") => "FLAGGED (receiving)".into(),
        _ => row.verdict_in_words().into(),
    }
}
