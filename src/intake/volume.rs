//! How many bytes an address may bring, so that one host does not fill the disk for all. Each has an hour's worth at once, which comes back
//! evenly over the hour.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

const HOUR: Duration = Duration::from_secs(3600);

/// Addresses that are remembered; past them, those that have their whole share again are forgotten.
const MOST_REMEMBERED: usize = 1024;

/// The shares of all addresses.
pub(super) struct Volume {
    /// Bytes an hour; `None`: no bound.
    most: Option<u64>,
    taken: Mutex<HashMap<IpAddr, Taken>>,
}

/// What an address has taken of its share, in bytes, as of a moment.
struct Taken {
    bytes: f64,
    at: Instant,
}

impl Volume {
    /// `most` in bytes an hour; 0: no bound.
    pub fn new(most: u64) -> Volume {
        Volume { most: (most > 0).then_some(most), taken: Mutex::default() }
    }

    /// Takes so many bytes of the share of an address. False where they are not left: nothing is taken then.
    pub fn take(&self, address: IpAddr, bytes: usize) -> bool {
        self.take_at(address, bytes, Instant::now())
    }

    fn take_at(&self, address: IpAddr, bytes: usize, now: Instant) -> bool {
        let Some(most) = self.most.map(|most| most as f64) else { return true };
        let back = |taken: &Taken| most * now.saturating_duration_since(taken.at).as_secs_f64() / HOUR.as_secs_f64();
        let mut all = self.taken.lock().expect("nobody panics while holding it");
        if all.len() >= MOST_REMEMBERED {
            all.retain(|_, taken| taken.bytes > back(taken));
        }
        let taken = all.entry(address).or_insert(Taken { bytes: 0.0, at: now });
        *taken = Taken { bytes: (taken.bytes - back(taken)).max(0.0), at: now };
        let fits = taken.bytes + bytes as f64 <= most;
        if fits {
            taken.bytes += bytes as f64;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_share_and_it_comes_back() {
        let (volume, now) = (Volume::new(3600), Instant::now());
        let host = |last: u8| IpAddr::from([10, 0, 0, last]);
        assert!(volume.take_at(host(1), 3000, now) && !volume.take_at(host(1), 601, now));
        assert!(volume.take_at(host(1), 600, now) && !volume.take_at(host(1), 1, now));
        assert!(volume.take_at(host(2), 3600, now), "another has its own");
        let later = now + Duration::from_secs(60);
        assert!(!volume.take_at(host(1), 61, later) && volume.take_at(host(1), 59, later));
        assert!(volume.take_at(host(1), 3600, now + HOUR * 2));
        assert!(Volume::new(0).take_at(host(1), usize::MAX, now));
    }
}
