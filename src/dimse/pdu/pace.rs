//! The rate at which a peer must send. One that lets bytes drip, each just before it would count as silent, would else hold its association
//! for ever.

use std::time::{Duration, Instant};

use super::error::PduError;

/// Bytes a second that a peer must send while it sends. A modem of 1990 was faster.
const LEAST_RATE: f64 = 256.0;

/// How a peer sends, measured while the node waits for it within a PDU.
#[derive(Debug, Default)]
pub(super) struct Pace {
    waiting_since: Option<Instant>,
    /// The time that was waited for within PDUs, beyond what the bytes that came allow.
    behind: Duration,
}

impl Pace {
    /// The node begins to wait. `within`: a PDU has begun.
    pub fn begin(&mut self, within: bool) {
        if !within {
            self.behind = Duration::ZERO;
        }
        self.waiting_since = within.then(Instant::now);
    }

    /// Bytes arrived.
    ///
    /// # Errors
    /// The peer is slower than it may be, by more than `patience` together.
    pub fn arrived(&mut self, bytes: usize, patience: Duration) -> Result<(), PduError> {
        let Some(since) = self.waiting_since.take() else { return Ok(()) };
        self.count(since.elapsed(), bytes, patience)
    }

    fn count(&mut self, waited: Duration, bytes: usize, patience: Duration) -> Result<(), PduError> {
        let allowed = Duration::from_secs_f64(bytes as f64 / LEAST_RATE);
        self.behind = (self.behind + waited).saturating_sub(allowed);
        if self.behind > patience { Err(PduError::Timeout(patience)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn who_drips_is_cut_off_and_who_is_slow_is_not() {
        let outlasts = |bytes: usize, every: u64| {
            let mut pace = Pace::default();
            (0..10_000).all(|_| pace.count(Duration::from_secs(every), bytes, PATIENCE).is_ok())
        };
        assert!(!outlasts(1, 1) && !outlasts(1, 50) && !outlasts(200, 1));
        // 16 KiB after each pause of 30 s, and a steady 300 bytes a second.
        assert!(outlasts(16 << 10, 30) && outlasts(300, 1));
    }
}
