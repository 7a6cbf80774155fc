//! Who asks: a session (of a password, or of an OpenID provider), an API token, or a proxy that has logged somebody in; and whether they may. Off (`web.login.enabled`), every
//! request may do everything, as whoever can reach the loopback address could anyway.
//!
//! Requests that change something must come from this site (`guard::against_other_sites`), and the session's cookie is SameSite=Strict:
//! another site can make a browser do nothing here.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use askama::Template;
use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{ConnectInfo, Form, FromRequestParts, Query, RawPathParams, Request, State};
use axum::http::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderValue, LOCATION, SET_COOKIE, WWW_AUTHENTICATE};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::attempts::{Attempts, By};
use super::connection::PeerAddress;
use super::oidc::Provider;
use super::pages::{NoPage, page};
use super::{Failed, Site, api, forwarded, pages};
use crate::config;
use crate::ledger::{Actor, Deed, Permission, Role, now};
use crate::log_limit::LogLimit;
use crate::password;

/// The cookie of a session.
const SESSION: &str = "triaged_session";

/// What the script asks for by itself carries this header: nobody has done anything.
const BACKGROUND: &str = "triaged-background";

/// Looks that are remembered.
const MOST_LOOKS: usize = 10_000;

/// The same person looking at the same thing again within this time is one deed of the audit log: the worklist loads itself anew.
const ONE_LOOK: Duration = Duration::from_secs(300);

/// The longest address, in bytes, to which a login leads back.
const LONGEST_NEXT: usize = 2048;

/// The settings and the state that decide which requests may enter.
pub struct Door {
    settings: config::Login,
    /// The cookie goes over TLS only.
    pub(super) secure: bool,
    /// Who else may log people in.
    pub(super) oidc: Option<Provider>,
    /// Lines about the provider that repeat themselves.
    pub(super) provider_log: LogLimit,
    /// Passwords are checked by two threads at most: each check takes memory and time on purpose.
    checking: Semaphore,
    /// The logins that failed lately.
    pub(super) attempts: Attempts,
    looks: Mutex<HashMap<(String, String), Instant>>,
    /// Checked where there is no such user, so that the time tells nothing.
    nobody: String,
}

impl Door {
    /// `secure`: browsers reach the page, at `public_url`, over HTTPS alone.
    ///
    /// # Errors
    /// An OpenID provider that cannot be used, in words for an administrator.
    pub fn new(settings: &config::Login, public_url: &str, secure: bool) -> Result<Arc<Door>, String> {
        let nobody = if settings.enabled { password::hash(&password::token()) } else { String::new() };
        Ok(Arc::new(Door {
            settings: settings.clone(),
            secure,
            provider_log: LogLimit::default(),
            oidc: if settings.enabled { Provider::new(&settings.oidc, public_url)? } else { None },
            checking: Semaphore::new(2),
            attempts: Attempts::default(),
            looks: Mutex::default(),
            nobody,
        }))
    }

    /// No login: every request may do everything.
    pub fn none() -> Arc<Door> {
        Door::new(&config::Login::default(), "", false).expect("there is no provider in the default")
    }

    /// Whether this look is the first within a while.
    fn is_new_look(&self, actor: &str, what: &str) -> bool {
        let mut looks = self.looks.lock().expect("nobody panics while holding the looks");
        if looks.len() >= MOST_LOOKS {
            looks.retain(|_, at| at.elapsed() < ONE_LOOK);
        }
        let key = (actor.to_owned(), what.to_owned());
        if looks.get(&key).is_some_and(|at| at.elapsed() < ONE_LOOK) {
            return false;
        }
        looks.insert(key, Instant::now());
        true
    }
}

/// Who was recognized, and what they may do.
#[derive(Clone)]
struct Known {
    actor: Actor,
    may: May,
    /// By which they were, if by one.
    session: Option<Session>,
}

/// The session of a request, for whoever answers it for a long time.
#[derive(Clone)]
pub(super) struct Session {
    hash: String,
    silence: Duration,
}

impl Session {
    /// Whether it lasts still; asking is no doing of the user's. Where nobody can say, it does.
    pub async fn lasts(&self, site: &Site) -> bool {
        let Session { hash, silence } = self.clone();
        site.ledger(move |ledger| ledger.session(&hash, silence)).await.map_or(true, |found| found.is_some())
    }

    /// When it ends, whatever its user does.
    pub async fn ends(&self, site: &Site) -> Option<String> {
        let hash = self.hash.clone();
        site.ledger(move |ledger| ledger.session_end(&hash)).await.ok().flatten()
    }
}

#[derive(Clone)]
enum May {
    Role(Role),
    Scopes(Vec<Permission>),
}

impl Known {
    fn may(&self, permission: Permission) -> bool {
        match &self.may {
            May::Role(role) => role.permits(permission),
            May::Scopes(scopes) => scopes.contains(&permission),
        }
    }
}

/// The permission that a request needs; `None`: none. A path that is not named here and changes something is for administrators.
fn needed(method: &Method, path: &str) -> Option<Permission> {
    match path {
        // A link carries its own signature; health says nothing of patients.
        "/login"
        | "/login/oidc"
        | "/login/oidc/callback"
        | "/logout"
        | "/style.css"
        | "/triaged.js"
        | "/favicon.svg"
        | "/acknowledge" => return None,
        "/healthz" | "/readyz" => return None,
        "/metrics" => return Some(Permission::Metrics),
        // The configuration, and who hears what.
        "/admin" => return Some(Permission::Administer),
        _ => {}
    }
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return Some(Permission::Read);
    }
    Some(match path.rsplit('/').next() {
        Some("acknowledge" | "unacknowledge" | "accept" | "reject" | "feedback") => Permission::Acknowledge,
        Some("requeue" | "rescore") => Permission::Operate,
        _ => Permission::Administer,
    })
}

/// Stands before every page: lets through who may, and notes who looked at what.
pub(super) async fn check(State(site): State<Site>, mut request: Request, next: Next) -> Response {
    let door = site.door.clone();
    let Some(ConnectInfo(peer)) = request.extensions().get::<ConnectInfo<PeerAddress>>().cloned() else {
        return api::failure(Failed::Internal);
    };
    let client = forwarded::client(&door.settings, request.headers(), peer.connected());
    let peer = peer.asking_for(client);
    request.extensions_mut().insert(ConnectInfo(peer.clone()));
    if !door.settings.enabled {
        return next.run(request).await;
    }
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let Some(permission) = needed(&method, uri.path()) else { return next.run(request).await };
    let (look, request_again) = look(request).await;
    request = request_again;
    let is_doing = is_doing(uri.path(), request.headers());
    let known = match known(&site, request.headers(), peer.connected(), is_doing).await {
        Ok(known) => known,
        Err(failed) => return api::failure(failed),
    };
    let Some(known) = known else { return unknown(&method, &uri) };
    if !known.may(permission) {
        let why = format!("{} may not do this", known.actor.name);
        let failed = Failed::Refused(StatusCode::FORBIDDEN, why);
        return if uri.path().starts_with("/api/") { api::failure(failed) } else { pages::failure(failed) };
    }
    // Whoever acts from here on is who was recognized.
    let rights = [Permission::Read, Permission::Acknowledge, Permission::Operate, Permission::Administer];
    let rights = rights.into_iter().filter(|right| known.may(*right)).collect();
    request.extensions_mut().insert(ConnectInfo(peer.known_as(known.actor.clone()).who_may(rights)));
    if let Some(session) = known.session {
        request.extensions_mut().insert(session);
    }
    let response = next.run(request).await;
    if let Some(look) = look
        && response.status().is_success()
        && method == Method::GET
    {
        note_look(&site, &known.actor, look);
    }
    response
}

/// Whether a request says that somebody uses the page. A page that is left open asks for itself anew, and for pictures of what is new.
fn is_doing(path: &str, headers: &HeaderMap) -> bool {
    !headers.contains_key(BACKGROUND) && path != "/events" && !path.ends_with("/thumbnail")
}

/// A look at patients' data, as the audit log names it.
struct Look {
    deed: &'static str,
    study_uid: Option<String>,
}

/// What a request looks at. The study is the one that its handler gets: a path can be written in many ways, and only what stands in a route
/// as it is cannot.
async fn look(request: Request) -> (Option<Look>, Request) {
    let (mut parts, body) = request.into_parts();
    let deed = deed_of(parts.uri.path());
    let params = RawPathParams::from_request_parts(&mut parts, &()).await.ok();
    let uid = params.and_then(|params| params.iter().find(|(name, _)| *name == "uid").map(|(_, uid)| uid.to_owned()));
    (deed.map(|deed| Look { deed, study_uid: uid }), Request::from_parts(parts, body))
}

/// The deed that looking at a page is.
fn deed_of(path: &str) -> Option<&'static str> {
    let parts: Vec<&str> = path.strip_prefix("/api/v1").unwrap_or(path).trim_matches('/').split('/').collect();
    match parts[..] {
        [""] | ["studies"] => Some("study.search"),
        ["studies", _, "report.dcm" | "key-image.dcm"] => Some("study.export"),
        ["studies", _, ..] => Some("study.view"),
        _ => None,
    }
}

/// Writes into the audit log who saw what.
fn note_look(site: &Site, actor: &Actor, look: Look) {
    let Look { deed: name, study_uid } = look;
    if !site.door.is_new_look(&actor.name, &format!("{name} {}", study_uid.as_deref().unwrap_or_default())) {
        return;
    }
    let details = serde_json::json!({});
    let (ledger, deed) = (site.ledger.clone(), Deed { actor: actor.clone(), name, study_uid, details });
    tokio::task::spawn_blocking(move || ledger.post_deed(deed));
}

/// The token of an `Authorization` header. The scheme's name has no case (RFC 9110, 11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("Bearer").then_some(token)
}

/// Who asks. `address`: who has connected. `is_doing`: the request says that somebody uses the page.
async fn known(site: &Site, headers: &HeaderMap, address: IpAddr, is_doing: bool) -> Result<Option<Known>, Failed> {
    let door = &site.door;
    if let Some(token) = headers.get(AUTHORIZATION).and_then(|value| bearer(value.to_str().ok()?)) {
        let hash = digest(token.trim());
        let found = site.ledger(move |ledger| ledger.use_token(&hash)).await?;
        return Ok(found.map(|(name, scopes)| Known {
            actor: Actor::token(name),
            may: May::Scopes(scopes.into_iter().map(|scope| scope.0).collect()),
            session: None,
        }));
    }
    if let Some(name) = proxied(&door.settings, headers, address) {
        let asked = name.clone();
        let user = site.ledger(move |ledger| ledger.stored_user(&asked)).await?;
        let default = door.settings.proxy_role.parse().ok();
        let Some(role) = user.map(|user| user.role).or(default) else { return Ok(None) };
        return Ok(Some(Known { actor: Actor::person(name), may: May::Role(role), session: None }));
    }
    let Some(session) = cookie(headers, SESSION) else { return Ok(None) };
    let session = Session { hash: digest(&session), silence: minutes(door.settings.idle_minutes) };
    let Session { hash, silence } = session.clone();
    let found = site.ledger(move |ledger| match is_doing {
        true => ledger.use_session(&hash, silence),
        false => ledger.session(&hash, silence),
    });
    let found = found.await?;
    Ok(found.map(|(name, role)| Known { actor: Actor::person(name), may: May::Role(role), session: Some(session) }))
}

/// The user whom a proxy has logged in: only from a proxy's own address is the header believed.
fn proxied(settings: &config::Login, headers: &HeaderMap, address: IpAddr) -> Option<String> {
    if settings.proxy_user_header.is_empty() || !settings.trusted_proxies.iter().any(|proxy| proxy.contains(address)) {
        return None;
    }
    let name = headers.get(settings.proxy_user_header.as_str())?.to_str().ok()?.trim();
    (!name.is_empty() && name.len() <= 128).then(|| name.to_owned())
}

/// The value of a cookie that the browser sent.
pub(super) fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let pairs = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|line| line.split(';'));
    let mut values = pairs.filter_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='));
    values.next().map(str::to_owned)
}

/// Sessions and tokens are kept as digests: whoever reads the database cannot use them.
pub fn digest(secret: &str) -> String {
    hex::encode(Sha256::digest(secret))
}

fn minutes(count: f64) -> Duration {
    Duration::from_secs_f64(count * 60.0)
}

/// People are led to the login, programs hear 401.
fn unknown(method: &Method, uri: &Uri) -> Response {
    if *method == Method::GET && !uri.path().starts_with("/api/") && uri.path() != "/metrics" {
        let wanted = uri.path_and_query().map_or("/", |path| path.as_str());
        let encoded: String = url_encoded(wanted);
        return redirect(&format!("/login?next={encoded}"));
    }
    let mut response =
        api::refusal(StatusCode::UNAUTHORIZED, "log in, or send Authorization: Bearer with an API token");
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

fn url_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(encode).collect()
}

pub(super) fn redirect(to: &str) -> Response {
    match HeaderValue::from_str(to) {
        Ok(to) => (StatusCode::SEE_OTHER, [(LOCATION, to)]).into_response(),
        Err(_) => (StatusCode::SEE_OTHER, [(LOCATION, HeaderValue::from_static("/"))]).into_response(),
    }
}

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    around: pages::Around,
    next: String,
    why: Option<String>,
    enabled: bool,
    /// The words on the button that leads to the OpenID provider, where there is one.
    provider: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Wanted {
    #[serde(default)]
    pub next: String,
}

#[derive(Deserialize)]
pub(super) struct Credentials {
    name: String,
    password: String,
    #[serde(default)]
    next: String,
}

/// Only a path of this site: nobody is led elsewhere after the login.
pub(super) fn own_path(next: String) -> String {
    // Browsers strip tabs and line breaks from addresses, and take a backslash for a slash.
    let is_odd = |letter: char| letter.is_control() || letter == '\\';
    let is_own =
        next.starts_with('/') && !next.starts_with("//") && next.len() <= LONGEST_NEXT && !next.contains(is_odd);
    if is_own { next } else { "/".into() }
}

/// The parameters of an address of the login; a page says where there are others.
pub(super) fn parameters<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Failed> {
    let why = "this address is not one that triaged gives: a part of it is there twice, or cannot be read";
    query.map(|Query(query)| query).map_err(|error| Failed::Refused(error.status(), why.into()))
}

/// `GET /login`
pub(super) async fn form(
    State(site): State<Site>,
    query: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, NoPage> {
    Ok(login_page(&site, own_path(parameters(query)?.next), None))
}

fn login_page(site: &Site, next: String, why: Option<String>) -> Response {
    let around = pages::Around::of(site, None);
    let provider = site.door.oidc.as_ref().map(|provider| provider.title().to_owned());
    page(&LoginPage { around, next, why, enabled: site.door.settings.enabled, provider })
}

/// The login once more, with the reason why the last one failed.
pub(super) fn again(site: &Site, next: String, why: String) -> Response {
    login_page(site, next, Some(why))
}

/// Begins a session of a user who has logged in from there. Returns the session's secret.
pub(super) async fn begin_session(site: &Site, user: String, from: Actor) -> Result<String, Failed> {
    let session = password::token();
    let (hash, lasts) = (digest(&session), minutes(site.door.settings.session_hours * 60.0));
    let actor = Actor::person(user.clone()).by_way_of(&from);
    site.ledger(move |ledger| ledger.begin_session(&user, &hash, lasts, &actor)).await?;
    Ok(session)
}

/// Gives the session to the browser.
pub(super) fn set_session(door: &Door, response: &mut Response, session: &str) {
    set_cookie(door, response, session, minutes(door.settings.session_hours * 60.0));
}

/// `POST /login`
pub(super) async fn log_in(
    State(site): State<Site>,
    ConnectInfo(peer): ConnectInfo<PeerAddress>,
    form: Result<Form<Credentials>, FormRejection>,
) -> Result<Response, NoPage> {
    let door = site.door.clone();
    let refused = |status, why: &str| Failed::Refused(status, why.to_owned());
    if !door.settings.enabled {
        return Err(refused(StatusCode::NOT_FOUND, "there is no login here (web.login.enabled)").into());
    }
    let Form(Credentials { name, password, next }) =
        form.map_err(|error| refused(error.status(), "the form is not complete"))?;
    let (name, next) = (name.trim().to_owned(), own_path(next));
    let again =
        |status: StatusCode, why: &str| Ok((status, again(&site, next.clone(), why.to_owned())).into_response());
    if door.attempts.must_wait(peer.ip(), By::Password(&name)) {
        return again(StatusCode::TOO_MANY_REQUESTS, "Too many wrong logins from this address; try again in a minute.");
    }
    let asked = name.clone();
    let user = site.ledger(move |ledger| ledger.stored_user(&asked)).await?;
    let is_locked = user.as_ref().and_then(|user| user.locked_until.clone()).is_some_and(|until| until > now());
    let hash = user.as_ref().map_or_else(|| door.nobody.clone(), |user| user.password_hash.clone());
    let is_right = {
        let _turn = door.checking.acquire().await.map_err(|_| Failed::Internal)?;
        let checked = tokio::task::spawn_blocking(move || password::verify(&password, &hash)).await;
        checked.map_err(|_| Failed::Internal)?
    };
    // While a user is locked out, the right password says no more than a wrong one.
    let Some(user) = user.filter(|_| is_right && !is_locked) else {
        door.attempts.note(peer.ip(), By::Password(&name));
        let (actor, most) = (Actor::peer(format!("web {}", peer.ip())), door.settings.max_failures);
        let lock_out = minutes(door.settings.lockout_minutes);
        // A name that is no user's may be a password that was typed into the wrong field.
        let is_user = is_locked || {
            let asked = name.clone();
            site.ledger(move |ledger| Ok(ledger.stored_user(&asked)?.is_some())).await?
        };
        let noted = if is_user { name } else { "(unknown)".into() };
        site.ledger(move |ledger| ledger.note_wrong_password(&noted, most, lock_out, &actor)).await?;
        tracing::warn!(address = %peer.ip(), "a login to the web server failed");
        return again(StatusCode::UNAUTHORIZED, "Name or password is wrong, or the user is locked out for a while.");
    };
    let session = begin_session(&site, user.name, Actor::peer(format!("web {}", peer.ip()))).await?;
    let mut response = redirect(&next);
    set_session(&door, &mut response, &session);
    Ok(response)
}

/// `POST /logout`
pub(super) async fn log_out(
    State(site): State<Site>,
    ConnectInfo(peer): ConnectInfo<PeerAddress>,
    headers: HeaderMap,
) -> Result<Response, NoPage> {
    if let Some(session) = cookie(&headers, SESSION) {
        let known = known(&site, &headers, peer.connected(), true).await?;
        let actor = known.map_or_else(|| peer.actor(), |known| known.actor);
        let hash = digest(&session);
        site.ledger(move |ledger| ledger.end_session(&hash, &actor)).await?;
    }
    let mut response = redirect("/login");
    set_cookie(&site.door, &mut response, "", Duration::ZERO);
    Ok(response)
}

fn set_cookie(door: &Door, response: &mut Response, value: &str, lasts: Duration) {
    set_named_cookie(door, response, &format!("{SESSION}={value}; Path=/; SameSite=Strict"), lasts);
}

/// Sets a cookie that no script reads. `begin`: its name, value, path and SameSite.
pub(super) fn set_named_cookie(door: &Door, response: &mut Response, begin: &str, lasts: Duration) {
    let secure = if door.secure { "; Secure" } else { "" };
    let cookie = format!("{begin}; HttpOnly; Max-Age={}{secure}", lasts.as_secs());
    let cookie = HeaderValue::from_str(&cookie).expect("a token has only letters, digits, - and _");
    response.headers_mut().append(SET_COOKIE, cookie);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_something_and_is_not_named_is_for_administrators() {
        let post = |path| needed(&Method::POST, path);
        assert_eq!(needed(&Method::GET, "/"), Some(Permission::Read));
        assert_eq!(needed(&Method::GET, "/api/v1/anything"), Some(Permission::Read));
        assert_eq!(needed(&Method::GET, "/healthz"), None);
        assert_eq!(needed(&Method::GET, "/metrics"), Some(Permission::Metrics));
        assert_eq!(post("/studies/1.2/acknowledge"), Some(Permission::Acknowledge));
        assert_eq!(post("/api/v1/notifications/7/requeue"), Some(Permission::Operate));
        assert_eq!(post("/api/v1/new"), Some(Permission::Administer));
        assert_eq!(needed(&Method::DELETE, "/studies/1.2"), Some(Permission::Administer));
    }

    #[test]
    fn nobody_is_led_to_another_site() {
        for elsewhere in [
            "https://evil.example",
            "//evil.example",
            "/\\evil.example",
            "/\t/evil.example",
            "",
            "evil",
            "/a\r\nSet-Cookie: x",
        ] {
            assert_eq!(own_path(elsewhere.into()), "/", "{elsewhere:?}");
        }
        assert_eq!(own_path("/studies/1.2?x=1".into()), "/studies/1.2?x=1");
    }

    #[test]
    fn a_look_is_known_by_the_parts_of_its_path_that_stand_in_a_route() {
        for (path, deed) in [
            ("/", "study.search"),
            ("/api/v1/studies", "study.search"),
            ("/studies/1%2E2", "study.view"),
            ("/studies/1.2/series/1/slices/1/1", "study.view"),
            ("/api/v1/studies/1.2", "study.view"),
            ("/api/v1/studies/%31/report.dcm", "study.export"),
            ("/api/v1/studies/1/key-image.dcm", "study.export"),
        ] {
            assert_eq!(deed_of(path), Some(deed), "{path}");
        }
        assert_eq!(deed_of("/style.css"), None);
        assert_eq!(deed_of("/events"), None);
    }

    #[test]
    fn a_page_that_is_only_open_does_nothing() {
        let none = HeaderMap::new();
        assert!(is_doing("/", &none) && is_doing("/studies/1.2", &none));
        assert!(!is_doing("/events", &none) && !is_doing("/studies/1.2/thumbnail", &none));
        let mut background = HeaderMap::new();
        background.insert("Triaged-Background", HeaderValue::from_static("1"));
        assert!(!is_doing("/studies/1.2", &background));
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, HeaderValue::from_static("a=b; triaged_session=xyz; triaged_session_old=q"));
        assert_eq!(cookie(&headers, SESSION).as_deref(), Some("xyz"));
        headers.insert(COOKIE, HeaderValue::from_static("triaged_session_old=q"));
        assert_eq!(cookie(&headers, SESSION), None);
    }
}
