//! The command line: index, fit, evaluate, export, and train, which is all of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use burn::backend::autodiff::Autodiff;
use burn::backend::flex::Flex;
use burn::tensor::backend::AutodiffBackend;
use clap::{Args, Parser, Subcommand, ValueEnum};
use triaged::imaging::{Transform, Window};
use triaged_training::candidates::{NAMES, candidate};
use triaged_training::card::Trained;
use triaged_training::conv::ConvBackend;
use triaged_training::data::{Augment, Cache, Draw, Index, Side, Slice, Split, SplitBy, phantoms, stratified};
use triaged_training::evaluate::{Decision, Evaluation, Study, decide};
use triaged_training::export;
use triaged_training::fit::{self, FitConfig, Monitor, draw, predict, read_json, write_json};
use triaged_training::model::Network;
use triaged_training::parity::{self, OnnxModel, ParityError};

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
    },
    /// Make a folder of phantoms in the same layout, every second one bleeding
    Phantoms {
        #[arg(long)]
        out: PathBuf,
        #[arg(long, default_value_t = 40)]
        studies: u64,
        /// Slices a study
        #[arg(long, default_value_t = 30)]
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
    /// Choose thresholds and study rule on a run's validation patients, and measure on its test patients
    Evaluate {
        #[command(flatten)]
        run: RunArgs,
        /// Measure on all of another folder instead, by the decision made before; kept for the card
        #[arg(long)]
        on: Option<PathBuf>,
    },
    /// Write a run's ONNX file, its two cards, and check the file against ONNX Runtime
    Export {
        #[command(flatten)]
        run: RunArgs,
        #[command(flatten)]
        export: ExportArgs,
    },
    /// All of it: index, split, fit, evaluate, export
    Train {
        #[command(flatten)]
        data: DataArgs,
        #[command(flatten)]
        fit: FitArgs,
        /// The run's folder; model and cards are written to its `model` folder
        #[arg(long, default_value = "var/training")]
        out: PathBuf,
        /// The card's version
        #[arg(long, default_value = "1")]
        card_version: String,
    },
}

#[derive(Args)]
struct DataArgs {
    /// A folder with stage_2_train.csv and stage_2_train/*.dcm; may be given more than once
    #[arg(long, required = true)]
    data: Vec<PathBuf>,
    /// A folder of the same layout that is trained on and never measured; may be given more than once
    #[arg(long)]
    train_only: Vec<PathBuf>,
}

#[derive(Args)]
struct FitArgs {
    /// The network: m1 to m10
    #[arg(long, default_value = "m10", value_parser = NAMES)]
    candidate: String,
    /// Epochs at most [default: the study's for this network]
    #[arg(long)]
    epochs: Option<usize>,
    /// Slices a step [default: the study's for this network]
    #[arg(long)]
    batch: Option<usize>,
    #[arg(long, default_value_t = 1e-3)]
    learning_rate: f64,
    /// Epochs without a better validation that end the training
    #[arg(long, default_value_t = 5)]
    patience: usize,
    /// What of the validation makes an epoch the best
    #[arg(long, value_enum, default_value = "loss")]
    monitor: Monitor,
    /// Seed of split, sample, initial weights and augmentation
    #[arg(long, default_value_t = 2019)]
    seed: u64,
    /// Share of patients for validation
    #[arg(long, default_value_t = 0.2)]
    validation: f64,
    /// Share of patients for the test
    #[arg(long, default_value_t = 0.2)]
    test: f64,
    /// Split by patient, or by image as the study did
    #[arg(long, value_enum, default_value = "patient")]
    split: SplitBy,
    /// Train on a stratified random sample of so many training slices
    #[arg(long)]
    sample: Option<usize>,
    /// Draw so many slices an epoch, half of them positive, instead of each once with class weights
    #[arg(long)]
    balance: Option<usize>,
    /// Train on the slices as they are
    #[arg(long)]
    no_augment: bool,
    /// Feed stored values as the study did, instead of a Hounsfield window
    #[arg(long)]
    raw: bool,
    /// The Hounsfield window, CENTER,WIDTH
    #[arg(long, default_value = "40,80", value_parser = window)]
    window: Window,
    /// Edge of the input image
    #[arg(long, default_value_t = 512)]
    size: u32,
    #[command(flatten)]
    machine: MachineArgs,
}

#[derive(Args)]
struct MachineArgs {
    #[arg(long, value_enum, default_value = "cpu")]
    device: Device,
    /// Keep decoded slices in this folder (1 MiB a slice of 512×512), so that later epochs need not decode
    #[arg(long)]
    cache: Option<PathBuf>,
}

#[derive(Args)]
struct RunArgs {
    /// The run's folder, as `fit` wrote it
    #[arg(long)]
    run: PathBuf,
    #[command(flatten)]
    machine: MachineArgs,
}

#[derive(Args)]
struct ExportArgs {
    /// Folder of model and cards
    #[arg(long)]
    out: PathBuf,
    /// The card's version
    #[arg(long, default_value = "1")]
    card_version: String,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Device {
    Cpu,
    Cuda,
}

fn window(text: &str) -> Result<Window, String> {
    let (center, width) = text.split_once(',').ok_or("needs CENTER,WIDTH")?;
    let number = |text: &str| text.trim().parse::<f32>().map_err(|error| error.to_string());
    let window = Window { center: number(center)?, width: number(width)? };
    if window.width > 0.0 { Ok(window) } else { Err("the width must be above 0".into()) }
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("triaged-training: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Index { data } => {
            let index = data.index()?;
            for (source, slices) in by_source(&index) {
                let positive = slices.iter().filter(|slice| slice.positive).count();
                let patients = triaged_training::data::patients(&slices).len();
                println!("{source}: {patients} patients, {} slices, {positive} positive", slices.len());
            }
            Ok(())
        }
        Command::Phantoms { out, studies, slices, first_seed } => {
            let (negative, positive) = phantoms::write(&out, studies, slices, first_seed)?;
            println!("{}: {studies} phantoms, {negative} slices without blood, {positive} with", out.display());
            Ok(())
        }
        Command::Fit { data, fit, out } => on_device(fit.machine.device, Job::Fit { data, fit, out }),
        Command::Evaluate { run, on } => on_device(run.machine.device, Job::Evaluate { run, on }),
        Command::Export { run, export } => on_device(run.machine.device, Job::Export { run, export }),
        Command::Train { data, fit, out, card_version } => {
            on_device(fit.machine.device, Job::Train { data, fit, out, card_version })
        }
    }
}

enum Job {
    Fit { data: DataArgs, fit: FitArgs, out: PathBuf },
    Evaluate { run: RunArgs, on: Option<PathBuf> },
    Export { run: RunArgs, export: ExportArgs },
    Train { data: DataArgs, fit: FitArgs, out: PathBuf, card_version: String },
}

fn on_device(device: Device, job: Job) -> anyhow::Result<()> {
    match device {
        Device::Cpu => job.run::<Autodiff<Flex>>(&Default::default(), "CPU"),
        #[cfg(feature = "cuda")]
        Device::Cuda => job.run::<Autodiff<burn::backend::Cuda>>(&Default::default(), "CUDA"),
        #[cfg(not(feature = "cuda"))]
        Device::Cuda => {
            bail!("this build has no CUDA; build it with `cargo build --release -p triaged-training --features cuda`")
        }
    }
}

impl Job {
    fn run<B>(self, device: &B::Device, name: &str) -> anyhow::Result<()>
    where
        B: AutodiffBackend + ConvBackend,
        B::InnerBackend: ConvBackend,
    {
        match self {
            Job::Fit { data, fit, out } => do_fit::<B>(&data, &fit, &out, device),
            Job::Evaluate { run, on: None } => {
                let scored = Scored::of::<B::InnerBackend>(&run.run, &run.machine, device)?;
                print_evaluation("test", &scored.test);
                Ok(())
            }
            Job::Evaluate { run, on: Some(folder) } => measure_on::<B::InnerBackend>(&run, &folder, device),
            Job::Export { run, export } => {
                let scored = Scored::of::<B::InnerBackend>(&run.run, &run.machine, device)?;
                do_export::<B::InnerBackend>(&run.run, &run.machine, &scored, &export, device, name)
            }
            Job::Train { data, fit, out, card_version } => {
                do_fit::<B>(&data, &fit, &out, device)?;
                let scored = Scored::of::<B::InnerBackend>(&out, &fit.machine, device)?;
                print_evaluation("test", &scored.test);
                let export = ExportArgs { out: out.join("model"), card_version };
                do_export::<B::InnerBackend>(&out, &fit.machine, &scored, &export, device, name)
            }
        }
    }
}

impl DataArgs {
    fn index(&self) -> anyhow::Result<Index> {
        let folders = [self.data.clone(), self.train_only.clone()].concat();
        let index = Index::read_all(&folders)?;
        for line in index.problems.lines() {
            eprintln!("{line}");
        }
        Ok(index)
    }
}

impl FitArgs {
    fn config(&self) -> anyhow::Result<FitConfig> {
        let candidate = candidate(&self.candidate).context("no such network")?;
        let (height, width) = (self.size, self.size);
        let transform = if self.raw {
            Transform::StoredValues { height, width }
        } else {
            Transform::HounsfieldWindows { height, width, windows: vec![self.window] }
        };
        let augment = match () {
            () if self.no_augment => Augment::NONE,
            // A window cannot be jittered where there is none.
            () if self.raw => Augment { window: 0.0, ..Augment::DEFAULT },
            () => Augment::DEFAULT,
        };
        Ok(FitConfig {
            epochs: self.epochs.unwrap_or(candidate.epochs),
            batch: self.batch.unwrap_or(candidate.batch),
            candidate,
            transform,
            seed: self.seed,
            learning_rate: self.learning_rate,
            augment,
            balance: self.balance,
            patience: self.patience,
            monitor: self.monitor,
        })
    }
}

fn by_source(index: &Index) -> Vec<(&str, Vec<&Slice>)> {
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
fn data_of(run: &Path) -> anyhow::Result<(Index, Split)> {
    Ok((read_json(&run.join("index.json"))?, read_json(&run.join("split.json"))?))
}

fn do_fit<B>(data: &DataArgs, args: &FitArgs, run: &Path, device: &B::Device) -> anyhow::Result<()>
where
    B: AutodiffBackend + ConvBackend,
    B::InnerBackend: ConvBackend,
{
    let config = args.config()?;
    let (index, split) = if run.join("split.json").exists() {
        data_of(run)?
    } else {
        std::fs::create_dir_all(run).with_context(|| format!("cannot make {}", run.display()))?;
        let index = data.index()?;
        let only: Vec<String> = data
            .train_only
            .iter()
            .filter_map(|folder| Some(folder.file_name()?.to_string_lossy().into_owned()))
            .collect();
        let split = Split::new(&index, args.split, args.validation, args.test, &only, args.seed)?;
        write_json(&run.join("index.json"), &index)?;
        write_json(&run.join("split.json"), &split)?;
        (index, split)
    };
    let cache = Cache::new(config.transform.clone(), args.machine.cache.clone())?;
    let mut train = split.slices(&index, Side::Train);
    if let Some(size) = args.sample {
        let labels: Vec<bool> = train.iter().map(|slice| slice.positive).collect();
        train = stratified(&labels, size, args.seed).into_iter().map(|i| train[i]).collect();
    }
    let validation = split.slices(&index, Side::Validation);
    eprintln!(
        "{}: {} slices to train on, {} to validate, {} for the test; {} epochs of batches of {}",
        config.candidate.name,
        train.len(),
        validation.len(),
        split.slices(&index, Side::Test).len(),
        config.epochs,
        config.batch
    );
    let (_, state) = fit::fit::<B>(run, &config, &train, &validation, &cache, device)?;
    match state.best {
        Some(best) => eprintln!("done after {} epochs; the best is epoch {best}", state.epochs.len()),
        None => eprintln!("no epoch was asked for: the network is untrained"),
    }
    Ok(())
}

/// A run's decision and figures.
struct Scored {
    decision: Decision,
    validation: Evaluation,
    test: Evaluation,
}

impl Scored {
    /// Scores validation and test, decides on the first, measures both; writes `scores.csv` and `evaluation.json`.
    fn of<B: ConvBackend>(run: &Path, machine: &MachineArgs, device: &B::Device) -> anyhow::Result<Self> {
        let (config, state) = fit::read_run(run)?;
        let (index, split) = data_of(run)?;
        let cache = Cache::new(config.transform.clone(), machine.cache.clone())?;
        let network = fit::best::<B>(run, &config, &state, device)?;
        let mut rows = csv::Writer::from_path(run.join("scores.csv")).context("cannot write scores.csv")?;
        rows.write_record(["side", "source", "patient", "id", "label", "probability"])?;
        let mut studies = Vec::new();
        for (side, name) in [(Side::Validation, "validation"), (Side::Test, "test")] {
            let slices = split.slices(&index, side);
            let draws: Vec<Draw> = slices.iter().map(|slice| draw(slice, None)).collect();
            let scores = predict(&network, draws, &cache, config.batch, name, device)?;
            for (slice, score) in slices.iter().zip(&scores) {
                let label = if slice.positive { "1" } else { "0" };
                rows.write_record([name, &slice.source, &slice.patient, &slice.id, label, &score.to_string()])?;
            }
            studies.push(Study::group(&slices, &scores));
        }
        rows.flush().context("cannot write scores.csv")?;
        let decision = decide(&studies[0]).context("the validation patients are all with or all without hemorrhage")?;
        let [validation, test] = [0, 1].map(|i| Evaluation::of(&studies[i], &decision, config.seed));
        let all = serde_json::json!({ "decision": decision, "validation": validation, "test": test });
        write_json(&run.join("evaluation.json"), &all)?;
        Ok(Self { decision, validation, test })
    }
}

fn print_evaluation(name: &str, evaluation: &Evaluation) {
    println!("{name}, {} patients\n\n{}", evaluation.patients, evaluation.table());
}

/// All slices of another folder, by the decision that the run's `evaluate` made.
fn measure_on<B: ConvBackend>(args: &RunArgs, folder: &Path, device: &B::Device) -> anyhow::Result<()> {
    let (config, state) = fit::read_run(&args.run)?;
    let made: serde_json::Value =
        read_json(&args.run.join("evaluation.json")).context("evaluate the run itself first")?;
    let decision: Decision = serde_json::from_value(made["decision"].clone()).context("evaluation.json")?;
    let index = Index::read(folder)?;
    for line in index.problems.lines() {
        eprintln!("{line}");
    }
    let cache = Cache::new(config.transform.clone(), args.machine.cache.clone())?;
    let network = fit::best::<B>(&args.run, &config, &state, device)?;
    let slices: Vec<&Slice> = index.slices.iter().collect();
    let draws: Vec<Draw> = slices.iter().map(|slice| draw(slice, None)).collect();
    let scores = predict(&network, draws, &cache, config.batch, "scoring", device)?;
    let studies = Study::group(&slices, &scores);
    for study in &studies {
        let case = study.case(&decision.study_rule);
        let flagged = case.score >= decision.study_rule.threshold();
        println!(
            "{}: score {:.4}, {}, labelled {}",
            study.patient,
            case.score,
            if flagged { "flagged" } else { "not flagged" },
            if case.positive { "positive" } else { "negative" }
        );
    }
    let evaluation = Evaluation::of(&studies, &decision, config.seed);
    print_evaluation(&folder.display().to_string(), &evaluation);
    let name = folder.file_name().map_or_else(|| "folder".into(), |name| name.to_string_lossy().into_owned());
    write_json(&args.run.join(format!("{ON}{name}.json")), &evaluation)?;
    Ok(())
}

/// How the files begin that [`measure_on`] leaves with a run.
const ON: &str = "evaluation-on-";

/// What [`measure_on`] has left with a run, by the folder's name.
fn others(run: &Path) -> anyhow::Result<BTreeMap<String, Evaluation>> {
    let mut others = BTreeMap::new();
    for entry in std::fs::read_dir(run).with_context(|| format!("cannot list {}", run.display()))? {
        let path = entry?.path();
        let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if let Some(name) = file.strip_prefix(ON).and_then(|name| name.strip_suffix(".json")) {
            others.insert(name.to_owned(), read_json(&path)?);
        }
    }
    Ok(others)
}

fn do_export<B: ConvBackend>(
    run: &Path,
    machine: &MachineArgs,
    scored: &Scored,
    args: &ExportArgs,
    device: &B::Device,
    device_name: &str,
) -> anyhow::Result<()> {
    let (config, state) = fit::read_run(run)?;
    let (index, split) = data_of(run)?;
    let network = fit::best::<B>(run, &config, &state, device)?;
    let shape = config.transform.shape();
    let bytes = export::onnx(&network, &config.candidate.name, shape)?;
    let cache = Cache::new(config.transform.clone(), machine.cache.clone())?;
    let parity = match check::<B>(&network, &bytes, &split.slices(&index, Side::Test), &cache, device) {
        Ok(parity) => {
            eprintln!("ONNX Runtime agrees within {:.1e} on {} slices", parity.largest_difference, parity.slices);
            Some(parity)
        }
        Err(error) => match error.downcast_ref::<ParityError>() {
            Some(ParityError::NoLibrary) => {
                eprintln!("{error}; the card says so");
                None
            }
            _ => return Err(error),
        },
    };
    let trained = Trained {
        config: &config,
        state: &state,
        index: &index,
        split: &split,
        decision: &scored.decision,
        validation: &scored.validation,
        test: &scored.test,
        others: &others(run)?,
        parity: parity.as_ref(),
        commit: &commit(),
        device: device_name,
        version: &args.card_version,
    };
    let out = |extension: &str| args.out.join(format!("{}.{extension}", config.candidate.name));
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    std::fs::write(out("onnx"), &bytes).with_context(|| format!("cannot write {}", out("onnx").display()))?;
    write_json(&out("json"), &trained.card(&bytes))?;
    std::fs::write(out("md"), trained.text()).with_context(|| format!("cannot write {}", out("md").display()))?;
    // Read back as the node will: what is refused here would stop a node.
    triaged::inference::ModelCard::load(&out("json"))?;
    eprintln!("wrote {}, its cards beside it", out("onnx").display());
    Ok(())
}

/// Compares network and file on some test slices spread over the patients.
fn check<B: ConvBackend>(
    network: &Network<B>,
    onnx: &[u8],
    slices: &[&Slice],
    cache: &Cache,
    device: &B::Device,
) -> anyhow::Result<parity::Parity> {
    let mut model = OnnxModel::load(onnx)?;
    let step = slices.len().div_ceil(16).max(1);
    let chosen: Vec<&&Slice> = slices.iter().step_by(step).collect();
    let images = chosen.iter().map(|slice| cache.load(&slice.file)).collect::<Result<Vec<_>, _>>()?;
    let [c, h, w] = cache.shape();
    Ok(parity::compare(network, &mut model, &images.concat(), [chosen.len(), c, h, w], device)?)
}

/// The commit that this program was run at, as git says it; a build outside a repository has none.
fn commit() -> String {
    std::process::Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .ok()
        .filter(|output| output.status.success())
        .map_or("unknown".into(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
