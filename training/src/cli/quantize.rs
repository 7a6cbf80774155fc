//! `quantize`: an eight-bit copy of a cross-validated network, with figures of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use sha2::{Digest, Sha256};

use super::arguments::RunArgs;
use super::evaluate::{scores_file, write_scores};
use super::export::{commit, write};
use super::fit::data_of;
use crate::candidates::Layer;
use crate::card::{Measured, Trained};
use crate::conv::ConvBackend;
use crate::cross_validation::CrossValidation;
use crate::data::{Cache, Index, LoadError, Side, Slice, Split, stratified};
use crate::evaluate::{ROUNDS, Study};
use crate::export;
use crate::fit::{self, FitConfig, Scores};
use crate::metrics::{Case, auc_difference};
use crate::progress::Progress;
use crate::quantize::{FLOAT_CONVOLUTIONS, QuantizeError, Quantized, quantized};
use crate::runtime::OnnxModel;

#[derive(Clone, Args)]
pub struct QuantizeArgs {
    #[command(flatten)]
    pub run: RunArgs,
    /// The folds that were trained as the run was [default: `folds` in the run's folder]
    #[arg(long)]
    pub cross_validation: Option<PathBuf>,
    /// Slices that ranges are taken from: a stratified random sample of those that were trained on
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
    let count = args.calibration_slices as usize;
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    let mut rows = scores_file(&args.out)?;
    let (mut floats, mut copies) = (Vec::new(), Vec::new());
    for (number, fold) in (1..).map(|number| (number, folds.join(format!("fold-{number}")))) {
        if !fold.exists() {
            break;
        }
        let (own, state) = fit::read_run(&fold)?;
        if own.transform != config.transform || own.candidate != config.candidate {
            bail!("{} is of another network or input than {}", fold.display(), run.display());
        }
        let (index, split) = data_of(&fold)?;
        let cache = own.cache(args.run.machine.cache.clone(), &index)?;
        let network = fit::best::<B>(&fold, &own, &state, device)?;
        let float = export::onnx(&network, &own.candidate.name, own.shape())?;
        let copy = copy(&float, &own, &index, &split, count, &cache)?;
        let slices = split.slices(&index, Side::Test);
        let name = format!("fold-{number}");
        let [float, copy] = [("floats", float), ("bytes", copy)].map(|(what, onnx)| {
            let plain = score(&onnx, &slices, &cache, &format!("{name} in {what}"))?;
            anyhow::Ok(Scores { plain, mirrored: None })
        });
        let (float, copy) = (float?, copy?);
        write_scores(&mut rows, &name, &slices, &copy)?;
        floats.push(Study::group(&slices, &float.plain));
        copies.push(Study::group(&slices, &copy.plain));
    }
    rows.flush().context("cannot write scores.csv")?;
    let crossed = |folds: &[Vec<Study>]| {
        CrossValidation::of(folds, config.seed)
            .with_context(|| format!("{} holds no folds whose others have both classes", run.join("folds").display()))
    };
    let (float, copy_figures) = (crossed(&floats)?, crossed(&copies)?);
    let pairs = pairs((&floats, &float), (&copies, &copy_figures));
    let differences: Vec<f64> = pairs.iter().flatten().map(|(copy, float)| (copy.score - float.score).abs()).collect();

    let (index, split) = data_of(run)?;
    let cache = config.cache(args.run.machine.cache.clone(), &index)?;
    let network = fit::best::<B>(run, &config, &state, device)?;
    let network = match copy_figures.decision.calibration {
        Some(platt) => platt.folded(network),
        None => network,
    };
    let onnx = export::onnx(&network, &config.candidate.name, config.shape())?;
    let bytes = copy(&onnx, &config, &index, &split, count, &cache)?;
    let quantized = Quantized {
        float_sha256: hex::encode(Sha256::digest(&onnx)),
        activation_bits: 8,
        weight_bits: 7,
        float_convolutions: FLOAT_CONVOLUTIONS,
        calibration_slices: sample(&index, &split, count, config.seed).len(),
        float_slice_auc: float.pooled.slices.auc,
        slice_auc_difference: auc_difference(&pairs, ROUNDS, config.seed),
        float_study_auc: float.pooled.studies.auc,
        slices: differences.len(),
        largest_difference: differences.iter().copied().fold(0.0, f64::max),
        mean_difference: differences.iter().sum::<f64>() / differences.len().max(1) as f64,
    };
    println!("{}\n{}", copy_figures.table(), quantized.text());
    let trained = Trained {
        config: &config,
        state: &state,
        index: &index,
        split: &split,
        measured: &Measured::Crossed(copy_figures),
        // What the float network says of other folders is not what its copy says.
        others: &BTreeMap::new(),
        parity: None,
        quantized: Some(&quantized),
        ablation: None,
        commit: &commit(),
        device: device_name,
        version: &args.card_version,
    };
    write(&trained, &bytes, &args.out)
}

/// The slices that ranges are taken from.
fn sample<'a>(index: &'a Index, split: &Split, count: usize, seed: u64) -> Vec<&'a Slice> {
    let train = split.slices(index, Side::Train);
    let labels: Vec<bool> = train.iter().map(|slice| slice.positive).collect();
    stratified(&labels, count, seed).into_iter().map(|i| train[i]).collect()
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
    let chosen = sample(index, split, count, config.seed);
    let images = chosen.iter().map(|slice| Ok(cache.input(&slice.file)?));
    Ok(quantized::<Failed>(onnx, images, config.shape())?)
}

fn score(onnx: &[u8], slices: &[&Slice], cache: &Cache, what: &str) -> anyhow::Result<Vec<f64>> {
    let mut model = OnnxModel::load(onnx)?;
    let [channels, height, width] = cache.shape();
    let mut progress = Progress::new(what.to_owned(), slices.len());
    let mut scores = Vec::with_capacity(slices.len());
    for slice in slices {
        let said = model.probabilities(&cache.input(&slice.file)?, [1, channels, height, width])?;
        scores.extend(said.into_iter().map(f64::from));
        progress.advance(1, "");
    }
    progress.finish("");
    Ok(scores)
}

/// The folds' slices by patient, scored by copy and by float network, each calibrated as its fold's decision has it.
fn pairs(
    (floats, float): (&[Vec<Study>], &CrossValidation),
    (copies, copy): (&[Vec<Study>], &CrossValidation),
) -> Vec<Vec<(Case, Case)>> {
    let calibrated = |folds: &[Vec<Study>], of: &CrossValidation| -> Vec<Study> {
        let fold = |(studies, own): (&Vec<Study>, &crate::evaluate::Decision)| {
            studies.iter().map(|study| study.calibrated(own.calibration.as_ref())).collect::<Vec<Study>>()
        };
        folds.iter().zip(&of.decisions).flat_map(fold).collect()
    };
    let both = calibrated(copies, copy).into_iter().zip(calibrated(floats, float));
    both.map(|(copy, float)| copy.slices.into_iter().zip(float.slices).collect()).collect()
}
