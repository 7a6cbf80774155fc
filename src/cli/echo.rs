//! `triaged echo`: is the node there?

use std::io::{self, Write};
use std::process::ExitCode;

use triaged::config::Settings;
use triaged::dimse::scu;

use super::send::PeerArgs;
use super::{Failure, Result};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    peer: PeerArgs,
}

pub fn run(args: Args, settings: impl FnOnce() -> Result<Settings>) -> Result {
    let peer = args.peer.peer(settings)?;
    let took = scu::echo(&peer).map_err(|error| Failure::failed(error.to_string()))?;
    let ms = took.as_secs_f64() * 1e3;
    writeln!(io::stdout().lock(), "{} at {} answered in {ms:.1} ms", peer.called_ae_title, peer.address)?;
    Ok(ExitCode::SUCCESS)
}
