//! `fit`: index, split and training of a run.

use std::path::Path;

use anyhow::{Context, bail};
use burn::tensor::backend::AutodiffBackend;

use super::arguments::{DataArgs, FitArgs};
use crate::data::{Index, Side, Slice, Split, stratified};
use crate::fit::{self, FitConfig, read_json, write_json};
use triaged_kernels::ConvBackend;

pub fn by_source(index: &Index) -> Vec<(&str, Vec<&Slice>)> {
    let mut sources: Vec<(&str, Vec<&Slice>)> = Vec::new();
    for slice in &index.slices {
        match sources.iter_mut().find(|(source, _)| *source == slice.source) {
            Some((_, slices)) => slices.push(slice),
            None => sources.push((&slice.source, vec![slice])),
        }
    }
    sources
}

/// Index and split of a run, as [`begin`] noted them.
pub fn data_of(run: &Path) -> anyhow::Result<(Index, Split)> {
    Ok((read_json(&run.join("index.json"))?, read_json(&run.join("split.json"))?))
}

/// Trains on what of the index, which is that of `data`, the split puts on the training side.
pub fn do_fit<B>(data: &DataArgs, index: &Index, args: &FitArgs, run: &Path, device: &B::Device) -> anyhow::Result<()>
where
    B: AutodiffBackend + ConvBackend,
    B::InnerBackend: ConvBackend,
{
    let config = args.config()?;
    let split = split_of(data, index, args)?;
    begin(run, index, &split)?;
    train::<B>(&config, args, index, &split, run, device)
}

/// Who stands where, as the arguments ask for it.
pub fn split_of(data: &DataArgs, index: &Index, args: &FitArgs) -> anyhow::Result<Split> {
    Ok(Split::new(index, args.split, args.validation, args.test, &data.only(), args.seed)?)
}

/// Refuses a run's folder that was begun on other slices or another split: its network has been trained on some of those
/// that it would be tested on.
pub fn check_begun(run: &Path, index: &Index, split: &Split) -> anyhow::Result<()> {
    if !run.join("split.json").exists() {
        return Ok(());
    }
    let (begun, begun_split) = data_of(run)?;
    match begun.difference(index).or_else(|| begun_split.difference(split)) {
        None => Ok(()),
        Some(how) => bail!(
            "{} was begun with other data, another sample or split ({how}); take another folder or delete it",
            run.display()
        ),
    }
}

/// Notes index and split with a run. One that was begun must have the same; it is noted where the files lie by now.
pub fn begin(run: &Path, index: &Index, split: &Split) -> anyhow::Result<()> {
    check_begun(run, index, split)?;
    std::fs::create_dir_all(run).with_context(|| format!("cannot make {}", run.display()))?;
    write_json(&run.join("index.json"), index)?;
    Ok(write_json(&run.join("split.json"), split)?)
}

/// Trains on a split's training side, or goes on with it.
pub fn train<B>(
    config: &FitConfig,
    args: &FitArgs,
    index: &Index,
    split: &Split,
    run: &Path,
    device: &B::Device,
) -> anyhow::Result<()>
where
    B: AutodiffBackend + ConvBackend,
    B::InnerBackend: ConvBackend,
{
    let cache = config.cache(args.machine.cache.clone(), index)?;
    let mut train = split.slices(index, Side::Train);
    if let Some(size) = args.sample {
        let labels: Vec<bool> = train.iter().map(|slice| slice.positive).collect();
        train = stratified(&labels, size, args.seed).into_iter().map(|i| train[i]).collect();
    }
    let validation = split.slices(index, Side::Validation);
    eprintln!(
        "{}: {} slices to train on, {} to validate, {} for the test; {} epochs of batches of {}",
        config.candidate.name,
        train.len(),
        validation.len(),
        split.slices(index, Side::Test).len(),
        config.epochs,
        config.batch
    );
    let (_, state) = fit::fit::<B>(run, config, &train, &validation, &cache, device)?;
    if let (Some((epoch, batch)), Some(best)) = (state.nan, state.best) {
        bail!(
            "the loss stopped being a number in epoch {epoch}, batch {batch}; the best epoch before it, {best}, is kept in {}",
            run.display()
        );
    }
    match state.best {
        Some(best) => eprintln!("done after {} epochs; the best is epoch {best}", state.epochs.len()),
        None => eprintln!("no epoch was asked for: the network is untrained"),
    }
    Ok(())
}
