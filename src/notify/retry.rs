//! When a message is tried again: soon at first, then slowly for days.

use std::time::Duration;

use jiff::Timestamp;

use super::Outcome;
use crate::config;
use crate::ledger::{Delivery, OutboxRow, Revival, format_time};
use crate::plural::counted;

/// A channel that delivers again wakes its dead messages, but none that was tried within this time: one that its
/// counterpart refuses for its content must not be sent along with every other.
const REVIVAL_PAUSE: Duration = Duration::from_secs(60);

/// Exponential backoff with full jitter, twice: for pending messages, and for dead ones.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retry {
    pub first: Duration,
    pub longest: Duration,
    pub max_attempts: u32,
    pub dead_first: Duration,
    pub dead_longest: Duration,
    pub dead_oldest: Duration,
}

impl Retry {
    pub fn new(settings: &config::Notify) -> Retry {
        let minutes = |minutes: f64| Duration::from_secs_f64(minutes * 60.0);
        Retry {
            first: Duration::from_secs_f64(settings.first_retry_seconds),
            longest: Duration::from_secs_f64(settings.longest_retry_seconds),
            max_attempts: settings.max_attempts,
            dead_first: minutes(settings.dead_first_retry_minutes),
            dead_longest: minutes(settings.dead_longest_retry_minutes),
            dead_oldest: Duration::from_secs_f64(settings.dead_retry_days * 86_400.0),
        }
    }

    /// Which dead messages are tried again. `acknowledged`: also alerts of studies that somebody takes care of.
    pub fn revival(&self, acknowledged: bool) -> Revival {
        Revival { longest: self.dead_longest.max(self.dead_first), oldest: self.dead_oldest, acknowledged }
    }

    /// How long a dead message must have rested to be woken by another's delivery.
    pub fn revival_pause(&self) -> Duration {
        REVIVAL_PAUSE.min(self.dead_first)
    }

    /// The record of an attempt for the ledger.
    pub fn delivery(&self, row: &OutboxRow, outcome: &Outcome) -> Delivery {
        let attempts = row.attempts.saturating_add(1);
        let dead = |error| Delivery::Dead { at: later(self.dead_wait(row, rand::random_range(0.5..=1.0))), error };
        match outcome {
            Outcome::Delivered => Delivery::Delivered,
            Outcome::DeliveredExcept { error } => Delivery::DeliveredExcept { error: error.in_full() },
            Outcome::Reject { error } => dead(error.in_full()),
            Outcome::Retry { error, .. } if row.dead || attempts >= self.max_attempts => {
                dead(format!("given up after {}: {}", counted(attempts.into(), "attempt"), error.in_full()))
            }
            Outcome::Retry { error, after } => Delivery::Retry {
                at: later(self.wait(row.attempts, *after, rand::random_range(0.0..=1.0))),
                error: error.in_full(),
            },
        }
    }

    /// `first` doubled for each attempt made before, at most `longest`, times `luck` (0 to 1): waits that are spread
    /// out do not all hit a receiver at the moment it comes back. What the counterpart asks for (Retry-After) is
    /// honoured up to `longest`, so that it cannot silence an alarm for longer than the settings allow.
    pub fn wait(&self, before: u32, asked: Option<Duration>, luck: f64) -> Duration {
        let most = self.first.saturating_mul(2u32.saturating_pow(before)).min(self.longest);
        most.mul_f64(luck).max(asked.unwrap_or_default().min(self.longest))
    }

    /// The first wait of a dead message is `dead_first`; then each is about as long as the message has been waiting, so that
    /// the waits double without being counted, at most `dead_longest`.
    fn dead_wait(&self, row: &OutboxRow, luck: f64) -> Duration {
        let age = row.created_at.parse::<Timestamp>().ok().map(|created| Timestamp::now().duration_since(created));
        let age = age.and_then(|age| Duration::try_from(age).ok()).unwrap_or_default();
        let most =
            if row.dead { age.clamp(self.dead_first, self.dead_longest.max(self.dead_first)) } else { self.dead_first };
        most.mul_f64(luck)
    }
}

fn later(wait: Duration) -> String {
    format_time(Timestamp::now().checked_add(wait).unwrap_or(Timestamp::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::Failure;

    const HOUR: Duration = Duration::from_secs(3600);
    const RETRY: Retry = Retry {
        first: Duration::from_secs(2),
        longest: Duration::from_secs(300),
        max_attempts: 30,
        dead_first: Duration::from_secs(600),
        dead_longest: Duration::from_secs(6 * 3600),
        dead_oldest: Duration::from_secs(7 * 86_400),
    };

    fn row(attempts: u32, dead: bool, age: Duration) -> OutboxRow {
        OutboxRow {
            id: 1,
            study_uid: Some("1.2".into()),
            idempotency_key: "k".into(),
            event: "{}".into(),
            step: 0,
            attempts,
            created_at: format_time(Timestamp::now().checked_sub(age).unwrap()),
            dead,
            is_alert: true,
        }
    }

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
        let outcome = Outcome::Retry { error: Failure { text: "503".into(), reply: Some("busy".into()) }, after: None };
        assert!(matches!(RETRY.delivery(&row(28, false, HOUR), &outcome), Delivery::Retry { .. }));
        let Delivery::Dead { error, .. } = RETRY.delivery(&row(29, false, HOUR), &outcome) else {
            panic!("30 attempts are the limit")
        };
        assert_eq!(error, "given up after 30 attempts: 503: busy");
    }

    #[test]
    fn a_dead_message_is_tried_ever_more_slowly_and_never_too_slowly() {
        let wait = |dead, age| RETRY.dead_wait(&row(40, dead, age), 1.0).as_secs();
        assert_eq!(wait(false, 2 * HOUR), 600, "it died just now");
        assert_eq!(wait(true, Duration::from_secs(20)), 600);
        assert!((7190..=7210).contains(&wait(true, 2 * HOUR)));
        assert_eq!(wait(true, 100 * HOUR), 6 * 3600);
        // A clock that was set back makes a message come from the future.
        let future = OutboxRow { created_at: "2999-01-01T00:00:00.000Z".into(), ..row(40, true, HOUR) };
        assert_eq!(RETRY.dead_wait(&future, 1.0).as_secs(), 600);
        let outcome = Outcome::Retry { error: "503".into(), after: None };
        assert!(matches!(RETRY.delivery(&row(0, true, HOUR), &outcome), Delivery::Dead { .. }), "it stays dead");
    }
}
