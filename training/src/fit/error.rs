//! Why a training cannot begin or go on.

use std::path::PathBuf;

use crate::data::LoadError;
use crate::files::FileError;
use crate::network::LayerError;
use crate::pretrained::PretrainedError;

#[derive(Debug, thiserror::Error)]
pub enum FitError {
    #[error(transparent)]
    Layers(#[from] LayerError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Pretrained(#[from] PretrainedError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{path} was begun with another configuration ({keys}); take another folder or delete it")]
    OtherConfig { path: PathBuf, keys: String },
    #[error("the checkpoint {path} cannot be used: {why}")]
    Checkpoint { path: PathBuf, why: String },
    #[error("the loss stopped being a number in epoch {epoch}, batch {batch}, before any epoch was finished")]
    Nan { epoch: usize, batch: usize },
    #[error("{0} needs slices of both classes")]
    OneClass(&'static str),
    #[error("half-size epochs need a position grid: free weights at every position fit one image size only")]
    HalfSize,
    #[error(
        "there are no validation slices to choose an epoch by: hold some back, or keep the last epoch (--monitor last)"
    )]
    NoValidation,
}
