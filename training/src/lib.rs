//! Trains the models that triaged runs: folders in the RSNA 2019 layout in, an ONNX file and its card out.
//!
//! ```text
//! data (index → split → sample → loader) → fit → evaluate → export (ONNX, card, parity), report
//!                                           ↑ candidates (m1 … m12) → network
//! ```

// In place of the standard ones, which panic where nobody reads any more. Tests keep those: their runner captures them.
#[cfg(not(test))]
macro_rules! println {
    ($($text:tt)*) => { $crate::output::line(std::io::stdout(), format_args!($($text)*)) };
}
#[cfg(not(test))]
macro_rules! print {
    ($($text:tt)*) => { $crate::output::text(std::io::stdout(), format_args!($($text)*)) };
}
#[cfg(not(test))]
macro_rules! eprintln {
    ($($text:tt)*) => { $crate::output::line(std::io::stderr(), format_args!($($text)*)) };
}

pub mod ablation;
pub mod calibration;
pub mod candidates;
pub mod card;
pub mod cli;
pub mod comparison;
pub mod cross_validation;
pub mod data;
pub mod describe;
pub mod evaluate;
pub mod exact;
pub mod export;
pub mod files;
pub mod fit;
pub mod half;
pub mod heat_map;
mod logistic;
pub mod metrics;
pub mod network;
pub mod onnx;
#[cfg_attr(test, allow(dead_code, reason = "the macros that call it are not those of tests"))]
mod output;
pub mod parity;
pub mod pretrained;
pub mod progress;
pub mod publication;
pub mod quantize;
pub mod recalibrate;
pub mod recipe;
pub mod report;
pub mod run;
pub mod runtime;
pub mod sequence;
pub mod step_time;
pub mod synthesis;
