//! The data folder's lock: one node works on it at a time.

use std::fs::File;
use std::path::Path;

use rustix::fs::FlockOperation;

use crate::archive::create_synced;

use super::error::StartError;

/// Makes the data folder and takes its lock, which is held while the file lives.
pub fn lock(data_dir: &Path) -> Result<File, StartError> {
    let folder = |source| StartError::DataFolder { path: data_dir.into(), source };
    create_synced(data_dir).map_err(folder)?;
    let path = data_dir.join("triaged.lock");
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(folder)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StartError::Locked { path: data_dir.into() }),
        Err(error) => Err(folder(error.into())),
    }
}
