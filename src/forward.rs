//! Forwarding: what was received goes on to other nodes, so that a scanner can point at this one alone.
//!
//! The bytes go as they came where the peer takes their transfer syntax, else uncompressed. STAT and flagged studies go first.
//! Each instance is a row of the ledger for each destination; it is stored, or waits for its next attempt, or failed with a reason.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::config::{self, ForwardStudies};
use crate::dimse::scu::{self, Object, Peer, Priority, ScuError, StoreError, may_pass};
use crate::ledger::{
    DueForward, ForwardEnd, ForwardRule, ForwardedCopy, Ledger, LedgerError, Result, Studies, format_time,
};
use crate::outgoing;
use crate::plural::counted;

/// Objects on one association. Few, so that an urgent one that comes meanwhile does not wait long, and little is repeated after a crash.
const MOST_AT_ONCE: usize = 64;

/// How often it is looked whether something is due, though nothing rang.
const POLL: Duration = Duration::from_secs(1);

/// How long a stop waits for the association under way.
const GRACE: Duration = Duration::from_secs(10);

/// How often the gauges are counted.
const RECOUNT: Duration = Duration::from_secs(10);

/// Attempts on an instance with which the association was lost, or that the peer refuses for good.
const MOST_LOST: u32 = 5;

/// Why a destination cannot be used as it is configured.
#[derive(Debug, thiserror::Error)]
#[error("configuration: forward, destination {name:?}.{key}: {why}")]
pub struct ForwardError {
    pub name: String,
    pub key: &'static str,
    pub why: String,
}

/// The stage that serves one destination.
pub struct Forwarder {
    ledger: Ledger,
    data_dir: PathBuf,
    peer: Peer,
    rule: ForwardRule,
    max_attempts: u32,
    first: Duration,
    longest: Duration,
}

/// The destinations of the configuration, each with its peer.
///
/// # Errors
/// The first setting that cannot be used.
pub fn destinations(
    settings: &[config::Forward],
    dimse: &config::Dimse,
) -> std::result::Result<Vec<(ForwardRule, Peer)>, ForwardError> {
    let mut destinations: Vec<(ForwardRule, Peer)> = Vec::new();
    for forward in settings {
        let wrong = |key, why: String| ForwardError { name: forward.name.clone(), key, why };
        let name = &forward.name;
        if name.is_empty() || name.len() > 40 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        {
            return Err(wrong("name", "a name is 1 to 40 letters, digits, hyphens, dots and underscores".into()));
        }
        if destinations.iter().any(|(rule, _)| rule.destination == *name) {
            return Err(wrong("name", "two destinations have it".into()));
        }
        let seconds = |value: f64| value > 0.0 && value <= 86_400.0;
        if !seconds(forward.first_retry_seconds) || !seconds(forward.longest_retry_seconds) {
            return Err(wrong("first_retry_seconds", "and longest_retry_seconds are above 0, at most 86400".into()));
        }
        if forward.max_attempts == 0 {
            return Err(wrong("max_attempts", "at least 1".into()));
        }
        let peer = outgoing::peer(&forward.peer, dimse).map_err(|(key, why)| wrong(key, why))?;
        let rule = ForwardRule {
            destination: name.clone(),
            flagged_only: forward.studies == ForwardStudies::Flagged,
            calling_ae_titles: forward.calling_ae_titles.iter().map(|title| title.trim().to_uppercase()).collect(),
        };
        destinations.push((rule, peer));
    }
    Ok(destinations)
}

/// Opens the destinations of the configuration. From now on nothing that comes is missed by them.
///
/// # Errors
/// The ledger cannot be written.
pub async fn open(
    settings: &[config::Forward],
    destinations: Vec<(ForwardRule, Peer)>,
    ledger: &Ledger,
    data_dir: &Path,
) -> Result<Vec<Forwarder>> {
    let names = destinations.iter().map(|(rule, _)| rule.destination.clone()).collect();
    let dropped = ledger.drop_destinations_but(names).await?;
    if dropped > 0 {
        warn!(dropped, "instances waited for destinations that are no longer configured; they are marked as failed");
    }
    let mut forwarders = Vec::new();
    for ((rule, peer), forward) in destinations.into_iter().zip(settings) {
        ledger.enqueue_forwards(rule.clone()).await?;
        info!(destination = rule.destination, peer = peer.address, "forwards what is received");
        forwarders.push(Forwarder {
            ledger: ledger.clone(),
            data_dir: data_dir.into(),
            peer,
            rule,
            max_attempts: forward.max_attempts,
            first: Duration::from_secs_f64(forward.first_retry_seconds),
            longest: Duration::from_secs_f64(forward.longest_retry_seconds),
        });
    }
    Ok(forwarders)
}

impl Forwarder {
    /// Forwards until `stop`. Errors of the ledger are logged and outwaited.
    pub async fn run(self, stop: CancellationToken) {
        // The counts are there before the first instance.
        self.note(&[]);
        // Since when the peer cannot be reached, as attempts in a row.
        let mut failures = 0;
        let mut not_before = Instant::now();
        let mut counted: Option<Instant> = None;
        while !stop.is_cancelled() {
            let rung = self.ledger.changed().notified();
            let mut idle = true;
            match self.ledger.enqueue_forwards(self.rule.clone()).await {
                Ok(more) => idle = !more,
                Err(error) => {
                    error!(destination = self.rule.destination, "cannot see what is to be forwarded: {error}")
                }
            }
            if Instant::now() >= not_before {
                let batch = tokio::select! {
                    batch = self.batch() => batch,
                    // A peer that hangs must not hold the stop; what it took meanwhile goes again at the next start.
                    () = async { stop.cancelled().await; tokio::time::sleep(GRACE).await } => return,
                };
                match batch {
                    Ok(Batch::Empty) => {}
                    Ok(Batch::Sent) => (failures, idle) = (0, false),
                    Ok(Batch::Lost(why)) => {
                        failures += 1;
                        let wait = self.wait(failures);
                        not_before = Instant::now() + wait;
                        warn!(
                            destination = self.rule.destination,
                            failures,
                            next_in = wait.as_secs_f64(),
                            "forwarding is interrupted: {why}"
                        );
                    }
                    Err(error) => error!(destination = self.rule.destination, "cannot forward: {error}"),
                }
            }
            if counted.is_none_or(|at| at.elapsed() >= RECOUNT) {
                self.count().await;
                counted = Some(Instant::now());
            }
            if !idle {
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = rung => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    /// One association with what is due now.
    async fn batch(&self) -> Result<Batch> {
        let (ledger, name) = (self.ledger.clone(), self.rule.destination.clone());
        let longest = self.longest;
        let due = blocking(move || ledger.due_forwards(&name, MOST_AT_ONCE, longest)).await?;
        if due.is_empty() {
            return Ok(Batch::Empty);
        }
        let (gone, due): (Vec<DueForward>, Vec<DueForward>) = due.into_iter().partition(|row| row.path.is_none());
        let mut ends: Vec<(ForwardedCopy, ForwardEnd)> = gone
            .iter()
            .map(|row| (row.copy.clone(), ForwardEnd::Failed { error: "its file has left the archive".into() }))
            .collect();
        let mut lost = None;
        if !due.is_empty() {
            let objects: Vec<Object> = due.iter().map(|row| self.object(row)).collect();
            let peer = self.peer.clone();
            let sent = tokio::task::spawn_blocking(move || {
                let mut results = Vec::new();
                let ended = scu::store(&peer, &objects, Priority::Medium, &mut |_, result| results.push(result));
                (results, ended)
            });
            let Ok((results, ended)) = sent.await else {
                // A panic is a bug; the first of the batch is not tried in a tight loop.
                let at = self.later(1);
                ends.push((
                    due[0].copy.clone(),
                    ForwardEnd::Retry { at, error: "sending panicked; this is a bug".into() },
                ));
                self.ledger.settle_forwards(ends).await?;
                return Ok(Batch::Lost("sending panicked; this is a bug".into()));
            };
            let answered = results.len();
            ends.extend(due.iter().zip(results).map(|(row, result)| (row.copy.clone(), self.end(row, result))));
            if let Err(error @ ScuError::NothingAccepted { .. }) = &ended {
                // The peer has answered for all of them: it takes none, or its storage service is not up yet.
                let most = self.max_attempts;
                ends.extend(due.iter().map(|row| (row.copy.clone(), self.again(row, most, error.to_string()))));
                lost = Some(error.to_string());
            } else if let Err(error) = ended {
                // The instance under way may be what the peer cannot bear: others go before it next time.
                let under_way = due.get(answered).filter(|_| was_established(&error));
                if let Some(row) = under_way {
                    ends.push((row.copy.clone(), self.lost(row, &error)));
                }
                let waiting = &due[(answered + usize::from(under_way.is_some())).min(due.len())..];
                let waits = || ForwardEnd::Waits { error: error.to_string() };
                ends.extend(waiting.iter().map(|row| (row.copy.clone(), waits())));
                lost = Some(error.to_string());
            }
        }
        self.note(&ends);
        self.ledger.settle_forwards(ends).await?;
        Ok(lost.map_or(Batch::Sent, Batch::Lost))
    }

    fn object(&self, row: &DueForward) -> Object {
        Object {
            path: row.path.as_ref().map(|path| self.data_dir.join(path)).unwrap_or_default(),
            bytes: None,
            sop_class_uid: row.sop_class_uid.clone(),
            sop_instance_uid: row.sop_uid.clone(),
            transfer_syntax: row.transfer_syntax.clone(),
        }
    }

    /// How an instance that was answered ended.
    fn end(&self, row: &DueForward, result: std::result::Result<scu::Stored, StoreError>) -> ForwardEnd {
        match result {
            Ok(stored) => ForwardEnd::Stored { transfer_syntax: stored.transfer_syntax },
            // It is there: sent twice after a crash, or by somebody else.
            Err(StoreError::Refused { status: 0x0111, .. }) => {
                ForwardEnd::Stored { transfer_syntax: row.transfer_syntax.clone() }
            }
            Err(error) => {
                let most = if may_pass(&error) { self.max_attempts } else { MOST_LOST.min(self.max_attempts) };
                self.again(row, most, error.to_string())
            }
        }
    }

    fn lost(&self, row: &DueForward, error: &ScuError) -> ForwardEnd {
        self.again(row, self.max_attempts, format!("the association was lost with it: {error}"))
    }

    fn again(&self, row: &DueForward, most: u32, error: String) -> ForwardEnd {
        let attempts = row.attempts.saturating_add(1);
        if attempts >= most {
            return ForwardEnd::Failed {
                error: format!("given up after {}: {error}", counted(attempts.into(), "attempt")),
            };
        }
        ForwardEnd::Retry { at: self.later(attempts), error }
    }

    /// `first` doubled with each attempt, at most `longest`.
    fn wait(&self, attempts: u32) -> Duration {
        self.first.saturating_mul(2u32.saturating_pow(attempts.saturating_sub(1))).min(self.longest)
    }

    fn later(&self, attempts: u32) -> String {
        let wait = self.wait(attempts).mul_f64(rand::random_range(0.5..=1.0));
        format_time(Timestamp::now().checked_add(wait).unwrap_or(Timestamp::MAX))
    }

    /// Counts and logs how instances ended. What a peer says may repeat patient data, so it stays in the ledger.
    fn note(&self, ends: &[(ForwardedCopy, ForwardEnd)]) {
        let mut counts = [0u64; 3];
        for (_, end) in ends {
            match end {
                ForwardEnd::Stored { .. } => counts[0] += 1,
                ForwardEnd::Retry { .. } => counts[1] += 1,
                ForwardEnd::Failed { .. } => counts[2] += 1,
                ForwardEnd::Waits { .. } => {}
            }
        }
        for (outcome, count) in ["stored", "retry", "failed"].into_iter().zip(counts) {
            let destination = self.rule.destination.clone();
            metrics::counter!("triaged_forwards_total", "destination" => destination, "outcome" => outcome)
                .increment(count);
        }
        if counts[1] + counts[2] > 0 {
            warn!(
                destination = self.rule.destination,
                stored = counts[0],
                again = counts[1],
                failed = counts[2],
                "instances were not taken; the view forward_log says why"
            );
        }
    }

    async fn count(&self) {
        let (ledger, name) = (self.ledger.clone(), self.rule.destination.clone());
        match blocking(move || ledger.forward_counts(&name)).await {
            Ok((pending, failed)) => {
                let name = self.rule.destination.clone();
                metrics::gauge!("triaged_forwards_pending", "destination" => name.clone()).set(pending as f64);
                metrics::gauge!("triaged_forwards_failed", "destination" => name).set(failed as f64);
            }
            Err(error) => error!(destination = self.rule.destination, "cannot count what is forwarded: {error}"),
        }
    }
}

enum Batch {
    Empty,
    /// Each was answered.
    Sent,
    /// There is no association, or none any more.
    Lost(String),
}

/// Whether the peer had accepted the association, so that what was under way may be the reason for its end.
fn was_established(error: &ScuError) -> bool {
    !matches!(error, ScuError::Connect { .. } | ScuError::Rejected { .. })
}

async fn blocking<T: Send + 'static>(read: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(read).await.map_err(|_| LedgerError::Closed)?
}
