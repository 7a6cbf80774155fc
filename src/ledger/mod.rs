//! The ledger: one SQLite database with the instances, the queue of slices, the results and the outbox.
//!
//! All writes of a process go through one thread. It takes whatever waits, runs each write in a savepoint of its own,
//! commits once (`synchronous=FULL`) and only then answers: many associations share one sync, and an answer means that
//! the rows are on disk. Reads have connections of their own and see what is committed (WAL).

mod outbox;
mod queue;
mod report;
mod retention;
mod shadow;
mod store;
mod verdict;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};
use rusqlite_migration::{M, Migrations};
use tokio::sync::Notify;

pub use outbox::{Delivery, OutboxRow};
pub use queue::{Claim, Score, SliceId};
pub use report::{NotificationRow, SliceRow, VerdictRow, WorklistFilter, WorklistRow};
pub use retention::{Expendable, Going};
pub use shadow::{NewShadowModel, ShadowEnd, ShadowModel, ShadowOutcome, ShadowRow, shadow_queue_depth};
pub use store::{NewInstance, NewSlice, Quarantined, Stored};
pub use verdict::{Alert, OpenStudy, Verdict};
pub use writer::Writer;

/// How long a statement waits for another process (`triaged ack`, an administrator's `sqlite3`) to finish its write.
pub const BUSY: Duration = Duration::from_secs(30);

/// Pages of the write-ahead log (16 MiB) after which it is copied into the database: an instance dirties about eight, mostly
/// the same ones as the instance before, and a copy writes each once. At SQLite's 1000 it came every hundred instances, with
/// two syncs that all associations wait for.
const CHECKPOINT_PAGES: u32 = 4000;

/// What went wrong with the ledger. `NotFound` is the caller's, everything else the database's.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("cannot open the database {path}: {source}")]
    Open { path: PathBuf, source: rusqlite::Error },
    #[error("the database {path} cannot be brought to this version's schema: {source}")]
    Migrate { path: PathBuf, source: rusqlite_migration::Error },
    #[error("database: {0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("database: the transaction could not begin: {0}")]
    Begin(String),
    #[error("database: the transaction could not be committed: {0}")]
    Commit(String),
    #[error("{0}")]
    NotFound(String),
    #[error("the ledger is closed")]
    Closed,
}

impl LedgerError {
    /// Whether it may be gone at the next try: another process kept the database from us for longer than [`BUSY`], or the disk
    /// is full, ails or is not there yet.
    pub fn may_pass(&self) -> bool {
        let error = match self {
            LedgerError::Open { source, .. } | LedgerError::Sqlite(source) => source,
            LedgerError::Migrate { source: rusqlite_migration::Error::RusqliteError { err, .. }, .. } => err,
            LedgerError::Migrate { .. } | LedgerError::NotFound(_) => return false,
            LedgerError::Begin(_) | LedgerError::Commit(_) | LedgerError::Closed => return true,
        };
        use ErrorCode::{CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, SystemIoFailure};
        let code = error.sqlite_error_code();
        code.is_some_and(|code| matches!(code, DatabaseBusy | DatabaseLocked | DiskFull | SystemIoFailure | CannotOpen))
    }
}

pub type Result<T, E = LedgerError> = std::result::Result<T, E>;

/// The current moment as the ledger writes it: UTC ISO 8601 with milliseconds.
pub fn now() -> String {
    format_time(jiff::Timestamp::now())
}

/// A moment as the ledger writes it.
pub fn format_time(t: jiff::Timestamp) -> String {
    format!("{t:.3}")
}

/// The database, shared by everyone in the process. Cheap to clone.
#[derive(Clone)]
pub struct Ledger {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    /// Idle read connections; one is taken for a read and put back. Closed before the writer (fields drop in order): the
    /// last connection removes the write-ahead log, and a read-only one could not.
    readers: Mutex<Vec<Connection>>,
    writer: Writer,
    /// Claims made while STAT and other slices waited: whose turn it is.
    turns: AtomicU64,
    /// The last count of the queue.
    depth: AtomicU64,
    bells: Arc<Bells>,
}

/// What stages wait for. Apart from [`Shared`], so that what the writer thread holds never holds the writer.
#[derive(Default)]
struct Bells {
    /// Rung when slices were queued: the inference stage waits here.
    queued: Notify,
    /// Rung when an outbox row became pending: the channels wait here.
    posted: Notify,
    /// Rung when a slice of a study came to its end, or something was received: the triage stage waits here.
    changed: Notify,
}

impl Ledger {
    /// Opens the database, creating it or migrating it to this version's schema, and starts the writer thread.
    pub fn open(path: &Path) -> Result<Ledger> {
        let mut connection = connect(path)?;
        migrations().to_latest(&mut connection).map_err(|source| LedgerError::Migrate { path: path.into(), source })?;
        Ok(Ledger {
            shared: Arc::new(Shared {
                path: path.into(),
                writer: Writer::start(connection),
                readers: Mutex::new(Vec::new()),
                turns: AtomicU64::new(0),
                depth: AtomicU64::new(0),
                bells: Arc::default(),
            }),
        })
    }

    /// Runs a write; when this returns `Ok`, it is committed and synced. What fails is rolled back alone.
    pub async fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.shared.writer.write(write).await
    }

    /// [`Ledger::write`] for threads outside the async runtime.
    pub fn write_blocking<T: Send + 'static>(
        &self,
        write: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.shared.writer.write_blocking(write)
    }

    /// Runs a read on a connection of its own. Blocks; call it from a blocking thread when it may be long.
    pub fn read<T>(&self, read: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let idle = self.shared.readers.lock().expect("no reader panics while it holds the list").pop();
        let connection = match idle {
            Some(connection) => connection,
            None => open_read_only(&self.shared.path)?,
        };
        let result = read(&connection);
        let mut readers = self.shared.readers.lock().expect("no reader panics while it holds the list");
        if readers.len() < 8 {
            readers.push(connection);
        }
        result
    }

    pub fn queued(&self) -> &Notify {
        &self.shared.bells.queued
    }

    pub fn posted(&self) -> &Notify {
        &self.shared.bells.posted
    }

    pub fn changed(&self) -> &Notify {
        &self.shared.bells.changed
    }
}

/// A read-only connection, for the node's reads and for commands that only look.
pub fn open_read_only(path: &Path) -> Result<Connection> {
    let open = || -> rusqlite::Result<Connection> {
        let connection =
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(BUSY)?;
        Ok(connection)
    };
    open().map_err(|source| LedgerError::Open { path: path.into(), source })
}

fn connect(path: &Path) -> Result<Connection> {
    let open = || -> rusqlite::Result<Connection> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(BUSY)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        connection.pragma_update(None, "foreign_keys", "ON")?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(connection)
    };
    open().map_err(|source| LedgerError::Open { path: path.into(), source })
}

fn migrations() -> Migrations<'static> {
    Migrations::new(vec![
        M::up(include_str!("migrations/0001_initial.sql")),
        M::up(include_str!("migrations/0002_reading_order.sql")),
        M::up(include_str!("migrations/0003_shadow.sql")),
        M::up(include_str!("migrations/0004_retention.sql")),
    ])
}

#[cfg(test)]
mod tests;
