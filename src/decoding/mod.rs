//! From an object's file to pixels, in a process of its own: a model's input for scoring, Hounsfield units for the pictures that people see,
//! a data set without compression for a peer that takes nothing else ([`uncompressed`]).
//!
//! A hostile object may keep a decoder busy for hours, or take all memory, or crash it: the codecs are partly C and C++. So the program
//! runs itself again for that (`worker`), bounded in memory and processor time and shut off from files and network (`sandbox`). The
//! process is killed and replaced where it must be (`process`), and what it worked on is given up as a whole and for good.
//!
//! ```text
//! decode thread  ──request, open file──▶ decoder process ──tensor (shared memory), outcome───────────▶ decode thread
//! picture thread ──request, open file──▶ decoder process ──Hounsfield units (shared memory), outcome─▶ picture thread
//! ```
//!
//! Scoring has a process for each of its threads; pictures have processes that end when nobody has looked for a while (`frames`).

mod conversion;
mod frames;
mod given_up;
mod limits;
mod process;
mod protocol;
mod sandbox;
mod worker;

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use crate::objects::LocalFile;
use triaged_imaging::{self as imaging, ImagingError, Placement, ReadCause, ReadError, Shows, Tensor, Transform};

pub use conversion::uncompressed;
pub use frames::{FrameSource, Frames, NoFrame};
pub(crate) use given_up::GivenUp;
pub use limits::DecodeLimits;
pub use process::DecoderError;
use process::{Decoded, DecoderProcess};
use protocol::Wanted;
#[doc(hidden)]
pub use protocol::read_answers;
pub use sandbox::Sandbox;
pub use worker::run as run_worker;

/// This program, which runs itself to decode: also where a newer one has taken its place on the disk.
pub const THIS_PROGRAM: &str = "/proc/self/exe";

/// A file of this size is large. One large object is in memory for decoding at a time.
const LARGE: u64 = 16 << 20;

/// A slice to be decoded.
#[derive(Debug, Clone, Copy)]
pub struct Slice<'a> {
    /// The object's name in the archive.
    pub object: &'a str,
    /// The UID of the transfer syntax that the object's file is in.
    pub transfer_syntax: &'a str,
    /// Counts from 0.
    pub frame: u32,
}

/// A slice as a model's input.
pub(crate) struct Input {
    pub tensor: Tensor,
    /// The part of the slice that the tensor shows.
    pub placement: Placement,
    /// What is to be seen in the slice.
    pub shows: Shows,
}

/// A slice in Hounsfield units.
#[derive(Debug, Clone, PartialEq)]
pub struct HounsfieldFrame {
    pub rows: u32,
    pub columns: u32,
    /// Row by row, as [`imaging::Frame::hounsfield`] gives them.
    pub hounsfield: Vec<f32>,
}

/// Why a slice was not decoded.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    /// The object itself cannot be triaged.
    Ineligible(String),
    /// Its header names another part of the body, and its pixels, which show this, are not those of a head.
    NotAHead(String, Shows),
    /// It will be the same the next time.
    Lasting(String),
    /// It may pass.
    Passing(String),
    /// Decoding took more than a slice may, or ended its process. The other slices of the object are given up with it.
    Deadly(String),
}

impl Failure {
    fn into_reason(self) -> String {
        match self {
            Failure::Ineligible(why)
            | Failure::NotAHead(why, _)
            | Failure::Lasting(why)
            | Failure::Passing(why)
            | Failure::Deadly(why) => why,
        }
    }
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

/// How decoder processes are started, and the one for large objects, which all that decode by this share.
pub(crate) struct Decoders {
    program: PathBuf,
    limits: DecodeLimits,
    large: Mutex<Option<DecoderProcess>>,
}

/// A decoder process. It is started with the first slice, or by [`Decoder::start`], has the priority of the thread that started it, and ends
/// with that thread.
pub(crate) struct Decoder {
    decoders: Arc<Decoders>,
    process: Option<DecoderProcess>,
}

impl Decoders {
    /// `program` is this program, or another that has its subcommand `decode-worker`.
    pub fn new(program: PathBuf, limits: DecodeLimits) -> Decoders {
        Decoders { program, limits, large: Mutex::default() }
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
        DecoderProcess::start(&self.program, self.limits)
    }

    fn decode_by(
        &self,
        process: &mut Option<DecoderProcess>,
        file: &LocalFile,
        slice: Slice<'_>,
        wanted: &Wanted<'_>,
    ) -> Result<Decoded, Failure> {
        // A process that was killed from outside says nothing of the object.
        for _ in 0..2 {
            let running = match process.take() {
                Some(running) => process.insert(running),
                None => process.insert(self.start().map_err(|error| Failure::Passing(error.to_string()))?),
            };
            match running.decode(file, slice, wanted) {
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

    /// A slice as a model's input. `head_check` holds the header's words against a head, where it has any: then the pixels decide.
    pub fn input(
        &mut self,
        file: &LocalFile,
        slice: Slice<'_>,
        transform: &Transform,
        head_check: Option<&str>,
    ) -> Result<Input, Failure> {
        let wanted = Wanted::Input { transform: Cow::Borrowed(transform), head_check: head_check.map(Cow::Borrowed) };
        match self.decode(file, slice, &wanted)? {
            // The model's memory is made for this shape.
            Decoded::Input(input) if input.tensor.shape == transform.shape() => Ok(input),
            Decoded::Input(_) | Decoded::Frame(_) => Err(not_asked()),
        }
    }

    /// A slice in Hounsfield units.
    pub fn frame(&mut self, file: &LocalFile, slice: Slice<'_>) -> Result<HounsfieldFrame, Failure> {
        match self.decode(file, slice, &Wanted::Hounsfield)? {
            Decoded::Frame(frame) => Ok(frame),
            Decoded::Input(_) => Err(not_asked()),
        }
    }

    /// Whether its process has this object in memory.
    pub fn has(&self, object: &str) -> bool {
        self.process.as_ref().is_some_and(|process| process.object() == Some(object))
    }

    /// As [`Decoders::forget`].
    pub fn forget(&self) {
        self.decoders.forget();
    }

    fn decode(&mut self, file: &LocalFile, slice: Slice<'_>, wanted: &Wanted<'_>) -> Result<Decoded, Failure> {
        if !is_large(file, slice.transfer_syntax) {
            return self.decoders.decode_by(&mut self.process, file, slice, wanted);
        }
        // Its frames are wanted together, and its process reads it once for all of them.
        // A thread that waits here for another's slice of it has nothing better to do.
        let mut large = self.decoders.large.lock().unwrap_or_else(PoisonError::into_inner);
        self.decoders.decode_by(&mut large, file, slice, wanted)
    }
}

/// The process is not trusted.
fn not_asked() -> Failure {
    Failure::Passing("the decoder process answered what it was not asked".into())
}

fn is_large(file: &LocalFile, transfer_syntax: &str) -> bool {
    // The size that a deflated file inflates to is not known before.
    imaging::is_deflated(transfer_syntax) || file.size() >= LARGE
}
