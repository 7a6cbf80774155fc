//! The one writer thread, and group commit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::ledger::{LedgerError, Result};

/// Writes that one commit may carry; bounds how long the first of them waits.
const MOST_IN_A_COMMIT: usize = 256;

/// Writes that may wait; past it the senders wait, and so, through TCP, do the scanners.
const MOST_WAITING: usize = 1024;

/// Runs within the transaction, or is told why there is none; returns what sends the answer once the commit's outcome is known.
type Job = Box<dyn FnOnce(Result<&Connection, String>) -> Answer + Send>;
type Answer = Box<dyn FnOnce(Result<(), String>) + Send>;

/// The handle of the writer thread. Dropping it lets the thread finish what waits, then joins it.
pub struct Writer {
    jobs: Option<mpsc::SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(connection: Connection) -> Writer {
        let (jobs, waiting) = mpsc::sync_channel(MOST_WAITING);
        let thread = std::thread::Builder::new()
            .name("ledger".into())
            .spawn(move || run(connection, waiting))
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
            Err(why) => return Box::new(move |_| then(Err(LedgerError::Begin(why)))),
        };
        // A bug in one write must not end the thread that all writes need.
        let result = catch_unwind(AssertUnwindSafe(|| in_savepoint(connection, write)))
            .unwrap_or_else(|_| Err(LedgerError::Commit("the write panicked; this is a bug".into())));
        Box::new(move |committed| {
            then(match committed {
                Ok(()) => result,
                Err(why) => Err(LedgerError::Commit(why)),
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

fn run(connection: Connection, waiting: mpsc::Receiver<Job>) {
    while let Ok(first) = waiting.recv() {
        // IMMEDIATE takes the write lock at once, so no write fails halfway on another process's commit.
        let begun = connection.execute_batch("BEGIN IMMEDIATE");
        let mut jobs = vec![first];
        while jobs.len() < MOST_IN_A_COMMIT
            && let Ok(job) = waiting.try_recv()
        {
            jobs.push(job);
        }
        if let Err(error) = begun {
            tracing::error!(%error, "the database could not begin a transaction; nothing was written or acknowledged");
            // Without a transaction, each write would commit by itself.
            jobs.into_iter().for_each(|job| job(Err(error.to_string()))(Ok(())));
            continue;
        }
        metrics::histogram!("triaged_ledger_writes_per_commit").record(jobs.len() as f64);
        let started = std::time::Instant::now();
        let answers: Vec<Answer> = jobs.into_iter().map(|job| job(Ok(&connection))).collect();
        let outcome = connection.execute_batch("COMMIT").map_err(|error| {
            let _ = connection.execute_batch("ROLLBACK");
            error.to_string()
        });
        metrics::histogram!("triaged_ledger_commit_seconds").record(started.elapsed().as_secs_f64());
        if let Err(why) = &outcome {
            tracing::error!(%why, "the database could not commit; nothing of this commit was acknowledged");
        }
        for answer in answers {
            answer(outcome.clone());
        }
    }
    // Leave a small file behind for backups and for administrators who copy it.
    let _ = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
}
