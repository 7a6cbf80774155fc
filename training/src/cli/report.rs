//! `report`: a run's pictures, from what `evaluate` or `cross-validate` scored.

use std::path::Path;

use crate::report;

/// The default folder of a run's report.
pub const FOLDER: &str = "report";

/// Writes the report of the run in `run` to `out`, or to the run's own folder for it.
pub fn do_report(run: &Path, out: Option<&Path>) -> anyhow::Result<()> {
    let own = run.join(FOLDER);
    let page = report::write(run, out.unwrap_or(&own))?;
    eprintln!("wrote {}, its figures beside it", page.display());
    Ok(())
}
