//! A DICOM object to Hounsfield units to the model's input.
//!
//! Training and the node both call [`model_input`]; there is no second way from an object to a tensor.

mod transform;

pub use transform::{Transform, Window};
