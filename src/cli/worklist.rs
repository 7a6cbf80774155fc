//! `triaged results` without a study: the worklist.

use std::io::{self, Write};

use triaged::ledger::{Reader, WorklistFilter, WorklistRow};

use super::Result;
use super::output::{Format, write_json, write_records};
use super::since::moment_of;
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
    /// Only studies that something came for since a moment, a date, `yesterday` or a time before now such as `2h`
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,
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
        since: args.since.as_deref().map(moment_of).transpose()?,
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
                let since = args.since.map(|since| format!(" since {since}")).unwrap_or_default();
                writeln!(out, "{what}{since}")?;
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

/// A column: its title, how soon it is left out where the screen is narrow (0: never), and its cell for a study.
type Column = (&'static str, u8, fn(&WorklistRow) -> String);

/// "scored" is scored of received; what was not scored stands beside it, because a study with few scored slices is hardly
/// triaged.
const COLUMNS: [Column; 10] = [
    ("verdict", 0, verdict),
    ("score", 0, |row| number_or_dash(row.score)),
    ("scored", 0, |row| format!("{}/{}", row.slices_scored, row.slices_received)),
    ("not scored", 4, |row| (row.slices_ineligible + row.slices_failed).to_string()),
    ("last slice (UTC)", 1, |row| moment(&row.last_received_at)),
    ("notified (UTC)", 5, |row| moment_or_dash(row.notified_at.as_deref())),
    ("acknowledged (UTC)", 3, |row| moment_or_dash(row.acknowledged_at.as_deref())),
    ("accession", 0, |row| text_or_dash(row.accession_number.as_deref())),
    ("patient", 2, |row| text_or_dash(row.patient_id.as_deref())),
    ("study", 0, |row| text_or_dash(Some(&row.study_uid))),
];

/// How much of a Study Instance UID's end tells studies apart where the screen has no place for all of it.
const END_OF_UID: usize = 10;

/// The worklist. On a terminal that is too narrow for a study in one line, the end of its UID stands for the whole, and the
/// columns that are needed least are left out; JSON and CSV have them.
fn table(rows: &[WorklistRow], screen: Screen) -> String {
    let mut shown: Vec<Column> = COLUMNS.to_vec();
    let mut cells = cells_of(rows, &shown);
    if screen.is_terminal && width(&shown, &cells) > screen.width {
        *shown.last_mut().expect("COLUMNS has ten") = ("study", 0, |row| end_of(&row.study_uid));
        cells = cells_of(rows, &shown);
        while width(&shown, &cells) > screen.width
            && let Some(least) = (0..shown.len()).max_by_key(|&index| shown[index].1).filter(|&i| shown[i].1 > 0)
        {
            shown.remove(least);
            cells = cells_of(rows, &shown);
        }
    }
    let header: Vec<&str> = shown.iter().map(|column| column.0).collect();
    let alarm = |row: &WorklistRow| row.flagged == Some(true) && row.is_unread();
    screen.table(&header, rows.iter().map(alarm).zip(cells).collect())
}

fn cells_of(rows: &[WorklistRow], columns: &[Column]) -> Vec<Vec<String>> {
    rows.iter().map(|row| columns.iter().map(|column| column.2(row)).collect()).collect()
}

/// The width of a drawn table without a cell in two lines: a space on each side of a cell.
fn width(columns: &[Column], rows: &[Vec<String>]) -> usize {
    let column = |(index, column): (usize, &Column)| {
        let cells = rows.iter().map(|row| row[index].chars().count());
        cells.max().unwrap_or(0).max(column.0.chars().count()) + 3
    };
    columns.iter().enumerate().map(column).sum()
}

fn end_of(uid: &str) -> String {
    let uid = text_or_dash(Some(uid));
    let length = uid.chars().count();
    if length <= END_OF_UID + 1 {
        return uid;
    }
    std::iter::once('…').chain(uid.chars().skip(length - END_OF_UID)).collect()
}

/// The verdict as people read it: "FLAGGED", "not flagged", "incomplete", "not triaged" or "receiving".
pub fn verdict(row: &WorklistRow) -> String {
    match (row.flagged, row.state.as_str()) {
        (Some(true), "receiving") => "FLAGGED (receiving)".into(),
        _ => row.verdict_in_words().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> WorklistRow {
        WorklistRow {
            study_uid: "1.2.826.0.1.3680043.8.498.45787841905188114249328113098401".into(),
            accession_number: Some("A123456".into()),
            patient_id: Some("P0012345".into()),
            state: "decided".into(),
            flagged: Some(true),
            verdict: Some("flagged".into()),
            score: Some(0.97),
            slices_received: 30,
            slices_scored: 30,
            last_received_at: "2026-11-27T08:00:00.000Z".into(),
            ..Default::default()
        }
    }

    #[test]
    fn a_study_has_one_line_on_eighty_columns_and_all_columns_on_a_wide_screen() {
        for (columns, absent) in [(80, vec!["notified", "not scored"]), (240, vec![])] {
            let drawn = table(&[row()], Screen::terminal(columns));
            let lines: Vec<&str> = drawn.lines().collect();
            assert!(lines.iter().all(|line| line.chars().count() <= columns), "{drawn}");
            assert_eq!(lines.iter().filter(|line| line.contains("FLAGGED")).count(), 1);
            let whole = lines.iter().find(|line| line.contains("FLAGGED")).unwrap();
            assert!(whole.contains("A123456") && whole.contains("328113098401") == (columns == 240), "{drawn}");
            assert!(whole.contains("8113098401"), "{drawn}");
            for title in absent {
                assert!(!drawn.contains(title), "{drawn}");
            }
        }
    }
}
