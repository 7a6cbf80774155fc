//! The worker of a channel: takes what is due from the outbox, a few at a time, and writes how each attempt ended.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::retry::Retry;
use super::schedule::QuietHours;
use super::{Channel, Links, Message, Outcome};
use crate::config::{self, ChannelKind};
use crate::ledger::{Delivery, Outbox, OutboxRow, Result};

/// Deliveries at one time: enough that one slow answer holds no other alert up, few enough to be polite.
const MOST_IN_FLIGHT: usize = 4;

/// Of these, what nobody hurries for has no more than this, so that an alert begins at once beside a channel's slow answers; and one while
/// it waits, so that a stream of alerts does not keep it waiting for ever.
const MOST_OTHERS: usize = MOST_IN_FLIGHT - 1;

/// The longest sleep between looks at the outbox. Another process (`triaged requeue`) can make a message due without
/// ringing here.
const POLL: Duration = Duration::from_secs(1);

/// How often the gauges are counted when nothing happens.
const RECOUNT: Duration = Duration::from_secs(10);

/// How often an outcome that could not be written is tried again, at most once a [`POLL`].
const SETTLE_ATTEMPTS: u32 = 30;

/// Delivers the messages of one channel.
pub struct Worker {
    outbox: Arc<dyn Outbox>,
    channel: Arc<dyn Channel>,
    retry: Retry,
    quiet: QuietHours,
    links: Arc<Links>,
    /// It keeps documents: each verdict's, whatever was found or done later.
    keeps_documents: bool,
}

impl Worker {
    /// `settings` are those that the channel was opened with.
    pub fn new(
        outbox: Arc<dyn Outbox>,
        channel: Box<dyn Channel>,
        settings: &config::Notify,
        links: Arc<Links>,
    ) -> Worker {
        begin_counting(channel.name());
        let retry = Retry::new(settings);
        let own = settings.all_channels().into_iter().find(|own| own.name == channel.name());
        let keeps_documents = own.as_ref().is_some_and(|own| matches!(own.kind, ChannelKind::Pacs(_)));
        let quiet_hours = own.map(|own| own.quiet_hours).unwrap_or_default();
        let quiet = QuietHours::parse(&quiet_hours, &settings.time_zone);
        let quiet = quiet.expect("a channel with other quiet hours is not opened");
        Worker { outbox, channel: channel.into(), retry, quiet, links, keeps_documents }
    }

    /// Delivers until `stop`, then finishes what is in flight. Errors of the ledger are logged and outwaited.
    pub async fn run(self, stop: CancellationToken) {
        let mut flights: JoinSet<()> = JoinSet::new();
        // A row stays pending in the ledger while it is in flight, so the worker remembers what it holds.
        let mut held: HashMap<Id, OutboxRow> = HashMap::new();
        let mut counted: Option<Instant> = None;
        let posted = self.outbox.clone();
        while !stop.is_cancelled() {
            // Made before the look, so that what is posted right after the look still rings.
            let rung = posted.posted().notified();
            let mut sleep = POLL;
            if held.len() < MOST_IN_FLIGHT && !self.quiet.hold(Timestamp::now()) {
                match self.due(held.values().map(|row| row.id).collect()).await {
                    Ok((rows, next)) => {
                        let others = held.values().filter(|row| !row.is_alert).count();
                        for row in next_in_turn(rows, MOST_IN_FLIGHT - held.len(), others) {
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

    /// The rows to deliver that are not `held`, of alerts and of others pending ones before dead ones, oldest first, and how long until the
    /// next pending one is due.
    async fn due(&self, held: Vec<i64>) -> Result<(Vec<OutboxRow>, Option<Duration>)> {
        let (outbox, channel, retry) = (self.outbox.clone(), self.channel.name().to_owned(), self.retry);
        let revival = retry.revival(self.keeps_documents);
        blocking(move || {
            let mut rows = outbox.due(&channel, held.len() + MOST_IN_FLIGHT, retry.longest)?;
            rows.extend(outbox.due_dead(&channel, held.len() + MOST_IN_FLIGHT, revival)?);
            rows.retain(|row| !held.contains(&row.id));
            let next = if rows.is_empty() { outbox.next_due(&channel)? } else { None };
            let next = next.and_then(|at| at.parse::<Timestamp>().ok()).map(|at| {
                // A millisecond more, for the ledger's times are cut to milliseconds.
                Duration::try_from(Timestamp::now().duration_until(at)).unwrap_or_default() + Duration::from_millis(1)
            });
            Ok((rows, next))
        })
        .await
    }

    async fn count(&self) {
        let (outbox, channel) = (self.outbox.clone(), self.channel.name().to_owned());
        match blocking(move || outbox.counts(&channel)).await {
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
                let settled = self.outbox.settle(row.id, self.retry.delivery(&row, &outcome)).await;
                tracing::error!(channel = self.channel.name(), notification = row.id, ?settled, "a delivery panicked");
            }
        }
    }

    fn clone_for_flight(&self) -> Worker {
        Worker {
            outbox: self.outbox.clone(),
            channel: self.channel.clone(),
            retry: self.retry,
            quiet: self.quiet.clone(),
            links: self.links.clone(),
            keeps_documents: self.keeps_documents,
        }
    }

    /// One attempt on one row, and its record in the ledger.
    async fn fly(self, row: OutboxRow, stop: CancellationToken) {
        let channel = self.channel.name().to_owned();
        let started = Instant::now();
        let message = Message::read(&row, &channel, &self.links);
        if message.as_ref().is_ok_and(|message| message.event.says_not_flagged()) && self.is_outdated(row.id).await {
            let why = "not sent: the study was judged again since, and this is not true any more";
            tracing::info!(channel, notification = row.id, study_uid = row.study_uid, "{why}");
            self.settle(row.id, Delivery::Withdrawn { why: why.into() }, &stop).await;
            return;
        }
        let outcome = match &message {
            Ok(message) => self.channel.deliver(message).await,
            Err(error) => Outcome::Reject { error: error.as_str().into() },
        };
        metrics::histogram!("triaged_notification_seconds", "channel" => channel.clone())
            .record(started.elapsed().as_secs_f64());
        let delivery = self.retry.delivery(&row, &outcome);
        report(&channel, &row, &outcome, &delivery);
        if let (Outcome::Delivered | Outcome::DeliveredExcept { .. }, Ok(message)) = (&outcome, &message) {
            record_latency(&channel, message);
        }
        let works = matches!(outcome, Outcome::Delivered | Outcome::DeliveredExcept { .. });
        if self.settle(row.id, delivery, &stop).await && works {
            self.revive().await;
        }
    }

    /// Writes how a row ended; says whether that could be written. While it is not written the row is still held, so it is not sent again
    /// meanwhile.
    async fn settle(&self, id: i64, delivery: Delivery, stop: &CancellationToken) -> bool {
        for _ in 0..SETTLE_ATTEMPTS {
            match self.outbox.settle(id, delivery.clone()).await {
                Ok(()) => return true,
                Err(error) => {
                    let channel = self.channel.name();
                    tracing::error!(channel, notification = id, %error, "cannot write how a notification went");
                }
            }
            tokio::select! {
                () = stop.cancelled() => return false,
                () = tokio::time::sleep(POLL) => {}
            }
        }
        false
    }

    /// Whether a message that says a study is not flagged is not true any more. A document of that verdict is kept all the same.
    async fn is_outdated(&self, id: i64) -> bool {
        let outbox = self.outbox.clone();
        !self.keeps_documents && blocking(move || outbox.is_outdated(id)).await.unwrap_or(false)
    }

    /// The channel works: what it could not deliver before is tried again now.
    async fn revive(&self) {
        let (outbox, channel) = (self.outbox.clone(), self.channel.name().to_owned());
        // The write, a commit with its sync, is only for the rare case that there is something dead.
        let revived = match blocking(move || outbox.counts(&channel)).await {
            Ok((_, 0)) => return,
            Ok(_) => {
                let (pause, oldest) = (self.retry.revival_pause(), self.retry.dead_oldest);
                self.outbox.revive_dead(self.channel.name().to_owned(), pause, oldest).await
            }
            Err(error) => Err(error),
        };
        match revived {
            Ok(0) => {}
            Ok(revived) => {
                tracing::info!(
                    channel = self.channel.name(),
                    revived,
                    "the channel works again; dead notifications are tried again"
                );
            }
            Err(error) => tracing::error!(channel = self.channel.name(), %error, "cannot look for dead notifications"),
        }
    }
}

/// Which of the rows that are due are delivered now, while so many `others` are in flight: alerts first, within [`MOST_OTHERS`].
fn next_in_turn(due: Vec<OutboxRow>, free: usize, others: usize) -> Vec<OutboxRow> {
    let (alerts, waiting): (Vec<OutboxRow>, Vec<OutboxRow>) = due.into_iter().partition(|row| row.is_alert);
    let mut waiting = waiting.into_iter().take(MOST_OTHERS.saturating_sub(others));
    let one = if others == 0 { waiting.next() } else { None };
    let alerts: Vec<OutboxRow> = alerts.into_iter().take(free - usize::from(one.is_some())).collect();
    alerts.into_iter().chain(one).chain(waiting).take(free).collect()
}

/// How attempts end, in the metric.
const OUTCOMES: [&str; 5] = ["delivered", "partly", "withdrawn", "retry", "dead"];

/// Makes the counts of a channel be there before its first message.
fn begin_counting(channel: &str) {
    for outcome in OUTCOMES {
        let _ = metrics::counter!("triaged_notifications_total", "channel" => channel.to_owned(), "outcome" => outcome);
    }
    let _ = metrics::histogram!("triaged_notification_seconds", "channel" => channel.to_owned());
    let _ = metrics::histogram!("triaged_last_slice_to_notification_seconds", "channel" => channel.to_owned());
}

/// Counts and logs an attempt. What the counterpart said stays out of the log: it may repeat patient data.
fn report(channel: &str, row: &OutboxRow, outcome: &Outcome, delivery: &Delivery) {
    let (notification, study_uid, attempt) = (row.id, row.study_uid.as_deref(), row.attempts + 1);
    let why = match outcome {
        Outcome::Delivered => "",
        Outcome::DeliveredExcept { error } | Outcome::Retry { error, .. } | Outcome::Reject { error } => &error.text,
    };
    let word = match delivery {
        Delivery::Delivered => {
            tracing::info!(channel, notification, study_uid, attempt, "notification delivered");
            "delivered"
        }
        Delivery::DeliveredExcept { .. } => {
            tracing::error!(
                channel,
                notification,
                study_uid,
                attempt,
                why,
                "notification delivered, but not to every recipient: `triaged check` and notification_log say to whom not"
            );
            "partly"
        }
        Delivery::Withdrawn { .. } => "withdrawn",
        Delivery::Retry { at, .. } => {
            tracing::warn!(channel, notification, study_uid, attempt, next = at, why, "notification to be tried again");
            "retry"
        }
        Delivery::Dead { at, .. } if row.dead => {
            tracing::warn!(
                channel,
                notification,
                study_uid,
                attempt,
                next = at,
                why,
                "a dead notification failed again"
            );
            "dead"
        }
        Delivery::Dead { at, .. } => {
            tracing::error!(
                channel,
                notification,
                study_uid,
                attempt,
                next = at,
                why,
                "notification given up: it is tried again slowly, and `triaged requeue` sends it at once"
            );
            "dead"
        }
    };
    metrics::counter!("triaged_notifications_total", "channel" => channel.to_owned(), "outcome" => word).increment(1);
}

fn record_latency(channel: &str, message: &Message) {
    let last = message.event.verdict().and_then(|study| study.last_received_at.parse::<Timestamp>().ok());
    if let (Some(last), 0) = (last, message.step) {
        let seconds = Timestamp::now().duration_since(last).as_secs_f64().max(0.0);
        metrics::histogram!("triaged_last_slice_to_notification_seconds", "channel" => channel.to_owned())
            .record(seconds);
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

    fn rows(alerts: i64, others: i64) -> Vec<OutboxRow> {
        let row = |id: i64| OutboxRow {
            id,
            study_uid: None,
            idempotency_key: String::new(),
            event: String::new(),
            step: 0,
            attempts: 0,
            created_at: String::new(),
            dead: false,
            is_alert: id < 100,
        };
        (0..alerts).chain(100..100 + others).map(row).collect()
    }

    fn ids(rows: Vec<OutboxRow>) -> Vec<i64> {
        rows.into_iter().map(|row| row.id).collect()
    }

    #[test]
    fn alerts_go_first_and_others_keep_one_place_while_they_wait() {
        assert_eq!(ids(next_in_turn(rows(9, 9), 4, 0)), [0, 1, 2, 100]);
        assert_eq!(ids(next_in_turn(rows(9, 9), 1, 0)), [100], "three alerts are in flight");
        assert_eq!(ids(next_in_turn(rows(9, 9), 3, 1)), [0, 1, 2]);
        assert_eq!(ids(next_in_turn(rows(9, 0), 4, 0)), [0, 1, 2, 3]);
    }

    #[test]
    fn a_place_is_free_for_an_alert_however_many_others_wait() {
        assert_eq!(ids(next_in_turn(rows(0, 9), 4, 0)), [100, 101, 102]);
        assert!(next_in_turn(rows(0, 9), 1, 3).is_empty());
        assert_eq!(ids(next_in_turn(rows(1, 9), 1, 3)), [0]);
    }
}
