//! `GET /events`: server-sent events that say when the ledger changed, so that pages fetch themselves anew.
//!
//! Other processes write, too (`triaged ack`), so the database is asked, several times a second while somebody listens.

use std::convert::Infallible;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::extract::State;
use axum::http::header::{HeaderName, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::api;
use crate::ledger::{Changes, Ledger};

/// How often the database is asked.
const PERIOD: Duration = Duration::from_millis(150);

/// A page that has heard nothing for longer than some of these takes the node for gone.
const TICK: Duration = Duration::from_secs(5);

/// Pages that listen at one time: half of the connections, so that they never keep others out.
const MOST_LISTENERS: usize = 128;

/// The number of changes that were seen, for pages to wait on.
#[derive(Clone)]
pub(super) struct Feed {
    changes: Arc<watch::Sender<u64>>,
    places: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Feed {
    /// Watches the ledger until `stop`, on a thread that holds the ledger until it has ended.
    pub(super) fn start(ledger: Ledger, stop: CancellationToken) -> (Feed, JoinHandle<()>) {
        let changes = Arc::new(watch::Sender::new(0));
        let (told, stopped) = (changes.clone(), stop.clone());
        let watch = move || watch(&ledger, &told, &stopped);
        let thread = std::thread::Builder::new()
            .name("feed".into())
            .spawn(watch)
            .expect("the system can start a thread while the node starts");
        (Feed { changes, places: Arc::new(Semaphore::new(MOST_LISTENERS)), stop }, thread)
    }
}

/// Blocks.
fn watch(ledger: &Ledger, changes: &watch::Sender<u64>, stop: &CancellationToken) {
    let mut database: Option<Changes> = None;
    while !stop.is_cancelled() {
        std::thread::sleep(PERIOD);
        if changes.receiver_count() == 0 {
            continue;
        }
        let came = match &mut database {
            Some(database) => database.came(),
            // The first look: what came before it is not known.
            None => ledger.watch().map(|watching| {
                database = Some(watching);
                true
            }),
        };
        match came {
            Ok(true) => changes.send_modify(|count| *count += 1),
            Ok(false) => {}
            Err(error) => {
                tracing::debug!("the database cannot be watched: {error}");
                database = None;
            }
        }
    }
}

/// A page that listens.
struct Listener {
    changes: watch::Receiver<u64>,
    stop: CancellationToken,
    is_new: bool,
    _place: OwnedSemaphorePermit,
}

impl Listener {
    /// The next event; none when the node stops.
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Listener)> {
        if std::mem::take(&mut self.is_new) {
            let hello = Event::default().event("hello").retry(Duration::from_secs(2));
            return Some((Ok(hello.data(json!({ "software": crate::SOFTWARE }).to_string())), self));
        }
        let event = tokio::select! {
            () = self.stop.cancelled() => return None,
            changed = self.changes.changed() => {
                changed.ok()?;
                Event::default().event("change").data(self.changes.borrow_and_update().to_string())
            }
            () = tokio::time::sleep(TICK) => Event::default().event("tick").data("")
        };
        Some((Ok(event), self))
    }
}

/// `GET /events`
pub(super) async fn events(State(feed): State<Feed>) -> Response {
    let Ok(place) = feed.places.clone().try_acquire_owned() else {
        let busy = api::refusal(StatusCode::SERVICE_UNAVAILABLE, "too many pages listen; ask again in a while");
        return ([(RETRY_AFTER, "10")], busy).into_response();
    };
    let changes = feed.changes.subscribe();
    let listener = Listener { changes, stop: feed.stop.clone(), is_new: true, _place: place };
    let mut response = Sse::new(stream::unfold(listener, Listener::next)).into_response();
    // A proxy that gathers what it hands on (nginx) would keep the events.
    response.headers_mut().insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}
