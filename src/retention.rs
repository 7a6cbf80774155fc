//! Retention: files leave the archive when they are old enough, or when the archive is past its budget, oldest study first.
//!
//! Only files go. The rows stay with all their results, and an object that comes again is taken in again. A study keeps its
//! files while it is not decided, while a slice of it waits to be scored, and while a notification of it is pending. Objects that were set aside
//! (quarantine) go by the same rules, and before others where space is made. While the clock is in doubt, nothing goes by its age.

mod clock;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use clock::{Belief, Clock};

use crate::archive::Archive;
use crate::config;
use crate::ledger::{FileOwner, Ledger, LedgerError, MarkedFile, RemovalRule, format_time};
use crate::objects::Objects;

/// Files removed at a time: receiving waits for no more than these.
const BATCH: usize = 64;

/// The file of the data folder that says since when the clock is in doubt.
const DOUBTED: &str = "clock.doubted";
/// The longest time between two looks at the archive.
const LONGEST: Duration = Duration::from_secs(60);

/// The stage that removes files.
pub struct Retention {
    ledger: Ledger,
    archive: Archive,
    keep: Option<Duration>,
    budget: Option<u64>,
    clock: Mutex<Clock>,
}

impl Retention {
    /// `None` where everything is kept for ever.
    ///
    /// `before`: when the node noted last how it does, which it does each minute.
    pub fn new(
        settings: &config::Archive,
        ledger: Ledger,
        archive: Archive,
        before: Option<Timestamp>,
    ) -> Option<Retention> {
        let keep = (settings.retention_days > 0.0).then(|| Duration::from_secs_f64(settings.retention_days * 86_400.0));
        let budget = (settings.max_gib > 0.0).then_some((settings.max_gib * f64::from(1 << 30)) as u64);
        // What was noted since the clock is in doubt was noted by that clock.
        let doubted = std::fs::read_to_string(archive.file(DOUBTED)).ok().and_then(|base| base.trim().parse().ok());
        let clock = Clock::new(Instant::now(), Timestamp::now(), doubted.or(before), doubted.is_some());
        let doubted = clock.doubted();
        if let Some(before) = doubted.filter(|_| keep.is_some()) {
            warn!(
                "no file is removed for its age for a day: the node ran last at {before}, by a clock that may have been another"
            );
        }
        let retention = Retention { ledger, archive, keep, budget, clock: clock.into() };
        let is_wanted = keep.is_some() || budget.is_some();
        if is_wanted {
            retention.note(doubted);
        }
        is_wanted.then_some(retention)
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
        let mut after = [0, 0];
        loop {
            // Asked while no object is between its place and its row: one that came again is no longer marked, and its file stays.
            let _alone = self.archive.removing().await;
            let left = self.blocking(move |ledger| ledger.marked_files(after, BATCH)).await?;
            if left.is_empty() {
                break;
            }
            for file in &left {
                match file.row {
                    FileOwner::Instance(id) => after[0] = id,
                    FileOwner::SetAside(id) => after[1] = id,
                }
            }
            self.remove(left).await?;
        }
        let mut kept = self.blocking(|ledger| ledger.archived_bytes()).await?;
        kept = kept.saturating_sub(self.remove_set_aside(kept, stop).await?);
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
            info!(
                study,
                files,
                mib = bytes >> 20,
                "files of a study removed from the archive ({}); its results stay",
                setting(rule)
            );
        }
        metrics::gauge!("triaged_archive_bytes").set(kept as f64);
        Ok(kept.saturating_sub(self.budget.unwrap_or(u64::MAX)))
    }

    /// Removes objects that were set aside and are due; `kept` are the bytes of the archive. Returns the bytes that went.
    async fn remove_set_aside(&self, kept: u64, stop: &CancellationToken) -> Result<u64, LedgerError> {
        let mut removed = 0;
        for (rule, before) in self.rules(true) {
            let (mut files, mut bytes) = (0, 0);
            loop {
                let past = kept.saturating_sub(removed + bytes).saturating_sub(self.budget.unwrap_or(u64::MAX));
                let enough = if rule == RemovalRule::Age { u64::MAX } else { past };
                if enough == 0 || stop.is_cancelled() {
                    break;
                }
                let _alone = self.archive.removing().await;
                let marked = self.ledger.mark_set_aside_removed(rule, before.clone(), enough, BATCH).await?;
                let last = marked.is_empty();
                files += marked.len();
                bytes += marked.iter().map(|file| file.size).sum::<u64>();
                self.remove(marked).await?;
                if last {
                    break;
                }
            }
            removed += bytes;
            if files > 0 {
                info!(
                    files,
                    mib = bytes >> 20,
                    "files that were set aside removed ({}); their rows stay",
                    setting(rule)
                );
            }
        }
        Ok(removed)
    }

    /// The rules in force, each with the moment before which it takes files.
    fn rules(&self, past_budget: bool) -> impl Iterator<Item = (RemovalRule, String)> + use<> {
        let rules = [
            self.keep
                .filter(|_| self.is_sure())
                .map(|keep| (RemovalRule::Age, Timestamp::now().checked_sub(keep).unwrap_or(Timestamp::MIN))),
            past_budget.then(|| (RemovalRule::Space, Timestamp::now())),
        ];
        rules.into_iter().flatten().map(|(rule, before)| (rule, format_time(before)))
    }

    /// Whether the clock is believed.
    fn is_sure(&self) -> bool {
        let mut clock = self.clock.lock().expect("nobody panics while looking at the clock");
        let before = clock.doubted();
        let belief = clock.look(Instant::now(), Timestamp::now());
        let doubted = clock.doubted();
        drop(clock);
        if doubted != before {
            self.note(doubted);
        }
        if let Belief::DoubtedFirst(ahead) = &belief {
            error!(
                "the system clock has jumped ahead by {} hours: no file is removed for its age until it is right again, or for a day \
                 (archive.retention_days)",
                ahead.as_hours()
            );
        }
        belief == Belief::Sure
    }

    /// Notes since when the clock is in doubt, so that a node that is started again does not believe it at once.
    fn note(&self, doubted: Option<Timestamp>) {
        let file = self.archive.file(DOUBTED);
        let noted = match doubted {
            Some(base) => std::fs::write(&file, format!("{base}\n")),
            None => std::fs::remove_file(&file).or_else(|error| match error.kind() {
                std::io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            }),
        };
        if let Err(error) = noted {
            warn!("{} cannot be written: {error}", file.display());
        }
    }

    /// The next study to lose its files, by which rule, and before when it was quiet.
    async fn due(&self, past_budget: bool) -> Result<Option<(String, RemovalRule, String)>, LedgerError> {
        for (rule, before) in self.rules(past_budget) {
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
                Ok(()) => marked.iter().map(|file| file.row).collect(),
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

/// The setting by which a rule is in force.
fn setting(rule: RemovalRule) -> &'static str {
    match rule {
        RemovalRule::Age => "archive.retention_days",
        RemovalRule::Space => "archive.max_gib",
    }
}
