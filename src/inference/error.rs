//! Why a model cannot be loaded or does not score.

use std::path::PathBuf;

use triaged_model::CardError;

/// Why there is no engine, or no scores.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Card(#[from] CardError),
    #[error(
        "ONNX Runtime cannot be loaded from {path}: {why}; run `make onnxruntime`, or name the library in \
         inference.onnxruntime"
    )]
    Library { path: PathBuf, why: String },
    #[error("inference.device = \"{device}\" cannot run here: {why}")]
    Device { device: &'static str, why: String },
    #[error(
        "inference.device = \"{device}\" cannot run here: the ONNX Runtime library {library} was built without it; take the \
         GPU build (`make onnxruntime-cuda`, see docs/gpu.md), or another device"
    )]
    Build { device: &'static str, library: PathBuf },
    #[error("the model {model} cannot be run: {why}")]
    Model { model: String, why: String },
    #[error("the model failed: {0}")]
    Run(String),
}

/// ONNX Runtime's errors run over many lines; an administrator gets one.
pub(super) fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().to_owned()
}
