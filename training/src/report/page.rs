//! The page: everything in it, nothing fetched, no script.

use askama::Template;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::charts::grouped;
use super::sheet::{EDGE, Sheet};
use super::{Figure, ReportError};
use crate::calibration::Platt;
use crate::data::SplitBy;
use crate::describe;
use crate::evaluate::Evaluation;
use crate::evaluate::rules::{self, Compared};
use crate::metrics::{Figures, Interval, MeanSd};
use crate::run::{LabelCount, Measurement, Run, Side};

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    name: &'a str,
    facts: Vec<(&'static str, String)>,
    is_crossed: bool,
    by_image: bool,
    labels: &'a [LabelCount],
    label_chart: Option<String>,
    loss_chart: Option<String>,
    first: Section,
    sheets: Vec<Plate>,
    sources: Vec<(String, Table)>,
    flipped: Option<Table>,
    rules: Vec<RuleRow>,
    rules_explained: &'static str,
    reliability_chart: Option<String>,
    calibration: String,
    second: Option<Section>,
}

/// The figures of one side.
struct Section {
    title: &'static str,
    table: Table,
    /// Parts that cannot be shown, and why.
    notes: Vec<String>,
    roc: String,
    precision_recall: String,
    confusion_slices: String,
    confusion_studies: String,
    scores: String,
}

/// A study rule's line.
struct RuleRow {
    rule: String,
    cells: [String; 3],
    remark: &'static str,
}

struct Table {
    heads: Vec<String>,
    rows: Vec<(&'static str, Vec<String>)>,
}

/// A sheet of slices.
struct Plate {
    kind: &'static str,
    file: &'static str,
    total: String,
    tiles: Vec<PlateTile>,
    unreadable: Vec<(String, String)>,
}

struct PlateTile {
    /// Base64.
    png: String,
    id: String,
    patient: String,
    /// `fold N`, for a cross-validation.
    fold: Option<String>,
    probability: String,
    threshold: String,
}

/// The page of a run, with its charts and sheets.
pub fn html(run: &Run, figures: &[Figure], sheets: &[Sheet]) -> Result<String, ReportError> {
    let first = run.first();
    let page = Page {
        name: &run.config.candidate.name,
        facts: facts(run),
        is_crossed: run.crossed.is_some(),
        by_image: run.by == SplitBy::Image,
        labels: &run.labels,
        label_chart: inline(figures, "labels.svg"),
        loss_chart: inline(figures, "loss.svg"),
        first: section(run, first, figures),
        sheets: sheets.iter().map(plate).collect::<Result<_, _>>()?,
        sources: run
            .supplement
            .sources
            .iter()
            .map(|(name, evaluation)| (name.clone(), plain_table(evaluation)))
            .collect(),
        flipped: run.supplement.test_time_flip.as_ref().map(plain_table),
        rules: run.supplement.study_rules.iter().map(rule_row).collect(),
        rules_explained: rules::EXPLAINED,
        reliability_chart: inline(figures, "reliability.svg"),
        calibration: first.decision.calibration.map_or(String::new(), |Platt { a, b }| {
            format!("The probability is sigmoid({a:.3} · logit {b:+.3}) of what the network says.")
        }),
        second: run.measurements.get(1).map(|second| section(run, second, figures)),
    };
    page.render().map_err(|error| ReportError::Draw { figure: super::PAGE.into(), why: error.to_string() })
}

/// A chart as part of the page: there the namespace goes without saying, and the page holds no address.
fn inline(figures: &[Figure], name: &str) -> Option<String> {
    let figure = figures.iter().find(|figure| figure.name == name)?;
    Some(figure.svg.replacen(" xmlns=\"http://www.w3.org/2000/svg\"", " role=\"img\"", 1))
}

fn section(run: &Run, measurement: &Measurement, figures: &[Figure]) -> Section {
    let chart = |name: &str| inline(figures, &format!("{}{name}", measurement.side.prefix())).unwrap_or_default();
    let evaluation = &measurement.evaluation;
    let one_class = |what: &str, figures: &Figures| {
        let which = match figures.positives {
            0 => "without hemorrhage",
            positives if positives == figures.cases => "with hemorrhage",
            _ => return None,
        };
        Some(format!("All {} {what} are {which}: they have no AUC and no curves.", grouped(figures.cases)))
    };
    let notes = [one_class("slices", &evaluation.slices), one_class("studies", &evaluation.studies)];
    Section {
        title: measurement.side.name(),
        table: table(run, measurement),
        notes: notes.into_iter().flatten().collect(),
        roc: chart("roc.svg"),
        precision_recall: chart("precision-recall.svg"),
        confusion_slices: chart("confusion-slices.svg"),
        confusion_studies: chart("confusion-studies.svg"),
        scores: chart("scores.svg"),
    }
}

type Value = fn(&Figures) -> Option<Interval>;
type Over = fn(&crate::cross_validation::Spread) -> Option<MeanSd>;
/// A row of the table: its name, its value, and that over folds.
const ROWS: [(&str, Value, Over); 6] = [
    ("AUC", |f| f.auc, |s| s.auc),
    ("F2", |f| f.f2, |s| s.f2),
    ("sensitivity (recall)", |f| f.sensitivity, |s| s.sensitivity),
    ("specificity", |f| f.specificity, |s| s.specificity),
    ("precision", |f| Some(f.precision), |s| s.precision),
    ("accuracy", |f| Some(f.accuracy), |s| s.accuracy),
];

fn interval(i: Option<Interval>) -> String {
    i.map_or("one class only".into(), |i| format!("{:.3} ({:.3} to {:.3})", i.value, i.low, i.high))
}

/// Slices' and studies' figures side by side.
fn plain_table(evaluation: &Evaluation) -> Table {
    let (slices, studies) = (&evaluation.slices, &evaluation.studies);
    let of = |f: &Figures| format!("{}, {} with hemorrhage", grouped(f.cases), grouped(f.positives));
    Table {
        heads: vec![format!("slices ({})", of(slices)), format!("studies ({})", of(studies))],
        rows: ROWS.map(|(name, value, _)| (name, vec![interval(value(slices)), interval(value(studies))])).to_vec(),
    }
}

/// With mean and deviation over the folds, where there are folds.
fn table(run: &Run, measurement: &Measurement) -> Table {
    let mut table = plain_table(&measurement.evaluation);
    if let Some(crossed) = run.crossed.as_ref().filter(|_| measurement.side == Side::Folds) {
        table.heads.extend(["slices", "studies"].map(|of| format!("{of}, mean ± sd of {} folds", crossed.folds.len())));
        for ((_, cells), (_, value, over)) in table.rows.iter_mut().zip(ROWS) {
            cells.push(crossed.over_folds(over(&crossed.slices), |fold| value(&fold.slices)));
            cells.push(crossed.over_folds(over(&crossed.studies), |fold| value(&fold.studies)));
        }
    }
    table
}

fn rule_row(compared: &Compared) -> RuleRow {
    let Compared { rule, shippable, candidate, chosen, auc, sensitivity, specificity } = compared;
    let remark = match (chosen, *shippable && *candidate) {
        (true, _) => "chosen",
        (false, false) => "compared only",
        (false, true) => "",
    };
    RuleRow { rule: rule.clone(), cells: [*auc, *sensitivity, *specificity].map(interval), remark }
}

fn plate(sheet: &Sheet) -> Result<Plate, ReportError> {
    let tiles = sheet.tiles.iter().map(|tile| {
        let scored = &tile.scored;
        Ok(PlateTile {
            png: STANDARD.encode(tile.png()?),
            id: scored.slice.id.clone(),
            patient: scored.slice.patient.clone(),
            fold: scored.side.strip_prefix("fold-").map(|number| format!("fold {number}")),
            probability: format!("{:.4}", scored.probability),
            threshold: format!("{:.4}", scored.threshold),
        })
    });
    let tiles = tiles.collect::<Result<_, ReportError>>()?;
    let unreadable = sheet.unreadable.iter().map(|(scored, why)| (scored.slice.id.clone(), why.clone())).collect();
    Ok(Plate { kind: sheet.kind.name(), file: sheet.kind.file(), total: grouped(sheet.total), tiles, unreadable })
}

fn facts(run: &Run) -> Vec<(&'static str, String)> {
    let config = &run.config;
    let decision = &run.first().decision;
    let epochs = |state: &crate::fit::State| state.epochs.len();
    let (least, most) = run.histories.iter().fold((usize::MAX, 0), |(least, most), history| {
        (least.min(epochs(&history.state)), most.max(epochs(&history.state)))
    });
    let trained = if least < most { format!("{least} to {most} epochs") } else { format!("{most} epochs") };
    let draws = match config.balance {
        Some(draws) => format!("{} draws an epoch, half of them with hemorrhage", grouped(draws)),
        None => "every training slice once an epoch, classes weighted".into(),
    };
    vec![
        ("Network", format!("{}, input {}", config.candidate.name, describe::input(&config.transform))),
        (
            "Training",
            format!("{trained}; {draws}; batch {}; {}; seed {}", config.batch, describe::rate(config), config.seed),
        ),
        ("A slice is flagged", format!("when its probability is at least {:.4}.", decision.slice_threshold)),
        (
            "A study is flagged",
            describe::rule(&decision.study_rule).trim_start_matches("a study is flagged ").to_owned(),
        ),
    ]
}
