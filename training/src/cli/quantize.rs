//! `quantize`: an eight-bit copy of a cross-validated network, with figures of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use triaged_kernels::ConvBackend;

use super::arguments::RunArgs;
use super::export::{commit, write};
use super::folds::folds_of;
use super::run_data::data_of;
use super::scores::{scores_file, write_scores};
use crate::card::{Measured, Trained};
use crate::cross_validation::CrossValidation;
use crate::data::{Cache, Index, LoadError, Side, Slice, Split, stratified};
use crate::evaluate::{Decision, ROUNDS, Study};
use crate::export;
use crate::fit::{self, FitConfig, Scores};
use crate::logistic::sigmoid;
use crate::metrics::{Case, auc_difference};
use crate::network::Layer;
use crate::progress::Progress;
use crate::quantize::{FLOAT_CONVOLUTIONS, QuantizeError, Quantized, logits, quantized};
use crate::runtime::{self, OnnxModel};

#[derive(Clone, Args)]
pub struct QuantizeArgs {
    #[command(flatten)]
    pub run: RunArgs,
    /// The folds that were trained as the run was [default: `folds` in the run's folder]
    #[arg(long)]
    pub cross_validation: Option<PathBuf>,
    /// Slices that ranges are taken from: a stratified random sample of the training side
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    pub calibration_slices: u32,
    /// Folder of model and cards
    #[arg(long)]
    pub out: PathBuf,
    /// The card's version
    #[arg(long, default_value = "1")]
    pub card_version: String,
}

/// Quantizes each fold's network by slices it was trained on, scores its patients in ONNX Runtime, decides and measures as
/// the folds were; then quantizes the network that was trained on all patients.
pub fn do_quantize<B: ConvBackend>(args: &QuantizeArgs, device: &B::Device, device_name: &str) -> anyhow::Result<()> {
    let run = &args.run.run;
    let (config, state) = fit::read_run(run)?;
    if !config.candidate.layers.iter().any(|layer| matches!(layer, Layer::InvertedResidual { .. })) {
        bail!(
            "only m11 is quantized: in eight bits {} is no faster on a processor than it is (see docs/performance.md)",
            config.candidate.name
        );
    }
    if config.context {
        bail!("{} sees neighbouring slices: the node has no such input, and no model can be made of it", run.display());
    }
    let folds = args.cross_validation.clone().unwrap_or_else(|| run.join("folds"));
    if [run, &folds].contains(&&args.out) {
        bail!("{} holds files of the same names; take another folder", args.out.display());
    }
    runtime::check()?;
    let made = folds_of(run, &folds)?;
    let count = args.calibration_slices as usize;
    let mut scored = Vec::new();
    for number in 1..=made.folds.len() {
        let name = format!("fold-{number}");
        let fold = folds.join(&name);
        let (own, state) = fit::read_run(&fold)?;
        let (index, split) = data_of(&fold)?;
        let cache = own.cache(args.run.machine.cache.clone(), &index)?;
        let network = fit::best::<B>(&fold, &own, &state, device)?;
        let float = export::onnx(&network, &own.candidate.name, own.shape())?;
        let copy = copy(&float, &own, &index, &split, count, &cache)?;
        let slices: Vec<Slice> = split.slices(&index, Side::Test).into_iter().cloned().collect();
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
    let (float, figures) = (crossed(&float_studies)?, crossed(&copy_studies)?);
    let pairs = pairs((&float_studies, &float), (&copy_studies, &figures));
    let differences: Vec<f64> = pairs.iter().flatten().map(|(copy, float)| (copy.score - float.score).abs()).collect();

    let (index, split) = data_of(run)?;
    let cache = config.cache(args.run.machine.cache.clone(), &index)?;
    let network = fit::best::<B>(run, &config, &state, device)?;
    let network = match figures.decision.calibration {
        Some(platt) => platt.folded(network),
        None => network,
    };
    let float_onnx = export::onnx(&network, &config.candidate.name, config.shape())?;
    let onnx = copy(&float_onnx, &config, &index, &split, count, &cache)?;
    let quantized = Quantized {
        activation_bits: 8,
        weight_bits: 7,
        float_convolutions: FLOAT_CONVOLUTIONS,
        calibration_slices: sample(&config, &index, &split, count).len(),
        float_slice_auc: float.pooled.slices.auc,
        slice_auc_difference: auc_difference(&pairs, ROUNDS, config.seed),
        float_study_auc: float.pooled.studies.auc,
        slices: differences.len(),
        largest_difference: differences.iter().copied().fold(0.0, f64::max),
        mean_difference: differences.iter().sum::<f64>() / differences.len().max(1) as f64,
    };
    println!("{}\n{}", figures.table(), quantized.text());
    let trained = Trained {
        config: &config,
        state: &state,
        index: &index,
        split: &split,
        measured: &Measured::Crossed(figures),
        // Figures of the float network on other folders are not those of its copy.
        others: &BTreeMap::new(),
        parity: None,
        quantized: Some(&quantized),
        ensemble: None,
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
    rows.flush().context("cannot write scores.csv")
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
    #[derive(Debug, thiserror::Error)]
    enum Failed {
        #[error(transparent)]
        Load(#[from] LoadError),
        #[error(transparent)]
        Quantize(#[from] QuantizeError),
    }
    let chosen = sample(config, index, split, count);
    let images = chosen.iter().map(|slice| Ok(cache.input(&slice.file)?));
    Ok(quantized::<Failed>(onnx, images, config.shape())?)
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

/// Patients' slices, scored by copy and by float network, each calibrated as its fold's decision has it.
fn pairs(
    (floats, float): (&[Vec<Study>], &CrossValidation),
    (copies, copy): (&[Vec<Study>], &CrossValidation),
) -> Vec<Vec<(Case, Case)>> {
    let calibrated = |folds: &[Vec<Study>], of: &CrossValidation| -> Vec<Study> {
        let fold = |(studies, own): (&Vec<Study>, &Decision)| {
            studies.iter().map(|study| study.calibrated(own.calibration.as_ref())).collect::<Vec<Study>>()
        };
        folds.iter().zip(&of.decisions).flat_map(fold).collect()
    };
    // In a split by image a patient has a study in each fold.
    let mut patients: BTreeMap<String, Vec<(Case, Case)>> = BTreeMap::new();
    for (copy, float) in calibrated(copies, copy).into_iter().zip(calibrated(floats, float)) {
        patients.entry(copy.patient).or_default().extend(copy.slices.into_iter().zip(float.slices));
    }
    patients.into_values().collect()
}
