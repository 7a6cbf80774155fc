//! `fit`: index, split and training of a run.

use std::path::Path;

use anyhow::bail;
use burn::tensor::backend::AutodiffBackend;
use triaged_kernels::ConvBackend;

use super::arguments::{DataArgs, FitArgs};
use super::run_data::begin;
use crate::card::FRAGMENTS;
use crate::data::{Index, Side, Slice, Split, SplitBy, stratified};
use crate::fit::{self, FitConfig};

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
    if split.by == SplitBy::Image {
        eprintln!("{FRAGMENTS}");
    }
    let cache = config.cache(args.machine.cache.clone(), index)?;
    let mut train = split.slices(index, Side::Train);
    if let Some(size) = config.sample {
        let labels: Vec<bool> = train.iter().map(|slice| slice.positive).collect();
        train = stratified(&labels, size, config.seed).into_iter().map(|i| train[i]).collect();
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
