//! Objects that were given up: each further attempt would cost as much as the one that they were given up for.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Objects by their paths, with the reason.
pub struct GivenUp {
    remembered: Duration,
    objects: Mutex<HashMap<String, (String, Instant)>>,
}

impl GivenUp {
    /// Remembers each object for so long.
    pub fn new(remembered: Duration) -> GivenUp {
        GivenUp { remembered, objects: Mutex::default() }
    }

    /// An object was given up. Said again of one that is known, it is not remembered for longer.
    pub fn note(&self, path: &str, why: &str) {
        let mut objects = self.objects();
        objects.retain(|_, (_, since)| since.elapsed() < self.remembered);
        objects.entry(path.to_owned()).or_insert_with(|| (why.to_owned(), Instant::now()));
    }

    /// Why an object was given up, if it was.
    pub fn why(&self, path: &str) -> Option<String> {
        let objects = self.objects();
        let (why, since) = objects.get(path)?;
        (since.elapsed() < self.remembered).then(|| why.clone())
    }

    fn objects(&self) -> MutexGuard<'_, HashMap<String, (String, Instant)>> {
        self.objects.lock().expect("nobody panics while holding it")
    }
}
