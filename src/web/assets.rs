//! Style sheet, script and icon: part of the program, the same for everybody.

use std::sync::LazyLock;

use axum::extract::RawQuery;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

const STYLE: &str = include_str!("assets/style.css");
const SCRIPT: &str = concat!(
    include_str!("assets/live.js"),
    include_str!("assets/alarm.js"),
    include_str!("assets/worklist.js"),
    include_str!("assets/study.js")
);
const ICON: &str = include_str!("assets/favicon.svg");

/// With the name of its content, so that a browser keeps it until the program changes.
static STYLE_URL: LazyLock<String> = LazyLock::new(|| format!("/style.css?v={}", name(STYLE)));
static SCRIPT_URL: LazyLock<String> = LazyLock::new(|| format!("/triaged.js?v={}", name(SCRIPT)));

pub(super) fn style_url() -> &'static str {
    &STYLE_URL
}

pub(super) fn script_url() -> &'static str {
    &SCRIPT_URL
}

fn name(content: &str) -> String {
    hex::encode(&Sha256::digest(content)[..6])
}

/// `GET /api/v1/openapi.json`
pub(super) async fn openapi(query: RawQuery) -> Response {
    asset("application/json", include_str!("assets/openapi.json"), query)
}

/// `GET /style.css`
pub(super) async fn style(query: RawQuery) -> Response {
    asset("text/css; charset=utf-8", STYLE, query)
}

/// `GET /triaged.js`
pub(super) async fn script(query: RawQuery) -> Response {
    asset("text/javascript; charset=utf-8", SCRIPT, query)
}

/// `GET /favicon.svg`
pub(super) async fn icon(query: RawQuery) -> Response {
    asset("image/svg+xml", ICON, query)
}

fn asset(kind: &'static str, content: &'static str, RawQuery(query): RawQuery) -> Response {
    let mut response = ([(CONTENT_TYPE, kind)], content).into_response();
    if query.is_some_and(|query| query == format!("v={}", name(content))) {
        let forever = HeaderValue::from_static("public, max-age=31536000, immutable");
        response.headers_mut().insert(CACHE_CONTROL, forever);
    }
    response
}
