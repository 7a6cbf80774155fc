//! The node: wires the stages together, starts them from the back to the front, and stops them from the front to the
//! back, so that nothing is handed to a stage that is not there.

mod error;
mod lock;
mod measure;
mod pulse;
mod readiness;
mod stage;
mod storage;
mod watch;

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::archive::Archive;
use crate::assets;
use crate::audit::Exporter;
use crate::commitment::Commitments;
use crate::config::Settings;
use crate::decoding::{Frames, THIS_PROGRAM};
use crate::dimse::reporter::Reporter;
use crate::dimse::service::commitment::Commitment;
use crate::dimse::{Listener, Scp};
use crate::event::Kind;
use crate::forward;
use crate::inference::{Engine, EngineError, EngineInfo, Pipeline, Shadow};
use crate::intake::{Intake, Limits, Rules};
use crate::ledger::{Actor, Deed, Ledger, LedgerError, Queue, WorkerId};
use crate::notify::{
    self, ArchivedStudies, ChannelError, Direct, Escalation, Links, OwnDocuments, Routing, Surroundings, Worker,
};
use crate::outgoing::DicomPeers;
use crate::recovery::{self, Progress, Recovery};
use crate::rendering::Renderer;
use crate::report::Reports;
use crate::retention::Retention;
use crate::tls::TlsServer;
use crate::triage::{Activity, Gate, Judge, ShadowJudge, StatRule};
use crate::trouble::Trouble;
use crate::web::{self, Door, Site};

pub use error::{StartError, StorageError};
pub use lock::{LOCK, is_wanted, lock, try_lock};
pub use storage::{Storage, Strangers, open_storage};

use triaged_model::ModelCard;

use pulse::Pulse;
use readiness::{Troubles, readiness};
use stage::Stage;
use watch::Watch;

/// How long a stop waits for the objects that associations have in flight.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// The file of the data folder that says that people were told the node is not ready.
const TOLD_NOT_READY: &str = ".told-not-ready";

/// How long a node that is no longer alive tries to leave its ledger in order.
const ABANDON_PATIENCE: Duration = Duration::from_secs(5);

/// The part of the node that is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Serve,
    /// Scoring and judging alone: for `triaged rescore` while no node runs. Alerts wait in the outbox.
    Score,
}

/// A running node.
pub struct Node {
    ledger: Ledger,
    engine: EngineInfo,
    /// The plain port first, then that for TLS, if there is one.
    dimse: Vec<(SocketAddr, Stage)>,
    pipeline: (Pipeline, CancellationToken),
    shadow: Option<Shadow>,
    judge: Stage,
    retention: Option<Stage>,
    /// Delivers reports of storage commitment.
    reports: Option<Stage>,
    /// Sends audit messages.
    exporter: Option<Stage>,
    serves: bool,
    channels: Vec<Stage>,
    web: Option<(SocketAddr, Stage)>,
    pulse: Pulse,
    watch: Option<Stage>,
    recovery: Option<Stage>,
    /// Measures for the node page.
    measure: Option<Stage>,
    _lock: File,
}

impl Node {
    /// Starts a node. When this returns, it accepts associations.
    pub async fn start(settings: Settings, role: Role) -> Result<Node, StartError> {
        let serve = role == Role::Serve;
        if serve {
            verify(&settings)?;
        }
        let metrics = crate::metrics::install().map_err(StartError::Metrics)?;
        let data_dir = settings.data_dir.clone();
        let stat = StatRule::new(&settings.triage);
        let locked = data_dir.clone();
        let lock = tokio::task::spawn_blocking(move || lock::lock_as(&locked, role)).await;
        let lock = lock.map_err(|_| LedgerError::Closed)??;
        let opened = settings.clone();
        let opened = tokio::task::spawn_blocking(move || open_storage(&opened, Strangers::Refuse)).await;
        let Storage { archive, ledger, remark } = opened.map_err(|_| LedgerError::Closed)??;
        if let Some(remark) = &remark {
            warn!("{remark}: files and rows are held against each other, and what is missing is taken in again");
        }
        let worker = WorkerId::of_this_run();
        let waiting = ledger.queue_depth()?;
        if waiting > 0 {
            let leased = ledger.recover(&worker.node).await?;
            info!(
                waiting,
                leased, "slices wait to be scored from before, some of them leased when the node last ended"
            );
        }
        let zone = notify::zone(&settings.notify.time_zone);
        let zone = zone.map_err(|why| ChannelError { key: "notify.time_zone".into(), why })?;
        let finding = finding(&settings.inference.model);
        let frames = Frames::start(decoder_program(), &settings.inference);
        let maker = Reports::new(&data_dir, &finding, zone, frames.clone());
        let files = ArchivedStudies { ledger: ledger.clone(), data_dir: data_dir.clone() };
        let documents = OwnDocuments { ledger: ledger.clone(), reports: maker.clone() };
        let peers = DicomPeers { dimse: settings.dimse.clone() };
        let surroundings = Surroundings {
            files: Arc::new(files),
            documents: Arc::new(documents),
            peers: Arc::new(peers),
            recipients: Arc::new(ledger.clone()),
        };
        let channels = notify::channels(&settings.notify, &surroundings)?;
        let direct = Direct::new(&settings.notify, &surroundings)?;
        let destinations = forward::destinations(&settings.forward, &settings.dimse)?;
        let names: Vec<String> = channels.iter().map(|channel| channel.name().to_owned()).collect();
        let routing = Arc::new(Routing::new(&settings.notify, &names)?);
        let told = routing.clone();
        ledger.tell_by(Box::new(move |event| told.messages(event)));
        let keys = ledger.clone();
        let key = tokio::task::spawn_blocking(move || keys.link_key()).await.map_err(|_| LedgerError::Closed)??;
        let links = Links::new(&settings.web.public_url, key);
        let links = Arc::new(links.map_err(|why| ChannelError { key: "web.public_url".into(), why })?);
        if channels.is_empty() && serve {
            // A node that is only tried out has neither; one warning for both does not look like two mistakes.
            let anybody = if is_open_to_all(&settings) { format!("; {OPEN_TO_ALL}") } else { String::new() };
            warn!(
                "no notification channel is configured: flagged studies show only in the worklist \
                 (notify.webhook.url){anybody}"
            );
        } else if serve && is_open_to_all(&settings) {
            warn!("{OPEN_TO_ALL}");
        }
        if serve && !channels.is_empty() && routing.unheard().contains(&Kind::Flagged) {
            warn!("no route of notify.routes hears of flagged studies: they show only in the worklist");
        }
        // Ports first: a port in use should be told at once, not after the model is loaded.
        let listeners = if serve { listeners(&settings)? } else { Vec::new() };
        let site = match serve && !settings.web.listen.is_empty() {
            false => None,
            true => {
                let listen =
                    |source| StartError::Listen { setting: "web.listen", address: settings.web.listen.clone(), source };
                let listener = TcpListener::bind(&settings.web.listen).await.map_err(listen)?;
                let bound = listener.local_addr().map_err(listen)?;
                let tls = &settings.web.tls;
                let tls = tls.is_on().then(|| TlsServer::new(tls, &["http/1.1"])).transpose()?;
                let secure = tls.is_some() || settings.web.public_url.starts_with("https://");
                let door =
                    Door::new(&settings.web.login, &settings.web.public_url, secure).map_err(StartError::Login)?;
                Some((listener, bound, tls, door))
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

        // Before anything is received, so that no destination misses it.
        let forwarders = match serve {
            false => Vec::new(),
            true => forward::open(&settings.forward, destinations, &ledger, &data_dir).await?,
        };
        let activity = Activity::default();
        let workers = match serve {
            false => Vec::new(),
            true => channels
                .into_iter()
                .map(|channel| {
                    let worker = Worker::new(Arc::new(ledger.clone()), channel, &settings.notify, links.clone());
                    Stage::start(|stop| worker.run(stop))
                })
                .chain([Stage::start(|stop| {
                    Escalation::new(Arc::new(ledger.clone()), routing.clone(), &settings.notify).run(stop)
                })])
                .chain(forwarders.into_iter().map(|forwarder| Stage::start(|stop| forwarder.run(stop))))
                .collect(),
        };
        let judge = Judge {
            studies: Arc::new(ledger.clone()),
            activity: activity.clone(),
            card: info.card.clone(),
            sequence: engine.sequence(),
            settings: settings.triage.clone(),
            routing: routing.clone(),
        };
        let judge = Stage::start(|stop| judge.run(stop));
        let retention = match serve {
            false => None,
            true => Retention::new(&settings.archive, ledger.clone(), archive.clone(), ledger.last_measurement()?)
                .map(|retention| Stage::start(|stop| retention.run(stop))),
        };
        let stop = CancellationToken::new();
        let pipeline = Pipeline::start(
            decoder_program(),
            engine,
            Arc::new(ledger.clone()),
            worker,
            Arc::new(archive.clone()),
            &settings.inference,
            stop.clone(),
        )?;
        let listening = Arc::new(AtomicBool::new(serve));
        let pulse = Pulse::of(ledger.clone(), archive.clone());
        let storing = Trouble::default();
        let progress = Progress::default();
        let troubles = Troubles {
            vitals: pulse.vitals(),
            storing: storing.clone(),
            scoring: pipeline.scoring(),
            recovery: progress.clone(),
        };
        let status =
            shadow.as_ref().map(|shadow| shadow.as_ref().map(|shadow| shadow.status().clone()).map_err(String::clone));
        let shadow = shadow.and_then(Result::ok);
        let shadow_judge = status
            .as_ref()
            .and_then(|status| status.as_ref().ok())
            .map(|status| ShadowJudge::new(status.info.card.clone(), status.sequence.clone()))
            .unwrap_or_default();
        let readiness = readiness(&settings, &info, status, &ledger, &archive, troubles, listening.clone());
        let web = site.map(|(listener, bound, tls, door)| {
            let login = &settings.web.login;
            if login.enabled
                && login.proxy_user_header.is_empty()
                && login.oidc.issuer.is_empty()
                && ledger.users().is_ok_and(|users| users.is_empty())
            {
                warn!("web.login is on and there is no user: triaged user add NAME --role admin");
            }
            let site = Site {
                ledger: ledger.clone(),
                shadow: shadow_judge,
                readiness: readiness.clone(),
                metrics,
                links,
                door,
                reports: maker.clone(),
                renderer: Renderer::new(frames, Arc::new(archive.clone())),
                viewer_url: settings.web.viewer_url.clone(),
                settings: Arc::new(settings.in_force()),
                card: Arc::new(serde_json::to_value(&info.card).unwrap_or_default()),
                terms: info.card.data_terms().into(),
                routing: routing.clone(),
            };
            info!("web on {}://{bound}", if tls.is_some() { "https" } else { "http" });
            (bound, Stage::start(|stop| web::serve(listener, tls, site, stop)))
        });
        let exporter = if serve { Exporter::new(&settings, ledger.clone())? } else { None };
        let exporter = exporter.map(|exporter| Stage::start(|stop| exporter.run(stop)));
        let limits = Limits {
            max_object_bytes: settings.dimse.max_object_mib.saturating_mul(1 << 20),
            max_queue: settings.inference.max_queue,
            max_queue_of_source: settings.inference.max_queue_of_source,
            max_bytes_of_source: (settings.dimse.max_gib_of_source_per_hour * f64::from(1 << 30)) as u64,
        };
        let gate = Gate::new(&settings.triage.gate, &info.card.made_for);
        let rules = Rules { stat, gate, privacy: settings.privacy.clone() };
        let commitment = settings.dimse.storage_commitment.enabled.then(|| {
            let commitments = Commitments::new(ledger.clone(), archive.clone(), &settings);
            let reporter = Reporter::new(ledger.clone(), commitments.clone(), &settings.dimse);
            (Commitment::new(commitments, reporter.clone()), reporter)
        });
        let (commitment, reporter) = commitment.unzip();
        let reports = reporter.filter(|_| serve).map(|reporter| Stage::start(|stop| reporter.run(stop)));
        let measured = archive.clone();
        let intake = Intake::new(
            archive.clone(),
            Arc::new(ledger.clone()),
            Arc::new(ledger.clone()),
            activity,
            rules,
            limits,
            storing,
        );
        if serve {
            intake.note_what_waits();
        }
        let recovery = serve.then(|| {
            let recovery = Recovery { archive, ledger: ledger.clone(), intake: intake.clone() };
            let (ae_title, routing) = (settings.dimse.ae_title.clone(), routing.clone());
            Stage::start(|stop| recover(recovery, remark, progress, ae_title, routing, stop))
        });
        let scp = Arc::new(Scp::new(&settings.dimse, intake, commitment));
        let mut dimse = Vec::new();
        for (listener, bound, protocol) in listeners {
            info!(ae_title = settings.dimse.ae_title, data_dir = %data_dir.display(), "{protocol} on {bound}");
            let (scp, listening) = (scp.clone(), listening.clone());
            let run = async move |stop| {
                listener.run(scp, stop).await;
                listening.store(false, Ordering::SeqCst);
            };
            dimse.push((bound, Stage::start(run)));
        }
        if serve {
            note_start(&ledger, &settings).await?;
        }
        let ae_title = settings.dimse.ae_title.clone();
        let marker = data_dir.join(TOLD_NOT_READY);
        let watch = Watch { ledger: ledger.clone(), routing, direct, readiness, ae_title, marker };
        let watch = serve.then(|| Stage::start(|stop| watch.run(stop)));
        let measure = serve.then(|| Stage::start(|stop| measure::run(ledger.clone(), measured, stop)));
        Ok(Node {
            ledger,
            engine: info,
            dimse,
            pipeline: (pipeline, stop),
            shadow,
            judge,
            retention,
            reports,
            exporter,
            serves: serve,
            channels: workers,
            web,
            pulse,
            watch,
            recovery,
            measure,
            _lock: lock,
        })
    }

    /// The address at which associations are accepted over plain TCP.
    pub fn dimse_address(&self) -> Option<SocketAddr> {
        self.dimse.first().map(|(address, _)| *address)
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
        let stages =
            self.channels.iter().chain([&self.judge]).chain(&self.retention).chain(&self.reports).chain(&self.exporter);
        let stages = stages.chain(&self.watch);
        let stages = stages.chain(self.dimse.iter().chain(&self.web).map(|(_, stage)| stage));
        stages.into_iter().all(Stage::is_running) && self.pipeline.0.is_alive() && self.pulse.beats()
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
        // First: that the ports close is no trouble.
        if let Some(watch) = self.watch {
            watch.stop("the watch", STOP_PATIENCE).await;
        }
        if let Some(measure) = self.measure {
            measure.stop("measuring", STOP_PATIENCE).await;
        }
        drop(self.pulse);
        if let Some(recovery) = self.recovery {
            recovery.stop("recovery", STOP_PATIENCE).await;
        }
        if let Some(shadow) = &self.shadow {
            shadow.stop();
        }
        // All ports refuse from now on, while the associations of each finish.
        self.dimse.iter().for_each(|(_, stage)| stage.cancel());
        for (_, stage) in self.dimse {
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
        if let Some(stage) = self.reports {
            stage.stop("storage commitment", STOP_PATIENCE).await;
        }
        if let Some(stage) = self.retention {
            stage.stop("retention", STOP_PATIENCE).await;
        }
        self.channels.iter().for_each(Stage::cancel);
        for stage in self.channels {
            stage.stop("notification", STOP_PATIENCE).await;
        }
        if let Some((_, stage)) = self.web {
            stage.stop("web", STOP_PATIENCE).await;
        }
        if self.serves {
            let stop =
                Deed { actor: Actor::system(), name: "node.stop", study_uid: None, details: serde_json::json!({}) };
            if let Err(error) = self.ledger.record_deed(stop).await {
                warn!(%error, "the stop is not in the audit log");
            }
        }
        if let Some(stage) = self.exporter {
            stage.stop("audit messages", STOP_PATIENCE).await;
        }
        // Dropping the last handle joins the writer thread.
        let ledger = self.ledger;
        let _ = tokio::task::spawn_blocking(move || drop(ledger)).await;
        info!("stopped");
    }
}

/// Whether `serve` takes these settings, as far as that can be told without the data folder, the model and the ports: what it would
/// refuse is refused before anything is touched, and `triaged check` finds it by the same call.
///
/// # Errors
/// The first setting that it would refuse.
pub fn verify(settings: &Settings) -> Result<(), StartError> {
    let peers = Arc::new(DicomPeers { dimse: settings.dimse.clone() });
    let channels = notify::channels(&settings.notify, &Surroundings { peers, ..Surroundings::default() })?;
    let names: Vec<String> = channels.iter().map(|channel| channel.name().to_owned()).collect();
    Routing::new(&settings.notify, &names)?;
    forward::destinations(&settings.forward, &settings.dimse)?;
    let web = &settings.web;
    let links = Links::new(&web.public_url, Vec::new());
    links.map_err(|why| ChannelError { key: "web.public_url".into(), why })?;
    if settings.dimse.tls.port != 0 {
        TlsServer::new(&settings.dimse.tls, &[])?;
    }
    if !web.listen.is_empty() {
        if web.tls.is_on() {
            TlsServer::new(&web.tls, &["http/1.1"])?;
        }
        Door::new(&web.login, &web.public_url, false).map_err(StartError::Login)?;
    }
    Exporter::verify(&settings.audit.syslog)?;
    Ok(without_effect(settings)?)
}

/// Settings that are well formed and never work: whoever wrote them counts on them.
fn without_effect(settings: &Settings) -> Result<(), ChannelError> {
    let wrong = |key: &str, why: &str| Err(ChannelError { key: key.into(), why: why.into() });
    for (number, route) in (1..).zip(&settings.notify.routes) {
        if !route.stations.is_empty() && !settings.privacy.keep_station {
            let why = "stations needs privacy.keep_station = true: without it the node knows no study's station";
            return wrong(&format!("notify.routes, route {number}"), why);
        }
    }
    let login = &settings.web.login;
    if !["", "x-forwarded-for", "forwarded"].contains(&login.proxy_address_header.to_ascii_lowercase().as_str()) {
        return wrong("web.login.proxy_address_header", "is neither X-Forwarded-For nor Forwarded, nor empty");
    }
    if login.enabled && !login.proxy_user_header.is_empty() {
        if axum::http::HeaderName::from_bytes(login.proxy_user_header.as_bytes()).is_err() {
            return wrong("web.login.proxy_user_header", "is no name that a header can have");
        }
        if login.trusted_proxies.is_empty() {
            let why =
                "no proxy is believed: name the networks of those that may say who asks in web.login.trusted_proxies";
            return wrong("web.login.proxy_user_header", why);
        }
    }
    let viewer = settings.web.viewer_url.trim_start().to_ascii_lowercase();
    if ["javascript:", "data:", "vbscript:"].iter().any(|scheme| viewer.starts_with(scheme)) {
        return wrong("web.viewer_url", "is the address of no viewer, but a script");
    }
    let known = ["{study_uid}", "{accession_number}", "{patient_id}"];
    let rest = known.iter().fold(settings.web.viewer_url.clone(), |url, name| url.replace(name, ""));
    if rest.contains(['{', '}']) {
        return wrong(
            "web.viewer_url",
            "names something else than {study_uid}, {accession_number} and {patient_id} in braces",
        );
    }
    Ok(())
}

fn decoder_program() -> PathBuf {
    THIS_PROGRAM.into()
}

const OPEN_TO_ALL: &str = "any host may associate and send under any AE title: name the senders in [[dimse.peers]]";

fn is_open_to_all(settings: &Settings) -> bool {
    settings.dimse.peers.is_empty() && settings.dimse.calling_ae_titles.is_empty()
}

/// The meaning of a positive result. A card that cannot be read stops the start later, in the engine's words.
fn finding(model: &str) -> String {
    ModelCard::load(&assets::model_card(model)).map(|(card, _)| card.finding).unwrap_or_default()
}

/// Binds the ports of DICOM, each with the name that the log gives it.
fn listeners(settings: &Settings) -> Result<Vec<(Listener, SocketAddr, &'static str)>, StartError> {
    let bind = |setting, port| {
        let address = SocketAddr::new(settings.dimse.listen, port);
        let failed = |source| StartError::Listen { setting, address: address.to_string(), source };
        let listener = Listener::bind(address).map_err(failed)?;
        let bound = listener.address().map_err(failed)?;
        Ok::<_, StartError>((listener, bound))
    };
    if settings.dimse.peers.is_empty() && !settings.dimse.calling_ae_titles.is_empty() {
        warn!(
            "any host may associate that calls itself as one of dimse.calling_ae_titles: name the senders, with their \
             networks, in [[dimse.peers]]"
        );
    }
    let (listener, bound) = bind("dimse.port", settings.dimse.port)?;
    let mut listeners = vec![(listener, bound, "DICOM")];
    let tls = &settings.dimse.tls;
    if tls.port != 0 {
        let server = TlsServer::new(tls, &[])?;
        let (listener, bound) = bind("dimse.tls.port", tls.port)?;
        listeners.push((listener.with_tls(server), bound, "DICOM over TLS"));
    }
    Ok(listeners)
}

/// Holds files and rows against each other while the node works, and tells what came of it.
async fn recover(
    recovery: Recovery,
    remark: Option<String>,
    progress: Progress,
    ae_title: String,
    routing: Arc<Routing>,
    stop: CancellationToken,
) {
    recovery.run(&progress, &stop).await;
    let messages = |event| routing.messages(event);
    let report = progress.report();
    if !report.is_over {
        return;
    }
    let told = recovery::tell(&recovery.ledger, Actor::system(), remark.as_deref(), &report, &ae_title, messages).await;
    if let Err(error) = told {
        warn!("what was found of files and rows is in no audit log and told to nobody: {error}");
    }
}

/// Writes into the audit log that the node has started, and whether its configuration is another than at the last start. Secrets are
/// not part of the digest.
async fn note_start(ledger: &Ledger, settings: &Settings) -> Result<(), LedgerError> {
    let configuration = hex::encode(Sha256::digest(format!("{settings:?}")));
    let before = ledger.last_deed("node.start")?;
    let before = before.and_then(|row| serde_json::from_str::<serde_json::Value>(&row.details).ok());
    let before = before.and_then(|details| Some(details.get("configuration")?.as_str()?.to_owned()));
    let deed = |name, details| Deed { actor: Actor::system(), name, study_uid: None, details };
    if before.is_some_and(|before| before != configuration) {
        let details = serde_json::json!({ "configuration": configuration });
        ledger.record_deed(deed("configuration.change", details)).await?;
    }
    let details = serde_json::json!({ "software": crate::SOFTWARE, "configuration": configuration });
    ledger.record_deed(deed("node.start", details)).await
}

/// Loads the second model, if one is named, and starts it in shadow; else notes that there is none. One that cannot be loaded, which the inner
/// error says, keeps no node from its work.
async fn start_shadow(
    settings: &Settings,
    engine: &EngineInfo,
    ledger: &Ledger,
    archive: &Archive,
) -> Result<Option<Result<Shadow, String>>, StartError> {
    let Some(inference) = settings.inference.of_shadow() else {
        ledger.stop_shadow().await?;
        return Ok(None);
    };
    let loaded = inference.clone();
    let second = tokio::task::spawn_blocking(move || Engine::load(&loaded)).await;
    let second = match second.unwrap_or_else(|panic| Err(EngineError::Run(panic.to_string()))) {
        Ok(second) => second,
        Err(error) => {
            tracing::error!(
                "the node works without the shadow model (inference.shadow), which cannot be loaded: {error}"
            );
            ledger.stop_shadow().await?;
            return Ok(Some(Err(error.to_string())));
        }
    };
    let shadow =
        Shadow::start(decoder_program(), second, ledger.clone(), Arc::new(archive.clone()), &inference).await?;
    let info = &shadow.status().info;
    if info.card.sha256 == engine.card.sha256 {
        warn!("inference.shadow is the model that gives the verdicts: it will agree with itself");
    }
    info!(
        model = info.card.name,
        provider = info.provider,
        "a second model runs in shadow: its results are stored and used for nothing"
    );
    Ok(Some(Ok(shadow)))
}
