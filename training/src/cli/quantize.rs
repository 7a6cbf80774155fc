//! `quantize`: an eight-bit copy of a cross-validated network, or of the mean of several, with figures of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use serde::Deserialize;
use triaged_kernels::ConvBackend;

use super::arguments::MachineArgs;
use super::copies::{self, Costs};
use super::evaluate::warn_of;
use super::export::{commit, write};
use super::folds::CROSS_VALIDATION;
use super::run_data::data_of;
use super::scores::{scores_file, write_scores};
use super::trainings::{self, check_name, data_of_all, folds, networks, trainings};
use crate::card::{Measured, Trained};
use crate::cross_validation::CrossValidation;
use crate::data::{Cache, Index, LoadError, OtherSizes, Side, Slice, Split, stratified};
use crate::evaluate::{ROUNDS, Study, strata};
use crate::export;
use crate::files::write_json;
use crate::fit::{self, FitConfig, Scores};
use crate::logistic::sigmoid;
use crate::metrics::{Case, auc_difference};
use crate::network::Layer;
use crate::progress::Progress;
use crate::quantize::{
    BITS, FLOAT_CONVOLUTIONS, LARGEST_MOVE, QuantizeError, Quantized, QuantizedFile, logits, quantized,
};
use crate::runtime::{self, OnnxModel};

#[derive(Clone, Args)]
pub struct QuantizeArgs {
    /// A folder of `train`, with its folds in `folds`; several, as `ensemble` takes them, give a copy of the mean of their logits
    #[arg(long = "run", required_unless_present = "card")]
    pub runs: Vec<PathBuf>,
    /// Instead of trainings, a model whose trainings are gone: its card. The copy keeps its thresholds and figures, and says how far both lie
    /// apart on the slices of --data
    #[arg(long, conflicts_with_all = ["runs", "cross_validation"], requires = "data")]
    pub card: Option<PathBuf>,
    /// With --card: a labelled folder, from which ranges are taken and on whose other slices both are compared; further ones are compared only
    #[arg(long, requires = "card")]
    pub data: Vec<PathBuf>,
    /// The folds that the first run was trained with [default: `folds` in its folder]
    #[arg(long)]
    pub cross_validation: Option<PathBuf>,
    /// The copy's name [default: the network's, with -int8]
    #[arg(long)]
    pub name: Option<String>,
    /// Slices that ranges are taken from: a stratified random sample of the training side
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    pub calibration_slices: u32,
    /// Folder of model and cards
    #[arg(long)]
    pub out: PathBuf,
    /// The card's version
    #[arg(long, default_value = "1")]
    pub card_version: String,
    #[command(flatten)]
    pub machine: MachineArgs,
}

/// Quantizes each fold's network by slices it was trained on, scores its patients in ONNX Runtime, decides and measures as
/// the folds were; then quantizes the network that was trained on all patients.
pub fn do_quantize<B: ConvBackend>(args: &QuantizeArgs, device: &B::Device, device_name: &str) -> anyhow::Result<()> {
    if let Some(card) = &args.card {
        return copy_of_file(args, card);
    }
    let (config, _) = fit::read_run(&args.runs[0])?;
    gains_by_eight_bits(&config.candidate.name, &config.candidate.layers)?;
    let name = args.name.clone().unwrap_or_else(|| format!("{}-int8", config.candidate.name));
    check_name(&name)?;
    let trainings = trainings(&args.runs, args.cross_validation.as_deref())?;
    let first = &trainings[0];
    if let [alone] = trainings.as_slice()
        && alone.is_of_a_fold
    {
        bail!("{} has not seen the patients of its fold: name the training that saw all", alone.run.display());
    }
    if trainings.iter().any(|training| [&training.run, &training.folds].contains(&&args.out)) {
        bail!("{} holds files of the same names; take another folder", args.out.display());
    }
    runtime::check()?;
    let (index, split) = data_of_all(&trainings)?;
    let count = args.calibration_slices as usize;
    let mut scored = Vec::new();
    for trainings::Fold { name, slices, .. } in folds(&trainings)? {
        let of_fold = first.folds.join(&name);
        let (own, _) = fit::read_run(&of_fold)?;
        let (index, split) = data_of(&of_fold)?;
        let cache = own.cache(args.machine.cache.clone(), &index)?;
        let networks = networks::<B>(&trainings, |training| training.folds.join(&name), None, device)?;
        let float = export::mean_onnx(&networks, &own.candidate.name, own.shape())?;
        let copy = copy(&float, &own, &index, &split, count, &cache)?;
        let [float, copy] = score([&float, &copy], &slices, &cache, &name)?;
        scored.push(Fold { name, slices, float, copy });
    }
    let studies = |of: fn(&Fold) -> &Vec<f64>| -> Vec<Vec<Study>> {
        scored.iter().map(|fold| Study::group(&fold.slices.iter().collect::<Vec<_>>(), of(fold))).collect()
    };
    let crossed = |folds: &[Vec<Study>]| {
        CrossValidation::of(folds, config.choosing(), config.seed)
            .context("the folds lack patients with or without hemorrhage")
    };
    let (float_studies, copy_studies) = (studies(|fold| &fold.float), studies(|fold| &fold.copy));
    let (float, mut figures) = (crossed(&float_studies)?, crossed(&copy_studies)?);
    let labelled: Vec<(Vec<&Slice>, Vec<f64>)> =
        scored.iter().map(|fold| (fold.slices.iter().collect(), fold.copy.clone())).collect();
    figures.supplement.strata = strata(&labelled, &figures.decisions, config.seed);
    let pairs = pairs((&float_studies, &float), (&copy_studies, &figures));
    let differences: Vec<f64> = pairs.iter().flatten().map(|(copy, float)| (copy.score - float.score).abs()).collect();

    let cache = config.cache(args.machine.cache.clone(), &index)?;
    let networks =
        networks::<B>(&trainings, |training| training.run.clone(), figures.decision.calibration.as_ref(), device)?;
    let float_onnx = export::mean_onnx(&networks, &name, config.shape())?;
    let onnx = copy(&float_onnx, &config, &first.index, &first.split, count, &cache)?;
    let quantized = Quantized {
        activation_bits: BITS.0,
        weight_bits: BITS.1,
        float_convolutions: FLOAT_CONVOLUTIONS,
        calibration_slices: sample(&config, &first.index, &first.split, count).len(),
        float_slice_auc: float.pooled.slices.auc,
        slice_auc_difference: auc_difference(&pairs, ROUNDS, config.seed),
        float_study_auc: float.pooled.studies.auc,
        slices: differences.len(),
        largest_difference: differences.iter().copied().fold(0.0, f64::max),
        mean_difference: differences.iter().sum::<f64>() / differences.len().max(1) as f64,
    };
    println!("{}\n{}", figures.table(), quantized.text());
    warn_of(&figures.decision);
    let ensemble = (trainings.len() > 1).then(|| trainings::ensemble(name.clone(), &trainings));
    let crossed = figures.clone();
    let trained = Trained {
        name: &name,
        config: &config,
        state: &first.state,
        index: &index,
        split: &split,
        measured: &Measured::Crossed(figures),
        // Figures of the float network on other folders are not those of its copy.
        others: &BTreeMap::new(),
        parity: None,
        quantized: Some(&quantized),
        ensemble: ensemble.as_ref(),
        ablation: None,
        commit: &commit(),
        device: device_name,
        version: &args.card_version,
    };
    write(&trained, &onnx, &args.out)?;
    let mut rows = scores_file(&args.out)?;
    for Fold { name, slices, copy, .. } in &scored {
        let scores = Scores { plain: copy.clone(), mirrored: None };
        write_scores(&mut rows, name, &slices.iter().collect::<Vec<_>>(), &scores)?;
    }
    rows.flush().context("cannot write scores.csv")?;
    // Beside the scores that they are of: `sequence` reads both.
    Ok(write_json(&args.out.join(CROSS_VALIDATION), &crossed)?)
}

/// An eight-bit copy of an exported model, without its trainings.
fn copy_of_file(args: &QuantizeArgs, original: &Path) -> anyhow::Result<()> {
    runtime::check()?;
    let (card, onnx) = copies::original(original)?;
    // A card that others wrote names no layers.
    if let Ok(layers) = Vec::<Layer>::deserialize(&card.about["architecture"]["layers"]) {
        gains_by_eight_bits(&card.name, &layers)?;
    }
    let name = copies::name_of(&card, args.name.as_ref(), "int8")?;
    let folders = args.data.iter().map(|folder| Index::read_sized(folder, OtherSizes::Resize));
    let indexes = folders.collect::<Result<Vec<Index>, _>>()?;
    let first = indexes.first().context("--data names no folder")?;
    let labels: Vec<bool> = first.slices.iter().map(|slice| slice.positive).collect();
    let chosen = stratified(&labels, args.calibration_slices as usize, copies::SEED);
    let cache = Cache::new(card.transform.clone(), args.machine.cache.clone())?;
    let copy = quantized_by(&onnx, chosen.iter().map(|&i| &first.slices[i]), &cache)?;
    let others = |index: &Index| -> Vec<Slice> {
        let is_other = |i: &usize| !std::ptr::eq(index, first) || !chosen.contains(i);
        (0..index.slices.len()).filter(is_other).map(|i| index.slices[i].clone()).collect()
    };
    let mut comparisons = Vec::new();
    for index in &indexes {
        let slices = others(index);
        if slices.is_empty() {
            bail!(
                "all {} slices of the first folder give the ranges and none is left to compare on: name a larger folder first, or ask for \
                 fewer by --calibration-slices",
                index.slices.len()
            );
        }
        let compared =
            copies::compare(&card, &onnx, &copy, &slices.iter().collect::<Vec<_>>(), args.machine.cache.clone())?;
        let moved = compared.slice_auc_difference.value.abs();
        if moved.is_nan() || moved >= LARGEST_MOVE {
            bail!(
                "the slice AUC on {} moves by {moved:.4} in eight bits, {LARGEST_MOVE} or more: no copy is written",
                compared.source
            );
        }
        comparisons.push(compared);
    }
    let figures = QuantizedFile {
        of: card.name.clone(),
        of_sha256: card.sha256.clone(),
        activation_bits: BITS.0,
        weight_bits: BITS.1,
        float_convolutions: FLOAT_CONVOLUTIONS,
        calibration_slices: chosen.len(),
        calibration_source: comparisons.first().map(|first| first.source.clone()).unwrap_or_default(),
        comparisons,
    };
    println!("{}", figures.text());
    let costs = Costs { field: "quantized", figures: serde_json::to_value(&figures)?, text: figures.text() };
    copies::write(original, card, name, &copy, costs, &args.out)
}

/// Refuses a network that eight bits do not make faster.
fn gains_by_eight_bits(name: &str, layers: &[Layer]) -> anyhow::Result<()> {
    if layers.iter().any(|layer| matches!(layer, Layer::InvertedResidual { .. })) {
        return Ok(());
    }
    bail!(
        "only m11, m12 and their relatives are quantized: in eight bits {name} is no faster on a processor than it is (see docs/performance.md)"
    )
}

/// A fold's patients, scored by its network and by that one's copy, neither calibrated.
struct Fold {
    name: String,
    slices: Vec<Slice>,
    float: Vec<f64>,
    copy: Vec<f64>,
}

/// The slices that ranges are taken from: a stratified sample of the training side that the recipe draws from.
fn sample<'a>(config: &FitConfig, index: &'a Index, split: &Split, count: usize) -> Vec<&'a Slice> {
    let mut train = split.slices(index, Side::Train);
    train.retain(|slice| config.weight(slice) > 0.0);
    let labels: Vec<bool> = train.iter().map(|slice| slice.positive).collect();
    stratified(&labels, count, config.seed).into_iter().map(|i| train[i]).collect()
}

fn copy(
    onnx: &[u8],
    config: &FitConfig,
    index: &Index,
    split: &Split,
    count: usize,
    cache: &Cache,
) -> anyhow::Result<Vec<u8>> {
    quantized_by(onnx, sample(config, index, split, count).into_iter(), cache)
}

/// An eight-bit copy of a file, with ranges from these slices.
fn quantized_by<'a>(onnx: &[u8], slices: impl Iterator<Item = &'a Slice>, cache: &Cache) -> anyhow::Result<Vec<u8>> {
    #[derive(Debug, thiserror::Error)]
    enum Failed {
        #[error(transparent)]
        Load(#[from] LoadError),
        #[error(transparent)]
        Quantize(#[from] QuantizeError),
    }
    let images = slices.map(|slice| Ok(cache.input(&slice.file)?));
    Ok(quantized::<Failed>(onnx, images, cache.shape())?)
}

/// The slices' probabilities by each model, from logits in 64 bits.
fn score<const N: usize>(
    models: [&[u8]; N],
    slices: &[Slice],
    cache: &Cache,
    what: &str,
) -> anyhow::Result<[Vec<f64>; N]> {
    let mut loaded = Vec::with_capacity(N);
    for onnx in models {
        loaded.push(OnnxModel::load(&logits(onnx)?)?);
    }
    let [channels, height, width] = cache.shape();
    let mut progress = Progress::new(what, slices.len());
    let mut scores = [const { Vec::new() }; N];
    for slice in slices {
        let image = cache.input(&slice.file)?;
        for (model, scores) in loaded.iter_mut().zip(&mut scores) {
            let said = model.output(&image, [1, channels, height, width])?;
            scores.extend(said.into_iter().map(|logit| sigmoid(f64::from(logit))));
        }
        progress.advance(1, "");
    }
    progress.finish("");
    Ok(scores)
}

/// Patients' slices, scored by copy and by float network, each on the scale that its area over all folds is of.
fn pairs(
    (floats, float): (&[Vec<Study>], &CrossValidation),
    (copies, copy): (&[Vec<Study>], &CrossValidation),
) -> Vec<Vec<(Case, Case)>> {
    let calibrated = |folds: &[Vec<Study>], of: &CrossValidation| -> Vec<Study> {
        folds.iter().flatten().map(|study| study.calibrated(of.decision.calibration.as_ref())).collect()
    };
    // In a split by image a patient has a study in each fold.
    let mut patients: BTreeMap<String, Vec<(Case, Case)>> = BTreeMap::new();
    for (copy, float) in calibrated(copies, copy).into_iter().zip(calibrated(floats, float)) {
        patients.entry(copy.patient).or_default().extend(copy.slices.into_iter().zip(float.slices));
    }
    patients.into_values().collect()
}
