//! The node: wires the stages together, starts them from the back to the front, and stops them from the front to the
//! back, so that nothing is handed to a stage that is not there.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::archive::{Archive, create_synced};
use crate::config::Settings;
use crate::dimse::{Listener, Scp};
use crate::inference::{Engine, EngineError, EngineInfo, Pipeline, Shadow, ShadowStatus};
use crate::intake::{Intake, Limits};
use crate::ledger::{Ledger, LedgerError};
use crate::notify::{self, ChannelError, Worker};
use crate::retention::Retention;
use crate::triage::{Activity, Judge, StatRule};
use crate::web::{self, Check, Readiness, Site};

/// How long a stop waits for the objects that associations have in flight.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// How long a node that is no longer alive tries to leave its ledger in order.
const ABANDON_PATIENCE: Duration = Duration::from_secs(5);

/// How often it is tried whether the ledger can be written.
const PULSE: Duration = Duration::from_secs(5);

/// The ledger may be locked by another process for so long before the node is no longer alive: a restart does not help against
/// that, against other troubles of a database it may.
const LEDGER_PATIENCE: Duration = Duration::from_secs(300);

/// What of the node is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Serve,
    /// Scoring and judging alone: for `triaged rescore` while no node runs. Alerts wait in the outbox.
    Score,
}

/// Why the node did not start. Nothing was accepted.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the data folder {path} cannot be used: {source}")]
    DataFolder { path: PathBuf, source: io::Error },
    #[error("another triaged works on the data folder {path}; give this one a data_dir of its own")]
    Locked { path: PathBuf },
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("the shadow model (inference.shadow): {0}")]
    Shadow(#[source] EngineError),
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error("metrics cannot be recorded: {0}")]
    Metrics(String),
    #[error("{setting}: cannot listen on {address}: {source}")]
    Listen { setting: &'static str, address: String, source: io::Error },
}

impl StartError {
    /// Whether it may be gone at the next try, so that whoever started the node should start it again. What a person has
    /// to mend, settings and models, may not.
    pub fn may_pass(&self) -> bool {
        match self {
            StartError::DataFolder { .. } | StartError::Locked { .. } => true,
            StartError::Ledger(error) => error.may_pass(),
            // After a power cut the driver may come later than the node.
            StartError::Engine(error) | StartError::Shadow(error) => {
                matches!(error, EngineError::Device { .. } | EngineError::Run(_))
            }
            // An address that the network has yet to give to this machine; a port in use stays so.
            StartError::Listen { source, .. } => source.kind() == io::ErrorKind::AddrNotAvailable,
            StartError::Channel(_) | StartError::Metrics(_) => false,
        }
    }
}

/// A running node.
pub struct Node {
    ledger: Ledger,
    engine: EngineInfo,
    dimse: Option<(SocketAddr, Stage)>,
    pipeline: (Pipeline, CancellationToken),
    shadow: Option<Shadow>,
    judge: Stage,
    retention: Option<Stage>,
    channels: Vec<Stage>,
    web: Option<(SocketAddr, Stage)>,
    pulse: Pulse,
    _lock: File,
}

/// A task with the token that stops it.
struct Stage {
    task: JoinHandle<()>,
    stop: CancellationToken,
}

impl Stage {
    fn start<F: Future<Output = ()> + Send + 'static>(run: impl FnOnce(CancellationToken) -> F) -> Stage {
        let stop = CancellationToken::new();
        Stage { task: tokio::spawn(run(stop.clone())), stop }
    }

    async fn stop(self, name: &str, patience: Duration) {
        self.stop.cancel();
        if tokio::time::timeout(patience, self.task).await.is_err() {
            warn!("{name} did not stop within {patience:?}");
        }
    }
}

/// Whether the ledger can be written, looked at again and again: a write may have to wait longer than the watchdog does.
struct Pulse {
    task: JoinHandle<()>,
    last: Arc<Mutex<Instant>>,
}

impl Pulse {
    fn of(ledger: Ledger) -> Pulse {
        let last = Arc::new(Mutex::new(Instant::now()));
        let beat = last.clone();
        let task = tokio::spawn(async move {
            loop {
                match ledger.try_write().await {
                    Ok(()) => *beat.lock().expect("nobody panics while holding it") = Instant::now(),
                    Err(LedgerError::Closed) => return,
                    Err(error) => error!("the ledger cannot be written: {error}"),
                }
                tokio::time::sleep(PULSE).await;
            }
        });
        Pulse { task, last }
    }

    fn beats(&self) -> bool {
        let last = *self.last.lock().expect("nobody panics while holding it");
        !self.task.is_finished() && last.elapsed() < LEDGER_PATIENCE
    }
}

impl Drop for Pulse {
    /// It holds the ledger, whose last handle joins the writer thread.
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Node {
    /// Starts a node. When this returns, it accepts associations.
    pub async fn start(settings: Settings, role: Role) -> Result<Node, StartError> {
        let serve = role == Role::Serve;
        let metrics = crate::metrics::install().map_err(StartError::Metrics)?;
        let data_dir = settings.data_dir.clone();
        let stat = StatRule::new(&settings.triage);
        let lock = lock(&data_dir)?;
        let folder = |source| StartError::DataFolder { path: data_dir.clone(), source };
        let (archive, parts) = Archive::open(&data_dir).map_err(folder)?;
        let archive = archive.with_min_free(settings.archive.min_free_mib.saturating_mul(1 << 20));
        if parts > 0 {
            warn!(
                parts,
                "removed objects that were coming in when the node last ended; their senders had no success for them"
            );
        }
        let ledger = Ledger::open(&settings.database())?;
        let waiting = ledger.queue_depth()?;
        if waiting > 0 {
            info!(waiting, "slices wait to be scored from before");
        }
        let channels = notify::channels(&settings.notify)?;
        if channels.is_empty() && serve {
            warn!(
                "no notification channel is configured: flagged studies show only in the worklist (notify.webhook.url)"
            );
        }
        // Ports first: a port in use should be told at once, not after the model is loaded.
        let dimse = match serve {
            false => None,
            true => {
                let address = SocketAddr::new(settings.dimse.listen, settings.dimse.port);
                let listen =
                    |source| StartError::Listen { setting: "dimse.port", address: address.to_string(), source };
                let listener = Listener::bind(address).map_err(listen)?;
                let bound = listener.address().map_err(listen)?;
                Some((listener, bound))
            }
        };
        let site = match serve && !settings.web.listen.is_empty() {
            false => None,
            true => {
                let listen =
                    |source| StartError::Listen { setting: "web.listen", address: settings.web.listen.clone(), source };
                let listener = TcpListener::bind(&settings.web.listen).await.map_err(listen)?;
                let bound = listener.local_addr().map_err(listen)?;
                Some((listener, bound))
            }
        };
        let inference = settings.inference.clone();
        let engine = tokio::task::spawn_blocking(move || Engine::load(&inference)).await;
        let engine = engine.map_err(|panic| EngineError::Run(panic.to_string()))??;
        let info = engine.info();
        info.note_running("verdict", true);
        // Before anything is scored: a slice that ends is queued for the shadow only while the ledger knows of one.
        let shadow = match serve {
            // `triaged rescore` leaves the shadow's work to the node.
            false => None,
            true => start_shadow(&settings, &info, &ledger, &archive).await?,
        };

        let activity = Activity::default();
        let names = channels.iter().map(|channel| channel.name().to_owned()).collect();
        let workers = match serve {
            false => Vec::new(),
            true => channels
                .into_iter()
                .map(|channel| {
                    let worker = Worker::new(ledger.clone(), channel, &settings.notify);
                    Stage::start(|stop| worker.run(stop))
                })
                .collect(),
        };
        let judge = Judge {
            ledger: ledger.clone(),
            activity: activity.clone(),
            card: info.card.clone(),
            settings: settings.triage.clone(),
            channels: names,
        };
        let judge = Stage::start(|stop| judge.run(stop));
        let retention = match serve {
            false => None,
            true => Retention::new(&settings.archive, ledger.clone(), archive.clone())
                .map(|retention| Stage::start(|stop| retention.run(stop))),
        };
        let stop = CancellationToken::new();
        let pipeline = Pipeline::start(engine, ledger.clone(), archive.clone(), &settings.inference, stop.clone());
        let listening = Arc::new(AtomicBool::new(serve));
        let web = site.map(|(listener, bound)| {
            let shadow = shadow.as_ref().map(|shadow| shadow.status().clone());
            let readiness = readiness(&settings, &info, shadow, &ledger, &archive, listening.clone());
            let site = Site { ledger: ledger.clone(), readiness, metrics };
            info!("web on http://{bound}");
            (bound, Stage::start(|stop| web::serve(listener, site, stop)))
        });
        let dimse = dimse.map(|(listener, bound)| {
            let limits = Limits {
                max_object_bytes: settings.dimse.max_object_mib.saturating_mul(1 << 20),
                max_queue: settings.inference.max_queue,
            };
            let intake = Intake::new(archive, ledger.clone(), activity, stat, limits);
            let scp = Arc::new(Scp::new(&settings.dimse, intake));
            info!(ae_title = settings.dimse.ae_title, data_dir = %data_dir.display(), "DICOM on {bound}");
            let run = async move |stop| {
                listener.run(scp, stop).await;
                listening.store(false, Ordering::SeqCst);
            };
            (bound, Stage::start(run))
        });
        let pulse = Pulse::of(ledger.clone());
        Ok(Node {
            ledger,
            engine: info,
            dimse,
            pipeline: (pipeline, stop),
            shadow,
            judge,
            retention,
            channels: workers,
            web,
            pulse,
            _lock: lock,
        })
    }

    /// Where associations are accepted.
    pub fn dimse_address(&self) -> Option<SocketAddr> {
        self.dimse.as_ref().map(|(address, _)| *address)
    }

    pub fn web_address(&self) -> Option<SocketAddr> {
        self.web.as_ref().map(|(address, _)| *address)
    }

    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    pub fn engine(&self) -> &EngineInfo {
        &self.engine
    }

    /// Whether every stage still runs and the ledger answers: what the watchdog asks.
    pub fn is_alive(&self) -> bool {
        let stages = self.channels.iter().chain([&self.judge]).chain(&self.retention);
        let stages = stages.chain(self.dimse.iter().chain(&self.web).map(|(_, stage)| stage));
        stages.into_iter().all(|stage| !stage.task.is_finished()) && self.pipeline.0.is_alive() && self.pulse.beats()
    }

    /// For a node that is no longer alive: gives back the claims of slices that are not to be blamed for it, and no more. Takes some
    /// seconds at most.
    pub async fn abandon(self) {
        let (pipeline, stop) = &self.pipeline;
        stop.cancel();
        let given = tokio::time::timeout(ABANDON_PATIENCE, pipeline.give_back()).await;
        if !matches!(given, Ok(Ok(()))) {
            warn!("slices that were worked on will count as having been claimed when the node ended");
        }
        if let Some(shadow) = self.shadow {
            let _ = tokio::time::timeout(ABANDON_PATIENCE, shadow.stopped()).await;
        }
    }

    /// Stops in order: associations finish the object in flight, claimed slices are scored, deliveries in flight end,
    /// the ledger is flushed. What is still queued or pending is taken up at the next start.
    pub async fn stop(self) {
        info!("stopping");
        drop(self.pulse);
        if let Some(shadow) = &self.shadow {
            shadow.stop();
        }
        if let Some((_, stage)) = self.dimse {
            stage.stop("associations", STOP_PATIENCE).await;
        }
        let (pipeline, stop) = self.pipeline;
        stop.cancel();
        if tokio::time::timeout(STOP_PATIENCE, pipeline.stopped()).await.is_err() {
            warn!("inference did not stop within {STOP_PATIENCE:?}");
        }
        if let Some(shadow) = self.shadow
            && tokio::time::timeout(STOP_PATIENCE, shadow.stopped()).await.is_err()
        {
            warn!("the shadow model did not stop within {STOP_PATIENCE:?}");
        }
        self.judge.stop("triage", STOP_PATIENCE).await;
        if let Some(stage) = self.retention {
            stage.stop("retention", STOP_PATIENCE).await;
        }
        for stage in self.channels {
            stage.stop("notification", STOP_PATIENCE).await;
        }
        if let Some((_, stage)) = self.web {
            stage.stop("web", STOP_PATIENCE).await;
        }
        // Dropping the last handle joins the writer thread.
        let ledger = self.ledger;
        let _ = tokio::task::spawn_blocking(move || drop(ledger)).await;
        info!("stopped");
    }
}

/// Makes the data folder and takes its lock, which is held while the file lives.
pub fn lock(data_dir: &Path) -> Result<File, StartError> {
    let folder = |source| StartError::DataFolder { path: data_dir.into(), source };
    create_synced(data_dir).map_err(folder)?;
    let path = data_dir.join("triaged.lock");
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(folder)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StartError::Locked { path: data_dir.into() }),
        Err(error) => Err(folder(error.into())),
    }
}

/// Loads the second model, if one is named, and starts it in shadow; else notes that there is none.
async fn start_shadow(
    settings: &Settings,
    engine: &EngineInfo,
    ledger: &Ledger,
    archive: &Archive,
) -> Result<Option<Shadow>, StartError> {
    let Some(inference) = settings.inference.of_shadow() else {
        ledger.stop_shadow().await?;
        return Ok(None);
    };
    let loaded = inference.clone();
    let second = tokio::task::spawn_blocking(move || Engine::load(&loaded)).await;
    let second = second.map_err(|panic| StartError::Shadow(EngineError::Run(panic.to_string())))?;
    let shadow =
        Shadow::start(second.map_err(StartError::Shadow)?, ledger.clone(), archive.clone(), &inference).await?;
    let info = &shadow.status().info;
    if info.card.sha256 == engine.card.sha256 {
        warn!("inference.shadow is the model that gives the verdicts: it will agree with itself");
    }
    info!(
        model = info.card.name,
        provider = info.provider,
        "a second model runs in shadow: its results are stored and used for nothing"
    );
    Ok(Some(shadow))
}

/// A model as `/readyz` names it.
fn model_in_words(engine: &EngineInfo) -> String {
    format!("{} version {} SHA-256 {}", engine.card.name, engine.card.version, engine.card.sha256)
}

fn provider_in_words(engine: &EngineInfo) -> String {
    match &engine.fallback {
        None => engine.provider.to_owned(),
        Some(why) => format!("{}; fell back, as inference.device is \"auto\": {why}", engine.provider),
    }
}

/// What `/readyz` says.
fn readiness(
    settings: &Settings,
    engine: &EngineInfo,
    shadow: Option<ShadowStatus>,
    ledger: &Ledger,
    archive: &Archive,
    listening: Arc<AtomicBool>,
) -> Arc<dyn Fn() -> Readiness + Send + Sync> {
    let min_free = settings.archive.min_free_mib.saturating_mul(1 << 20);
    let (model, provider) = (model_in_words(engine), provider_in_words(engine));
    let (ledger, archive) = (ledger.clone(), archive.clone());
    Arc::new(move || {
        let check = |name: &str, ok, detail: String| Check { name: name.into(), ok, detail };
        let queue = ledger.queue_depth();
        let free = archive.free_bytes();
        let mut readiness = Readiness {
            checks: vec![
                check("model", true, model.clone()),
                check("provider", true, provider.clone()),
                match queue {
                    Ok(waiting) => check("ledger", true, format!("{waiting} slices wait")),
                    Err(error) => check("ledger", false, error.to_string()),
                },
                match free {
                    Ok(free) => check(
                        "disk",
                        free >= min_free,
                        format!("{} MiB free of at least {}", free >> 20, min_free >> 20),
                    ),
                    Err(error) => check("disk", false, error.to_string()),
                },
                check("dimse", listening.load(Ordering::SeqCst), "accepts associations".into()),
            ],
        };
        // The node does its work with or without it, so it is never the reason to be not ready.
        if let Some(shadow) = &shadow {
            let model = model_in_words(&shadow.info);
            let detail = match (shadow.ended(), ledger.shadow_queue_depth()) {
                (Some(why), _) => format!("{model}; works no longer, until the node is started again: {why}"),
                (None, Ok(waiting)) => {
                    let provider = provider_in_words(&shadow.info);
                    format!("{model} on {provider}; used for nothing; {waiting} slices wait for it")
                }
                (None, Err(error)) => format!("{model}; {error}"),
            };
            readiness.checks.push(check("shadow", true, detail));
        }
        readiness
    })
}
