//! From the queue to scores: claims slices, decodes them on threads of their own, gathers them into batches, scores the
//! batches, each lane of the engine on a thread of its own, and ends every slice it claimed.
//!
//! ```text
//! ledger ─claim→ decode threads ─tensor→ scoring threads ─scores→ ledger
//!                   │ each with a process that decodes (`crate::decoding`)
//! ```
//! Every hand-over is bounded, and a slice takes a permit from its lease to its end, so memory does not depend on the queue.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::engine::{Engine, EngineInfo};
use super::error::EngineError;
use super::gpu_loss;
use super::in_flight::{InFlight, Step};
use super::lane::{Answer, Lane};
use super::localization::locate;
use crate::config;
use crate::decoding::{DecodeLimits, Decoder, DecoderError, Decoders, Failure, GivenUp, Input, Sandbox, Slice};
use crate::ledger::{Claim, Ended, Lease, LeaseRequest, LedgerError, Queue, Result, Score, WorkerId, now};
use crate::objects::Objects;
use crate::priority::stand_back;
use crate::trouble::Trouble;
use triaged_imaging::{Tensor, Transform};

/// How long a lease lasts. What a node leased that is no more waits so long for another node; its own next run takes it up at
/// once. A slice takes seconds, the longest write of another process 30.
const LEASE: Duration = Duration::from_secs(120);

/// How often leases are extended: twice before they expire.
const EXTEND: Duration = Duration::from_secs(40);

/// How often the queue is looked at though nobody called: another process may have filled it (`triaged rescore`).
const POLL: Duration = Duration::from_secs(1);

/// How long room for one slice may wait for that of others. The other half of the slices are at work meanwhile.
const GATHER: Duration = Duration::from_millis(20);

/// A slice that the process ended with this often is not worked on any more.
const DEADLY: u32 = 4;

/// Slices of an object that was given up are not decoded for so long: longer than a slice is in flight. Each would cost as much as the one
/// that the object was given up for. Whoever has the object scored again later has it tried again.
const GIVEN_UP: Duration = Duration::from_secs(60);

/// The running stage.
pub struct Pipeline {
    claimer: tokio::task::JoinHandle<()>,
    extender: tokio::task::JoinHandle<()>,
    threads: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
}

/// A slice ready for the model.
struct Ready {
    claim: Claim,
    input: Input,
    decoded_at: String,
}

/// The state that all parts of the stage share.
struct Shared {
    queue: Arc<dyn Queue>,
    worker: WorkerId,
    objects: Arc<dyn Objects>,
    info: EngineInfo,
    max_attempts: u32,
    runtime: Handle,
    stop: CancellationToken,
    in_flight: InFlight,
    decoders: Arc<Decoders>,
    given_up: GivenUp,
    scoring: Trouble,
    /// Claimed and not yet at a scoring thread: while there are none, a batch need not wait for them.
    decoding: AtomicUsize,
}

impl Pipeline {
    /// Starts the stage as a worker on the queue. Call [`Queue::recover`] before. `program` decodes: this program.
    ///
    /// # Errors
    /// [`DecoderError`] where the program cannot be started as a decoder.
    pub fn start(
        program: PathBuf,
        engine: Engine,
        queue: Arc<dyn Queue>,
        worker: WorkerId,
        objects: Arc<dyn Objects>,
        settings: &config::Inference,
        stop: CancellationToken,
    ) -> std::result::Result<Pipeline, DecoderError> {
        let info = engine.info();
        let decoding = Arc::new(Decoders::new(program, DecodeLimits::new(settings)));
        if let Sandbox::Unfiltered(why) = decoding.trial()? {
            warn!(
                "the system does not filter the system calls of decoder processes, which are bounded all the same: {why}"
            );
        }
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
            queue,
            worker,
            objects,
            info,
            max_attempts: settings.max_attempts,
            runtime: Handle::current(),
            stop: stop.clone(),
            in_flight: InFlight::new(room),
            decoders: decoding,
            given_up: GivenUp::new(GIVEN_UP),
            scoring: Trouble::default(),
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
        tokio::spawn(measure_all(shared.queue.clone(), stop));
        let extender = tokio::spawn(extend_all(shared.clone()));
        let claimer = tokio::spawn(claim_all(shared.clone(), to_decode));
        Ok(Pipeline { claimer, extender, threads, shared })
    }

    /// Whether every part of the stage still runs, and none hangs.
    pub fn is_alive(&self) -> bool {
        !self.claimer.is_finished()
            && !self.extender.is_finished()
            && self.threads.iter().all(|thread| !thread.is_finished())
            && !self.shared.in_flight.has_hanging_slice()
    }

    /// Slices that the model failed on.
    pub fn scoring(&self) -> Trouble {
        self.shared.scoring.clone()
    }

    /// Gives back the slices that are not why the process ends.
    pub async fn give_back(&self) -> Result<()> {
        self.shared.queue.give_back(self.shared.in_flight.not_at_fault()).await
    }

    /// Waits until what was leased has ended; the token given at start must be cancelled.
    pub async fn stopped(mut self) {
        let _ = (&mut self.claimer).await;
        let threads = std::mem::take(&mut self.threads);
        let joined = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join())));
        let _ = joined.await;
        // Ends are recorded by tasks of their own.
        let _ = tokio::time::timeout(Duration::from_secs(5), self.shared.in_flight.drained()).await;
        self.extender.abort();
        if let Err(error) = self.give_back().await {
            error!("slices that did not end cannot be given back: {error}");
        }
    }
}

impl Shared {
    /// Ends scored slices, on the runtime: the lane goes on meanwhile.
    fn complete(self: &Arc<Self>, batch: Vec<Ready>, answers: Vec<Answer>) {
        let (shared, card) = (self.clone(), &self.info.card);
        self.in_flight.enter(batch.iter().map(|slice| slice.claim.lease.slice), Step::Recording);
        let scored_at = now();
        let score = |(slice, answer): (Ready, Answer)| Score {
            lease: slice.claim.lease,
            probability: answer.probability,
            positive: answer.probability >= card.slice_threshold,
            shows: slice.input.shows,
            location: locate(card, &answer, &slice.input.placement),
            threshold: card.slice_threshold,
            model: card.name.clone(),
            model_sha256: card.sha256.clone(),
            provider: self.info.provider.into(),
            claimed_at: slice.claim.claimed_at,
            decoded_at: slice.decoded_at,
            scored_at: scored_at.clone(),
        };
        let scores: Vec<Score> = batch.into_iter().zip(answers).map(score).collect();
        self.runtime.spawn(async move {
            if let Err(error) = shared.record_scores(scores.clone()).await {
                error!("scores could not be recorded: {error}");
                // One slice must not keep the others from their end.
                for score in scores {
                    shared.runtime.spawn(shared.clone().insist_on_score(score));
                }
            }
        });
    }

    async fn record_scores(&self, mut scores: Vec<Score>) -> Result<()> {
        for score in &mut scores {
            score.lease = self.in_flight.lease(score.lease.slice).unwrap_or(score.lease);
        }
        let leases: Vec<Lease> = scores.iter().map(|score| score.lease).collect();
        let lost = self.queue.complete(scores).await?;
        for &lease in &leases {
            self.note_end(lease, if lost.contains(&lease) { Ended::LeaseLost } else { Ended::Recorded }, "scored");
        }
        Ok(())
    }

    /// Tries until the ledger takes a score: to score the slice again would cost more, and end the same.
    async fn insist_on_score(self: Arc<Self>, score: Score) {
        while self.waited_for_ledger().await {
            match self.record_scores(vec![score.clone()]).await {
                Ok(()) => return,
                Err(error) => error!("scores could not be recorded: {error}"),
            }
        }
    }

    /// Waits before the ledger is tried again; false where the stage stops instead.
    async fn waited_for_ledger(&self) -> bool {
        tokio::select! {
            () = tokio::time::sleep(POLL) => true,
            () = self.stop.cancelled() => false,
        }
    }

    /// A slice is no longer in flight.
    fn note_end(&self, lease: Lease, ended: Ended, state: &'static str) {
        match ended {
            Ended::Recorded => metrics::counter!("triaged_slices_total", "state" => state).increment(1),
            Ended::LeaseLost => {
                warn!(slice = lease.slice, state, "the lease of a slice was lost, so its end was not recorded");
                metrics::counter!("triaged_leases_lost_total").increment(1);
            }
        }
        self.in_flight.end(lease.slice);
    }

    /// Ends a slice that cannot be scored, on the runtime: decoders go on meanwhile.
    fn give_up(self: &Arc<Self>, claim: Claim, failure: Failure) {
        let shared = self.clone();
        let slice = claim.lease.slice;
        self.in_flight.enter([slice].into_iter(), Step::Recording);
        self.runtime.spawn(async move {
            loop {
                let lease = shared.in_flight.lease(slice).unwrap_or(claim.lease);
                match shared.record_failure(&claim, lease, &failure).await {
                    Ok(()) => return,
                    Err(error) => {
                        error!(sop_instance = claim.sop_uid, "the end of a slice could not be recorded: {error}");
                    }
                }
                if !shared.waited_for_ledger().await {
                    return;
                }
            }
        });
    }

    async fn record_failure(&self, claim: &Claim, lease: Lease, failure: &Failure) -> Result<()> {
        let (sop_instance, frame, attempt) = (&claim.sop_uid, claim.frame, claim.attempts + 1);
        let (ended, state, reason) = match failure {
            Failure::Ineligible(reason) => {
                (self.queue.decline(lease, reason.clone(), None).await?, "ineligible", reason)
            }
            Failure::NotAHead(reason, shows) => {
                (self.queue.decline(lease, reason.clone(), Some(*shows)).await?, "ineligible", reason)
            }
            Failure::Passing(reason) if attempt < self.max_attempts => {
                let after = Duration::from_secs(1 << claim.attempts.min(6));
                match self.queue.retry(lease, reason.clone(), after).await? {
                    Ended::Recorded => {
                        warn!(%sop_instance, frame, attempt, "will be tried again: {reason}");
                        self.in_flight.end(lease.slice);
                        return Ok(());
                    }
                    lost => (lost, "failed", reason),
                }
            }
            Failure::Deadly(reason) => {
                let (ended, others) = self.queue.give_up_object(lease, reason.clone()).await?;
                if others > 0 {
                    warn!(%sop_instance, others, "the other slices of the object are given up, too");
                    metrics::counter!("triaged_slices_total", "state" => "failed").increment(others);
                }
                (ended, "failed", reason)
            }
            Failure::Lasting(reason) | Failure::Passing(reason) => {
                (self.queue.fail(lease, reason.clone()).await?, "failed", reason)
            }
        };
        match (ended, state) {
            (Ended::Recorded, "failed") => warn!(%sop_instance, frame, state, "{reason}"),
            (Ended::Recorded, _) => info!(%sop_instance, frame, state, "{reason}"),
            // Told below.
            (Ended::LeaseLost, _) => {}
        }
        self.note_end(lease, ended, state);
        Ok(())
    }
}

async fn claim_all(shared: Arc<Shared>, to_decode: SyncSender<Claim>) {
    loop {
        // Made before the look at the queue, so that no call between look and wait is missed.
        let called = shared.queue.queued().notified();
        let most = tokio::select! {
            permits = shared.in_flight.take_permits(GATHER) => permits,
            () = shared.stop.cancelled() => return,
        };
        let request = LeaseRequest {
            worker: shared.worker.clone(),
            most,
            duration: LEASE,
            is_idle: shared.in_flight.count() == 0,
        };
        let claims = match shared.queue.lease(request).await {
            Ok(claims) => shared.in_flight.begin(claims),
            Err(error) => {
                error!("slices cannot be leased: {error}");
                Vec::new()
            }
        };
        shared.in_flight.return_permits(most - claims.len());
        if claims.is_empty() {
            shared.decoders.forget();
            tokio::select! {
                () = called => {}
                () = tokio::time::sleep(POLL) => {}
                () = shared.stop.cancelled() => return,
            }
            continue;
        }
        let alone = claims[0].is_suspect();
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
        while alone && shared.in_flight.count() > 0 && !shared.stop.is_cancelled() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Extends the leases of all that is in flight, also while the stage stops.
async fn extend_all(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(EXTEND).await;
        let leases = shared.in_flight.leases();
        if leases.is_empty() {
            continue;
        }
        match shared.queue.extend(leases, LEASE).await {
            Ok(lost) if lost.is_empty() => {}
            // Some may have ended meanwhile. The end of the others will not be recorded.
            Ok(lost) => warn!(slices = lost.len(), "leases were lost, or their slices have just ended"),
            Err(LedgerError::Closed) => return,
            Err(error) => error!("leases cannot be extended: {error}"),
        }
    }
}

/// Measures the queue until `stop`: it goes on filling whatever the claimer waits for.
async fn measure_all(queue: Arc<dyn Queue>, stop: CancellationToken) {
    let mut tick = tokio::time::interval(POLL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => return,
        }
        let reader = queue.clone();
        match tokio::task::spawn_blocking(move || reader.queue_depth()).await {
            Ok(Ok(depth)) => metrics::gauge!("triaged_queue_depth").set(depth as f64),
            Ok(Err(error)) => error!("the queue cannot be measured: {error}"),
            Err(_) => return,
        }
    }
}

/// A slice as the model's input, from its object's file.
pub(super) fn input(
    decoder: &mut Decoder,
    objects: &dyn Objects,
    claim: &Claim,
    transform: &Transform,
) -> std::result::Result<Input, Failure> {
    // A disk or a network that fails may pass.
    let file = objects
        .get(&claim.path)
        .map_err(|error| Failure::Passing(format!("the object {} cannot be read: {error}", claim.path)))?;
    let slice = Slice { object: &claim.path, transfer_syntax: &claim.transfer_syntax, frame: claim.frame - 1 };
    decoder.input(&file, slice, transform, claim.head_check.as_deref())
}

fn decode_all(shared: &Arc<Shared>, claims: &Mutex<Receiver<Claim>>, to_score: &SyncSender<Ready>) {
    stand_back();
    let mut decoder = Decoder::new(shared.decoders.clone());
    decoder.start();
    loop {
        let claim = match claims.lock().expect("nobody panics while holding the receiver").recv() {
            Ok(claim) => claim,
            Err(_) => return,
        };
        let began = Instant::now();
        // A bug in decoding must cost its slice, not the thread.
        let decode = || match shared.given_up.why(&claim.path) {
            Some(why) => Err(Failure::Deadly(why)),
            None => input(&mut decoder, &*shared.objects, &claim, &shared.info.card.transform),
        };
        let decoded = catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| {
            Err(Failure::Lasting("handing a slice over to be decoded panicked; this is a bug".into()))
        });
        metrics::histogram!("triaged_decode_seconds").record(began.elapsed().as_secs_f64());
        match decoded {
            Ok(input) => {
                // Counted down by a scoring thread, which thereby knows of it until it has it.
                if to_score.send(Ready { claim, input, decoded_at: now() }).is_err() {
                    return;
                }
            }
            Err(failure) => {
                shared.decoding.fetch_sub(1, Ordering::SeqCst);
                if let Failure::Deadly(why) = &failure {
                    shared.given_up.note(&claim.path, why);
                }
                shared.give_up(claim, failure);
            }
        }
    }
}

fn score_all(shared: &Arc<Shared>, mut lane: Lane, ready: &Mutex<Receiver<Ready>>, wait: Duration) {
    stand_back();
    while let Some(batch) = next_batch(shared, ready, lane.batch_size(), wait) {
        match run(shared, &mut lane, &batch) {
            Ok(answers) => shared.complete(batch, answers),
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
                        Ok(answers) => shared.complete(alone.into(), answers),
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
fn run(shared: &Shared, lane: &mut Lane, batch: &[Ready]) -> Result<Vec<Answer>, NotScored> {
    let slices = || batch.iter().map(|slice| slice.claim.lease.slice);
    shared.in_flight.enter(slices(), Step::InModel);
    let began = Instant::now();
    let tensors: Vec<&Tensor> = batch.iter().map(|slice| &slice.input.tensor).collect();
    // A bug must cost its slice, not the thread.
    let scored = catch_unwind(AssertUnwindSafe(|| lane.answer(&tensors)))
        .unwrap_or_else(|_| Err(EngineError::Run("it panicked; this is a bug".into())));
    metrics::histogram!("triaged_inference_seconds").record(began.elapsed().as_secs_f64());
    metrics::histogram!("triaged_batch_size").record(batch.len() as f64);
    match &scored {
        Ok(_) => shared.scoring.succeeded(),
        Err(error) if batch.len() == 1 => shared.scoring.failed(error.to_string()),
        // The slices are scored again, one by one.
        Err(_) => {}
    }
    let scored = scored.map_err(|error| match lane.still_runs() {
        true => NotScored::Slices(error.to_string()),
        false => NotScored::Model(error.to_string()),
    });
    if !matches!(scored, Err(NotScored::Model(_))) {
        shared.in_flight.enter(slices(), Step::Decoding);
    }
    scored
}
