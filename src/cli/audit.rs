//! `triaged audit`: who did what.

use std::io::{self, Write};
use std::process::ExitCode;

use triaged::config::Settings;
use triaged::ledger::{AuditFilter, AuditRow, Reader};

use super::output::{Format, write_json, write_records};
use super::since::moment_of;
use super::terminal::{Screen, clean, moment, text_or_dash};
use super::{Failure, Result, existing_database, study};

/// Rows of the table where `--limit` does not say; JSON and CSV give all.
const ROWS_FOR_PEOPLE: u32 = 200;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only what was done to this study: Study Instance UID, the beginning or end of one, or an accession number
    #[arg(long)]
    study: Option<String>,
    /// Only what was done then (UTC) or later: a date, a moment such as 2026-11-23T15:42:07Z, today, yesterday, or 2h
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// The newest rows, at most so many; 0 is all [default: 200 in the table, all in JSON and CSV]
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    /// Check the hash chain of the whole log instead: exit code 1 where a row is not as it was written, or is missing
    #[arg(long, conflicts_with_all = ["study", "since", "limit", "format"])]
    verify: bool,
    /// How to write it: a table for people, or all columns of the database table `audit`
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub fn run(settings: &Settings, args: Args) -> Result {
    let since = args.since.as_deref().map(moment_of).transpose()?;
    let ledger = Reader::open(&existing_database(settings)?)?;
    if args.verify {
        let chain = ledger.verify_audit()?;
        return match chain.broken_at {
            Some(id) => Err(Failure::failed(format!(
                "the audit log is not as it was written: row {id} was changed or is missing; compare with the collector of audit \
                 messages or a backup"
            ))),
            None => {
                writeln!(
                    io::stdout().lock(),
                    "{} rows, unbroken; the last is {}, its hash {}",
                    chain.rows,
                    chain.last_id,
                    chain.hash
                )?;
                Ok(ExitCode::SUCCESS)
            }
        };
    }
    let default = (args.format == Format::Table).then_some(ROWS_FOR_PEOPLE);
    let filter = AuditFilter {
        study_uid: args.study.as_deref().map(|named| study::find(&ledger, named)).transpose()?,
        since,
        limit: args.limit.or(default).filter(|&limit| limit > 0),
    };
    let rows = ledger.audit(&filter)?;
    match args.format {
        Format::Json => write_json(&rows)?,
        Format::Csv => write_records(&rows)?,
        Format::Table if rows.is_empty() => writeln!(io::stdout().lock(), "nothing has been done")?,
        Format::Table => {
            let header = ["id", "at (UTC)", "who", "kind", "deed", "study", "details"];
            let cells = rows.iter().map(|row| (false, cells(row))).collect();
            write!(io::stdout().lock(), "{}", Screen::of_stdout().table(&header, cells))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn cells(row: &AuditRow) -> Vec<String> {
    vec![
        row.id.to_string(),
        moment(&row.at),
        clean(&row.actor).into_owned(),
        row.actor_kind.clone(),
        row.deed.clone(),
        text_or_dash(row.study_uid.as_deref()),
        clean(&row.details).into_owned(),
    ]
}
