//! A decoder process, seen from the thread that gives it slices.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use triaged_imaging::Tensor;

use super::protocol::{Hello, MOST_CONVERTED, MOST_SHARED, Outcome, Request, Wanted, receive, receive_outcome, send};
use super::{DecodeLimits, Failure, HounsfieldFrame, Input, Sandbox, Slice, not_asked};
use crate::objects::LocalFile;

/// A process that says nothing for so long, though its processor time is not used up, waits for a disk or is stopped. Shorter than what the
/// watchdog takes for a slice that hangs.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// Bytes of free memory that a process keeps, at most: several times what a slice takes.
const KEPT_MEMORY: &str = "16777216";

/// A process that starts takes some milliseconds.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// Shared memory beyond this is given back after each slice.
const KEPT_SHARED: u64 = 8 << 20;

/// Why no decoder process can be started.
#[derive(Debug, thiserror::Error)]
#[error("a decoder process cannot be started: {0}")]
pub struct DecoderError(#[from] io::Error);

/// A slice as it was wanted.
pub(super) enum Decoded {
    Input(Input),
    Frame(HounsfieldFrame),
}

/// A running process. Killed when this is dropped.
pub(super) struct DecoderProcess {
    child: Child,
    socket: UnixStream,
    shared: File,
    sandbox: Sandbox,
    limits: DecodeLimits,
    /// The object that it has read.
    object: Option<String>,
}

/// A process ended, or was ended, before it answered.
#[derive(Debug)]
pub(super) enum ProcessEnd {
    /// It ended with this status.
    Ended(ExitStatus),
    /// It did not answer in time.
    Silent,
    /// It said what makes no sense.
    Broken(io::Error),
}

impl DecoderProcess {
    /// Starts a process. It has the priority of the calling thread, and ends with it.
    pub fn start(program: &Path, limits: DecodeLimits) -> Result<DecoderProcess, DecoderError> {
        let (socket, theirs) = UnixStream::pair()?;
        let shared = File::from(memfd_create("pixels", MemfdFlags::CLOEXEC).map_err(io::Error::from)?);
        let mut command = Command::new(program);
        command.arg("decode-worker").arg(std::process::id().to_string());
        // Its secrets are in the node's environment.
        command.env_clear();
        // The memory that a slice took is kept for the next instead of being asked of the system anew, page by page: that doubled what
        // decoding costs. glibc reads these once, at the start of a process; other C libraries pass over them.
        command.env("MALLOC_MMAP_THRESHOLD_", KEPT_MEMORY).env("MALLOC_TRIM_THRESHOLD_", KEPT_MEMORY);
        if let Some(libraries) = std::env::var_os("LD_LIBRARY_PATH") {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        let child = command
            .stdin(OwnedFd::from(theirs))
            .stdout(OwnedFd::from(shared.try_clone()?))
            .stderr(Stdio::null())
            .spawn()?;
        // It holds the process's end of the socket: were it open here, an end of the process would not be seen.
        drop(command);
        let mut process = DecoderProcess { child, socket, shared, sandbox: Sandbox::Filtered, limits, object: None };
        process.socket.set_read_timeout(Some(START_PATIENCE))?;
        process.socket.set_write_timeout(Some(PATIENCE))?;
        match receive::<Hello>(&process.socket)? {
            Some((Hello { unfiltered: Some(why) }, _)) => process.sandbox = Sandbox::Unfiltered(why),
            Some(_) => {}
            None => return Err(io::Error::other(format!("{} ended at once", program.display())).into()),
        }
        process.socket.set_read_timeout(Some(PATIENCE))?;
        Ok(process)
    }

    pub fn sandbox(&self) -> Sandbox {
        self.sandbox.clone()
    }

    /// The name of the object that it has in memory.
    pub fn object(&self) -> Option<&str> {
        self.object.as_deref()
    }

    /// Has a slice decoded.
    ///
    /// # Errors
    /// The process ended over it, and must be replaced.
    pub fn decode(
        &mut self,
        file: &LocalFile,
        slice: Slice<'_>,
        wanted: &Wanted<'_>,
    ) -> Result<Result<Decoded, Failure>, ProcessEnd> {
        let is_new = self.object() != Some(slice.object);
        let open = match is_new {
            false => None,
            true => match File::open(file.path()) {
                Ok(open) => Some(open),
                Err(error) => {
                    return Ok(Err(Failure::Passing(format!("the object {} cannot be read: {error}", slice.object))));
                }
            },
        };
        let DecodeLimits { seconds, memory } = self.limits.of_object(file.size());
        let request =
            Request { is_new, frame: slice.frame, seconds, memory, shared: MOST_SHARED, wanted: wanted.clone() };
        self.object = None;
        if let Err(error) = send(&self.socket, &request, open.as_ref().map(|open| open as &dyn AsFd)) {
            return Err(self.end(error));
        }
        let outcome = self.outcome()?;
        self.object = Some(slice.object.to_owned());
        Ok(match outcome {
            Outcome::Decoded(shape, placement, shows) => {
                let read = self.numbers(shape);
                read.map(|data| Decoded::Input(Input { tensor: Tensor { shape, data }, placement, shows }))
            }
            Outcome::Frame(rows, columns) => {
                let read = self.numbers([1, rows as usize, columns as usize]);
                read.map(|hounsfield| Decoded::Frame(HounsfieldFrame { rows, columns, hounsfield }))
            }
            Outcome::Converted(_) => Err(not_asked()),
            Outcome::Ineligible(why) => Err(Failure::Ineligible(why)),
            Outcome::NotAHead(why, shows) => Err(Failure::NotAHead(why, shows)),
            Outcome::Lasting(why) => Err(Failure::Lasting(why)),
            Outcome::Passing(why) => {
                // It is read anew the next time.
                self.object = None;
                Err(Failure::Passing(why))
            }
        })
    }

    /// Has an object converted. The process is of no use afterwards.
    ///
    /// # Errors
    /// The process ended over it.
    pub fn convert(&mut self, file: File, to: &str) -> Result<Result<Vec<u8>, Failure>, ProcessEnd> {
        let DecodeLimits { seconds, memory } = self.limits;
        let wanted = Wanted::Converted { to: to.into() };
        let request = Request { is_new: true, frame: 0, seconds, memory, shared: MOST_CONVERTED, wanted };
        if let Err(error) = send(&self.socket, &request, Some(&file)) {
            return Err(self.end(error));
        }
        Ok(match self.outcome()? {
            Outcome::Converted(length) => self.bytes(length),
            Outcome::Decoded(..) | Outcome::Frame(..) | Outcome::NotAHead(..) => Err(not_asked()),
            Outcome::Ineligible(why) | Outcome::Lasting(why) => Err(Failure::Lasting(why)),
            Outcome::Passing(why) => Err(Failure::Passing(why)),
        })
    }

    /// Waits so long for the outcome of each slice, instead of [`PATIENCE`].
    pub fn wait_for(&self, patience: Duration) -> io::Result<()> {
        self.socket.set_read_timeout(Some(patience))
    }

    fn outcome(&mut self) -> Result<Outcome, ProcessEnd> {
        match receive_outcome(&self.socket) {
            Ok(Some(outcome)) => Ok(outcome),
            Ok(None) => Err(self.end(io::ErrorKind::UnexpectedEof.into())),
            Err(error) => Err(self.end(error)),
        }
    }

    /// The bytes in the shared memory, within the same bounds as [`Self::numbers`].
    fn bytes(&self, length: u64) -> Result<Vec<u8>, Failure> {
        let wrong =
            |why: &dyn std::fmt::Display| Failure::Passing(format!("no bytes came from the decoder process: {why}"));
        let there = self.shared.metadata().map_err(|error| wrong(&error))?.len();
        if length > there.min(MOST_CONVERTED) {
            return Err(wrong(&format!("it says {length}")));
        }
        let mut bytes = vec![0; usize::try_from(length).map_err(|error| wrong(&error))?];
        self.shared.read_exact_at(&mut bytes, 0).map_err(|error| wrong(&error))?;
        Ok(bytes)
    }

    /// The numbers in the shared memory, of this shape. The process is not trusted: a shape that is empty, or that the memory does not have,
    /// is an error, and so is more than a slice may take.
    fn numbers(&self, shape: [usize; 3]) -> Result<Vec<f32>, Failure> {
        let wrong =
            |why: &dyn std::fmt::Display| Failure::Passing(format!("no pixels came from the decoder process: {why}"));
        let numbers = shape.iter().try_fold(1_usize, |all, side| all.checked_mul(*side));
        let there = self.shared.metadata().map_err(|error| wrong(&error))?.len();
        let most = there.min(MOST_SHARED) / size_of::<f32>() as u64;
        let Some(numbers) = numbers.filter(|numbers| (1..=most).contains(&(*numbers as u64))) else {
            return Err(wrong(&format!("it says {shape:?}")));
        };
        let mut data = vec![0_f32; numbers];
        self.shared.read_exact_at(bytemuck::cast_slice_mut(&mut data), 0).map_err(|error| wrong(&error))?;
        if there > KEPT_SHARED {
            // At worst the memory stays until the process ends.
            let _ = self.shared.set_len(0);
        }
        Ok(data)
    }

    /// Ends the process over what went wrong with its socket, and says how it ended.
    fn end(&mut self, error: io::Error) -> ProcessEnd {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut, UnexpectedEof, WouldBlock};
        let end = match error.kind() {
            WouldBlock | TimedOut => Some(ProcessEnd::Silent),
            UnexpectedEof | BrokenPipe | ConnectionReset => None,
            _ => Some(ProcessEnd::Broken(error)),
        };
        match end {
            Some(end) => end,
            // It has closed its socket, so it has ended or is about to.
            None => match self.child.wait() {
                Ok(status) => ProcessEnd::Ended(status),
                Err(error) => ProcessEnd::Broken(error),
            },
        }
    }
}

impl Drop for DecoderProcess {
    fn drop(&mut self) {
        // It may have ended, and then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl ProcessEnd {
    /// For the metric.
    pub fn label(&self) -> &'static str {
        match self {
            ProcessEnd::Ended(status) => match status.signal() {
                Some(libc::SIGXCPU) => "time",
                Some(libc::SIGKILL | libc::SIGTERM | libc::SIGINT | libc::SIGHUP | libc::SIGQUIT) => "killed",
                Some(_) => "crash",
                None => "broken",
            },
            ProcessEnd::Silent => "silent",
            ProcessEnd::Broken(_) => "broken",
        }
    }

    /// The failure of the slice that follows; `None` where it says nothing of the slice.
    pub fn failure(&self, limits: DecodeLimits) -> Option<Failure> {
        let DecodeLimits { seconds, memory } = limits;
        Some(match (self, self.label()) {
            (_, "time") => Failure::Deadly(format!(
                "decoding took more than {seconds} s of processor time (inference.decode_seconds); the object is given up"
            )),
            (_, "killed") => return None,
            (ProcessEnd::Ended(status), "broken") => {
                Failure::Passing(format!("the decoder process gave up ({status}); this is a bug"))
            }
            (ProcessEnd::Ended(status), _) => Failure::Deadly(format!(
                "decoding ended its process ({status}): a bug, or it needs more than {} MiB of memory \
                 (inference.decode_memory_mib); the object is given up",
                memory >> 20
            )),
            (ProcessEnd::Silent, _) => {
                Failure::Passing(format!("the decoder process did not answer within {} s", PATIENCE.as_secs()))
            }
            (ProcessEnd::Broken(error), _) => Failure::Passing(format!("the decoder process cannot be heard: {error}")),
        })
    }
}
