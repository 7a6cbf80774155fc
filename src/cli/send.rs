//! `triaged send`: push files to a node.

use std::io::{self, IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use triaged::config::{KnownPeer, Settings, ae_title_is_valid};
use triaged::dimse::scu::{self, Peer};
use triaged::plural::counted;

use super::{Failure, Result, shown, terminal};

/// Off a terminal, how often a line tells how far it is.
const LINE_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files and folders; folders with everything in them, files that are not DICOM are skipped
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    peer: PeerArgs,
    /// Priority of the requests; few nodes heed it
    #[arg(long, value_enum, default_value_t)]
    priority: Priority,
}

/// The options that say whom to call.
#[derive(Debug, clap::Args)]
pub struct PeerArgs {
    /// A peer of dimse.peers in the configuration: its address, AE title, TLS and user
    #[arg(long, value_name = "NAME", conflicts_with_all = ["to", "called_ae"])]
    peer: Option<String>,
    /// The node's address [default: this machine, dimse.port of the settings]
    #[arg(long, value_name = "HOST:PORT")]
    to: Option<String>,
    /// The node's AE title [default: dimse.ae_title of the settings; TRIAGED with --to]
    #[arg(long, value_name = "AE")]
    called_ae: Option<String>,
    /// The AE title to call as [default: TRIAGED_SCU; with --peer, dimse.ae_title]
    #[arg(long, value_name = "AE")]
    calling_ae: Option<String>,
    /// Seconds to wait for the connection and for each answer
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Priority {
    High,
    #[default]
    Medium,
    Low,
}

impl PeerArgs {
    /// Whom to call. `settings` are read only where something of theirs is needed.
    pub fn peer(self, settings: impl FnOnce() -> Result<Settings>) -> Result<Peer> {
        for title in self.called_ae.iter().chain(&self.calling_ae) {
            if !ae_title_is_valid(title) {
                let line = format!("{title:?} is no AE title: 1 to 16 printable ASCII characters, no backslash");
                return Err(Failure::wrong(line));
            }
        }
        let timeout = Duration::from_secs(self.timeout);
        if let Some(name) = &self.peer {
            let dimse = settings()?.dimse;
            let known = dimse.peer(name).ok_or_else(|| Failure::wrong(unknown(name, &dimse.peers)))?;
            let peer = Peer::known(known, &dimse, timeout).map_err(|error| Failure::wrong(error.to_string()))?;
            return Ok(Peer { calling_ae_title: self.calling_ae.unwrap_or(peer.calling_ae_title), ..peer });
        }
        let calling = self.calling_ae.unwrap_or_else(|| "TRIAGED_SCU".into());
        let Some(to) = self.to else {
            let settings = settings()?;
            let called = self.called_ae.unwrap_or_else(|| settings.dimse.ae_title.clone());
            return Ok(Peer::plain(here(&settings), called, calling, timeout));
        };
        if !to.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) {
            return Err(Failure::wrong(format!("--to {to:?}: HOST:PORT is expected, such as 127.0.0.1:11112")));
        }
        Ok(Peer::plain(to, self.called_ae.unwrap_or_else(|| "TRIAGED".into()), calling, timeout))
    }
}

fn unknown(name: &str, peers: &[KnownPeer]) -> String {
    let known: Vec<&str> = peers.iter().map(|peer| peer.name.as_str()).collect();
    match known.is_empty() {
        true => format!("--peer {name}: the configuration has no [[dimse.peers]] (--config names a file)"),
        false => format!("--peer {name}: dimse.peers has {}", known.join(", ")),
    }
}

/// The address of the node of these settings, as this machine reaches it.
fn here(settings: &Settings) -> String {
    let listen = Some(settings.dimse.listen).filter(|address| !address.is_unspecified());
    match listen.unwrap_or(Ipv4Addr::LOCALHOST.into()) {
        IpAddr::V4(address) => format!("{address}:{}", settings.dimse.port),
        IpAddr::V6(address) => format!("[{address}]:{}", settings.dimse.port),
    }
}

#[derive(Debug, Default)]
struct Tally {
    stored: u64,
    warned: u64,
    failed: u64,
    bytes: u64,
}

pub fn run(args: Args, settings: impl FnOnce() -> Result<Settings>) -> Result {
    let peer = args.peer.peer(settings)?;
    for path in &args.paths {
        if let Err(error) = std::fs::metadata(path) {
            return Err(Failure::wrong(format!("{}: {error}", path.display())));
        }
    }
    let report = Report::new();
    let spinner = report.spinner();
    let found = scu::find(&args.paths, &mut |looked| {
        spinner.set_position(looked);
    });
    spinner.finish_and_clear();
    for (path, why) in &found.unreadable {
        report.line(&format!("{}: {why}", path.display()));
    }
    if found.objects.is_empty() {
        let others = found.skipped + found.unreadable.len() as u64;
        return Err(Failure::wrong(format!("there is no DICOM object to send in the {}", counted(others, "file"))));
    }

    let total = found.objects.len() as u64;
    let bar = report.bar(total);
    let mut tally = Tally::default();
    let begun = Instant::now();
    let mut last_line = begun;
    let priority = match args.priority {
        Priority::High => scu::Priority::High,
        Priority::Medium => scu::Priority::Medium,
        Priority::Low => scu::Priority::Low,
    };
    let ended = scu::store(&peer, &found.objects, priority, &mut |object, result| {
        match result {
            Ok(stored) => {
                tally.stored += 1;
                tally.bytes += stored.bytes;
                if stored.status != 0 {
                    tally.warned += 1;
                    let comment = if stored.comment.is_empty() { "" } else { ": " };
                    let what = format!("stored with warning {:04X}H, {}", stored.status, scu::meaning(stored.status));
                    bar.suspend(|| report.line(&format!("{}: {what}{comment}{}", shown(&object.path), stored.comment)));
                }
            }
            Err(error) => {
                tally.failed += 1;
                bar.suspend(|| report.line(&format!("{}: {error}", object.path.display())));
            }
        }
        bar.set_position(tally.stored + tally.failed);
        if !report.is_terminal && last_line.elapsed() >= LINE_EVERY {
            last_line = Instant::now();
            report.line(&format!("{} of {total}", tally.stored + tally.failed));
        }
    });
    bar.finish_and_clear();
    let took = begun.elapsed().as_secs_f64().max(1e-3);
    let unsent = total - tally.stored - tally.failed;
    let unreadable = found.unreadable.len() as u64;
    if let Err(error) = &ended {
        if tally.stored + tally.failed == 0 {
            return Err(Failure::failed(error.to_string()));
        }
        report.line(&error.to_string());
    }
    let mut line = format!(
        "{} stored by {} at {} in {took:.1} s ({:.0}/s, {:.1} MB/s)",
        counted(tally.stored, "object"),
        peer.called_ae_title,
        peer.address,
        tally.stored as f64 / took,
        tally.bytes as f64 / took / 1e6
    );
    let skipped = if found.skipped == 1 { "other file skipped" } else { "other files skipped" };
    for (count, what) in [
        (tally.warned, "of them with warnings"),
        (tally.failed, "failed"),
        (unsent, "not sent"),
        (unreadable, "unreadable"),
        (found.skipped, skipped),
    ] {
        if count > 0 {
            line.push_str(&format!(", {count} {what}"));
        }
    }
    writeln!(io::stdout().lock(), "{line}")?;
    let all = ended.is_ok() && tally.failed + unreadable == 0;
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Standard error: bars on a terminal, lines off it.
pub struct Report {
    pub is_terminal: bool,
}

impl Report {
    pub fn new() -> Report {
        Report { is_terminal: io::stderr().is_terminal() }
    }

    /// A line about an object; the rest goes on.
    pub fn line(&self, text: &str) {
        let _ = writeln!(io::stderr(), "triaged: {}", terminal::clean(text));
    }

    fn spinner(&self) -> ProgressBar {
        if !self.is_terminal {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template("{spinner} {pos} files").expect("the template is valid");
        ProgressBar::new_spinner().with_style(style)
    }

    /// A bar that counts objects. indicatif draws on standard error, and nothing where that is no terminal.
    pub fn bar(&self, total: u64) -> ProgressBar {
        if !self.is_terminal {
            return ProgressBar::hidden();
        }
        let template = "{wide_bar} {pos}/{len} {per_sec:.dim} eta {eta}";
        ProgressBar::new(total).with_style(ProgressStyle::with_template(template).expect("the template is valid"))
    }
}
