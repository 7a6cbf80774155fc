//! `triaged results show`: one study, and how a study is named on the command line.

use std::io::{self, Write};

use serde::Serialize;
use triaged::ledger::{NotificationRow, Reader, SliceRow, VerdictRow, WorklistRow};
use triaged::plural::counted;
use triaged_model::VerdictRule;

use super::chart::chart;
use super::output::{Format, write_json, write_records};
use super::terminal::{Screen, clean, moment, moment_or_dash, number_or_dash, text_or_dash};
use super::worklist::verdict;
use super::{Failure, Result};

/// Studies that are listed where a name could mean several.
const MOST_NAMED: usize = 3;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Study Instance UID, the beginning or end of one, or an accession number
    study: String,
    /// How to write it: for people, everything as JSON, or the slices as CSV
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// A study with everything that is known of it.
#[derive(Debug, Serialize)]
struct Study {
    #[serde(flatten)]
    row: WorklistRow,
    verdicts: Vec<VerdictRow>,
    notifications: Vec<NotificationRow>,
    slices: Vec<SliceRow>,
}

pub fn run(ledger: &Reader, args: Args) -> Result<()> {
    let study_uid = find(ledger, &args.study)?;
    let Some(row) = ledger.study(&study_uid)? else {
        return Err(unknown(&args.study));
    };
    let slices = ledger.slices(&study_uid)?;
    match args.format {
        Format::Csv => write_records(&slices),
        Format::Json => write_json(&Study {
            row,
            verdicts: ledger.verdicts(&study_uid)?,
            notifications: ledger.notifications(Some(&study_uid))?,
            slices,
        }),
        Format::Table => {
            let verdicts = ledger.verdicts(&study_uid)?;
            let notifications = ledger.notifications(Some(&study_uid))?;
            let threshold = ledger.slice_threshold(&study_uid)?;
            let study = Study { row, verdicts, notifications, slices };
            io::stdout().lock().write_all(study.page(threshold, Screen::of_stdout()).as_bytes())?;
            Ok(())
        }
    }
}

/// The study that is meant: its UID, its accession number, or a beginning or end of its UID that no other study shares.
pub fn find(ledger: &Reader, named: &str) -> Result<String> {
    let named = named.trim();
    if named.is_empty() {
        return Err(Failure::wrong(
            "which study? Its UID, the beginning or end of it, or an accession number is needed",
        ));
    }
    let mut found = ledger.studies_named(named, MOST_NAMED + 1)?;
    match found.len() {
        0 => Err(unknown(named)),
        1 => Ok(found.remove(0)),
        _ => {
            let more = if found.len() > MOST_NAMED { ", …" } else { "" };
            found.truncate(MOST_NAMED);
            Err(Failure::wrong(format!("{named} could be several studies: {}{more}", found.join(", "))))
        }
    }
}

fn unknown(named: &str) -> Failure {
    Failure::failed(format!("there is no study {named}; `triaged results` lists them"))
}

impl Study {
    fn page(&self, slice_threshold: Option<f64>, screen: Screen) -> String {
        let row = &self.row;
        let mut out = format!("study         {}\n", text_or_dash(Some(&row.study_uid)));
        let mut line = |name: &str, value: String| out.push_str(&format!("{name:<13} {value}\n"));
        line("accession", text_or_dash(row.accession_number.as_deref()));
        line("patient", text_or_dash(row.patient_id.as_deref()));
        let words = verdict(row);
        let words = if row.flagged == Some(true) { screen.alarm(&words) } else { screen.strong(&words) };
        let score = match (row.score, row.threshold) {
            (Some(score), Some(threshold)) => format!(", score {score:.3}, threshold {threshold:.3}"),
            _ => String::new(),
        };
        line("verdict", format!("{words}{score}, revision {}", row.revision));
        // The oldest verdict comes first.
        if let Some(words) = self.verdicts.last().and_then(|verdict| VerdictRule::words_of(&verdict.rule)) {
            line("judged by", clean(&words).into_owned());
        }
        line(
            "slices",
            format!(
                "{} received, {} scored, {} ineligible, {} failed",
                row.slices_received, row.slices_scored, row.slices_ineligible, row.slices_failed
            ),
        );
        for (name, said) in [("missing", &row.missing), ("warnings", &row.warnings)] {
            if let Some(said) = said {
                line(name, clean(said).into_owned());
            }
        }
        if row.set_aside > 0 {
            line(
                "set aside",
                format!(
                    "{} with other content under UIDs of this study",
                    counted(row.set_aside.unsigned_abs(), "object")
                ),
            );
        }
        line("received", format!("{} to {} UTC", moment(&row.first_received_at), moment(&row.last_received_at)));
        line("decided", moment_or_dash(row.decided_at.as_deref()));
        line("notified", moment_or_dash(row.notified_at.as_deref()));
        let by = row.acknowledged_by.as_deref().map(|by| format!(" by {}", clean(by))).unwrap_or_default();
        line("acknowledged", moment_or_dash(row.acknowledged_at.as_deref()) + &by);

        let heading = |text: &str| format!("\n{}\n", screen.strong(text));
        if !self.verdicts.is_empty() {
            out.push_str(&heading("Verdicts"));
            out.push_str(&screen.table(
                &["revision", "decided (UTC)", "verdict", "score", "threshold", "model", "software"],
                self.verdicts.iter().map(|v| (false, verdict_cells(v))).collect(),
            ));
        }
        if !self.notifications.is_empty() {
            out.push_str(&heading("Notifications"));
            out.push_str(&screen.table(
                &["id", "revision", "channel", "state", "attempts", "created (UTC)", "delivered (UTC)", "last error"],
                self.notifications.iter().map(|n| (n.state == "dead", notification_cells(n))).collect(),
            ));
        }
        let scored = self.slices.iter().find(|slice| slice.state == "scored");
        let model = match scored {
            Some(slice) => format!(
                ": probability by {} on {}",
                text_or_dash(slice.model.as_deref()),
                text_or_dash(slice.provider.as_deref())
            ),
            None => String::new(),
        };
        let mark = slice_threshold.map(|t| format!(", marked from {t:.3} on")).unwrap_or_default();
        out.push_str(&heading(&format!("Slices{model}{mark}")));
        out.push_str(&chart(&self.slices, slice_threshold, screen));
        out
    }
}

fn verdict_cells(v: &VerdictRow) -> Vec<String> {
    let words = match v.flagged {
        Some(true) => "FLAGGED",
        Some(false) => "not flagged",
        None => "incomplete",
    };
    vec![
        v.revision.to_string(),
        moment(&v.decided_at),
        if v.provisional { format!("{words} (provisional)") } else { words.into() },
        number_or_dash(v.score),
        format!("{:.3}", v.threshold),
        format!("{} {}", clean(&v.model), v.model_sha256.get(..12).unwrap_or(&v.model_sha256)),
        clean(&v.software).into_owned(),
    ]
}

/// The cells of a notification, as `requeue` shows them too.
pub fn notification_cells(n: &NotificationRow) -> Vec<String> {
    vec![
        n.id.to_string(),
        n.revision.to_string(),
        clean(&n.channel).into_owned(),
        n.state.clone(),
        n.attempts.to_string(),
        moment(&n.created_at),
        moment_or_dash(n.delivered_at.as_deref()),
        text_or_dash(n.last_error.as_deref()),
    ]
}
