//! Escalation: who hears when nobody acknowledged, and when a message does not arrive.
//!
//! Both are rows with times in the ledger, so a restart or a crash loses nothing: what became due meanwhile is raised at the
//! next start.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::Routing;
use crate::config;
use crate::event::{DeliveryFailed, Event};
use crate::ledger::{Escalations, Result};

/// How often it is looked whether something is due.
const POLL: Duration = Duration::from_secs(1);

/// How often it is looked whether messages wait for a channel that is not there any more.
const LOOK_FOR_STRANDED: Duration = Duration::from_secs(10);

/// Failed deliveries that are told in one round.
const MOST_AT_ONCE: usize = 100;

/// The stage that raises what is due.
pub struct Escalation {
    escalations: Arc<dyn Escalations>,
    routing: Arc<Routing>,
    /// A message about a verdict may be under way for so long before other channels are told.
    undelivered_after: Duration,
    /// The names of the channels that there are.
    channels: Vec<String>,
}

impl Escalation {
    pub fn new(escalations: Arc<dyn Escalations>, routing: Arc<Routing>, settings: &config::Notify) -> Escalation {
        let undelivered_after = Duration::from_secs_f64(settings.undelivered_minutes * 60.0);
        let channels = settings.all_channels().into_iter().map(|channel| channel.name).collect();
        Escalation { escalations, routing, undelivered_after, channels }
    }

    /// Raises what is due until `stop`. Errors of the ledger are logged and outwaited.
    pub async fn run(self, stop: CancellationToken) {
        let mut looked: Option<Instant> = None;
        while !stop.is_cancelled() {
            if let Err(error) = self.escalations.tell_acknowledged().await {
                error!("acknowledgements by other programs cannot be told: {error}");
            }
            match self.escalations.raise().await {
                Ok(0) => {}
                Ok(raised) => {
                    metrics::counter!("triaged_escalations_total").increment(raised);
                    info!(raised, "not acknowledged in time: the next channels are told");
                }
                Err(error) => error!("escalations that are due cannot be raised: {error}"),
            }
            if looked.is_none_or(|at| at.elapsed() >= LOOK_FOR_STRANDED) {
                looked = Some(Instant::now());
                if let Err(error) = self.give_up_stranded().await {
                    error!("messages for channels that are not there any more cannot be given up: {error}");
                }
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

    /// What waits for a channel that was renamed or taken out of the configuration would wait for ever, and be seen nowhere.
    async fn give_up_stranded(&self) -> Result<()> {
        let (escalations, channels) = (self.escalations.clone(), self.channels.clone());
        let stranded = tokio::task::spawn_blocking(move || escalations.stranded(&channels)).await;
        for waiting in stranded.map_err(|_| crate::ledger::LedgerError::Closed)?? {
            let channel = waiting.channel;
            let mut dead = waiting.dead;
            if waiting.pending > 0 {
                let error = format!(
                    "there is no channel {channel:?} in the configuration any more: it was renamed or removed; where it comes back, \
                     what waits for it is sent"
                );
                let given_up = self.escalations.give_up_channel(channel.clone(), error).await?;
                error!(
                    channel,
                    given_up,
                    "notifications wait for a channel that is not in the configuration any more: they are dead letters now"
                );
                dead += given_up;
            }
            metrics::gauge!("triaged_notifications_pending", "channel" => channel.clone()).set(0.0);
            metrics::gauge!("triaged_notifications_dead", "channel" => channel).set(dead as f64);
        }
        Ok(())
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
