//! The data folder's lock: one node works on it at a time.

use std::fs::{self, File};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use crate::archive::create_synced;

use super::error::StartError;

/// A node that was killed while it started a decoder process has left one that holds the lock until it becomes the decoder.
const PATIENCE: Duration = Duration::from_secs(1);

/// Makes the data folder and takes its lock, which is held while the file lives.
pub fn lock(data_dir: &Path) -> Result<File, StartError> {
    let began = Instant::now();
    loop {
        match try_lock(data_dir)? {
            Some(lock) => return Ok(lock),
            None if began.elapsed() < PATIENCE => std::thread::sleep(PATIENCE / 20),
            None => return Err(StartError::Locked { path: data_dir.into() }),
        }
    }
}

/// [`lock`], which does not wait: `None` where a node works on the data folder.
pub fn try_lock(data_dir: &Path) -> Result<Option<File>, StartError> {
    let folder = |source| StartError::DataFolder { path: data_dir.into(), source };
    create_synced(data_dir).map_err(folder)?;
    // Also one that was made by the umask. Where it is not ours to change, the files in it are for their owner alone all the same.
    if let Err(error) = fs::set_permissions(data_dir, fs::Permissions::from_mode(0o700)) {
        tracing::debug!(folder = %data_dir.display(), "the mode of the data folder could not be set: {error}");
    }
    let path = data_dir.join("triaged.lock");
    let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(path).map_err(folder)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(folder(error.into())),
    }
}
