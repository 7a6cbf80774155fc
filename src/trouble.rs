//! Something that the node does again and again, and that fails: storing objects, scoring slices. Readiness asks for it.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// An activity, and how often it failed since it last succeeded. Clones share the count.
#[derive(Debug, Clone, Default)]
pub struct Trouble(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    last: Option<(Instant, String)>,
}

impl Trouble {
    pub fn failed(&self, why: impl Into<String>) {
        let mut state = self.state();
        state.failures += 1;
        state.last = Some((Instant::now(), why.into()));
    }

    pub fn succeeded(&self) {
        let mut state = self.state();
        if state.failures > 0 {
            *state = State::default();
        }
    }

    /// Why it fails, if it failed so often and never succeeded since, and the last time was not so long ago: where nothing is tried, nothing
    /// is known.
    pub fn current(&self, failures: u32, memory: Duration) -> Option<String> {
        let state = self.state();
        let (at, why) = state.last.as_ref()?;
        let holds = state.failures >= failures && at.elapsed() < memory;
        holds.then(|| format!("{why} ({} in a row)", state.failures))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics while holding it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_lasts_until_something_succeeds_or_nothing_is_tried() {
        let (trouble, memory) = (Trouble::default(), Duration::from_secs(60));
        trouble.failed("a");
        assert_eq!((trouble.current(2, memory), trouble.current(1, Duration::ZERO)), (None, None));
        trouble.clone().failed("b");
        assert_eq!(trouble.current(2, memory).as_deref(), Some("b (2 in a row)"));
        trouble.succeeded();
        assert_eq!(trouble.current(1, memory), None);
    }
}
