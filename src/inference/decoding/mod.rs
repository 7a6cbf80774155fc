//! From a slice's file to the model's input, in a process of its own.
//!
//! A hostile object may keep a decoder busy for hours, or take all memory, or crash it: the codecs are partly C and C++. So the program
//! runs itself again for that ([`worker`]), bounded in memory and processor time and shut off from files and network ([`sandbox`]). The
//! process is killed and replaced where it must be ([`process`]), and what it worked on is given up as a whole and for good.
//!
//! ```text
//! decode thread ──request, open file──▶ decoder process ──tensor (shared memory), outcome──▶ decode thread
//! ```

mod limits;
mod process;
mod protocol;
mod sandbox;
mod worker;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use crate::ledger::Claim;
use crate::objects::{LocalFile, Objects};
use triaged_imaging::{self as imaging, ImagingError, Placement, ReadCause, ReadError, Tensor, Transform};

pub use limits::DecodeLimits;
pub use process::DecoderError;
use process::DecoderProcess;
#[doc(hidden)]
pub use protocol::read_answers;
pub use sandbox::Sandbox;
pub use worker::run as run_worker;

/// A file of this size is large. One large object is in memory for decoding at a time.
const LARGE: u64 = 16 << 20;

/// A slice as a model's input.
pub(super) struct Input {
    pub tensor: Tensor,
    /// The part of the slice that the tensor shows.
    pub placement: Placement,
}

/// Why a slice has no score.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// The object itself cannot be triaged.
    Ineligible(String),
    /// It will be the same the next time.
    Lasting(String),
    /// It may pass.
    Passing(String),
    /// Decoding took more than a slice may, or ended its process. The other slices of the object are given up with it.
    Deadly(String),
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

/// How decoder processes are started, and the one for large objects, which all decode threads share.
pub(super) struct Decoders {
    program: PathBuf,
    transform: Transform,
    limits: DecodeLimits,
    large: Mutex<Option<DecoderProcess>>,
}

/// The decoder process of a thread. It is started with the first slice, or by [`Decoder::start`], and has the thread's priority.
pub(super) struct Decoder {
    decoders: Arc<Decoders>,
    process: Option<DecoderProcess>,
}

impl Decoders {
    /// `program` is this program, or another that has its subcommand `decode-worker`.
    pub fn new(program: PathBuf, transform: Transform, limits: DecodeLimits) -> Decoders {
        Decoders { program, transform, limits, large: Mutex::default() }
    }

    /// Starts a process and ends it: whether that is possible, and how far it is shut off.
    ///
    /// # Errors
    /// Why no process can be started.
    pub fn trial(&self) -> Result<Sandbox, DecoderError> {
        Ok(self.start()?.sandbox())
    }

    /// Lets go of the large object while nothing waits: it may take GiB. Whoever decodes from it now leaves it for the next time.
    pub fn forget(&self) {
        match self.large.try_lock() {
            Ok(mut large) => *large = None,
            Err(TryLockError::Poisoned(poisoned)) => *poisoned.into_inner() = None,
            Err(TryLockError::WouldBlock) => {}
        }
    }

    fn start(&self) -> Result<DecoderProcess, DecoderError> {
        DecoderProcess::start(&self.program, &self.transform, self.limits)
    }

    fn decode_by(
        &self,
        process: &mut Option<DecoderProcess>,
        file: &LocalFile,
        claim: &Claim,
    ) -> Result<Input, Failure> {
        // A process that was killed from outside says nothing of the object.
        for _ in 0..2 {
            let running = match process.take() {
                Some(running) => process.insert(running),
                None => process.insert(self.start().map_err(|error| Failure::Passing(error.to_string()))?),
            };
            match running.decode(file, claim) {
                Ok(decoded) => return decoded,
                Err(ended) => {
                    *process = None;
                    metrics::counter!("triaged_decoder_ends_total", "why" => ended.label()).increment(1);
                    match ended.failure(self.limits) {
                        Some(failure) => return Err(failure),
                        None => continue,
                    }
                }
            }
        }
        Err(Failure::Passing("the decoder process was killed from outside, twice".into()))
    }
}

impl Decoder {
    pub fn new(decoders: Arc<Decoders>) -> Decoder {
        Decoder { decoders, process: None }
    }

    /// Starts the process, so that the first slice need not wait for it. Why it cannot be started is said where it is needed.
    pub fn start(&mut self) {
        self.process = self.decoders.start().ok();
    }

    /// A slice as a model's input.
    pub fn decode(&mut self, objects: &dyn Objects, claim: &Claim) -> Result<Input, Failure> {
        let file = open(objects, &claim.path)?;
        if !is_large(&file, &claim.transfer_syntax) {
            return self.decoders.decode_by(&mut self.process, &file, claim);
        }
        // Its frames are claimed together, and its process reads it once for all of them.
        // A thread that waits here for another's slice of it has nothing better to do.
        let mut large = self.decoders.large.lock().unwrap_or_else(PoisonError::into_inner);
        self.decoders.decode_by(&mut large, &file, claim)
    }

    /// As [`Decoders::forget`].
    pub fn forget(&self) {
        self.decoders.forget();
    }
}

/// The file of a slice. A disk or a network that fails may pass.
fn open(objects: &dyn Objects, path: &str) -> Result<LocalFile, Failure> {
    objects.get(path).map_err(|error| Failure::Passing(format!("the object {path} cannot be read: {error}")))
}

fn is_large(file: &LocalFile, transfer_syntax: &str) -> bool {
    // The size that a deflated file inflates to is not known before.
    imaging::is_deflated(transfer_syntax) || file.size() >= LARGE
}
