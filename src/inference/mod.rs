//! Scores: the model card, the ONNX Runtime session, batching, and which execution provider really ran.

mod decoding;
mod engine;
mod held;
mod lane;
mod pipeline;
mod priority;
mod shadow;

pub use engine::{Engine, EngineError, EngineInfo};
pub use pipeline::Pipeline;
pub use shadow::{Shadow, ShadowStatus};
