//! Tells when the node becomes not ready, and when it is ready again: as a metric for each check, and as an event that goes the way of results.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::event::{Event, NodeTrouble};
use crate::ledger::{Ledger, NewMessage, now};
use crate::notify::{Direct, Routing};
use crate::web::Readiness;

/// How often the checks are made.
const LOOK: Duration = Duration::from_secs(2);

/// Checks in a row that must agree before anybody is told: what mends itself within seconds is nobody's work.
const CERTAIN: u32 = 3;

/// A look that takes longer than this is itself trouble.
const PATIENCE: Duration = Duration::from_secs(10);

/// Telling past the ledger takes no longer.
const TELL: Duration = Duration::from_secs(30);

pub(super) struct Watch {
    pub ledger: Ledger,
    pub routing: Arc<Routing>,
    /// For what the ledger cannot keep.
    pub direct: Direct,
    pub readiness: Arc<dyn Fn() -> Readiness + Send + Sync>,
    pub ae_title: String,
    /// A file that is there while the last that people heard is that the node is not ready. No row of the ledger, which may be what ailed.
    pub marker: PathBuf,
}

impl Watch {
    /// Looks until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        // Whoever was told before a restart that the node is not ready waits for the end of that.
        let mut told_ready = !self.marker.exists();
        let (mut since, mut looks, mut seen_ready) = (now(), 0, true);
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = stop.cancelled() => return,
            }
            let reasons = self.look().await;
            let ready = reasons.is_empty();
            if ready == seen_ready {
                looks += 1;
            } else {
                (seen_ready, looks, since) = (ready, 1, now());
            }
            if ready == told_ready || looks < CERTAIN {
                continue;
            }
            match ready {
                true => info!("the node is ready again"),
                false if looks == CERTAIN => error!("the node is not ready: {}", reasons.join("; ")),
                false => {}
            }
            let trouble = NodeTrouble {
                ae_title: self.ae_title.clone(),
                ready,
                since: since.clone(),
                reasons,
                software: crate::SOFTWARE.into(),
            };
            let messages = self.routing.messages(Event::NodeTrouble(trouble));
            if self.tell(&messages).await {
                told_ready = ready;
                self.mark(ready);
            }
        }
    }

    /// Keeps over a restart what was told. On a full disk it may fail, and then the end is told only while this process lives.
    fn mark(&self, ready: bool) {
        let marked = match ready {
            true => std::fs::remove_file(&self.marker),
            false => std::fs::write(&self.marker, "people were told that the node is not ready\n"),
        };
        match marked {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                warn!("what was told of the node's state cannot be kept in {}: {error}", self.marker.display());
            }
            _ => {}
        }
    }

    /// Whether the messages are kept, or have arrived. What failed is tried at the next look.
    async fn tell(&self, messages: &[NewMessage]) -> bool {
        // What it does not take in time it does not take later, either: people would hear the same twice.
        let why = match self.ledger.post_within(messages.to_vec(), PATIENCE).await {
            Ok(()) => return true,
            Err(error) => error.to_string(),
        };
        // The ledger is what ails, and people must hear of that now.
        match self.direct.tell(messages, TELL).await {
            told if told > 0 => {
                info!(channels = told, "the state of the node was told past the ledger, which cannot keep it: {why}");
                true
            }
            _ => {
                warn!("the state of the node can be told to nobody yet: {why}");
                false
            }
        }
    }

    /// The checks that fail, in words.
    async fn look(&self) -> Vec<String> {
        let readiness = self.readiness.clone();
        let looked = tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(move || readiness())).await;
        let Ok(Ok(readiness)) = looked else {
            metrics::gauge!("triaged_ready").set(0.0);
            return vec!["node: the checks did not end in time".into()];
        };
        for check in &readiness.checks {
            metrics::gauge!("triaged_check_ok", "check" => check.name.clone()).set(if check.ok { 1.0 } else { 0.0 });
        }
        metrics::gauge!("triaged_ready").set(if readiness.is_ready() { 1.0 } else { 0.0 });
        let failing = readiness.checks.iter().filter(|check| !check.ok);
        failing.map(|check| format!("{}: {}", check.name, check.detail)).collect()
    }
}
