//! Retention: files leave the archive when they are old enough, or when the archive is past its budget, oldest study first.
//!
//! Only files go. The rows stay with all their results, and an object that comes again is taken in again. A study keeps its
//! files while it is not decided, while a slice of it waits to be scored, and while a notification of it is pending.

use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::archive::Archive;
use crate::config;
use crate::ledger::{Ledger, LedgerError, MarkedFile, RemovalRule, format_time};
use crate::objects::Objects;

/// Files removed at a time: receiving waits for no more than these.
const BATCH: usize = 64;

/// The longest time between two looks at the archive.
const LONGEST: Duration = Duration::from_secs(60);

/// The stage that removes files.
pub struct Retention {
    ledger: Ledger,
    archive: Archive,
    keep: Option<Duration>,
    budget: Option<u64>,
}

impl Retention {
    /// `None` where everything is kept for ever.
    pub fn new(settings: &config::Archive, ledger: Ledger, archive: Archive) -> Option<Retention> {
        let keep = (settings.retention_days > 0.0).then(|| Duration::from_secs_f64(settings.retention_days * 86_400.0));
        let budget = (settings.max_gib > 0.0).then_some((settings.max_gib * f64::from(1 << 30)) as u64);
        (keep.is_some() || budget.is_some()).then_some(Retention { ledger, archive, keep, budget })
    }

    /// Removes what is due until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let pause = self.keep.map_or(LONGEST, |keep| (keep / 10).clamp(Duration::from_secs(1), LONGEST));
        let mut exceeded = false;
        loop {
            match self.round(&stop).await {
                Ok(past) => {
                    if past > 0 && !exceeded {
                        warn!(
                            mib = past >> 20,
                            "the archive is past archive.max_gib, and no study may lose its files: what is left is undecided, not \
                             delivered, or flagged and not acknowledged"
                        );
                    }
                    exceeded = past > 0;
                }
                Err(error) => error!("files that are due cannot be removed from the archive: {error}"),
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Removes all that is due. Returns the bytes by which the archive stays past its budget.
    pub async fn round(&self, stop: &CancellationToken) -> Result<u64, LedgerError> {
        // A crash may have left removals half done. A file that cannot be removed is tried again in the next round.
        let mut after = 0;
        loop {
            // Asked while no object is between its place and its row: one that came again is no longer marked, and its file stays.
            let _alone = self.archive.removing().await;
            let left = self.blocking(move |ledger| ledger.marked_files(after, BATCH)).await?;
            let Some(last) = left.last() else { break };
            after = last.instance;
            self.remove(left).await?;
        }
        let mut kept = self.blocking(|ledger| ledger.archived_bytes()).await?;
        while !stop.is_cancelled() {
            let past = kept.saturating_sub(self.budget.unwrap_or(u64::MAX));
            let Some((study, rule, before)) = self.due(past > 0).await? else { break };
            let (mut files, mut bytes) = (0, 0);
            loop {
                // Between its place and its row an object's file has no row that speaks for it. Nothing is there now.
                let _alone = self.archive.removing().await;
                let marked = self.ledger.mark_removed(study.clone(), rule, before.clone(), BATCH).await?;
                let size: u64 = marked.iter().map(|file| file.size).sum();
                let last = marked.len() < BATCH;
                files += marked.len();
                bytes += size;
                self.remove(marked).await?;
                // A study that outgrows what is past the budget goes as a whole all the same.
                if last {
                    break;
                }
            }
            if files == 0 {
                // Something came for it just now; the next round looks again.
                break;
            }
            kept = kept.saturating_sub(bytes);
            let why = if rule == RemovalRule::Age { "archive.retention_days" } else { "archive.max_gib" };
            info!(
                study,
                files,
                mib = bytes >> 20,
                "files of a study removed from the archive ({why}); its results stay"
            );
        }
        metrics::gauge!("triaged_archive_bytes").set(kept as f64);
        Ok(kept.saturating_sub(self.budget.unwrap_or(u64::MAX)))
    }

    /// The next study to lose its files, by which rule, and before when it was quiet.
    async fn due(&self, past_budget: bool) -> Result<Option<(String, RemovalRule, String)>, LedgerError> {
        let rules = [
            self.keep.map(|keep| (RemovalRule::Age, Timestamp::now().checked_sub(keep).unwrap_or(Timestamp::MIN))),
            past_budget.then(|| (RemovalRule::Space, Timestamp::now())),
        ];
        for (rule, before) in rules.into_iter().flatten() {
            let before = format_time(before);
            let asked = before.clone();
            if let Some(study) = self.blocking(move |ledger| ledger.oldest_removable(rule, &asked)).await? {
                return Ok(Some((study, rule, before)));
            }
        }
        Ok(None)
    }

    /// Removes files that are marked, and notes those that are no longer there.
    async fn remove(&self, marked: Vec<MarkedFile>) -> Result<(), LedgerError> {
        let archive = self.archive.clone();
        let removed = tokio::task::spawn_blocking(move || {
            let paths: Vec<&str> = marked.iter().map(|file| file.path.as_str()).collect();
            match archive.remove(&paths) {
                Ok(()) => marked.iter().map(|file| file.instance).collect(),
                Err(error) => {
                    error!("files cannot be removed from the archive, and will be tried again: {error}");
                    Vec::new()
                }
            }
        });
        let removed = removed.await.map_err(|_| LedgerError::Closed)?;
        metrics::counter!("triaged_removed_files_total").increment(removed.len() as u64);
        self.ledger.confirm_removed(removed).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Ledger) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let ledger = self.ledger.clone();
        tokio::task::spawn_blocking(move || ask(&ledger)).await.map_err(|_| LedgerError::Closed)?
    }
}
