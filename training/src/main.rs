use std::process::ExitCode;

fn main() -> ExitCode {
    triaged_training::cli::main()
}
