//! Batches in a given order, decoded ahead on all cores; at most a few are held at a time.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, sync_channel};

use rayon::prelude::*;

use super::augment::Augment;
use super::cache::{Cache, LoadError};

/// Batches that wait for the consumer; one more may be in the making.
const AHEAD: usize = 2;

/// One slice to load: the file, its label, and how to change it, with which seed.
#[derive(Debug, Clone)]
pub struct Draw {
    pub file: PathBuf,
    pub positive: bool,
    /// The mask of the blood, if it is known.
    pub mask: Option<PathBuf>,
    pub augment: Option<(Augment, u64)>,
}

/// Slices loaded together; `images` is the model's input, `[batch, channels, height, width]`.
#[derive(Debug, Clone)]
pub struct Batch {
    pub images: Vec<f32>,
    pub positive: Vec<bool>,
    /// Each slice's mask of the image's height and width, where it has one.
    pub masks: Vec<Option<Vec<f32>>>,
}

impl Batch {
    pub fn len(&self) -> usize {
        self.positive.len()
    }

    pub fn is_empty(&self) -> bool {
        self.positive.is_empty()
    }
}

/// Yields the batches of some draws, in order. It ends after the first error. Dropped early, it stops loading.
pub struct Loader {
    batches: Receiver<Result<Batch, LoadError>>,
}

impl Loader {
    pub fn new(cache: &Cache, draws: Vec<Draw>, batch: usize) -> Self {
        let (sender, batches) = sync_channel(AHEAD);
        let cache = cache.clone();
        std::thread::spawn(move || {
            for draws in draws.chunks(batch.max(1)) {
                let loaded = load(&cache, draws);
                let failed = loaded.is_err();
                // The receiver is gone when the consumer has stopped early: nothing more to do.
                if sender.send(loaded).is_err() || failed {
                    return;
                }
            }
        });
        Self { batches }
    }
}

impl Iterator for Loader {
    type Item = Result<Batch, LoadError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.batches.recv().ok()
    }
}

fn load(cache: &Cache, draws: &[Draw]) -> Result<Batch, LoadError> {
    let [channels, height, width] = cache.shape();
    let loaded: Vec<(Vec<f32>, Option<Vec<f32>>)> = draws
        .par_iter()
        .map(|draw| {
            let mut image = cache.load(&draw.file)?;
            let masked = if let Some(path) = &draw.mask {
                image.extend(cache.mask(&draw.file, path)?);
                1
            } else {
                0
            };
            // The mask goes the way of the image as one more channel.
            let mut image = match &draw.augment {
                Some((augment, seed)) => augment.apply(&image, [channels + masked, height, width], *seed),
                None => image,
            };
            let mask = (masked == 1).then(|| image.split_off(channels * height * width));
            cache.normalize(&mut image);
            Ok((image, mask))
        })
        .collect::<Result<_, LoadError>>()?;
    let (images, masks): (Vec<_>, Vec<_>) = loaded.into_iter().unzip();
    Ok(Batch { images: images.concat(), positive: draws.iter().map(|draw| draw.positive).collect(), masks })
}
