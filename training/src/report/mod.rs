//! A run's pictures: label counts, losses, ROC and precision-recall curves, confusion matrices, score distributions and
//! the slices it is most wrong about, as one HTML page that needs nothing else, each figure beside it as SVG or PNG.
//!
//! ```text
//! run (Run) → curves (points) → charts (SVG) ┐
//!                            → sheet (worst slices → PNG) ────┴→ page (HTML)
//! ```
//!
//! Nothing is scored again: [`Run::read`] takes `scores.csv` and the decision that belongs to it.

mod charts;
mod curves;
mod page;
pub(crate) mod sheet;

use std::fs;
use std::path::{Path, PathBuf};

pub use curves::{Point, average_precision, precision_recall, roc};
pub use sheet::{Kind, Sheet, Tile};

use crate::run::{Run, RunError};

/// The page's file name.
pub const PAGE: &str = "report.html";

#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("cannot draw {figure}: {why}")]
    Draw { figure: String, why: String },
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: std::io::Error },
}

/// A finished chart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figure {
    /// File name.
    pub name: String,
    pub svg: String,
}

/// Reads the run in `folder` and writes its report to `out`: [`PAGE`] and the figures. Returns the page's path.
///
/// # Errors
/// [`ReportError`]; an image that cannot be read is none, the page says so.
pub fn write(folder: &Path, out: &Path) -> Result<PathBuf, ReportError> {
    write_run(&Run::read(folder)?, out)
}

/// Writes the report of a run that is already read.
///
/// # Errors
/// As [`write`](fn@write).
pub fn write_run(run: &Run, out: &Path) -> Result<PathBuf, ReportError> {
    let figures = charts::all(run)?;
    let sheets = [Kind::FalseNegatives, Kind::FalsePositives].map(|kind| Sheet::of(run.first(), kind));
    let page = page::html(run, &figures, &sheets)?;
    fs::create_dir_all(out).map_err(|source| ReportError::Write { path: out.into(), source })?;
    let keep = |name: &str, bytes: &[u8]| {
        let path = out.join(name);
        fs::write(&path, bytes).map_err(|source| ReportError::Write { path, source })
    };
    for figure in &figures {
        keep(&figure.name, figure.svg.as_bytes())?;
    }
    for sheet in &sheets {
        match sheet.png()? {
            Some(png) => keep(sheet.kind.file(), &png)?,
            // An earlier report may have left one: no sheet may stand beside a page that has none.
            None => match fs::remove_file(out.join(sheet.kind.file())) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(ReportError::Write { path: out.join(sheet.kind.file()), source });
                }
                _ => {}
            },
        }
    }
    keep(PAGE, page.as_bytes())?;
    Ok(out.join(PAGE))
}
