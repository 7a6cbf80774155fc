//! `triaged recover`: objects whose files are in the archive and whose rows are not, after a database was lost or restored, are taken in again.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::sync::Arc;

use triaged::archive::Archive;
use triaged::assets;
use triaged::config::Settings;
use triaged::intake::{Announced, Intake, Limits, Memory, Outcome, Rules, Sender};
use triaged::ledger::Ledger;
use triaged::node::{self, StartError};
use triaged::triage::{Activity, Gate, StatRule};
use triaged_model::ModelCard;

use super::serve::{runtime, start_log};
use super::{Failure, Result, shown};

/// Bytes read at a time.
const PIECE: usize = 64 * 1024;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only say what would be taken in
    #[arg(long)]
    dry_run: bool,
}

pub fn run(settings: &Settings, args: Args) -> Result {
    start_log(&settings.log)?;
    // Without a node: what it is just taking in has a file and no row, too.
    let _lock = node::lock(&settings.data_dir).map_err(|error| match error {
        StartError::Locked { .. } => Failure::wrong("a node works on this data folder: stop it first"),
        error => Failure::wrong(error.to_string()),
    })?;
    let cannot = |error: io::Error| Failure::failed(format!("{}: {error}", shown(&settings.data_dir)));
    let (archive, _) = Archive::open(&settings.data_dir).map_err(cannot)?;
    let ledger = Ledger::open(&settings.database())?;
    let named: HashSet<String> = ledger.all_files()?.into_iter().map(|(file, _)| file.path).collect();
    let orphans = archive.orphans(&named).map_err(cannot)?;
    let mut out = io::stdout().lock();
    if args.dry_run || orphans.is_empty() {
        writeln!(out, "{} files of the archive have no row in the database", orphans.len())?;
        orphans.iter().try_for_each(|path| writeln!(out, "{path}"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let (card, _) = ModelCard::load(&assets::model_card(&settings.inference.model))
        .map_err(|error| Failure::wrong(error.to_string()))?;
    let rules = Rules {
        stat: StatRule::new(&settings.triage),
        gate: Gate::new(&settings.triage.gate, &card.made_for),
        privacy: settings.privacy.clone(),
    };
    // The objects are on the disk already: no bound of senders holds for them.
    let limits = Limits { max_object_bytes: u64::MAX, max_queue: u64::MAX, max_queue_of_source: u64::MAX };
    let intake = Intake::new(
        archive.clone(),
        Arc::new(ledger.clone()),
        Arc::new(ledger.clone()),
        Activity::default(),
        rules,
        limits,
        Default::default(),
    );
    let runtime = runtime(settings)?;
    let mut failed = 0;
    for path in &orphans {
        let why = match runtime.block_on(take_in(&intake, &archive, path)) {
            Ok(outcome) if outcome.is_kept() => continue,
            Ok(outcome) => outcome.reason().to_owned(),
            Err(error) => error.to_string(),
        };
        failed += 1;
        writeln!(out, "{path}: {why}")?;
    }
    // The last handles: the ledger is flushed.
    drop((intake, ledger));
    writeln!(out, "{} of {} files of the archive were taken in again", orphans.len() - failed, orphans.len())?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Takes in the object of a file as if its sender had just sent it again: the same bytes get to the same place.
async fn take_in(intake: &Intake, archive: &Archive, path: &str) -> io::Result<Outcome> {
    let (meta, mut data_set) = archive.reopen(path)?;
    let sender = Sender {
        calling_ae: meta.source_ae_title,
        peer: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        stat: false,
        max_object_bytes: None,
    };
    let transfer = intake.begin_transfer(sender);
    let announced = Announced {
        sop_class_uid: meta.sop_class_uid,
        sop_instance_uid: meta.sop_instance_uid,
        transfer_syntax: meta.transfer_syntax,
    };
    let mut reception = transfer.receive(announced, Memory::default());
    let mut piece = vec![0; PIECE];
    loop {
        match data_set.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => reception.write(&piece[..count]).await,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(reception.finish().await.0)
}
