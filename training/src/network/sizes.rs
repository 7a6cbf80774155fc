//! The effect of a list of layers on an image: sizes, positions and parameters; and why it makes no network.

use super::layer::Layer;
use super::steps::{Step, steps};

/// Why a list of layers makes no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayerError {
    #[error("layer {at} ({layer}) does not fit what comes before it: {why}")]
    Misplaced { at: usize, layer: String, why: &'static str },
    #[error("the layers do not end in one Output layer")]
    NoOutput,
    #[error("this network does not flatten its image: it has no positions for a position grid")]
    NoPositions,
    #[error(
        "this network has no positions for localization: it neither flattens its image nor pools it before its output unit"
    )]
    NoLocalization,
    #[error("a position grid of {edge} knots does not fit the {height}×{width} positions that are flattened")]
    Grid { edge: usize, height: usize, width: usize },
}

/// The size of what a layer passes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    Image { channels: usize, height: usize, width: usize },
    Flat(usize),
}

/// The size that each layer passes on, for an input of `[channels, height, width]`; one entry a layer.
pub fn sizes(layers: &[Layer], input: [usize; 3]) -> Result<Vec<Size>, LayerError> {
    let [channels, height, width] = input;
    let mut size = Size::Image { channels, height, width };
    let mut all = Vec::with_capacity(layers.len());
    for (at, layer) in layers.iter().enumerate() {
        let misplaced = |why| LayerError::Misplaced { at, layer: format!("{layer:?}"), why };
        size = match (*layer, size) {
            (Layer::BatchNorm, Size::Image { .. }) => size,
            (Layer::Conv { filters, kernel }, Size::Image { height, width, .. }) => {
                if filters == 0 || kernel == 0 || height < kernel || width < kernel {
                    return Err(misplaced("the image is smaller than the kernel"));
                }
                Size::Image { channels: filters, height: height + 1 - kernel, width: width + 1 - kernel }
            }
            (Layer::MaxPool { size }, Size::Image { channels, height, width }) => {
                if size == 0 || height < size || width < size {
                    return Err(misplaced("the image is smaller than the pool"));
                }
                Size::Image { channels, height: height / size, width: width / size }
            }
            (
                Layer::Stem { .. } | Layer::InvertedResidual { .. } | Layer::Head { .. },
                Size::Image { channels, mut height, mut width },
            ) => {
                let steps = steps(layer, channels);
                if steps.is_empty() || steps.iter().any(|step| step.stride == 0 || step.weight().contains(&0)) {
                    return Err(misplaced("one of its numbers is 0"));
                }
                for step in &steps {
                    (height, width) = (height.div_ceil(step.stride), width.div_ceil(step.stride));
                }
                Size::Image { channels: steps[steps.len() - 1].filters, height, width }
            }
            (Layer::GlobalAveragePool, Size::Image { channels, .. }) => Size::Flat(channels),
            (Layer::Dropout { .. }, size) => size,
            (Layer::Flatten, Size::Image { channels, height, width }) => Size::Flat(channels * height * width),
            (Layer::Dense { units }, Size::Flat(_)) => Size::Flat(units),
            (Layer::Output, Size::Flat(_)) => Size::Flat(1),
            (Layer::Dense { .. } | Layer::Output, Size::Image { .. }) => return Err(misplaced("flatten first")),
            (_, Size::Flat(_)) => return Err(misplaced("the image was flattened")),
        };
        all.push(size);
    }
    match layers.iter().filter(|layer| **layer == Layer::Output).count() {
        1 if layers.last() == Some(&Layer::Output) => Ok(all),
        _ => Err(LayerError::NoOutput),
    }
}

/// The places in the input at which the positions of the flattened or pooled image lie: the first one's middle, and the step
/// from one to the next, in pixels along either axis.
///
/// Layers that pad their image keep positions that cover it evenly. With an even edge their padding is on the lower and right side
/// alone, and a kernel's middle lies later than its position's, by half a step in the end; but what the network has
/// learned answers at the position (measured on phantoms: the position is that of the bleed without this half step).
pub fn positions(layers: &[Layer]) -> (f64, f64) {
    let (mut middle, mut step) = (0.0, 1.0);
    for layer in layers.iter().take_while(|layer| !layer.flattens()) {
        match *layer {
            Layer::Conv { kernel, .. } => middle += (kernel as f64 - 1.0) / 2.0 * step,
            Layer::MaxPool { size } => {
                middle += (size as f64 - 1.0) / 2.0 * step;
                step *= size as f64;
            }
            // How many channels there are makes no difference to the strides.
            Layer::Stem { .. } | Layer::InvertedResidual { .. } => {
                for stride in steps(layer, 1).iter().map(|step| step.stride as f64) {
                    middle += (stride - 1.0) / 2.0 * step;
                    step *= stride;
                }
            }
            _ => {}
        }
    }
    (middle, step)
}

/// Parameters as Keras counts them: BatchNorm's running mean and variance included.
pub fn parameters(layers: &[Layer], input: [usize; 3]) -> Result<usize, LayerError> {
    let [channels, height, width] = input;
    let mut before = Size::Image { channels, height, width };
    let mut total = 0;
    for (layer, after) in layers.iter().zip(sizes(layers, input)?) {
        total += match (*layer, before) {
            (Layer::BatchNorm, Size::Image { channels, .. }) => 4 * channels,
            (Layer::Conv { filters, kernel }, Size::Image { channels, .. }) => {
                filters * (kernel * kernel * channels + 1)
            }
            (
                Layer::Stem { .. } | Layer::InvertedResidual { .. } | Layer::Head { .. },
                Size::Image { channels, .. },
            ) => steps(layer, channels).iter().map(Step::parameters).sum(),
            (Layer::Dense { units }, Size::Flat(inputs)) => units * (inputs + 1),
            (Layer::Output, Size::Flat(inputs)) => inputs + 1,
            _ => 0,
        };
        before = after;
    }
    Ok(total)
}
