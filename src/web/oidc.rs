//! Login by an OpenID provider: OpenID Connect Core 1.0, authorization code flow with PKCE (RFC 7636).
//!
//! ```text
//! browser            node                         provider
//!    │ /login/oidc     │                              │
//!    │────────────────→│ state, nonce, PKCE challenge │
//!    │←────────────────│ to the provider              │
//!    │───────────────────────────────────────────────→│ name, password, second factor
//!    │←───────────────────────────────────────────────│ to /login/oidc/callback, with a code
//!    │────────────────→│ code, PKCE verifier          │
//!    │                 │─────────────────────────────→│
//!    │                 │←─────────────────────────────│ ID token: signature, audience, nonce and end are checked
//!    │←────────────────│ the session's cookie         │
//! ```

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use openidconnect::core::{
    CoreAuthDisplay, CoreAuthPrompt, CoreAuthenticationFlow, CoreErrorResponseType, CoreGenderClaim, CoreJsonWebKey,
    CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm, CoreProviderMetadata, CoreRevocableToken,
    CoreRevocationErrorResponse, CoreTokenIntrospectionResponse, CoreTokenType,
};
use openidconnect::{
    AdditionalClaims, AuthorizationCode, ClaimsVerificationError, Client, ClientId, ClientSecret, CsrfToken,
    EmptyExtraTokenFields, EndpointMaybeSet, EndpointNotSet, EndpointSet, HttpRequest, HttpResponse, IdTokenFields,
    IssuerUrl, Nonce, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope, SignatureVerificationError,
    StandardErrorResponse, StandardTokenResponse, TokenResponse,
};
use reqwest::redirect;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::attempts::network;
use crate::causes::in_full;
use crate::config;
use crate::ledger::Role;
use crate::outside;

/// A login at the provider takes no longer than this.
pub(super) const LONGEST: Duration = Duration::from_secs(600);

/// Logins under way, of all addresses and of one; the oldest makes place.
const MOST_BEGUN: usize = 10_000;
const MOST_OF_ADDRESS: usize = 200;

/// After the provider could not be asked, it is left alone for so long.
const PAUSE: Duration = Duration::from_secs(10);

/// The provider's addresses and keys are asked for anew after this time, and at once where a key is missing among them.
const FRESH: Duration = Duration::from_secs(300);

/// But not more often than this for missing keys: a provider that signs with a key that it does not publish is not asked for each login.
const RENEWAL_PAUSE: Duration = Duration::from_secs(2);

/// The provider's clock may differ from the node's by so much.
const LEEWAY: Duration = Duration::from_secs(60);

/// An answer of the provider is shorter than this, in bytes.
const LONGEST_ANSWER: usize = 1 << 20;

/// All claims of an ID token that OpenID Connect does not name itself.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(transparent)]
struct Claims(HashMap<String, Value>);

impl AdditionalClaims for Claims {}

type Tokens = StandardTokenResponse<
    IdTokenFields<
        Claims,
        EmptyExtraTokenFields,
        CoreGenderClaim,
        CoreJweContentEncryptionAlgorithm,
        CoreJwsSigningAlgorithm,
    >,
    CoreTokenType,
>;

/// A client of a provider whose metadata name its addresses.
type ProviderClient = Client<
    Claims,
    CoreAuthDisplay,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJsonWebKey,
    CoreAuthPrompt,
    StandardErrorResponse<CoreErrorResponseType>,
    Tokens,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

/// A login that was begun.
pub(super) struct Begun {
    nonce: Nonce,
    verifier: PkceCodeVerifier,
    /// The page that was asked for.
    pub next: String,
    address: IpAddr,
    at: Instant,
}

/// The provider, and the logins under way.
pub(super) struct Provider {
    settings: config::Oidc,
    issuer: IssuerUrl,
    redirect: RedirectUrl,
    http: reqwest::Client,
    /// Whoever asks holds it, so that one asks for all.
    known: tokio::sync::Mutex<Known>,
    begun: Mutex<HashMap<String, Begun>>,
}

/// The provider's addresses and keys.
#[derive(Default)]
struct Known {
    /// The last answer, or why there was none.
    answer: Option<(Instant, Result<CoreProviderMetadata, String>)>,
    /// When it was last asked for because a key was missing.
    renewed: Option<Instant>,
}

/// Somebody whom the provider knows.
pub(super) struct Person {
    pub name: String,
    /// Issuer and subject: what no other person has.
    pub subject: String,
    /// `None`: they may not come in.
    pub role: Option<Role>,
}

/// A login that did not succeed.
pub(super) enum Refusal {
    /// The person may be told.
    Person(String),
    /// The provider, or the way to it, is at fault; the administrator reads it in the log.
    Provider(String),
}

impl Provider {
    /// The provider of the settings; `None` where there is none. `public_url` is where browsers reach the node.
    ///
    /// # Errors
    /// An address that is none, or an HTTP client that cannot start, in words for an administrator.
    pub fn new(settings: &config::Oidc, public_url: &str) -> Result<Option<Provider>, String> {
        if settings.issuer.is_empty() {
            return Ok(None);
        }
        let issuer = IssuerUrl::new(settings.issuer.clone())
            .map_err(|error| format!("web.login.oidc.issuer = \"{}\" is no address: {error}", settings.issuer))?;
        let redirect = format!("{}/login/oidc/callback", public_url.trim_end_matches('/'));
        let redirect = RedirectUrl::new(redirect)
            .map_err(|error| format!("web.public_url = \"{public_url}\" is no address: {error}"))?;
        // reqwest takes the process's provider. Where one is installed already, that one will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("triaged/", env!("CARGO_PKG_VERSION")))
            .timeout(Duration::from_secs(10))
            // A provider that leads elsewhere could lead into the hospital's own network.
            .redirect(redirect::Policy::none())
            .referer(false);
        if issuer.url().scheme() == "http" {
            http = http.tls_certs_only([]);
        }
        if issuer.url().host_str().is_some_and(|host| host == "localhost" || host == "127.0.0.1" || host == "[::1]") {
            http = http.no_proxy();
        }
        let http = http.build().map_err(|error| format!("web.login.oidc: the HTTP client cannot start: {error}"))?;
        Ok(Some(Provider {
            settings: settings.clone(),
            issuer,
            redirect,
            http,
            known: tokio::sync::Mutex::default(),
            begun: Mutex::default(),
        }))
    }

    /// The words on the button that leads to the provider.
    pub fn title(&self) -> &str {
        &self.settings.title
    }

    /// The provider's addresses and keys (OpenID Connect Discovery 1.0).
    async fn metadata(&self) -> Result<CoreProviderMetadata, Refusal> {
        Ok(self.dated_metadata().await?.1)
    }

    /// As [`Provider::metadata`], with when they were asked for.
    async fn dated_metadata(&self) -> Result<(Instant, CoreProviderMetadata), Refusal> {
        let mut known = self.known.lock().await;
        if let Some((at, answer)) = &known.answer
            && at.elapsed() < if answer.is_ok() { FRESH } else { PAUSE }
        {
            return answer.clone().map(|metadata| (*at, metadata)).map_err(Refusal::Provider);
        }
        self.discover(&mut known).await
    }

    /// Newer metadata than those that were asked for at that time, in which a key is missing: the provider may have changed its keys since.
    /// `None` where there are none yet, and the provider was asked a moment ago.
    async fn newer_metadata(&self, than: Instant) -> Result<Option<CoreProviderMetadata>, Refusal> {
        let mut known = self.known.lock().await;
        // Another login may have asked meanwhile.
        if let Some((at, Ok(metadata))) = &known.answer
            && *at > than
        {
            return Ok(Some(metadata.clone()));
        }
        if known.renewed.is_some_and(|at| at.elapsed() < RENEWAL_PAUSE) {
            return Ok(None);
        }
        known.renewed = Some(Instant::now());
        Ok(Some(self.discover(&mut known).await?.1))
    }

    async fn discover(&self, known: &mut Known) -> Result<(Instant, CoreProviderMetadata), Refusal> {
        let asked = self.http.clone();
        let http = move |request| ask(asked.clone(), request);
        let found = CoreProviderMetadata::discover_async(self.issuer.clone(), &http).await;
        let answer = found.map_err(|error| {
            format!("{} cannot be asked for its addresses: {}", self.settings.issuer, in_full(&error))
        });
        let at = Instant::now();
        known.answer = Some((at, answer.clone()));
        answer.map(|metadata| (at, metadata)).map_err(Refusal::Provider)
    }

    /// The address to send the browser to, and the state that it brings back.
    pub async fn begin(&self, next: String, from: IpAddr) -> Result<(String, String), Refusal> {
        let client = client(&self.settings, self.metadata().await?).set_redirect_uri(self.redirect.clone());
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let scopes = self.settings.scopes.iter().cloned().map(Scope::new);
        let flow = CoreAuthenticationFlow::AuthorizationCode;
        let request = client.authorize_url(flow, CsrfToken::new_random, Nonce::new_random).add_scopes(scopes);
        let (address, state, nonce) = request.set_pkce_challenge(challenge).url();
        let mut begun = self.begun.lock().expect("nobody panics while holding it");
        begun.retain(|_, login| login.at.elapsed() < LONGEST);
        let from = network(from);
        // Whoever begins many of them loses their own.
        let of_address = begun.values().filter(|login| login.address == from).count();
        let is_full = begun.len() >= MOST_BEGUN;
        if is_full || of_address >= MOST_OF_ADDRESS {
            let those = begun.iter().filter(|(_, login)| is_full || login.address == from);
            if let Some(oldest) = those.min_by_key(|(_, login)| login.at).map(|(state, _)| state.clone()) {
                begun.remove(&oldest);
            }
        }
        begun.insert(state.secret().clone(), Begun { nonce, verifier, next, address: from, at: Instant::now() });
        Ok((address.to_string(), state.into_secret()))
    }

    /// Ends a login that was begun: once, in time.
    pub fn take(&self, state: &str) -> Option<Begun> {
        let begun = self.begun.lock().expect("nobody panics while holding it").remove(state);
        begun.filter(|login| login.at.elapsed() < LONGEST)
    }

    /// Exchanges the code for an ID token, and checks it.
    pub async fn person(&self, code: String, begun: Begun) -> Result<Person, Refusal> {
        let (known_at, metadata) = self.dated_metadata().await?;
        let begun_client = client(&self.settings, metadata).set_redirect_uri(self.redirect.clone());
        let wrong =
            |what: &str, error: &dyn std::error::Error| Refusal::Provider(format!("{what}: {}", in_full(error)));
        let request = begun_client
            .exchange_code(AuthorizationCode::new(code))
            .map_err(|error| wrong("the provider names no address for tokens", &error))?;
        let asked = self.http.clone();
        let http = move |request| ask(asked.clone(), request);
        let tokens = request.set_pkce_verifier(begun.verifier).request_async(&http).await;
        let tokens = tokens.map_err(|error| wrong("the provider gave no tokens", &error))?;
        let token = tokens.id_token().ok_or_else(|| Refusal::Provider("the provider gave no ID token".into()))?;
        // A token that ended a moment ago has not for a clock that is a little behind.
        let late = || (SystemTime::now() - LEEWAY).into();
        let mut claims = token.claims(&begun_client.id_token_verifier().set_time_fn(late), &begun.nonce);
        let renewed;
        if claims.as_ref().is_err_and(is_about_the_key)
            && let Some(metadata) = self.newer_metadata(known_at).await?
        {
            renewed = client(&self.settings, metadata);
            claims = token.claims(&renewed.id_token_verifier().set_time_fn(late), &begun.nonce);
        }
        let claims = claims.map_err(|error| wrong("the provider's ID token is not valid", &error))?;
        let all = serde_json::to_value(claims).map_err(|error| wrong("the claims cannot be read", &error))?;
        check_rest(&all, &self.settings.client_id, jiff::Timestamp::now().as_second())
            .map_err(|why| Refusal::Provider(format!("the provider's ID token is not valid: {why}")))?;
        let subject = format!("{} {}", claims.issuer().as_str(), claims.subject().as_str());
        person(&self.settings, subject, &all)
    }
}

/// What the library leaves open (OpenID Connect Core 1.0, 3.1.3.7): that the token was issued to this client, and that its time has come. `now` in
/// seconds since 1970.
fn check_rest(claims: &Value, client_id: &str, now: i64) -> Result<(), String> {
    match claims.get("azp") {
        None | Some(Value::Null) => {}
        Some(party) if party.as_str() == Some(client_id) => {}
        Some(party) => return Err(format!("it was issued to another client (azp {party})")),
    }
    for (claim, what) in [("iat", "it is issued"), ("nbf", "it is valid")] {
        let Some(time) = claims.get(claim).filter(|time| !time.is_null()) else { continue };
        if time.as_f64().is_none_or(|time| time > now as f64 + LEEWAY.as_secs_f64()) {
            return Err(format!("{what} only from {time} on ({claim}), and now it is {now}"));
        }
    }
    Ok(())
}

/// A login at the provider of these settings, with a code that it is to take: the name of whoever comes in, or why nobody does. For fuzzing
/// what a provider answers.
///
/// # Errors
/// Why nobody comes in.
#[doc(hidden)]
pub async fn try_login(settings: &config::Oidc, public_url: &str) -> Result<String, String> {
    let said = |refusal| match refusal {
        Refusal::Person(why) | Refusal::Provider(why) => why,
    };
    let provider = Provider::new(settings, public_url)?.ok_or("there is no provider")?;
    let (_, state) = provider.begin("/".into(), IpAddr::from([127, 0, 0, 1])).await.map_err(said)?;
    let begun = provider.take(&state).ok_or("the login is not under way")?;
    Ok(provider.person("code".into(), begun).await.map_err(said)?.name)
}

/// Whether another key might make the token a valid one: its key is not among the provider's, or the key of that name is another by now.
fn is_about_the_key(error: &ClaimsVerificationError) -> bool {
    use SignatureVerificationError::{AmbiguousKeyId, CryptoError, NoMatchingKey};
    matches!(error, ClaimsVerificationError::SignatureVerification(NoMatchingKey | AmbiguousKeyId(_) | CryptoError(_)))
}

/// Asks the provider over HTTP, with bounds on time and length.
async fn ask(http: reqwest::Client, request: HttpRequest) -> Result<HttpResponse, std::io::Error> {
    let failed = |error: reqwest::Error| std::io::Error::other(in_full(&error));
    let (parts, body) = request.into_parts();
    let request = http.request(parts.method, parts.uri.to_string()).headers(parts.headers).body(body);
    let mut answer = request.send().await.map_err(failed)?;
    let (status, headers) = (answer.status(), answer.headers().clone());
    let mut content = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(failed)? {
        if content.len() + chunk.len() > LONGEST_ANSWER {
            return Err(std::io::Error::other("the answer is longer than 1 MiB"));
        }
        content.extend_from_slice(&chunk);
    }
    let mut response = HttpResponse::new(content);
    (*response.status_mut(), *response.headers_mut()) = (status, headers);
    Ok(response)
}

fn client(settings: &config::Oidc, metadata: CoreProviderMetadata) -> ProviderClient {
    let secret = settings.client_secret.reveal();
    let secret = (!secret.is_empty()).then(|| ClientSecret::new(secret.to_owned()));
    Client::from_provider_metadata(metadata, ClientId::new(settings.client_id.clone()), secret)
}

/// The person whom the claims of an ID token name, and the highest role that they may have here.
fn person(settings: &config::Oidc, subject: String, claims: &Value) -> Result<Person, Refusal> {
    let name = claims.get(&settings.name_claim).and_then(Value::as_str).map(str::trim).unwrap_or_default();
    if name.is_empty() || name.len() > 128 || name.chars().any(char::is_control) {
        let claim = &settings.name_claim;
        return Err(Refusal::Provider(format!("the ID token has no usable claim {claim} (web.login.oidc.name_claim)")));
    }
    let given: Vec<&str> = match claims.get(&settings.role_claim) {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let has = |wanted: &[String]| wanted.iter().any(|value| given.contains(&value.as_str()));
    let roles = &settings.roles;
    let role = match () {
        () if has(&roles.admin) => Some(Role::Admin),
        () if has(&roles.operator) => Some(Role::Operator),
        () if has(&roles.reader) => Some(Role::Reader),
        () if has(&roles.viewer) => Some(Role::Viewer),
        () => settings.default_role.parse().ok(),
    };
    // A name that cannot be told from another's by looking at it would be that one's in the audit log.
    Ok(Person { name: outside::shown(name).into_owned(), subject, role })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn settings() -> config::Oidc {
        let given = [
            ("web.login.oidc.issuer", "https://login.example.org"),
            ("web.login.oidc.client_id", "triaged"),
            ("web.public_url", "https://triaged.example.org"),
        ];
        let given = given.map(|(key, value)| (key, value.to_owned()));
        let mut settings = config::Settings::load(None, &given).unwrap().web.login.oidc;
        settings.roles.reader = vec!["radiology".into()];
        settings.roles.admin = vec!["pacs-admins".into(), "it".into()];
        settings
    }

    fn role(settings: &config::Oidc, claims: Value) -> Option<Role> {
        person(settings, "issuer subject".into(), &claims).ok().and_then(|person| person.role)
    }

    #[test]
    fn the_highest_role_of_somebodys_groups_counts_and_without_one_nobody_comes_in() {
        let settings = settings();
        let with = |groups: Value| role(&settings, json!({ "preferred_username": "a", "groups": groups }));
        assert_eq!(with(json!(["radiology", "it"])), Some(Role::Admin));
        assert_eq!(with(json!("radiology")), Some(Role::Reader));
        for nothing in [json!([]), json!(["Radiology"]), json!(7), json!([["it"]]), Value::Null] {
            assert_eq!(with(nothing.clone()), None, "{nothing}");
        }
        let open = config::Oidc { default_role: "viewer".into(), ..settings };
        assert_eq!(role(&open, json!({ "preferred_username": "a" })), Some(Role::Viewer));
    }

    #[test]
    fn a_token_of_another_client_or_of_the_future_is_not_valid() {
        let check = |claims: Value| check_rest(&claims, "triaged", 1_000_000);
        for sound in [
            json!({}),
            json!({ "azp": "triaged", "iat": 1_000_059, "nbf": 1_000_060.0 }),
            json!({ "azp": null, "iat": 1, "nbf": null }),
        ] {
            assert_eq!(check(sound.clone()), Ok(()), "{sound}");
        }
        for wrong in [
            json!({ "azp": "other" }),
            json!({ "azp": ["triaged"] }),
            json!({ "iat": 1_000_061 }),
            json!({ "nbf": 1_003_600 }),
            json!({ "nbf": "soon" }),
        ] {
            assert!(check(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_name_looks_like_no_other() {
        let claims = json!({ "preferred_username": "ad\u{202e}a", "groups": ["it"] });
        let person = person(&settings(), "issuer subject".into(), &claims).ok().unwrap();
        assert_eq!(person.name, "ad\u{fffd}a");
    }

    #[test]
    fn who_has_no_usable_name_does_not_come_in() {
        let settings = settings();
        for name in [json!(""), json!("  "), json!("a\nb"), json!("x".repeat(129)), json!(3), Value::Null] {
            assert_eq!(role(&settings, json!({ "preferred_username": name, "groups": ["it"] })), None, "{name}");
        }
    }
}
