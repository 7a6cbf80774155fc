//! The content of a request that changes something: who asks, a note, an opinion. Programs send it as JSON; pages as a form
//! (`form`).

use axum::body::Bytes;
use axum::extract::{ConnectInfo, FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::Failed;
use super::actor::{MOST_NAME, MOST_NOTE, actor, line};
use super::connection::PeerAddress;
use crate::ledger::{Actor, DeedKind, Opinion, Shown};

#[derive(Clone)]
pub(super) struct Said {
    pub(super) who: Actor,
    pub(super) note: Option<String>,
    /// What its person saw.
    pub(super) shown: Shown,
    opinion: Option<String>,
}

impl Said {
    pub(super) fn new(
        peer: PeerAddress,
        by: Option<&str>,
        note: Option<&str>,
        opinion: Option<String>,
        shown: Shown,
    ) -> Said {
        let note = note.map(|note| line(note, MOST_NOTE)).filter(|note| !note.is_empty());
        Said { who: actor(peer, by), note, shown, opinion }
    }

    pub(super) fn opinion(&self) -> Result<Opinion, Failed> {
        let opinion = self.opinion.as_deref().and_then(Opinion::named);
        opinion.ok_or_else(|| Failed::Refused(StatusCode::BAD_REQUEST, "opinion is agree or disagree".into()))
    }
}

/// An object of JSON, or nothing.
pub(super) struct JsonSaid(pub(super) Said);

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct JsonFields {
    by: Option<String>,
    note: Option<String>,
    opinion: Option<String>,
    #[serde(deserialize_with = "whole")]
    verdict_id: Option<i64>,
    #[serde(deserialize_with = "whole")]
    revision: Option<i64>,
    kind: Option<DeedKind>,
}

/// Below 2^53: beyond it a number of JSON may stand for another.
const MOST_NUMBER: i64 = 8_999_999_999_999_999;

/// A whole number, which JSON may write with a full stop.
fn whole<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    let Some(number) = Option::<serde_json::Number>::deserialize(from)? else { return Ok(None) };
    let written_with_a_stop = || number.as_f64().filter(|number| number.fract() == 0.0).map(|number| number as i64);
    let whole = number.as_i64().or_else(written_with_a_stop).filter(|whole| (0..=MOST_NUMBER).contains(whole));
    whole.map(Some).ok_or_else(|| D::Error::custom(format!("{number} is no whole number from 0 to {MOST_NUMBER}")))
}

/// The peer of a request, and the request as it was.
pub(super) async fn peer_of<S: Send + Sync>(request: Request, state: &S) -> Result<(PeerAddress, Request), Failed> {
    let (mut parts, body) = request.into_parts();
    let peer = ConnectInfo::<PeerAddress>::from_request_parts(&mut parts, state).await;
    let ConnectInfo(peer) = peer.map_err(|_| Failed::Internal)?;
    Ok((peer, Request::from_parts(parts, body)))
}

impl<S: Send + Sync> FromRequest<S> for JsonSaid {
    type Rejection = Failed;

    async fn from_request(request: Request, state: &S) -> Result<JsonSaid, Failed> {
        let (peer, request) = peer_of(request, state).await?;
        let body = Bytes::from_request(request, state).await;
        let body = body.map_err(|error| Failed::Refused(error.status(), error.body_text()))?;
        let fields = if body.iter().all(u8::is_ascii_whitespace) { JsonFields::default() } else { json(&body)? };
        let shown = Shown { verdict: fields.verdict_id, revision: fields.revision, kind: fields.kind };
        Ok(JsonSaid(Said::new(peer, fields.by.as_deref(), fields.note.as_deref(), fields.opinion, shown)))
    }
}

fn json(body: &[u8]) -> Result<JsonFields, Failed> {
    let refused = |why: String| Failed::Refused(StatusCode::BAD_REQUEST, why);
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(refused("the body is not a JSON object".into()));
    }
    let fields: JsonFields = serde_json::from_slice(body).map_err(|error| {
        refused(format!("the body is not JSON with by, note, opinion, verdict_id, revision or kind: {error}"))
    })?;
    for (name, text, most) in [("by", &fields.by, MOST_NAME), ("note", &fields.note, MOST_NOTE)] {
        if text.as_ref().is_some_and(|text| text.chars().count() > most) {
            return Err(refused(format!("{name} has at most {most} characters")));
        }
    }
    Ok(fields)
}
