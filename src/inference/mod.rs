//! Scores: the model card, the ONNX Runtime session, batching, and which execution provider really ran.

mod card;

pub use card::{CardError, ModelCard};
