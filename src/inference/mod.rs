//! Scores: the model card, the ONNX Runtime session, batching, and which execution provider really ran.

mod bench;
mod bound;
mod engine;
mod error;
mod gpu_loss;
mod graph;
#[cfg(test)]
mod heat_map_tests;
mod in_flight;
mod lane;
pub mod libraries;
mod localization;
mod pipeline;
mod sequence;
mod shadow;
mod trial;
mod tuning;

pub use bench::{Bench, BenchError, Measured, bench};
pub use engine::{Engine, EngineInfo, load_judge};
pub use error::EngineError;
pub use pipeline::Pipeline;
pub use shadow::{Shadow, ShadowStatus};
