//! `triaged rescore`: score again with the current model, as a new revision.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use triaged::config::Settings;
use triaged::ledger::{Ledger, LedgerError, Reader, WorklistFilter};
use triaged::node::{self, Node, Role, StartError};
use triaged::plural::counted;

use super::send::Report;
use super::serve::{Signals, runtime, start_log};
use super::{Failure, Result, actor, existing_database, study, worklist};

/// How often the database is asked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(250);

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Args {
    /// Study Instance UID, the beginning or end of one, or an accession number
    study: Option<String>,
    /// Every study that has slices to score
    #[arg(long)]
    all: bool,
}

pub fn run(settings: Settings, args: Args, log_chosen: bool) -> Result {
    let database = existing_database(&settings)?;
    let reader = Reader::open(&database)?;
    let studies = match &args.study {
        Some(named) => vec![study::find(&reader, named)?],
        None => reader
            .worklist(&WorklistFilter::default())?
            .into_iter()
            .filter(|row| row.slices_scored + row.slices_failed > 0)
            .map(|row| row.study_uid)
            .collect(),
    };
    let mut log = settings.log.clone();
    if !log_chosen {
        log.level = "warn".into();
    }
    start_log(&log)?;
    let runtime = runtime(&settings)?;
    let done = runtime.block_on(rescore(settings, &reader, &studies));
    // A thread that hangs is not waited for.
    runtime.shutdown_timeout(Duration::from_secs(1));
    done
}

async fn rescore(settings: Settings, reader: &Reader, studies: &[String]) -> Result {
    let mut signals = Signals::new()?;
    let data_dir = settings.data_dir.clone();
    let wrong = |error: StartError| Failure::wrong(error.to_string());
    // A node that works on this data folder does the scoring; else it is done here. The model is loaded before anything
    // is queued: without it, every study would be left waiting.
    let node = match node::lock(&settings.data_dir) {
        Err(StartError::Locked { .. }) => None,
        Err(error) => return Err(wrong(error)),
        Ok(lock) => {
            drop(lock);
            Some(Node::start(settings.clone(), Role::Score).await.map_err(wrong)?)
        }
    };
    let ledger = match &node {
        Some(node) => node.ledger().clone(),
        None => Ledger::open(&settings.database())?,
    };
    let actor = actor::actor();
    let queued = tokio::task::block_in_place(|| {
        studies.iter().try_fold(0, |sum, study| Ok::<u64, LedgerError>(sum + ledger.requeue_study(study, &actor)?))
    })?;
    if queued == 0 {
        stop(node).await;
        return Err(Failure::failed(
            "there is no slice to score again; ineligible slices are not scored, nor those whose file was removed (archive.retention_days)",
        ));
    }
    let report = Report::new();
    let bar = report.bar(queued);
    let mut look = tokio::time::interval(LOOK_EVERY);
    let ended = loop {
        tokio::select! {
            () = signals.next() => break Ended::Interrupted,
            _ = look.tick() => {
                let (waiting, undecided) = reader.waiting(studies)?;
                bar.set_position(queued.saturating_sub(waiting));
                if waiting + undecided == 0 {
                    break Ended::Done;
                }
                if node.as_ref().is_some_and(|node| !node.is_alive()) {
                    break Ended::Dead;
                }
                if node.is_some() && node::is_wanted(&data_dir) {
                    break Ended::Wanted;
                }
            }
        }
    };
    bar.finish_and_clear();
    let scored_here = node.is_some();
    drop(ledger);
    let why = match ended {
        Ended::Dead => {
            if let Some(node) = node {
                node.abandon().await;
            }
            Some("a stage has ended or hangs, which the log says")
        }
        Ended::Interrupted => {
            stop(node).await;
            Some("interrupted")
        }
        Ended::Wanted => {
            stop(node).await;
            return Err(Failure::failed("a node starts on this data folder, and goes on with what is queued"));
        }
        Ended::Done => {
            stop(node).await;
            None
        }
    };
    if let Some(why) = why {
        let who = if scored_here {
            "the next `triaged serve` or `triaged rescore` takes up"
        } else {
            "the node goes on with"
        };
        return Err(Failure::failed(format!("{why}; {who} what is queued")));
    }
    tell(reader, studies, queued)
}

/// How the wait for the scores ended.
enum Ended {
    Done,
    Interrupted,
    /// A node starts, which must not wait.
    Wanted,
    /// The node that was started for it is no longer alive.
    Dead,
}

async fn stop(node: Option<Node>) {
    if let Some(node) = node {
        node.stop().await;
    }
}

fn tell(reader: &Reader, studies: &[String], queued: u64) -> Result {
    let mut out = io::stdout().lock();
    let mut verdicts = std::collections::BTreeMap::<String, u64>::new();
    let mut failed = 0;
    for uid in studies {
        let Some(row) = reader.study(uid)? else { continue };
        failed += row.slices_failed;
        if studies.len() == 1 {
            writeln!(out, "{}: {}, revision {}", super::terminal::clean(uid), worklist::verdict(&row), row.revision)?;
        }
        *verdicts.entry(worklist::verdict(&row)).or_default() += 1;
    }
    if studies.len() > 1 {
        let words: Vec<String> = verdicts.iter().map(|(verdict, count)| format!("{count} {verdict}")).collect();
        let (slices, of) = (counted(queued, "slice"), counted(studies.len() as u64, "study"));
        writeln!(out, "{slices} of {of} scored again: {}", words.join(", "))?;
    }
    if failed > 0 {
        return Err(Failure::failed(format!(
            "{} failed; `triaged results show STUDY` says why",
            counted(failed.unsigned_abs(), "slice")
        )));
    }
    Ok(ExitCode::SUCCESS)
}
