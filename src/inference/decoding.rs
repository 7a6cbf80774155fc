//! From a slice's file to the model's input. One large object is in memory at a time, whatever the number of threads.

use std::sync::{RwLock, TryLockError};

use crate::ledger::Claim;
use crate::objects::{LocalFile, Objects};
use triaged_imaging::{self as imaging, DicomObject, ImagingError, ReadCause, ReadError, Tensor, Transform};

/// A file of this size is large.
const LARGE: u64 = 16 << 20;

/// Why a slice has no score.
pub(super) enum Failure {
    /// The object itself cannot be triaged.
    Ineligible(String),
    /// It will be the same the next time.
    Lasting(String),
    /// It may pass.
    Passing(String),
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Failure {
        match error.cause {
            ReadCause::Io(_) => Failure::Passing(error.to_string()),
            // The archive's files do not change.
            _ => Failure::Lasting(error.to_string()),
        }
    }
}

impl From<ImagingError> for Failure {
    fn from(error: ImagingError) -> Failure {
        match error.is_contradiction() {
            true => Failure::Ineligible(error.to_string()),
            false => Failure::Lasting(error.to_string()),
        }
    }
}

/// The large object last decoded from, for the frames that follow. Whoever decodes a frame of it holds the lock to read.
pub(super) type LargeObject = RwLock<Option<(String, DicomObject)>>;

/// A slice as a model's input.
pub(super) fn decode(
    objects: &dyn Objects,
    claim: &Claim,
    transform: &Transform,
    large: &LargeObject,
) -> Result<Tensor, Failure> {
    let input = |object: &DicomObject| {
        if let Some(claimed) = &claim.head_check {
            check_head(object, claim.frame - 1, claimed)?;
        }
        Ok(imaging::model_input(object, claim.frame - 1, transform)?)
    };
    let file = open(objects, &claim.path)?;
    if !is_large(&file, &claim.transfer_syntax) {
        return input(&imaging::read_frames(file.path())?);
    }
    // A panic while it was locked left at worst no object, which is read again.
    if let Some((held, object)) = &*large.read().unwrap_or_else(|poisoned| poisoned.into_inner())
        && *held == claim.path
    {
        return input(object);
    }
    // Its frames are claimed together: one thread reads it for all, when all are done with the one before.
    let mut large = large.write().unwrap_or_else(|poisoned| poisoned.into_inner());
    if large.as_ref().is_none_or(|(held, _)| *held != claim.path) {
        *large = None;
        *large = Some((claim.path.clone(), imaging::read_frames(file.path())?));
    }
    input(&large.as_ref().expect("it was just put there").1)
}

/// The header named another part of the body: is it a head all the same?
fn check_head(object: &DicomObject, frame: u32, claimed: &str) -> Result<(), Failure> {
    let frame = imaging::decode_frame(object, frame)?;
    let signs = imaging::head_signs(&frame.hounsfield(), frame.rows, frame.columns);
    match signs.is_some_and(|signs| signs.is_head()) {
        true => Ok(()),
        false => Err(Failure::Ineligible(format!("not the head: {claimed}, and the pixels are not those of a head"))),
    }
}

/// Lets go of the object while nothing waits: it may take GiB. Whoever decodes from it now leaves it for the next time.
pub(super) fn forget(large: &LargeObject) {
    match large.try_write() {
        Ok(mut large) => *large = None,
        Err(TryLockError::Poisoned(poisoned)) => *poisoned.into_inner() = None,
        Err(TryLockError::WouldBlock) => {}
    }
}

/// The file of a slice. A disk or a network that fails may pass.
pub(super) fn open(objects: &dyn Objects, path: &str) -> Result<LocalFile, Failure> {
    objects.get(path).map_err(|error| Failure::Passing(format!("the object {path} cannot be read: {error}")))
}

fn is_large(file: &LocalFile, transfer_syntax: &str) -> bool {
    // The size that a deflated file inflates to is not known before.
    imaging::is_deflated(transfer_syntax) || file.size() >= LARGE
}
