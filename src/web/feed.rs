//! `GET /events`: server-sent events that say when the ledger changed, so that pages fetch themselves anew.
//!
//! Other processes write, too (`triaged ack`), so the database is asked, several times a second while somebody listens.

use std::convert::Infallible;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use axum::extract::{Extension, State};
use axum::http::header::{HeaderName, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::login::Session;
use super::{Site, api};
use crate::ledger::{Changes, Ledger};

/// How often the database is asked.
const PERIOD: Duration = Duration::from_millis(150);

/// A page that has heard nothing for longer than some of these takes the node for gone.
const TICK: Duration = Duration::from_secs(5);

/// Pages that listen at one time: half of the connections, so that they never keep others out.
const MOST_LISTENERS: usize = 128;

/// Unread flags that pages are told of, the newest; and how much of a digest tells two studies apart.
const MOST_FLAGS: u32 = 500;
const FLAG_BYTES: usize = 5;

/// What pages wait on.
#[derive(Debug, Clone, Default)]
struct Seen {
    /// The number of changes that were seen.
    changes: u64,
    /// The studies of the whole node that are flagged and unread, as digests of their UIDs: by these a page sounds its alarm, whatever
    /// it shows. None until they were read.
    flags: Option<Arc<Vec<String>>>,
}

/// The changes that were seen, for pages to wait on.
#[derive(Clone)]
pub(super) struct Feed {
    changes: Arc<watch::Sender<Seen>>,
    places: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Feed {
    /// Watches the ledger until `stop`, on a thread that holds the ledger until it has ended.
    pub(super) fn start(ledger: Ledger, stop: CancellationToken) -> (Feed, JoinHandle<()>) {
        let changes = Arc::new(watch::Sender::new(Seen::default()));
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
fn watch(ledger: &Ledger, changes: &watch::Sender<Seen>, stop: &CancellationToken) {
    let mut database: Option<Changes> = None;
    while !stop.is_cancelled() {
        std::thread::sleep(PERIOD);
        if changes.receiver_count() == 0 {
            // What comes now is not looked at: who listens next is told what is there then, and no change since an hour ago.
            if database.take().is_some() {
                changes.send_modify(|seen| seen.flags = None);
            }
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
            Ok(true) => {
                let flags = ledger.unread_flags(MOST_FLAGS).map(|uids| uids.iter().map(|uid| flag(uid)).collect());
                if let Err(error) = &flags {
                    tracing::debug!("the unread flags cannot be read: {error}");
                    // At the next look it is tried again.
                    database = None;
                }
                changes.send_modify(|seen| {
                    seen.changes += 1;
                    if let Ok(flags) = flags {
                        seen.flags = Some(Arc::new(flags));
                    }
                });
            }
            Ok(false) => {}
            Err(error) => {
                tracing::debug!("the database cannot be watched: {error}");
                database = None;
            }
        }
    }
}

/// The name of a study by which pages tell whether a flag is new to them.
pub(super) fn flag(study_uid: &str) -> String {
    hex::encode(&Sha256::digest(study_uid)[..FLAG_BYTES])
}

/// A page that listens.
struct Listener {
    changes: watch::Receiver<Seen>,
    /// The flags that it was told.
    flags: Option<Arc<Vec<String>>>,
    stop: CancellationToken,
    is_new: bool,
    site: Site,
    /// By which the page was let in, and when it was last looked at.
    session: Option<(Session, Instant)>,
    _place: OwnedSemaphorePermit,
}

impl Listener {
    /// The unread flags, where they are others than those that the page was told.
    fn untold_flags(&mut self) -> Option<Event> {
        let flags = self.changes.borrow().flags.clone()?;
        if self.flags.as_ref() == Some(&flags) {
            return None;
        }
        let told = Event::default().event("flags").data(json!(*flags).to_string());
        self.flags = Some(flags);
        Some(told)
    }

    /// The next event; none when the node stops, or the session has ended.
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Listener)> {
        if std::mem::take(&mut self.is_new) {
            let hello = Event::default().event("hello").retry(Duration::from_secs(2));
            let ends = match &self.session {
                Some((session, _)) => session.ends(&self.site).await,
                None => None,
            };
            let said = json!({ "software": crate::SOFTWARE, "session_ends": ends });
            return Some((Ok(hello.data(said.to_string())), self));
        }
        if let Some(told) = self.untold_flags() {
            return Some((Ok(told), self));
        }
        // The page then asks again, and is led to the login: what it shows does not stay on the screen.
        if let Some((session, looked)) = &mut self.session
            && looked.elapsed() >= TICK
        {
            *looked = Instant::now();
            if !session.lasts(&self.site).await {
                return None;
            }
        }
        let event = tokio::select! {
            () = self.stop.cancelled() => return None,
            changed = self.changes.changed() => {
                changed.ok()?;
                Event::default().event("change").data(self.changes.borrow_and_update().changes.to_string())
            }
            () = tokio::time::sleep(TICK) => Event::default().event("tick").data("")
        };
        Some((Ok(event), self))
    }
}

/// `GET /events`
pub(super) async fn events(
    State(feed): State<Feed>,
    State(site): State<Site>,
    session: Option<Extension<Session>>,
) -> Response {
    let Ok(place) = feed.places.clone().try_acquire_owned() else {
        let busy = api::refusal(StatusCode::SERVICE_UNAVAILABLE, "too many pages listen; ask again in a while");
        return ([(RETRY_AFTER, "10")], busy).into_response();
    };
    let changes = feed.changes.subscribe();
    let session = session.map(|Extension(session)| (session, Instant::now()));
    let listener =
        Listener { changes, stop: feed.stop.clone(), flags: None, is_new: true, site, session, _place: place };
    let mut response = Sse::new(stream::unfold(listener, Listener::next)).into_response();
    // A proxy that gathers what it hands on (nginx) would keep the events.
    response.headers_mut().insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}
