//! The command line. Each command's work is in the file of its name.

mod ablate;
mod arguments;
mod average;
mod compare;
mod copies;
mod cross_validate;
mod ensemble;
mod evaluate;
mod export;
mod fit;
mod folds;
mod half;
mod heat_map;
mod put_ablation;
mod quantize;
mod quick_eval;
mod recalibrate;
mod report;
mod run_data;
mod scores;
mod sequence;
mod step_time;
mod synthesize;
mod trainings;

use std::path::PathBuf;
use std::process::ExitCode;

#[cfg(not(feature = "cuda"))]
use anyhow::bail;
use burn::backend::autodiff::Autodiff;
use burn::backend::flex::Flex;
use burn::tensor::backend::AutodiffBackend;
use clap::{Parser, Subcommand};
use triaged_kernels::ConvBackend;

use self::half::HalfArgs;
use ablate::{AblateArgs, do_ablate};
use arguments::{DataArgs, Device, ExportArgs, FitArgs, FoldArgs, RecipeArgs, RunArgs};
use average::{AverageArgs, do_average};
use compare::Format;
use cross_validate::do_cross_validate;
use ensemble::{EnsembleArgs, do_ensemble};
use evaluate::{measure_on, print_evaluation, print_supplement, score, warn_of};
use export::do_export;
use fit::{by_source, do_fit, split_of};
use heat_map::{HeatMapArgs, do_heat_map};
use quantize::{QuantizeArgs, do_quantize};
use quick_eval::{QuickEvalArgs, do_quick_eval};
use recalibrate::{RecalibrateArgs, do_recalibrate};
use report::do_report;
use run_data::check_begun;
use sequence::{SequenceArgs, do_sequence};
use step_time::{StepTimeArgs, do_step_time};
use synthesize::{SynthesizeArgs, do_synthesize};

use crate::cross_validation::CrossValidation;
use crate::data::phantoms;
use crate::files::write_json;
use crate::fit::Monitor;

/// Trains the models that triaged runs.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Join labels and images of folders in the RSNA 2019 layout and say what does not fit
    Index {
        #[command(flatten)]
        data: DataArgs,
        /// Write the index to this file, as JSON
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Draw small bleeds, and what looks like them, into real heads that have none; a folder in the same layout, to train on
    Synthesize(SynthesizeArgs),
    /// Make a folder of phantoms in the same layout, every second one bleeding
    Phantoms {
        /// A new or empty folder, or one of phantoms, which are drawn anew
        #[arg(long)]
        out: PathBuf,
        /// Two or more, for every second one bleeds
        #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u64).range(2..=100_000))]
        studies: u64,
        /// Slices a study
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(2..=1_000))]
        slices: u32,
        /// The first study's seed; the others follow
        #[arg(long, default_value_t = 100_000)]
        first_seed: u64,
    },
    /// Train a network: index, split, fit, into a run's folder; goes on with a run that was cut off
    Fit {
        #[command(flatten)]
        data: DataArgs,
        #[command(flatten)]
        fit: FitArgs,
        /// The run's folder
        #[arg(long)]
        out: PathBuf,
    },
    /// Score every patient by a network that was trained without them: k folds, in a folder each
    CrossValidate {
        #[command(flatten)]
        data: DataArgs,
        #[command(flatten)]
        fit: FitArgs,
        #[command(flatten)]
        folds: FoldArgs,
        /// Folder of the folds' runs and their figures
        #[arg(long)]
        out: PathBuf,
    },
    /// Choose thresholds and study rule on a run's validation patients, and measure on its test patients
    Evaluate {
        #[command(flatten)]
        run: RunArgs,
        /// Measure on all of another folder instead, by the decision made before; kept for the card
        #[arg(long)]
        on: Option<PathBuf>,
        /// With --on: by the decision in this folder of `cross-validate`
        #[arg(long, requires = "on")]
        cross_validation: Option<PathBuf>,
    },
    /// Write a run's ONNX file, its two cards, and check the file against ONNX Runtime
    Export {
        #[command(flatten)]
        run: RunArgs,
        #[command(flatten)]
        export: ExportArgs,
    },
    /// Write several trainings of one recipe as one model, the mean of their logits, and its cards; its figures are measured out of fold
    Ensemble(EnsembleArgs),
    /// Average the weights of several trainings of one recipe into one network, as a run that `export` and `quantize` take; its figures are measured
    /// out of fold
    Average(AverageArgs),
    /// Write an eight-bit copy of a cross-validated network, or of several trainings' mean, and its cards; its figures are measured anew, fold by fold
    Quantize(QuantizeArgs),
    /// Write a half-precision (float16) copy of an exported model and its cards, for GPUs, and state what the rounding costs
    Half(HalfArgs),
    /// Give a model that was exported before its heat map, where the network has one, and measure where the map points
    HeatMap(HeatMapArgs),
    /// Measure how long a training step takes on a device, and whether loading slices keeps up; JSON on standard output
    StepTime(StepTimeArgs),
    /// Train the study's candidates by its protocol, each on a sample of its own size, and compare them with the study
    QuickEval(QuickEvalArgs),
    /// Cross-validate the recipe with one thing changed at a time, on the same folds, and set the rows side by side
    Ablate(AblateArgs),
    /// Put the table of `ablate` into the two cards of a model that was exported before, in place of the one they have
    PutAblation {
        /// The card that the node reads, NAME.json; NAME.md lies beside it
        #[arg(long)]
        card: PathBuf,
        /// The folder of `ablate`
        #[arg(long)]
        ablation: PathBuf,
    },
    /// Choose a card's study threshold anew, for a sensitivity or specificity, on a site's own labelled studies
    Recalibrate(RecalibrateArgs),
    /// Train the second network that reads a whole series, on the scores that a cross-validation left, and put it into a card
    Sequence(SequenceArgs),
    /// Set two model cards side by side
    Compare {
        /// The card that the node reads, NAME.json
        a: PathBuf,
        b: PathBuf,
        #[arg(long, value_enum, default_value = "terminal")]
        format: Format,
    },
    /// Draw what a run scored: a page for people, with every figure beside it
    Report {
        /// The folder of `evaluate`, `cross-validate` or `train`
        #[arg(long)]
        run: PathBuf,
        /// The report's folder [default: `report` in the run's]
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// All of it: cross-validate, fit on all patients, export, report; with --folds 0 fit on some, evaluate on the others
    Train {
        #[command(flatten)]
        data: DataArgs,
        #[command(flatten)]
        fit: FitArgs,
        #[command(flatten)]
        folds: FoldArgs,
        /// The run's folder; model and cards are written to its `model` folder
        #[arg(long, default_value = "var/training")]
        out: PathBuf,
        /// The card's version
        #[arg(long, default_value = "1")]
        card_version: String,
    },
}

/// Runs the command that the arguments ask for.
pub fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("triaged-training: {}", in_one_line(&error));
            ExitCode::from(2)
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Index { data, out } => {
            let index = data.index()?;
            if let Some(out) = out {
                write_json(&out, &index)?;
            }
            for (source, slices) in by_source(&index) {
                let positive = slices.iter().filter(|slice| slice.positive).count();
                let patients = crate::data::patients(&slices).len();
                println!("{source}: {patients} patients, {} slices, {positive} positive", slices.len());
            }
            Ok(())
        }
        Command::Synthesize(args) => do_synthesize(&args),
        Command::Phantoms { out, studies, slices, first_seed } => {
            let (negative, positive) = phantoms::write(&out, studies, slices, first_seed)?;
            println!("{}: {studies} phantoms, {negative} slices without blood, {positive} with", out.display());
            Ok(())
        }
        Command::Fit { data, fit, out } => on_device(fit.machine.device, Job::Fit { data, fit, out }),
        Command::CrossValidate { data, fit, folds, out } => {
            on_device(fit.machine.device, Job::CrossValidate { data, fit, folds, out })
        }
        Command::Evaluate { run, on, cross_validation } => {
            on_device(run.machine.device, Job::Evaluate { run, on, cross_validation })
        }
        Command::Export { run, export } => on_device(run.machine.device, Job::Export { run, export }),
        Command::Quantize(args) => on_device(args.machine.device, Job::Quantize(args)),
        Command::Ensemble(args) => on_device(args.machine.device, Job::Ensemble(args)),
        Command::Average(args) => on_device(args.machine.device, Job::Average(args)),
        Command::Half(args) => half::do_half(&args),
        Command::HeatMap(args) => do_heat_map(&args),
        Command::StepTime(args) => on_device(args.device, Job::StepTime(args)),
        Command::QuickEval(args) => on_device(args.machine.device, Job::QuickEval(args)),
        Command::Ablate(args) => on_device(args.fit.machine.device, Job::Ablate(Box::new(args))),
        Command::PutAblation { card, ablation } => put_ablation::put_ablation(&card, &ablation),
        Command::Recalibrate(args) => do_recalibrate(&args),
        Command::Sequence(args) => do_sequence(&args),
        Command::Compare { a, b, format } => {
            print!("{}", compare::compare(&a, &b, format)?);
            Ok(())
        }
        Command::Report { run, out } => do_report(&run, out.as_deref()),
        Command::Train { data, fit, folds, out, card_version } => {
            on_device(fit.machine.device, Job::Train { data, fit, folds, out, card_version })
        }
    }
}

enum Job {
    Fit { data: DataArgs, fit: FitArgs, out: PathBuf },
    CrossValidate { data: DataArgs, fit: FitArgs, folds: FoldArgs, out: PathBuf },
    Evaluate { run: RunArgs, on: Option<PathBuf>, cross_validation: Option<PathBuf> },
    Export { run: RunArgs, export: ExportArgs },
    Quantize(QuantizeArgs),
    Ensemble(EnsembleArgs),
    Average(AverageArgs),
    StepTime(StepTimeArgs),
    QuickEval(QuickEvalArgs),
    Ablate(Box<AblateArgs>),
    Train { data: DataArgs, fit: FitArgs, folds: FoldArgs, out: PathBuf, card_version: String },
}

fn on_device(device: Device, job: Job) -> anyhow::Result<()> {
    match device {
        Device::Cpu => job.run::<Autodiff<Flex>>(&Default::default(), "CPU"),
        #[cfg(feature = "cuda")]
        Device::Cuda => {
            check_cuda()?;
            job.run::<Autodiff<burn::backend::Cuda>>(&Default::default(), "CUDA")
        }
        #[cfg(not(feature = "cuda"))]
        Device::Cuda => {
            bail!("this build has no CUDA; build it with `cargo build --release -p triaged-training --features cuda`")
        }
    }
}

/// Whether there are the libraries that Burn's CUDA backend loads: it ends in a panic that names none.
#[cfg(feature = "cuda")]
fn check_cuda() -> anyhow::Result<()> {
    for (names, what) in [
        (["libcuda.so.1", "libcuda.so"], "the NVIDIA driver, 580 or newer"),
        (
            ["libnvrtc.so.13", "libnvrtc.so"],
            "CUDA 13's compiler library (cuda-nvrtc-13-0, or the wheel nvidia-cuda-nvrtc)",
        ),
    ] {
        // SAFETY: loading runs the library's initializers; it is one that Burn loads right after, and nothing is called in it.
        let is_there = names.iter().any(|name| unsafe { libloading::Library::new(*name) }.is_ok());
        anyhow::ensure!(is_there, "--device cuda cannot run here: {} is not found: {what}; see docs/gpu.md", names[0]);
    }
    Ok(())
}

impl Job {
    fn run<B>(self, device: &B::Device, name: &str) -> anyhow::Result<()>
    where
        B: AutodiffBackend + ConvBackend,
        B::InnerBackend: ConvBackend,
    {
        match self {
            Job::Fit { data, fit, out } => do_fit::<B>(&data, &data.index()?, &fit, &out, device),
            Job::CrossValidate { data, fit, folds, out } => {
                let all = do_cross_validate::<B>(&data, &data.index()?, &fit, &folds, &out, device)?;
                print_cross_validation(&all);
                do_report(&out, None)
            }
            Job::Evaluate { run, on: None, .. } => {
                let scored = score::<B::InnerBackend>(&run.run, &run.machine, device)?;
                print_evaluation("test", &scored.test);
                print_supplement(&scored.supplement);
                do_report(&run.run, None)
            }
            Job::Evaluate { run, on: Some(folder), cross_validation } => {
                measure_on::<B::InnerBackend>(&run, &folder, cross_validation.as_deref(), device)
            }
            Job::Export { run, export } => do_export::<B::InnerBackend>(&run.run, &run.machine, &export, device, name),
            Job::Quantize(args) => do_quantize::<B::InnerBackend>(&args, device, name),
            Job::Ensemble(args) => do_ensemble::<B::InnerBackend>(&args, device, name),
            Job::Average(args) => {
                print_cross_validation(&do_average::<B>(&args, device)?);
                do_report(&args.out, None)
            }
            Job::StepTime(args) => do_step_time::<B>(&args, device, name),
            Job::QuickEval(args) => do_quick_eval::<B>(&args, device),
            Job::Ablate(args) => do_ablate::<B>(&args, device),
            Job::Train { data, fit, folds, out, card_version } => {
                let index = data.index()?;
                let cross_validation = if folds.folds == 0 {
                    do_fit::<B>(&data, &index, &fit, &out, device)?;
                    None
                } else {
                    let folder = out.join("folds");
                    // The network to ship: trained on all patients, as long as each fold's was.
                    let instead = RecipeArgs { monitor: Some(Monitor::Last), ..fit.instead.clone() };
                    let shipped = FitArgs { validation: 0.0, test: 0.0, instead, ..fit.clone() };
                    // Refused before the folds are trained, not after.
                    check_begun(&out, &index, &split_of(&data, &index, &shipped)?)?;
                    let all = do_cross_validate::<B>(&data, &index, &fit, &folds, &folder, device)?;
                    print_cross_validation(&all);
                    do_fit::<B>(&data, &index, &shipped, &out, device)?;
                    Some(folder)
                };
                let export =
                    ExportArgs { out: out.join("model"), name: None, card_version, cross_validation, ablation: None };
                do_export::<B::InnerBackend>(&out, &fit.machine, &export, device, name)?;
                do_report(&out, None)
            }
        }
    }
}

fn print_cross_validation(all: &CrossValidation) {
    println!("{} patients in {} folds\n\n{}", all.pooled.patients, all.folds.len(), all.table());
    print_supplement(&all.supplement);
    warn_of(&all.decision);
}

/// An error with its causes; a cause that the text before it has told already is not told again.
fn in_one_line(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |line, cause| {
        let cause = cause.to_string();
        if line.is_empty() {
            cause
        } else if line.contains(&cause) {
            line
        } else {
            format!("{line}: {cause}")
        }
    })
}
