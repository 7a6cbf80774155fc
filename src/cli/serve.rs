//! `triaged serve`: the node, until SIGTERM or SIGINT.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::MissedTickBehavior;
use tracing::{error, warn};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use triaged::config::{Device, Log, LogFormat, Settings};
use triaged::node::{Node, Role};

use super::{Failure, Result};

/// How often systemd is told that the start goes on …
const STARTING: Duration = Duration::from_secs(30);
/// … and for how long: what takes longer hangs.
const LONGEST_START: Duration = Duration::from_secs(12 * 3600);
/// How often the node is asked whether it is alive where systemd asks for no watchdog.
const LOOK_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The TCP port of the DICOM listener (dimse.port)
    #[arg(long)]
    port: Option<u16>,
    /// The node's AE title (dimse.ae_title)
    #[arg(long, value_name = "AE")]
    ae_title: Option<String>,
    /// The IP address of the DICOM listener (dimse.listen)
    #[arg(long, value_name = "IP")]
    listen: Option<std::net::IpAddr>,
    /// Address and port of the worklist pages, API and metrics; "" for none (web.listen)
    #[arg(long, value_name = "IP:PORT")]
    web: Option<String>,
    /// The device that the model runs on (inference.device)
    #[arg(long, value_enum)]
    device: Option<Device>,
    /// The model card (inference.model)
    #[arg(long, value_name = "FILE")]
    model: Option<String>,
}

impl Args {
    /// The settings that the flags override.
    pub fn settings(&self) -> [(&'static str, Option<String>); 6] {
        use clap::ValueEnum;
        let device = self.device.as_ref().and_then(Device::to_possible_value);
        [
            ("dimse.port", self.port.map(|port| port.to_string())),
            ("dimse.ae_title", self.ae_title.clone()),
            ("dimse.listen", self.listen.map(|listen| listen.to_string())),
            ("web.listen", self.web.clone()),
            ("inference.device", device.map(|value| value.get_name().to_owned())),
            ("inference.model", self.model.clone()),
        ]
    }
}

pub fn run(settings: Settings) -> Result {
    start_log(&settings.log)?;
    let runtime = runtime(&settings)?;
    let code = runtime.block_on(serve(settings))?;
    // Whatever still blocks a thread has been waited for long enough by `Node::stop`.
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(code)
}

async fn serve(settings: Settings) -> Result {
    let mut signals = Signals::new()?;
    // Loading a model takes seconds; whoever ends the node meanwhile need not wait for it.
    let mut start = std::pin::pin!(Node::start(settings, Role::Serve));
    let began = Instant::now();
    let mut patience = tokio::time::interval(STARTING);
    let node = loop {
        tokio::select! {
            // An error that may pass by itself (`triaged rescore` at work, a disk that is not mounted yet) makes the service manager try again.
            node = &mut start => break node.map_err(|error| match error.may_pass() {
                true => Failure::failed(error.to_string()),
                false => Failure::wrong(error.to_string()),
            })?,
            () = signals.next() => return Ok(ExitCode::SUCCESS),
            // A large database of an earlier version takes longer to bring to this one's than a service manager waits.
            _ = patience.tick(), if began.elapsed() < LONGEST_START => {
                tell_systemd(NotifyState::ExtendTimeoutUsec(4 * STARTING.as_micros() as u32));
            }
        }
    };
    tell_systemd(NotifyState::Ready);
    let watchdog = sd_notify::watchdog_enabled();
    let mut look = tokio::time::interval(watchdog.map_or(LOOK_EVERY, |limit| limit / 2));
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = signals.next() => break,
            _ = look.tick() => match node.is_alive() {
                true => tell_systemd(NotifyState::Watchdog),
                // Whoever started the node starts it again: nothing is lost, what was queued is taken up.
                false => {
                    error!("a stage of the node has ended or hangs; the node ends, to be restarted");
                    node.abandon().await;
                    return Ok(ExitCode::FAILURE);
                }
            },
        }
    }
    tell_systemd(NotifyState::Stopping);
    tokio::select! {
        () = node.stop() => Ok(ExitCode::SUCCESS),
        () = signals.next() => {
            warn!("stopped at once on a second signal; what was acknowledged is on disk");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// SIGTERM and SIGINT, which end the node. Others that would end a process at once, and that people and tools send for other
/// reasons (a terminal that closes, a rotation of logs, "read the settings again"), are told in the log and do nothing.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    others: [Signal; 5],
}

impl Signals {
    pub fn new() -> Result<Signals> {
        let listen = |kind| signal(kind).map_err(|error| Failure::wrong(format!("cannot wait for signals: {error}")));
        Ok(Signals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            others: [
                listen(SignalKind::hangup())?,
                listen(SignalKind::user_defined1())?,
                listen(SignalKind::user_defined2())?,
                listen(SignalKind::alarm())?,
                listen(SignalKind::pipe())?,
            ],
        })
    }

    /// Waits until the node is to end.
    pub async fn next(&mut self) {
        loop {
            let [hangup, first, second, alarm, pipe] = &mut self.others;
            let name = tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = hangup.recv() => "SIGHUP",
                _ = first.recv() => "SIGUSR1",
                _ = second.recv() => "SIGUSR2",
                _ = alarm.recv() => "SIGALRM",
                // A peer or a terminal is gone: whoever writes to it has been told.
                _ = pipe.recv() => continue,
            };
            warn!(
                "{name} is taken for nothing: settings and files are read at start, so start the node anew for others"
            );
        }
    }
}

pub fn runtime(settings: &Settings) -> Result<tokio::runtime::Runtime> {
    // Each association stores its object on a blocking thread, and may wait there for one that removes files, which is such a
    // thread, too: they must not be all taken.
    let blocking = settings.dimse.max_associations.saturating_add(512);
    tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(blocking)
        .enable_all()
        .build()
        .map_err(|error| Failure::wrong(format!("cannot start threads: {error}")))
}

/// Does nothing where systemd did not start the node.
fn tell_systemd(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        warn!(%error, "systemd could not be told");
    }
}

/// What goes into the log.
///
/// # Errors
/// `log.level` is no level, nor a list of them.
pub fn log_filter(settings: &Log) -> Result<EnvFilter> {
    let level = &settings.level;
    let wrong = |why: String| Failure::wrong(format!("configuration: log.level = {level}: {why}"));
    // The filter takes a lone word that is no level for the name of a module, so that a slip of the pen would silence
    // the log.
    let is_level = |part: &str| !part.trim().is_empty() && part.trim().parse::<LevelFilter>().is_ok();
    let slip = level.split(',').find(|part| !part.contains(['=', '[']) && !is_level(part));
    if let Some(part) = slip {
        return Err(wrong(format!("{part:?} is none of off, error, warn, info, debug, trace, nor module=level")));
    }
    // ONNX Runtime tells each graph transformation at info.
    let directives = if level.contains("ort=") { level.clone() } else { format!("{level},ort=warn") };
    EnvFilter::builder().parse(&directives).map_err(|error| wrong(error.to_string()))
}

/// The log goes to standard error, where the journal picks it up.
pub fn start_log(settings: &Log) -> Result<()> {
    let filter = log_filter(settings)?;
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    // A log that cannot be written (its disk is full, its reader gone) must not end the node: by default that is printed, which panics.
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(colour)
        .log_internal_errors(false);
    match settings.format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}
