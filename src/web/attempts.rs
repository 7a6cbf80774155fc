//! Logins that failed lately, and who has to wait for that before the next one.
//!
//! Counted is what a login costs: the check of a password, or a request to the OpenID provider. What a browser can be made to send without either
//! (a picture's address on any page) counts for nothing. Many people may have one address, that of a proxy: so it is the name at an address
//! that waits, and the address as a whole only after many more.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Failures within [`WINDOW`] after which a name at an address has to wait, and after which the whole address has to.
pub(super) const MOST_OF_NAME: usize = 20;
pub(super) const MOST_OF_ADDRESS: usize = 100;
const WINDOW: Duration = Duration::from_secs(60);

/// Names and addresses that are remembered. Two checks of a password at one time make fewer in a minute.
const MOST_KNOWN: usize = 10_000;

/// Characters of a name that tell it from others.
const MOST_NAME: usize = 128;

/// How somebody tries to log in.
#[derive(Clone, Copy)]
pub(super) enum By<'a> {
    /// With a password, under this name.
    Password(&'a str),
    /// At the OpenID provider, which alone knows the name.
    Provider,
}

/// Failures that are counted together.
#[derive(PartialEq, Eq, Hash)]
enum Of {
    Name(String),
    Passwords,
    Provider,
}

impl By<'_> {
    /// What such a failure is counted under, and how many are let pass.
    fn bounds(self) -> Vec<(Of, usize)> {
        match self {
            By::Password(name) => {
                vec![(Of::Name(name.chars().take(MOST_NAME).collect()), MOST_OF_NAME), (Of::Passwords, MOST_OF_ADDRESS)]
            }
            By::Provider => vec![(Of::Provider, MOST_OF_ADDRESS)],
        }
    }
}

/// The failures of the last minute.
#[derive(Default)]
pub(super) struct Attempts {
    failed: Mutex<HashMap<(IpAddr, Of), Vec<Instant>>>,
}

impl Attempts {
    /// Whether too many failed lately.
    pub fn must_wait(&self, address: IpAddr, by: By<'_>) -> bool {
        let mut failed = self.failed.lock().expect("nobody panics while holding the failures");
        by.bounds().into_iter().any(|(of, most)| {
            let Some(times) = failed.get_mut(&(network(address), of)) else { return false };
            times.retain(is_recent);
            times.len() >= most
        })
    }

    /// One more failed.
    pub fn note(&self, address: IpAddr, by: By<'_>) {
        let mut failed = self.failed.lock().expect("nobody panics while holding the failures");
        if failed.len() >= MOST_KNOWN {
            failed.retain(|_, times| times.iter().any(is_recent));
        }
        for (of, most) in by.bounds() {
            let key = (network(address), of);
            if failed.len() < MOST_KNOWN || failed.contains_key(&key) {
                let times = failed.entry(key).or_default();
                times.retain(is_recent);
                // Those under way when the last one was let pass may be more.
                if times.len() < most {
                    times.push(Instant::now());
                }
            }
        }
    }
}

/// What counts as one address: of IPv6 the network of 64 bits, of which one machine may have every address (RFC 6177).
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

fn is_recent(at: &Instant) -> bool {
    at.elapsed() < WINDOW
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_waits_and_not_everybody_behind_the_same_proxy() {
        let attempts = Attempts::default();
        let (proxy, other) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        for _ in 0..MOST_OF_NAME {
            assert!(!attempts.must_wait(proxy, By::Password("ada")));
            attempts.note(proxy, By::Password("ada"));
        }
        assert!(attempts.must_wait(proxy, By::Password("ada")));
        assert!(!attempts.must_wait(proxy, By::Password("bob")));
        assert!(!attempts.must_wait(proxy, By::Provider));
        assert!(!attempts.must_wait(other, By::Password("ada")));
    }

    #[test]
    fn one_machine_has_one_count_whatever_address_it_takes() {
        let attempts = Attempts::default();
        let at = |text: &str| text.parse::<IpAddr>().expect("an address");
        for number in 0..MOST_OF_NAME {
            attempts.note(at(&format!("2001:db8:0:7::{number:x}")), By::Password("ada"));
        }
        assert!(attempts.must_wait(at("2001:db8:0:7:ffff::1"), By::Password("ada")));
        assert!(!attempts.must_wait(at("2001:db8:0:8::1"), By::Password("ada")), "another network");
        for _ in 0..MOST_OF_NAME {
            attempts.note(at("::ffff:10.0.0.1"), By::Password("bob"));
        }
        assert!(attempts.must_wait(at("10.0.0.1"), By::Password("bob")), "an IPv4 address by IPv6");
        assert!(!attempts.must_wait(at("::ffff:10.0.0.2"), By::Password("bob")));
    }

    #[test]
    fn whoever_tries_many_names_waits_with_their_address() {
        let attempts = Attempts::default();
        let address = [10, 0, 0, 1].into();
        for number in 0..MOST_OF_ADDRESS {
            assert!(!attempts.must_wait(address, By::Password("bob")), "{number}");
            attempts.note(address, By::Password(&format!("guess {number}")));
        }
        assert!(attempts.must_wait(address, By::Password("bob")));
        assert!(!attempts.must_wait(address, By::Provider), "the provider has its own count");
    }
}
