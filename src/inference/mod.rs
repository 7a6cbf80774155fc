//! Scores: the model card, the ONNX Runtime session, batching, and which execution provider really ran.

mod bench;
mod bound;
mod decoding;
mod engine;
mod error;
mod given_up;
mod gpu_loss;
mod graph;
#[cfg(test)]
mod heat_map_tests;
mod in_flight;
mod lane;
pub mod libraries;
mod localization;
mod pipeline;
mod priority;
mod shadow;
mod trial;
mod tuning;

pub use bench::{Bench, BenchError, Measured, bench};
#[doc(hidden)]
pub use decoding::read_answers;
pub use decoding::{DecodeLimits, DecoderError, run_worker};
pub use engine::{Engine, EngineInfo};
pub use error::EngineError;
pub use pipeline::Pipeline;
pub(crate) use priority::stand_back;
pub use shadow::{Shadow, ShadowStatus};
