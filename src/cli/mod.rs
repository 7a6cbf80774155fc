//! The command line: options, exit codes, and a file for each subcommand.
//!
//! Exit codes: 0 done; 1 it was tried and something failed; 2 it could not be tried (wrong options, configuration,
//! no database, a port in use). `serve` ends with 1, too, where the next try may succeed. What went wrong is one line on
//! standard error, beginning with `triaged: `.

mod ack;
mod actor;
mod audit;
mod backup;
mod bench_model;
mod chart;
mod check;
mod compare;
mod completions;
mod echo;
mod feedback;
mod output;
mod phantom;
mod recover;
mod report;
mod requeue;
mod rescore;
mod results;
mod send;
mod serve;
mod service;
mod since;
mod study;
mod terminal;
mod user;
mod worklist;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use triaged::archive::Archive;
use triaged::config::{ConfigError, Settings};
use triaged::ledger::{Ledger, LedgerError, Reader, set_foreign_log_aside};
use triaged::node;

/// A DICOM node that triages head CT for intracranial hemorrhage.
///
/// It orders a worklist and sends alerts; it does not diagnose, and a study that is not flagged is not cleared.
#[derive(Debug, Parser)]
#[command(name = "triaged", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Args)]
struct Global {
    /// Read settings from this file; without it, the built-in defaults and the environment (TRIAGED__SECTION__KEY).
    /// Commands other than serve read an installed service's file where nothing says which node is meant
    #[arg(long, value_name = "FILE", global = true, env = "TRIAGED_CONFIG")]
    config: Option<PathBuf>,
    /// The data folder, over `data_dir` of the settings
    #[arg(long, value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,
    /// Which lines are logged: error, warn, info, debug, trace or a filter such as info,triaged::dimse=debug
    #[arg(long, value_name = "LEVEL", global = true)]
    log: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the node: receive, score, judge and notify until SIGTERM or SIGINT
    Serve(serve::Args),
    /// Show the worklist, one study slice by slice, or two models beside each other
    Results(results::Args),
    /// Write the structured report or the key image of a study to a file
    Report(report::Args),
    /// Note that a person has seen a study
    Ack(ack::Args),
    /// Send notifications again that could not be delivered (dead letters)
    Requeue(requeue::Args),
    /// Push DICOM files to a node: C-STORE
    Send(send::Args),
    /// Ask a node whether it is there: C-ECHO
    Echo(echo::Args),
    /// Make a synthetic head CT series, healthy or with a bleed, for trying things out
    Phantom(phantom::Args),
    /// Check settings, model, database, disk and ports: a line each, exit code 1 if anything fails
    Check(check::Args),
    /// Score a study, or all, again with the current model, as a new revision
    Rescore(rescore::Args),
    /// Show what readers said of verdicts, or write it as labels for choosing a threshold
    Feedback(feedback::Args),
    /// Show who did what, or check that nobody changed the record of it (--verify)
    Audit(audit::Args),
    /// Who may use the web server (web.login): add, list, remove, passwd
    #[command(subcommand)]
    User(user::User),
    /// Tokens with which programs use the web server (web.login): add, list, remove
    #[command(subcommand)]
    Token(user::Token),
    /// Copy the database, consistent as of one moment, also while the node runs
    Backup(backup::Args),
    /// Take in again what the archive has and the database does not, after a database was lost or restored
    Recover(recover::Args),
    /// Measure the model alone on this machine, with the node's own code; JSON on standard output
    BenchModel(bench_model::Args),
    /// Print a script that completes commands and options in a shell
    Completions(completions::Args),
    /// Write the manual pages, one a command
    #[command(hide = true)]
    Man(completions::ManArgs),
    /// Decode for the node that started this process; of no use by hand
    #[command(hide = true)]
    DecodeWorker {
        /// The process that started this one
        parent: u32,
    },
}

/// Why a command ended badly: one line for people, an exit code for scripts.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    line: String,
}

impl Failure {
    /// It was tried and failed: exit code 1.
    pub fn failed(line: impl Into<String>) -> Failure {
        Failure { code: 1, line: line.into() }
    }

    /// It could not be tried, because of options, settings or surroundings: exit code 2.
    pub fn wrong(line: impl Into<String>) -> Failure {
        Failure { code: 2, line: line.into() }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::wrong(error.to_string())
    }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Failure {
        let line = error.to_string();
        match error {
            LedgerError::Open { .. }
            | LedgerError::Migrate { .. }
            | LedgerError::Newer { .. }
            | LedgerError::Older { .. } => Failure::wrong(line),
            _ => Failure::failed(line),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            // `triaged results | head`: whoever read has seen enough.
            io::ErrorKind::BrokenPipe => Failure { code: 0, line: String::new() },
            _ => Failure::failed(format!("cannot write: {error}")),
        }
    }
}

pub type Result<T = ExitCode, E = Failure> = std::result::Result<T, E>;

pub fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(failure) => {
            if !failure.line.is_empty() {
                // Error texts quote files and peers; standard error may be a terminal.
                let _ = writeln!(io::stderr(), "triaged: {}", terminal::clean(&failure.line));
            }
            ExitCode::from(failure.code)
        }
    }
}

fn run(cli: Cli) -> Result {
    let global = &cli.global;
    match cli.command {
        Command::Serve(args) => serve::run(global.settings(&args.settings())?),
        Command::Results(args) => results::run(&global.settings_of_node()?, args),
        Command::Report(args) => report::run(&global.settings_of_node()?, args),
        Command::Ack(args) => ack::run(&global.settings_of_node()?, args),
        Command::Requeue(args) => requeue::run(&global.settings_of_node()?, args),
        Command::Send(args) => send::run(args, || global.settings_of_node()),
        Command::Echo(args) => echo::run(args, || global.settings_of_node()),
        Command::Phantom(args) => phantom::run(args),
        Command::Check(args) => check::run(global.settings_of_node(), global.config_of_node().as_deref(), args),
        Command::Rescore(args) => rescore::run(global.settings_of_node()?, args, global.log.is_some()),
        Command::Audit(args) => audit::run(&global.settings_of_node()?, args),
        Command::Feedback(args) => feedback::run(&global.settings_of_node()?, args),
        Command::User(command) => user::run(&global.settings_of_node()?, command),
        Command::Token(command) => user::run_token(&global.settings_of_node()?, command),
        Command::Backup(args) => backup::run(&global.settings_of_node()?, args),
        Command::Recover(args) => recover::run(&global.settings_of_node()?, args),
        Command::DecodeWorker { parent } => decode_worker(parent),
        Command::BenchModel(args) => bench_model::run(&global.settings(&args.settings())?, args),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => completions::man(args),
    }
}

fn decode_worker(parent: u32) -> Result {
    match triaged::decoding::run_worker(parent) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(Failure::wrong(format!("decode-worker is started by the node alone: {error}"))),
    }
}

impl Global {
    /// All layers of settings, with `flags` of the subcommand (dotted key and value) on top.
    fn settings(&self, flags: &[(&str, Option<String>)]) -> Result<Settings> {
        self.settings_with(self.config.as_deref(), flags)
    }

    /// The settings of the node that a command asks: as [`Global::settings`], or those of the installed service.
    fn settings_of_node(&self) -> Result<Settings> {
        self.settings_with(self.config_of_node().as_deref(), &[])
    }

    /// The file that says which node a command asks, if any.
    fn config_of_node(&self) -> Option<PathBuf> {
        let is_said = self.config.is_some() || self.data_dir.is_some();
        if is_said { self.config.clone() } else { service::config() }
    }

    fn settings_with(&self, config: Option<&Path>, flags: &[(&str, Option<String>)]) -> Result<Settings> {
        let mut given: Vec<(&str, String)> =
            flags.iter().filter_map(|(key, value)| value.clone().map(|value| (*key, value))).collect();
        if let Some(folder) = &self.data_dir {
            let Some(text) = folder.to_str() else {
                return Err(Failure::wrong(format!("--data-dir {}: the path is not UTF-8", folder.display())));
            };
            given.push(("data_dir", text.to_owned()));
        }
        if let Some(level) = &self.log {
            given.push(("log.level", level.clone()));
        }
        Ok(Settings::load(config, &given)?)
    }
}

/// The path of the database, which a command that asks needs to be there already.
fn existing_database(settings: &Settings) -> Result<PathBuf> {
    let path = settings.database();
    match std::fs::File::open(&path) {
        // No connection of this process is open yet, whose locks the close would drop.
        Ok(_) => Ok(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Failure::wrong(format!(
            "there is no database {}: no node has run with this data folder (--data-dir or data_dir chooses another)",
            path.display()
        ))),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(Failure::wrong(format!(
            "the database {} may be read by the node's user alone: sudo -u triaged triaged …, where that is its name",
            path.display()
        ))),
        Err(error) => Err(Failure::wrong(format!("cannot open the database {}: {error}", path.display()))),
    }
}

/// The ledger, for a command that writes into it. Where no node runs, a log that is left of another state of the database is first put
/// out of the way, as at a node's start: it would be taken for the database's own, and spoil it.
fn ledger_to_write(settings: &Settings) -> Result<Ledger> {
    let path = existing_database(settings)?;
    let _alone = node::try_lock(&settings.data_dir).map_err(|error| Failure::failed(error.to_string()))?;
    if _alone.is_some() {
        let told = Archive::at(&settings.data_dir).told();
        let told = told.map_err(|error| Failure::failed(format!("{}: {error}", shown(&settings.data_dir))))?;
        if let Some(told) = told {
            set_foreign_log_aside(&path, &told)?;
        }
    } else {
        // To open it would bring it to this program's schema, under a node of an earlier version that goes on by its own.
        Reader::open(&path)?;
    }
    Ok(Ledger::open(&path)?)
}

/// A path as it is shown.
fn shown(path: &Path) -> String {
    terminal::clean(&path.display().to_string()).into_owned()
}
