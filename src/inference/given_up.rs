//! Objects that were given up a moment ago. Slices of them that were leased before then are not decoded any more: each would cost as much as
//! the one that the object was given up for.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Longer than a slice is in flight. Whoever has the object scored again later has it tried again.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Objects by their paths, with the reason.
#[derive(Default)]
pub(super) struct GivenUp {
    objects: Mutex<HashMap<String, (String, Instant)>>,
}

impl GivenUp {
    /// An object was given up. Said again of one that is known, it is not remembered for longer.
    pub fn note(&self, path: &str, why: &str) {
        let mut objects = self.objects();
        objects.retain(|_, (_, since)| since.elapsed() < REMEMBERED);
        objects.entry(path.to_owned()).or_insert_with(|| (why.to_owned(), Instant::now()));
    }

    /// Why an object was given up, if it was.
    pub fn why(&self, path: &str) -> Option<String> {
        let objects = self.objects();
        let (why, since) = objects.get(path)?;
        (since.elapsed() < REMEMBERED).then(|| why.clone())
    }

    fn objects(&self) -> MutexGuard<'_, HashMap<String, (String, Instant)>> {
        self.objects.lock().expect("nobody panics while holding it")
    }
}
