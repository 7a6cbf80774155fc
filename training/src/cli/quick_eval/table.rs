//! The outcomes of a quick evaluation, a row a candidate, as a file and for the terminal.

use std::path::Path;

use anyhow::Context;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use serde::{Deserialize, Serialize};

use crate::publication;

/// A candidate's outcome: a row of `quick-eval.csv`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub candidate: String,
    pub parameters: usize,
    /// Slices drawn: those of training, validation and test.
    pub samples: usize,
    pub train: usize,
    pub validation: usize,
    pub test: usize,
    /// Epochs run.
    pub epochs: usize,
    /// The epoch whose network was measured.
    pub best_epoch: Option<usize>,
    /// With the highest F2 on validation.
    pub threshold: f64,
    /// This and what follows: on the test slices.
    pub f2: f64,
    pub accuracy: f64,
    /// None without a positive.
    pub sensitivity: Option<f64>,
    pub precision: f64,
    /// None without a negative.
    pub specificity: Option<f64>,
    pub auc: Option<f64>,
    /// Seconds of training, validation after each epoch included.
    pub training_seconds_a_slice: f64,
    /// Seconds of scoring, decoding included.
    pub seconds_a_slice: f64,
}

/// Writes beside and renames, so that a table that is read is whole.
pub fn write_rows<T: Serialize>(path: &Path, rows: &[T]) -> anyhow::Result<()> {
    let cannot = || format!("cannot write {}", path.display());
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.serialize(row).with_context(cannot)?;
    }
    let bytes = writer.into_inner().map_err(csv::IntoInnerError::into_error).with_context(cannot)?;
    let draft = path.with_extension("draft");
    std::fs::write(&draft, bytes).and_then(|()| std::fs::rename(&draft, path)).with_context(cannot)
}

/// A figure to three digits.
fn three(figure: Option<f64>) -> String {
    figure.map_or("one class".into(), |figure| format!("{figure:.3}"))
}

/// For the terminal; the study's figures stand in brackets beside ours.
pub fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header([
        "",
        "parameters",
        "samples",
        "epochs",
        "threshold",
        "F2",
        "accuracy",
        "sensitivity",
        "precision",
        "specificity",
        "AUC",
        "s a slice",
    ]);
    for row in rows {
        let beside =
            |ours: Option<f64>, of: fn(&publication::Row) -> f64| match publication::quick_evaluation(&row.candidate) {
                Some(published) => format!("{} ({:.3})", three(ours), of(published)),
                None => three(ours),
            };
        table.add_row([
            row.candidate.clone(),
            row.parameters.to_string(),
            row.samples.to_string(),
            row.epochs.to_string(),
            format!("{:.3}", row.threshold),
            beside(Some(row.f2), |published| published.f2),
            beside(Some(row.accuracy), |published| published.accuracy),
            beside(row.sensitivity, |published| published.sensitivity),
            beside(Some(row.precision), |published| published.precision),
            three(row.specificity),
            three(row.auc),
            format!("{:.4}", row.seconds_a_slice),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let held = publication::HOLD_OUT;
    format!(
        "{table}\nIn brackets the study's figures, on samples of RSNA 2019 split by image; it reports neither specificity \
         nor AUC here.\nIts m10 after the final fit, on {} held-out slices at {:.3}: F2 {:.3}, accuracy {:.3}, sensitivity \
         {}, precision {:.3}, specificity {}; in cross-validation F2 {:.3} ± {:.3}, accuracy {:.3} ± {:.3}.",
        held.tn + held.fp + held.fn_ + held.tp,
        publication::HOLD_OUT_THRESHOLD,
        held.f2(),
        held.accuracy(),
        three(held.sensitivity()),
        held.precision(),
        three(held.specificity()),
        publication::CROSS_VALIDATION_F2.mean,
        publication::CROSS_VALIDATION_F2.sd,
        publication::CROSS_VALIDATION_ACCURACY.mean,
        publication::CROSS_VALIDATION_ACCURACY.sd
    )
}
