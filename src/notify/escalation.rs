//! Escalation: who hears when nobody acknowledged, and when a message does not arrive.
//!
//! Both are rows with times in the ledger, so a restart or a crash loses nothing: what became due meanwhile is raised at the
//! next start.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::Routing;
use crate::config;
use crate::event::{DeliveryFailed, Event};
use crate::ledger::{Escalations, Result};

/// How often it is looked whether something is due.
const POLL: Duration = Duration::from_secs(1);

/// Failed deliveries that are told in one round.
const MOST_AT_ONCE: usize = 100;

/// The stage that raises what is due.
pub struct Escalation {
    escalations: Arc<dyn Escalations>,
    routing: Arc<Routing>,
    /// A message about a verdict may be under way for so long before other channels are told.
    undelivered_after: Duration,
}

impl Escalation {
    pub fn new(escalations: Arc<dyn Escalations>, routing: Arc<Routing>, settings: &config::Notify) -> Escalation {
        let undelivered_after = Duration::from_secs_f64(settings.undelivered_minutes * 60.0);
        Escalation { escalations, routing, undelivered_after }
    }

    /// Raises what is due until `stop`. Errors of the ledger are logged and outwaited.
    pub async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            match self.escalations.raise().await {
                Ok(0) => {}
                Ok(raised) => {
                    metrics::counter!("triaged_escalations_total").increment(raised);
                    info!(raised, "not acknowledged in time: the next channels are told");
                }
                Err(error) => error!("escalations that are due cannot be raised: {error}"),
            }
            if let Err(error) = self.report_undelivered().await {
                error!("messages that do not arrive cannot be reported: {error}");
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    async fn report_undelivered(&self) -> Result<()> {
        let (escalations, wait) = (self.escalations.clone(), self.undelivered_after);
        let found = tokio::task::spawn_blocking(move || escalations.undelivered(wait, MOST_AT_ONCE)).await;
        for undelivered in found.map_err(|_| crate::ledger::LedgerError::Closed)?? {
            let messages = match Event::from_json(&undelivered.event) {
                Ok(event) => {
                    let failed = DeliveryFailed {
                        notification: undelivered.id,
                        channel: undelivered.channel.clone(),
                        attempts: undelivered.attempts,
                        created_at: undelivered.created_at,
                        undelivered: Box::new(event),
                    };
                    self.routing.messages(Event::DeliveryFailed(failed))
                }
                Err(_) => Vec::new(),
            };
            let told: Vec<&str> = messages.iter().map(|message| message.channel.as_str()).collect();
            warn!(
                channel = undelivered.channel,
                notification = undelivered.id,
                told = told.join(", "),
                "a message does not arrive on its channel"
            );
            self.escalations.report_undelivered(undelivered.id, messages).await?;
        }
        Ok(())
    }
}
