//! Why a file cannot be read as a DICOM object.

use std::io;
use std::path::PathBuf;

use dicom_core::Tag;

use super::limits::{MAX_DEPTH, MAX_ELEMENTS, MAX_MEMORY};

/// A file that cannot be read as a DICOM object.
///
/// The text names no path: it is shown to people who must not learn where the archive lies. [`ReadError::path`] has it.
#[derive(Debug, thiserror::Error)]
#[error("cannot be read as a DICOM object: {cause}")]
pub struct ReadError {
    /// The file, or `memory` if bytes were read.
    pub path: PathBuf,
    /// The fault.
    #[source]
    pub cause: ReadCause,
}

/// The fault of a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadCause {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no DICM prefix and no data set at its begin")]
    NotDicom,
    #[error("{bytes} bytes, more than the limit of {limit}")]
    TooLarge { bytes: u64, limit: u64 },
    #[error("truncated: {tag} at byte {position} says {length} bytes, {left} are left")]
    Truncated { tag: Tag, position: u64, length: u64, left: u64 },
    #[error("sequences nested more than {MAX_DEPTH} deep")]
    TooDeep,
    #[error("more than {MAX_ELEMENTS} elements")]
    TooMany,
    #[error("its elements and items would take more than {} MiB of memory", MAX_MEMORY >> 20)]
    TooMuchMemory,
    #[error("{tag} is there twice, with different values")]
    Ambiguous { tag: Tag },
    #[error("malformed: {0}")]
    Malformed(String),
}
