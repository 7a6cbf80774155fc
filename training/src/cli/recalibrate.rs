//! `recalibrate`: a card whose study threshold is chosen on a site's own labelled studies.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use sha2::{Digest, Sha256};
use triaged_model::ModelCard;

use super::copies::names_source;
use super::export::commit;
use crate::data::{Cache, Index, Slice, source_name};
use crate::files::write_json;
use crate::progress::Progress;
use crate::recalibrate::{
    Choice, Early, Labelled, Labels, Provenance, Wanted, card as recalibrated, of_slices, read_scores, section, text,
    threshold, whole,
};
use crate::runtime::{self, OnnxModel};

#[derive(Clone, Args)]
#[command(group(clap::ArgGroup::new("studies").required(true).args(["data", "scores"])))]
#[command(group(clap::ArgGroup::new("wanted").required(true).multiple(true).args(["sensitivity", "specificity"])))]
pub struct RecalibrateArgs {
    /// The card that the site runs, NAME.json; its file lies beside it
    #[arg(long)]
    pub card: PathBuf,
    /// The site's labelled studies: a folder with stage_2_train.csv and stage_2_train/*.dcm, scored here by the card's model
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// The site's labelled studies, scored before: `triaged results --format csv`, or, for a card without a sequence network, the view slice_results as CSV or scores.csv of a training
    #[arg(long)]
    pub scores: Option<PathBuf>,
    /// Labels for --scores: a CSV file with study_uid or accession_number, and label (1 or 0) [default: the column label of --scores]
    #[arg(long, requires = "scores")]
    pub labels: Option<PathBuf>,
    /// The share of studies with hemorrhage that is to be flagged
    #[arg(long, value_parser = share)]
    pub sensitivity: Option<f64>,
    /// The share of studies without hemorrhage that is not to be flagged
    #[arg(long, value_parser = share)]
    pub specificity: Option<f64>,
    /// The new card's name [default: NAME-site]
    #[arg(long)]
    pub name: Option<String>,
    /// Folder of the new cards; another than the card's gets copies of the model's files too [default: the card's]
    #[arg(long)]
    pub out: Option<PathBuf>,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if share > 0.0 && share < 1.0 => Ok(share),
        _ => Err("a share above 0 and below 1, such as 0.95".into()),
    }
}

pub fn do_recalibrate(args: &RecalibrateArgs) -> anyhow::Result<()> {
    let (of, onnx) = ModelCard::load(&args.card)?;
    let name = args.name.clone().unwrap_or_else(|| format!("{}-site", of.name));
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || !name.chars().all(plain) || name == of.name {
        bail!(
            "--name {name}: letters, digits, - and _, and another name than the card's own, such as {}-site",
            of.name
        );
    }
    let sequence = of.load_sequence(&args.card)?;
    let (studies, source, digest) = match (&args.data, &args.scores) {
        (Some(folder), _) => (scored(folder, &of, &onnx, sequence.as_deref())?, source_name(folder), None),
        (None, Some(file)) => {
            let labels = args.labels.as_deref().map(Labels::read).transpose()?;
            let (studies, left) = read_scores(file, labels.as_ref(), &of)?;
            left.lines().for_each(|line| eprintln!("{line}"));
            let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            (studies, source_name(file), Some(hex::encode(Sha256::digest(bytes))))
        }
        (None, None) => bail!("--data or --scores: one of them names the studies"),
    };
    let wanted = Wanted { sensitivity: args.sensitivity, specificity: args.specificity };
    let before = threshold(&of);
    let choice = Choice::of(&studies, wanted, before)?;
    let early = Early::of(&of, &studies, choice.threshold);
    let mut warnings = Vec::new();
    if args.data.is_some() && names_source(&of, &source) {
        warnings.push(format!(
            "{} was trained on a folder called {source}: if these are its patients, the threshold is one for patients that the network knows, \
             and on others it will flag other shares. The name alone tells; where it is another folder, rename it",
            of.name
        ));
    }
    if studies.iter().all(|study| study.score >= before) {
        warnings.push(format!(
            "none of these studies lies below the former threshold, {before:.4}: they look like flagged ones alone, from which nobody learns \
             what is missed. Label all studies of some weeks"
        ));
    }
    warnings.extend(choice.warnings(wanted));
    warnings.extend(early.and_then(|early| early.warning(&of)));
    let provenance = Provenance {
        of: of.name.clone(),
        of_version: of.version.clone(),
        threshold_before: before,
        early_threshold: early.and_then(Early::threshold),
        wanted,
        source,
        source_sha256: digest,
        at: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        commit: commit(),
        warnings,
        choice,
    };
    provenance.warnings.iter().for_each(|line| eprintln!("{line}"));
    let files = [(of.file.as_str(), onnx.as_slice())];
    let second = of.sequence.as_ref().zip(sequence.as_deref()).map(|(of, bytes)| (of.file.as_str(), bytes));
    write(args, &of, files.into_iter().chain(second), &name, &provenance)
}

/// The folder's studies, scored by the card's model.
fn scored(folder: &Path, card: &ModelCard, onnx: &[u8], sequence: Option<&[u8]>) -> anyhow::Result<Vec<Labelled>> {
    runtime::check()?;
    let index = Index::read(folder)?;
    index.problems.lines().iter().for_each(|line| eprintln!("{line}"));
    let (kept, left) = whole(&index.slices, &card.made_for);
    if left > 0 {
        eprintln!(
            "{left} left out: studies with fewer than {} slices in a series, or less than {} mm covered, which the card is not made for",
            card.made_for.min_slices, card.made_for.min_coverage_mm
        );
    }
    if kept.is_empty() {
        bail!("{} has no whole study: the node would call all of them incomplete", folder.display());
    }
    let cache = Cache::new(card.transform.clone(), None)?;
    let [channels, height, width] = cache.shape();
    let mut model = OnnxModel::load(onnx)?;
    let mut progress = Progress::new("scoring", kept.len());
    let mut slices: Vec<(&Slice, f64)> = Vec::with_capacity(kept.len());
    for slice in kept {
        let image = cache.input(&slice.file)?;
        let said = model.output(&image, [1, channels, height, width])?;
        let probability = f64::from(*said.first().context("the model says nothing")?);
        if !(0.0..=1.0).contains(&probability) {
            bail!("the model says {probability} of {}: no probability", slice.id);
        }
        slices.push((slice, probability));
        progress.advance(1, "");
    }
    progress.finish("");
    let mut sequence = sequence.map(OnnxModel::load).transpose()?;
    Ok(of_slices(&slices, card, sequence.as_mut())?)
}

/// Writes the cards, and the model's files beside them where they are not there.
fn write<'a>(
    args: &RecalibrateArgs,
    of: &ModelCard,
    files: impl Iterator<Item = (&'a str, &'a [u8])>,
    name: &str,
    provenance: &Provenance,
) -> anyhow::Result<()> {
    let own = args.card.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = args.out.as_deref().unwrap_or(own);
    let people = match std::fs::read_to_string(args.card.with_extension("md")) {
        Ok(text) => Some(text),
        // A card of one's own need not have one.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {}", args.card.with_extension("md").display()));
        }
    };
    let out = |extension: &str| folder.join(format!("{name}.{extension}"));
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for (file, bytes) in files {
        let file = folder.join(file);
        match std::fs::read(&file) {
            Ok(there) if there == bytes => {}
            Ok(_) => bail!("{} is another model's file; take another folder", file.display()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                std::fs::write(&file, bytes).with_context(|| format!("cannot write {}", file.display()))?;
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
        }
    }
    let made = recalibrated(of, name, provenance);
    write_json(&out("json"), &made)?;
    let text = text(people.as_deref(), of, name, provenance);
    std::fs::write(out("md"), &text).with_context(|| format!("cannot write {}", out("md").display()))?;
    // Read back as the node will: what is refused here would stop a node.
    let (read, _) = ModelCard::load(&out("json"))?;
    read.load_sequence(&out("json"))?;
    println!("{}", section(&made, provenance).trim_end());
    eprintln!("wrote {}; the node takes it by inference.model = \"{}\"", out("json").display(), out("json").display());
    Ok(())
}
