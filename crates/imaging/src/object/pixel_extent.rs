//! How much pixel data an object has, known without reading them.

use std::ops::Deref;

use super::DicomObject;

/// The pixel data of an object (7FE0,0010) as far as the object holds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PixelExtent {
    /// Bytes, without item headers and without the offset table.
    pub bytes: u64,
    /// Fragments of encapsulated pixel data (PS3.5 section A.4), without the offset table; `None` for native ones.
    pub fragments: Option<u64>,
    /// Fragments that begin as a codestream of JPEG, JPEG-LS, JPEG 2000 or RLE does.
    pub codestreams: u64,
}

/// An object without its pixel data, and how much of them there is.
#[derive(Debug, Clone)]
pub struct ObjectHeader {
    pub object: DicomObject,
    /// `None` where there is no pixel data.
    pub pixels: Option<PixelExtent>,
}

impl Deref for ObjectHeader {
    type Target = DicomObject;

    fn deref(&self) -> &DicomObject {
        &self.object
    }
}
