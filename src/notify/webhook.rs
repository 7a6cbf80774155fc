//! The webhook: an alert as a signed JSON POST.
//!
//! `X-Triaged-Signature` is `sha256=` and the hexadecimal HMAC-SHA256, keyed with the shared secret, of
//! `X-Triaged-Timestamp` (Unix seconds), a full stop and the body as sent. A receiver checks the signature, refuses
//! timestamps that are too old, and drops an `Idempotency-Key` that it has seen. `docs/webhook.schema.json` describes the
//! body.

use std::error::Error as _;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url, redirect};
use serde::Serialize;
use sha2::Sha256;

use super::{AlertEvent, Attempt, Channel, ChannelError, Failure, Outcome};
use crate::config;
use crate::ledger::{OutboxRow, TopSlice};

/// The version of the body, as in `docs/webhook.schema.json`.
const BODY_VERSION: u32 = 1;

/// Of a reply, so many bytes are read, and so many characters kept for the administrator.
const MOST_REPLY_BYTES: usize = 64 * 1024;
const MOST_REPLY_CHARS: usize = 200;

/// POSTs alerts to one URL.
pub struct Webhook {
    client: Client,
    url: Url,
    secret: String,
    include_patient_id: bool,
}

/// The body. Identical at every attempt on a row.
#[derive(Serialize)]
struct Body<'a> {
    version: u32,
    /// The idempotency key.
    id: &'a str,
    kind: &'a str,
    created_at: &'a str,
    study_uid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    accession_number: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patient_id: Option<&'a str>,
    finding: &'a str,
    wording: &'a str,
    notice: &'a str,
    revision: i64,
    provisional: bool,
    score: f64,
    threshold: f64,
    model: &'a str,
    model_sha256: &'a str,
    slices_received: i64,
    slices_scored: i64,
    slices_ineligible: i64,
    slices_failed: i64,
    top_slices: &'a [TopSlice],
    first_received_at: &'a str,
    last_received_at: &'a str,
    decided_at: &'a str,
    software: &'a str,
}

impl Webhook {
    pub fn new(settings: &config::Webhook) -> Result<Webhook, ChannelError> {
        let wrong = |key, why: String| ChannelError { key, why };
        let url = Url::parse(&settings.url).map_err(|error| wrong("notify.webhook.url", error.to_string()))?;
        if settings.timeout_seconds <= 0.0 {
            return Err(wrong("notify.webhook.timeout_seconds", "must be more than 0".into()));
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
        let client = client.build().map_err(|error| {
            wrong("notify.webhook.url", format!("the HTTP client cannot start: {}", in_full(error)))
        })?;
        Ok(Webhook {
            client,
            url,
            secret: settings.secret.reveal().to_owned(),
            include_patient_id: settings.include_patient_id,
        })
    }

    fn body(&self, row: &OutboxRow) -> Result<Vec<u8>, String> {
        let event = AlertEvent::from_json(&row.event)?;
        let body = Body {
            version: BODY_VERSION,
            id: &row.idempotency_key,
            kind: &row.kind,
            created_at: &row.created_at,
            study_uid: &event.study_uid,
            accession_number: event.accession_number.as_deref().filter(|_| self.include_patient_id),
            patient_id: event.patient_id.as_deref().filter(|_| self.include_patient_id),
            finding: &event.finding,
            wording: &event.wording,
            notice: &event.notice,
            revision: event.revision,
            provisional: event.provisional,
            score: event.score,
            threshold: event.threshold,
            model: &event.model,
            model_sha256: &event.model_sha256,
            slices_received: event.slices_received,
            slices_scored: event.slices_scored,
            slices_ineligible: event.slices_ineligible,
            slices_failed: event.slices_failed,
            top_slices: &event.top_slices,
            first_received_at: &event.first_received_at,
            last_received_at: &event.last_received_at,
            decided_at: &event.decided_at,
            software: &event.software,
        };
        serde_json::to_vec(&body).map_err(|error| format!("the event in the outbox cannot be written: {error}"))
    }

    fn headers(&self, row: &OutboxRow, body: &[u8]) -> Result<HeaderMap, String> {
        let value =
            |text: &str| HeaderValue::from_str(text).map_err(|_| format!("{text:?} cannot be an HTTP header's value"));
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert("idempotency-key", value(&row.idempotency_key)?);
        headers.insert("x-triaged-event", value(&row.kind)?);
        let timestamp = Timestamp::now().as_second().to_string();
        headers.insert("x-triaged-timestamp", value(&timestamp)?);
        if !self.secret.is_empty() {
            let signature = sign(&self.secret, &timestamp, body);
            headers.insert("x-triaged-signature", value(&format!("sha256={signature}"))?);
        }
        Ok(headers)
    }

    async fn post(&self, row: &OutboxRow) -> Outcome {
        let prepared = self.body(row).and_then(|body| Ok((self.headers(row, &body)?, body)));
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
            let text =
                format!("HTTP {status}: redirects are not followed; set notify.webhook.url to the final address");
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
        let mut text = String::from_utf8_lossy(&bytes).into_owned();
        for secret in self.secrets() {
            text = text.replace(&secret, "…");
        }
        let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let clean = clean.split_whitespace().collect::<Vec<_>>().join(" ");
        let reply: String = clean.chars().take(MOST_REPLY_CHARS).collect();
        (!reply.is_empty()).then_some(reply)
    }

    /// What a reply might echo and nobody should read in a log: the key, and the parts of a URL that often are tokens.
    fn secrets(&self) -> Vec<String> {
        let segments = self.url.path_segments().into_iter().flatten().map(str::to_owned);
        let query = self.url.query_pairs().map(|(_, value)| value.into_owned());
        let login = [self.url.username().to_owned(), self.url.password().unwrap_or_default().to_owned()];
        let mut secrets: Vec<String> =
            segments.chain(query).chain(login).chain([self.secret.clone()]).filter(|s| s.len() >= 4).collect();
        // The longest first, so that none leaves a rest of another behind.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets
    }
}

impl Channel for Webhook {
    fn name(&self) -> &str {
        "webhook"
    }

    fn deliver<'a>(&'a self, row: &'a OutboxRow) -> Attempt<'a> {
        Box::pin(self.post(row))
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
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
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
        };
        Webhook::new(&settings).err().expect("refused").to_string()
    }

    #[test]
    fn settings_that_cannot_work_are_refused_with_their_key() {
        assert!(refused("http://", 1.0).contains("notify.webhook.url"));
        assert!(refused("http://localhost/", 0.0).contains("notify.webhook.timeout_seconds"));
    }

    #[test]
    fn the_bodys_fields_are_those_of_the_published_schema() {
        let schema: serde_json::Value = serde_json::from_str(include_str!("../../docs/webhook.schema.json")).unwrap();
        let body = Body {
            version: BODY_VERSION,
            id: "",
            kind: "",
            created_at: "",
            study_uid: "",
            accession_number: Some(""),
            patient_id: Some(""),
            finding: "",
            wording: "",
            notice: "",
            revision: 1,
            provisional: false,
            score: 0.0,
            threshold: 0.0,
            model: "",
            model_sha256: "",
            slices_received: 0,
            slices_scored: 0,
            slices_ineligible: 0,
            slices_failed: 0,
            top_slices: &[],
            first_received_at: "",
            last_received_at: "",
            decided_at: "",
            software: "",
        };
        let body = serde_json::to_value(body).unwrap();
        let keys = |value: &serde_json::Value| {
            let mut keys: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
            keys.sort();
            keys
        };
        assert_eq!(keys(&body), keys(&schema["properties"]));
    }
}
