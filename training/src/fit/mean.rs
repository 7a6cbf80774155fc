//! One network of several trainings' weights.
//!
//! Trainings that begin with the same pretrained weights end near each other, and the network with the mean of their weights errs less than
//! each of them at the cost of one (M. Wortsman et al.: Model soups, ICML 2022). The activations of that network are
//! none of those that any training's BatchNorm has seen, so its statistics are taken anew, on draws of the training side (P. Izmailov et al.:
//! Averaging Weights Leads to Wider Optima and Better Generalization, UAI 2018).

use burn::module::{AutodiffModule, Module, RunningState};
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};
use triaged_kernels::ConvBackend;

use super::average::{Put, numbers};
use super::config::FitConfig;
use super::draws::Draws;
use super::error::FitError;
use super::predict::images;
use crate::data::{Cache, Draw, Loader, Slice};
use crate::network::Network;
use crate::progress::Progress;

/// Draws that BatchNorm's statistics are taken from where the recipe does not say: 128 steps of 16 leave nothing of chance that counts.
const STATISTICS_DRAWS: usize = 2048;

/// The network with the mean of some networks' numbers, which have the same layers; none where there are none.
pub fn mean<B: Backend>(networks: &[Network<B>]) -> Option<Network<B>> {
    let (first, others) = networks.split_first()?;
    let mut sums = numbers(first);
    for other in others {
        sums.iter_mut().zip(numbers(other)).for_each(|(sum, number)| *sum = sum.clone() + number);
    }
    let means: Vec<Tensor<B, 1>> = sums.into_iter().map(|sum| sum / networks.len() as f64).collect();
    Some(first.clone().map(&mut Put { values: means.iter() }))
}

/// The network with BatchNorm's statistics of draws from these slices, augmented as in training, as many as the recipe says.
///
/// Those that a training notes on the way are of the weights of its last hundred steps, none of which are the ones that are kept: of networks
/// that were trained alike some said four logits more of every slice than others (Y. Wu, J. Johnson: Rethinking "Batch" in BatchNorm, 2021).
///
/// # Errors
/// A slice that cannot be read, or slices of one class only where draws are balanced.
pub fn with_statistics_of<B>(
    network: Network<B::InnerBackend>,
    config: &FitConfig,
    train: &[&Slice],
    cache: &Cache,
    device: &B::Device,
) -> Result<Network<B::InnerBackend>, FitError>
where
    B: AutodiffBackend + ConvBackend,
    B::InnerBackend: ConvBackend,
{
    let mut network = Network::<B>::from_inner(network);
    let blocks = network.blocks.iter_mut().map(|conv| &mut conv.norm);
    for norm in network.norms.iter_mut().chain(blocks) {
        let channels = norm.running_mean.value().dims();
        norm.running_mean = RunningState::new(Tensor::zeros(channels, device));
        norm.running_var = RunningState::new(Tensor::ones(channels, device));
    }
    let wanted = if config.statistics > 0 { config.statistics } else { STATISTICS_DRAWS };
    // Those of epochs that no training had.
    let (of_training, next) = (Draws::new(config, train)?, config.epochs + 1);
    let draws: Vec<Draw> = match config.balance {
        Some(_) => of_training.of_epoch(config, train, next, Some(wanted)),
        None => (next..).flat_map(|epoch| of_training.of_epoch(config, train, epoch, None)).take(wanted).collect(),
    };
    let mut progress = Progress::new("statistics", draws.len());
    let mut steps = 0;
    for batch in Loader::new(cache, draws, config.batch) {
        let batch = batch?;
        let size = batch.len();
        // Nothing is learned: going forward notes the statistics.
        network.features(images::<B>(batch, config.shape(), device));
        steps += 1;
        progress.advance(size, "");
    }
    progress.finish("");
    Ok(network.valid().settled(steps, false))
}
