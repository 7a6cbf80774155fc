//! The content of a request that changes something: who asks, a note, an opinion. Programs send it as JSON; pages as a form
//! (`form`).

use axum::body::Bytes;
use axum::extract::{ConnectInfo, FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use serde::Deserialize;

use super::Failed;
use super::actor::{MOST_NAME, MOST_NOTE, actor, line};
use super::connection::PeerAddress;
use crate::ledger::{Actor, Opinion};

pub(super) struct Said {
    pub(super) who: Actor,
    pub(super) note: Option<String>,
    opinion: Option<String>,
}

impl Said {
    pub(super) fn new(peer: PeerAddress, by: Option<&str>, note: Option<&str>, opinion: Option<String>) -> Said {
        let note = note.map(|note| line(note, MOST_NOTE)).filter(|note| !note.is_empty());
        Said { who: actor(peer, by), note, opinion }
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
        Ok(JsonSaid(Said::new(peer, fields.by.as_deref(), fields.note.as_deref(), fields.opinion)))
    }
}

fn json(body: &[u8]) -> Result<JsonFields, Failed> {
    let refused = |why: String| Failed::Refused(StatusCode::BAD_REQUEST, why);
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(refused("the body is not a JSON object".into()));
    }
    let fields: JsonFields = serde_json::from_slice(body)
        .map_err(|error| refused(format!("the body is not JSON with by, note or opinion: {error}")))?;
    for (name, text, most) in [("by", &fields.by, MOST_NAME), ("note", &fields.note, MOST_NOTE)] {
        if text.as_ref().is_some_and(|text| text.chars().count() > most) {
            return Err(refused(format!("{name} has at most {most} characters")));
        }
    }
    Ok(fields)
}
