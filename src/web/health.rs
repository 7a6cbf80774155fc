//! For monitors: is the process alive, can it do its work, and how much has it done.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::Site;

/// A ledger that does not answer within this time is not alive.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether the node can do its work, and why not.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Readiness {
    pub checks: Vec<Check>,
}

/// One thing that the node needs.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// The part that is checked: `model`, `provider`, `ledger`, `disk`, `dimse` …
    pub name: String,
    pub ok: bool,
    /// In words: what runs where, or what is wrong and what to do. An execution provider that `auto` fell back from is
    /// said here, though the node is ready.
    pub detail: String,
}

impl Check {
    pub fn ok(name: &str, detail: impl Into<String>) -> Check {
        Check { name: name.into(), ok: true, detail: detail.into() }
    }

    pub fn failed(name: &str, detail: impl Into<String>) -> Check {
        Check { name: name.into(), ok: false, detail: detail.into() }
    }
}

impl Readiness {
    /// All checks are well; a node that was not checked at all is not ready.
    pub fn is_ready(&self) -> bool {
        !self.checks.is_empty() && self.checks.iter().all(|check| check.ok)
    }
}

/// `/healthz`: the process lives and the ledger answers.
pub(super) async fn alive(State(site): State<Site>) -> Response {
    let asked = site.ledger(|ledger| ledger.try_read());
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(_)) => "ok\n".into_response(),
        Ok(Err(_)) => (StatusCode::SERVICE_UNAVAILABLE, "the ledger fails\n").into_response(),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the ledger does not answer\n").into_response(),
    }
}

/// `/readyz`: 200 or 503, and each check.
pub(super) async fn ready(State(site): State<Site>) -> Response {
    #[derive(Serialize)]
    struct Answer {
        ready: bool,
        software: &'static str,
        checks: Vec<Check>,
    }
    let readiness = site.readiness.clone();
    let checked = tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(move || readiness())).await;
    let readiness = match checked {
        Ok(Ok(readiness)) => readiness,
        Ok(Err(_)) => Readiness { checks: vec![Check::failed("node", "the checks panicked; this is a bug")] },
        Err(_) => Readiness { checks: vec![Check::failed("node", "the checks did not end in time")] },
    };
    let ready = readiness.is_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Answer { ready, software: crate::SOFTWARE, checks: readiness.checks })).into_response()
}

/// `/metrics`, in the Prometheus text format.
pub(super) async fn metrics(State(site): State<Site>) -> Response {
    // Counted when somebody asks; where the ledger fails, the last count stays.
    if let Ok(Ok(counts)) = tokio::time::timeout(PATIENCE, site.ledger(|ledger| ledger.count_set_aside())).await {
        for (kind, count) in ["conflict", "replaced", "unreadable"].into_iter().zip(counts) {
            metrics::gauge!("triaged_set_aside_objects", "kind" => kind).set(count as f64);
        }
    }
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], site.metrics.render()).into_response()
}
