//! Whether the system clock may be believed when it says that files are old. A moment of a wrong clock (a bad time server, an empty
//! battery) must not remove what nobody can bring back.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

/// The clock may run ahead of the time that has passed by so much: it is set now and then, and a machine that sleeps counts nothing.
const MOST_AHEAD: SignedDuration = SignedDuration::from_hours(1);
/// The node may have been off for so long before it starts.
const LONGEST_OFF: SignedDuration = SignedDuration::from_hours(7 * 24);
/// After so long a clock that says the same is believed: somebody has had the time to see the message.
const DOUBT: Duration = Duration::from_secs(24 * 3600);

/// What the clock has said.
#[derive(Debug)]
pub struct Clock {
    /// A moment, and what a clock that was believed said then.
    base: (Instant, Timestamp),
    /// Since when it is not believed.
    doubted: Option<Instant>,
}

impl Clock {
    /// At `at` the clock says `now`; `before` is the last time that the node noted, when it ran last. `was_doubted`: that was the last one that was
    /// believed, for the clock was in doubt when it ended.
    pub fn new(at: Instant, now: Timestamp, before: Option<Timestamp>, was_doubted: bool) -> Clock {
        // Of a node that was off nobody knows how long: what it noted last is the base.
        let most = if was_doubted { MOST_AHEAD } else { LONGEST_OFF };
        let is_late = before.is_some_and(|before| now.duration_since(before) > most);
        let base = before.filter(|_| is_late).map_or(now, |before| before);
        Clock { base: (at, base), doubted: is_late.then_some(at) }
    }

    /// Whether it is believed, now that it says `now`, and whether it is the first time that it is not.
    pub fn look(&mut self, at: Instant, now: Timestamp) -> Belief {
        let passed = SignedDuration::try_from(at - self.base.0).unwrap_or(SignedDuration::MAX);
        let ahead = now.duration_since(self.base.1).saturating_sub(passed);
        match self.doubted {
            _ if ahead <= MOST_AHEAD => {
                // One that was set back is as right as one that was not.
                self.base = (at, now);
                self.doubted = None;
                Belief::Sure
            }
            Some(since) if at - since >= DOUBT => {
                self.base = (at, now);
                self.doubted = None;
                Belief::Sure
            }
            Some(_) => Belief::Doubted,
            None => {
                self.doubted = Some(at);
                Belief::DoubtedFirst(ahead)
            }
        }
    }

    /// Since when by a clock that was believed, if it is in doubt.
    pub fn doubted(&self) -> Option<Timestamp> {
        self.doubted.map(|_| self.base.1)
    }
}

/// Whether a clock is believed.
#[derive(Debug, PartialEq, Eq)]
pub enum Belief {
    Sure,
    /// Not yet.
    Doubted,
    /// No longer: it ran ahead by so much.
    DoubtedFirst(SignedDuration),
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn day(days: i64) -> SignedDuration {
        SignedDuration::from_hours(24 * days)
    }

    #[test]
    fn a_clock_that_jumps_ahead_is_not_believed_for_a_day_or_until_it_is_right_again() {
        let (at, now) = (Instant::now(), Timestamp::now());
        let mut clock = Clock::new(at, now, None, false);
        assert_eq!(clock.look(at + HOUR, now + SignedDuration::from_hours(1)), Belief::Sure);
        let (later, at_noon) = (at + HOUR, now + SignedDuration::from_hours(1));
        assert_eq!(clock.look(later, at_noon + day(40)), Belief::DoubtedFirst(day(40)));
        assert_eq!(clock.look(later + HOUR, at_noon + day(40)), Belief::Doubted);
        assert_eq!(clock.look(later + HOUR, at_noon + SignedDuration::from_hours(1)), Belief::Sure, "right again");
        assert_eq!(
            clock.look(later + HOUR, at_noon + day(40)),
            Belief::DoubtedFirst(day(40) - SignedDuration::from_hours(1))
        );
        let next = later + HOUR + DOUBT;
        assert_eq!(clock.look(next, at_noon + day(41)), Belief::Sure, "it stays with that");
        assert_eq!(clock.look(next + HOUR, at_noon + day(41)), Belief::Sure);
    }

    #[test]
    fn a_clock_that_is_set_back_or_goes_a_little_wrong_is_believed() {
        let (at, now) = (Instant::now(), Timestamp::now());
        let mut clock = Clock::new(at, now, None, false);
        assert_eq!(clock.look(at + HOUR, now - day(3)), Belief::Sure);
        assert_eq!(clock.look(at + HOUR, now - day(3) + SignedDuration::from_mins(50)), Belief::Sure);
    }

    #[test]
    fn a_node_that_starts_long_after_it_ran_last_waits() {
        let (at, now) = (Instant::now(), Timestamp::now());
        let mut clock = Clock::new(at, now, Some(now - day(40)), false);
        assert_eq!(clock.doubted(), Some(now - day(40)));
        assert_eq!(clock.look(at + HOUR, now + SignedDuration::from_hours(1)), Belief::Doubted);
        assert_eq!(
            clock.look(at + 2 * HOUR, now - day(40) + SignedDuration::from_hours(2)),
            Belief::Sure,
            "it was wrong"
        );
        let mut clock = Clock::new(at, now, Some(now - day(40)), false);
        assert_eq!(clock.look(at + DOUBT, now + day(1)), Belief::Sure);
        for before in [now - day(2), now + day(30)] {
            assert_eq!(Clock::new(at, now, Some(before), false).doubted(), None);
        }
        // Started again in the middle of it.
        assert!(Clock::new(at, now, Some(now - day(2)), true).doubted().is_some());
        assert_eq!(Clock::new(at, now, Some(now), true).doubted(), None, "it is right again");
    }
}
