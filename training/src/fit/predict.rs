//! Slices to probabilities.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use triaged_kernels::ConvBackend;

use super::error::FitError;
use crate::data::{Augment, Batch, Cache, Draw, Loader, Slice};
use crate::logistic::sigmoid;
use crate::network::Network;
use crate::progress::Progress;

/// The network's probabilities of some slices, in their order.
pub fn predict<B: ConvBackend>(
    network: &Network<B>,
    draws: Vec<Draw>,
    cache: &Cache,
    batch: usize,
    what: &str,
    device: &B::Device,
) -> Result<Vec<f64>, FitError> {
    Ok(predict_both(network, draws, cache, batch, what, false, device)?.plain)
}

/// A network's probabilities of some slices, in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    pub plain: Vec<f64>,
    /// Scores of the slices with left and right exchanged, where they were asked for.
    pub mirrored: Option<Vec<f64>>,
}

/// As [`predict`], and with `mirrored` the probabilities of the mirror images too; each slice is decoded once.
pub fn predict_both<B: ConvBackend>(
    network: &Network<B>,
    draws: Vec<Draw>,
    cache: &Cache,
    batch: usize,
    what: &str,
    mirrored: bool,
    device: &B::Device,
) -> Result<Scores, FitError> {
    let mut progress = Progress::new(what, draws.len());
    let mut scores = Scores { plain: Vec::with_capacity(draws.len()), mirrored: mirrored.then(Vec::new) };
    // In double precision, so that a logit can be told again from a probability near 1.
    let probabilities = |images: Tensor<B, 4>| -> Vec<f64> {
        network.forward(images).into_data().convert::<f64>().iter::<f64>().map(sigmoid).collect()
    };
    for batch in Loader::new(cache, draws, batch) {
        let batch = batch?;
        let size = batch.len();
        let images = images::<B>(batch, cache.shape(), device);
        if let Some(mirrored) = &mut scores.mirrored {
            mirrored.extend(probabilities(images.clone().flip([3])));
        }
        scores.plain.extend(probabilities(images));
        progress.advance(size, "");
    }
    progress.finish("");
    Ok(scores)
}

/// A slice to load as it is, or changed.
pub fn draw(slice: &Slice, augment: Option<(Augment, u64)>) -> Draw {
    let augment = augment.filter(|(augment, _)| *augment != Augment::NONE);
    Draw { file: slice.file.clone(), positive: slice.positive, mask: None, augment }
}

/// A batch as a tensor, `[batch, channels, height, width]`.
pub(super) fn images<B: Backend>(batch: Batch, [c, h, w]: [usize; 3], device: &B::Device) -> Tensor<B, 4> {
    let size = batch.len();
    Tensor::from_data(TensorData::new(batch.images, [size, c, h, w]), device)
}
