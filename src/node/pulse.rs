//! Whether the ledger can be written, looked at again and again.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tracing::error;

use crate::ledger::{Ledger, LedgerError};

/// How often it is tried whether the ledger can be written.
const PULSE: Duration = Duration::from_secs(5);

/// The ledger may be locked by another process for so long before the node is no longer alive: a restart does not help against
/// that, against other troubles of a database it may.
const LEDGER_PATIENCE: Duration = Duration::from_secs(300);

/// Writes to the ledger in a task of its own, because a write may have to wait longer than the watchdog does.
pub struct Pulse {
    task: JoinHandle<()>,
    last: Arc<Mutex<Instant>>,
}

impl Pulse {
    pub fn of(ledger: Ledger) -> Pulse {
        let last = Arc::new(Mutex::new(Instant::now()));
        let beat = last.clone();
        let task = tokio::spawn(async move {
            loop {
                match ledger.try_write().await {
                    Ok(()) => *beat.lock().expect("nobody panics while holding it") = Instant::now(),
                    Err(LedgerError::Closed) => return,
                    Err(error) => error!("the ledger cannot be written: {error}"),
                }
                tokio::time::sleep(PULSE).await;
            }
        });
        Pulse { task, last }
    }

    pub fn beats(&self) -> bool {
        let last = *self.last.lock().expect("nobody panics while holding it");
        !self.task.is_finished() && last.elapsed() < LEDGER_PATIENCE
    }
}

impl Drop for Pulse {
    /// It holds the ledger, whose last handle joins the writer thread.
    fn drop(&mut self) {
        self.task.abort();
    }
}
