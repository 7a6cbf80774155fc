//! The decoder process: reads requests, decodes, answers. Its standard input is the socket to the thread that started it, its standard output
//! the memory for the pixels.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use triaged_imaging::{self as imaging, DicomObject, HeadSigns, Shows};

use super::Failure;
use super::conversion;
use super::protocol::{Hello, Outcome, Request, Wanted, receive, send};
use super::sandbox::{self, Sandbox};

/// Memory that an object took for a moment is given back to the system where it was more than this.
const TRIMMED: u64 = 8 << 20;

/// Works until the other side of the socket is gone. `parent` is the process that started this one.
///
/// # Errors
/// The error that keeps it from its work: it was started by hand, for one.
pub fn run(parent: u32) -> io::Result<()> {
    sandbox::tie_to_parent(parent)?;
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let shared = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    note_panics();
    // A codec wants to share its work among threads, which this process may not start: its own thread does all of it.
    let alone = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build_global();
    alone.map_err(io::Error::other)?;
    let at_start = sandbox::address_space()?;
    let unfiltered = match sandbox::enter()? {
        Sandbox::Filtered => None,
        Sandbox::Unfiltered(why) => Some(why),
    };
    send(&socket, &Hello { unfiltered }, None)?;
    let mut object: Option<Result<DicomObject, Failure>> = None;
    while let Some((request, file)) = receive::<Request<'static>>(&socket)? {
        sandbox::bound(at_start.saturating_add(request.memory), request.seconds, request.shared)?;
        let file = file.map(File::from);
        let size = file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |found| found.len());
        if request.is_new {
            // Before the next is read: both need not be in memory.
            object = None;
        }
        let work = || {
            if let Some(file) = file {
                object = Some(imaging::read_frames_of(file).map_err(Failure::from));
            }
            if let Wanted::Converted { to } = &request.wanted {
                return convert(object.take().unwrap_or_else(|| Err(no_object()))?, to, &shared);
            }
            match &object {
                Some(Ok(object)) => decode(object, &request, &shared),
                Some(Err(failure)) => Err(failure.clone()),
                None => Err(no_object()),
            }
        };
        let outcome = match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(decoded)) => decoded,
            Ok(Err(Failure::Ineligible(why))) => Outcome::Ineligible(why),
            Ok(Err(Failure::NotAHead(why, shows))) => Outcome::NotAHead(why, shows),
            Ok(Err(Failure::Passing(why))) => Outcome::Passing(why),
            Ok(Err(Failure::Lasting(why) | Failure::Deadly(why))) => Outcome::Lasting(why),
            Err(_) => Outcome::Lasting(format!("decoding panicked{}; this is a bug", last_panic())),
        };
        send(&socket, &outcome, None)?;
        if size > TRIMMED {
            trim();
        }
    }
    Ok(())
}

/// Decodes a frame into the shared memory, in the form that is wanted.
fn decode(object: &DicomObject, request: &Request<'_>, shared: &File) -> Result<Outcome, Failure> {
    let (numbers, outcome) = match &request.wanted {
        Wanted::Input { transform, head_check } => {
            let frame = imaging::decode_frame(object, request.frame)?;
            let hounsfield = frame.hounsfield();
            let signs = imaging::head_signs(&hounsfield, frame.rows, frame.columns);
            if let Some(claimed) = head_check {
                check_head(signs.as_ref(), claimed)?;
            }
            let (tensor, placement) = imaging::placed_frame(&frame, hounsfield, transform)?;
            (tensor.data, Outcome::Decoded(tensor.shape, placement, Shows::of(signs.as_ref())))
        }
        Wanted::Hounsfield => {
            let frame = imaging::decode_frame(object, request.frame)?;
            (frame.hounsfield(), Outcome::Frame(frame.rows, frame.columns))
        }
        Wanted::Converted { .. } => return Err(no_object()),
    };
    hand_over(shared, bytemuck::cast_slice(&numbers))?;
    Ok(outcome)
}

/// Writes an object without compression into the shared memory.
fn convert(object: DicomObject, to: &str, shared: &File) -> Result<Outcome, Failure> {
    let bytes = conversion::data_set(object, to).map_err(Failure::Lasting)?;
    hand_over(shared, &bytes)?;
    Ok(Outcome::Converted(bytes.len() as u64))
}

fn hand_over(shared: &File, bytes: &[u8]) -> Result<(), Failure> {
    let written = shared.write_all_at(bytes, 0);
    written.map_err(|error| Failure::Passing(format!("the pixels cannot be handed over: {error}")))
}

fn no_object() -> Failure {
    Failure::Passing("the decoder process was given no object".into())
}

/// The header named another part of the body: is it a head all the same?
fn check_head(signs: Option<&HeadSigns>, claimed: &str) -> Result<(), Failure> {
    match signs.is_some_and(|signs| signs.is_head()) {
        true => Ok(()),
        false => {
            let why = format!("not the head: {claimed}, and the pixels are not those of a head");
            Err(Failure::NotAHead(why, Shows::of(signs)))
        }
    }
}

static LAST_PANIC: Mutex<Option<String>> = Mutex::new(None);

/// Keeps the place of a panic, not its message, which may quote the object; the decoders catch some themselves.
fn note_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(|place| format!(" at {}:{}", place.file(), place.line()));
        if let Ok(mut last) = LAST_PANIC.lock() {
            *last = place;
        }
    }));
}

fn last_panic() -> String {
    LAST_PANIC.lock().ok().and_then(|mut last| last.take()).unwrap_or_default()
}

/// Gives free memory back to the system.
fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) takes a number and touches only memory that nobody has.
    unsafe {
        libc::malloc_trim(0);
    }
}
