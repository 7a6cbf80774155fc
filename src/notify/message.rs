//! A message as a channel sees it.

use super::Links;
use crate::event::Event;
use crate::ledger::OutboxRow;

/// A message for one channel. Nothing of it changes between attempts.
#[derive(Debug, Clone)]
pub struct Message {
    /// The message's id in `notification_log`.
    pub id: i64,
    /// The same at every attempt.
    pub idempotency_key: String,
    /// When the message was raised, UTC ISO 8601.
    pub created_at: String,
    /// 0, or the step of escalation: nobody acknowledged the event in time.
    pub step: u32,
    pub event: Event,
    /// The study's page, where `web.public_url` is set.
    pub study_url: Option<String>,
    /// A link by which whoever has this message acknowledges the study, once and without logging in.
    pub acknowledge_url: Option<String>,
}

/// Which facts about a patient a message may contain.
#[derive(Debug, Clone, Copy)]
pub struct Include {
    pub patient_id: bool,
    pub accession_number: bool,
}

impl Message {
    /// Reads the row's event and adds the links for this channel. The error is for log and ledger.
    pub fn read(row: &OutboxRow, channel: &str, links: &Links) -> Result<Message, String> {
        let event = Event::from_json(&row.event)?;
        let study = event.study_uid();
        let is_urgent = match &event {
            Event::DeliveryFailed(failed) => failed.undelivered.kind().is_urgent(),
            event => event.kind().is_urgent(),
        };
        let acknowledge = |study| links.acknowledge(row, channel, study, event.revision());
        Ok(Message {
            id: row.id,
            idempotency_key: row.idempotency_key.clone(),
            created_at: row.created_at.clone(),
            step: row.step,
            study_url: study.and_then(|study| links.study(study)),
            acknowledge_url: study.filter(|_| is_urgent).and_then(acknowledge),
            event,
        })
    }
}
