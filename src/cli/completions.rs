//! `triaged completions` and `triaged man`: what shells and man(1) read, made from the options themselves.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, Failure, Result};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell that reads it
    shell: Shell,
}

#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// The folder to write them to, such as /usr/local/share/man/man1
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub fn run(args: Args) -> Result {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "triaged", &mut script);
    io::Write::write_all(&mut io::stdout().lock(), &script)?;
    Ok(ExitCode::SUCCESS)
}

pub fn man(args: ManArgs) -> Result {
    let written = std::fs::create_dir_all(&args.out)
        .and_then(|()| clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), &args.out));
    written.map_err(|error| Failure::failed(format!("cannot write to {}: {error}", args.out.display())))?;
    Ok(ExitCode::SUCCESS)
}
