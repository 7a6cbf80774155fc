//! From the queue to scores: claims slices, decodes them on threads of their own, gathers them into batches, scores the
//! batches, each lane of the engine on a thread of its own, and ends every slice it claimed.
//!
//! ```text
//! ledger ─claim→ decode threads ─tensor→ scoring threads ─scores→ ledger
//! ```
//! Every hand-over is bounded, and a slice is held from its claim to its end, so memory does not depend on the queue.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::decoding::{Failure, LargeObject, decode, forget};
use super::engine::{Engine, EngineInfo};
use super::error::EngineError;
use super::gpu_loss;
use super::held::Held;
use super::lane::Lane;
use super::priority::stand_back;
use crate::archive::Archive;
use crate::config;
use crate::ledger::{Claim, Ledger, LedgerError, Score, SliceId, now};
use triaged_imaging::Tensor;

/// How often the queue is looked at though nobody rang: another process may have filled it (`triaged rescore`).
const POLL: Duration = Duration::from_secs(1);

/// How long room for one slice may wait for that of others. The other half of the slices are at work meanwhile.
const GATHER: Duration = Duration::from_millis(20);

/// A slice that the process ended with this often is looked at alone, so that no other is blamed for it …
const SUSPECT: u32 = 2;

/// … and after this often not any more.
const DEADLY: u32 = 4;

/// The running stage.
pub struct Pipeline {
    claimer: tokio::task::JoinHandle<()>,
    threads: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
}

/// A slice ready for the model.
struct Ready {
    claim: Claim,
    tensor: Tensor,
    decoded_at: String,
}

/// What all parts of the stage share.
struct Shared {
    ledger: Ledger,
    archive: Archive,
    info: EngineInfo,
    max_attempts: u32,
    runtime: Handle,
    held: Held,
    large: LargeObject,
    /// Claimed and not yet at a scoring thread: while there are none, a batch need not wait for them.
    decoding: AtomicUsize,
}

impl Pipeline {
    pub fn start(
        engine: Engine,
        ledger: Ledger,
        archive: Archive,
        settings: &config::Inference,
        stop: CancellationToken,
    ) -> Pipeline {
        let info = engine.info();
        let decoders = match settings.decode_threads {
            // A GPU leaves the cores to decoding.
            0 => {
                let most = if info.provider == "CPUExecutionProvider" { 8 } else { 32 };
                std::thread::available_parallelism().map_or(1, |n| n.get()).min(most)
            }
            n => n,
        };
        let batch_size = info.batch_size;
        let room = 2 * (batch_size + decoders);
        let shared = Arc::new(Shared {
            ledger,
            archive,
            info,
            max_attempts: settings.max_attempts,
            runtime: Handle::current(),
            held: Held::new(room),
            large: LargeObject::default(),
            decoding: AtomicUsize::new(0),
        });
        let (to_decode, claims) = sync_channel(room);
        let (to_score, ready) = sync_channel(batch_size + decoders);
        let (claims, ready) = (Arc::new(Mutex::new(claims)), Arc::new(Mutex::new(ready)));
        let mut threads = Vec::new();
        let thread = |name: &str, run: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new()
                .name(name.into())
                .spawn(run)
                .expect("the system can start a thread while the node starts")
        };
        for _ in 0..decoders {
            let (shared, claims, to_score) = (shared.clone(), claims.clone(), to_score.clone());
            threads.push(thread("decode", Box::new(move || decode_all(&shared, &claims, &to_score))));
        }
        drop(to_score);
        let wait = Duration::from_millis(settings.batch_wait_ms);
        for lane in engine.into_lanes() {
            let (shared, ready) = (shared.clone(), ready.clone());
            threads.push(thread("score", Box::new(move || score_all(&shared, lane, &ready, wait))));
        }
        drop(ready);
        tokio::spawn(measure_all(shared.ledger.clone(), stop.clone()));
        let claimer = tokio::spawn(claim_all(shared.clone(), to_decode, stop));
        Pipeline { claimer, threads, shared }
    }

    /// Whether every part of the stage still runs, and none hangs.
    pub fn is_alive(&self) -> bool {
        !self.claimer.is_finished()
            && self.threads.iter().all(|thread| !thread.is_finished())
            && !self.shared.held.hang()
    }

    /// Takes back the claims of slices that are not why the process ends.
    pub async fn give_back(&self) -> Result<(), LedgerError> {
        self.shared.ledger.give_back(self.shared.held.innocent()).await
    }

    /// Waits until what was claimed has ended; the token given at start must be cancelled.
    pub async fn stopped(mut self) {
        let _ = (&mut self.claimer).await;
        let threads = std::mem::take(&mut self.threads);
        let joined = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join())));
        let _ = joined.await;
        // Ends are recorded by tasks of their own.
        let _ = tokio::time::timeout(Duration::from_secs(5), self.shared.held.nothing()).await;
        if let Err(error) = self.give_back().await {
            error!("claims of slices that did not end cannot be given back: {error}");
        }
    }
}

impl Shared {
    /// Slices go back to the queue, to be claimed again after a while.
    fn put_back(self: &Arc<Self>, back: Vec<SliceId>, recorded: bool, wait: Duration) {
        self.held.put_back(&back, recorded);
        let shared = self.clone();
        self.runtime.spawn(async move {
            tokio::time::sleep(wait).await;
            shared.held.waited(&back);
            shared.ledger.queued().notify_waiters();
        });
    }

    /// Ends scored slices, on the runtime: the lane goes on meanwhile.
    fn complete(self: &Arc<Self>, batch: Vec<Ready>, probabilities: Vec<f64>) {
        let (shared, card) = (self.clone(), &self.info.card);
        let scored_at = now();
        let score = |(slice, probability): (Ready, f64)| Score {
            slice: slice.claim.slice,
            probability,
            positive: probability >= card.slice_threshold,
            threshold: card.slice_threshold,
            model: card.name.clone(),
            model_sha256: card.sha256.clone(),
            provider: self.info.provider.into(),
            claimed_at: slice.claim.claimed_at,
            decoded_at: slice.decoded_at,
            scored_at: scored_at.clone(),
        };
        let scores: Vec<Score> = batch.into_iter().zip(probabilities).map(score).collect();
        self.runtime.spawn(async move {
            let slices: Vec<SliceId> = scores.iter().map(|score| score.slice).collect();
            match shared.ledger.complete(scores).await {
                Ok(()) => {
                    metrics::counter!("triaged_slices_total", "state" => "scored").increment(slices.len() as u64);
                    slices.into_iter().for_each(|slice| shared.held.release(slice));
                }
                // Still queued, and claimed again.
                Err(error) => {
                    error!("scores could not be recorded: {error}");
                    shared.put_back(slices, false, POLL);
                }
            }
        });
    }

    /// Ends a slice that cannot be scored, on the runtime: decoders go on meanwhile.
    fn give_up(self: &Arc<Self>, claim: Claim, failure: Failure) {
        let shared = self.clone();
        self.runtime.spawn(async move {
            let ended = match &failure {
                Failure::Ineligible(reason) => shared.ledger.decline(claim.slice, reason.clone()).await.map(|()| false),
                Failure::Lasting(reason) => shared.ledger.fail(claim.slice, claim.attempts, 0, reason.clone()).await,
                Failure::Passing(reason) => {
                    shared.ledger.fail(claim.slice, claim.attempts, shared.max_attempts, reason.clone()).await
                }
            };
            let (state, reason) = match failure {
                Failure::Ineligible(reason) => ("ineligible", reason),
                Failure::Lasting(reason) | Failure::Passing(reason) => ("failed", reason),
            };
            match ended {
                Ok(false) => {
                    metrics::counter!("triaged_slices_total", "state" => state).increment(1);
                    let (sop_instance, frame) = (&claim.sop_uid, claim.frame);
                    match state {
                        "failed" => warn!(%sop_instance, frame, state, "{reason}"),
                        _ => info!(%sop_instance, frame, state, "{reason}"),
                    }
                    shared.held.release(claim.slice);
                }
                Ok(true) => {
                    warn!(
                        sop_instance = claim.sop_uid,
                        frame = claim.frame,
                        attempt = claim.attempts + 1,
                        "will be tried again: {reason}"
                    );
                    let wait = Duration::from_secs(1 << claim.attempts.min(6));
                    shared.put_back(vec![claim.slice], true, wait);
                }
                Err(error) => {
                    error!(sop_instance = claim.sop_uid, "the end of a slice could not be recorded: {error}");
                    shared.put_back(vec![claim.slice], false, POLL);
                }
            }
        });
    }
}

async fn claim_all(shared: Arc<Shared>, to_decode: SyncSender<Claim>, stop: CancellationToken) {
    loop {
        // Made before the look at the queue, so that no ring between look and wait is lost.
        let rung = shared.ledger.queued().notified();
        let most = tokio::select! {
            room = shared.held.take_room(GATHER) => room,
            () = stop.cancelled() => return,
        };
        let reader = shared.clone();
        let claimed = tokio::task::spawn_blocking(move || {
            let (taken, none_held) = reader.held.taken();
            let mut claims = reader.ledger.claim(&taken, most)?;
            reader.held.forgive(&mut claims);
            // A suspect waits until nothing else is held, and what comes after it waits for it.
            if let Some(suspect) = claims.iter().position(|claim| claim.deaths >= SUSPECT) {
                claims.truncate(if suspect == 0 && none_held { 1 } else { suspect });
            }
            Ok::<_, LedgerError>(claims)
        });
        let claims = match claimed.await {
            Ok(Ok(claims)) => claims,
            Ok(Err(error)) => {
                error!("the queue cannot be read: {error}");
                Vec::new()
            }
            Err(_) => return,
        };
        shared.held.give_room(most - claims.len());
        if claims.is_empty() {
            forget(&shared.large);
            tokio::select! {
                () = rung => {}
                () = tokio::time::sleep(POLL) => {}
                () = stop.cancelled() => return,
            }
            continue;
        }
        let alone = claims[0].deaths >= SUSPECT;
        let claimed: Vec<SliceId> = claims.iter().map(|claim| claim.slice).collect();
        if let Err(error) = shared.ledger.count_claims(shared.held.to_count(&claimed)).await {
            error!("claims cannot be counted: {error}");
            shared.held.give_room(claimed.len());
            tokio::time::sleep(POLL).await;
            continue;
        }
        shared.held.hold(&claimed);
        shared.decoding.fetch_add(claims.len(), Ordering::SeqCst);
        for claim in claims {
            if claim.deaths >= DEADLY {
                shared.decoding.fetch_sub(1, Ordering::SeqCst);
                let why = format!("the node ended {} times while it worked on this slice", claim.deaths);
                shared.give_up(claim, Failure::Lasting(why));
                continue;
            }
            // The channel has room for every permit, so this does not block.
            if to_decode.send(claim).is_err() {
                return;
            }
        }
        while alone && shared.held.count() > 0 && !stop.is_cancelled() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Measures the queue until `stop`: it goes on filling whatever the claimer waits for.
async fn measure_all(ledger: Ledger, stop: CancellationToken) {
    let mut tick = tokio::time::interval(POLL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => return,
        }
        let reader = ledger.clone();
        match tokio::task::spawn_blocking(move || reader.queue_depth()).await {
            Ok(Ok(depth)) => metrics::gauge!("triaged_queue_depth").set(depth as f64),
            Ok(Err(error)) => error!("the queue cannot be measured: {error}"),
            Err(_) => return,
        }
    }
}

fn decode_all(shared: &Arc<Shared>, claims: &Mutex<Receiver<Claim>>, to_score: &SyncSender<Ready>) {
    stand_back();
    loop {
        let claim = match claims.lock().expect("nobody panics while holding the receiver").recv() {
            Ok(claim) => claim,
            Err(_) => return,
        };
        let began = Instant::now();
        // A bug in decoding must cost its slice, not the thread.
        let decode = || decode(&shared.archive, &claim, &shared.info.card.transform, &shared.large);
        let decoded = catch_unwind(AssertUnwindSafe(decode))
            .unwrap_or_else(|_| Err(Failure::Lasting("decoding panicked; this is a bug".into())));
        metrics::histogram!("triaged_decode_seconds").record(began.elapsed().as_secs_f64());
        match decoded {
            Ok(tensor) => {
                // Counted down by a scoring thread, which thereby knows of it until it has it.
                if to_score.send(Ready { claim, tensor, decoded_at: now() }).is_err() {
                    return;
                }
            }
            Err(failure) => {
                shared.decoding.fetch_sub(1, Ordering::SeqCst);
                shared.give_up(claim, failure);
            }
        }
    }
}

fn score_all(shared: &Arc<Shared>, mut lane: Lane, ready: &Mutex<Receiver<Ready>>, wait: Duration) {
    stand_back();
    while let Some(batch) = next_batch(shared, ready, lane.batch_size(), wait) {
        match run(shared, &mut lane, &batch) {
            Ok(probabilities) => shared.complete(batch, probabilities),
            Err(NotScored::Model(error)) => return no_longer_runs(&error),
            Err(NotScored::Slices(error)) if batch.len() == 1 => {
                batch.into_iter().for_each(|slice| shared.give_up(slice.claim, Failure::Passing(error.clone())));
            }
            // One slice must not fail the others.
            Err(NotScored::Slices(error)) => {
                warn!(slices = batch.len(), "a batch failed, its slices are scored one by one: {error}");
                for slice in batch {
                    let alone = [slice];
                    match run(shared, &mut lane, &alone) {
                        Ok(probabilities) => shared.complete(alone.into(), probabilities),
                        Err(NotScored::Model(error)) => return no_longer_runs(&error),
                        Err(NotScored::Slices(error)) => {
                            alone.into_iter().for_each(|s| shared.give_up(s.claim, Failure::Passing(error.clone())));
                        }
                    }
                }
            }
        }
    }
}

/// A GPU that is lost, for one. The lane ends, and the node with it, to be restarted; what the lane held stays queued.
fn no_longer_runs(error: &str) {
    match gpu_loss::explained(error) {
        Some(what) => error!("the model no longer runs, the GPU is lost: {error}; {what}"),
        None => error!("the model no longer runs: {error}"),
    }
}

/// Why slices have no scores.
enum NotScored {
    /// The model still runs, so it is one of them.
    Slices(String),
    /// The model no longer runs.
    Model(String),
}

/// The next slices to score, at most `most`; none when there will be no more. The other lanes wait meanwhile: were a batch
/// shared out, each would run half empty.
fn next_batch(shared: &Shared, ready: &Mutex<Receiver<Ready>>, most: usize, wait: Duration) -> Option<Vec<Ready>> {
    let ready = ready.lock().expect("nobody panics while holding the receiver");
    let first = ready.recv().ok()?;
    shared.decoding.fetch_sub(1, Ordering::SeqCst);
    let deadline = Instant::now() + wait;
    let mut batch = vec![first];
    while batch.len() < most {
        let next = if shared.decoding.load(Ordering::SeqCst) == 0 {
            ready.try_recv().map_err(|_| RecvTimeoutError::Timeout)
        } else {
            ready.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        };
        let Ok(next) = next else { break };
        shared.decoding.fetch_sub(1, Ordering::SeqCst);
        batch.push(next);
    }
    Some(batch)
}

/// Leaves the slices noted as in the model where the model no longer runs.
fn run(shared: &Shared, lane: &mut Lane, batch: &[Ready]) -> Result<Vec<f64>, NotScored> {
    let slices = || batch.iter().map(|slice| slice.claim.slice);
    shared.held.enter_model(slices());
    let began = Instant::now();
    let tensors: Vec<&Tensor> = batch.iter().map(|slice| &slice.tensor).collect();
    // A bug must cost its slice, not the thread.
    let scored = catch_unwind(AssertUnwindSafe(|| lane.score(&tensors)))
        .unwrap_or_else(|_| Err(EngineError::Run("it panicked; this is a bug".into())));
    metrics::histogram!("triaged_inference_seconds").record(began.elapsed().as_secs_f64());
    metrics::histogram!("triaged_batch_size").record(batch.len() as f64);
    let scored = scored.map_err(|error| match lane.still_runs() {
        true => NotScored::Slices(error.to_string()),
        false => NotScored::Model(error.to_string()),
    });
    if !matches!(scored, Err(NotScored::Model(_))) {
        shared.held.leave_model(slices());
    }
    scored
}
