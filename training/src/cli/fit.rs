//! `fit`: index, split and training of a run.

use std::path::Path;

use anyhow::{Context, bail};
use burn::tensor::backend::AutodiffBackend;

use super::arguments::{DataArgs, FitArgs};
use crate::conv::ConvBackend;
use crate::data::{Index, Side, Slice, Split, stratified};
use crate::fit::{self, FitConfig, read_json, write_json};

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

/// Index and split of a run: made and saved by its first `fit`, read by all that follows.
pub fn data_of(run: &Path) -> anyhow::Result<(Index, Split)> {
    Ok((read_json(&run.join("index.json"))?, read_json(&run.join("split.json"))?))
}

pub fn do_fit<B>(data: &DataArgs, args: &FitArgs, run: &Path, device: &B::Device) -> anyhow::Result<()>
where
    B: AutodiffBackend + ConvBackend,
    B::InnerBackend: ConvBackend,
{
    let config = args.config()?;
    let (index, split) = match begun(run)? {
        Some(found) => found,
        None => {
            let index = data.index()?;
            let split = Split::new(&index, args.split, args.validation, args.test, &data.only(), args.seed)?;
            begin(run, &index, &split)?;
            (index, split)
        }
    };
    train::<B>(&config, args, &index, &split, run, device)
}

/// Index and split of a run that was begun, if it was.
fn begun(run: &Path) -> anyhow::Result<Option<(Index, Split)>> {
    if run.join("split.json").exists() { data_of(run).map(Some) } else { Ok(None) }
}

/// Notes index and split with a new run.
pub fn begin(run: &Path, index: &Index, split: &Split) -> anyhow::Result<()> {
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
