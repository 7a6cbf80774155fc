//! Telling without the ledger: for news of the node that the ledger cannot keep, because it is what ails. Once, and best effort.

use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;

use super::schedule::QuietHours;
use super::{Channel, ChannelError, Message, Outcome, Surroundings, channels};
use crate::config;
use crate::ledger::{NewMessage, now};

/// The channels, each with its quiet hours.
pub struct Direct {
    channels: Vec<(Box<dyn Channel>, QuietHours)>,
}

impl Direct {
    /// Opens the channels of the configuration a second time.
    pub fn new(settings: &config::Notify, surroundings: &Surroundings) -> Result<Direct, ChannelError> {
        let all = settings.all_channels();
        let with_hours = |channel: Box<dyn Channel>| {
            let own = all.iter().find(|own| own.name == channel.name());
            let hours = own.map_or("", |own| own.quiet_hours.as_str());
            let quiet = QuietHours::parse(hours, &settings.time_zone);
            (channel, quiet.expect("a channel with other quiet hours is not opened"))
        };
        Ok(Direct { channels: channels(settings, surroundings)?.into_iter().map(with_hours).collect() })
    }

    /// Delivers each message that is to be told now and whose channel may be woken, all at the same time: a channel that hangs keeps no other
    /// waiting. Returns to how many channels it went within `patience`.
    pub async fn tell(&self, messages: &[NewMessage], patience: Duration) -> usize {
        let mut deliveries = Vec::new();
        for message in messages.iter().filter(|message| message.escalation.is_none()) {
            let channel = self.channels.iter().find(|(channel, _)| channel.name() == message.channel);
            let Some((channel, quiet)) = channel else { continue };
            if quiet.hold(Timestamp::now()) {
                continue;
            }
            let event = (*message.event).clone();
            let message = Message {
                id: 0,
                idempotency_key: format!("{}-{}", event.kind(), event.occasion()),
                created_at: now(),
                step: 0,
                event,
                study_url: None,
                acknowledge_url: None,
            };
            deliveries.push(async move {
                let why = match tokio::time::timeout(patience, channel.deliver(&message)).await {
                    Ok(Outcome::Delivered) => return true,
                    Ok(Outcome::DeliveredExcept { error }) => {
                        let why = error.text;
                        tracing::error!(
                            channel = channel.name(),
                            why,
                            "the state of the node was not told to everybody"
                        );
                        return true;
                    }
                    Ok(Outcome::Retry { error, .. } | Outcome::Reject { error }) => error.text,
                    Err(_) => "it took too long".into(),
                };
                tracing::error!(channel = channel.name(), why, "the state of the node could not be told");
                false
            });
        }
        join_all(deliveries).await.into_iter().filter(|told| *told).count()
    }
}
