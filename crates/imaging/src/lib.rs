//! A DICOM object to Hounsfield units to the model's input.
//!
//! [`read_file`] takes what is on disk, [`decode_frame`] one frame of it to stored values, [`Frame::hounsfield`] those to
//! Hounsfield units, [`model_input`] all the way to the tensor that the model card's [`Transform`] describes.
//! Training and the node go this way; there is no second one from an object to a tensor. [`placed_input`] also says which part of
//! the frame the tensor shows.

pub mod attributes;
mod character_set;
mod codec;
mod crop;
mod error;
mod head;
mod layout;
mod object;
pub mod phantom;
mod pixels;
mod placement;
mod same;
#[cfg(test)]
mod tests;
mod transform;
mod turn;

pub use codec::can_decode;
pub use crop::{HeadCrop, Square};
pub use error::ImagingError;
pub use head::{HeadSigns, Shows, head_signs};
pub use layout::{MAX_FRAMES, MAX_SIDE, MIN_SIDE};
pub use object::{
    DicomObject, MAX_FILE_BYTES, MAX_INFLATED_BYTES, ObjectHeader, PixelExtent, ReadCause, ReadError, is_deflated,
    read_bytes, read_file, read_frames, read_frames_bytes, read_frames_of, read_header, read_header_bytes,
    read_identity,
};
pub use pixels::{AIR, Frame, ModalityLut, decode_frame, frame_count, most_frames, uncounted_frames};
pub use placement::{PixelBox, Placement, Region};
pub use same::is_same_object;
pub use transform::{Normalization, Tensor, Transform, Window, frame_input, model_input, placed_frame, placed_input};
pub use turn::{Turn, image_orientation};
