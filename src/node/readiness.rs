//! The checks that `/readyz` shows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::archive::Archive;
use crate::config::Settings;
use crate::inference::{EngineInfo, ShadowStatus};
use crate::ledger::{Ledger, Queue};
use crate::web::{Check, Readiness};

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

/// The checks of `/readyz`, made anew whenever they are asked for.
pub fn readiness(
    settings: &Settings,
    engine: &EngineInfo,
    shadow: Option<ShadowStatus>,
    ledger: &Ledger,
    archive: &Archive,
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
                check("model", true, model.clone()),
                check("provider", true, provider.clone()),
                match queue {
                    Ok(waiting) => check("ledger", true, format!("{waiting} slices wait")),
                    Err(error) => check("ledger", false, error.to_string()),
                },
                match free {
                    Ok(free) => check(
                        "disk",
                        free >= min_free,
                        format!("{} MiB free of at least {}", free >> 20, min_free >> 20),
                    ),
                    Err(error) => check("disk", false, error.to_string()),
                },
                check("dimse", listening.load(Ordering::SeqCst), "accepts associations".into()),
            ],
        };
        // The node does its work with or without it, so it is never the reason to be not ready.
        if let Some(shadow) = &shadow {
            let model = model_in_words(&shadow.info);
            let detail = match (shadow.ended(), ledger.shadow_queue_depth()) {
                (Some(why), _) => format!("{model}; works no longer, until the node is started again: {why}"),
                (None, Ok(waiting)) => {
                    let provider = provider_in_words(&shadow.info);
                    format!("{model} on {provider}; used for nothing; {waiting} slices wait for it")
                }
                (None, Err(error)) => format!("{model}; {error}"),
            };
            readiness.checks.push(check("shadow", true, detail));
        }
        readiness
    })
}
