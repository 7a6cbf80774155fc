//! Settings of notification: retries, channels and routes.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{Pacs, Secret};
use crate::event::Kind;

/// The name of the channel that `notify.webhook` defines.
pub const WEBHOOK: &str = "webhook";

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Notify {
    pub first_retry_seconds: f64,
    pub longest_retry_seconds: f64,
    pub max_attempts: u32,
    pub dead_first_retry_minutes: f64,
    pub dead_longest_retry_minutes: f64,
    pub dead_retry_days: f64,
    pub time_zone: String,
    pub undelivered_minutes: f64,
    /// The events that every channel hears where there are no routes, and that a route hears which names none.
    pub events: Vec<Kind>,
    /// Whoever hears of flagged studies hears of those that are incomplete because slices failed, too.
    pub failures: bool,
    pub webhook: Webhook,
    #[serde(default)]
    pub channels: Vec<Channel>,
    #[serde(default)]
    pub routes: Vec<Route>,
}

/// A channel: `[[notify.channels]]`, or the one that `[notify.webhook]` defines.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(try_from = "HashMap<String, config::Value>")]
pub struct Channel {
    /// Unique; in the ledger's `channel`, in metrics, logs and routes.
    pub name: String,
    /// `HH:MM-HH:MM` in local time: messages wait until their end. Empty: none.
    pub quiet_hours: String,
    #[serde(flatten)]
    pub kind: ChannelKind,
}

/// The settings of a channel by its kind.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ChannelKind {
    Webhook(Webhook),
    Email(Email),
    Pacs(Pacs),
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    #[serde(serialize_with = "host_alone")]
    pub url: String,
    #[serde(default)]
    pub secret: Secret,
    #[serde(default = "ten")]
    pub timeout_seconds: f64,
    #[serde(default)]
    pub include_patient_id: bool,
    /// `None`: as `include_patient_id`.
    #[serde(default)]
    pub include_accession_number: Option<bool>,
    /// The format of the body.
    #[serde(default)]
    pub format: WebhookFormat,
    /// The key of the pager's service that is called.
    #[serde(default)]
    pub routing_key: Secret,
    /// The site's own body.
    #[serde(default)]
    pub template_file: String,
    #[serde(default = "json")]
    pub content_type: String,
}

/// `format` of a webhook.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WebhookFormat {
    /// `docs/webhook.schema.json`.
    #[default]
    Triaged,
    Teams,
    Slack,
    Pagerduty,
    Template,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Email {
    pub server: String,
    /// 0: 587, 465 or 25, as `security` asks for.
    #[serde(default)]
    pub port: u16,
    #[serde(default)]
    pub security: MailSecurity,
    #[serde(default)]
    pub username: String,
    #[serde(default)]
    pub password: Secret,
    #[serde(default)]
    pub password_file: String,
    #[serde(default)]
    pub ca_file: String,
    pub from: String,
    pub to: Vec<String>,
    #[serde(default = "thirty")]
    pub timeout_seconds: f64,
    #[serde(default = "yes")]
    pub include_accession_number: bool,
    #[serde(default)]
    pub include_patient_id: bool,
    #[serde(default)]
    pub include_patient_name: bool,
}

/// How a mail server is spoken to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MailSecurity {
    #[default]
    Starttls,
    Tls,
    None,
}

impl Email {
    /// The password, from its file where one is named.
    pub fn read_password(&self) -> Result<String, String> {
        if self.password_file.is_empty() {
            return Ok(self.password.reveal().to_owned());
        }
        let text = std::fs::read_to_string(&self.password_file);
        let text = text.map_err(|error| format!("cannot read {}: {error}", self.password_file))?;
        Ok(text.trim_end_matches(['\r', '\n']).to_owned())
    }
}

/// Who hears what. A condition that is empty or absent holds for every event.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Empty: those of `notify.events`.
    #[serde(default)]
    pub events: Vec<Kind>,
    /// The route is taken if one of these AE titles sent a part of the study.
    #[serde(default)]
    pub calling_ae_titles: Vec<String>,
    /// Station Name (0008,1010).
    #[serde(default)]
    pub stations: Vec<String>,
    /// `HH:MM-HH:MM` in local time; an end before the start is on the next day.
    #[serde(default)]
    pub hours: String,
    /// `mon` to `sun`, in local time.
    #[serde(default)]
    pub weekdays: Vec<String>,
    #[serde(default)]
    pub minimum_score: Option<f64>,
    /// Only where no route without `fallback` holds.
    #[serde(default)]
    pub fallback: bool,
    /// The names of the channels that hear of it.
    pub channels: Vec<String>,
    /// Who hears next where nobody acknowledges.
    #[serde(default)]
    pub escalation: Vec<EscalationStep>,
}

/// A step of escalation.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct EscalationStep {
    /// Minutes after the verdict without an acknowledgement.
    pub after_minutes: f64,
    pub channels: Vec<String>,
}

/// The path and the query of a webhook's address are a secret themselves with Teams and Slack.
fn host_alone<S: serde::Serializer>(url: &str, serializer: S) -> Result<S::Ok, S::Error> {
    let shown = match reqwest::Url::parse(url) {
        Ok(url) => format!("{}://{}/(secret)", url.scheme(), url.host_str().unwrap_or_default()),
        Err(_) if url.is_empty() => String::new(),
        Err(_) => "(secret)".to_owned(),
    };
    serializer.serialize_str(&shown)
}

fn ten() -> f64 {
    10.0
}

fn thirty() -> f64 {
    30.0
}

fn yes() -> bool {
    true
}

fn json() -> String {
    "application/json".into()
}

impl Notify {
    /// Every channel that is configured, `notify.webhook` first.
    pub fn all_channels(&self) -> Vec<Channel> {
        let kind = ChannelKind::Webhook(self.webhook.clone());
        let webhook = Channel { name: WEBHOOK.into(), quiet_hours: String::new(), kind };
        let first = (!self.webhook.url.is_empty()).then_some(webhook);
        first.into_iter().chain(self.channels.iter().cloned()).collect()
    }
}

impl TryFrom<HashMap<String, config::Value>> for Channel {
    type Error = String;

    /// The name and the kind, then the kind's own settings, of which each unknown one is an error.
    fn try_from(mut table: HashMap<String, config::Value>) -> Result<Channel, String> {
        let mut take = |key: &str| -> Result<Option<String>, String> {
            let text = table.remove(key).map(|value| value.into_string());
            text.transpose().map_err(|error| format!("notify.channels: {key}: {error}"))
        };
        let name = take("name")?.ok_or("a channel of notify.channels has no name")?;
        let kind = take("kind")?.ok_or_else(|| format!("notify.channels, channel {name:?}: it has no kind"))?;
        let quiet_hours = take("quiet_hours")?.unwrap_or_default();
        let rest = config::Value::new(None, config::ValueKind::Table(table));
        let settings = match kind.as_str() {
            "webhook" => rest.try_deserialize().map(ChannelKind::Webhook),
            "email" => rest.try_deserialize().map(ChannelKind::Email),
            "pacs" => rest.try_deserialize().map(ChannelKind::Pacs),
            other => {
                let known = "a kind is webhook, email or pacs";
                return Err(format!("notify.channels, channel {name:?}: there is no kind {other:?}; {known}"));
            }
        };
        let kind = settings.map_err(|error| format!("notify.channels, channel {name:?}: {error}"))?;
        Ok(Channel { name, quiet_hours, kind })
    }
}
