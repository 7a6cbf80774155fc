//! A second model in shadow: it scores every slice that the model that counts has ended, and what it says is stored and
//! used by nothing.
//!
//! The model that counts is never kept waiting: the shadow is one thread of low priority, without a queue of its own
//! in memory, and before every slice it looks whether another one waits to be scored; if so, it waits. Whatever goes wrong
//! with it is recorded and ends at most the shadow, never a slice or the node.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::engine::{Engine, EngineInfo};
use super::lane::Lane;
use super::pipeline::input;
use crate::config;
use crate::decoding::{self, DecodeLimits, Decoder, Decoders};
use crate::ledger::{Claim, Ledger, LedgerError, NewShadowModel, Queue, ShadowEnd, ShadowModel, ShadowOutcome, now};
use crate::objects::Objects;
use crate::priority::stand_far_back;
use triaged_model::SeriesNetwork;

/// Slices claimed, and ends recorded, in one commit at most: a commit for each would slow those of receiving.
const AT_ONCE: usize = 16;

/// An end is recorded at the latest after so long.
const RECORD_AFTER: Duration = Duration::from_secs(1);

/// How often it is looked at whether the model that counts has done its work.
const WHILE_BUSY: Duration = Duration::from_millis(50);

/// How often the queue is looked at though nobody rang.
const POLL: Duration = Duration::from_secs(1);

/// How often what has waited too long is passed over.
const PRUNE: Duration = Duration::from_secs(3600);

/// A slice that the process ended with this often is not looked at any more.
const DEADLY: u32 = 3;

/// The running shadow.
pub struct Shadow {
    thread: JoinHandle<()>,
    stop: CancellationToken,
    status: ShadowStatus,
}

/// Facts about the shadow that others may read while it is at work.
#[derive(Clone)]
pub struct ShadowStatus {
    pub info: EngineInfo,
    /// The network that reads whole series; none where the card has none.
    pub sequence: Option<Arc<dyn SeriesNetwork>>,
    ended: Arc<Mutex<Option<String>>>,
}

impl ShadowStatus {
    /// Why the shadow works no longer, though it was not stopped.
    pub fn ended(&self) -> Option<String> {
        self.ended.lock().expect("nobody panics while holding the reason").clone()
    }
}

impl Shadow {
    /// Notes the shadow model in the ledger and starts its work. Call it before slices are scored.
    pub async fn start(
        program: PathBuf,
        engine: Engine,
        ledger: Ledger,
        objects: Arc<dyn Objects>,
        settings: &config::Inference,
    ) -> Result<Shadow, LedgerError> {
        let status = ShadowStatus { info: engine.info(), sequence: engine.sequence(), ended: Arc::default() };
        let card = &status.info.card;
        let model = NewShadowModel {
            name: card.name.clone(),
            sha256: card.sha256.clone(),
            slice_threshold: card.slice_threshold,
            rule: serde_json::to_string(&card.study_rule).expect("a rule is a name and two numbers"),
        };
        let model = ledger.start_shadow(model, settings.shadow_days).await?;
        let stop = CancellationToken::new();
        let decoders = Decoders::new(program, DecodeLimits::new(settings));
        // It scores a slice at a time.
        let lane = engine.into_lanes().swap_remove(0);
        let worker = Worker {
            lane,
            ledger,
            objects,
            info: status.info.clone(),
            model,
            settings: settings.clone(),
            runtime: Handle::current(),
            stop: stop.clone(),
            claims: VecDeque::new(),
            ends: Vec::new(),
            recorded: Instant::now(),
            measured: Instant::now(),
            decoder: Decoder::new(Arc::new(decoders)),
        };
        let (ended, info) = (status.ended.clone(), status.info.clone());
        info.note_running("shadow", true);
        let run = move || {
            let why = match catch_unwind(AssertUnwindSafe(|| worker.run())) {
                Ok(Ok(())) => return,
                Ok(Err(why)) => why,
                Err(_) => "it panicked; this is a bug".to_owned(),
            };
            error!("the shadow model works no longer, until the node is started again: {why}");
            info.note_running("shadow", false);
            *ended.lock().expect("nobody panics while holding the reason") = Some(why);
        };
        let thread = std::thread::Builder::new()
            .name("shadow".into())
            .spawn(run)
            .expect("the system can start a thread while the node starts");
        Ok(Shadow { thread, stop, status })
    }

    pub fn status(&self) -> &ShadowStatus {
        &self.status
    }

    /// Asks it to end after the slice it works on.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until it has ended.
    pub async fn stopped(self) {
        self.stop();
        let joined = tokio::task::spawn_blocking(move || self.thread.join());
        let _ = joined.await;
    }
}

/// Why a slice has no score.
enum Failure {
    /// It will be the same the next time.
    Lasting(String),
    /// It may pass.
    Passing(String),
    /// The model runs no longer: no slice is to blame.
    Model(String),
}

impl From<decoding::Failure> for Failure {
    fn from(failure: decoding::Failure) -> Failure {
        match failure {
            decoding::Failure::Passing(reason) => Failure::Passing(reason),
            // The primary model has found this slice eligible.
            decoding::Failure::Ineligible(reason)
            | decoding::Failure::NotAHead(reason, _)
            | decoding::Failure::Lasting(reason)
            | decoding::Failure::Deadly(reason) => Failure::Lasting(reason),
        }
    }
}

struct Worker {
    lane: Lane,
    ledger: Ledger,
    objects: Arc<dyn Objects>,
    info: EngineInfo,
    model: ShadowModel,
    settings: config::Inference,
    runtime: Handle,
    stop: CancellationToken,
    /// Claimed, and still to be worked on.
    claims: VecDeque<Claim>,
    /// Ended and not recorded.
    ends: Vec<ShadowEnd>,
    recorded: Instant,
    measured: Instant,
    decoder: Decoder,
}

impl Worker {
    /// Works until it is stopped, or until it cannot any more; then says why.
    fn run(mut self) -> Result<(), String> {
        stand_far_back();
        let mut filled = false;
        let mut pruned = Instant::now();
        while !self.stop.is_cancelled() {
            let done = match filled {
                false => self.fill().map(|()| filled = true),
                true if pruned.elapsed() >= PRUNE => self.prune().map(|()| pruned = Instant::now()),
                true => match self.step() {
                    Ok(()) => Ok(()),
                    Err(Stopped::Ledger(error)) => Err(error),
                    Err(Stopped::Model(why)) => {
                        let _ = self.end_all();
                        return Err(why);
                    }
                },
            };
            if let Err(error) = done {
                error!("the shadow model's work cannot be read or recorded: {error}");
                self.pause(POLL);
            }
        }
        self.end_all().map_err(|error| error.to_string())
    }

    /// Records what has ended. What was claimed and has not, or cannot be recorded, is not to be blamed for the end of the process.
    fn end_all(&mut self) -> Result<(), LedgerError> {
        let recorded = self.record();
        let unended = self.claims.drain(..).map(|claim| claim.lease.slice);
        let back = unended.chain(self.ends.drain(..).map(|end| end.slice)).collect();
        self.ledger.give_back_shadow(back).and(recorded)
    }

    fn fill(&self) -> Result<(), LedgerError> {
        let days = self.settings.shadow_days;
        let passed_over = self.ledger.prune_shadow_queue(days)?;
        let waiting = self.ledger.fill_shadow_queue(self.model.id, days, self.settings.max_queue)?;
        info!(model = self.model.name, waiting, passed_over, days, "slices of these days wait for the shadow model");
        Ok(())
    }

    fn prune(&self) -> Result<(), LedgerError> {
        let passed_over = self.ledger.prune_shadow_queue(self.settings.shadow_days)?;
        if passed_over > 0 {
            warn!(passed_over, "slices waited for the shadow model longer than inference.shadow_days");
        }
        Ok(())
    }

    /// Works on one slice, or waits until there is something to do.
    fn step(&mut self) -> Result<(), Stopped> {
        if self.measured.elapsed() >= POLL {
            self.measured = Instant::now();
            metrics::gauge!("triaged_shadow_queue_depth").set(self.ledger.shadow_queue_depth()? as f64);
        }
        if self.recorded.elapsed() >= RECORD_AFTER {
            self.record()?;
        }
        if !self.ledger.is_idle()? {
            self.record()?;
            // It may hold a large object.
            self.decoder.forget();
            self.pause(WHILE_BUSY);
            return Ok(());
        }
        let Some(mut claim) = self.claims.pop_front() else {
            self.record()?;
            self.claims = self.ledger.claim_shadow(AT_ONCE)?.into();
            match self.claims.front() {
                None => {
                    self.decoder.forget();
                    self.pause(POLL);
                }
                Some(again) if again.attempts > 0 => self.pause(Duration::from_secs(1 << again.attempts.min(6))),
                Some(_) => {}
            }
            return Ok(());
        };
        claim.claimed_at = now();
        if claim.deaths >= DEADLY {
            let why = format!("the node ended {} times while the shadow model worked on this slice", claim.deaths);
            self.end(&claim, ShadowOutcome::Failed { reason: why });
            return Ok(());
        }
        let scored = catch_unwind(AssertUnwindSafe(|| self.score(&claim)))
            .unwrap_or_else(|_| Err(Failure::Lasting("the shadow model panicked; this is a bug".into())));
        match scored {
            Ok((probability, decoded_at)) => {
                let positive = probability >= self.info.card.slice_threshold;
                self.end(&claim, ShadowOutcome::Scored { probability, positive, decoded_at });
            }
            Err(Failure::Model(why)) => {
                self.claims.push_front(claim);
                return Err(Stopped::Model(why));
            }
            Err(Failure::Passing(_)) if claim.attempts + 1 < self.settings.max_attempts => {
                if let Err(error) = self.ledger.retry_shadow_slice(claim.lease.slice) {
                    self.claims.push_front(claim);
                    return Err(error.into());
                }
            }
            Err(Failure::Passing(reason) | Failure::Lasting(reason)) => {
                info!(sop_instance = claim.sop_uid, frame = claim.frame, "the shadow model has no score: {reason}");
                self.end(&claim, ShadowOutcome::Failed { reason });
            }
        }
        Ok(())
    }

    /// The probability, and when the slice was decoded.
    fn score(&mut self, claim: &Claim) -> Result<(f64, String), Failure> {
        let began = Instant::now();
        if claim.path.is_empty() {
            return Err(Failure::Lasting("its file was removed from the archive".into()));
        }
        let tensor = input(&mut self.decoder, &*self.objects, claim, &self.info.card.transform)?.tensor;
        let decoded_at = now();
        let scored = self.lane.score(&[&tensor]);
        metrics::histogram!("triaged_shadow_seconds").record(began.elapsed().as_secs_f64());
        match scored {
            Ok(probabilities) => Ok((probabilities[0], decoded_at)),
            Err(error) if !self.lane.still_runs() => Err(Failure::Model(error.to_string())),
            Err(error) => Err(Failure::Passing(error.to_string())),
        }
    }

    fn end(&mut self, claim: &Claim, outcome: ShadowOutcome) {
        self.ends.push(ShadowEnd {
            slice: claim.lease.slice,
            outcome,
            threshold: self.info.card.slice_threshold,
            provider: self.info.provider.into(),
            claimed_at: claim.claimed_at.clone(),
            ended_at: now(),
        });
    }

    fn record(&mut self) -> Result<(), LedgerError> {
        self.recorded = Instant::now();
        if self.ends.is_empty() {
            return Ok(());
        }
        let failed = self.ends.iter().filter(|end| matches!(end.outcome, ShadowOutcome::Failed { .. })).count();
        let scored = self.ends.len() - failed;
        // An end that cannot be recorded is kept and recorded later; no more is claimed meanwhile.
        self.ledger.end_shadow_slices(self.model.id, self.ends.clone())?;
        self.ends.clear();
        metrics::counter!("triaged_shadow_slices_total", "state" => "scored").increment(scored as u64);
        metrics::counter!("triaged_shadow_slices_total", "state" => "failed").increment(failed as u64);
        Ok(())
    }

    /// Waits, but not beyond the stop.
    fn pause(&self, time: Duration) {
        // Timers are made within the runtime.
        let _ = self.runtime.block_on(async { tokio::time::timeout(time, self.stop.cancelled()).await });
    }
}

/// Why a step did not do its work.
enum Stopped {
    Ledger(LedgerError),
    Model(String),
}

impl From<LedgerError> for Stopped {
    fn from(error: LedgerError) -> Stopped {
        Stopped::Ledger(error)
    }
}
