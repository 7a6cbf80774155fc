//! The body of a webhook's POST, version 1, as `docs/webhook.schema.json` describes it.

use serde::Serialize;

use crate::event::{Acknowledged, Event, NOTICE, NodeTrouble, StudyEvent, Test};
use crate::notify::{Include, Message};

/// The version of the body.
const VERSION: u32 = 1;

/// Identical at every attempt on a message.
#[derive(Serialize)]
pub(super) struct Body<'a> {
    version: u32,
    /// The idempotency key.
    id: &'a str,
    kind: &'static str,
    created_at: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    escalation_step: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    study_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    acknowledge_url: Option<&'a str>,
    #[serde(flatten)]
    content: Content<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Content<'a> {
    Verdict(Verdict),
    Acknowledged(Acknowledged),
    DeliveryFailed {
        notification: i64,
        channel: &'a str,
        attempts: u32,
        undelivered_since: &'a str,
        undelivered: &'static str,
        #[serde(flatten)]
        verdict: Option<Verdict>,
    },
    NodeTrouble(&'a NodeTrouble),
    Test(&'a Test),
}

#[derive(Serialize)]
struct Verdict {
    wording: &'static str,
    notice: &'static str,
    #[serde(flatten)]
    study: StudyEvent,
}

impl<'a> Body<'a> {
    pub fn new(message: &'a Message, include: Include) -> Body<'a> {
        let content = match &message.event {
            Event::DeliveryFailed(failed) => Content::DeliveryFailed {
                notification: failed.notification,
                channel: &failed.channel,
                attempts: failed.attempts,
                undelivered_since: &failed.created_at,
                undelivered: kind(&failed.undelivered),
                verdict: Verdict::of(&failed.undelivered, include),
            },
            Event::Acknowledged(acknowledged) => {
                let Acknowledged { accession_number, patient_id, .. } = acknowledged.clone();
                Content::Acknowledged(Acknowledged {
                    accession_number: accession_number.filter(|_| include.accession_number),
                    patient_id: patient_id.filter(|_| include.patient_id),
                    score: None,
                    ..acknowledged.clone()
                })
            }
            Event::NodeTrouble(trouble) => Content::NodeTrouble(trouble),
            Event::Test(test) => Content::Test(test),
            event @ (Event::Flagged(_) | Event::Revised(_) | Event::Incomplete(_) | Event::NotFlagged(_)) => {
                Content::Verdict(Verdict::of(event, include).expect("these events have a verdict"))
            }
        };
        Body {
            version: VERSION,
            id: &message.idempotency_key,
            kind: kind(&message.event),
            created_at: &message.created_at,
            escalation_step: message.step,
            study_url: message.study_url.as_deref(),
            acknowledge_url: message.acknowledge_url.as_deref(),
            content,
        }
    }

    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a body has only strings, numbers, flags and lists of them")
    }
}

impl Verdict {
    fn of(event: &Event, include: Include) -> Option<Verdict> {
        let wording = match event {
            Event::Flagged(_) | Event::Revised(_) => "flagged",
            Event::NotFlagged(_) => "not flagged",
            _ => "incomplete",
        };
        let study = event.verdict()?;
        let study = StudyEvent {
            accession_number: study.accession_number.clone().filter(|_| include.accession_number),
            patient_id: study.patient_id.clone().filter(|_| include.patient_id),
            ..study.clone()
        };
        Some(Verdict { wording, notice: NOTICE, study })
    }
}

/// An event's name in body and header. A flagged study has been an "alert" since the first version.
pub(super) fn kind(event: &Event) -> &'static str {
    match event {
        Event::Flagged(_) => "alert",
        other => other.kind().as_str(),
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(step: &u32) -> bool {
    *step == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::DeliveryFailed;
    use serde_json::Value;

    const ALL: Include = Include { patient_id: true, accession_number: true };

    fn body(event: Event, include: Include) -> Value {
        let message = Message {
            id: 1,
            idempotency_key: "k".into(),
            created_at: "t".into(),
            step: 1,
            event,
            study_url: Some("u".into()),
            acknowledge_url: Some("u".into()),
        };
        serde_json::from_slice(&Body::new(&message, include).to_json()).unwrap()
    }

    #[test]
    fn the_published_schema_has_every_field_of_every_event_and_no_other() {
        let schema: Value = serde_json::from_str(include_str!("../../../docs/webhook.schema.json")).unwrap();
        let acknowledged = Acknowledged {
            study_uid: "1".into(),
            accession_number: Some("A".into()),
            patient_id: Some("P".into()),
            calling_ae_titles: vec![],
            station_name: None,
            revision: 1,
            score: Some(0.7),
            by: "b".into(),
            acknowledged_at: "t".into(),
        };
        let failed = DeliveryFailed {
            notification: 1,
            channel: "c".into(),
            attempts: 1,
            created_at: "t".into(),
            undelivered: Box::new(Event::Flagged(StudyEvent::sample())),
        };
        let trouble = NodeTrouble {
            ae_title: "A".into(),
            ready: false,
            since: "t".into(),
            reasons: vec![],
            software: "s".into(),
        };
        let events = [
            Event::Flagged(StudyEvent::sample()),
            Event::Acknowledged(acknowledged),
            Event::DeliveryFailed(failed),
            Event::NodeTrouble(trouble),
        ];
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let mut fields: Vec<String> = events.into_iter().flat_map(|event| keys(&body(event, ALL))).collect();
        fields.sort();
        fields.dedup();
        let mut described = keys(&schema["properties"]);
        described.sort();
        assert_eq!(fields, described);
    }

    #[test]
    fn an_event_of_any_kind_names_the_patient_only_where_that_is_included() {
        let failed = DeliveryFailed {
            notification: 1,
            channel: "c".into(),
            attempts: 1,
            created_at: "t".into(),
            undelivered: Box::new(Event::Flagged(StudyEvent::sample())),
        };
        for event in [
            Event::Flagged(StudyEvent::sample()),
            Event::Incomplete(StudyEvent::sample()),
            Event::DeliveryFailed(failed),
        ] {
            let neither = body(event.clone(), Include { patient_id: false, accession_number: false });
            assert!(neither.get("patient_id").is_none() && neither.get("accession_number").is_none(), "{neither}");
            let one = body(event, Include { patient_id: false, accession_number: true });
            assert!(one.get("patient_id").is_none() && one["accession_number"] == "ACC-1", "{one}");
        }
    }

    #[test]
    fn a_failed_delivery_tells_the_study_that_it_was_about() {
        let failed = DeliveryFailed {
            notification: 1,
            channel: "c".into(),
            attempts: 1,
            created_at: "t".into(),
            undelivered: Box::new(Event::Flagged(StudyEvent::sample())),
        };
        let body = body(Event::DeliveryFailed(failed), ALL);
        assert_eq!(
            (&body["kind"], &body["undelivered"], &body["wording"]),
            (&"delivery_failed".into(), &"alert".into(), &"flagged".into())
        );
        assert_eq!(body["study_uid"], "1.2.3");
    }
}
