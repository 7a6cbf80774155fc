//! The training loop: Adam on weighted binary cross-entropy, early stopping with the best weights kept, a checkpoint
//! after each epoch from which a killed run goes on.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::module::{AutodiffModule, Module};
use burn::optim::{AdamWConfig, GradientsParams, Optimizer};
use burn::record::{BinBytesRecorder, BinFileRecorder, FullPrecisionSettings, Recorder, RecorderError};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{ElementConversion, Tensor, TensorData, activation, module};
use serde::{Deserialize, Serialize};
use triaged_imaging::Transform;

use crate::candidates::{Candidate, Layer, LayerError};
use crate::data::{
    Augment, Batch, Cache, Draw, Index, LoadError, Loader, Neighbours, Slice, balanced, epoch_seed, plain,
};
use crate::logistic::sigmoid;
use crate::metrics::{Case, auc};
use crate::model::{Network, strongest};
use crate::pretrained::{Pretrained, PretrainedError};
use crate::progress::Progress;
use crate::rules::WANTED_SENSITIVITY;
use crate::witness;
use triaged_kernels::ConvBackend;

/// Everything that decides how a network is trained; saved with the run. A run is only resumed with the same, but for
/// how long: more epochs and more patience make it go on; and but for how it is scored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FitConfig {
    pub candidate: Candidate,
    /// The weights to begin with, but for the output unit's; none: drawn ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretrained: Option<Pretrained>,
    pub transform: Transform,
    pub seed: u64,
    pub epochs: usize,
    pub batch: usize,
    /// The highest, where the schedule changes it.
    pub learning_rate: f64,
    pub schedule: Schedule,
    /// Of AdamW; 0 makes it Adam, the study's.
    pub weight_decay: f64,
    /// Knots along an edge of the grid that the first dense layer is trained on ([`Network::on_grid`]); none: free
    /// weights at every position, as in the study.
    pub position_grid: Option<usize>,
    /// The first epochs that see the images at half their edge, at a quarter of the time; needs the position grid.
    pub half_size_epochs: usize,
    /// The weight of the witnesses' loss beside the network's own ([`Network::forward_both`]); 0: none, as in the study.
    pub witness: f64,
    pub augment: Augment,
    /// Draws an epoch, half of them positive; none: every training slice once, classes weighted n / (2 · n_class).
    pub balance: Option<usize>,
    /// Epochs without a better validation that end the training.
    pub patience: usize,
    pub monitor: Monitor,
    /// Whether slices are scored a second time, as the mean of a slice and its mirror image. Decides nothing.
    #[serde(default)]
    pub test_time_flip: bool,
    /// The share of validation studies with hemorrhage that the study rule must flag. Decides nothing of the training.
    #[serde(default = "wanted")]
    pub study_sensitivity: f64,
    /// How often a slice of a source is drawn beside one of the same class whose source is not named; needs balanced
    /// draws.
    #[serde(default)]
    pub sources: BTreeMap<String, f64>,
    /// Whether the network sees the slices before and after each one too, as further channels. The node knows no such
    /// input: for experiments.
    #[serde(default)]
    pub context: bool,
}

/// Of runs of before it could be asked for.
fn wanted() -> f64 {
    WANTED_SENSITIVITY
}

impl FitConfig {
    /// `[channels, height, width]` of the network's input.
    pub fn shape(&self) -> [usize; 3] {
        let [channels, height, width] = self.transform.shape();
        [if self.context { 3 * channels } else { channels }, height, width]
    }

    /// Where the network's input comes from; slices are looked for in the index.
    ///
    /// # Errors
    /// [`LoadError`] where the folder cannot be made, or neighbours are asked for and not known.
    pub fn cache(&self, folder: Option<PathBuf>, index: &Index) -> Result<Cache, LoadError> {
        let cache = Cache::new(self.transform.clone(), folder)?;
        Ok(if self.context { cache.with_neighbours(Neighbours::of(index)?) } else { cache })
    }

    /// How often a slice is drawn beside others of its class.
    pub fn weight(&self, slice: &Slice) -> f64 {
        self.sources.get(&slice.source).copied().unwrap_or(1.0)
    }
}

/// What of the validation decides which epoch is best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Monitor {
    /// The lowest loss, as in the study.
    Loss,
    /// The highest area under the ROC curve of the slices.
    Auc,
    /// Nothing: the last epoch is kept, for validation sets too small to choose by.
    Last,
}

/// How the learning rate runs over a training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// The same throughout, as in the study.
    Constant,
    /// Up from a 25th over the first fifth of all steps, then down to nothing along a cosine (L. N. Smith, N. Topin:
    /// Super-Convergence, 2017). Asking for more epochs changes it, so such a run cannot be made longer.
    OneCycle,
}

impl Schedule {
    /// The rate of a step, counted from 0, as a share of the highest.
    fn share(self, step: usize, steps: usize) -> f64 {
        const START: f64 = 1.0 / 25.0;
        const RISE: f64 = 0.2;
        let done = (step as f64 + 0.5) / steps.max(1) as f64;
        match self {
            Schedule::Constant => 1.0,
            Schedule::OneCycle if done < RISE => START + (1.0 - START) * done / RISE,
            Schedule::OneCycle => (1.0 + (std::f64::consts::PI * (done - RISE) / (1.0 - RISE)).cos()) / 2.0,
        }
    }
}

/// One epoch's outcome.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    pub epoch: usize,
    pub loss: f64,
    /// None without validation slices.
    pub validation_loss: Option<f64>,
    pub validation_auc: Option<f64>,
    pub seconds: f64,
}

/// Where a run stands. It names the checkpoint's folder, so that replacing this one file moves the run forward whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub epochs: Vec<Epoch>,
    /// The best epoch so far, whose weights are kept.
    pub best: Option<usize>,
    /// Where the loss stopped being a number, if it did: epoch and batch.
    pub nan: Option<(usize, usize)>,
    /// The share of studies to flag ([`FitConfig::study_sensitivity`]) that was asked for when the run was begun, where
    /// another was since, with epochs trained and figures to be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_sensitivity: Option<f64>,
}

impl State {
    /// Whether there is nothing more to do: all epochs run, none better for too long, or no number any more.
    pub fn is_done(&self, config: &FitConfig) -> bool {
        let run = self.epochs.len();
        let waited = self.best.map_or(0, |best| run - best);
        self.nan.is_some() || run >= config.epochs || waited >= config.patience
    }
}

#[derive(Debug, thiserror::Error)]
pub enum FitError {
    #[error(transparent)]
    Layers(#[from] LayerError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Pretrained(#[from] PretrainedError),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{path} was begun with another configuration; take another folder or delete it")]
    OtherConfig { path: PathBuf },
    #[error("the checkpoint {path} cannot be used: {why}")]
    Checkpoint { path: PathBuf, why: String },
    #[error("the loss stopped being a number in epoch {epoch}, batch {batch}, before any epoch was finished")]
    Nan { epoch: usize, batch: usize },
    #[error("{0} needs slices of both classes")]
    OneClass(&'static str),
    #[error("half-size epochs need a position grid: free weights at every position fit one image size only")]
    HalfSize,
    #[error(
        "there are no validation slices to choose an epoch by: hold some back, or keep the last epoch (--monitor last)"
    )]
    NoValidation,
}

const STATE: &str = "state.json";
const CONFIG: &str = "config.json";

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
    fs::create_dir_all(run).map_err(|source| FitError::File { path: run.into(), source })?;
    let mut state = begin(run, config)?;
    let input = config.shape();
    let layers = &config.candidate.layers;
    let mut network = match config.position_grid {
        None => Network::<B>::new(layers, input, config.seed, device)?,
        Some(edge) => Network::<B>::on_grid(layers, input, edge, config.seed, device)?,
    };
    let flattens = layers.contains(&Layer::Flatten);
    if config.witness > 0.0 && !flattens {
        return Err(LayerError::NoPositions.into());
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
    let labels: Vec<bool> = train.iter().map(|slice| slice.positive).collect();
    let drawn = |class: bool| train.iter().any(|slice| slice.positive == class && config.weight(slice) > 0.0);
    if !(drawn(true) && drawn(false)) {
        return Err(FitError::OneClass("training"));
    }
    if config.half_size_epochs > 0 && flattens && config.position_grid.is_none() {
        return Err(FitError::HalfSize);
    }
    if validation.is_empty() && config.monitor != Monitor::Last {
        return Err(FitError::NoValidation);
    }
    let shares: Vec<f64> = train.iter().map(|slice| config.weight(slice)).collect();
    for (name, weight) in &config.sources {
        if !train.iter().any(|slice| slice.source == *name) {
            eprintln!("the recipe draws from {name} by {weight}, but nothing of it is trained on");
        }
    }
    let weights = if config.balance.is_none() { class_weights(&labels) } else { [1.0, 1.0] };
    let held: Vec<Draw> = validation.iter().map(|slice| draw(slice, None)).collect();

    while !state.is_done(config) {
        let begun = Instant::now();
        let epoch = state.epochs.len() + 1;
        B::seed(device, epoch_seed(config.seed, epoch, usize::MAX));
        let order = match config.balance {
            Some(size) => balanced(&labels, &shares, size, epoch_seed(config.seed, epoch, 0)),
            None => plain(&labels, epoch_seed(config.seed, epoch, 0)),
        };
        let draws = order
            .iter()
            .enumerate()
            .map(|(place, &i)| {
                let draw = draw(train[i], Some((config.augment, epoch_seed(config.seed, epoch, place + 1))));
                // Only the witness has a use for masks.
                Draw { mask: train[i].mask.clone().filter(|_| config.witness > 0.0), ..draw }
            })
            .collect();
        let mut progress = Progress::new(format!("epoch {epoch}/{}", config.epochs), order.len());
        let (mut total, mut seen) = (0.0, 0);
        let steps = order.len().div_ceil(config.batch);
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
            let (logits, voices) = network.forward_both(images);
            let mut loss = loss_of(logits, &positive, weights, device);
            let value: f64 = loss.clone().into_scalar().elem();
            if config.witness > 0.0 {
                let scale = if halved { 2.0 } else { 1.0 };
                let shown = witness::loss(voices.clone(), &masks, input[2], scale, layers, device);
                let told = loss_of(strongest(voices), &positive, weights, device);
                loss = loss + (told + shown) * config.witness;
            }
            if !(sound && value.is_finite()) {
                state.nan = Some((epoch, number + 1));
                break;
            }
            let grads = GradientsParams::from_grads(loss.backward(), &network);
            let share = config.schedule.share((epoch - 1) * steps + number, config.epochs * steps);
            network = adam.step(config.learning_rate * share, network, grads);
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

        let settled = network.valid().settled(epoch * steps, config.pretrained.is_some()).spread(input)?;
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
        if is_best {
            save::<B::InnerBackend, _>(&run.join(format!("best-{epoch}")), "network", settled.into_record())?;
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

/// The best epoch's network of a run.
pub fn best<B: Backend>(
    run: &Path,
    config: &FitConfig,
    state: &State,
    device: &B::Device,
) -> Result<Network<B>, FitError> {
    let network = Network::<B>::new(&config.candidate.layers, config.shape(), config.seed, device)?;
    match state.best {
        Some(epoch) => load_network(network, &run.join(format!("best-{epoch}")), device),
        // No epoch was asked for: the initial weights, drawn ones.
        None => Ok(network),
    }
}

/// A run's configuration and where it stands.
pub fn read_run(run: &Path) -> Result<(FitConfig, State), FitError> {
    Ok((read_json(&run.join(CONFIG))?, read_json(&run.join(STATE))?))
}

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
    /// Of the slices with left and right exchanged, where they were asked for.
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

fn case(score: f64, slice: &Slice) -> Case {
    Case { score, positive: slice.positive }
}

fn images<B: Backend>(batch: Batch, [c, h, w]: [usize; 3], device: &B::Device) -> Tensor<B, 4> {
    let size = batch.len();
    Tensor::from_data(TensorData::new(batch.images, [size, c, h, w]), device)
}

/// n / (2 · n_class) for the negatives and the positives.
fn class_weights(labels: &[bool]) -> [f32; 2] {
    let positives = labels.iter().filter(|label| **label).count();
    [labels.len() - positives, positives].map(|count| labels.len() as f32 / (2 * count) as f32)
}

/// Mean weighted binary cross-entropy of logits, in the form that does not overflow.
fn loss_of<B: Backend>(logits: Tensor<B, 2>, positive: &[bool], weights: [f32; 2], device: &B::Device) -> Tensor<B, 1> {
    let column = |values: Vec<f32>| Tensor::<B, 2>::from_data(TensorData::new(values, [positive.len(), 1]), device);
    let label = column(positive.iter().map(|&p| f32::from(u8::from(p))).collect());
    let weight = column(positive.iter().map(|&p| weights[usize::from(p)]).collect());
    let softplus = activation::relu(logits.clone()) + (logits.clone().abs().neg().exp() + 1.0).log();
    ((softplus - logits * label) * weight).mean()
}

/// Class-weighted mean cross-entropy of probabilities: each class counts half, whatever its share.
fn mean_loss(cases: &[Case]) -> f64 {
    let of = |positive: bool| {
        let losses: Vec<f64> = cases
            .iter()
            .filter(|case| case.positive == positive)
            .map(|case| -(if positive { case.score } else { 1.0 - case.score }).max(1e-7).ln())
            .collect();
        losses.iter().sum::<f64>() / losses.len().max(1) as f64
    };
    (of(false) + of(true)) / 2.0
}

fn checkpoint(run: &Path, epoch: usize) -> PathBuf {
    run.join(format!("checkpoint-{epoch}"))
}

/// Refuses a run's folder that was begun with a configuration that this one cannot go on with.
///
/// # Errors
/// [`FitError::OtherConfig`], and [`FitError::File`] where there is a configuration that cannot be read.
pub fn check_begun(run: &Path, config: &FitConfig) -> Result<(), FitError> {
    let path = run.join(CONFIG);
    if path.exists() {
        let found: FitConfig = read_json(&path)?;
        let epochs = if config.schedule == Schedule::Constant { config.epochs } else { found.epochs };
        let same = FitConfig {
            epochs,
            patience: config.patience,
            test_time_flip: config.test_time_flip,
            study_sensitivity: config.study_sensitivity,
            ..found
        };
        if same != *config {
            return Err(FitError::OtherConfig { path: run.into() });
        }
    }
    Ok(())
}

/// Starts a run's folder, or reads where it stands.
fn begin(run: &Path, config: &FitConfig) -> Result<State, FitError> {
    check_begun(run, config)?;
    let path = run.join(CONFIG);
    let before: Option<FitConfig> = if path.exists() { Some(read_json(&path)?) } else { None };
    let path = run.join(STATE);
    if path.exists() {
        let mut state: State = read_json(&path)?;
        if let Some(last) = state.epochs.last() {
            eprintln!("{}: going on after epoch {}", run.display(), last.epoch);
            let before = before.map(|before| before.study_sensitivity);
            if let Some(before) = before.filter(|before| *before != config.study_sensitivity) {
                state.first_sensitivity.get_or_insert(before);
                save_state(run, &state)?;
            }
        }
        write_json(&run.join(CONFIG), config)?;
        return Ok(state);
    }
    write_json(&run.join(CONFIG), config)?;
    let state = State { epochs: Vec::new(), best: None, nan: None, first_sensitivity: None };
    save_state(run, &state)?;
    Ok(state)
}

fn save_state(run: &Path, state: &State) -> Result<(), FitError> {
    write_json(&run.join(STATE), state)
}

/// Removes the checkpoints that `state` no longer names. What cannot be removed costs space, nothing else.
fn forget_old(run: &Path, state: &State) {
    let last = state.epochs.last().map_or(0, |row| row.epoch);
    for epoch in 1..=last {
        if epoch != last {
            let _ = fs::remove_dir_all(checkpoint(run, epoch));
        }
        if Some(epoch) != state.best {
            let _ = fs::remove_dir_all(run.join(format!("best-{epoch}")));
        }
    }
}

fn save<B: Backend, R: burn::record::Record<B>>(folder: &Path, name: &str, record: R) -> Result<(), FitError> {
    fs::create_dir_all(folder).map_err(|source| FitError::File { path: folder.into(), source })?;
    let path = folder.join(name).with_extension("bin");
    // Burn's file recorder drops its buffer unwritten where the disk is full, and says nothing.
    let bytes = BinBytesRecorder::<FullPrecisionSettings>::new()
        .record(record, ())
        .map_err(|error| FitError::Checkpoint { path: path.clone(), why: error.to_string() })?;
    fs::write(&path, bytes).map_err(|source| FitError::File { path, source })
}

/// The network that lies in a checkpoint's folder; `network` is one of the same layers.
fn load_network<B: Backend>(network: Network<B>, folder: &Path, device: &B::Device) -> Result<Network<B>, FitError> {
    let path = folder.join("network");
    match load::<B, _>(&path, device) {
        Ok(record) => Ok(network.load_record(record)),
        // Runs from before there were blocks are read on.
        Err(error) => match load::<B, _>(&path, device) {
            Ok(record) if network.blocks.is_empty() => Ok(network.load_earlier(record)),
            _ => Err(error),
        },
    }
}

fn load<B: Backend, R: burn::record::Record<B>>(path: &Path, device: &B::Device) -> Result<R, FitError> {
    BinFileRecorder::<FullPrecisionSettings>::new().load(path.into(), device).map_err(|error| FitError::Checkpoint {
        path: path.with_extension("bin"),
        why: match error {
            RecorderError::FileNotFound(why) => why,
            // Burn's own text is a page about formats and versions.
            _ => "it is cut off, or not of this network; delete the run or take another folder".into(),
        },
    })
}

/// Writes beside and renames, so that what is read is whole.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), FitError> {
    let failed = |source| FitError::File { path: path.into(), source };
    let draft = path.with_extension("draft");
    let text = serde_json::to_string_pretty(value).map_err(|error| failed(error.into()))?;
    fs::write(&draft, text + "\n").and_then(|()| fs::rename(&draft, path)).map_err(failed)
}

pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, FitError> {
    let failed = |source| FitError::File { path: path.into(), source };
    let text = fs::read_to_string(path).map_err(failed)?;
    serde_json::from_str(&text).map_err(|error| failed(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::candidates::candidate;
    use burn::backend::flex::Flex;

    #[test]
    fn a_checkpoint_of_an_earlier_program_is_read() {
        let device = Default::default();
        let folder = tempfile::tempdir().expect("a folder");
        let input = [1, 40, 40];
        let layers = candidate("m4").expect("m4").layers;
        let fresh = |seed| Network::<Flex>::new(&layers, input, seed, &device).expect("a network");
        save::<Flex, _>(folder.path(), "network", fresh(1).without_blocks().into_record()).expect("saved");
        let image = Tensor::<Flex, 4>::ones([1, 1, 40, 40], &device);
        let read = load_network(fresh(2), folder.path(), &device).expect("an earlier record");
        read.forward(image.clone()).into_data().assert_eq(&fresh(1).forward(image.clone()).into_data(), true);

        save::<Flex, _>(folder.path(), "network", fresh(3).into_record()).expect("saved");
        let read = load_network(fresh(2), folder.path(), &device).expect("a record of today");
        read.forward(image.clone()).into_data().assert_eq(&fresh(3).forward(image).into_data(), true);
    }
}
