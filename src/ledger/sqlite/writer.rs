//! The one writer thread, and group commit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::thread::JoinHandle;

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use tokio::sync::oneshot;

use super::witness::Witness;
use crate::ledger::{LedgerError, Result};

/// Writes that one commit may carry; bounds how long the first of them waits.
const MOST_IN_A_COMMIT: usize = 256;

/// Writes that may wait; past it the senders wait, and so, through TCP, do the scanners.
const MOST_WAITING: usize = 1024;

/// Runs within the transaction, or is told why there is none; returns what sends the answer once the commit's outcome is known.
type Job = Box<dyn FnOnce(Result<&Connection, Refusal>) -> Answer + Send>;
type Answer = Box<dyn FnOnce(Result<(), Refusal>) + Send>;

/// Why nothing of a transaction is kept.
#[derive(Clone)]
enum Refusal {
    Begin(String),
    Commit(String),
    Replaced { path: PathBuf, why: String },
}

impl From<Refusal> for LedgerError {
    fn from(refusal: Refusal) -> LedgerError {
        match refusal {
            Refusal::Begin(why) => LedgerError::Begin(why),
            Refusal::Commit(why) => LedgerError::Commit(why),
            Refusal::Replaced { path, why } => LedgerError::Replaced { path, why },
        }
    }
}

impl Refusal {
    fn of(error: LedgerError) -> Refusal {
        match error {
            LedgerError::Replaced { path, why } => Refusal::Replaced { path, why },
            error => Refusal::Begin(error.to_string()),
        }
    }
}

/// The handle of the writer thread. Dropping it lets the thread finish what waits, then joins it.
pub struct Writer {
    jobs: Option<mpsc::SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(connection: Connection, witness: Arc<Mutex<Witness>>) -> Writer {
        let (jobs, waiting) = mpsc::sync_channel(MOST_WAITING);
        let thread = std::thread::Builder::new()
            .name("ledger".into())
            .spawn(move || run(connection, &witness, &waiting))
            .expect("the system can start a thread while the node starts");
        Writer { jobs: Some(jobs), thread: Some(thread) }
    }

    pub(super) async fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        let mut job = job(write, to_channel(answer));
        // The queue is nearly never full; where it is, wait for it off the async threads.
        match self.jobs().try_send(job) {
            Ok(()) => {}
            Err(mpsc::TrySendError::Disconnected(_)) => return Err(LedgerError::Closed),
            Err(mpsc::TrySendError::Full(back)) => {
                job = back;
                let jobs = self.jobs().clone();
                tokio::task::spawn_blocking(move || jobs.send(job))
                    .await
                    .map_err(|_| LedgerError::Closed)?
                    .map_err(|_| LedgerError::Closed)?;
            }
        }
        answered.await.map_err(|_| LedgerError::Closed)?
    }

    pub(super) fn write_blocking<T: Send + 'static>(
        &self,
        write: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        self.post(write, to_channel(answer))?;
        answered.blocking_recv().map_err(|_| LedgerError::Closed)?
    }

    /// Hands a write over from a blocking thread, which may go on. The writer thread calls `then` with the outcome once it is
    /// known, and drops it uncalled where the ledger is closed.
    pub(super) fn post<T: Send + 'static>(
        &self,
        write: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
        then: impl FnOnce(Result<T>) + Send + 'static,
    ) -> Result<()> {
        self.jobs().send(job(write, then)).map_err(|_| LedgerError::Closed)
    }

    fn jobs(&self) -> &mpsc::SyncSender<Job> {
        self.jobs.as_ref().expect("the sender is taken only by drop")
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn to_channel<T>(answer: oneshot::Sender<Result<T>>) -> impl FnOnce(Result<T>) {
    // Whoever asked may have gone; the write stands all the same.
    move |result| drop(answer.send(result))
}

fn job<T: Send + 'static>(
    write: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    then: impl FnOnce(Result<T>) + Send + 'static,
) -> Job {
    Box::new(move |connection| {
        let connection = match connection {
            Ok(connection) => connection,
            Err(why) => return Box::new(move |_| then(Err(why.into()))),
        };
        // A bug in one write must not end the thread that all writes need.
        let result = catch_unwind(AssertUnwindSafe(|| in_savepoint(connection, write)))
            .unwrap_or_else(|_| Err(LedgerError::Commit("the write panicked; this is a bug".into())));
        Box::new(move |committed| {
            then(match committed {
                Ok(()) => result,
                Err(why) => Err(why.into()),
            });
        })
    })
}

fn in_savepoint<T>(connection: &Connection, write: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
    /// Rolls the savepoint back unless it was released, also when the write panics.
    struct Savepoint<'c>(&'c Connection, bool);
    impl Drop for Savepoint<'_> {
        fn drop(&mut self) {
            if !self.1 && self.0.execute_batch("ROLLBACK TO job; RELEASE job").is_err() {
                tracing::error!("a savepoint could not be rolled back; the whole commit will be refused");
            }
        }
    }
    connection.prepare_cached("SAVEPOINT job")?.execute([])?;
    let mut savepoint = Savepoint(connection, false);
    let value = write(connection)?;
    connection.prepare_cached("RELEASE job")?.execute([])?;
    savepoint.1 = true;
    Ok(value)
}

fn run(connection: Connection, witness: &Mutex<Witness>, waiting: &mpsc::Receiver<Job>) {
    let witness = || witness.lock().expect("nobody panics while holding it");
    while let Ok(first) = waiting.recv() {
        // IMMEDIATE takes the write lock at once, so no write fails halfway on another process's commit.
        let begun = connection.execute_batch("BEGIN IMMEDIATE").map_err(|error| Refusal::Begin(error.to_string()));
        let mut jobs = vec![first];
        while jobs.len() < MOST_IN_A_COMMIT
            && let Ok(job) = waiting.try_recv()
        {
            jobs.push(job);
        }
        let begun = begun.and_then(|()| {
            witness().check(&connection).map_err(|error| {
                let _ = connection.execute_batch("ROLLBACK");
                Refusal::of(error)
            })
        });
        let generation = match begun {
            Ok(generation) => generation,
            Err(refusal) => {
                let error = LedgerError::from(refusal.clone());
                tracing::error!(%error, "the database could not begin a transaction; nothing was written or acknowledged");
                // Without a transaction, each write would commit by itself.
                jobs.into_iter().for_each(|job| job(Err(refusal.clone()))(Ok(())));
                continue;
            }
        };
        metrics::histogram!("triaged_ledger_writes_per_commit").record(jobs.len() as f64);
        let started = std::time::Instant::now();
        let answers: Vec<Answer> = jobs.into_iter().map(|job| job(Ok(&connection))).collect();
        let outcome = commit(&connection, witness, generation);
        metrics::histogram!("triaged_ledger_commit_seconds").record(started.elapsed().as_secs_f64());
        if let Err(refusal) = &outcome {
            let error = LedgerError::from(refusal.clone());
            tracing::error!(%error, "the database could not commit; nothing of this commit was acknowledged");
        }
        for answer in answers {
            answer(outcome.clone());
        }
    }
    if witness().is_replaced() {
        // Its log must not be copied into what is there now.
        let _ = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        return;
    }
    // Leave a small file behind for backups and for administrators who copy it.
    let _ = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
}

/// Looks at the files before, so that no log is copied into another database, and after: what went into a file that somebody took away
/// meanwhile is not there.
///
/// The witness is not held while the disk works: others ask it for the lineage.
fn commit<'a>(
    connection: &Connection,
    witness: impl Fn() -> MutexGuard<'a, Witness>,
    generation: u64,
) -> Result<(), Refusal> {
    let checked = witness().check_files();
    let committed = match checked {
        Ok(()) => connection.execute_batch("COMMIT").map_err(|error| Refusal::Commit(error.to_string())),
        Err(error) => Err(Refusal::of(error)),
    };
    match committed {
        Ok(()) => {
            let mut witness = witness();
            witness.counted(generation);
            witness.check_files().map_err(Refusal::of)
        }
        Err(refusal) => {
            let _ = connection.execute_batch("ROLLBACK");
            Err(refusal)
        }
    }
}
