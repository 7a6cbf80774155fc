//! The webhook: a message as a signed JSON POST.
//!
//! `X-Triaged-Signature` is `sha256=` and the hexadecimal HMAC-SHA256, keyed with the shared secret, of
//! `X-Triaged-Timestamp` (Unix seconds), a full stop and the body as sent. A receiver checks the signature, refuses
//! timestamps that are too old, and drops an `Idempotency-Key` that it has seen. `docs/webhook.schema.json` describes the
//! body.

mod body;
mod chat;

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url, redirect};
use sha2::Sha256;

use super::words::Words;
use super::{Attempt, Channel, ChannelError, Failure, Include, Message, Outcome};
use crate::causes;
use crate::config::{self, WebhookFormat};
use body::{Body, kind};

/// How many bytes of a reply are read, and how many characters of it are kept for the administrator.
const MOST_REPLY_BYTES: usize = 64 * 1024;
const MOST_REPLY_CHARS: usize = 200;

/// POSTs messages to one URL.
pub struct Webhook {
    name: String,
    client: Client,
    url: Url,
    secret: String,
    include: Include,
    format: Format,
    content_type: HeaderValue,
    zone: TimeZone,
}

/// How a message becomes a body.
enum Format {
    Triaged,
    Teams,
    Slack,
    Pager { routing_key: String },
    Template(Box<chat::Template>),
}

impl Webhook {
    /// Errors name the setting as `section.key`.
    pub fn new(name: &str, settings: &config::Webhook, zone: &TimeZone) -> Result<Webhook, ChannelError> {
        let section = match name {
            config::WEBHOOK => "notify.webhook".to_owned(),
            other => format!("notify.channels, channel {other:?}"),
        };
        let wrong = |key: &str, why: String| ChannelError::new(format!("{section}.{key}"), why);
        let url = Url::parse(&settings.url).map_err(|error| wrong("url", error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("url", "starts with https:// or http://".into()));
        }
        if !(settings.timeout_seconds > 0.0 && settings.timeout_seconds <= 3600.0) {
            return Err(wrong("timeout_seconds", "must be more than 0, and at most 3600".into()));
        }
        // reqwest takes the process's provider. Where one is installed already, that one will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client = Client::builder()
            .user_agent(concat!("triaged/", env!("CARGO_PKG_VERSION")))
            .timeout(Duration::from_secs_f64(settings.timeout_seconds))
            // A signed alert goes where the administrator said, not where the receiver says.
            .redirect(redirect::Policy::none())
            .referer(false);
        if url.scheme() == "http" {
            // Certificates are not needed, and a system without any must not keep the channel from opening.
            client = client.tls_certs_only([]);
        }
        if is_loopback(&url) {
            client = client.no_proxy();
        }
        let client = client
            .build()
            .map_err(|error| wrong("url", format!("the HTTP client cannot start: {}", in_full(error))))?;
        Ok(Webhook {
            name: name.to_owned(),
            client,
            url,
            secret: settings.secret.reveal().to_owned(),
            include: Include {
                patient_id: settings.include_patient_id,
                // Cards for people carry it unless that is switched off; the first format kept it with the patient ID.
                accession_number: settings.include_accession_number.unwrap_or(match settings.format {
                    WebhookFormat::Triaged => settings.include_patient_id,
                    _ => true,
                }),
            },
            format: Format::new(settings).map_err(|(key, why)| wrong(key, why))?,
            content_type: HeaderValue::from_str(&settings.content_type)
                .map_err(|_| wrong("content_type", format!("{:?} is not a media type", settings.content_type)))?,
            zone: zone.clone(),
        })
    }

    fn body(&self, message: &Message) -> Result<Vec<u8>, String> {
        let words = || Words::of(message, self.include, &self.zone);
        Ok(match &self.format {
            Format::Triaged => Body::new(message, self.include).to_json(),
            Format::Teams => chat::teams(&words()).to_string().into_bytes(),
            Format::Slack => chat::slack(&words()).to_string().into_bytes(),
            Format::Pager { routing_key } => chat::pager(message, &words(), routing_key).to_string().into_bytes(),
            Format::Template(template) => template.render(message, &words(), self.include)?.into_bytes(),
        })
    }

    fn headers(&self, message: &Message, body: &[u8]) -> Result<HeaderMap, String> {
        let value =
            |text: &str| HeaderValue::from_str(text).map_err(|_| format!("{text:?} cannot be an HTTP header's value"));
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, self.content_type.clone());
        headers.insert("idempotency-key", value(&message.idempotency_key)?);
        headers.insert("x-triaged-event", value(kind(&message.event))?);
        let timestamp = Timestamp::now().as_second().to_string();
        headers.insert("x-triaged-timestamp", value(&timestamp)?);
        if !self.secret.is_empty() {
            let signature = sign(&self.secret, &timestamp, body);
            headers.insert("x-triaged-signature", value(&format!("sha256={signature}"))?);
        }
        Ok(headers)
    }

    async fn post(&self, message: &Message) -> Outcome {
        let prepared = self.body(message).and_then(|body| Ok((self.headers(message, &body)?, body)));
        let (headers, body) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return Outcome::Reject { error: error.into() },
        };
        match self.client.post(self.url.clone()).headers(headers).body(body).send().await {
            Ok(response) => self.judge(response).await,
            Err(error) => Outcome::Retry { error: in_full(error).into(), after: None },
        }
    }

    async fn judge(&self, response: Response) -> Outcome {
        let status = response.status();
        if status.is_success() {
            return Outcome::Delivered;
        }
        if status.is_redirection() {
            let text = format!("HTTP {status}: redirects are not followed; set the webhook's url to the final address");
            return Outcome::Reject { error: text.into() };
        }
        let after = response.headers().get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?));
        let error = Failure { text: format!("HTTP {status}"), reply: self.reply(response).await };
        match status {
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Outcome::Retry { error, after },
            status if status.is_client_error() => Outcome::Reject { error },
            _ => Outcome::Retry { error, after },
        }
    }

    /// The beginning of the reply, as one line of printable characters without what must stay secret.
    async fn reply(&self, mut response: Response) -> Option<String> {
        let mut bytes = Vec::new();
        while bytes.len() < MOST_REPLY_BYTES {
            match response.chunk().await {
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk[..chunk.len().min(MOST_REPLY_BYTES - bytes.len())]),
                _ => break,
            }
        }
        let secrets = self.secrets();
        let without = |text: String, secrets: &[String]| {
            secrets.iter().filter(|secret| !secret.is_empty()).fold(text, |text, secret| text.replace(secret, "…"))
        };
        let clean = on_one_line(&without(String::from_utf8_lossy(&bytes).into_owned(), &secrets));
        // Spaces or breaks within a secret hide it from the first look and are gone now.
        let clean = without(clean, &secrets.iter().map(|secret| on_one_line(secret)).collect::<Vec<_>>());
        let reply: String = clean.chars().take(MOST_REPLY_CHARS).collect();
        (!reply.is_empty()).then_some(reply)
    }

    /// Texts that a reply might repeat and that no log may hold: the key, and the parts of a URL that often are tokens.
    fn secrets(&self) -> Vec<String> {
        let segments = self.url.path_segments().into_iter().flatten().map(str::to_owned);
        let query = self.url.query_pairs().map(|(_, value)| value.into_owned());
        let login = [self.url.username().to_owned(), self.url.password().unwrap_or_default().to_owned()];
        let mut secrets: Vec<String> = segments
            .chain(query)
            .chain(login)
            .chain([self.secret.clone(), self.format.secret().to_owned()])
            .filter(|s| s.len() >= 4)
            .collect();
        // The longest first, so that none leaves a rest of another behind.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets
    }
}

/// Control characters are spaces, and any number of spaces one.
fn on_one_line(text: &str) -> String {
    text.split(|c: char| c.is_control() || c.is_whitespace())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

impl Format {
    /// The error is the setting's key and what is wrong with it.
    fn new(settings: &config::Webhook) -> Result<Format, (&'static str, String)> {
        Ok(match settings.format {
            WebhookFormat::Triaged => Format::Triaged,
            WebhookFormat::Teams => Format::Teams,
            WebhookFormat::Slack => Format::Slack,
            WebhookFormat::Pagerduty => {
                let routing_key = settings.routing_key.reveal().to_owned();
                if routing_key.is_empty() {
                    return Err(("routing_key", "is empty: a pager needs the key of its service".into()));
                }
                Format::Pager { routing_key }
            }
            WebhookFormat::Template => {
                let file = &settings.template_file;
                let source = std::fs::read_to_string(file)
                    .map_err(|error| ("template_file", format!("cannot read {file:?}: {error}")))?;
                let is_json = settings.content_type.contains("json");
                let template = chat::Template::parse(source, is_json)
                    .map_err(|why| ("template_file", format!("{file:?}: {why}")))?;
                Format::Template(Box::new(template))
            }
        })
    }

    fn secret(&self) -> &str {
        match self {
            Format::Pager { routing_key } => routing_key,
            _ => "",
        }
    }
}

impl Channel for Webhook {
    fn name(&self) -> &str {
        &self.name
    }

    fn deliver<'a>(&'a self, message: &'a Message) -> Attempt<'a> {
        Box::pin(self.post(message))
    }
}

fn sign(secret: &str, timestamp: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}

/// RFC 9110 10.2.3: seconds, or a date.
fn retry_after(value: &str) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
    Some(Duration::try_from(Timestamp::now().duration_until(at)).unwrap_or_default())
}

/// The error and its causes, without the URL: it may hold a token.
fn in_full(error: reqwest::Error) -> String {
    causes::in_full(&error.without_url())
}

fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    host == "localhost"
        || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_hmac_sha256_over_timestamp_and_body() {
        // echo -n '1700000000.{"a":1}' | openssl dgst -sha256 -hmac key
        assert_eq!(
            sign("key", "1700000000", br#"{"a":1}"#),
            "a438e398bfafc57e4396bb7fc2304422f0f768e965d073ca313cb52e22e6ad03"
        );
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after("120"), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        let future = retry_after("Fri, 31 Dec 2100 23:59:59 GMT").unwrap();
        assert!(future > Duration::from_secs(86_400), "{future:?}");
        assert_eq!(retry_after("soon"), None);
    }

    fn refused(url: &str, timeout_seconds: f64) -> String {
        let settings = config::Webhook {
            url: url.into(),
            secret: String::new().into(),
            timeout_seconds,
            include_patient_id: false,
            include_accession_number: None,
            format: WebhookFormat::Triaged,
            routing_key: String::new().into(),
            template_file: String::new(),
            content_type: "application/json".into(),
        };
        Webhook::new("webhook", &settings, &TimeZone::UTC).err().expect("refused").to_string()
    }

    #[test]
    fn settings_that_cannot_work_are_refused_with_their_key() {
        assert!(refused("http://", 1.0).contains("notify.webhook.url"));
        assert!(refused("http://localhost/", 0.0).contains("notify.webhook.timeout_seconds"));
    }
}
