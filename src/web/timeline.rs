//! A study's life from its first byte to its acknowledgement, as one list.

use super::api::WholeStudy;
use crate::plural::counted;

/// Something that happened.
pub(super) struct Moment {
    pub(super) at: String,
    /// The name in style sheets: `received`, `verdict`, `flagged`, `told`, `failed`, `person`.
    pub(super) class: &'static str,
    pub(super) what: String,
    /// More about the entry, such as a note.
    pub(super) note: Option<String>,
}

/// All moments of a study, oldest first.
pub(super) fn timeline(whole: &WholeStudy) -> Vec<Moment> {
    let mut moments = Vec::new();
    let mut add = |at: &str, class, what: String, note: Option<&str>| {
        moments.push(Moment { at: at.to_owned(), class, what, note: note.map(str::to_owned) });
    };
    let row = &whole.row;
    let from = row.calling_ae.as_deref().map(|ae| format!(" from {ae}")).unwrap_or_default();
    add(&row.first_received_at, "received", format!("First object received{from}"), None);
    if row.last_received_at != row.first_received_at {
        let count = row.slices_received.unsigned_abs();
        add(
            &row.last_received_at,
            "received",
            format!("Last object so far received, {} in all", counted(count, "slice")),
            None,
        );
    }
    let scored = whole.slices.iter().filter_map(|slice| slice.scored_at.as_deref());
    if let (Some(first), Some(last)) = (scored.clone().min(), scored.max()) {
        add(first, "scored", "First slice scored".into(), None);
        if first != last {
            let scored = counted(row.slices_scored.unsigned_abs(), "slice");
            add(last, "scored", format!("Last of {scored} scored"), None);
        }
    }
    for verdict in &whole.verdicts {
        let (class, words) = match verdict.flagged {
            Some(true) => ("flagged", "Flagged"),
            Some(false) => ("verdict", "Not flagged"),
            None => ("verdict", "Incomplete"),
        };
        let score = verdict.score.map(|score| format!(", score {score:.3}")).unwrap_or_default();
        let provisional = if verdict.provisional { ", before the study was whole" } else { "" };
        let what = format!("{words} by {}{score}, revision {}{provisional}", verdict.model, verdict.revision);
        add(&verdict.decided_at, class, what, verdict.missing.as_deref());
    }
    for notification in &whole.notifications {
        let channel = &notification.channel;
        match (notification.state.as_str(), notification.delivered_at.as_deref()) {
            ("delivered", Some(at)) => add(at, "told", format!("{channel} told"), None),
            ("dead", _) => {
                let attempts = counted(notification.attempts.unsigned_abs(), "attempt");
                let what = format!("{channel} could not be told, {attempts} so far");
                add(&notification.created_at, "failed", what, notification.last_error.as_deref());
            }
            _ => {
                let attempts = counted(notification.attempts.unsigned_abs(), "attempt");
                let what = format!("{channel} is to be told, {attempts} so far");
                add(&notification.created_at, "told", what, notification.last_error.as_deref());
            }
        }
    }
    for deed in &whole.acknowledgements {
        let what = match deed.kind.as_str() {
            "seen" => format!("Seen by {}", deed.actor),
            _ => format!("Acknowledged by {}", deed.actor),
        };
        add(&deed.at, "person", what, deed.note.as_deref());
        if let Some(at) = &deed.undone_at {
            let by = deed.undone_by.as_deref().map(|by| format!(" by {by}")).unwrap_or_default();
            add(at, "person", format!("Acknowledgement taken back{by}"), None);
        }
    }
    for opinion in &whole.feedback {
        let verb = if opinion.opinion == "agree" { "agrees" } else { "disagrees" };
        let verdict = opinion.verdict.as_deref().unwrap_or("the verdict");
        add(&opinion.at, "person", format!("{} {verb} with “{verdict}”", opinion.actor), opinion.note.as_deref());
    }
    for deed in &whole.audit {
        match deed.deed.as_str() {
            "study.rescore" => add(&deed.at, "person", format!("Scored again, asked for by {}", deed.actor), None),
            "notification.requeue" => {
                add(&deed.at, "person", format!("A message sent again, asked for by {}", deed.actor), None);
            }
            // The others are told above.
            _ => {}
        }
    }
    moments.sort_by(|a, b| a.at.cmp(&b.at));
    moments
}
