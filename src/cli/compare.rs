//! `triaged results compare`: a model in shadow beside the model that counts.

use std::io::{self, Write};

use triaged::config::Settings;
use triaged::inference::load_judge;
use triaged::ledger::Reader;
use triaged::plural::counted;
use triaged::triage::{ComparedStudy, Comparison, ShadowJudge};

use super::output::{Format, own, text, write_csv, write_json};
use super::since::moment_of;
use super::terminal::{Screen, clean, moment, text_or_dash};
use super::{Failure, Result};

/// Disagreeing studies in the table; JSON and CSV have all.
const ROWS_FOR_PEOPLE: usize = 200;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// How to write it: for people, figures and disagreeing studies as JSON, or every compared study as CSV
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Only studies whose last slice came then (UTC) or later: a date, a moment such as 2026-11-23T15:42:07Z, today, yesterday, or 2h
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
}

pub fn run(settings: &Settings, ledger: &Reader, args: Args) -> Result<()> {
    let since = args.since.as_deref().map(moment_of).transpose()?;
    let mut studies = Vec::new();
    let keep = |study: &ComparedStudy| {
        if args.format == Format::Csv {
            studies.push(record(study));
        }
    };
    let Some(comparison) = Comparison::make(ledger, &judge(settings), since.as_deref(), keep)? else {
        return Err(Failure::wrong("no model has run in shadow with this data folder; inference.shadow names one"));
    };
    match args.format {
        Format::Json => write_json(&comparison),
        Format::Csv => write_csv(&COLUMNS, studies.into_iter()),
        Format::Table => {
            io::stdout().lock().write_all(page(&comparison, Screen::of_stdout()).as_bytes())?;
            Ok(())
        }
    }
}

/// By the card of the model that is in shadow. Without it, or where it cannot be loaded here, by the study rule that the ledger has.
fn judge(settings: &Settings) -> ShadowJudge {
    let Some(inference) = settings.inference.of_shadow() else { return ShadowJudge::default() };
    match load_judge(&inference) {
        Ok((card, sequence)) => ShadowJudge::new(card, sequence),
        Err(error) => {
            eprintln!("inference.shadow cannot be loaded, so its study rule judges, not its whole card: {error}");
            ShadowJudge::default()
        }
    }
}

fn page(comparison: &Comparison, screen: Screen) -> String {
    let Comparison { model, shadow, judged_by, agreement, left_out, slices, disagreements } = comparison;
    let short = |sha256: &str| sha256.get(..12).unwrap_or(sha256).to_owned();
    let model = match model {
        Some(model) => format!("{} {}", clean(&model.model), short(&model.model_sha256)),
        None => "-".into(),
    };
    let off = if shadow.present { "" } else { ", no longer on" };
    let mut out = format!("model      {model}\nshadow     {} {}{off}\n", clean(&shadow.name), short(&shadow.sha256));
    out.push_str(&format!("judged by  {}, in shadow\n", clean(judged_by)));
    out.push_str(&format!(
        "compared   {}, {}\n",
        counted(agreement.studies, "study"),
        counted(slices.compared, "slice")
    ));
    let mut left: Vec<String> = Vec::new();
    for (count, why) in [
        (left_out.incomplete, "not all slices scored in shadow"),
        (left_out.not_triaged, "not triaged by one of the two"),
        (left_out.other_model, "judged by an earlier model"),
    ] {
        if count > 0 {
            left.push(format!("{count} {why}"));
        }
    }
    if !left.is_empty() {
        out.push_str(&format!("left out   {}\n", left.join(", ")));
    }
    out.push_str(&format!("waiting    {} for the shadow model\n", counted(slices.waiting, "slice")));
    if slices.failed > 0 {
        out.push_str(&format!("failed     {} in shadow\n", counted(slices.failed, "slice")));
    }
    if agreement.studies == 0 {
        out.push_str("\nno study has been judged by both models yet\n");
        return out;
    }
    let cells = |name: &str, a: u64, b: u64| (false, vec![name.to_owned(), a.to_string(), b.to_string()]);
    out.push_str(&format!("\n{}\n", screen.strong("Studies")));
    out.push_str(&screen.table(
        &["", "flagged in shadow", "not flagged in shadow"],
        vec![
            cells("flagged", agreement.both, agreement.only_model),
            cells("not flagged", agreement.only_shadow, agreement.neither),
        ],
    ));
    let correlation = slices.correlation.map_or_else(|| "-".into(), |value| format!("{value:.3}"));
    out.push_str(&format!("\ncorrelation of the slices' probabilities: {correlation}\n"));
    if !disagreements.is_empty() {
        out.push_str(&format!("\n{}\n", screen.strong("Studies that only one of the two flags")));
        out.push_str(&screen.table(
            &[
                "flagged by",
                "score",
                "threshold",
                "shadow score",
                "shadow threshold",
                "last slice (UTC)",
                "accession",
                "study",
            ],
            disagreements.iter().take(ROWS_FOR_PEOPLE).map(|study| (false, disagreement(study))).collect(),
        ));
        if disagreements.len() > ROWS_FOR_PEOPLE {
            out.push_str("… and more: --format csv has all\n");
        }
    }
    out
}

fn disagreement(study: &ComparedStudy) -> Vec<String> {
    vec![
        if study.flagged { "model" } else { "shadow" }.into(),
        format!("{:.3}", study.score),
        format!("{:.3}", study.threshold),
        format!("{:.3}", study.shadow_score),
        format!("{:.3}", study.shadow_threshold),
        moment(&study.last_received_at),
        text_or_dash(study.accession_number.as_deref()),
        text_or_dash(Some(&study.study_uid)),
    ]
}

const COLUMNS: [&str; 9] = [
    "study_uid",
    "accession_number",
    "last_received_at",
    "flagged",
    "score",
    "threshold",
    "shadow_flagged",
    "shadow_score",
    "shadow_threshold",
];

fn record(study: &ComparedStudy) -> Vec<String> {
    vec![
        text(Some(&study.study_uid)),
        text(study.accession_number.as_deref()),
        study.last_received_at.clone(),
        u8::from(study.flagged).to_string(),
        own(Some(study.score)),
        own(Some(study.threshold)),
        u8::from(study.shadow_flagged).to_string(),
        own(Some(study.shadow_score)),
        own(Some(study.shadow_threshold)),
    ]
}
