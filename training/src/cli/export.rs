//! `export`: the ONNX file and its two cards.

use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, bail};
use triaged_kernels::ConvBackend;

use super::ablate;
use super::arguments::{ExportArgs, MachineArgs};
use super::evaluate::{others, print_evaluation, print_supplement, score};
use super::folds::folds_of;
use super::run_data::data_of;
use super::trainings::check_name;
use crate::card::{Measured, Trained};
use crate::data::{Cache, Side, Slice};
use crate::export;
use crate::files::write_json;
use crate::fit;
use crate::network::Network;
use crate::parity;
use crate::runtime::{OnnxModel, RuntimeError};

pub fn do_export<B: ConvBackend>(
    run: &Path,
    machine: &MachineArgs,
    args: &ExportArgs,
    device: &B::Device,
    device_name: &str,
) -> anyhow::Result<()> {
    let (mut config, state) = fit::read_run(run)?;
    if let Some(name) = &args.name {
        check_name(name)?;
        config.candidate.name.clone_from(name);
    }
    if config.context {
        bail!("{} sees neighbouring slices: the node has no such input, and no model can be made of it", run.display());
    }
    let (index, split) = data_of(run)?;
    let measured = match &args.cross_validation {
        Some(folder) => Measured::Crossed(folds_of(run, folder)?),
        None => {
            let scored = score::<B>(run, machine, device)?;
            print_evaluation("test", &scored.test);
            print_supplement(&scored.supplement);
            Measured::HeldOut(scored)
        }
    };
    let ablation = args.ablation.as_deref().map(ablate::read).transpose()?;
    let network = fit::best::<B>(run, &config, &state, device)?;
    let network = match measured.decision().calibration {
        Some(platt) => platt.folded(network),
        None => network,
    };
    let shape = config.shape();
    let bytes = export::onnx(&network, &config.candidate.name, shape)?;
    let cache = config.cache(machine.cache.clone(), &index)?;
    // Slices of patients: those held back where there are any.
    let patients: Vec<&Slice> = match split.slices(&index, Side::Test) {
        none if none.is_empty() => {
            index.slices.iter().filter(|slice| !split.train_only.contains(&slice.source)).collect()
        }
        test => test,
    };
    let parity = checked::<B>(std::slice::from_ref(&network), &bytes, &patients, &cache, device)?;
    let trained = Trained {
        name: &config.candidate.name,
        config: &config,
        state: &state,
        index: &index,
        split: &split,
        measured: &measured,
        others: &others(run, &state, measured.decision())?,
        parity: parity.as_ref(),
        quantized: None,
        ensemble: None,
        ablation: ablation.as_ref(),
        commit: &commit(),
        device: device_name,
        version: &args.card_version,
    };
    if let (Some(ablation), Some(folder)) = (&ablation, &args.ablation) {
        ablate::check_of(ablation, &trained.card(&bytes), folder)?;
    }
    write(&trained, &bytes, &args.out)
}

/// Writes a model and its cards into a folder.
pub fn write(trained: &Trained, onnx: &[u8], folder: &Path) -> anyhow::Result<()> {
    trained.measured.warning().iter().for_each(|line| eprintln!("{line}"));
    let out = |extension: &str| folder.join(format!("{}.{extension}", trained.name));
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    std::fs::write(out("onnx"), onnx).with_context(|| format!("cannot write {}", out("onnx").display()))?;
    write_json(&out("json"), &trained.card(onnx))?;
    std::fs::write(out("md"), trained.text()).with_context(|| format!("cannot write {}", out("md").display()))?;
    // Read back as the node will: what is refused here would stop a node.
    triaged_model::ModelCard::load(&out("json"))?;
    eprintln!("wrote {}, its cards beside it", out("onnx").display());
    Ok(())
}

/// Compares networks and file, on some slices spread over the patients. None, which is said, where there is no ONNX Runtime.
pub fn checked<B: ConvBackend>(
    networks: &[Network<B>],
    onnx: &[u8],
    slices: &[&Slice],
    cache: &Cache,
    device: &B::Device,
) -> anyhow::Result<Option<parity::Parity>> {
    match check(networks, onnx, slices, cache, device) {
        Ok(parity) => {
            eprintln!("ONNX Runtime agrees within {:.1e} on {} slices", parity.largest_difference, parity.slices);
            Ok(Some(parity))
        }
        Err(error) => match error.downcast_ref::<RuntimeError>() {
            Some(RuntimeError::NoLibrary) => {
                eprintln!("{error}; the card says that it was not checked");
                Ok(None)
            }
            _ => Err(error),
        },
    }
}

fn check<B: ConvBackend>(
    networks: &[Network<B>],
    onnx: &[u8],
    slices: &[&Slice],
    cache: &Cache,
    device: &B::Device,
) -> anyhow::Result<parity::Parity> {
    let mut model = OnnxModel::load(onnx)?;
    let step = slices.len().div_ceil(16).max(1);
    let chosen: Vec<&&Slice> = slices.iter().step_by(step).collect();
    let images = chosen.iter().map(|slice| cache.input(&slice.file)).collect::<Result<Vec<_>, _>>()?;
    let [c, h, w] = cache.shape();
    Ok(parity::compare(networks, &mut model, &images.concat(), [chosen.len(), c, h, w], device)?)
}

/// The commit of the sources that this program was built from, as git says it now. A build outside a repository has none, and where a source is
/// newer than the program nobody knows: another commit may have been checked out since. (Asked when it is built, git would
/// have the whole crate compiled anew with each commit.)
pub fn commit() -> String {
    const UNKNOWN: &str = "unknown";
    let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
    let built = std::env::current_exe().and_then(std::fs::metadata).and_then(|file| file.modified()).ok();
    let newest = [sources.join("src"), sources.join("../crates")].iter().filter_map(|folder| newest(folder)).max();
    if built.is_none() || newest > built {
        return UNKNOWN.into();
    }
    std::process::Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"])
        .current_dir(sources)
        .output()
        .ok()
        .filter(|output| output.status.success())
        .map_or(UNKNOWN.into(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// When the last of a folder's Rust files was changed. None where there is none.
fn newest(folder: &Path) -> Option<SystemTime> {
    let of = |entry: std::fs::DirEntry| {
        let path = entry.path();
        match path.is_dir() {
            true => newest(&path),
            false if path.extension().is_some_and(|extension| extension == "rs") => {
                entry.metadata().ok()?.modified().ok()
            }
            false => None,
        }
    };
    std::fs::read_dir(folder).ok()?.flatten().filter_map(of).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_source_is_found_below_folders() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(newest(folder.path()), None);
        std::fs::create_dir(folder.path().join("a")).expect("a folder");
        std::fs::write(folder.path().join("a/b.rs"), "").expect("written");
        std::fs::write(folder.path().join("c.txt"), "").expect("written");
        assert!(newest(folder.path()).is_some_and(|time| time <= SystemTime::now()));
    }
}
