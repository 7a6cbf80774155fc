//! `triaged recover`: objects whose files are in the archive and whose rows are not, after a database was lost or restored, are taken in again.
//! A node does so by itself when it starts; this is for whoever wants to see it first, or to join what the node refuses to.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use triaged::archive::Archive;
use triaged::assets;
use triaged::config::Settings;
use triaged::intake::{Intake, Limits, Rules};
use triaged::ledger::Reader;
use triaged::node::{self, StartError, Storage, Strangers};
use triaged::recovery::{self, Progress, Recovery};
use triaged::triage::{Activity, Gate, StatRule};
use triaged_model::ModelCard;

use super::actor;
use super::serve::{runtime, start_log};
use super::{Failure, Result, shown};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Use a database and an archive together that do not belong to each other, or go on without the files of an archive that is lost
    #[arg(long, conflicts_with = "dry_run")]
    join: bool,
}

pub fn run(settings: &Settings, args: Args) -> Result {
    start_log(&settings.log)?;
    // Without a node: what it is just taking in has a file and no row, too.
    let _lock = node::lock(&settings.data_dir).map_err(|error| match error {
        StartError::Locked { .. } => Failure::wrong("a node works on this data folder: stop it first"),
        error => Failure::wrong(error.to_string()),
    })?;
    if args.dry_run {
        return look(settings);
    }
    let strangers = if args.join { Strangers::Join } else { Strangers::Refuse };
    let opened = node::open_storage(settings, strangers);
    let Storage { archive, ledger, remark } = opened.map_err(|error| Failure::wrong(error.to_string()))?;
    let (card, _) = ModelCard::load(&assets::model_card(&settings.inference.model))
        .map_err(|error| Failure::wrong(error.to_string()))?;
    let rules = Rules {
        stat: StatRule::new(&settings.triage),
        gate: Gate::new(&settings.triage.gate, &card.made_for),
        privacy: settings.privacy.clone(),
    };
    // The objects are on the disk already: no bound of senders holds for them.
    let limits = Limits {
        max_object_bytes: u64::MAX,
        max_queue: u64::MAX,
        max_queue_of_source: u64::MAX,
        max_bytes_of_source: 0,
    };
    let intake = Intake::new(
        archive.clone(),
        Arc::new(ledger.clone()),
        Arc::new(ledger.clone()),
        Activity::default(),
        rules,
        limits,
        Default::default(),
    );
    let progress = Progress::default();
    let recovery = Recovery { archive, ledger, intake };
    let runtime = runtime(settings)?;
    runtime.block_on(async {
        recovery.try_once(&progress, &CancellationToken::new()).await;
        let report = progress.report();
        // Whoever runs this sees what came of it; the messages are for a node that did so by itself.
        let ae_title = &settings.dimse.ae_title;
        recovery::tell(&recovery.ledger, actor::actor(), remark.as_deref(), &report, ae_title, |_| Vec::new()).await
    })?;
    // The last handles: the ledger is flushed.
    drop(recovery);
    let report = progress.report();
    let mut out = io::stdout().lock();
    if let Some(remark) = remark {
        writeln!(out, "{remark}")?;
    }
    report.failed.iter().try_for_each(|failed| writeln!(out, "{failed}"))?;
    writeln!(out, "{}", report.in_words())?;
    let well = report.failed.is_empty() && report.error.is_none();
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Says what there is to do, and changes nothing that is kept.
fn look(settings: &Settings) -> Result {
    let cannot = |error: io::Error| Failure::failed(format!("{}: {error}", shown(&settings.data_dir)));
    // Nothing is made, migrated or copied from a log: a database that was just put there is first of all looked at.
    let archive = Archive::at(&settings.data_dir);
    let database = settings.database();
    let ledger = database.exists().then(|| Reader::open(&database)).transpose()?;
    let survey = recovery::look(&archive, ledger.as_ref()).map_err(cannot)?;
    let mut out = io::stdout().lock();
    let lost = survey.lost.into_iter().map(|(_, path)| path).collect();
    for (what, paths) in [
        ("files of the archive have no row in the database", survey.orphans),
        ("files in quarantine have no row in the database", survey.set_aside),
        ("files were left on the way to another name", survey.temporary),
        ("rows have lost their file", lost),
    ] {
        writeln!(out, "{} {what}", paths.len())?;
        paths.iter().try_for_each(|path| writeln!(out, "  {path}"))?;
    }
    Ok(ExitCode::SUCCESS)
}
