//! JSON files that are whole whenever they are read.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// How the lines of a text end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineEnds {
    crlf: bool,
}

impl LineEnds {
    /// Of a file, by its first line.
    ///
    /// # Errors
    /// As reading does.
    pub fn of(path: &Path) -> io::Result<Self> {
        let mut first = Vec::new();
        BufReader::new(fs::File::open(path)?).read_until(b'\n', &mut first)?;
        Ok(Self { crlf: first.ends_with(b"\r\n") })
    }

    /// The line of a row behind the first, counted from 1. The reader takes a row to end at the carriage return, and the line feed to be part of
    /// the next one, which so would stand a line too high.
    pub fn line_of(self, row: &csv::StringRecord) -> u64 {
        row.position().map_or(0, csv::Position::line) + u64::from(self.crlf)
    }
}

/// A file or folder that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct FileError {
    pub path: PathBuf,
    pub source: std::io::Error,
}

/// A folder that one process alone writes, for as long as this is kept. The file that it locks stays behind and means nothing.
#[derive(Debug)]
pub struct Lock {
    _file: fs::File,
}

impl Lock {
    /// Of a folder that is there.
    ///
    /// # Errors
    /// [`FileError`], also where another process has it.
    pub fn of(folder: &Path) -> Result<Self, FileError> {
        let failed = |source| FileError { path: folder.into(), source };
        let file = fs::File::create(folder.join(".lock")).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(fs::TryLockError::WouldBlock) => Err(failed(io::Error::other(
                "another process trains in this folder; wait for it, or take another folder",
            ))),
            // A file system that knows no locks is no reason not to train.
            Err(fs::TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                Ok(Self { _file: file })
            }
            Err(fs::TryLockError::Error(error)) => Err(failed(error)),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_locked_for_one_at_a_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = Lock::of(folder.path()).expect("nobody has it");
        let second = Lock::of(folder.path()).expect_err("the first has it").to_string();
        assert!(second.contains("another process"), "{second}");
        drop(first);
        Lock::of(folder.path()).expect("it is free again");
    }
}
