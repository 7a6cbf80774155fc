//! The transform that a model card names: from the pixels of one frame to the model's input tensor.

use serde::{Deserialize, Serialize};

/// A display window in Hounsfield units (PS3.3 C.11.2.1.2): `center` and `width` in HU.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    pub center: f32,
    pub width: f32,
}

/// What a model card's `transform` may be. A card that names another one does not parse, so the node refuses it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub enum Transform {
    /// The stored pixel values as they are, no rescale, no window: what the m10 study fed its networks. One channel.
    StoredValues { height: u32, width: u32 },
    /// Hounsfield units through each window in turn, linear from 0 at `center - width/2` to 1 at `center + width/2`,
    /// clipped outside; one channel a window.
    HounsfieldWindows { height: u32, width: u32, windows: Vec<Window> },
}

impl Transform {
    /// `[channels, height, width]` of the tensor this transform makes.
    pub fn shape(&self) -> [usize; 3] {
        match self {
            Transform::StoredValues { height, width } => [1, *height as usize, *width as usize],
            Transform::HounsfieldWindows { height, width, windows } => [windows.len(), *height as usize, *width as usize],
        }
    }
}
