//! JSON files that are whole whenever they are read.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A file or folder that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct FileError {
    pub path: PathBuf,
    pub source: std::io::Error,
}

/// Writes beside and renames, so that what is read is whole.
///
/// # Errors
/// [`FileError`], the file of before untouched.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), FileError> {
    let failed = |source| FileError { path: path.into(), source };
    let draft = path.with_extension("draft");
    let text = serde_json::to_string_pretty(value).map_err(|error| failed(error.into()))?;
    fs::write(&draft, text + "\n").and_then(|()| fs::rename(&draft, path)).map_err(failed)
}

/// Reads what [`write_json`] wrote.
///
/// # Errors
/// [`FileError`], also where the file holds something else.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, FileError> {
    let failed = |source| FileError { path: path.into(), source };
    let text = fs::read_to_string(path).map_err(failed)?;
    serde_json::from_str(&text).map_err(|error| failed(error.into()))
}
