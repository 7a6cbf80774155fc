//! The transform that a model card names: from the pixels of one frame to the model's input tensor.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::F32;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use serde::{Deserialize, Serialize};

use super::crop::HeadCrop;
use super::error::ImagingError;
use super::object::DicomObject;
use super::pixels::{AIR, Frame, decode_frame};
use super::placement::Placement;

/// A display window in Hounsfield units (PS3.3 C.11.2.1.2): `center` and `width` in HU.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    pub center: f32,
    pub width: f32,
}

/// The transforms that a model card may name. A card that names another one does not parse, so the node refuses it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub enum Transform {
    /// The stored pixel values as they are, no rescale, no window: what the m10 study fed its networks. One channel.
    StoredValues { height: u32, width: u32 },
    /// Hounsfield units through each window in turn, linear from 0 at `center - width/2` to 1 at `center + width/2`,
    /// clipped outside; one channel a window. Where the card has a `crop_to_head`, the image is cropped before all else;
    /// where it has a `normalization`, that follows the windows.
    HounsfieldWindows {
        height: u32,
        width: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        crop_to_head: Option<HeadCrop>,
        windows: Vec<Window>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        normalization: Option<Normalization>,
    },
}

/// A shift and scale of the windowed values, the same in every channel: `(value - mean) / deviation`. A network that
/// was pretrained on normalized images takes its input so.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalization {
    /// In windowed values, so usually between 0 and 1.
    pub mean: f32,
    /// In windowed values, above 0.
    pub deviation: f32,
}

impl Normalization {
    pub fn apply(&self, values: &mut [f32]) {
        for value in values {
            *value = (*value - self.mean) / self.deviation;
        }
    }

    /// Whether mean and deviation are finite and the deviation is above 0.
    fn check(&self) -> Result<(), String> {
        let Normalization { mean, deviation } = *self;
        if mean.is_finite() && deviation.is_finite() && deviation > 0.0 {
            return Ok(());
        }
        Err(format!("a normalization of mean {mean} and deviation {deviation}"))
    }
}

impl Transform {
    /// `[channels, height, width]` of the tensor this transform makes.
    pub fn shape(&self) -> [usize; 3] {
        match self {
            Transform::StoredValues { height, width } => [1, *height as usize, *width as usize],
            Transform::HounsfieldWindows { height, width, windows, .. } => {
                [windows.len(), *height as usize, *width as usize]
            }
        }
    }

    /// The shift and scale after the windows, where there is one.
    pub fn normalization(&self) -> Option<Normalization> {
        match self {
            Transform::StoredValues { .. } => None,
            Transform::HounsfieldWindows { normalization, .. } => *normalization,
        }
    }

    /// The same transform without its [normalization](Self::normalization): windowed values stay within 0 to 1, where
    /// training augments them. `normalization().apply()` on what it makes gives what the whole transform makes.
    pub fn windowed(&self) -> Transform {
        let mut windowed = self.clone();
        if let Transform::HounsfieldWindows { normalization, .. } = &mut windowed {
            *normalization = None;
        }
        windowed
    }

    /// How the image is cropped to the head, where it is.
    pub fn crop_to_head(&self) -> Option<HeadCrop> {
        match self {
            Transform::StoredValues { .. } => None,
            Transform::HounsfieldWindows { crop_to_head, .. } => *crop_to_head,
        }
    }

    /// Whether the numbers make sense: every window has a finite center and a width above 0, a normalization a
    /// finite mean and a deviation above 0, and a crop shares from 0 to 1.
    pub fn check(&self) -> Result<(), String> {
        let Transform::HounsfieldWindows { windows, normalization, crop_to_head, .. } = self else { return Ok(()) };
        crop_to_head.map_or(Ok(()), |crop| crop.check())?;
        match windows.iter().find(|window| !(window.center.is_finite() && window.width > 0.0)) {
            Some(window) => Err(format!("a window of center {} and width {} HU", window.center, window.width)),
            None => normalization.map_or(Ok(()), |normalization| normalization.check()),
        }
    }
}

/// A model's input for one slice.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// `[channels, height, width]`.
    pub shape: [usize; 3],
    /// Channel by channel, row by row.
    pub data: Vec<f32>,
}

/// The model's input for frame `frame` (from 0) of an object. The node and training both go this way; there is no other
/// from an object to a tensor.
///
/// # Errors
/// [`ImagingError`], whose [`is_contradiction`](ImagingError::is_contradiction) tells an ineligible object from a
/// failure.
pub fn model_input(object: &DicomObject, frame: u32, transform: &Transform) -> Result<Tensor, ImagingError> {
    Ok(placed_input(object, frame, transform)?.0)
}

/// As [`model_input`], with the part of the frame that the tensor shows.
///
/// # Errors
/// As [`model_input`].
pub fn placed_input(
    object: &DicomObject,
    frame: u32,
    transform: &Transform,
) -> Result<(Tensor, Placement), ImagingError> {
    let frame = decode_frame(object, frame)?;
    let hounsfield = frame.hounsfield();
    placed_frame(&frame, hounsfield, transform)
}

/// The model's input for a decoded frame.
///
/// Where the patient does not lie upright in the frame, it is turned by quarters first ([`Frame::turn`]).
///
/// If the transform crops to the head, the square around it ([`HeadCrop::square`]) is the image, with air where it
/// reaches beyond the frame; a frame without a head is taken whole.
///
/// A frame of another size than the model's is padded to a square with air, centered, and resampled with a triangle
/// filter that widens as the image shrinks, so that nothing aliases; the filter does not overshoot, so that no dark or
/// bright seam appears along the skull. Hounsfield units are resampled first and windowed then, and
/// normalized last.
///
/// # Errors
/// [`ImagingError::Resample`] where the transform asks for an empty image.
pub fn frame_input(frame: &Frame, transform: &Transform) -> Result<Tensor, ImagingError> {
    Ok(placed_frame(frame, frame.hounsfield(), transform)?.0)
}

/// As [`frame_input`], with the part of the frame that the tensor shows, for who has the frame's Hounsfield units already.
///
/// # Errors
/// As [`frame_input`].
pub fn placed_frame(
    frame: &Frame,
    hounsfield: Vec<f32>,
    transform: &Transform,
) -> Result<(Tensor, Placement), ImagingError> {
    let shape = transform.shape();
    let turn = frame.turn;
    let (rows, columns) = turn.size(frame.rows, frame.columns);
    let uncropped = |height: u32, width: u32| match (rows, columns) == (height, width) {
        true => Placement::whole(rows, columns, turn),
        false => Placement::padded(rows, columns, turn),
    };
    match transform {
        Transform::StoredValues { height, width } => {
            let stored = frame.stored.iter().map(|&stored| stored as f32).collect();
            let stored = turn.turned(stored, frame.rows, frame.columns);
            let data = fit(stored, (rows, columns), (*height, *width), frame.stored_air())?;
            Ok((Tensor { shape, data }, uncropped(*height, *width)))
        }
        Transform::HounsfieldWindows { height, width, crop_to_head, windows, normalization } => {
            let hounsfield = turn.turned(hounsfield, frame.rows, frame.columns);
            let head = crop_to_head.and_then(|crop| crop.square(&hounsfield, rows, columns));
            let (image, from, placement) = match head {
                Some(square) => (
                    square.of(&hounsfield, columns, AIR),
                    (square.side, square.side),
                    Placement::cropped(rows, columns, square, turn),
                ),
                None => (hounsfield, (rows, columns), uncropped(*height, *width)),
            };
            let hounsfield = fit(image, from, (*height, *width), AIR)?;
            let mut data = Vec::with_capacity(shape.iter().product());
            for window in windows {
                let low = window.center - window.width / 2.0;
                data.extend(hounsfield.iter().map(|hu| ((hu - low) / window.width).clamp(0.0, 1.0)));
            }
            if let Some(normalization) = normalization {
                normalization.apply(&mut data);
            }
            Ok((Tensor { shape, data }, placement))
        }
    }
}

/// Brings an image (row by row; sizes are rows, columns) to the wanted size.
fn fit(image: Vec<f32>, from: (u32, u32), to: (u32, u32), air: f32) -> Result<Vec<f32>, ImagingError> {
    if from == to {
        return Ok(image);
    }
    let failed = |why: String| ImagingError::Resample { from, to, why };
    let (rows, columns) = (from.0 as usize, from.1 as usize);
    let side = rows.max(columns);
    let square: Vec<F32> = if rows == columns {
        // In place: nothing is copied.
        image.into_iter().map(F32::new).collect()
    } else {
        let mut square = vec![F32::new(air); side * side];
        let (top, left) = ((side - rows) / 2, (side - columns) / 2);
        for (row, line) in image.chunks_exact(columns).enumerate() {
            let begin = (top + row) * side + left;
            for (cell, &value) in square[begin..begin + columns].iter_mut().zip(line) {
                *cell = F32::new(value);
            }
        }
        square
    };
    let source = TypedImageRef::new(side as u32, side as u32, &square).map_err(|error| failed(error.to_string()))?;
    let mut target = TypedImage::new(to.1, to.0);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    Resizer::new().resize_typed(&source, &mut target, &options).map_err(|error| failed(error.to_string()))?;
    Ok(target.pixels().iter().map(|pixel| pixel.0).collect())
}
