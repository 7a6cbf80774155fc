//! A run's weights on disk: the last epoch's, to go on from, and the best one's.

use std::fs;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::record::{BinBytesRecorder, BinFileRecorder, FullPrecisionSettings, Record, Recorder, RecorderError};
use burn::tensor::backend::Backend;

use super::config::FitConfig;
use super::error::FitError;
use super::state::State;
use crate::files::FileError;
use crate::network::Network;

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

/// Keeps a network as the best epoch's of a run.
///
/// # Errors
/// [`FitError::File`] where it cannot be written.
pub fn save_best<B: Backend>(run: &Path, epoch: usize, network: Network<B>) -> Result<(), FitError> {
    save::<B, _>(&run.join(format!("best-{epoch}")), "network", network.into_record())
}

pub(super) fn checkpoint(run: &Path, epoch: usize) -> PathBuf {
    run.join(format!("checkpoint-{epoch}"))
}

/// Removes the checkpoints that `state` no longer names. What cannot be removed costs space, nothing else.
pub(super) fn forget_old(run: &Path, state: &State) {
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

pub(super) fn save<B: Backend, R: Record<B>>(folder: &Path, name: &str, record: R) -> Result<(), FitError> {
    fs::create_dir_all(folder).map_err(|source| FileError { path: folder.into(), source })?;
    let path = folder.join(name).with_extension("bin");
    // Burn's file recorder drops its buffer unwritten where the disk is full, and says nothing.
    let bytes = BinBytesRecorder::<FullPrecisionSettings>::new()
        .record(record, ())
        .map_err(|error| FitError::Checkpoint { path: path.clone(), why: error.to_string() })?;
    Ok(fs::write(&path, bytes).map_err(|source| FileError { path, source })?)
}

/// The network that lies in a checkpoint's folder; `network` is one of the same layers.
pub(super) fn load_network<B: Backend>(
    network: Network<B>,
    folder: &Path,
    device: &B::Device,
) -> Result<Network<B>, FitError> {
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

pub(super) fn load<B: Backend, R: Record<B>>(path: &Path, device: &B::Device) -> Result<R, FitError> {
    BinFileRecorder::<FullPrecisionSettings>::new().load(path.into(), device).map_err(|error| FitError::Checkpoint {
        path: path.with_extension("bin"),
        why: match error {
            RecorderError::FileNotFound(why) => why,
            // Burn's own text is a page about formats and versions.
            _ => "it is cut off, or not of this network; delete the run or take another folder".into(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::candidates::candidate;
    use burn::backend::flex::Flex;
    use burn::tensor::Tensor;

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
