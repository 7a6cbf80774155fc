//! The node's face to people and monitors: worklist pages, JSON API, metrics, health. `login` says who may; without it the web server belongs
//! on the loopback address or behind a proxy that has a login.

mod actor;
mod admin;
mod api;
mod assets;
mod attempts;
mod connection;
mod documents;
mod feed;
mod figures;
mod form;
mod forwarded;
mod guard;
mod health;
mod images;
mod links;
mod login;
mod oidc;
mod pages;
mod plot;
mod provider_login;
mod said;
mod study;
mod timeline;
mod worklist;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRef};
use axum::http::{Method, StatusCode, Uri};
use axum::response::Response;
use axum::routing::{get, post};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_http::compression::CompressionLayer;

pub use health::{Check, Readiness};

use crate::ledger::{Ledger, LedgerError};
use crate::notify::{Links, Routing};
use crate::rendering::Renderer;
use crate::report::Reports;
use crate::tls::TlsServer;
use crate::triage::ShadowJudge;
use connection::{Bounded, PeerAddress};
use feed::Feed;
pub use login::{Door, digest};
#[doc(hidden)]
pub use oidc::try_login;

/// Connections at one time; a further one takes the place of the one that was not answered for longest, of the address that has most.
const MOST_CONNECTIONS: usize = 256;

/// A request must have come and been answered within this time.
const IDLE: Duration = Duration::from_secs(30);

/// How long requests under way may still take after the stop.
const GRACE: Duration = Duration::from_secs(5);

/// A note of 500 characters in any script, as forms encode it, is smaller.
const MOST_BODY_BYTES: usize = 16 << 10;

/// Everything that the pages are made from.
#[derive(Clone)]
pub struct Site {
    pub ledger: Ledger,
    /// By what the verdicts of the model in shadow are made.
    pub shadow: ShadowJudge,
    /// May block: it is called off the async threads.
    pub readiness: Arc<dyn Fn() -> Readiness + Send + Sync>,
    pub metrics: PrometheusHandle,
    /// Checks the acknowledge links of messages.
    pub links: Arc<Links>,
    /// Who may use the pages.
    pub door: Arc<Door>,
    /// Makes the documents that can be downloaded.
    pub reports: Reports,
    /// Makes the pictures of slices.
    pub renderer: Renderer,
    /// `web.viewer_url`: where a study opens in a viewer; empty where nowhere.
    pub viewer_url: String,
    /// The configuration in force, secrets masked.
    pub settings: Arc<serde_json::Value>,
    /// The card of the model that gives the verdicts.
    pub card: Arc<serde_json::Value>,
    /// The terms of the data that it was trained on.
    pub terms: Arc<[String]>,
    /// Who hears what.
    pub routing: Arc<Routing>,
}

/// The state that all handlers share.
#[derive(Clone)]
struct App {
    site: Site,
    feed: Feed,
    shadow_week: admin::ShadowWeek,
}

impl FromRef<App> for Site {
    fn from_ref(app: &App) -> Site {
        app.site.clone()
    }
}

impl FromRef<App> for Feed {
    fn from_ref(app: &App) -> Feed {
        app.feed.clone()
    }
}

impl FromRef<App> for admin::ShadowWeek {
    fn from_ref(app: &App) -> admin::ShadowWeek {
        app.shadow_week.clone()
    }
}

impl FromRef<App> for Renderer {
    fn from_ref(app: &App) -> Renderer {
        app.site.renderer.clone()
    }
}

/// Serves, over TLS where there are certificates, until `stop`; then lets requests under way finish for a few seconds.
pub async fn serve(listener: TcpListener, tls: Option<TlsServer>, site: Site, stop: CancellationToken) {
    let loopback = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
    let listener = Bounded::new(listener, MOST_CONNECTIONS, IDLE);
    let listener = match tls {
        Some(tls) => listener.with_tls(tls),
        None => listener,
    };
    let stopped = stop.clone().cancelled_owned();
    let (feed, watching) = Feed::start(site.ledger.clone(), stop.clone());
    let server = axum::serve(
        listener,
        router(App { site, feed, shadow_week: admin::ShadowWeek::default() }, loopback)
            .into_make_service_with_connect_info::<PeerAddress>(),
    )
    .with_graceful_shutdown(stopped)
    .into_future();
    tokio::select! {
        // It never ends with an error: those of accepting are logged and outwaited.
        _ = server => {}
        () = async { stop.cancelled().await; tokio::time::sleep(GRACE).await } => {}
    }
    // The thread has the ledger: whoever stops the node closes it behind this, or its write-ahead log stays.
    if stop.is_cancelled() {
        let _ = tokio::task::spawn_blocking(move || watching.join()).await;
    }
}

fn router(app: App, loopback: bool) -> Router {
    let router = Router::new()
        .route("/", get(worklist::worklist))
        .route("/admin", get(admin::admin))
        .route("/events", get(feed::events))
        .route("/studies/{uid}", get(study::study))
        .route("/studies/{uid}/acknowledge", post(study::acknowledge))
        .route("/studies/{uid}/unacknowledge", post(study::unacknowledge))
        .route("/studies/{uid}/feedback", post(study::feedback))
        .route("/studies/{uid}/rescore", post(study::rescore))
        .route("/studies/{uid}/thumbnail", get(images::thumbnail))
        .route("/studies/{uid}/series/{series}/slices/{sop}/{frame}", get(images::slice))
        .route("/studies/{uid}/series/{series}/slices/{sop}/{frame}/heat-map", get(images::heat))
        .route("/notifications/{id}/requeue", post(study::requeue))
        .route("/acknowledge", get(links::ask).post(links::acknowledge))
        .route("/login", get(login::form).post(login::log_in))
        .route("/login/oidc", get(provider_login::begin))
        .route("/login/oidc/callback", get(provider_login::callback))
        .route("/logout", post(login::log_out))
        .route("/style.css", get(assets::style))
        .route("/triaged.js", get(assets::script))
        .route("/favicon.svg", get(assets::icon))
        .route("/api/v1/studies", get(api::studies))
        .route("/api/v1/studies/{uid}", get(api::study))
        .route("/api/v1/studies/{uid}/acknowledge", post(api::acknowledge))
        .route("/api/v1/studies/{uid}/report.dcm", get(documents::report))
        .route("/api/v1/studies/{uid}/key-image.dcm", get(documents::key_image))
        .route("/api/v1/studies/{uid}/unacknowledge", post(api::unacknowledge))
        .route("/api/v1/studies/{uid}/feedback", post(api::give_feedback))
        .route("/api/v1/studies/{uid}/rescore", post(api::rescore))
        .route("/api/v1/openapi.json", get(assets::openapi))
        .route("/api/v1/feedback", get(api::feedback))
        .route("/api/v1/notifications", get(api::notifications))
        .route("/api/v1/notifications/{id}/requeue", post(api::requeue))
        .route("/metrics", get(health::metrics))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .fallback(nowhere)
        .method_not_allowed_fallback(not_that_way)
        .layer(DefaultBodyLimit::max(MOST_BODY_BYTES))
        .layer(axum::middleware::from_fn_with_state(app.site.clone(), login::check))
        .layer(axum::middleware::from_fn_with_state(app.site.clone(), guard::against_other_sites));
    let router = if loopback { router.layer(axum::middleware::from_fn(guard::against_rebinding)) } else { router };
    // Pictures and events are left as they are.
    router.layer(CompressionLayer::new()).layer(axum::middleware::from_fn(guard::headers)).with_state(app)
}

async fn nowhere(uri: Uri) -> Response {
    failed_at(&uri, Failed::NotFound("there is nothing at this address".into()))
}

async fn not_that_way(method: Method, uri: Uri) -> Response {
    failed_at(
        &uri,
        Failed::Refused(StatusCode::METHOD_NOT_ALLOWED, format!("this address does not answer to {method}")),
    )
}

fn failed_at(uri: &Uri, failed: Failed) -> Response {
    if uri.path().starts_with("/api/") { api::failure(failed) } else { pages::failure(failed) }
}

/// Why a request was not done, for API and pages.
#[derive(Debug)]
enum Failed {
    NotFound(String),
    /// With a status of the 4xx family, or 503.
    Refused(StatusCode, String),
    /// Already logged; the caller learns no more than that.
    Internal,
}

impl From<LedgerError> for Failed {
    fn from(error: LedgerError) -> Failed {
        match error {
            LedgerError::NotFound(what) => Failed::NotFound(what),
            LedgerError::JudgedAgain(why) => Failed::Refused(StatusCode::CONFLICT, why),
            error => {
                tracing::error!(%error, "a web request could not be answered");
                Failed::Internal
            }
        }
    }
}

impl Site {
    /// Calls what blocks on the ledger off the async threads.
    async fn ledger<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Ledger) -> crate::ledger::Result<T> + Send + 'static,
    ) -> Result<T, Failed> {
        let ledger = self.ledger.clone();
        match tokio::task::spawn_blocking(move || call(&ledger)).await {
            Ok(result) => Ok(result?),
            Err(error) => {
                tracing::error!(%error, "a web request panicked; this is a bug");
                Err(Failed::Internal)
            }
        }
    }
}
