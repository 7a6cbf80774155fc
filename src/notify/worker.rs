//! The worker of a channel: takes what is due from the outbox, a few at a time, and writes how each attempt ended.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::{AlertEvent, Channel, Failure, Outcome};
use crate::config;
use crate::ledger::{Delivery, Ledger, OutboxRow, Result, format_time};

/// Deliveries at one time: enough that one slow answer holds no other alert up, few enough to be polite.
const MOST_IN_FLIGHT: usize = 4;

/// The longest sleep between looks at the outbox. Another process (`triaged requeue`) can make a message due without
/// ringing here.
const POLL: Duration = Duration::from_secs(1);

/// How often the gauges are counted when nothing happens.
const RECOUNT: Duration = Duration::from_secs(10);

/// How often an outcome that could not be written is tried again, at most once a [`POLL`].
const SETTLE_ATTEMPTS: u32 = 30;

/// Delivers the messages of one channel.
pub struct Worker {
    ledger: Ledger,
    channel: Arc<dyn Channel>,
    retry: Retry,
}

/// When to try again: exponential backoff with full jitter.
#[derive(Debug, Clone, Copy)]
struct Retry {
    first: Duration,
    longest: Duration,
    max_attempts: u32,
}

impl Worker {
    pub fn new(ledger: Ledger, channel: Box<dyn Channel>, settings: &config::Notify) -> Worker {
        let retry = Retry {
            first: Duration::from_secs_f64(settings.first_retry_seconds),
            longest: Duration::from_secs_f64(settings.longest_retry_seconds),
            max_attempts: settings.max_attempts,
        };
        Worker { ledger, channel: channel.into(), retry }
    }

    /// Delivers until `stop`, then finishes what is in flight. Errors of the ledger are logged and outwaited.
    pub async fn run(self, stop: CancellationToken) {
        let mut flights: JoinSet<()> = JoinSet::new();
        // A row stays pending in the ledger while it is in flight, so the worker remembers what it holds.
        let mut held: HashMap<Id, OutboxRow> = HashMap::new();
        let mut counted: Option<Instant> = None;
        let posted = self.ledger.clone();
        while !stop.is_cancelled() {
            // Made before the look, so that what is posted right after the look still rings.
            let rung = posted.posted().notified();
            let mut sleep = POLL;
            if held.len() < MOST_IN_FLIGHT {
                match self.due(held.values().map(|row| row.id).collect()).await {
                    Ok((rows, next)) => {
                        for row in rows.into_iter().take(MOST_IN_FLIGHT - held.len()) {
                            let flight = flights.spawn(self.clone_for_flight().fly(row.clone(), stop.clone()));
                            held.insert(flight.id(), row);
                        }
                        if held.is_empty() {
                            sleep = next.unwrap_or(POLL).min(POLL);
                        }
                    }
                    Err(error) => tracing::error!(channel = self.channel.name(), %error, "cannot read the outbox"),
                }
            }
            if counted.is_none_or(|at| at.elapsed() >= RECOUNT) {
                self.count().await;
                counted = Some(Instant::now());
            }
            tokio::select! {
                () = stop.cancelled() => {}
                Some(landed) = flights.join_next_with_id(), if !flights.is_empty() => {
                    self.landed(landed, &mut held).await;
                    counted = None;
                }
                () = rung => counted = None,
                () = tokio::time::sleep(sleep) => {}
            }
        }
        while let Some(landed) = flights.join_next_with_id().await {
            self.landed(landed, &mut held).await;
        }
    }

    /// The rows to deliver that are not `held`, oldest first, and how long until the next one is due.
    async fn due(&self, held: Vec<i64>) -> Result<(Vec<OutboxRow>, Option<Duration>)> {
        let (ledger, channel, longest) = (self.ledger.clone(), self.channel.name().to_owned(), self.retry.longest);
        blocking(move || {
            let mut rows = ledger.due(&channel, held.len() + MOST_IN_FLIGHT, longest)?;
            rows.retain(|row| !held.contains(&row.id));
            let next = if rows.is_empty() { ledger.next_due(&channel)? } else { None };
            let next = next.and_then(|at| at.parse::<Timestamp>().ok()).map(|at| {
                // A millisecond more, for the ledger's times are cut to milliseconds.
                Duration::try_from(Timestamp::now().duration_until(at)).unwrap_or_default() + Duration::from_millis(1)
            });
            Ok((rows, next))
        })
        .await
    }

    async fn count(&self) {
        let (ledger, channel) = (self.ledger.clone(), self.channel.name().to_owned());
        match blocking(move || ledger.outbox_counts(&channel)).await {
            Ok((pending, dead)) => {
                let channel = self.channel.name().to_owned();
                metrics::gauge!("triaged_notifications_pending", "channel" => channel.clone()).set(pending as f64);
                metrics::gauge!("triaged_notifications_dead", "channel" => channel).set(dead as f64);
            }
            Err(error) => tracing::error!(channel = self.channel.name(), %error, "cannot count the outbox"),
        }
    }

    /// Takes a landed delivery off the list. One that panicked is a bug, but it must not be tried in a tight loop.
    async fn landed(&self, landed: Result<(Id, ()), JoinError>, held: &mut HashMap<Id, OutboxRow>) {
        match landed {
            Ok((id, ())) => {
                held.remove(&id);
            }
            Err(error) => {
                let Some(row) = held.remove(&error.id()) else { return };
                let outcome = Outcome::Retry { error: "the channel panicked; this is a bug".into(), after: None };
                let settled = self.ledger.settle(row.id, self.retry.delivery(&row, &outcome)).await;
                tracing::error!(channel = self.channel.name(), notification = row.id, ?settled, "a delivery panicked");
            }
        }
    }

    fn clone_for_flight(&self) -> Worker {
        Worker { ledger: self.ledger.clone(), channel: self.channel.clone(), retry: self.retry }
    }

    /// One attempt on one row, and its record in the ledger.
    async fn fly(self, row: OutboxRow, stop: CancellationToken) {
        let channel = self.channel.name().to_owned();
        let started = Instant::now();
        let outcome = self.channel.deliver(&row).await;
        metrics::histogram!("triaged_notification_seconds", "channel" => channel.clone())
            .record(started.elapsed().as_secs_f64());
        let delivery = self.retry.delivery(&row, &outcome);
        report(&channel, &row, &outcome, &delivery);
        // While the outcome is not written the row is still held, so it is not sent again meanwhile.
        for _ in 0..SETTLE_ATTEMPTS {
            match self.ledger.settle(row.id, delivery.clone()).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::error!(channel, notification = row.id, %error, "cannot write how a notification went");
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }
}

/// Counts and logs an attempt. What the counterpart said stays out of the log: it may repeat patient data.
fn report(channel: &str, row: &OutboxRow, outcome: &Outcome, delivery: &Delivery) {
    let (notification, study_uid, attempt) = (row.id, &row.study_uid, row.attempts + 1);
    let why = match outcome {
        Outcome::Delivered => "",
        Outcome::Retry { error, .. } | Outcome::Reject { error } => &error.text,
    };
    let word = match delivery {
        Delivery::Delivered => {
            tracing::info!(channel, notification, study_uid, attempt, "notification delivered");
            record_latency(channel, &row.event);
            "delivered"
        }
        Delivery::Retry { at, .. } => {
            tracing::warn!(channel, notification, study_uid, attempt, next = at, why, "notification to be tried again");
            "retry"
        }
        Delivery::Dead { .. } => {
            tracing::error!(
                channel,
                notification,
                study_uid,
                attempt,
                why,
                "notification given up: `triaged requeue` sends it again once the cause is mended"
            );
            "dead"
        }
    };
    metrics::counter!("triaged_notifications_total", "channel" => channel.to_owned(), "outcome" => word).increment(1);
}

fn record_latency(channel: &str, event: &str) {
    let last = AlertEvent::from_json(event).ok().and_then(|event| event.last_received_at.parse::<Timestamp>().ok());
    if let Some(last) = last {
        let seconds = Timestamp::now().duration_since(last).as_secs_f64().max(0.0);
        metrics::histogram!("triaged_last_slice_to_notification_seconds", "channel" => channel.to_owned())
            .record(seconds);
    }
}

impl Retry {
    /// What the ledger is told of an attempt.
    fn delivery(&self, row: &OutboxRow, outcome: &Outcome) -> Delivery {
        let attempts = row.attempts.saturating_add(1);
        match outcome {
            Outcome::Delivered => Delivery::Delivered,
            Outcome::Reject { error } => Delivery::Dead { error: in_full(error) },
            Outcome::Retry { error, .. } if attempts >= self.max_attempts => {
                Delivery::Dead { error: format!("given up after {attempts} attempts: {}", in_full(error)) }
            }
            Outcome::Retry { error, after } => {
                let wait = self.wait(row.attempts, *after, rand::random_range(0.0..=1.0));
                let at = Timestamp::now().checked_add(wait).unwrap_or(Timestamp::MAX);
                Delivery::Retry { at: format_time(at), error: in_full(error) }
            }
        }
    }

    /// `first` doubled for each attempt made before, at most `longest`, times `luck` (0 to 1): waits that are spread
    /// out do not all hit a receiver at the moment it comes back. What the counterpart asks for (Retry-After) is
    /// honoured up to `longest`, so that it cannot silence an alarm for longer than the settings allow.
    fn wait(&self, before: u32, asked: Option<Duration>, luck: f64) -> Duration {
        let most = self.first.saturating_mul(2u32.saturating_pow(before)).min(self.longest);
        most.mul_f64(luck).max(asked.unwrap_or_default().min(self.longest))
    }
}

fn in_full(error: &Failure) -> String {
    match &error.reply {
        Some(reply) => format!("{}: {reply}", error.text),
        None => error.text.clone(),
    }
}

async fn blocking<T: Send + 'static>(read: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(read).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Retry = Retry { first: Duration::from_secs(2), longest: Duration::from_secs(300), max_attempts: 30 };

    #[test]
    fn waits_double_up_to_the_longest_and_are_spread_over_their_whole_range() {
        let most: Vec<u64> = [0, 1, 2, 6, 7, 8, 29, u32::MAX].map(|n| RETRY.wait(n, None, 1.0).as_secs()).into();
        assert_eq!(most, [2, 4, 8, 128, 256, 300, 300, 300]);
        assert_eq!(RETRY.wait(3, None, 0.0), Duration::ZERO);
        assert_eq!(RETRY.wait(3, None, 0.5), Duration::from_secs(8));
    }

    #[test]
    fn the_counterparts_wish_is_honoured_up_to_the_longest_wait() {
        assert_eq!(RETRY.wait(0, Some(Duration::from_secs(60)), 0.5), Duration::from_secs(60));
        assert_eq!(RETRY.wait(0, Some(Duration::from_secs(86_400)), 0.5), Duration::from_secs(300));
        assert_eq!(RETRY.wait(9, Some(Duration::from_secs(1)), 1.0), Duration::from_secs(300));
    }

    #[test]
    fn the_last_attempt_that_fails_is_the_end() {
        let row = |attempts| OutboxRow {
            id: 1,
            study_uid: "1.2".into(),
            revision: 1,
            kind: "alert".into(),
            idempotency_key: "k".into(),
            event: "{}".into(),
            attempts,
            created_at: String::new(),
        };
        let outcome = Outcome::Retry { error: Failure { text: "503".into(), reply: Some("busy".into()) }, after: None };
        assert!(matches!(RETRY.delivery(&row(28), &outcome), Delivery::Retry { .. }));
        let Delivery::Dead { error } = RETRY.delivery(&row(29), &outcome) else { panic!("30 attempts are the limit") };
        assert_eq!(error, "given up after 30 attempts: 503: busy");
    }
}
