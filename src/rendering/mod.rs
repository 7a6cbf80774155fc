//! Slices as pictures for people: windowed, scaled, as PNG. They are made when somebody looks, on the threads that have the slices decoded
//! for that ([`Frames`]), and kept for the next who looks.

mod cache;
mod draw;
mod heat;
mod window;

use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use crate::decoding::{FrameSource, Frames, HounsfieldFrame, NoFrame, Slice};
use crate::objects::Objects;
use cache::Cache;
use triaged_imaging::PixelBox;

pub use heat::heat_map;
pub use window::DisplayWindow;

/// Bytes of pictures that are kept.
const CACHE_BYTES: usize = 48 << 20;

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
    /// The UID of the transfer syntax that its file is in.
    pub transfer_syntax: String,
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

/// Makes pictures. Cheap to clone.
#[derive(Clone)]
pub struct Renderer {
    frames: Frames,
    objects: Arc<dyn Objects>,
    cache: Arc<Mutex<Cache>>,
}

impl Renderer {
    pub fn new(frames: Frames, objects: Arc<dyn Objects>) -> Renderer {
        Renderer { frames, objects, cache: Arc::new(Mutex::new(Cache::new(CACHE_BYTES))) }
    }

    /// The picture as PNG. Waits its turn; whoever stops waiting gives it up.
    ///
    /// # Errors
    /// [`NoFrame`].
    pub async fn picture(&self, picture: Picture) -> Result<Arc<[u8]>, NoFrame> {
        if let Some(png) = lock(&self.cache).get(&picture) {
            return Ok(png);
        }
        let (answer, answered) = oneshot::channel();
        let (objects, cache) = (self.objects.clone(), self.cache.clone());
        self.frames.submit(move |source| {
            // Whoever scrolls through a stack does not wait for what was passed.
            if !answer.is_closed() {
                let _ = answer.send(make(source, &*objects, &cache, picture));
            }
        })?;
        answered.await.unwrap_or_else(|_| Err(NoFrame::Undecodable("drawing it failed; this is a bug".into())))
    }
}

/// A panic elsewhere leaves at worst a picture out of the cache.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn make(
    source: &FrameSource,
    objects: &dyn Objects,
    cache: &Mutex<Cache>,
    picture: Picture,
) -> Result<Arc<[u8]>, NoFrame> {
    if let Some(png) = lock(cache).get(&picture) {
        return Ok(png);
    }
    let file = objects.get(&picture.path).map_err(|_| NoFrame::Gone)?;
    let frame = picture.frame.saturating_sub(1);
    let slice = Slice { object: &picture.path, transfer_syntax: &picture.transfer_syntax, frame };
    let HounsfieldFrame { rows, columns, hounsfield } = source.frame(&file, slice)?;
    let png = draw::png(&hounsfield, (rows, columns), picture.window, picture.size, picture.marked);
    let png: Arc<[u8]> = png.map_err(|error| NoFrame::Undecodable(error.to_string()))?.into();
    lock(cache).put(picture, png.clone());
    Ok(png)
}
