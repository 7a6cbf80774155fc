//! The guard before every page: headers that keep a browser from being used against the node, and refusal of requests
//! that another site's page made it send.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderName, HeaderValue, ORIGIN, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;

use super::{Site, api};

/// Nothing is loaded but this server's own style sheet, script and pictures, no text becomes script or markup by the script's
/// doing (Trusted Types), forms go nowhere else, nobody frames the page, no cache keeps patient data.
const HEADERS: [(HeaderName, &str); 7] = [
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; \
         base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (CACHE_CONTROL, "no-store"),
    // Not `no-referrer`: with that, browsers send `Origin: null` along with this site's own forms.
    (REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

pub(super) async fn headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    // A browser may keep pictures for its user, and what is the same for everybody.
    let may_be_kept = (response.headers().get(CACHE_CONTROL).and_then(|value| value.to_str().ok()))
        .is_some_and(|value| value.starts_with("private, no-cache") || value.starts_with("public, "));
    for (name, value) in HEADERS {
        if name == CACHE_CONTROL && may_be_kept {
            continue;
        }
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// On the loopback address, only that address's own names are answered. Otherwise a page from anywhere could, by
/// pointing its own name at 127.0.0.1 (DNS rebinding), read the worklist through the browser of whoever looks at it.
pub(super) async fn against_rebinding(request: Request, next: Next) -> Response {
    // Every browser sends it; what sends none is a script, and that can send what it likes anyway.
    let Some(host) = request.headers().get(HOST) else { return next.run(request).await };
    if host.to_str().is_ok_and(is_loopback) {
        return next.run(request).await;
    }
    api::refusal(
        StatusCode::MISDIRECTED_REQUEST,
        "this server listens on the loopback address and answers only to localhost or 127.0.0.1; a proxy before it must \
         send one of those as Host",
    )
}

/// A request that changes something must come from a page of this site or from no page at all.
pub(super) async fn against_other_sites(State(site): State<Site>, request: Request, next: Next) -> Response {
    let changes_nothing = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if changes_nothing || is_ours(request.headers(), site.links.origin().as_deref()) {
        return next.run(request).await;
    }
    api::refusal(
        StatusCode::FORBIDDEN,
        "requests from other sites are refused; scripts send Content-Type: application/json",
    )
}

/// `public`: the origin of `web.public_url`, under which readers see the pages. A proxy may send another Host.
fn is_ours(headers: &HeaderMap, public: Option<&str>) -> bool {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    // Every current browser says where a request comes from, over HTTPS and to the machine itself, and a page cannot forge it.
    match text(HeaderName::from_static("sec-fetch-site")) {
        Some("same-origin") => return true,
        Some("none") | None => {}
        Some(_) => return false,
    }
    if let Some(origin) = text(ORIGIN) {
        let authority = origin.split_once("://").map(|(_, authority)| authority);
        return public == Some(origin) || authority.is_some() && authority == text(HOST);
    }
    // No browser, or a very old one: a page elsewhere cannot send this type without asking first, and is not allowed.
    text(CONTENT_TYPE)
        .and_then(|kind| kind.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

/// `host[:port]`.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_are_loopback() {
        for host in ["localhost", "LocalHost:8080", "127.0.0.1", "127.0.0.1:8080", "127.9.9.9", "[::1]", "[::1]:80"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["", "evil.example", "localhost.evil.example:8080", "127.0.0.1.evil.example", "10.0.0.1", "[::2]"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn another_sites_request_is_not_ours_however_it_is_dressed() {
        let ours = |pairs: &[(&'static str, &'static str)]| {
            let pairs =
                pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            is_ours(&pairs.collect(), Some("http://triaged.example.org"))
        };
        let json = ("content-type", "application/json; charset=utf-8");
        let host = ("host", "127.0.0.1:8080");
        assert!(ours(&[host, json]));
        assert!(ours(&[host, ("sec-fetch-site", "same-origin")]));
        assert!(ours(&[host, ("origin", "http://127.0.0.1:8080")]));
        // Over plain HTTP a browser says nothing of the site, and a proxy sends a Host of its own.
        let behind_a_proxy = ("host", "localhost");
        assert!(ours(&[behind_a_proxy, ("origin", "http://triaged.example.org")]));
        assert!(!ours(&[behind_a_proxy, ("origin", "https://triaged.example.org")]));
        assert!(!ours(&[behind_a_proxy, ("origin", "http://triaged.example.org.evil.example")]));
        assert!(!ours(&[host, ("sec-fetch-site", "cross-site"), ("origin", "http://triaged.example.org")]));
        assert!(!ours(&[host]));
        assert!(!ours(&[host, ("content-type", "text/plain")]));
        assert!(!ours(&[host, json, ("sec-fetch-site", "cross-site")]));
        assert!(!ours(&[host, json, ("sec-fetch-site", "same-site")]));
        assert!(!ours(&[host, json, ("origin", "http://evil.example")]));
        assert!(!ours(&[host, json, ("origin", "null")]));
        assert!(!ours(&[host, json, ("sec-fetch-site", "none"), ("origin", "http://127.0.0.1:9090")]));
    }
}
