//! `triaged check`: would a node start here, and is what it has kept sound? One line each.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use triaged::archive::{Archive, one_file_system};
use triaged::assets;
use triaged::config::{self, Device, Settings};
use triaged::dimse::scu::{self, Peer, ScuError};
use triaged::event::{Event, Kind, Test};
use triaged::forward;
use triaged::inference::{Engine, EngineError, libraries};
use triaged::ledger::{ArchivedFile, LedgerError, NotificationRow, Reader, format_time, now};
use triaged::node;
use triaged::notify::{self, Message, Outcome, Routing, Surroundings};
use triaged::outgoing::DicomPeers;
use triaged::plural::{counted, verb};
use triaged::recovery;
use triaged::tls::{TlsFiles, TlsServer, expiries};
use triaged_model::ModelCard;

use super::terminal::{Screen, clean};
use super::{Result, serve, shown};

/// How long something that holds a port may take to show that it is a node.
const PATIENCE: Duration = Duration::from_secs(5);

/// Files of the archive that are looked at: the newest, and as many spread over all.
const SAMPLE: u32 = 50;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ok,
    /// It works, but someone should know.
    Warn,
    Fail,
}
use Verdict::{Fail, Ok as Fine, Warn};

/// So many of something.
fn number(count: impl TryInto<u64>, what: &str) -> String {
    counted(count.try_into().unwrap_or_default(), what)
}

/// So many things that are or have something.
fn clause(count: impl TryInto<u64>, what: &str, one: &'static str, several: &'static str) -> String {
    let count = count.try_into().unwrap_or_default();
    format!("{} {}", counted(count, what), verb(count, one, several))
}

/// A finding, in a line.
type Finding = (Verdict, String);

/// Prints lines as they are found, because some take seconds.
struct Report {
    screen: Screen,
    failed: bool,
}

impl Report {
    fn line(&mut self, name: &str, (verdict, text): Finding) -> Result<()> {
        let word = match verdict {
            Fine => "ok  ".to_owned(),
            Warn => self.screen.strong("warn"),
            Fail => self.screen.alarm("FAIL"),
        };
        self.failed |= verdict == Fail;
        writeln!(io::stdout().lock(), "{word}  {name:<14} {}", clean(&text))?;
        Ok(())
    }
}

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Send a test message through every notification channel, and say how each went
    #[arg(long)]
    send_test: bool,
    /// Read every file of the archive, and compare it with the digest of its row: takes as long as reading the disk
    #[arg(long)]
    deep: bool,
    /// Check this model card, or model by its name, instead of the configured one
    #[arg(long, value_name = "CARD")]
    model: Option<String>,
}

pub fn run(settings: Result<Settings>, config: Option<&Path>, args: Args) -> Result {
    let mut report = Report { screen: Screen::of_stdout(), failed: false };
    let mut settings = match settings {
        Ok(settings) => settings,
        Err(failure) => {
            report.line("configuration", (Fail, failure.line))?;
            return Ok(ExitCode::FAILURE);
        }
    };
    if let Some(model) = &args.model {
        settings.inference.model.clone_from(model);
    }
    let from = config.map_or_else(|| "built-in defaults and environment".into(), shown);
    report.line("configuration", (Fine, from))?;
    report.line("settings", taken(&settings))?;
    report.line("data folder", data_folder(&settings.data_dir))?;
    report.line("disk", disk(&settings))?;
    let database = settings.database();
    let ledger = database.exists().then(|| Reader::open(&database));
    match &ledger {
        None => report.line("database", (Fine, format!("{}: none yet; the node makes it", database.display())))?,
        Some(Err(error @ LedgerError::Older { .. })) => report.line("database", former(&database, error))?,
        Some(Err(error)) => report.line("database", (Fail, error.to_string()))?,
        Some(Ok(ledger)) => {
            report.line("database", sound(ledger, &database))?;
            report.line("archive", archive(ledger, &settings.data_dir))?;
            report.line("identity", identity(ledger, &settings.data_dir))?;
            report.line("lost files", lost(ledger))?;
            if args.deep {
                report.line("digests", digests(ledger, &settings.data_dir))?;
                report.line("orphans", orphans(ledger, &settings.data_dir))?;
            }
        }
    }
    model(&settings, &mut report)?;
    report.line("DICOM port", dimse(&settings))?;
    report.line("DICOM peers", peers(&settings))?;
    if settings.dimse.tls.port != 0 {
        let tls_port = format!("port {}", settings.dimse.tls.port);
        report.line("DICOM over TLS", tls((&settings.dimse.tls).into(), &tls_port))?;
    }
    report.line("web", web(&settings))?;
    if settings.web.tls.is_on() {
        report.line("web over TLS", tls((&settings.web.tls).into(), "HTTPS"))?;
    }
    report.line("notification", channels(&settings))?;
    let reader = ledger.as_ref().and_then(|ledger| ledger.as_ref().ok());
    let left = reader.map_or(Ok(Vec::new()), Reader::forward_waiting).unwrap_or_default();
    if !settings.forward.is_empty() || !left.is_empty() {
        report.line("forwarding", forwarding(&settings, reader, left))?;
    }
    if args.send_test {
        send_test(&settings, &mut report)?;
    }
    if let Some(Ok(ledger)) = &ledger {
        report.line("dead letters", dead(ledger, &settings))?;
        report.line("set aside", set_aside(ledger))?;
    }
    Ok(if report.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Whether `serve` takes the settings: by the calls that it makes itself.
fn taken(settings: &Settings) -> Finding {
    let taken = serve::log_filter(&settings.log).map_err(|failure| failure.line);
    match taken.and_then(|_| node::verify(settings).map_err(|error| error.to_string())) {
        Ok(()) => (Fine, "the node takes them".into()),
        Err(why) => (Fail, why),
    }
}

fn data_folder(folder: &Path) -> Finding {
    if !folder.exists() {
        return (Warn, format!("{} does not exist yet; the node makes it", folder.display()));
    }
    let probe = folder.join(format!(".check-{}", std::process::id()));
    let written = File::create_new(&probe).and_then(|mut file| {
        file.write_all(b"triaged check\n")?;
        file.sync_all()
    });
    let removed = fs::remove_file(&probe);
    match written.and(removed).map(|()| one_file_system(folder)) {
        Ok(Ok(())) => (Fine, format!("{} can be written", folder.display())),
        Ok(Err(error)) => (Fail, format!("{}: {error}", folder.display())),
        Err(error) => (Fail, format!("{} cannot be written: {error}", folder.display())),
    }
}

fn disk(settings: &Settings) -> Finding {
    // The folder may not be there yet; what will hold it is.
    let folder = std::path::absolute(&settings.data_dir).unwrap_or_else(|_| settings.data_dir.clone());
    let Some(existing) = folder.ancestors().find(|path| path.exists()) else {
        return (Fail, format!("there is no folder above {}", folder.display()));
    };
    match rustix::fs::statvfs(existing) {
        Err(error) => (Fail, format!("cannot tell what is free at {}: {error}", existing.display())),
        Ok(about) => {
            let free = about.f_bavail.saturating_mul(about.f_frsize) >> 20;
            let least = settings.archive.min_free_mib;
            let verdict = if free < least { Fail } else { Fine };
            (verdict, format!("{free} MiB free, archive.min_free_mib is {least}"))
        }
    }
}

fn sound(ledger: &Reader, path: &Path) -> Finding {
    match ledger.soundness() {
        Ok(found) => match found.problem {
            None => {
                let (studies, instances) = (number(found.studies, "study"), number(found.instances, "instance"));
                (Fine, format!("{}: sound, {studies}, {instances}", path.display()))
            }
            Some(problem) => (Fail, format!("{} is damaged: {problem}; restore a backup", path.display())),
        },
        Err(error) => (Fail, format!("{}: {error}", path.display())),
    }
}

/// A database of an earlier version: it is sound or not, and the rest is to be asked once the node has brought it up to date.
fn former(path: &Path, error: &LedgerError) -> Finding {
    match Reader::open_former(path).map(|ledger| sound(&ledger, path)) {
        Ok((Fine, _)) => (Warn, error.to_string()),
        Ok(found) => found,
        Err(error) => (Fail, error.to_string()),
    }
}

/// Whether rows find their files.
fn archive(ledger: &Reader, data_dir: &Path) -> Finding {
    let files = match ledger.archived_files(SAMPLE) {
        Ok(files) => files,
        Err(error) => return (Fail, error.to_string()),
    };
    let is_lost =
        |file: &&ArchivedFile| fs::metadata(data_dir.join(&file.path)).map_or(true, |about| about.len() < file.size);
    let lost: Vec<_> = files.iter().filter(is_lost).collect();
    match lost.first() {
        None => (Fine, format!("{} of the archive looked at, all there", number(files.len(), "file"))),
        Some(first) => {
            let count = lost.len();
            let text = format!(
                "{count} of {} looked at {} missing or cut off, such as {}",
                number(files.len(), "file"),
                verb(count as u64, "is", "are"),
                first.path
            );
            (Fail, text)
        }
    }
}

/// Whether every file has the bytes that came.
fn digests(ledger: &Reader, data_dir: &Path) -> Finding {
    let archive = Archive::at(data_dir);
    let files = match ledger.all_files() {
        Ok(files) => files,
        Err(error) => return (Fail, error.to_string()),
    };
    let wrong = files.iter().filter_map(|(file, expected)| match archive.digest(&file.path) {
        Ok(found) if found == *expected => None,
        Ok(_) => Some(format!("{} has other bytes than those that came", file.path)),
        Err(error) => Some(format!("{} cannot be read: {error}", file.path)),
    });
    let wrong: Vec<String> = wrong.collect();
    match wrong.first() {
        None => (Fine, format!("{} read, each as it came", number(files.len(), "file"))),
        Some(first) => (
            Fail,
            format!(
                "{} of {} {} came: {first}; restore from a copy",
                wrong.len(),
                number(files.len(), "file"),
                verb(wrong.len() as u64, "is not as it", "are not as they")
            ),
        ),
    }
}

/// Whether the archive has files that the database does not know, or lacks some that it does.
fn orphans(ledger: &Reader, data_dir: &Path) -> Finding {
    let survey = match recovery::look(&Archive::at(data_dir), Some(ledger)) {
        Ok(survey) => survey,
        Err(error) => return (Fail, format!("the archive cannot be listed: {error}")),
    };
    let without_row: Vec<&String> = survey.orphans.iter().chain(&survey.set_aside).collect();
    match without_row.first() {
        None => (Fine, "every file of the archive has its row".into()),
        Some(first) => (
            Warn,
            format!(
                "{} no row, such as {first}; the node takes in again what has none when it starts, or `triaged recover`, with the node \
                 stopped",
                clause(without_row.len(), "file", "of the archive has", "of the archive have")
            ),
        ),
    }
}

/// Whether archive and database belong to each other.
fn identity(ledger: &Reader, data_dir: &Path) -> Finding {
    let told = match Archive::at(data_dir).told() {
        Ok(told) => told,
        Err(error) => return (Fail, format!("the archive does not say: {error}")),
    };
    match (told, ledger.identity_if_any()) {
        (_, Err(error)) => (Fail, error.to_string()),
        (None, _) | (_, Ok(None)) => (Fine, "not known yet; the node gives one when it starts".into()),
        (Some(told), Ok(Some((found, _)))) if found != told.identity => (
            Fail,
            format!(
                "the database has the identity {found}, the archive {}: they do not belong to each other",
                told.identity
            ),
        ),
        (Some(told), Ok(Some((_, generation)))) if generation < told.generation => (
            Warn,
            "the database is an older state than the archive: what it lacks is taken in again when the node starts"
                .into(),
        ),
        (Some(told), Ok(Some(_))) => (Fine, format!("archive and database have the identity {}", told.identity)),
    }
}

/// Whether files are known to be gone.
fn lost(ledger: &Reader) -> Finding {
    match ledger.count_lost() {
        Err(error) => (Fail, error.to_string()),
        Ok(0) => (Fine, "none".into()),
        Ok(lost) => (
            Warn,
            format!(
                "{} file; the view lost_files has the names: restore from a copy into the archive, or send again",
                clause(lost, "instance", "has lost its", "have lost their")
            ),
        ),
    }
}

fn model(settings: &Settings, report: &mut Report) -> Result<()> {
    let path = assets::model_card(&settings.inference.model);
    match ModelCard::load(&path) {
        Err(error) => return report.line("model", (Fail, error.to_string())),
        Ok((card, _)) => {
            let text = format!("{} version {} for {}, SHA-256 {}", card.name, card.version, card.finding, card.sha256);
            report.line("model", (Fine, text))?;
            let terms = match card.data_terms() {
                terms if terms.is_empty() => "the card says nothing of the data that it was trained on".to_owned(),
                terms => format!("trained on {}", terms.join("; ")),
            };
            report.line("model's terms", (Fine, terms))?;
            if let Some(sequence) = &card.sequence {
                let text = format!(
                    "{}, SHA-256 {}, judges whole series from {:.3} on; the study rule gives early alerts from {:.3} on",
                    sequence.file,
                    sequence.sha256,
                    sequence.threshold,
                    card.early_rule().threshold()
                );
                report.line("sequence network", (Fine, text))?;
            }
        }
    }
    let library = assets::onnxruntime(&settings.inference.onnxruntime);
    let engine = Engine::load(&settings.inference);
    if let Err(error @ EngineError::Library { .. }) = &engine {
        return report.line("ONNX Runtime", (Fail, error.to_string()));
    }
    report.line("ONNX Runtime", (Fine, library.display().to_string()))?;
    let mut engine = engine;
    let finding = match engine.as_ref().map(|engine| engine.info()) {
        Err(error) => (Fail, error.to_string()),
        Ok(info) => match info.fallback {
            None => (Fine, format!("the model runs on {}", info.provider)),
            Some(why) => {
                (Warn, format!("the model runs on {}; inference.device = \"auto\" fell back: {why}", info.provider))
            }
        },
    };
    // Whoever asks for a GPU gets each missing library named; where "auto" has fallen back, what it would take.
    let wants = settings.inference.device;
    let no_gpu = !matches!(wants, Device::Cpu) && finding.0 != Fine;
    report.line("provider", finding)?;
    if no_gpu {
        gpu_libraries(&library, wants, report)?;
    }
    if let Ok(engine) = &mut engine {
        report.line("phantoms", trial(engine))?;
    }
    if let Some(shadow) = settings.inference.of_shadow() {
        report.line("shadow model", shadow_model(&shadow))?;
    }
    Ok(())
}

/// Scores phantoms: a model that loads may still give what is no probability.
fn trial(engine: &mut Engine) -> Finding {
    match engine.trial() {
        Ok(trial) => {
            let text = format!(
                "{} phantom slices scored, at most {:.3} of a healthy head and {:.3} of a bleeding one (positive from {:.3} on)",
                trial.slices, trial.healthy, trial.bleeding, trial.slice_threshold
            );
            let series = trial.series.map_or(String::new(), |(healthy, bleeding, threshold)| {
                format!(
                    "; the sequence network says {healthy:.3} of the healthy series and {bleeding:.3} of the bleeding one (flagged from \
                     {threshold:.3} on)"
                )
            });
            if trial.bleeding <= trial.healthy {
                let why = "; the bleeding one scores no higher: the model does not see the phantom's bleed, or says the opposite of what the \
                           card promises";
                return (Warn, text + &series + why);
            }
            (Fine, text + &series)
        }
        Err(error) => {
            let advice = "a network that gives logits needs a sigmoid at its end, see docs/own-model.md";
            (Fail, format!("a phantom's slice is not scored: {error} ({advice})"))
        }
    }
}

/// Each library of the GPU's provider that the system's loader does not find, on a line of its own.
fn gpu_libraries(onnxruntime: &Path, device: Device, report: &mut Report) -> Result<()> {
    let verdict = if device == Device::Auto { Warn } else { Fail };
    if !onnxruntime.with_file_name("libonnxruntime_providers_cuda.so").exists() {
        let text = "this ONNX Runtime is a build for CPUs; `make onnxruntime-cuda` brings the GPU build";
        return report.line("GPU library", (verdict, text.into()));
    }
    let missing = libraries::missing(onnxruntime, device);
    for name in &missing {
        let source = libraries::source(name).map_or(String::new(), |source| format!(": {source}"));
        report.line("GPU library", (verdict, format!("{name} is not found{source}")))?;
    }
    if missing.is_empty() {
        report.line("GPU libraries", (Fine, "all are found".into()))?;
    }
    Ok(())
}

fn shadow_model(settings: &config::Inference) -> Finding {
    match Engine::load(settings).map(|engine| engine.info()) {
        Err(error) => (Fail, error.to_string()),
        Ok(info) => {
            let card = &info.card;
            let runs =
                format!("{} version {}, SHA-256 {}, runs on {}", card.name, card.version, card.sha256, info.provider);
            match info.fallback {
                None => (Fine, format!("{runs}; used for nothing")),
                Some(why) => (Warn, format!("{runs}; inference.device = \"auto\" fell back: {why}")),
            }
        }
    }
}

fn dimse(settings: &Settings) -> Finding {
    let dimse = &settings.dimse;
    let address = SocketAddr::new(dimse.listen, dimse.port);
    match TcpListener::bind(address) {
        Ok(_) if dimse.port == 0 => (Fine, "the system will choose".into()),
        Ok(_) => (Fine, format!("{address} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let calling = dimse.calling_ae_titles.first().map_or("TRIAGED_SCU", String::as_str);
            let (called, address_here) = (dimse.ae_title.clone(), reachable(address).to_string());
            let peer = Peer::plain(address_here, called, calling.to_owned(), PATIENCE);
            match scu::echo(&peer) {
                Ok(_) => (Fine, format!("{address} is in use by a node that answers C-ECHO to {}", dimse.ae_title)),
                // It knows its senders, and this check is none of them.
                Err(ScuError::Rejected { why, .. }) if !dimse.peers.is_empty() && works_here(&settings.data_dir) => {
                    let knows =
                        "a node works on this data folder, and answers only the peers that [[dimse.peers]] names";
                    (Fine, format!("{address} is in use and rejects {calling} ({why}): {knows}"))
                }
                Err(error) => (Fail, format!("{address} is in use, and not by a node of ours: {error}")),
            }
        }
        Err(error) => (Fail, format!("cannot listen on {address}: {error}")),
    }
}

/// Whether a node works on the data folder. Nothing is made where none ever did.
fn works_here(data_dir: &Path) -> bool {
    data_dir.join(node::LOCK).is_file() && matches!(node::try_lock(data_dir), Ok(None))
}

/// Who may associate. Settings::load has checked each entry.
fn peers(settings: &Settings) -> Finding {
    let peers = &settings.dimse.peers;
    if peers.is_empty() {
        return (Warn, "none: any host may associate and send under any AE title ([[dimse.peers]])".into());
    }
    let weak = |peer: &&config::KnownPeer| {
        peer.networks.is_empty() && peer.certificates.is_empty() && (peer.users.is_empty() || !peer.tls)
    };
    let weak: Vec<&str> = peers.iter().filter(weak).map(|peer| peer.name.as_str()).collect();
    match weak.is_empty() {
        true => (Fine, format!("{} are known, each by more than its AE title", peers.len())),
        false => (
            Warn,
            format!(
                "{} are known; anybody may call itself as {} does: give it networks, certificates, or users with tls",
                peers.len(),
                weak.join(", ")
            ),
        ),
    }
}

/// Days before the end of a certificate at which `check` warns.
const WARN_DAYS: i64 = 30;

/// Whether certificates, keys and authorities can be used, and for how long.
fn tls(files: TlsFiles, where_: &str) -> Finding {
    if let Err(error) = TlsServer::new(files.clone(), &[]) {
        return (Fail, error.to_string());
    }
    let Some((path, end)) = expiries(&files).into_iter().min_by_key(|(_, end)| *end) else {
        return (Warn, format!("{where_}; when its certificates end cannot be read"));
    };
    let days = (end.as_second() - Timestamp::now().as_second()) / 86_400;
    let file = path.display();
    match days {
        ..0 => (Fail, format!("{where_}; {file} has ended on {end}")),
        0..WARN_DAYS => (Warn, format!("{where_}; {file} ends in {}, on {end}", number(days, "day"))),
        _ => (Fine, format!("{where_}; the first certificate to end is {file}, in {}", number(days, "day"))),
    }
}

fn web(settings: &Settings) -> Finding {
    let listen = &settings.web.listen;
    if listen.is_empty() {
        return (Fine, "off".into());
    }
    // Settings::load has checked that it is one.
    let Ok(address) = listen.parse::<SocketAddr>() else { return (Fail, format!("{listen} is no address and port")) };
    match TcpListener::bind(address) {
        Ok(_) => {
            let (login, public) = (settings.web.login.enabled, !address.ip().is_loopback());
            match (login, public) {
                (false, true) => {
                    let why = "it has no login (web.login) and is not on a loopback address";
                    (Warn, format!("{address} is free; {why}"))
                }
                (true, true) if !settings.web.tls.is_on() => (
                    Warn,
                    format!(
                        "{address} is free; passwords go over it without TLS (web.tls), unless a proxy is before it"
                    ),
                ),
                (true, _) => (Fine, format!("{address} is free; with a login")),
                (false, false) => (Fine, format!("{address} is free")),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => match healthy(reachable(address)) {
            Ok(true) => (Fine, format!("{address} is in use by a node that is healthy")),
            Ok(false) => (Fail, format!("{address} is in use, and not by a healthy node")),
            Err(error) => (Fail, format!("{address} is in use, and not by a node: {error}")),
        },
        Err(error) => (Fail, format!("cannot listen on {address}: {error}")),
    }
}

/// Whether `/healthz` says 200.
fn healthy(address: SocketAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    Ok(&status == b"HTTP/1.1 200")
}

/// The address by which a listener on `address` is reached from here.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn channels(settings: &Settings) -> Finding {
    let channels = match notify::channels(&settings.notify, &surroundings(settings)) {
        Err(error) => return (Fail, error.to_string()),
        Ok(channels) => channels,
    };
    let names: Vec<String> = channels.iter().map(|channel| channel.name().to_owned()).collect();
    match Routing::new(&settings.notify, &names) {
        Err(error) => (Fail, error.to_string()),
        Ok(_) if names.is_empty() => {
            (Warn, "no channel is configured: flagged studies show only in the worklist (notify.webhook.url)".into())
        }
        Ok(routing) if routing.unheard().contains(&Kind::Flagged) => {
            (Warn, format!("{}; no route of notify.routes hears of flagged studies", names.join(", ")))
        }
        Ok(_) => (Fine, names.join(", ")),
    }
}

/// The words for a test that went well.
fn delivered_test(channel: &str, settings: &Settings) -> &'static str {
    let kind = settings.notify.all_channels().into_iter().find(|known| known.name == channel).map(|known| known.kind);
    match kind {
        Some(config::ChannelKind::Pacs(_)) => "the PACS answered C-ECHO",
        _ => "a test message was delivered",
    }
}

/// Delivers a test message on each channel, without the ledger and without a second attempt.
fn send_test(settings: &Settings, report: &mut Report) -> Result<()> {
    // Mistakes in the settings were told before.
    let Ok(channels) = notify::channels(&settings.notify, &surroundings(settings)) else { return Ok(()) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for channel in channels {
        let test = Test { ae_title: settings.dimse.ae_title.clone(), software: triaged::SOFTWARE.into() };
        let message = Message {
            id: 0,
            idempotency_key: format!("test-{}", uuid::Uuid::new_v4()),
            created_at: now(),
            step: 0,
            event: Event::Test(test),
            study_url: None,
            acknowledge_url: None,
        };
        let finding = match runtime.block_on(channel.deliver(&message)) {
            Outcome::Delivered => (Fine, delivered_test(channel.name(), settings).into()),
            Outcome::DeliveredExcept { error } => (Fail, format!("not to every recipient: {}", error.in_full())),
            Outcome::Retry { error, .. } => (Fail, format!("{}; for now", error.in_full())),
            Outcome::Reject { error } => (Fail, error.in_full()),
        };
        report.line(channel.name(), finding)?;
    }
    for (rule, peer) in forward::destinations(&settings.forward, &settings.dimse).unwrap_or_default() {
        let finding = match scu::echo(&peer) {
            Ok(took) => (Fine, format!("{} answered C-ECHO in {:.0} ms", peer.address, took.as_secs_f64() * 1e3)),
            Err(error) => (Fail, error.to_string()),
        };
        report.line(&rule.destination, finding)?;
    }
    Ok(())
}

/// The surroundings that channels may use here: peers, and no archive.
fn surroundings(settings: &Settings) -> Surroundings {
    Surroundings { peers: Arc::new(DicomPeers { dimse: settings.dimse.clone() }), ..Surroundings::default() }
}

/// The peers that images go on to, and how much waits for each.
/// `left`: the destinations for which images wait or failed.
fn forwarding(settings: &Settings, ledger: Option<&Reader>, left: Vec<(String, u64)>) -> Finding {
    let destinations = match forward::destinations(&settings.forward, &settings.dimse) {
        Err(error) => return (Fail, error.to_string()),
        Ok(destinations) => destinations,
    };
    let mut verdict = Fine;
    let mut texts = Vec::new();
    let gone: Vec<_> =
        left.into_iter().filter(|(name, _)| destinations.iter().all(|(rule, _)| rule.destination != *name)).collect();
    for (rule, peer) in destinations {
        let name = rule.destination;
        match ledger.map_or(Ok((0, 0)), |ledger| ledger.forward_counts(&name)) {
            Err(error) => return (Fail, error.to_string()),
            Ok((pending, failed)) => {
                verdict = if failed > 0 { Warn } else { verdict };
                texts.push(format!("{name} ({}): {pending} pending, {failed} failed", peer.address));
            }
        }
    }
    let has_failed = verdict == Warn;
    for (name, images) in gone {
        verdict = Warn;
        texts.push(format!(
            "{} did not go on to {name}, which is not configured any more: the view forward_log has the rows",
            number(images, "image")
        ));
    }
    if has_failed {
        texts.push("the view forward_log says why, and `triaged requeue --all` sends them again".into());
    }
    (verdict, texts.join("; "))
}

fn set_aside(ledger: &Reader) -> Finding {
    match ledger.count_set_aside() {
        Err(error) => (Fail, error.to_string()),
        Ok([0, replaced, unreadable]) => (
            Fine,
            format!(
                "none in conflict; {} replaced by others that can be read, {unreadable} {} refused",
                clause(replaced, "copy", "was", "were"),
                verb(unreadable, "was", "were")
            ),
        ),
        Ok([conflicts, ..]) => (
            Warn,
            format!(
                "{} set aside: other content under UIDs that were received before; the view set_aside and each study's page name the UIDs",
                clause(conflicts, "object", "is", "are")
            ),
        ),
    }
}

/// What was mended longer ago need not be told.
const A_WEEK: jiff::SignedDuration = jiff::SignedDuration::from_hours(7 * 24);

/// What has not arrived, and what did not arrive at every recipient.
fn dead(ledger: &Reader, settings: &Settings) -> Finding {
    let rows = match ledger.notifications(None) {
        Err(error) => return (Fail, error.to_string()),
        Ok(rows) => rows,
    };
    let mut said = Vec::new();
    match rows.iter().filter(|row| row.state == "dead").count() {
        0 => {}
        n => {
            let dead = number(n, "notification");
            said.push(format!("{dead} could not be delivered; `triaged requeue` lists them and sends again"));
        }
    }
    let channels: Vec<String> = settings.notify.all_channels().into_iter().map(|channel| channel.name).collect();
    let stranded = rows.iter().filter(|row| row.state == "pending" && !channels.contains(&row.channel));
    let mut names: Vec<&str> = stranded.map(|row| row.channel.as_str()).collect();
    let waiting = names.len();
    names.sort_unstable();
    names.dedup();
    if waiting > 0 {
        said.push(format!(
            "{} for channels that are not configured here: {}",
            clause(waiting, "notification", "waits", "wait"),
            names.join(", ")
        ));
    }
    let week_ago = format_time(Timestamp::now() - A_WEEK);
    let is_partly = |row: &&NotificationRow| {
        row.last_error.is_some() && row.delivered_at.as_ref().is_some_and(|delivered| *delivered >= week_ago)
    };
    let partly: Vec<_> = rows.iter().filter(is_partly).collect();
    if let Some(last) = partly.last() {
        let error = last.last_error.as_deref().unwrap_or_default();
        said.push(format!(
            "{} not delivered to every recipient, the last of them on {}: {error}",
            clause(partly.len(), "notification", "of the last seven days was", "of the last seven days were"),
            last.channel
        ));
    }
    match said.is_empty() {
        true => (Fine, "none".into()),
        false => (Warn, said.join("; ")),
    }
}
