//! The training loop: Adam on weighted binary cross-entropy, early stopping with the best weights kept, a checkpoint
//! after each epoch from which a killed run goes on.

mod average;
mod checkpoint;
mod config;
mod draws;
mod error;
mod localization;
mod loss;
mod mean;
mod predict;
mod state;

use std::fs;
use std::path::Path;
use std::time::Instant;

use burn::module::{AutodiffModule, Module};
use burn::optim::{AdamWConfig, GradientsParams, Optimizer};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{ElementConversion, module};
use triaged_kernels::ConvBackend;

use crate::data::{Cache, Draw, Loader, Slice, epoch_seed};
use crate::files::{FileError, Lock};
use crate::metrics::{Case, auc};
use crate::network::{Layer, LayerError, Network, has_position_logits};
use crate::progress::Progress;
use average::Average;
pub use checkpoint::{best, save_best};
use checkpoint::{checkpoint, forget_old, load, load_network, save};
pub use config::{FitConfig, Monitor, Schedule};
use draws::Draws;
pub use error::FitError;
pub(crate) use loss::loss_of;
use loss::{class_weights, mean_loss};
pub use mean::{mean, with_statistics_of};
use predict::images;
pub use predict::{Scores, draw, predict, predict_both};
pub use state::{Epoch, Member, State, check_begun, read_run, write_run};
use state::{begin, save_state};

/// Trains in the folder `run`, or goes on where it stopped, and returns the best epoch's network.
pub fn fit<B>(
    run: &Path,
    config: &FitConfig,
    train: &[&Slice],
    validation: &[&Slice],
    cache: &Cache,
    device: &B::Device,
) -> Result<(Network<B::InnerBackend>, State), FitError>
where
    B: AutodiffBackend + ConvBackend,
    B::InnerBackend: ConvBackend,
{
    fs::create_dir_all(run).map_err(|source| FileError { path: run.into(), source })?;
    // Two trainings in one folder would go on with each other's epochs.
    let _lock = Lock::of(run)?;
    let mut state = begin(run, config)?;
    let input = config.shape();
    let layers = &config.candidate.layers;
    let mut network = match config.position_grid {
        None => Network::<B>::new(layers, input, config.seed, device)?,
        Some(edge) => Network::<B>::on_grid(layers, input, edge, config.seed, device)?,
    };
    let flattens = layers.contains(&Layer::Flatten);
    let pools = has_position_logits(layers);
    if config.localization > 0.0 && !(flattens || pools) {
        return Err(LayerError::NoLocalization.into());
    }
    let adam = AdamWConfig::new().with_epsilon(1e-7).with_weight_decay(config.weight_decay as f32);
    let mut adam = adam.init::<B, Network<B>>();
    if let Some(last) = state.epochs.last() {
        let folder = checkpoint(run, last.epoch);
        network = load_network(network, &folder, device)?;
        adam = adam.load_record(load::<B, _>(&folder.join("adam"), device)?);
    } else if let Some(pretrained) = &config.pretrained {
        network = pretrained.load(network, device)?;
    }
    let of_training = Draws::new(config, train)?;
    if config.half_size_epochs > 0 && flattens && config.position_grid.is_none() {
        return Err(FitError::HalfSize);
    }
    if validation.is_empty() && config.monitor != Monitor::Last {
        return Err(FitError::NoValidation);
    }
    for (name, weight) in &config.sources {
        if !train.iter().any(|slice| slice.source == *name) {
            eprintln!("the recipe draws from {name} by {weight}, but nothing of it is trained on");
        }
    }
    let weights = if config.balance.is_none() { class_weights(of_training.labels()) } else { [1.0, 1.0] };
    let held: Vec<Draw> = validation.iter().map(|slice| draw(slice, None)).collect();
    let mut average = match state.epochs.last() {
        _ if config.averaging == 0.0 => None,
        None => Some(Average::new(&network.valid(), config.averaging, 0)),
        Some(last) => {
            let record = load::<B::InnerBackend, _>(&checkpoint(run, last.epoch).join("average"), device)?;
            let steps = state.epochs.len() * config.balance.unwrap_or(train.len()).div_ceil(config.batch);
            Some(Average::new(&network.valid().load_record(record), config.averaging, steps))
        }
    };

    while !state.is_done(config) {
        let begun = Instant::now();
        let epoch = state.epochs.len() + 1;
        B::seed(device, epoch_seed(config.seed, epoch, usize::MAX));
        let draws = of_training.of_epoch(config, train, epoch, config.balance);
        let mut progress = Progress::new(format!("epoch {epoch}/{}", config.epochs), draws.len());
        let (mut total, mut seen) = (0.0, 0);
        let steps = draws.len().div_ceil(config.batch);
        for (number, batch) in Loader::new(cache, draws, config.batch).enumerate() {
            let batch = batch?;
            let size = batch.len();
            let positive = batch.positive.clone();
            // A rectifier may take what is not a number for 0, and the loss would not show it.
            let sound = batch.images.iter().all(|value| value.is_finite());
            let masks = batch.masks.clone();
            let mut images = images::<B>(batch, input, device);
            let halved = epoch <= config.half_size_epochs;
            if halved {
                images = module::avg_pool2d(images, [2, 2], [2, 2], [0, 0], true, false);
            }
            let (logits, positions) = network.forward_with_positions(images);
            let mut loss = loss_of(logits, &positive, weights, config.label_smoothing, device);
            let value: f64 = loss.clone().into_scalar().elem();
            if config.localization > 0.0 {
                let scale = if halved { 2.0 } else { 1.0 };
                let targets = localization::Targets::new(&masks, input[2], scale, layers, positions.dims());
                let beside = if pools {
                    localization::contrast(positions, &targets, device)
                } else {
                    let slice = localization::smooth_maximum(positions.clone());
                    localization::loss(positions, &targets, device)
                        + loss_of(slice, &positive, weights, config.label_smoothing, device)
                };
                loss = loss + beside * config.localization;
            }
            if !(sound && value.is_finite()) {
                state.nan = Some((epoch, number + 1));
                break;
            }
            let grads = GradientsParams::from_grads(loss.backward(), &network);
            let share = config.schedule.share((epoch - 1) * steps + number, config.epochs * steps);
            network = adam.step(config.learning_rate * share, network, grads);
            if let Some(average) = &mut average {
                average.follow(&network.valid());
            }
            total += value * size as f64;
            seen += size;
            progress.advance(size, &format!("loss {:.4}", total / seen as f64));
        }
        if state.nan.is_some() {
            stop(run, &state)?;
            break;
        }
        let loss = total / seen as f64;
        progress.finish(&format!("loss {loss:.4}"));

        let averaged = average.as_ref().map_or_else(|| network.valid(), |average| average.network(network.valid()));
        let kept = averaged.clone().into_record();
        let settled = match config.statistics {
            draws if draws > 0 && epoch == config.epochs => {
                mean::with_statistics_of::<B>(averaged, config, train, cache, device)?
            }
            _ => averaged.settled(epoch * steps, config.pretrained.is_some()),
        };
        let settled = settled.spread(input)?;
        let scores = predict(&settled, held.clone(), cache, config.batch, "validation", device)?;
        // The last steps may have overflowed the weights with no loss after them to show it.
        if scores.iter().any(|score| !score.is_finite()) {
            state.nan = Some((epoch, steps));
            stop(run, &state)?;
            break;
        }
        let cases: Vec<Case> = scores.iter().zip(validation).map(|(&score, slice)| case(score, slice)).collect();
        let row = Epoch {
            epoch,
            loss,
            validation_loss: (!cases.is_empty()).then(|| mean_loss(&cases)),
            validation_auc: auc(&cases),
            seconds: begun.elapsed().as_secs_f64(),
        };
        let held = row.validation_loss.map_or(String::new(), |loss| format!(", validation loss {loss:.4}"));
        let auc = row.validation_auc.map_or(String::new(), |auc| format!(", AUC {auc:.4}"));
        eprintln!("epoch {epoch}: loss {loss:.4}{held}{auc}, {:.0} s", row.seconds);
        let is_best = match state.best.and_then(|best| state.epochs.iter().find(|row| row.epoch == best)) {
            None => true,
            Some(best) => match config.monitor {
                Monitor::Loss => row.validation_loss < best.validation_loss,
                Monitor::Auc => row.validation_auc > best.validation_auc,
                Monitor::Last => true,
            },
        };
        state.epochs.push(row);
        let folder = checkpoint(run, epoch);
        save::<B, _>(&folder, "network", network.clone().into_record())?;
        save::<B, _>(&folder, "adam", adam.to_record())?;
        if average.is_some() {
            save::<B::InnerBackend, _>(&folder, "average", kept)?;
        }
        if is_best {
            save_best(run, epoch, settled)?;
            state.best = Some(epoch);
        }
        save_state(run, &state)?;
        forget_old(run, &state);
    }
    Ok((best::<B::InnerBackend>(run, config, &state, device)?, state))
}

/// Notes that a run ended in [`State::nan`], with its best epoch kept; an error where it has none.
fn stop(run: &Path, state: &State) -> Result<(), FitError> {
    match (state.nan, state.best) {
        (Some((epoch, batch)), None) => Err(FitError::Nan { epoch, batch }),
        _ => save_state(run, state),
    }
}

fn case(score: f64, slice: &Slice) -> Case {
    Case { score, positive: slice.positive }
}
