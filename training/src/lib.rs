//! Trains the models that triaged runs: folders in the RSNA 2019 layout in, an ONNX file and its card out.
//!
//! ```text
//! data (index → split → sample → loader) → fit → evaluate → export (ONNX, card, parity), report
//!                                           ↑ candidates (m1 … m11) → network
//! ```

pub mod ablation;
pub mod calibration;
pub mod candidates;
pub mod card;
pub mod cli;
pub mod cross_validation;
pub mod data;
pub mod describe;
pub mod evaluate;
pub mod export;
pub mod files;
pub mod fit;
mod logistic;
pub mod metrics;
pub mod network;
pub mod onnx;
pub mod parity;
pub mod pretrained;
pub mod progress;
pub mod publication;
pub mod quantize;
pub mod recipe;
pub mod report;
pub mod run;
pub mod runtime;
