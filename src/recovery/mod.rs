//! At each start, files and rows are held against each other: what a restored or lost database does not know is taken in again, what is no
//! longer there is marked, and what belongs to nobody goes out of the way. The node receives meanwhile.

mod survey;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::archive::Archive;
use crate::event::{Event, NodeTrouble};
use crate::intake::{Intake, Outcome};
use crate::ledger::{Actor, Deed, Ledger, LedgerError, NewMessage, Outbox, Reader, now};
use crate::plural::{counted, verb};

pub use survey::Survey;
use survey::survey;

/// Before it is tried again where a disk or the ledger fails.
const PAUSE: Duration = Duration::from_secs(10);

/// Between looks whether the queue has become shorter; it is counted every second.
const QUEUE_PAUSE: Duration = Duration::from_secs(1);

/// Rows that are marked in one transaction.
const BATCH: usize = 256;

/// How far it has come. Clones are one and the same.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Mutex<Report>>);

/// What was found and done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Files without a row that were found, and those of them that are dealt with.
    pub found: usize,
    pub done: usize,
    /// Those of them that are instances now, that were set aside, that repeated another file and are gone, and that failed.
    pub taken_in: usize,
    pub set_aside: usize,
    pub swept: usize,
    pub failed: Vec<String>,
    /// Rows whose file is gone: those marked now.
    pub lost: usize,
    /// Rows whose file is back.
    pub back: usize,
    /// Why it could not be done at all.
    pub error: Option<String>,
    pub is_over: bool,
}

impl Report {
    /// Whether anything was not as it should be. A file that was found while its object was on the way to its row is not.
    pub fn is_news(&self) -> bool {
        let changed = self.taken_in + self.set_aside + self.swept + self.failed.len() + self.lost + self.back;
        changed > 0 || self.error.is_some()
    }

    /// What was done, in words.
    pub fn in_words(&self) -> String {
        let mut parts = Vec::new();
        let mut add = |count: usize, one: &'static str, several: &'static str| {
            if count > 0 {
                let count = count as u64;
                parts.push(format!("{} {}", counted(count, "file"), verb(count, one, several)));
            }
        };
        add(
            self.taken_in,
            "of the archive had no row and was taken in again",
            "of the archive had no row and were taken in again",
        );
        let aside = [
            "without a row could not be taken in and is set aside",
            "without a row could not be taken in and are set aside",
        ];
        add(self.set_aside, aside[0], aside[1]);
        add(self.swept, "that nobody needs was removed", "that nobody needs were removed");
        let failed = "without a row could not be read or recorded; the next start tries again";
        add(self.failed.len(), failed, failed);
        add(
            self.lost,
            "is gone of which there is a row (view lost_files)",
            "are gone of which there are rows (view lost_files)",
        );
        add(self.back, "that was gone is back", "that were gone are back");
        parts.extend(self.error.clone());
        match parts.is_empty() {
            true => "every file has its row, and every row its file".into(),
            false => parts.join("; "),
        }
    }
}

impl Progress {
    pub fn report(&self) -> Report {
        self.0.lock().expect("nobody panics while holding it").clone()
    }

    fn note(&self, change: impl FnOnce(&mut Report)) {
        let mut report = self.0.lock().expect("nobody panics while holding it");
        change(&mut report);
        let without_row = report.found.saturating_sub(report.done) + report.failed.len();
        metrics::gauge!("triaged_files_without_row").set(without_row as f64);
    }
}

/// Holds files and rows against each other, once.
pub struct Recovery {
    pub archive: Archive,
    pub ledger: Ledger,
    pub intake: Intake,
}

impl Recovery {
    /// Surveys and mends until all is done, or `stop`. `progress` hears of it; it is over only when all is done.
    pub async fn run(&self, progress: &Progress, stop: &CancellationToken) {
        while !self.try_once(progress, stop).await {
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Surveys and mends. Returns whether all was done; what failed stands in the report.
    pub async fn try_once(&self, progress: &Progress, stop: &CancellationToken) -> bool {
        progress.note(|report| *report = Report::default());
        if let Err(why) = self.mend(progress, stop).await {
            if !stop.is_cancelled() {
                error!("files and rows cannot be held against each other, which is tried again: {why}");
            }
            progress
                .note(|report| report.error = Some(format!("files and rows cannot be held against each other: {why}")));
            return false;
        }
        progress.note(|report| report.is_over = true);
        let report = progress.report();
        metrics::counter!("triaged_recovered_files_total").increment(report.taken_in as u64);
        match report.is_news() {
            true => warn!("{}", report.in_words()),
            false => info!("{}", report.in_words()),
        }
        true
    }

    async fn mend(&self, progress: &Progress, stop: &CancellationToken) -> Result<(), String> {
        let (archive, ledger) = (self.archive.clone(), self.ledger.clone());
        let stopped = stop.clone();
        let surveyed = blocking(move || survey(&archive, Some(&ledger), &|| stopped.is_cancelled())).await?;
        let survey = surveyed.map_err(|error| error.to_string())?;
        let files = survey.orphans.len() + survey.set_aside.len() + survey.temporary.len();
        progress.note(|report| report.found = files);
        if files > 0 {
            warn!(files, "files of the archive have no row in the database; they are taken in again");
        }
        let adoption = self.intake.begin_adoption();
        // Those of the archive first: what was set aside contradicts one of them.
        for path in survey.orphans.iter().chain(&survey.set_aside) {
            if stop.is_cancelled() {
                return Err("the node stops".into());
            }
            // New patients go before what is only taken in again: it leaves them room in the queue.
            while !adoption.leaves_room() && !stop.is_cancelled() {
                tokio::time::sleep(QUEUE_PAUSE).await;
            }
            let adopted = adoption.adopt(path).await;
            progress.note(|report| {
                report.done += 1;
                match adopted {
                    Outcome::Stored => report.taken_in += 1,
                    // Its row came meanwhile, or it repeated what another file has and is gone.
                    Outcome::Duplicate => report.swept += usize::from(!self.archive.file(path).exists()),
                    Outcome::SetAside | Outcome::DoesNotMatch(_) | Outcome::CannotUnderstand(_) => {
                        report.set_aside += 1
                    }
                    outcome => report.failed.push(format!("{path}: {}", outcome.reason())),
                }
            });
        }
        drop(adoption);
        let (archive, temporary) = (self.archive.clone(), survey.temporary);
        let swept = blocking(move || sweep(&archive, &temporary)).await?;
        progress.note(|report| {
            report.done += files - report.done;
            report.swept += swept;
        });
        let lost = self.mark(survey.lost, true).await.map_err(|error| error.to_string())?;
        progress.note(|report| report.lost = lost);
        let back = self.mark(survey.back, false).await.map_err(|error| error.to_string())?;
        progress.note(|report| report.back = back);
        Ok(())
    }

    /// Marks instances whose file is gone, or is back. Returns how many there were.
    async fn mark(&self, instances: Vec<(i64, String)>, is_lost: bool) -> Result<usize, LedgerError> {
        let mut marked = 0;
        for batch in instances.chunks(BATCH) {
            // No object is between its place and its row: one that came again meanwhile has its file.
            let _alone = self.archive.removing().await;
            let is_so = |path: &str| self.archive.file(path).exists() != is_lost;
            let batch = batch.iter().filter(|(_, path)| is_so(path)).cloned().collect();
            marked += self.ledger.mark_lost(batch, is_lost).await?;
        }
        Ok(marked)
    }
}

/// Removes files that are only ever made on the way to another.
fn sweep(archive: &Archive, temporary: &[String]) -> usize {
    let removed = |path: &&String| std::fs::remove_file(archive.file(path)).is_ok();
    temporary.iter().filter(removed).count()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())
}

/// Writes into the audit log what a recovery did, and tells people.
///
/// # Errors
/// What the ledger fails with.
pub async fn tell(
    ledger: &Ledger,
    actor: Actor,
    remark: Option<&str>,
    report: &Report,
    ae_title: &str,
    messages: impl Fn(Event) -> Vec<NewMessage>,
) -> Result<(), LedgerError> {
    if remark.is_none() && !report.is_news() {
        return Ok(());
    }
    let details = serde_json::json!({
        "found": remark, "taken_in": report.taken_in, "set_aside": report.set_aside, "removed": report.swept,
        "failed": report.failed.len(), "lost": report.lost, "back": report.back,
    });
    ledger.record_deed(Deed { actor, name: "archive.recover", study_uid: None, details }).await?;
    let reasons = remark.map(|remark| format!("storage: {remark}")).into_iter();
    let trouble = NodeTrouble {
        ae_title: ae_title.to_owned(),
        // What is lost or could not be read is a person's to look at.
        ready: report.lost == 0 && report.failed.is_empty() && report.error.is_none(),
        since: now(),
        reasons: reasons.chain([format!("files: {}", report.in_words())]).collect(),
        software: crate::SOFTWARE.into(),
    };
    ledger.post(messages(Event::NodeTrouble(trouble))).await
}

/// The survey alone, for a person who wants to see it first; without a ledger, of an archive whose ledger is gone. Blocks.
///
/// # Errors
/// A folder cannot be read, or the ledger.
pub fn look(archive: &Archive, ledger: Option<&Reader>) -> io::Result<Survey> {
    survey(archive, ledger, &|| false)
}

/// Whether a name is one that the node gives to files on their way to another name.
fn is_temporary(name: &Path) -> bool {
    let file = name.file_name().and_then(|name| name.to_str()).unwrap_or("");
    file == ".probe" || file.ends_with(".part")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A survey beside receiving finds files whose rows come a moment later: nobody is told that all is well.
    #[test]
    fn a_recovery_that_changed_nothing_is_no_news() {
        let found = Report { found: 2, done: 2, is_over: true, ..Report::default() };
        assert!(!found.is_news(), "{}", found.in_words());
        let failed = Report { failed: vec!["archive/a.dcm: cannot be read".into()], ..found.clone() };
        for news in [Report { taken_in: 1, ..found.clone() }, Report { swept: 1, ..found.clone() }, failed] {
            assert!(news.is_news(), "{}", news.in_words());
        }
    }
}
