//! The data folder's lock: one node works on it at a time. `triaged rescore`, which scores itself where no node runs, gives way to a node that
//! starts meanwhile: scanners do not wait for it.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use crate::archive::create_synced;

use super::Role;
use super::error::StartError;

/// The file that is locked.
pub const LOCK: &str = "triaged.lock";

/// A node that was killed while it started a decoder process has left one that holds the lock until it becomes the decoder.
const PATIENCE: Duration = Duration::from_secs(1);
/// What gives way ends the slices that it scores first.
const GIVES_WAY: Duration = Duration::from_secs(60);
/// What the lock's file says while it is held by a process that gives way.
const SCORES: &[u8] = b"scores\n";
/// Locked by a node that waits for a process to give way.
const WANTED: &str = "triaged.wanted";

/// Makes the data folder and takes its lock, which is held while the file lives.
pub fn lock(data_dir: &Path) -> Result<File, StartError> {
    let lock = lock_within(data_dir, |_| PATIENCE)?;
    // Whoever had it before may have given way.
    lock.set_len(0).map_err(|source| StartError::DataFolder { path: data_dir.into(), source })?;
    Ok(lock)
}

/// [`lock`] for a node of this role: one that serves has one that only scores give way.
pub(super) fn lock_as(data_dir: &Path, role: Role) -> Result<File, StartError> {
    let mut wish = None;
    let lock = lock_within(data_dir, |data_dir| match role {
        Role::Serve if fs::read(data_dir.join(LOCK)).is_ok_and(|said| said == SCORES) => {
            wish = wish.take().or_else(|| want(data_dir));
            GIVES_WAY
        }
        Role::Serve | Role::Score => PATIENCE,
    })?;
    let said: &[u8] = if role == Role::Score { SCORES } else { b"" };
    let written = lock.set_len(0).and_then(|()| lock.write_all_at(said, 0));
    written.map_err(|source| StartError::DataFolder { path: data_dir.into(), source })?;
    Ok(lock)
}

/// Whether a node waits for this process, which only scores, to give way.
pub fn is_wanted(data_dir: &Path) -> bool {
    let Ok(file) = File::open(data_dir.join(WANTED)) else { return false };
    matches!(rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared), Err(rustix::io::Errno::WOULDBLOCK))
}

/// Says that a node waits, while the file lives. A data folder that takes no file is told of by whoever needs one.
fn want(data_dir: &Path) -> Option<File> {
    let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(data_dir.join(WANTED)).ok()?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(file)
}

/// Takes the lock within the time that `patience` gives while it is taken.
fn lock_within(data_dir: &Path, mut patience: impl FnMut(&Path) -> Duration) -> Result<File, StartError> {
    let began = Instant::now();
    loop {
        match try_lock(data_dir)? {
            Some(lock) => return Ok(lock),
            None if began.elapsed() < patience(data_dir) => std::thread::sleep(PATIENCE / 20),
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
    let path = data_dir.join(LOCK);
    let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(path).map_err(folder)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(folder(error.into())),
    }
}
