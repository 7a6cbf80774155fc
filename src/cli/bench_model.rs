//! `triaged bench-model`: how fast the model is on this machine, alone, as JSON.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum;
use triaged::config::{Binding, Device, Settings};
use triaged::inference::{Bench, BenchError, bench};
use triaged_imaging::phantom::{Lesion, PhantomSpec, series};

use super::{Failure, Result};

/// Phantoms' slices that are scored where no files are given.
const SLICES: u32 = 32;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// DICOM files or folders of them; without any, slices of a phantom
    paths: Vec<PathBuf>,
    /// The model card (inference.model)
    #[arg(long, value_name = "FILE")]
    model: Option<String>,
    /// The device that the model runs on (inference.device)
    #[arg(long, value_enum)]
    device: Option<Device>,
    /// Slices scored at once (inference.batch_size)
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Sessions on the GPU (inference.cuda.lanes)
    #[arg(long, value_name = "N")]
    lanes: Option<usize>,
    /// How batches get to the GPU (inference.cuda.binding)
    #[arg(long, value_enum)]
    binding: Option<Binding>,
    /// Multiply in TensorFloat-32 (inference.cuda.tf32)
    #[arg(long)]
    tf32: bool,
    /// Convolutions in channels-last order (inference.cuda.channels_last)
    #[arg(long)]
    channels_last: bool,
    /// Threads of the model on a CPU (inference.threads)
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Seconds that batches are scored
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = seconds)]
    seconds: f64,
    /// Score at most so many files
    #[arg(long, value_name = "N")]
    slices: Option<usize>,
}

fn seconds(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| format!("{text} is no number"))?;
    (0.01..=600.0).contains(&value).then_some(value).ok_or_else(|| "between 0.01 and 600".into())
}

impl Args {
    /// The settings that the flags override.
    pub fn settings(&self) -> [(&'static str, Option<String>); 8] {
        let named = |value: Option<clap::builder::PossibleValue>| value.map(|value| value.get_name().to_owned());
        let switch = |on: bool| on.then(|| "true".to_owned());
        [
            ("inference.model", self.model.clone()),
            ("inference.device", named(self.device.as_ref().and_then(Device::to_possible_value))),
            ("inference.batch_size", self.batch.map(|batch| batch.to_string())),
            ("inference.cuda.lanes", self.lanes.map(|lanes| lanes.to_string())),
            ("inference.cuda.binding", named(self.binding.as_ref().and_then(Binding::to_possible_value))),
            ("inference.cuda.tf32", switch(self.tf32)),
            ("inference.cuda.channels_last", switch(self.channels_last)),
            ("inference.threads", self.threads.map(|threads| threads.to_string())),
        ]
    }
}

pub fn run(settings: &Settings, args: Args) -> Result {
    // Lives until the end: the phantom's files are decoded over and over.
    let folder;
    let mut files = Vec::new();
    if args.paths.is_empty() {
        folder = Scratch::new()?;
        phantom(&folder.0, &mut files)?;
    } else {
        for path in &args.paths {
            gather(path, &mut files)?;
        }
        files.sort();
    }
    files.truncate(args.slices.unwrap_or(files.len()));
    let measured = bench(&settings.inference, &Bench { files, time: Duration::from_secs_f64(args.seconds) });
    let measured = measured.map_err(|error| match error {
        BenchError::Engine(_) | BenchError::NoSlices => Failure::wrong(error.to_string()),
        BenchError::Read { .. } | BenchError::Input { .. } => Failure::failed(error.to_string()),
    })?;
    let text = serde_json::to_string_pretty(&measured)
        .map_err(|error| Failure::failed(format!("what was measured cannot be written: {error}")))?;
    writeln!(io::stdout().lock(), "{text}")?;
    Ok(ExitCode::SUCCESS)
}

/// A folder of this process that goes with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Scratch> {
        let path = std::env::temp_dir().join(format!("triaged-bench-model-{}", std::process::id()));
        std::fs::create_dir(&path)
            .map_err(|error| Failure::wrong(format!("cannot make the folder {}: {error}", path.display())))?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A leftover in the system's folder for temporary files costs space, nothing else.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn phantom(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let spec = PhantomSpec { slices: SLICES, lesion: Some(Lesion::Epidural), seed: 1 };
    for (number, object) in (1..).zip(series(&spec)) {
        let path = folder.join(format!("{number:04}.dcm"));
        object
            .write_to_file(&path)
            .map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display())))?;
        files.push(path);
    }
    Ok(())
}

/// The files of a folder and of those below it, or the file itself.
fn gather(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let wrong = |error: io::Error| Failure::wrong(format!("cannot read {}: {error}", path.display()));
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in std::fs::read_dir(path).map_err(wrong)? {
        gather(&entry.map_err(wrong)?.path(), files)?;
    }
    Ok(())
}
