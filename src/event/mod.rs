//! Events: what happened, as a type that every channel can render. The ledger keeps an event as JSON beside its message;
//! it does not change between attempts, however long they take.
//!
//! This module knows no other one of the program, so that the ledger, the triage stage and the channels can share it.

mod kind;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use triaged_imaging::PixelBox;

pub use kind::Kind;

/// The notice in every message about a verdict.
pub const NOTICE: &str = "For prioritisation only, not a diagnosis: flagged studies are to be read first, and a study \
                          that is not flagged is not cleared.";

/// The version of the JSON in the outbox. The first version had no number and knew only flagged studies.
const FORMAT: u64 = 2;

/// Something that people or systems may want to hear of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A study was flagged, provisionally or finally.
    Flagged(StudyEvent),
    /// A study that was flagged before has a further verdict, with more evidence.
    Revised(StudyEvent),
    /// A study could not be judged, or only in part: it needs the usual order of reading.
    Incomplete(StudyEvent),
    /// A study was judged and not flagged. That is not a clearance.
    NotFlagged(StudyEvent),
    /// A person has seen a study's alert.
    Acknowledged(Acknowledged),
    /// A message about a study did not arrive in time on its channel.
    DeliveryFailed(DeliveryFailed),
    /// The node is not ready, or is ready again.
    NodeTrouble(NodeTrouble),
    /// A person tries whether a channel works.
    Test(Test),
}

/// A verdict on a study. Times are UTC ISO 8601 with milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StudyEvent {
    pub study_uid: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accession_number: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patient_id: Option<String>,
    /// The AE titles that sent slices of the study.
    #[serde(default)]
    pub calling_ae_titles: Vec<String>,
    /// Station Name (0008,1010), where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub station_name: Option<String>,
    /// The meaning of a positive result, as in the model card, e.g. `intracranial hemorrhage`.
    pub finding: String,
    pub revision: i64,
    /// The evidence suffices, but the study was not complete.
    pub provisional: bool,
    /// By the study rule or, of a final verdict, the sequence network; flagged at `threshold` or above. `None`: no slice was scored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    pub threshold: f64,
    pub model: String,
    /// SHA-256 of the ONNX file, 64 lower-case hex digits.
    pub model_sha256: String,
    pub slices_received: i64,
    pub slices_scored: i64,
    pub slices_ineligible: i64,
    pub slices_failed: i64,
    /// Why the study is incomplete, or what else its reader must know; a sentence each, without patient data.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
    /// The slices with the highest probabilities, highest first; a few.
    #[serde(default)]
    pub top_slices: Vec<TopSlice>,
    pub first_received_at: String,
    pub last_received_at: String,
    pub decided_at: String,
    /// Name and version of the software that gave the verdict.
    pub software: String,
}

/// A slice that contributed to a verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TopSlice {
    pub series_uid: String,
    pub sop_uid: String,
    /// Instance Number (0020,0013), where the slice has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_number: Option<i64>,
    /// Counts from 1.
    pub frame: u32,
    pub probability: f64,
    /// The box around the finding in pixels of the slice, where the model says where it is.
    #[serde(default, rename = "box", skip_serializing_if = "Option::is_none")]
    pub pixel_box: Option<PixelBox>,
}

/// A person has seen a study's alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Acknowledged {
    pub study_uid: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accession_number: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patient_id: Option<String>,
    #[serde(default)]
    pub calling_ae_titles: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub station_name: Option<String>,
    pub revision: i64,
    /// The highest score of the study's verdicts, by which routes choose; no part of a message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// Who, as the ledger knows them: a name, a token, or the way the acknowledgement came.
    pub by: String,
    pub acknowledged_at: String,
}

/// A message that did not arrive in time. What its counterpart answered stays in the ledger: it may repeat patient data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeliveryFailed {
    /// The message's id in `notification_log`.
    pub notification: i64,
    /// The channel that does not deliver.
    pub channel: String,
    pub attempts: u32,
    /// When the message was raised.
    pub created_at: String,
    /// The event that was to be told, so that whoever hears of the failure hears of the study.
    pub undelivered: Box<Event>,
}

/// The node's readiness changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeTrouble {
    /// The node's AE title, so that its administrator knows which one speaks.
    pub ae_title: String,
    /// Whether the trouble is over.
    pub ready: bool,
    /// Since when, UTC ISO 8601.
    pub since: String,
    /// The checks of `/readyz` that fail, in words.
    pub reasons: Vec<String>,
    pub software: String,
}

/// A person tries whether a channel works (`triaged check --send-test`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Test {
    /// The node's AE title.
    pub ae_title: String,
    pub software: String,
}

impl Event {
    pub fn kind(&self) -> Kind {
        match self {
            Event::Flagged(_) => Kind::Flagged,
            Event::Revised(_) => Kind::Revised,
            Event::Incomplete(_) => Kind::Incomplete,
            Event::NotFlagged(_) => Kind::NotFlagged,
            Event::Acknowledged(_) => Kind::Acknowledged,
            Event::DeliveryFailed(_) => Kind::DeliveryFailed,
            Event::NodeTrouble(_) => Kind::NodeTrouble,
            Event::Test(_) => Kind::Test,
        }
    }

    /// The verdict that this event tells, or that a failed delivery was to tell.
    pub fn verdict(&self) -> Option<&StudyEvent> {
        match self {
            Event::Flagged(study) | Event::Revised(study) | Event::Incomplete(study) | Event::NotFlagged(study) => {
                Some(study)
            }
            Event::DeliveryFailed(failed) => failed.undelivered.verdict(),
            Event::Acknowledged(_) | Event::NodeTrouble(_) | Event::Test(_) => None,
        }
    }

    /// Whether it says that a study is not flagged or could not be judged, or that this could not be told: nobody is to hear that of a study
    /// that is flagged since.
    pub fn says_not_flagged(&self) -> bool {
        match self {
            Event::Incomplete(_) | Event::NotFlagged(_) => true,
            Event::DeliveryFailed(failed) => failed.undelivered.says_not_flagged(),
            _ => false,
        }
    }

    /// The study that this event is about; `None` where it is about the node.
    pub fn study_uid(&self) -> Option<&str> {
        match self {
            Event::Acknowledged(acknowledged) => Some(&acknowledged.study_uid),
            _ => self.verdict().map(|study| study.study_uid.as_str()),
        }
    }

    /// The study's revision; 0 where the event is about the node.
    pub fn revision(&self) -> i64 {
        match self {
            Event::Acknowledged(acknowledged) => acknowledged.revision,
            _ => self.verdict().map_or(0, |study| study.revision),
        }
    }

    /// The score of the study; `None` where it has none, or the event is about the node.
    pub fn score(&self) -> Option<f64> {
        match self {
            Event::Acknowledged(acknowledged) => acknowledged.score,
            _ => self.verdict().and_then(|study| study.score),
        }
    }

    pub fn accession_number(&self) -> Option<&str> {
        match self {
            Event::Acknowledged(acknowledged) => acknowledged.accession_number.as_deref(),
            _ => self.verdict().and_then(|study| study.accession_number.as_deref()),
        }
    }

    pub fn patient_id(&self) -> Option<&str> {
        match self {
            Event::Acknowledged(acknowledged) => acknowledged.patient_id.as_deref(),
            _ => self.verdict().and_then(|study| study.patient_id.as_deref()),
        }
    }

    /// Which AE titles sent the study.
    pub fn calling_ae_titles(&self) -> &[String] {
        match self {
            Event::Acknowledged(acknowledged) => &acknowledged.calling_ae_titles,
            _ => self.verdict().map_or(&[], |study| &study.calling_ae_titles),
        }
    }

    pub fn station_name(&self) -> Option<&str> {
        match self {
            Event::Acknowledged(acknowledged) => acknowledged.station_name.as_deref(),
            _ => self.verdict().and_then(|study| study.station_name.as_deref()),
        }
    }

    /// Two events of one kind, study, finding and model are told once a channel, unless their occasions differ. So a flag
    /// is told once whatever comes after it (promise 6), and each revision of it once.
    pub fn occasion(&self) -> String {
        match self {
            Event::Flagged(_) | Event::Incomplete(_) | Event::Test(_) => String::new(),
            Event::Revised(study) | Event::NotFlagged(study) => format!("revision {}", study.revision),
            Event::Acknowledged(acknowledged) => acknowledged.acknowledged_at.clone(),
            Event::DeliveryFailed(failed) => format!("notification {}", failed.notification),
            Event::NodeTrouble(trouble) => format!("{} since {}", trouble.ready, trouble.since),
        }
    }

    /// As the ledger keeps it.
    pub fn to_json(&self) -> String {
        let mut value =
            serde_json::to_value(self).expect("an event has only strings, numbers, flags and lists of them");
        value["format"] = FORMAT.into();
        value.to_string()
    }

    /// As read from the ledger, where an earlier version may have written it. Unknown fields are ignored.
    pub fn from_json(json: &str) -> Result<Event, String> {
        let wrong = |error: serde_json::Error| format!("the event in the outbox cannot be read: {error}");
        let mut value: Value = serde_json::from_str(json).map_err(wrong)?;
        match value.get("format").and_then(Value::as_u64) {
            Some(FORMAT) => {}
            Some(later) => {
                return Err(format!("the event in the outbox has format {later}; this version reads {FORMAT}"));
            }
            None => {
                if let Some(fields) = value.as_object_mut() {
                    fields.insert("event".into(), Kind::Flagged.as_str().into());
                }
            }
        }
        serde_json::from_value(value).map_err(wrong)
    }
}

#[cfg(test)]
impl StudyEvent {
    /// For tests of every module: all fields have a value.
    pub(crate) fn sample() -> StudyEvent {
        StudyEvent {
            study_uid: "1.2.3".into(),
            accession_number: Some("ACC-1".into()),
            patient_id: Some("PAT-1".into()),
            calling_ae_titles: vec!["CT1".into(), "CT2".into()],
            station_name: Some("Room 2".into()),
            finding: "intracranial hemorrhage".into(),
            revision: 1,
            provisional: false,
            score: Some(0.7),
            threshold: 0.5,
            model: "m".into(),
            model_sha256: "ab".repeat(32),
            slices_received: 3,
            slices_scored: 2,
            slices_ineligible: 1,
            slices_failed: 0,
            remarks: vec!["a slice is a localizer".into()],
            top_slices: vec![TopSlice {
                series_uid: "1.2.3.1".into(),
                sop_uid: "1.2.3.1.1".into(),
                instance_number: Some(14),
                frame: 1,
                probability: 0.9,
                pixel_box: Some(PixelBox { left: 200, top: 120, width: 64, height: 48 }),
            }],
            first_received_at: "2026-11-23T15:42:07.100Z".into(),
            last_received_at: "2026-11-23T15:42:08.100Z".into(),
            decided_at: "2026-11-23T15:42:09.100Z".into(),
            software: "triaged 1".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn study() -> StudyEvent {
        StudyEvent { revision: 2, score: Some(0.1 + 0.2), ..StudyEvent::sample() }
    }

    #[test]
    fn what_is_written_is_read_again_to_the_last_bit() {
        let failed = DeliveryFailed {
            notification: 7,
            channel: "pager".into(),
            attempts: 3,
            created_at: "2026-11-23T15:42:09.100Z".into(),
            undelivered: Box::new(Event::Flagged(study())),
        };
        for event in [Event::Flagged(study()), Event::Incomplete(study()), Event::DeliveryFailed(failed)] {
            assert_eq!(Event::from_json(&event.to_json()).unwrap(), event);
        }
    }

    #[test]
    fn the_first_versions_alert_is_still_read() {
        let old = r#"{"study_uid":"1.2.3","accession_number":"A","patient_id":"P","finding":"intracranial hemorrhage",
            "wording":"flagged","revision":1,"provisional":false,"score":0.9,"threshold":0.5,"model":"m10",
            "model_sha256":"00","slices_received":2,"slices_scored":2,"slices_ineligible":0,"slices_failed":0,
            "top_slices":[{"series_uid":"1","sop_uid":"2","frame":1,"probability":0.9}],
            "first_received_at":"a","last_received_at":"b","decided_at":"c","software":"triaged 0.1.0","notice":"n"}"#;
        let Event::Flagged(study) = Event::from_json(old).unwrap() else { panic!("it knew no other kind") };
        assert_eq!((study.study_uid.as_str(), study.score, study.top_slices.len()), ("1.2.3", Some(0.9), 1));
        assert!(Event::from_json("{}").is_err());
        assert!(Event::from_json(r#"{"format":3,"event":"flagged"}"#).unwrap_err().contains("format 3"));
    }

    #[test]
    fn a_flag_has_one_occasion_and_a_revision_each_its_own() {
        let later = StudyEvent { revision: 3, ..study() };
        assert_eq!(Event::Flagged(study()).occasion(), Event::Flagged(later.clone()).occasion());
        assert_ne!(Event::Revised(study()).occasion(), Event::Revised(later).occasion());
    }
}
