//! The pages of a login by an OpenID provider: to the provider, and back.

use std::time::Duration;

use askama::Template;
use axum::extract::rejection::QueryRejection;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::StatusCode;
use axum::http::header::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::attempts::By;
use super::connection::PeerAddress;
use super::login::{self, Wanted};
use super::oidc::{LONGEST, Refusal};
use super::pages::{self, NoPage, page};
use super::{Failed, Site};
use crate::ledger::Actor;

/// The cookie that binds a login under way to its browser.
const BEGUN: &str = "triaged_oidc";

/// `GET /login/oidc`: to the provider.
pub(super) async fn begin(
    State(site): State<Site>,
    ConnectInfo(peer): ConnectInfo<PeerAddress>,
    query: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, NoPage> {
    let Some(provider) = &site.door.oidc else { return Err(none().into()) };
    let query = login::parameters(query)?;
    if site.door.attempts.must_wait(peer.ip(), By::Provider) {
        return Ok(too_many(&site));
    }
    Ok(match provider.begin(login::own_path(query.next), peer.ip()).await {
        Ok((address, state)) => {
            let mut response = login::redirect(&address);
            bind(&site, &mut response, &state, LONGEST);
            response
        }
        Err(refusal) => refused(&site, &peer, refusal),
    })
}

/// The provider's answer, as the browser brings it.
#[derive(Deserialize)]
pub(super) struct Answer {
    #[serde(default)]
    code: String,
    #[serde(default)]
    state: String,
    #[serde(default)]
    error: String,
}

#[derive(Template)]
#[template(path = "logged_in.html")]
struct LoggedIn {
    around: pages::Around,
    name: String,
    next: String,
}

/// `GET /login/oidc/callback`: back from the provider.
pub(super) async fn callback(
    State(site): State<Site>,
    ConnectInfo(peer): ConnectInfo<PeerAddress>,
    headers: HeaderMap,
    answer: Result<Query<Answer>, QueryRejection>,
) -> Result<Response, NoPage> {
    let Some(provider) = &site.door.oidc else { return Err(none().into()) };
    let answer = login::parameters(answer)?;
    if site.door.attempts.must_wait(peer.ip(), By::Provider) {
        return Ok(too_many(&site));
    }
    let again = |why: &str| Ok(refused(&site, &peer, Refusal::Person(why.to_owned())));
    // A login that another browser began would log this one in as somebody else.
    if answer.state.is_empty() || login::cookie(&headers, BEGUN).as_deref() != Some(answer.state.as_str()) {
        return again("This login was not begun in this browser, or its cookies are off. Begin again.");
    }
    let Some(begun) = provider.take(&answer.state) else {
        return again("This login took too long, or was used before. Begin again.");
    };
    if !answer.error.is_empty() {
        return again("The provider did not log you in.");
    }
    let next = begun.next.clone();
    let person = match provider.person(answer.code, begun).await {
        Ok(person) => person,
        Err(refusal) => {
            site.door.attempts.note(peer.ip(), By::Provider);
            return Ok(refused(&site, &peer, refusal));
        }
    };
    let Some(role) = person.role else {
        site.door.attempts.note(peer.ip(), By::Provider);
        // Whoever lost their groups loses what they have open, too.
        let subject = person.subject;
        site.ledger(move |ledger| ledger.end_provided_sessions(&subject)).await?;
        return again(&format!("{} has no role here. The administrators of triaged give one.", person.name));
    };
    let (name, subject) = (person.name.clone(), person.subject);
    let from = Actor::peer(format!("web {}", peer.ip()));
    let actor = Actor::person(name.clone()).by_way_of(&from);
    let is_ours = site.ledger(move |ledger| ledger.put_provided_user(&name, &subject, role, &actor)).await?;
    if !is_ours {
        site.door.attempts.note(peer.ip(), By::Provider);
        let why =
            format!("{} is somebody else's name here: a user's with a password, or another person's.", person.name);
        return again(&why);
    }
    let session = login::begin_session(&site, person.name.clone(), from).await?;
    // A page, not a redirect: the browser came here from another site, and would not send a cookie of SameSite=Strict along.
    let mut response = page(&LoggedIn { around: pages::Around::of(&site, None), name: person.name, next });
    bind(&site, &mut response, "", Duration::ZERO);
    login::set_session(&site.door, &mut response, &session);
    Ok(response)
}

fn none() -> Failed {
    Failed::Refused(StatusCode::NOT_FOUND, "there is no OpenID provider here (web.login.oidc.issuer)".into())
}

/// What came back from the provider and failed has cost it a request; whoever makes many waits, as after wrong passwords.
fn too_many(site: &Site) -> Response {
    let why = "Too many logins from this address failed; try again in a minute.".to_owned();
    (StatusCode::TOO_MANY_REQUESTS, login::again(site, "/".into(), why)).into_response()
}

fn refused(site: &Site, from: &PeerAddress, refusal: Refusal) -> Response {
    let (status, why) = match refusal {
        Refusal::Person(why) => (StatusCode::FORBIDDEN, why),
        Refusal::Provider(why) => {
            if let Some(kept_back) = site.door.provider_log.admit(from.ip(), &why) {
                tracing::error!(kept_back, "a login by the OpenID provider failed: {why}");
            }
            (StatusCode::BAD_GATEWAY, "The login by the provider failed; the node's log says why.".to_owned())
        }
    };
    (status, login::again(site, "/".into(), why)).into_response()
}

/// Lax: the provider's page leads back here, and the cookie must come along.
fn bind(site: &Site, response: &mut Response, state: &str, lasts: Duration) {
    login::set_named_cookie(&site.door, response, &format!("{BEGUN}={state}; Path=/login/oidc; SameSite=Lax"), lasts);
}
