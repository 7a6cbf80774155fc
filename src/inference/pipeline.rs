//! From the queue to scores: claims slices, decodes them on threads of their own, gathers them into batches, scores the
//! batches, each lane of the engine on a thread of its own, and ends every slice it claimed.
//!
//! ```text
//! ledger ─claim→ decode threads ─tensor→ scoring threads ─scores→ ledger
//! ```
//! Every hand-over is bounded, and a slice is held from its claim to its end, so memory does not depend on the queue.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::engine::{Engine, EngineInfo};
use super::lane::Lane;
use super::priority::stand_back;
use crate::archive::Archive;
use crate::config;
use crate::imaging::{self, DicomObject, ImagingError, Tensor, Transform};
use crate::ledger::{Claim, Ledger, LedgerError, Score, SliceId, now};

/// How often the queue is looked at though nobody rang: another process may have filled it (`triaged rescore`).
const POLL: Duration = Duration::from_secs(1);

/// How long room for one slice may wait for that of others. The other half of the slices are at work meanwhile.
const GATHER: Duration = Duration::from_millis(20);

/// A slice that is held so long hangs, in a decoder or on the GPU. The longest wait before another attempt is 64 s.
const HANGS: Duration = Duration::from_secs(300);

/// A slice that the process ended with this often is looked at alone, so that no other is blamed for it …
const SUSPECT: u32 = 2;

/// … and after this often not any more.
const DEADLY: u32 = 4;

/// A file of this size is decoded by one thread at a time.
const LARGE: u64 = 16 << 20;

/// The running stage.
pub struct Pipeline {
    claimer: tokio::task::JoinHandle<()>,
    threads: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
    room: u32,
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
    /// Claimed and not ended, with the moment of the claim.
    held: Mutex<HashMap<SliceId, Instant>>,
    /// A permit a slice that may be held; acquired by the claimer, given back when the slice ends.
    room: Semaphore,
    permits: usize,
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
            0 => std::thread::available_parallelism().map_or(1, |n| n.get()).min(8),
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
            held: Mutex::default(),
            room: Semaphore::new(room),
            permits: room,
            decoding: AtomicUsize::new(0),
        });
        let (to_decode, claims) = sync_channel(room);
        let (to_score, ready) = sync_channel(batch_size + decoders);
        let (claims, ready) = (Arc::new(Mutex::new(claims)), Arc::new(Mutex::new(ready)));
        let last = Arc::new(Mutex::new(None));
        let mut threads = Vec::new();
        let thread = |name: &str, run: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new()
                .name(name.into())
                .spawn(run)
                .expect("the system can start a thread while the node starts")
        };
        for _ in 0..decoders {
            let (shared, claims, to_score, last) = (shared.clone(), claims.clone(), to_score.clone(), last.clone());
            threads.push(thread("decode", Box::new(move || decode_all(&shared, &claims, &to_score, &last))));
        }
        drop(to_score);
        let wait = Duration::from_millis(settings.batch_wait_ms);
        for lane in engine.into_lanes() {
            let (shared, ready) = (shared.clone(), ready.clone());
            threads.push(thread("score", Box::new(move || score_all(&shared, lane, &ready, wait))));
        }
        drop(ready);
        let claimer = tokio::spawn(claim_all(shared.clone(), to_decode, stop));
        Pipeline { claimer, threads, shared, room: room as u32 }
    }

    /// Whether every part of the stage still runs, and none hangs.
    pub fn is_alive(&self) -> bool {
        let held = self.shared.held.lock().expect("nobody panics while holding the set");
        !self.claimer.is_finished()
            && self.threads.iter().all(|thread| !thread.is_finished())
            && held.values().all(|claimed| claimed.elapsed() < HANGS)
    }

    /// Waits until what was claimed has ended; the token given at start must be cancelled.
    pub async fn stopped(self) {
        let _ = self.claimer.await;
        let threads = self.threads;
        let joined = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join())));
        let _ = joined.await;
        // Scores are recorded by tasks; slices that wait for another attempt simply stay queued.
        let _ = tokio::time::timeout(Duration::from_secs(5), self.shared.room.acquire_many(self.room)).await;
    }
}

impl Shared {
    /// Takes all the room there is, for that many slices, each of which gives its permit back when it ends. Waits for half of
    /// it, but not long: each claim is a commit, and slices that wait for another attempt may take much of the room.
    async fn room(&self) -> usize {
        let never = "the semaphore is never closed";
        let half = self.room.acquire_many(self.permits.div_ceil(2) as u32);
        let room = match tokio::time::timeout(GATHER, half).await {
            Ok(room) => room.expect(never),
            Err(_) => self.room.acquire().await.expect(never),
        };
        let mut most = room.num_permits();
        room.forget();
        while let Ok(more) = self.room.try_acquire() {
            more.forget();
            most += 1;
        }
        most
    }

    /// The slice has ended, or goes back to the queue.
    fn release(&self, slice: SliceId) {
        self.held.lock().expect("nobody panics while holding the set").remove(&slice);
        self.room.add_permits(1);
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
                    info!(%sop_instance, frame, state, "{reason}");
                }
                Ok(true) => {
                    warn!(
                        sop_instance = claim.sop_uid,
                        frame = claim.frame,
                        attempt = claim.attempts + 1,
                        "will be tried again: {reason}"
                    );
                    tokio::time::sleep(Duration::from_secs(1 << claim.attempts.min(6))).await;
                }
                Err(error) => {
                    error!(sop_instance = claim.sop_uid, "the end of a slice could not be recorded: {error}");
                    tokio::time::sleep(POLL).await;
                }
            }
            shared.release(claim.slice);
            shared.ledger.queued().notify_waiters();
        });
    }
}

/// Why a slice has no score.
enum Failure {
    /// The object itself cannot be triaged.
    Ineligible(String),
    /// It will be the same the next time.
    Lasting(String),
    /// It may pass.
    Passing(String),
}

async fn claim_all(shared: Arc<Shared>, to_decode: SyncSender<Claim>, stop: CancellationToken) {
    let mut measured = Instant::now() - POLL;
    loop {
        // Made before the look at the queue, so that no ring between look and wait is lost.
        let rung = shared.ledger.queued().notified();
        let most = tokio::select! {
            room = shared.room() => room,
            () = stop.cancelled() => return,
        };
        let (reader, measure) = (shared.clone(), measured.elapsed() >= POLL);
        let claimed = tokio::task::spawn_blocking(move || {
            if measure {
                metrics::gauge!("triaged_queue_depth").set(reader.ledger.queue_depth()? as f64);
            }
            let held: HashSet<SliceId> =
                reader.held.lock().expect("nobody panics while holding the set").keys().copied().collect();
            let mut claims = reader.ledger.claim(&held, most)?;
            // A suspect waits until nothing else is held, and what comes after it waits for it.
            if let Some(suspect) = claims.iter().position(|claim| claim.deaths >= SUSPECT) {
                claims.truncate(if suspect == 0 && held.is_empty() { 1 } else { suspect });
            }
            Ok::<_, LedgerError>(claims)
        });
        if measure {
            measured = Instant::now();
        }
        let claims = match claimed.await {
            Ok(Ok(claims)) => claims,
            Ok(Err(error)) => {
                error!("the queue cannot be read: {error}");
                Vec::new()
            }
            Err(_) => return,
        };
        shared.room.add_permits(most - claims.len());
        if claims.is_empty() {
            tokio::select! {
                () = rung => {}
                () = tokio::time::sleep(POLL) => {}
                () = stop.cancelled() => return,
            }
            continue;
        }
        let alone = claims[0].deaths >= SUSPECT;
        let claimed: Vec<SliceId> = claims.iter().map(|claim| claim.slice).collect();
        if let Err(error) = shared.ledger.count_claims(claimed.clone()).await {
            error!("claims cannot be counted: {error}");
            shared.room.add_permits(claimed.len());
            tokio::time::sleep(POLL).await;
            continue;
        }
        let at = Instant::now();
        let held = claimed.into_iter().map(|slice| (slice, at));
        shared.held.lock().expect("nobody panics while holding the set").extend(held);
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
        while alone && shared.room.available_permits() < shared.permits && !stop.is_cancelled() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The large object last decoded from, for the frames that follow.
type LastObject = Mutex<Option<(String, Arc<DicomObject>)>>;

fn decode_all(shared: &Arc<Shared>, claims: &Mutex<Receiver<Claim>>, to_score: &SyncSender<Ready>, last: &LastObject) {
    stand_back();
    loop {
        let claim = match claims.lock().expect("nobody panics while holding the receiver").recv() {
            Ok(claim) => claim,
            Err(_) => return,
        };
        let began = Instant::now();
        // A bug in decoding must cost its slice, not the thread.
        let decode = || decode(&shared.archive, &claim, &shared.info.card.transform, last);
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

fn decode(archive: &Archive, claim: &Claim, transform: &Transform, last: &LastObject) -> Result<Tensor, Failure> {
    let object = object(&archive.file(&claim.path), &claim.path, last)?;
    imaging::model_input(&object, claim.frame - 1, transform).map_err(|error: ImagingError| {
        if error.is_contradiction() {
            Failure::Ineligible(error.to_string())
        } else {
            Failure::Lasting(error.to_string())
        }
    })
}

fn object(file: &Path, name: &str, last: &LastObject) -> Result<Arc<DicomObject>, Failure> {
    let read = || imaging::read_file(file).map(Arc::new).map_err(|error| Failure::Passing(error.to_string()));
    // A panic while it was locked left at worst an object that is read again.
    let mut last = last.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some((held, object)) = &*last
        && held == name
    {
        return Ok(object.clone());
    }
    if std::fs::metadata(file).is_ok_and(|file| file.len() < LARGE) {
        drop(last);
        return read();
    }
    // Its frames are claimed together: one thread reads it for all, and there are never two such objects.
    *last = None;
    let object = read()?;
    *last = Some((name.to_owned(), object.clone()));
    Ok(object)
}

fn score_all(shared: &Arc<Shared>, mut lane: Lane, ready: &Mutex<Receiver<Ready>>, wait: Duration) {
    stand_back();
    while let Some(batch) = next_batch(shared, ready, lane.batch_size(), wait) {
        match run(&mut lane, &batch) {
            Ok(probabilities) => complete(shared, batch, probabilities),
            Err(error) if !lane.still_runs() => {
                // A GPU that is lost: no slice is to blame. They stay queued, and the node is restarted.
                error!("the model no longer runs: {error}");
                return;
            }
            Err(error) if batch.len() == 1 => {
                batch.into_iter().for_each(|slice| shared.give_up(slice.claim, Failure::Passing(error.clone())));
            }
            // One slice must not fail the others.
            Err(error) => {
                warn!(slices = batch.len(), "a batch failed, its slices are scored one by one: {error}");
                for slice in batch {
                    let alone = [slice];
                    match run(&mut lane, &alone) {
                        Ok(probabilities) => complete(shared, alone.into(), probabilities),
                        Err(error) => {
                            alone.into_iter().for_each(|s| shared.give_up(s.claim, Failure::Passing(error.clone())));
                        }
                    }
                }
            }
        }
    }
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

fn run(lane: &mut Lane, batch: &[Ready]) -> Result<Vec<f64>, String> {
    let began = Instant::now();
    let tensors: Vec<&Tensor> = batch.iter().map(|slice| &slice.tensor).collect();
    let scored = lane.score(&tensors).map_err(|error| error.to_string());
    metrics::histogram!("triaged_inference_seconds").record(began.elapsed().as_secs_f64());
    metrics::histogram!("triaged_batch_size").record(batch.len() as f64);
    scored
}

fn complete(shared: &Arc<Shared>, batch: Vec<Ready>, probabilities: Vec<f64>) {
    let card = &shared.info.card;
    let scored_at = now();
    let scores: Vec<Score> = batch
        .into_iter()
        .zip(probabilities)
        .map(|(slice, probability)| Score {
            slice: slice.claim.slice,
            probability,
            positive: probability >= card.slice_threshold,
            threshold: card.slice_threshold,
            model: card.name.clone(),
            model_sha256: card.sha256.clone(),
            provider: shared.info.provider.into(),
            claimed_at: slice.claim.claimed_at,
            decoded_at: slice.decoded_at,
            scored_at: scored_at.clone(),
        })
        .collect();
    let slices: Vec<SliceId> = scores.iter().map(|score| score.slice).collect();
    let shared = shared.clone();
    let runtime = shared.runtime.clone();
    runtime.spawn(async move {
        match shared.ledger.complete(scores).await {
            Ok(()) => metrics::counter!("triaged_slices_total", "state" => "scored").increment(slices.len() as u64),
            // Still queued, and claimed again.
            Err(error) => {
                error!("scores could not be recorded: {error}");
                tokio::time::sleep(POLL).await;
            }
        }
        slices.into_iter().for_each(|slice| shared.release(slice));
    });
}
