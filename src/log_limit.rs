//! Lines about peers that repeat themselves: a scanner that is refused tries again every few seconds, for days.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How long a line is kept back after it was written.
const AGAIN_AFTER: Duration = Duration::from_secs(600);

/// Peers and reasons that are remembered. Past it a new one is not told before an old one is forgotten: whoever comes from many
/// addresses does not fill the log either.
const MOST: usize = 4096;

/// Lets a line through once for each peer and reason, then again after ten minutes.
#[derive(Default)]
pub struct LogLimit {
    told: Mutex<HashMap<(IpAddr, String), Told>>,
}

struct Told {
    at: Instant,
    kept_back: u64,
}

impl LogLimit {
    /// Whether to write the line: `Some` with how often the same was kept back since it was last written.
    pub fn admit(&self, address: IpAddr, line: &str) -> Option<u64> {
        self.admit_at(address, line, Instant::now())
    }

    fn admit_at(&self, address: IpAddr, line: &str, now: Instant) -> Option<u64> {
        let mut told = self.told.lock().expect("nobody panics while holding what was told");
        if let Some(before) = told.get_mut(&(address, line.to_owned())) {
            if now.duration_since(before.at) < AGAIN_AFTER {
                before.kept_back += 1;
                return None;
            }
            let kept_back = before.kept_back;
            *before = Told { at: now, kept_back: 0 };
            return Some(kept_back);
        }
        if told.len() >= MOST {
            told.retain(|_, told| now.duration_since(told.at) < AGAIN_AFTER);
        }
        if told.len() >= MOST {
            return None;
        }
        told.insert((address, line.to_owned()), Told { at: now, kept_back: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_comes_once_then_after_ten_minutes_with_its_number() {
        let (limit, start) = (LogLimit::default(), Instant::now());
        let one = IpAddr::from([10, 0, 0, 1]);
        assert_eq!(limit.admit_at(one, "no", start), Some(0));
        assert_eq!(limit.admit_at(one, "no", start + Duration::from_secs(1)), None);
        assert_eq!(limit.admit_at(one, "other", start), Some(0));
        assert_eq!(limit.admit_at([10, 0, 0, 2].into(), "no", start), Some(0));
        assert_eq!(limit.admit_at(one, "no", start + AGAIN_AFTER), Some(1));
    }

    #[test]
    fn many_addresses_fill_neither_the_memory_nor_the_log() {
        let (limit, start) = (LogLimit::default(), Instant::now());
        let told = (0..10_000u32).filter(|n| limit.admit_at(IpAddr::from(n.to_be_bytes()), "no", start).is_some());
        assert_eq!(told.count(), MOST);
        assert_eq!(
            limit.admit_at([1, 1, 1, 1].into(), "no", start + AGAIN_AFTER),
            Some(0),
            "the old ones are forgotten"
        );
    }
}
