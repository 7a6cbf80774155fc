//! Slices for people: decoded on threads of their own that stand back behind receiving and scoring, so many at a time, by processes that
//! end when nobody has looked for a while.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::warn;

use super::{DecodeLimits, Decoder, Decoders, Failure, GivenUp, HounsfieldFrame, Slice};
use crate::config;
use crate::objects::LocalFile;
use crate::priority::stand_back;

/// Slices that are decoded at one time.
const THREADS: usize = 2;

/// Slices that may wait. Whoever scrolls through a stack asks for a few hundred.
const MOST_WAITING: usize = 512;

/// A process keeps the object that it decoded last, for the next frame of it. When nobody has asked for so long, all processes end.
const KEPT: Duration = Duration::from_secs(20);

/// An object that ended a process is not tried again for so long.
const GIVEN_UP: Duration = Duration::from_secs(3600);

/// Why there is no slice to see.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NoFrame {
    #[error("the slice cannot be shown: {0}")]
    Undecodable(String),
    #[error("the file of the slice is no longer in the archive")]
    Gone,
    #[error("more pictures are waited for than this node makes at a time; try again in a moment")]
    Busy,
    #[error("the slice cannot be shown now: {0}; try again in a moment")]
    NotNow(String),
}

impl NoFrame {
    /// Whether it may be another time.
    pub fn is_passing(&self) -> bool {
        matches!(self, NoFrame::Busy | NoFrame::NotNow(_))
    }
}

type Job = Box<dyn FnOnce(&FrameSource) + Send>;

/// The threads. Cheap to clone; they end, and their processes with them, when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Frames {
    jobs: mpsc::SyncSender<Job>,
}

/// Decodes slices for a job of [`Frames`].
pub struct FrameSource {
    decoders: Arc<Decoders>,
    /// Between jobs. A process ends with the thread that started it, and all threads end together, so any thread may take any of them.
    resting: Mutex<Vec<Decoder>>,
    given_up: GivenUp,
}

impl Frames {
    /// Starts the threads; a process is started with the first slice. `program` is this program, or another that has its subcommand
    /// `decode-worker`.
    pub fn start(program: PathBuf, settings: &config::Inference) -> Frames {
        let (jobs, waiting) = mpsc::sync_channel::<Job>(MOST_WAITING);
        let source = Arc::new(FrameSource {
            decoders: Arc::new(Decoders::new(program, DecodeLimits::new(settings))),
            resting: Mutex::default(),
            given_up: GivenUp::new(GIVEN_UP),
        });
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..THREADS {
            let (waiting, source) = (waiting.clone(), source.clone());
            let thread = std::thread::Builder::new().name("picture".into());
            let run = move || work(&waiting, &source);
            thread.spawn(run).expect("the system can start a thread while the node starts");
        }
        Frames { jobs }
    }

    /// Has a job done when it is its turn. One that is never done is dropped.
    ///
    /// # Errors
    /// [`NoFrame::Busy`] where too many wait.
    pub fn submit(&self, job: impl FnOnce(&FrameSource) + Send + 'static) -> Result<(), NoFrame> {
        self.jobs.try_send(Box::new(job)).map_err(|error| match error {
            TrySendError::Full(_) => NoFrame::Busy,
            TrySendError::Disconnected(_) => NoFrame::NotNow("the node stops".into()),
        })
    }

    /// A slice in Hounsfield units, when it is its turn. Blocks.
    ///
    /// # Errors
    /// [`NoFrame`].
    pub fn frame(&self, file: LocalFile, slice: Slice<'_>) -> Result<HounsfieldFrame, NoFrame> {
        let (object, transfer_syntax) = (slice.object.to_owned(), slice.transfer_syntax.to_owned());
        let frame = slice.frame;
        let (answer, answered) = mpsc::sync_channel(1);
        self.submit(move |source| {
            let slice = Slice { object: &object, transfer_syntax: &transfer_syntax, frame };
            // Whoever asked may have gone.
            let _ = answer.send(source.frame(&file, slice));
        })?;
        answered.recv().unwrap_or_else(|_| Err(NoFrame::NotNow("its thread panicked; this is a bug".into())))
    }
}

impl FrameSource {
    /// A slice in Hounsfield units: the one place where the archive's pixels become what people see.
    ///
    /// # Errors
    /// [`NoFrame::Undecodable`], at once for the slices of an object that ended a process not long ago; [`NoFrame::NotNow`].
    pub fn frame(&self, file: &LocalFile, slice: Slice<'_>) -> Result<HounsfieldFrame, NoFrame> {
        if let Some(why) = self.given_up.why(slice.object) {
            return Err(NoFrame::Undecodable(why));
        }
        let mut decoder = self.take(slice.object);
        let decoded = decoder.frame(file, slice);
        self.resting().push(decoder);
        decoded.map_err(|failure| match failure {
            Failure::Passing(why) => NoFrame::NotNow(why),
            Failure::Ineligible(why) | Failure::NotAHead(why, _) | Failure::Lasting(why) => NoFrame::Undecodable(why),
            Failure::Deadly(why) => {
                warn!(object = slice.object, "no picture can be made of an object: {why}");
                self.given_up.note(slice.object, &why);
                NoFrame::Undecodable(why)
            }
        })
    }

    /// The decoder that has the object in memory, or else the one that worked last.
    fn take(&self, object: &str) -> Decoder {
        let mut resting = self.resting();
        let place = resting.iter().position(|decoder| decoder.has(object)).or(resting.len().checked_sub(1));
        place.map_or_else(|| Decoder::new(self.decoders.clone()), |place| resting.remove(place))
    }

    /// Ends the processes.
    fn rest(&self) {
        self.resting().clear();
        self.decoders.forget();
    }

    fn resting(&self) -> MutexGuard<'_, Vec<Decoder>> {
        lock(&self.resting)
    }
}

/// A panic elsewhere leaves at worst a decoder out.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn work(waiting: &Mutex<mpsc::Receiver<Job>>, source: &FrameSource) {
    stand_back();
    loop {
        // A statement of its own: the next thread waits for its job while this one works.
        let next = lock(waiting).recv_timeout(KEPT);
        match next {
            // A bug must cost its slice, not the thread.
            Ok(job) => drop(catch_unwind(AssertUnwindSafe(|| job(source)))),
            Err(RecvTimeoutError::Timeout) => source.rest(),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
