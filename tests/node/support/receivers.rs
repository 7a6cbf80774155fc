//! Receivers of webhooks on real sockets, and the node's part that tells them.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use triaged::config;
use triaged::ledger::Ledger;
use triaged::notify::{Escalation, Links, Routing, Surroundings, Worker, channels};

pub struct Request {
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub at: Instant,
}

impl Request {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name}")).to_str().unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// The receiver's answers, in order; then 200 for ever.
pub type Answers = Vec<Response>;

#[derive(Clone)]
pub struct Receiver {
    answers: Arc<Mutex<VecDeque<Response>>>,
    requests: mpsc::UnboundedSender<Request>,
    /// A request is answered once it got a permit.
    pub gate: Arc<Semaphore>,
    inside: Arc<AtomicUsize>,
    pub most_inside: Arc<AtomicUsize>,
}

/// A receiver, its address and what it got. With `open` false it answers only what the gate lets through.
pub async fn receiver(
    on: SocketAddr,
    answers: Answers,
    open: bool,
) -> (SocketAddr, Receiver, mpsc::UnboundedReceiver<Request>) {
    let (requests, got) = mpsc::unbounded_channel();
    let receiver = Receiver {
        answers: Arc::new(Mutex::new(answers.into())),
        requests,
        gate: Arc::new(Semaphore::new(if open { Semaphore::MAX_PERMITS } else { 0 })),
        inside: Arc::default(),
        most_inside: Arc::default(),
    };
    let listener = TcpListener::bind(on).await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().fallback(receive).with_state(receiver.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (address, receiver, got)
}

async fn receive(State(receiver): State<Receiver>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let inside = receiver.inside.fetch_add(1, Ordering::SeqCst) + 1;
    receiver.most_inside.fetch_max(inside, Ordering::SeqCst);
    // Some tests do not listen.
    let _ = receiver.requests.send(Request { uri, headers, body, at: Instant::now() });
    receiver.gate.acquire().await.unwrap().forget();
    receiver.inside.fetch_sub(1, Ordering::SeqCst);
    receiver.answers.lock().unwrap().pop_front().unwrap_or_else(|| StatusCode::OK.into_response())
}

pub fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

pub async fn next(requests: &mut mpsc::UnboundedReceiver<Request>) -> Request {
    tokio::time::timeout(Duration::from_secs(20), requests.recv()).await.expect("a request in time").unwrap()
}

/// Settings as a site would write them.
pub fn from_file(text: &str) -> config::Notify {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    config::Settings::load(Some(file.path()), &[]).unwrap().notify
}

/// All channels, routes and escalations of a configuration, running.
pub struct Running {
    pub routing: Arc<Routing>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Running {
    pub fn start(ledger: &Ledger, settings: &config::Notify) -> Running {
        Running::start_with(ledger, settings, Links::none())
    }

    pub fn start_with(ledger: &Ledger, settings: &config::Notify, links: Links) -> Running {
        let surroundings = Surroundings { recipients: Arc::new(ledger.clone()), ..Surroundings::default() };
        let channels = channels(settings, &surroundings).unwrap();
        let names: Vec<String> = channels.iter().map(|channel| channel.name().to_owned()).collect();
        let (stop, links) = (CancellationToken::new(), Arc::new(links));
        let routing = Arc::new(Routing::new(settings, &names).unwrap());
        let told = routing.clone();
        ledger.tell_by(Box::new(move |event| told.messages(event)));
        let worker = |channel| {
            tokio::spawn(Worker::new(Arc::new(ledger.clone()), channel, settings, links.clone()).run(stop.clone()))
        };
        let mut tasks: Vec<JoinHandle<()>> = channels.into_iter().map(worker).collect();
        let escalation = Escalation::new(Arc::new(ledger.clone()), routing.clone(), settings);
        tasks.push(tokio::spawn(escalation.run(stop.clone())));
        Running { routing, stop, tasks }
    }

    pub async fn stop(self) {
        self.stop.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}
