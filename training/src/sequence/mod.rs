//! The sequence network: a second, small network that reads what a slice network said of a whole series, and gives slices and series
//! scores that know their neighbours.
//!
//! It is trained on out-of-fold scores of patients, as a cross-validation left them: scores of slices that a network was trained
//! on are far surer than those of patients to come. Some dozens of patients teach little, so it begins as a smoothing over
//! neighbours and a strong decay draws it back there.

mod export;
mod figures;
mod fit;
mod network;
mod series;
mod text;

pub use export::{INPUT, SERIES_OUTPUT, SLICE_OUTPUT, onnx};
pub(crate) use figures::{ByBoth, early_threshold};
pub use figures::{Compared, FoldThresholds, MeasureError, Measured, SequenceFigures, measure};
pub use fit::{Example, Settings, fit};
pub use network::{Logits, SequenceNetwork};
pub use series::{Scored, Series};
pub use text::{in_text, with_thresholds};
