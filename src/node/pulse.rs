//! Whether the node can keep what it is given: a row of the ledger and a file of the archive, written and read again every few seconds. The
//! row counts the ledger's generation, and the file tells the archive of it.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tracing::error;

use crate::archive::Archive;
use crate::ledger::{Ledger, LedgerError};

/// How often it is tried.
const PULSE: Duration = Duration::from_secs(3);

/// A node that must start anew lives on for so long, so that its watch can tell people why. It refuses whatever comes.
const FAREWELL: Duration = Duration::from_secs(20);

/// A beat that takes longer than this is trouble: senders wait as long.
const SLOW: Duration = Duration::from_secs(15);

/// The ledger may be locked by another process for so long before the node is no longer alive: a restart does not help against
/// that, against other troubles of a database it may.
const LEDGER_PATIENCE: Duration = Duration::from_secs(300);

/// Results of the last beats. Clones share them.
#[derive(Clone)]
pub struct Vitals {
    ledger: Arc<Mutex<Beat>>,
    archive: Arc<Mutex<Beat>>,
}

struct Beat {
    /// When the last one ended, well or not.
    at: Instant,
    /// When the last one ended well.
    well: Instant,
    trouble: Option<String>,
    /// Since when no further beat will help: the node must start anew.
    is_final: Option<Instant>,
}

impl Vitals {
    /// Why the ledger does not keep what it is given.
    pub fn ledger(&self) -> Option<String> {
        trouble(&self.ledger)
    }

    /// Why the archive does not.
    pub fn archive(&self) -> Option<String> {
        trouble(&self.archive)
    }
}

fn trouble(beat: &Mutex<Beat>) -> Option<String> {
    let beat = beat.lock().expect("nobody panics while holding it");
    let waits = beat.at.elapsed();
    let slow = waits > PULSE + SLOW;
    beat.trouble.clone().or_else(|| slow.then(|| format!("a write has waited for {} s", waits.as_secs())))
}

/// The tasks that try. The ledger may wait long for another process, and a disk for itself, so each has one.
pub struct Pulse {
    tasks: [JoinHandle<()>; 2],
    vitals: Vitals,
}

impl Pulse {
    pub fn of(ledger: Ledger, archive: Archive) -> Pulse {
        let now = Instant::now();
        let beat = || Arc::new(Mutex::new(Beat { at: now, well: now, trouble: None, is_final: None }));
        let vitals = Vitals { ledger: beat(), archive: beat() };
        let of_ledger = vitals.ledger.clone();
        let told = ledger.clone();
        let ledger = tokio::spawn(async move {
            loop {
                match ledger.beat().await {
                    Ok(()) => note(&of_ledger, "ledger", None, false),
                    Err(LedgerError::Closed) => return,
                    Err(error) => {
                        let is_final = matches!(error, LedgerError::Replaced { .. });
                        note(&of_ledger, "ledger", Some(error.to_string()), is_final);
                    }
                }
                tokio::time::sleep(PULSE).await;
            }
        });
        let of_archive = vitals.archive.clone();
        let archive = tokio::spawn(async move {
            loop {
                // Whoever commits holds the lineage for as long as the disk takes, which is no reason for this thread to wait.
                let (probed, told) = (archive.clone(), told.clone());
                let tell = move || told.lineage().map_or(Ok(()), |lineage| probed.tell(&lineage));
                let probe = tokio::task::spawn_blocking(tell).await;
                let why = match probe {
                    Ok(Ok(())) => None,
                    Ok(Err(error)) => Some(format!("a file cannot be written and read again: {error}")),
                    Err(_) => Some("writing a file panicked; this is a bug".to_owned()),
                };
                note(&of_archive, "archive", why, false);
                tokio::time::sleep(PULSE).await;
            }
        });
        Pulse { tasks: [ledger, archive], vitals }
    }

    pub fn vitals(&self) -> Vitals {
        self.vitals.clone()
    }

    /// Whether the tasks run and the ledger can be written, or a restart would not help.
    pub fn beats(&self) -> bool {
        let ledger = self.vitals.ledger.lock().expect("nobody panics while holding it");
        let ends = ledger.is_final.is_some_and(|since| since.elapsed() > FAREWELL);
        self.tasks.iter().all(|task| !task.is_finished()) && ledger.well.elapsed() < LEDGER_PATIENCE && !ends
    }
}

/// Notes how a beat ended; trouble is logged when it begins and when it changes.
fn note(beat: &Mutex<Beat>, of: &str, trouble: Option<String>, is_final: bool) {
    let now = Instant::now();
    let mut beat = beat.lock().expect("nobody panics while holding it");
    match &trouble {
        Some(why) if beat.trouble.as_ref() != Some(why) => error!("the {of} fails: {why}"),
        None if beat.trouble.is_some() => tracing::info!("the {of} works again"),
        _ => {}
    }
    let well = if trouble.is_none() { now } else { beat.well };
    let is_final = is_final.then(|| beat.is_final.unwrap_or(now));
    *beat = Beat { at: now, well, trouble, is_final };
}

impl Drop for Pulse {
    /// It holds the ledger, whose last handle joins the writer thread.
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}
