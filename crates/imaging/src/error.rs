//! Why a frame could not be turned into a model's input.

/// Why pixels could not be had from an object. No text holds patient data.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImagingError {
    #[error("the object has no pixel data")]
    NoPixelData,
    #[error("not a monochrome image: {samples} samples a pixel, photometric interpretation {photometric}")]
    NotMonochrome { samples: i64, photometric: String },
    #[error(
        "an image of {rows} rows and {columns} columns: both must be from 1 to {limit}",
        limit = crate::layout::MAX_SIDE
    )]
    Size { rows: i64, columns: i64 },
    #[error("{frames} frames: a number from 1 to {limit} is possible", limit = crate::layout::MAX_FRAMES)]
    Frames { frames: String },
    #[error("{allocated} bits allocated, {stored} stored: 8 or 16 allocated and 2 to 16 stored are possible")]
    Depth { allocated: i64, stored: i64 },
    #[error("the rescale to Hounsfield units makes no sense: {0}")]
    Rescale(String),
    #[error("frame {frame} of an object of {frames} frames")]
    NoSuchFrame { frame: u32, frames: u32 },
    #[error("pixel data truncated: frame {frame} ends at byte {needed}, there are {present}")]
    Truncated { frame: u32, needed: u64, present: u64 },
    #[error("transfer syntax {0} cannot be decoded")]
    TransferSyntax(String),
    #[error("the {codec} data of frame {frame} are wrong: {why}")]
    Codestream { codec: &'static str, frame: u32, why: String },
    #[error("cannot resample from {from:?} to {to:?} (rows, columns): {why}")]
    Resample { from: (u32, u32), to: (u32, u32), why: String },
}

impl ImagingError {
    /// Whether the object itself is one that cannot be triaged (then it is ineligible, and trying again is in vain), as
    /// opposed to one that should have worked and did not (then it is failed).
    pub fn is_contradiction(&self) -> bool {
        match self {
            ImagingError::NoPixelData
            | ImagingError::NotMonochrome { .. }
            | ImagingError::Size { .. }
            | ImagingError::Frames { .. }
            | ImagingError::Depth { .. }
            | ImagingError::Rescale(_) => true,
            ImagingError::NoSuchFrame { .. }
            | ImagingError::Truncated { .. }
            | ImagingError::TransferSyntax(_)
            | ImagingError::Codestream { .. }
            | ImagingError::Resample { .. } => false,
        }
    }
}
