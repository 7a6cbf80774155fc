//! The publication's candidates m1 to m10, each a short list of layers with its epochs, batch and sample size; m11;
//! m12, which is the same network with another recipe; and that network's larger relatives.
//!
//! One description serves the Burn module ([`crate::network`]) and the ONNX graph ([`crate::export`]); a new
//! architecture is one more entry here.

use serde::{Deserialize, Serialize};

use crate::network::Layer;
use crate::pretrained::{LITE0, LITE1, LITE2, Original};

/// A network and how the publication trained it (m11 and m12: how many slices a step, and for how long, where nobody says otherwise).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    pub name: String,
    pub layers: Vec<Layer>,
    pub epochs: usize,
    pub batch: usize,
    /// Slices drawn from the training set for the quick evaluation.
    pub samples: usize,
}

/// The names, the published ones first and in their order.
pub const NAMES: [&str; 14] =
    ["m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "m9", "m10", "m11", "m12", "m12-lite1", "m12-lite2"];
/// Those of the publication.
pub const PUBLISHED: &[&str] = NAMES.split_at(10).0;

impl Candidate {
    /// The network whose pretrained weights can be begun with, or none.
    pub fn original(&self) -> Option<&'static Original> {
        match self.name.as_str() {
            "m11" | "m12" => Some(&LITE0),
            "m12-lite1" => Some(&LITE1),
            "m12-lite2" => Some(&LITE2),
            _ => None,
        }
    }
}

/// The candidate of that name, or none.
pub fn candidate(name: &str) -> Option<Candidate> {
    let (body, epochs, batch, samples) = match name {
        "m1" => (vec![Layer::Flatten, dense(32)], 10, 32, 10_000),
        "m2" => (convolutions(&[(3, 2), (3, 2)], &[64]), 10, 16, 10_000),
        "m3" => {
            let drop = Layer::Dropout { rate: 0.5 };
            let block = [conv(3), pool(2), drop];
            ([block.as_slice(), &block, &[Layer::Flatten, dense(64)]].concat(), 20, 16, 10_000)
        }
        "m4" => (convolutions(&[(3, 2)], &[64]), 10, 12, 10_000),
        "m5" => (convolutions(&[(3, 2), (3, 2)], &[64]), 10, 16, 30_000),
        "m6" => (convolutions(&[(6, 3), (6, 3)], &[64]), 5, 16, 30_000),
        "m7" => (convolutions(&[(6, 3), (3, 2), (3, 2)], &[64]), 10, 16, 30_000),
        "m8" => (convolutions(&[(6, 3), (3, 2), (3, 2)], &[64, 64]), 10, 16, 30_000),
        "m9" => {
            let few = Layer::Dropout { rate: 0.1 };
            let many = Layer::Dropout { rate: 0.5 };
            let mut layers = Vec::new();
            for (kernel, size) in [(6, 3), (3, 2), (3, 2)] {
                layers.extend([conv(kernel), few, pool(size)]);
            }
            layers.extend([Layer::Flatten, dense(64), many, dense(64), many]);
            (layers, 15, 16, 90_000)
        }
        "m10" => (convolutions(&[(6, 3), (3, 2), (3, 2)], &[64, 64]), 5, 16, 90_000),
        "m11" | "m12" => (efficientnet_lite([16, 24, 40, 80, 112, 192, 320], [1, 2, 2, 3, 3, 4, 1]), 8, 16, 90_000),
        // Scaled by 1.0 in width and 1.1 in depth, and by 1.1 and 1.2.
        "m12-lite1" => (efficientnet_lite([16, 24, 40, 80, 112, 192, 320], [1, 3, 3, 4, 4, 5, 1]), 8, 16, 90_000),
        "m12-lite2" => (efficientnet_lite([16, 24, 48, 88, 120, 208, 352], [1, 3, 3, 4, 4, 5, 1]), 8, 16, 90_000),
        _ => return None,
    };
    // Their input is normalised by the transform, with the numbers that its pretrained weights were trained with.
    let first = if PUBLISHED.contains(&name) { vec![Layer::BatchNorm] } else { vec![] };
    let layers = [first, body, vec![Layer::Output]].concat();
    Some(Candidate { name: name.into(), layers, epochs, batch, samples })
}

/// EfficientNet-Lite (M. Tan, Q. V. Le: EfficientNet, 2019, without squeeze and excitation and with ReLU6), up to its
/// classifier, with so many filters and repeats of each of its seven kinds of blocks. The original's stochastic depth in
/// training is left out, and so is Lite2's higher dropout.
fn efficientnet_lite(filters: [usize; 7], repeats: [usize; 7]) -> Vec<Layer> {
    // Kernel, stride and expansion, the same in all of the family.
    let kinds = [(3, 1, 1), (3, 2, 6), (5, 2, 6), (3, 2, 6), (5, 1, 6), (5, 2, 6), (3, 1, 6)];
    let blocks = kinds.iter().zip(filters).zip(repeats).map(|((&(kernel, stride, expansion), filters), repeats)| {
        Layer::InvertedResidual { filters, kernel, stride, expansion, repeats }
    });
    let mut layers = vec![Layer::Stem { filters: 32, kernel: 3 }];
    layers.extend(blocks);
    layers.extend([Layer::Head { filters: 1280 }, Layer::GlobalAveragePool, Layer::Dropout { rate: 0.2 }]);
    layers
}

fn conv(kernel: usize) -> Layer {
    Layer::Conv { filters: 64, kernel }
}

fn pool(size: usize) -> Layer {
    Layer::MaxPool { size }
}

fn dense(units: usize) -> Layer {
    Layer::Dense { units }
}

/// Blocks of (kernel edge, pool size), then dense layers.
fn convolutions(blocks: &[(usize, usize)], units: &[usize]) -> Vec<Layer> {
    let mut layers: Vec<Layer> = blocks.iter().flat_map(|&(kernel, size)| [conv(kernel), pool(size)]).collect();
    layers.push(Layer::Flatten);
    layers.extend(units.iter().map(|&units| dense(units)));
    layers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Size, parameters, positions, sizes};

    const INPUT: [usize; 3] = [1, 512, 512];

    fn count(name: &str) -> usize {
        parameters(&candidate(name).expect("a candidate").layers, INPUT).expect("a network")
    }

    #[test]
    fn parameter_counts() {
        assert_eq!(count("m10"), 6_634_117);
        // By hand: 4 + 512·512·32 + 32 + 33.
        assert_eq!(count("m1"), 4 + 262_144 * 32 + 32 + 33);
        // 512 → 510 → 255 → 253 → 126: 64 · 126² = 1,016,064 into 64.
        assert_eq!(count("m2"), 4 + 640 + 36_928 + 1_016_064 * 64 + 64 + 65);
        assert_eq!(count("m3"), count("m2"));
        assert_eq!(count("m4"), 4 + 640 + 255 * 255 * 64 * 64 + 64 + 65);
        assert_eq!(count("m5"), count("m2"));
        // 512 → 507 → 169 → 164 → 54.
        assert_eq!(count("m6"), 4 + 37 * 64 + (36 * 64 + 1) * 64 + 54 * 54 * 64 * 64 + 64 + 65);
        assert_eq!(count("m7"), count("m10") - 65 * 64);
        assert_eq!(count("m8"), count("m10"));
        assert_eq!(count("m9"), count("m10"));
    }

    #[test]
    fn m11_has_the_parameters_of_the_original() {
        let layers = candidate("m11").expect("m11").layers;
        // The file of pretrained weights holds 4,652,008 weights, a classifier of 1,000 units (1,281,000) among them, and
        // 42,016 running means and variances of its 21,008 normalised channels.
        let original = 4_652_008 - 1_281_000 + 42_016 + 1_281;
        assert_eq!(parameters(&layers, [3, 224, 224]).expect("a network"), original);
        // One channel: two of three kernels of the 32 filters less.
        assert_eq!(parameters(&layers, [1, 224, 224]).expect("a network"), original - 2 * 9 * 32);
    }

    #[test]
    fn the_larger_relatives_have_the_parameters_of_their_originals() {
        // What the files of pretrained weights hold, by PyTorch, running means and variances counted and the classifier not.
        for (name, weights) in [("m12-lite1", 4_189_344), ("m12-lite2", 4_869_168)] {
            let layers = candidate(name).expect("a candidate").layers;
            assert_eq!(parameters(&layers, [3, 240, 240]).expect("a network"), weights + 1_281, "{name}");
        }
    }

    #[test]
    fn m11_halves_its_image_five_times() {
        let layers = candidate("m11").expect("m11").layers;
        let image = |channels, edge| Size::Image { channels, height: edge, width: edge };
        let wanted = [(32, 112), (16, 112), (24, 56), (40, 28), (80, 14), (112, 14), (192, 7), (320, 7), (1280, 7)];
        let sizes = |edge| crate::network::sizes(&layers, [1, edge, edge]).expect("a network");
        assert_eq!(sizes(224)[..9], wanted.map(|(channels, edge)| image(channels, edge)));
        assert_eq!(sizes(224)[9..], [Size::Flat(1280), Size::Flat(1280), Size::Flat(1)]);
        assert_eq!(sizes(320)[8], image(1280, 10));
        // Odd sizes are rounded up: 70, 35, 18, 9, 5, 3.
        assert_eq!(sizes(70)[8], image(1280, 3));
    }

    #[test]
    fn m10_flattens_40_by_40_by_64() {
        let m10 = candidate("m10").expect("m10");
        let sizes = sizes(&m10.layers, INPUT).expect("a network");
        let flat = m10.layers.iter().position(|layer| *layer == Layer::Flatten).expect("Flatten");
        assert_eq!(sizes[flat - 1], Size::Image { channels: 64, height: 40, width: 40 });
        assert_eq!(sizes[flat], Size::Flat(102_400));
    }

    #[test]
    fn positions_lie_where_the_layers_look() {
        // m10: 35 pixels are seen from each position, 0 to 34 from the first, and 12 lie between two.
        assert_eq!(positions(&candidate("m10").expect("m10").layers), (17.0, 12.0));
        assert_eq!(positions(&candidate("m1").expect("m1").layers), (0.0, 1.0));
    }

    #[test]
    fn every_name_is_a_network_and_no_other_is() {
        for name in NAMES {
            let candidate = candidate(name).expect("a candidate");
            assert_eq!(candidate.name, name);
            assert!(sizes(&candidate.layers, INPUT).is_ok());
        }
        assert_eq!(candidate("m13"), None);
        assert_eq!(PUBLISHED.last(), Some(&"m10"));
    }

    #[test]
    fn layers_that_do_not_fit_are_refused() {
        assert!(sizes(&[Layer::Output], INPUT).is_err());
        assert!(sizes(&[Layer::Flatten, Layer::MaxPool { size: 2 }, Layer::Output], INPUT).is_err());
        assert!(sizes(&[Layer::Flatten], INPUT).is_err());
        assert!(sizes(&[Layer::GlobalAveragePool, Layer::Head { filters: 8 }, Layer::Output], INPUT).is_err());
        assert!(sizes(&[Layer::Head { filters: 0 }, Layer::GlobalAveragePool, Layer::Output], INPUT).is_err());
        assert!(sizes(&candidate("m10").expect("m10").layers, [1, 16, 16]).is_err());
    }
}
