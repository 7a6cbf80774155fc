//! How long a training step takes on a device, and whether loading slices keeps up with it.

use std::time::{Duration, Instant};

use burn::module::AutodiffModule;
use burn::optim::{AdamWConfig, GradientsParams, Optimizer};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{ElementConversion, Tensor, TensorData};
use serde::Serialize;
use triaged_kernels::ConvBackend;

use crate::data::{Cache, Draw, LoadError, Loader, epoch_seed};
use crate::fit::{FitConfig, FitError, draw};
use crate::network::Network;

/// Steps that are not counted: kernels are compiled and chosen in them.
pub const WARM_UP: usize = 3;

/// The measurement that was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Amount {
    /// Steps on one batch that lies in memory already.
    pub steps: usize,
    /// How long those steps may take together; at least one is measured.
    pub time: Duration,
    /// How long the steps on slices from disk may take together, over one pass through them at most.
    pub epoch_time: Duration,
}

/// The measurement's results. Times are in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct StepTime {
    pub candidate: String,
    pub device: String,
    pub batch: usize,
    pub input: [usize; 3],
    pub parameters: usize,
    /// From the first step to the end of the warm-up: compilation of kernels.
    pub warm_up_seconds: f64,
    pub steps: usize,
    /// Forward, backward and the optimizer's step, of a batch in ordinary memory, until the device has done all of it.
    pub step_ms: f64,
    pub step_ms_95th: f64,
    pub slices_a_second: f64,
    /// The loss of that one batch before and after: it must fall.
    pub first_loss: f64,
    pub last_loss: f64,
    /// None without slices.
    pub epoch: Option<EpochTime>,
}

/// Steps on slices that are read from disk, decoded and augmented meanwhile, as training does.
#[derive(Debug, Clone, Serialize)]
pub struct EpochTime {
    pub steps: usize,
    pub slices: usize,
    pub seconds: f64,
    pub slices_a_second: f64,
    /// The share of the time in which a step waited for its batch: 0 where loading keeps the device busy.
    pub waiting: f64,
}

/// Measures steps of a network as its configuration trains it, on one batch of noise and, where there are any, on slices.
pub fn step_time<B>(
    config: &FitConfig,
    slices: Vec<Draw>,
    cache: &Cache,
    amount: Amount,
    device: &B::Device,
    device_name: &str,
) -> Result<StepTime, FitError>
where
    B: AutodiffBackend + ConvBackend,
    B::InnerBackend: ConvBackend,
{
    let [channels, height, width] = config.shape();
    let network = match config.position_grid {
        None => Network::<B>::new(&config.candidate.layers, config.shape(), config.seed, device)?,
        Some(edge) => Network::<B>::on_grid(&config.candidate.layers, config.shape(), edge, config.seed, device)?,
    };
    let parameters = burn::module::Module::num_params(&network.valid());
    let adam = AdamWConfig::new().with_epsilon(1e-7).with_weight_decay(config.weight_decay as f32);
    let adam = adam.init::<B, Network<B>>();
    let mut trained = Trained { network: Some(network), adam, rate: config.learning_rate, device };
    let size = config.batch * channels * height * width;
    // Every second image is brighter: something to learn.
    let noise = |i: usize| {
        let brighter = if (i / (channels * height * width)).is_multiple_of(2) { 0.5 } else { 0.0 };
        (i.wrapping_mul(2_654_435_761) >> 7) as u8 as f32 / 512.0 + brighter
    };
    let images: Vec<f32> = (0..size).map(noise).collect();
    let positive: Vec<bool> = (0..config.batch).map(|i| i.is_multiple_of(2)).collect();
    let mut step = || trained.step(images.clone(), &positive, [config.batch, channels, height, width]);
    let begun = Instant::now();
    let first_loss = step();
    for _ in 1..WARM_UP {
        step();
    }
    let warm_up_seconds = begun.elapsed().as_secs_f64();
    let (mut times, mut last_loss) = (Vec::new(), first_loss);
    let begun = Instant::now();
    while times.is_empty() || (times.len() < amount.steps && begun.elapsed() < amount.time) {
        let begun = Instant::now();
        last_loss = step();
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    times.sort_unstable_by(f64::total_cmp);
    let quantile = |share: f64| times[((times.len() as f64 - 1.0) * share).round() as usize];
    let epoch = match slices.is_empty() {
        true => None,
        false => Some(epoch(&mut trained, config, slices, cache, amount.epoch_time)?),
    };
    Ok(StepTime {
        candidate: config.candidate.name.clone(),
        device: device_name.to_owned(),
        batch: config.batch,
        input: config.shape(),
        parameters,
        warm_up_seconds,
        steps: times.len(),
        step_ms: quantile(0.5),
        step_ms_95th: quantile(0.95),
        slices_a_second: config.batch as f64 * 1000.0 / quantile(0.5),
        first_loss,
        last_loss,
        epoch,
    })
}

fn epoch<B, O>(
    trained: &mut Trained<'_, B, O>,
    config: &FitConfig,
    slices: Vec<Draw>,
    cache: &Cache,
    time: Duration,
) -> Result<EpochTime, LoadError>
where
    B: AutodiffBackend + ConvBackend,
    O: Optimizer<Network<B>, B>,
{
    let [channels, height, width] = config.shape();
    let begun = Instant::now();
    let (mut steps, mut done, mut waited) = (0, 0, Duration::ZERO);
    let mut loader = Loader::new(cache, slices, config.batch);
    while begun.elapsed() < time {
        let asked = Instant::now();
        let Some(batch) = loader.next() else { break };
        // The first batch has nothing to be loaded beside.
        waited += if steps == 0 { Duration::ZERO } else { asked.elapsed() };
        let batch = batch?;
        // A smaller batch at the end would be a shape of its own, with kernels to be chosen anew.
        if batch.len() < config.batch && steps > 0 {
            break;
        }
        let (size, positive) = (batch.len(), batch.positive.clone());
        trained.step(batch.images, &positive, [size, channels, height, width]);
        steps += 1;
        done += size;
    }
    let seconds = begun.elapsed().as_secs_f64();
    Ok(EpochTime {
        steps,
        slices: done,
        seconds,
        slices_a_second: done as f64 / seconds,
        waiting: waited.as_secs_f64() / seconds,
    })
}

/// Slices as an epoch of the configuration draws them, each once.
pub fn draws(config: &FitConfig, slices: &[crate::data::Slice]) -> Vec<Draw> {
    let augmented = |(place, slice): (usize, &crate::data::Slice)| {
        draw(slice, Some((config.augment, epoch_seed(config.seed, 1, place + 1))))
    };
    slices.iter().enumerate().map(augmented).collect()
}

/// A network in training.
struct Trained<'a, B: AutodiffBackend, O> {
    /// There but during a step, which takes it, so that its weights are changed where they lie.
    network: Option<Network<B>>,
    adam: O,
    rate: f64,
    device: &'a B::Device,
}

impl<B, O> Trained<'_, B, O>
where
    B: AutodiffBackend + ConvBackend,
    O: Optimizer<Network<B>, B>,
{
    /// One step; returns the loss before it. The device has done all of it when this returns.
    fn step(&mut self, images: Vec<f32>, positive: &[bool], shape: [usize; 4]) -> f64 {
        let images = Tensor::<B, 4>::from_data(TensorData::new(images, shape), self.device);
        let network = self.network.take().expect("each step puts back what it took");
        let logits = network.forward(images);
        let loss = crate::fit::loss_of(logits, positive, [1.0, 1.0], 0.0, self.device);
        let value = loss.clone().into_scalar().elem();
        let grads = GradientsParams::from_grads(loss.backward(), &network);
        self.network = Some(self.adam.step(self.rate, network, grads));
        // A device that is asked computes on its own time. A failure shows at the next value that is read from it.
        let _ = B::sync(self.device);
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Index, phantoms};
    use crate::recipe::Recipe;
    use burn::backend::autodiff::Autodiff;
    use burn::backend::flex::Flex;
    use triaged_imaging::Window;

    #[test]
    fn a_step_and_an_epoch_from_disk_are_measured_and_the_loss_falls() {
        let folder = tempfile::tempdir().expect("a folder");
        phantoms::write(folder.path(), 2, 6, 1).expect("phantoms");
        let index = Index::read(folder.path()).expect("an index");
        let recipe = Recipe::of_candidate("m4").expect("a recipe");
        let window = Window { center: 40.0, width: 80.0 };
        let recipe = Recipe { size: 40, batch: 4, learning_rate: 0.001, windows: vec![window], ..recipe };
        let config = recipe.config(1).expect("a configuration");
        let cache = config.cache(None, &index).expect("a cache");
        let amount = Amount { steps: 10, time: Duration::from_secs(60), epoch_time: Duration::from_secs(60) };
        let draws = draws(&config, &index.slices);
        let measured =
            step_time::<Autodiff<Flex>>(&config, draws, &cache, amount, &Default::default(), "CPU").expect("measured");
        assert_eq!((measured.steps, measured.batch), (10, 4));
        assert!(measured.step_ms > 0.0 && measured.step_ms <= measured.step_ms_95th, "{measured:?}");
        assert!(measured.last_loss < measured.first_loss, "{measured:?}");
        let epoch = measured.epoch.expect("an epoch");
        assert_eq!((epoch.steps, epoch.slices), (3, 12));
        assert!((0.0..1.0).contains(&epoch.waiting) && epoch.slices_a_second > 0.0, "{epoch:?}");
    }
}
