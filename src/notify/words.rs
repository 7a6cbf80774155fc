//! A message in words for people: what e-mails, chat cards and pagers show.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::{Include, Message};
use crate::event::{Event, NOTICE, StudyEvent};
use crate::outside;
use crate::plural::counted;

/// The text that a person reads. No part of `title` is about a patient.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Words {
    /// One line, fit for a subject, without identifiers of a patient.
    pub title: String,
    /// Labels with their values, the most important first.
    pub facts: Vec<Fact>,
    /// A warning that stands in every message about a verdict; empty in others.
    pub notice: &'static str,
    /// Whether somebody should act now.
    pub urgent: bool,
    /// The study's page, where `web.public_url` is set.
    pub study_url: Option<String>,
    /// A link that acknowledges without logging in, once.
    pub acknowledge_url: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Fact {
    pub label: &'static str,
    pub value: String,
}

impl Words {
    /// `zone` is the readers'; times that cannot be read are shown as they are.
    pub fn of(message: &Message, include: Include, zone: &TimeZone) -> Words {
        let mut facts = Facts { facts: Vec::new(), zone };
        let event = &message.event;
        if let Event::DeliveryFailed(failed) = event {
            facts.add("Not delivered on", Some(&failed.channel));
            facts.add("Tried", Some(times(failed.attempts)));
            facts.add_time("Since", &failed.created_at);
        }
        if include.accession_number {
            facts.add("Accession number", event.accession_number());
        }
        if include.patient_id {
            facts.add("Patient ID", event.patient_id());
        }
        match event {
            Event::Acknowledged(acknowledged) => {
                facts.add("Acknowledged by", Some(&acknowledged.by));
                facts.add_time("At", &acknowledged.acknowledged_at);
            }
            Event::NodeTrouble(trouble) => {
                facts.add("Node", Some(&trouble.ae_title));
                facts.add_time("Since", &trouble.since);
                for reason in &trouble.reasons {
                    facts.add("Because", Some(reason));
                }
                facts.add("Software", Some(&trouble.software));
            }
            Event::Test(test) => {
                facts.add("Node", Some(&test.ae_title));
                facts.add("Software", Some(&test.software));
            }
            _ => {}
        }
        if let Some(study) = event.verdict() {
            facts.add_verdict(study);
        }
        let from = event.calling_ae_titles().join(", ");
        let sender = event.station_name().map_or_else(|| from.clone(), |station| format!("{from} ({station})"));
        facts.add("Sent by", Some(sender));
        facts.add("Study Instance UID", event.study_uid());
        Words {
            title: title(message),
            facts: facts.facts,
            notice: if event.verdict().is_some() { NOTICE } else { "" },
            urgent: match event {
                Event::NodeTrouble(trouble) => !trouble.ready,
                Event::DeliveryFailed(failed) => failed.undelivered.kind().is_urgent(),
                event => event.kind().is_urgent(),
            },
            study_url: message.study_url.clone(),
            acknowledge_url: message.acknowledge_url.clone(),
        }
    }

    /// Names the patient, before all other facts.
    pub fn name_patient(&mut self, name: &str) {
        self.facts.splice(0..0, Fact::of("Patient name", name));
    }

    /// The title and the facts as lines.
    #[cfg(test)]
    fn lines(&self) -> Vec<String> {
        let facts = self.facts.iter().map(|fact| format!("{}: {}", fact.label, fact.value));
        [self.title.clone()].into_iter().chain(facts).collect()
    }
}

impl Fact {
    /// A value from outside could forge a further line, or read otherwise than it is. `None` where there is nothing to read.
    fn of(label: &'static str, value: &str) -> Option<Fact> {
        let value = outside::shown(value);
        (!value.trim().is_empty()).then(|| Fact { label, value: value.into_owned() })
    }
}

struct Facts<'a> {
    facts: Vec<Fact>,
    zone: &'a TimeZone,
}

impl Facts<'_> {
    fn add(&mut self, label: &'static str, value: Option<impl AsRef<str>>) {
        self.facts.extend(value.and_then(|value| Fact::of(label, value.as_ref())));
    }

    fn add_time(&mut self, label: &'static str, time: &str) {
        let local = time.parse::<Timestamp>().map(|time| {
            let moment = time.to_zoned_datetime(self.zone.clone());
            moment.strftime("%Y-%m-%d %H:%M:%S %:z").to_string()
        });
        self.add(label, Some(local.unwrap_or_else(|_| time.to_owned())));
    }

    fn add_verdict(&mut self, study: &StudyEvent) {
        for remark in &study.remarks {
            self.add("Remark", Some(remark));
        }
        if let Some(slice) = study.top_slices.first() {
            let number = slice.instance_number.map_or_else(|| "without a number".into(), |number| number.to_string());
            let frame = if slice.frame > 1 { format!(", frame {}", slice.frame) } else { String::new() };
            self.add("Look first at", Some(format!("instance {number}{frame} (probability {:.2})", slice.probability)));
            self.add("In series", Some(&slice.series_uid));
        }
        match study.score {
            Some(score) => self.add("Score", Some(format!("{score:.3}; flagged from {:.3}", study.threshold))),
            None => self.add("Score", Some("none: no slice was scored")),
        }
        let counts = format!(
            "{} received, {} scored, {} ineligible, {} failed",
            study.slices_received, study.slices_scored, study.slices_ineligible, study.slices_failed
        );
        self.add("Slices", Some(counts));
        self.add_time("Last slice received", &study.last_received_at);
        self.add_time("Judged", &study.decided_at);
        self.add("Model", Some(format!("{} ({})", study.model, study.software)));
    }
}

fn title(message: &Message) -> String {
    let about = |event: &Event| match event {
        Event::Flagged(study) if study.provisional => {
            format!("Study flagged: suspected {}, still receiving", study.finding)
        }
        Event::Flagged(study) => format!("Study flagged: suspected {}", study.finding),
        Event::Revised(study) => format!("Flagged study has more evidence: suspected {}", study.finding),
        Event::Incomplete(_) => "Study not triaged, or only in part: read it in the usual order".to_owned(),
        Event::NotFlagged(_) => "Study not flagged (no clearance)".to_owned(),
        Event::Acknowledged(_) => "Study acknowledged".to_owned(),
        Event::DeliveryFailed(failed) => format!("Alert not delivered on channel {}", failed.channel),
        Event::Test(_) => "Test message: this channel works".to_owned(),
        Event::NodeTrouble(trouble) if trouble.ready => "Node is ready again".to_owned(),
        Event::NodeTrouble(_) => "Node is not ready: studies may not be triaged".to_owned(),
    };
    let mut title = about(&message.event);
    if let Event::DeliveryFailed(failed) = &message.event {
        title = format!("{title}: {}", about(&failed.undelivered));
    }
    match message.step {
        0 => title,
        _ => format!("NOT ACKNOWLEDGED after {}: {title}", age(message)),
    }
}

/// How long after the verdict an escalated message was raised; it does not change between attempts.
fn age(message: &Message) -> String {
    let times = (message.event.verdict().map(|study| &study.decided_at), &message.created_at);
    let (Some(decided), created) = times else { return "a while".into() };
    let (Ok(decided), Ok(created)) = (decided.parse::<Timestamp>(), created.parse::<Timestamp>()) else {
        return "a while".into();
    };
    let age = Duration::try_from(created.duration_since(decided)).unwrap_or_default();
    match age.as_secs() {
        seconds @ 0..120 => counted(seconds, "second"),
        seconds => counted((seconds + 30) / 60, "minute"),
    }
}

fn times(attempts: u32) -> String {
    if attempts == 1 { "once".into() } else { format!("{attempts} times") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::DeliveryFailed;

    const ALL: Include = Include { patient_id: true, accession_number: true };

    fn message(event: Event, step: u32) -> Message {
        Message {
            id: 1,
            idempotency_key: "k".into(),
            created_at: "2026-11-23T15:52:09.100Z".into(),
            step,
            event,
            study_url: None,
            acknowledge_url: None,
        }
    }

    #[test]
    fn a_title_names_no_patient_and_the_facts_only_what_is_included() {
        let none = Include { patient_id: false, accession_number: false };
        for event in [Event::Flagged(StudyEvent::sample()), Event::Incomplete(StudyEvent::sample())] {
            let all = Words::of(&message(event.clone(), 1), ALL, &TimeZone::UTC);
            assert!(!all.title.contains("ACC-1") && !all.title.contains("PAT-1"), "{}", all.title);
            let text = all.lines().join("\n");
            assert!(text.contains("Accession number: ACC-1") && text.contains("Patient ID: PAT-1"), "{text}");
            assert!(text.contains("instance 14") && text.contains("2026-11-23 15:42:08 +00:00"), "{text}");
            let text = Words::of(&message(event, 0), none, &TimeZone::UTC).lines().join("\n");
            assert!(!text.contains("ACC-1") && !text.contains("PAT-1"), "{text}");
        }
    }

    #[test]
    fn an_escalated_message_says_since_when_nobody_acknowledged() {
        let words = Words::of(&message(Event::Flagged(StudyEvent::sample()), 1), ALL, &TimeZone::UTC);
        assert!(words.title.starts_with("NOT ACKNOWLEDGED after 10 minutes: Study flagged"), "{}", words.title);
        assert!(words.urgent);
    }

    #[test]
    fn a_failed_delivery_says_what_was_to_be_told() {
        let failed = DeliveryFailed {
            notification: 1,
            channel: "pager".into(),
            attempts: 3,
            created_at: "2026-11-23T15:42:09.100Z".into(),
            undelivered: Box::new(Event::Flagged(StudyEvent::sample())),
        };
        let words = Words::of(&message(Event::DeliveryFailed(failed), 0), ALL, &TimeZone::UTC);
        assert!(words.title.contains("pager") && words.title.contains("flagged"), "{}", words.title);
        assert!(words.lines().contains(&"Tried: 3 times".to_owned()));
    }

    #[test]
    fn a_value_cannot_forge_a_line_nor_read_otherwise_than_it_is() {
        let study = StudyEvent {
            accession_number: Some("A\r\nScore: 0".into()),
            patient_id: Some("12\u{202e}345".into()),
            ..StudyEvent::sample()
        };
        let mut words = Words::of(&message(Event::Flagged(study), 0), ALL, &TimeZone::UTC);
        words.name_patient("Doe, Jane\nBcc: evil@example.org\n\nScore: 0.0");
        let lines = words.lines();
        assert!(lines.iter().all(|line| !line.contains(['\r', '\n', '\u{202e}'])), "{lines:?}");
        assert_eq!(lines[1], "Patient name: Doe, Jane\u{fffd}Bcc: evil@example.org\u{fffd}\u{fffd}Score: 0.0");
        assert!(lines.contains(&"Patient ID: 12\u{fffd}345".to_owned()), "{lines:?}");
        let facts = words.facts.len();
        words.name_patient(" ");
        assert_eq!(words.facts.len(), facts);
    }
}
