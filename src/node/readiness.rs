//! The checks that `/readyz` shows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::archive::Archive;
use crate::config::Settings;
use crate::inference::{EngineInfo, ShadowStatus};
use crate::ledger::{Ledger, Queue};
use crate::plural::{counted, verb};
use crate::recovery::Progress;
use crate::trouble::Trouble;
use crate::web::{Check, Readiness};

use super::pulse::Vitals;

/// Failures of the node's work that readiness reports.
pub struct Troubles {
    pub vitals: Vitals,
    /// Objects that could not be stored.
    pub storing: Trouble,
    /// Slices that the model failed on.
    pub scoring: Trouble,
    /// Files and rows that are held against each other after the start.
    pub recovery: Progress,
}

/// A store that failed says something of the next one for so long, a slice that failed for longer: fewer of them come.
const STORE_MEMORY: Duration = Duration::from_secs(60);
const SCORE_MEMORY: Duration = Duration::from_secs(600);

/// Slices in a row that the model fails on, before it counts as failing. One may be odd.
const MODEL_FAILS: u32 = 3;

/// A model as `/readyz` names it.
fn model_in_words(engine: &EngineInfo) -> String {
    format!("{} version {} SHA-256 {}", engine.card.name, engine.card.version, engine.card.sha256)
}

fn provider_in_words(engine: &EngineInfo) -> String {
    match &engine.fallback {
        None => engine.provider.to_owned(),
        Some(why) => format!("{}; fell back, as inference.device is \"auto\": {why}", engine.provider),
    }
}

/// While files are taken in again that the database does not know, the worklist lacks studies that the node has.
fn files(recovery: &Progress, ledger: &Ledger) -> Check {
    let check = |ok, detail| Check { name: "files".into(), ok, detail };
    let report = recovery.report();
    if !report.is_over && report.found > 0 {
        let (done, found) = (report.done, report.found);
        return check(
            false,
            format!("{done} of {found} files that have no row in the database are taken in again so far"),
        );
    }
    if let Some(error) = report.error {
        return check(false, error);
    }
    match ledger.count_lost() {
        Err(error) => check(false, error.to_string()),
        Ok(_) if !report.is_over => check(true, "files and rows are held against each other".into()),
        Ok(0) => check(true, report.in_words()),
        Ok(lost) => {
            let (lost, words) = (counted(lost, "instance"), verb(lost, "has lost its", "have lost their"));
            check(true, format!("{lost} {words} file (view lost_files); {}", report.in_words()))
        }
    }
}

/// The checks of `/readyz`, made anew whenever they are asked for.
pub fn readiness(
    settings: &Settings,
    engine: &EngineInfo,
    shadow: Option<Result<ShadowStatus, String>>,
    ledger: &Ledger,
    archive: &Archive,
    troubles: Troubles,
    listening: Arc<AtomicBool>,
) -> Arc<dyn Fn() -> Readiness + Send + Sync> {
    let min_free = settings.archive.min_free_mib.saturating_mul(1 << 20);
    let (model, provider) = (model_in_words(engine), provider_in_words(engine));
    let (ledger, archive) = (ledger.clone(), archive.clone());
    Arc::new(move || {
        let check = |name: &str, ok, detail: String| Check { name: name.into(), ok, detail };
        let queue = ledger.queue_depth();
        let free = archive.free_bytes();
        let mut readiness = Readiness {
            checks: vec![
                match troubles.scoring.current(MODEL_FAILS, SCORE_MEMORY) {
                    None => check("model", true, model.clone()),
                    Some(why) => check("model", false, format!("{model}; slices are not scored: {why}")),
                },
                check("provider", true, provider.clone()),
                match (queue, troubles.vitals.ledger()) {
                    (_, Some(why)) => check("ledger", false, why),
                    (Ok(waiting), None) => check("ledger", true, waits(waiting)),
                    (Err(error), None) => check("ledger", false, error.to_string()),
                },
                match troubles.vitals.archive() {
                    None => check("archive", true, "a file can be written and read again".into()),
                    Some(why) => check("archive", false, why),
                },
                match troubles.storing.current(1, STORE_MEMORY) {
                    None => check("storing", true, "objects are stored".into()),
                    Some(why) => check("storing", false, format!("an object {why}")),
                },
                match free {
                    Ok(free) => check(
                        "disk",
                        free >= min_free,
                        format!("{} MiB free of at least {}", free >> 20, min_free >> 20),
                    ),
                    Err(error) => check("disk", false, error.to_string()),
                },
                files(&troubles.recovery, &ledger),
                check("dimse", listening.load(Ordering::SeqCst), "accepts associations".into()),
            ],
        };
        // The node does its work with or without it, so it is never the reason to be not ready.
        if let Some(Err(why)) = &shadow {
            let detail = format!("inference.shadow cannot be loaded, and the node works without it: {why}");
            readiness.checks.push(check("shadow", true, detail));
        }
        if let Some(Ok(shadow)) = &shadow {
            let model = model_in_words(&shadow.info);
            let detail = match (shadow.ended(), ledger.shadow_queue_depth()) {
                (Some(why), _) => format!("{model}; works no longer, until the node is started again: {why}"),
                (None, Ok(waiting)) => {
                    let provider = provider_in_words(&shadow.info);
                    format!("{model} on {provider}; used for nothing; {} for it", waits(waiting))
                }
                (None, Err(error)) => format!("{model}; {error}"),
            };
            readiness.checks.push(check("shadow", true, detail));
        }
        readiness
    })
}

/// How many slices wait, in words.
fn waits(slices: u64) -> String {
    format!("{} {}", counted(slices, "slice"), if slices == 1 { "waits" } else { "wait" })
}
