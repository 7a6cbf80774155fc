//! Bodies that chat systems and pagers understand, and those of a site's own template.

use minijinja::{AutoEscape, Environment, context};
use serde_json::{Value, json};

use super::body::Body;
use crate::event::Event;
use crate::notify::words::Words;
use crate::notify::{Include, Message};

/// The most characters that Slack and PagerDuty take.
const MOST_SLACK_FIELD: usize = 1900;
const MOST_SLACK_HEADER: usize = 150;
const MOST_PAGER_SUMMARY: usize = 1024;

/// A card for a Microsoft Teams workflow: an Adaptive Card 1.4 in a message.
pub(super) fn teams(words: &Words) -> Value {
    let facts: Vec<Value> =
        words.facts.iter().map(|fact| json!({ "title": fact.label, "value": no_markdown(&fact.value) })).collect();
    let link = |title: &str, url: &Option<String>| {
        url.as_ref().map(|url| json!({ "type": "Action.OpenUrl", "title": title, "url": url }))
    };
    let actions: Vec<Value> = [link("Open the study", &words.study_url), link("Acknowledge", &words.acknowledge_url)]
        .into_iter()
        .flatten()
        .collect();
    let mut body = vec![
        json!({
            "type": "TextBlock", "text": no_markdown(&words.title), "weight": "bolder", "size": "medium", "wrap": true,
            "color": if words.urgent { "attention" } else { "default" }
        }),
        json!({ "type": "FactSet", "facts": facts }),
    ];
    if !words.notice.is_empty() {
        body.push(
            json!({ "type": "TextBlock", "text": words.notice, "isSubtle": true, "wrap": true, "size": "small" }),
        );
    }
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": null,
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.4",
                "body": body,
                "actions": actions
            }
        }]
    })
}

/// A message for a Slack incoming webhook.
pub(super) fn slack(words: &Words) -> Value {
    let fields: Vec<String> = words
        .facts
        .iter()
        .map(|fact| cut(&format!("*{}*\n{}", fact.label, slack_escaped(&fact.value)), MOST_SLACK_FIELD))
        .collect();
    let mut blocks = vec![json!({
        "type": "header", "text": { "type": "plain_text", "text": cut(&words.title, MOST_SLACK_HEADER) }
    })];
    // A section has ten fields at most.
    for fields in fields.chunks(10) {
        let fields: Vec<Value> = fields.iter().map(|text| json!({ "type": "mrkdwn", "text": text })).collect();
        blocks.push(json!({ "type": "section", "fields": fields }));
    }
    let link = |title: &str, url: &Option<String>| {
        url.as_ref().map(|url| json!({ "type": "button", "text": { "type": "plain_text", "text": title }, "url": url }))
    };
    let buttons: Vec<Value> = [link("Open the study", &words.study_url), link("Acknowledge", &words.acknowledge_url)]
        .into_iter()
        .flatten()
        .collect();
    if !buttons.is_empty() {
        blocks.push(json!({ "type": "actions", "elements": buttons }));
    }
    if !words.notice.is_empty() {
        blocks.push(json!({ "type": "context", "elements": [{ "type": "plain_text", "text": words.notice }] }));
    }
    json!({ "text": slack_escaped(&words.title), "blocks": blocks })
}

/// An event of PagerDuty's Events API v2, which other pagers take too. An acknowledgement and the end of a trouble reach the
/// incident that the first message opened.
pub(super) fn pager(message: &Message, words: &Words, routing_key: &str) -> Value {
    let action = match &message.event {
        Event::Acknowledged(_) => "acknowledge",
        Event::NodeTrouble(trouble) if trouble.ready => "resolve",
        _ => "trigger",
    };
    let about = match &message.event {
        Event::NodeTrouble(trouble) => format!("node {}", trouble.ae_title),
        // Each an incident of its own: a test that joined the one before would show nothing.
        Event::Test(_) => message.idempotency_key.clone(),
        event => format!("study {}", event.study_uid().unwrap_or("unknown")),
    };
    // Several facts may have one label, such as reasons; a map keeps one value a label.
    let mut details = serde_json::Map::new();
    for fact in &words.facts {
        let value = match details.get(fact.label).and_then(Value::as_str) {
            Some(before) => format!("{before}; {}", fact.value),
            None => fact.value.clone(),
        };
        details.insert(fact.label.to_owned(), value.into());
    }
    let link = |text: &str, url: &Option<String>| url.as_ref().map(|url| json!({ "href": url, "text": text }));
    let links: Vec<Value> = [link("Open the study", &words.study_url), link("Acknowledge", &words.acknowledge_url)]
        .into_iter()
        .flatten()
        .collect();
    json!({
        "routing_key": routing_key,
        "event_action": action,
        "dedup_key": format!("triaged {about}"),
        "payload": {
            "summary": cut(&words.title, MOST_PAGER_SUMMARY),
            "source": "triaged",
            "severity": if words.urgent { "critical" } else { "info" },
            "timestamp": message.created_at,
            "class": message.event.kind().as_str(),
            "custom_details": details
        },
        "links": links
    })
}

/// Steps that filling in a template may take. A message with all its facts takes some hundreds.
const MOST_STEPS: u64 = 1_000_000;

/// A site's own body, in Jinja's language. Where it is JSON, what it inserts is written as JSON.
pub(super) struct Template {
    environment: Environment<'static>,
}

impl Template {
    pub fn parse(source: String, is_json: bool) -> Result<Template, String> {
        let mut environment = Environment::new();
        // A template that goes round for hours must not hold up the messages behind it.
        environment.set_fuel(Some(MOST_STEPS));
        environment.set_auto_escape_callback(move |_| if is_json { AutoEscape::Json } else { AutoEscape::None });
        environment
            .add_template_owned("body", source)
            .map_err(|error| format!("the template cannot be read: {error}"))?;
        Ok(Template { environment })
    }

    /// `event` is what the usual body would be; the rest is what people read.
    pub fn render(&self, message: &Message, words: &Words, include: Include) -> Result<String, String> {
        let template = self.environment.get_template("body").map_err(|error| error.to_string())?;
        let event = serde_json::to_value(Body::new(message, include)).map_err(|error| error.to_string())?;
        template
            .render(context! {
                event,
                title => words.title,
                facts => words.facts,
                notice => words.notice,
                urgent => words.urgent,
                study_url => words.study_url,
                acknowledge_url => words.acknowledge_url,
            })
            .map_err(|error| format!("the template cannot be filled in: {error}"))
    }
}

/// Slack's three control characters.
fn slack_escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Adaptive Cards read a part of Markdown in texts; a link in a value would be a way to lead readers astray.
fn no_markdown(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '[' | ']' | '*' | '_' | '`' | '\\') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::StudyEvent;
    use jiff::tz::TimeZone;

    const ALL: Include = Include { patient_id: true, accession_number: true };

    fn message(accession_number: &str) -> Message {
        let study = StudyEvent { accession_number: Some(accession_number.into()), ..StudyEvent::sample() };
        Message {
            id: 1,
            idempotency_key: "k".into(),
            created_at: "2026-11-23T15:42:09.100Z".into(),
            step: 0,
            event: Event::Flagged(study),
            study_url: Some("https://triaged.example.org/studies/1.2.3".into()),
            acknowledge_url: None,
        }
    }

    #[test]
    fn what_a_peer_sent_cannot_make_a_link_in_a_chat() {
        let message = message("<!channel> [click](https://evil.example) & *bold*");
        let words = Words::of(&message, ALL, &TimeZone::UTC);
        let slack = slack(&words).to_string();
        assert!(slack.contains("&lt;!channel&gt;") && !slack.contains("<!channel>"), "{slack}");
        let teams = teams(&words).to_string();
        assert!(teams.contains(r"\\[click\\](https"), "{teams}");
    }

    #[test]
    fn a_pager_opens_and_acknowledges_one_incident_a_study() {
        let words = |message: &Message| Words::of(message, ALL, &TimeZone::UTC);
        let opened = message("A");
        let acknowledged = Message {
            event: Event::Acknowledged(crate::event::Acknowledged {
                study_uid: "1.2.3".into(),
                accession_number: None,
                patient_id: None,
                calling_ae_titles: vec![],
                station_name: None,
                revision: 1,
                score: None,
                by: "a person".into(),
                acknowledged_at: "2026-11-23T15:42:09.100Z".into(),
            }),
            ..opened.clone()
        };
        let (opened, acknowledged) =
            (pager(&opened, &words(&opened), "key"), pager(&acknowledged, &words(&acknowledged), "key"));
        assert_eq!(
            (&opened["event_action"], &acknowledged["event_action"]),
            (&"trigger".into(), &"acknowledge".into())
        );
        assert_eq!(opened["dedup_key"], acknowledged["dedup_key"]);
        assert_eq!(opened["payload"]["severity"], "critical");
    }

    #[test]
    fn a_pager_is_told_every_reason_and_each_test_by_itself() {
        let words = |message: &Message| Words::of(message, ALL, &TimeZone::UTC);
        let trouble = Message {
            event: Event::NodeTrouble(crate::event::NodeTrouble {
                ae_title: "TRIAGED".into(),
                ready: false,
                since: "2026-11-23T15:42:09.100Z".into(),
                reasons: vec!["disk: 12 MiB free".into(), "ledger: it does not answer".into()],
                software: "triaged 1".into(),
            }),
            ..message("A")
        };
        let told = pager(&trouble, &words(&trouble), "key")["payload"]["custom_details"].to_string();
        assert!(told.contains("12 MiB free") && told.contains("does not answer"), "{told}");
        let test = |key: &str| {
            let test = crate::event::Test { ae_title: "TRIAGED".into(), software: "triaged 1".into() };
            let message = Message { event: Event::Test(test), idempotency_key: key.into(), ..message("A") };
            pager(&message, &words(&message), "key")["dedup_key"].clone()
        };
        assert_ne!(test("test-1"), test("test-2"));
    }

    #[test]
    fn a_sites_template_is_filled_in_and_escaped_as_json() {
        let source = r#"{"text": {{ title }}, "accession": {{ event.accession_number }}, "facts": {{ facts|length }}}"#;
        let template = Template::parse(source.into(), true).unwrap();
        let message = message("A\"}, \"text\": \"forged");
        let words = Words::of(&message, ALL, &TimeZone::UTC);
        let body: Value = serde_json::from_str(&template.render(&message, &words, ALL).unwrap()).unwrap();
        assert_eq!(body["accession"], "A\"}, \"text\": \"forged");
        assert_eq!(body["text"], words.title.as_str());
        assert!(Template::parse("{{ title".into(), true).is_err());
        let rounds = "{% for a in range(99999) %}{% for b in range(99999) %}{{ b }}{% endfor %}{% endfor %}";
        let error = Template::parse(rounds.into(), false).unwrap().render(&message, &words, ALL).unwrap_err();
        assert!(error.contains("cannot be filled in"), "{error}");
    }
}
