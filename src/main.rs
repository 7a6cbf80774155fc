//! The command line. Each subcommand is a file in `cli/`; the work is done by the library.

use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    cli::main()
}
