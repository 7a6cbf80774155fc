//! Slices as pictures for people: windowed, scaled, as PNG. They are made when somebody looks, on threads of their own that stand
//! back behind receiving and scoring, so many at a time, and kept for the next who looks.

mod cache;
mod draw;
mod heat;
mod window;

use std::sync::mpsc::{self, RecvTimeoutError, TrySendError};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::inference::stand_back;
use crate::objects::Objects;
use cache::Cache;
use triaged_imaging::{self as imaging, DicomObject, PixelBox, ReadCause, frame_count};

pub use heat::heat_map;
pub use window::DisplayWindow;

/// Pictures that are made at one time.
const THREADS: usize = 2;

/// Pictures that may wait to be made. A stack that is scrolled through asks for a few hundred.
const MOST_WAITING: usize = 512;

/// Bytes of pictures that are kept.
const CACHE_BYTES: usize = 48 << 20;

/// A file of this size is read by one thread at a time.
const LARGE: u64 = 16 << 20;

/// An object with many frames is kept for the next of them, until nobody has asked for this long.
const KEPT: Duration = Duration::from_secs(20);

/// Changes when pictures are made otherwise than before, so that no browser shows an old one.
pub const VERSION: &str = "1";

/// How large a picture is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Size {
    /// As many pixels as the slice has, at most 1024 in a row or column.
    Full,
    /// For a row of the worklist: at most 80 in a row or column, 16 shades.
    Thumbnail,
}

/// A picture to be made.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Picture {
    /// The object's name in the archive.
    pub path: String,
    /// SHA-256 of its data set.
    pub digest: String,
    /// Counts from 1.
    pub frame: u32,
    pub window: DisplayWindow,
    pub size: Size,
    /// A part of the slice, in its pixels, that a frame goes around.
    pub marked: Option<PixelBox>,
}

impl Picture {
    /// Names the content of the picture: another content has another name. For HTTP's ETag.
    pub fn tag(&self) -> String {
        let size = match self.size {
            Size::Full => "full",
            Size::Thumbnail => "small",
        };
        let digest = self.digest.get(..32).unwrap_or(&self.digest);
        let marked = self
            .marked
            .map_or_else(String::new, |part| format!("-{}.{}.{}.{}", part.left, part.top, part.width, part.height));
        format!("{digest}-{}-{}-{size}{marked}-{VERSION}", self.frame, self.window.name())
    }
}

/// Why there is no picture.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NoPicture {
    #[error("the slice cannot be shown: {0}")]
    Undecodable(String),
    #[error("the file of the slice is no longer in the archive")]
    Gone,
    #[error("more pictures are waited for than this node makes at a time; try again in a moment")]
    Busy,
}

type Answer = oneshot::Sender<Result<Arc<[u8]>, NoPicture>>;

/// Makes pictures. Cheap to clone; its threads end when the last clone is dropped.
#[derive(Clone)]
pub struct Renderer {
    jobs: mpsc::SyncSender<(Picture, Answer)>,
    cache: Arc<Mutex<Cache>>,
}

impl Renderer {
    pub fn start(objects: Arc<dyn Objects>) -> Renderer {
        let (jobs, waiting) = mpsc::sync_channel(MOST_WAITING);
        let cache = Arc::new(Mutex::new(Cache::new(CACHE_BYTES)));
        let (waiting, large) = (Arc::new(Mutex::new(waiting)), Arc::new(Mutex::new(None)));
        for _ in 0..THREADS {
            let worker = Worker {
                waiting: waiting.clone(),
                objects: objects.clone(),
                cache: cache.clone(),
                large: large.clone(),
            };
            let thread = std::thread::Builder::new().name("picture".into());
            thread.spawn(move || worker.run()).expect("the system can start a thread while the node starts");
        }
        Renderer { jobs, cache }
    }

    /// The picture as PNG. Waits its turn; whoever stops waiting gives it up.
    pub async fn picture(&self, picture: Picture) -> Result<Arc<[u8]>, NoPicture> {
        if let Some(png) = lock(&self.cache).get(&picture) {
            return Ok(png);
        }
        let (answer, answered) = oneshot::channel();
        self.jobs.try_send((picture, answer)).map_err(|error| match error {
            TrySendError::Full(_) => NoPicture::Busy,
            TrySendError::Disconnected(_) => NoPicture::Gone,
        })?;
        answered.await.unwrap_or_else(|_| Err(NoPicture::Undecodable("its decoder failed; this is a bug".into())))
    }
}

/// A panic elsewhere leaves at worst a picture out of the cache.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The object with many frames, or large, that a picture was last made of.
type Large = Arc<Mutex<Option<(String, DicomObject)>>>;

struct Worker {
    waiting: Arc<Mutex<mpsc::Receiver<(Picture, Answer)>>>,
    objects: Arc<dyn Objects>,
    cache: Arc<Mutex<Cache>>,
    large: Large,
}

impl Worker {
    fn run(&self) {
        stand_back();
        loop {
            let next = lock(&self.waiting).recv_timeout(KEPT);
            let (picture, answer) = match next {
                Ok(job) => job,
                Err(RecvTimeoutError::Timeout) => {
                    *lock(&self.large) = None;
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            // Whoever scrolls through a stack does not wait for what was passed.
            if answer.is_closed() {
                continue;
            }
            let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.make(&picture)));
            let made = made.unwrap_or_else(|_| Err(NoPicture::Undecodable("its decoder failed; this is a bug".into())));
            if let Ok(png) = &made {
                lock(&self.cache).put(picture, png.clone());
            }
            let _ = answer.send(made);
        }
    }

    fn make(&self, picture: &Picture) -> Result<Arc<[u8]>, NoPicture> {
        if let Some(png) = lock(&self.cache).get(picture) {
            return Ok(png);
        }
        let (rows, columns, hounsfield) = self.pixels(picture)?;
        let png = draw::png(&hounsfield, (rows, columns), picture.window, picture.size, picture.marked);
        png.map(Arc::from).map_err(|error| NoPicture::Undecodable(error.to_string()))
    }

    /// Rows, columns, and the Hounsfield units of the slice: the one place where pixels are taken from the archive for pictures.
    fn pixels(&self, picture: &Picture) -> Result<(u32, u32, Vec<f32>), NoPicture> {
        let unreadable = |error: imaging::ReadError| match error.cause {
            ReadCause::Io(source) if source.kind() == std::io::ErrorKind::NotFound => NoPicture::Gone,
            cause => NoPicture::Undecodable(cause.to_string()),
        };
        let decode = |object: &DicomObject| {
            let frame = imaging::decode_frame(object, picture.frame.saturating_sub(1));
            let frame = frame.map_err(|error| NoPicture::Undecodable(error.to_string()))?;
            Ok((frame.rows, frame.columns, frame.hounsfield()))
        };
        let file = self.objects.get(&picture.path).map_err(|_| NoPicture::Gone)?;
        if file.size() < LARGE && picture.frame == 1 {
            let object = imaging::read_frames(file.path()).map_err(unreadable)?;
            // The first of several frames is looked at before the others.
            if frame_count(&object).is_ok_and(|frames| frames > 1) {
                let decoded = decode(&object);
                *lock(&self.large) = Some((picture.path.clone(), object));
                return decoded;
            }
            return decode(&object);
        }
        let mut large = lock(&self.large);
        if large.as_ref().is_none_or(|(held, _)| *held != picture.path) {
            *large = None;
            *large = Some((picture.path.clone(), imaging::read_frames(file.path()).map_err(unreadable)?));
        }
        decode(&large.as_ref().expect("it was just put there").1)
    }
}
