//! The argument `--since`.

use super::{Failure, Result};

/// The moment that was asked for ([`triaged::since::moment_of`]), as the ledger writes it.
pub fn moment_of(asked: &str) -> Result<String> {
    triaged::since::moment_of(asked).map_err(|why| Failure::wrong(format!("--{why}")))
}
