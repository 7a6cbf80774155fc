//! `triaged feedback`: what readers said of verdicts, for choosing a threshold on the site's own studies.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;

use triaged::config::Settings;
use triaged::ledger::{FeedbackRow, Reader};

use super::output::{Format, text, write_csv, write_json, write_records};
use super::since::moment_of;
use super::terminal::{Screen, clean, moment, number_or_dash, text_or_dash};
use super::{Result, existing_database, study};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only on this study: Study Instance UID, the beginning or end of one, or an accession number
    #[arg(long)]
    study: Option<String>,
    /// Only what was said then (UTC) or later: a date, a moment such as 2026-11-23T15:42:07Z, today, yesterday, or 2h
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// How to write it: a table for people, or all columns of the database view `feedback_log`
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// One row a study, study_uid and label (1 present, 0 absent) by its newest opinion, as CSV: what
    /// `triaged-training recalibrate --labels` reads
    #[arg(long, conflicts_with = "format")]
    labels: bool,
}

pub fn run(settings: &Settings, args: Args) -> Result {
    let since = args.since.as_deref().map(moment_of).transpose()?;
    let ledger = Reader::open(&existing_database(settings)?)?;
    let study = args.study.as_deref().map(|named| study::find(&ledger, named)).transpose()?;
    let rows = ledger.feedback(study.as_deref(), since.as_deref(), u32::MAX)?;
    if args.labels {
        // The newest comes last, and counts.
        let labels: BTreeMap<&str, i64> =
            rows.iter().filter_map(|row| Some((row.study_uid.as_str(), row.label?))).collect();
        let rows = labels.iter().map(|(uid, label)| vec![text(Some(uid)), label.to_string()]);
        write_csv(&["study_uid", "label"], rows)?;
        return Ok(ExitCode::SUCCESS);
    }
    match args.format {
        Format::Json => write_json(&rows)?,
        Format::Csv => write_records(&rows)?,
        Format::Table if rows.is_empty() => writeln!(io::stdout().lock(), "nobody has said anything")?,
        Format::Table => {
            let header = ["at (UTC)", "who", "opinion", "verdict", "score", "present", "study", "note"];
            let cells = rows.iter().map(|row| (false, cells(row))).collect();
            write!(io::stdout().lock(), "{}", Screen::of_stdout().table(&header, cells))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn cells(row: &FeedbackRow) -> Vec<String> {
    let present = match row.label {
        Some(1) => "yes",
        Some(_) => "no",
        None => "–",
    };
    vec![
        moment(&row.at),
        clean(&row.actor).into_owned(),
        row.opinion.clone(),
        text_or_dash(row.verdict.as_deref()),
        number_or_dash(row.score),
        present.to_owned(),
        clean(&row.study_uid).into_owned(),
        text_or_dash(row.note.as_deref()),
    ]
}
