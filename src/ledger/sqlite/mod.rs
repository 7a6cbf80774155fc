//! The ledger in one SQLite database.
//!
//! All writes of a process go through one thread. It takes whatever waits, runs each write in a savepoint of its own,
//! commits once (`synchronous=FULL`) and only then answers: many associations share one sync, and an answer means that
//! the rows are on disk. Reads have connections of their own and see what is committed (WAL).

mod acknowledgement;
mod audit;
mod backup;
mod changes;
mod check;
mod commitment;
mod documents;
mod error;
mod escalation;
mod evidence;
mod feedback;
mod files;
mod forward;
mod login;
mod operation;
mod outbox;
mod priority;
mod pulse;
mod queue;
mod reader;
mod report;
mod retention;
mod search;
mod shadow;
mod store;
mod study;
mod verdict;
mod witness;
mod worklist;
mod writer;

use std::ops::Deref;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use rusqlite::{Connection, Transaction};
use rusqlite_migration::{M, Migrations};

use super::{DatabaseError, LedgerError, NewMessage, QueueCount, Result, Wakeups, now};
use crate::event::Event;
pub use acknowledgement::Acknowledged;
pub use changes::Changes;
pub use check::Soundness;
use queue::Turns;
pub use reader::Reader;
use witness::Witness;
pub use witness::{FileStanding, set_foreign_log_aside};
pub use worklist::WorklistPage;
use writer::Writer;

/// How long a statement waits for another process (`triaged ack`, an administrator's `sqlite3`) to finish its write.
pub const BUSY: Duration = Duration::from_secs(30);

/// Pages of the write-ahead log (16 MiB) after which it is copied into the database: an instance dirties about eight, mostly
/// the same ones as the instance before, and a copy writes each once. At SQLite's 1000 it came every hundred instances, with
/// two syncs that all associations wait for.
const CHECKPOINT_PAGES: u32 = 4000;

/// The database, shared by everyone in the process. Cheap to clone. Its reads are those of [`Reader`].
#[derive(Clone)]
pub struct Ledger {
    shared: Arc<Shared>,
}

struct Shared {
    /// Closed before the writer (fields drop in order): the last connection removes the write-ahead log, and a read-only one
    /// could not.
    reader: Reader,
    writer: Writer,
    turns: Turns,
    /// The last count of the queue.
    count: Mutex<Arc<QueueCount>>,
    /// Shared with the writer thread, which must never hold the writer itself.
    wakeups: Arc<Wakeups>,
    /// Who hears of what persons do; nobody until it is set.
    router: Arc<OnceLock<Router>>,
    path: PathBuf,
    /// Shared with the writer thread.
    witness: Arc<Mutex<Witness>>,
}

/// From an event to the messages that tell it.
pub type Router = Box<dyn Fn(Event) -> Vec<NewMessage> + Send + Sync>;

impl Ledger {
    /// Opens the database, creating it or migrating it to this version's schema, and starts the writer thread.
    pub fn open(path: &Path) -> Result<Ledger> {
        let mut connection = connect(path)?;
        refuse_newer(&connection, path)?;
        let found = schema_of(&connection, path)?;
        migrate(&mut connection, found).map_err(|error| LedgerError::Migrate {
            path: path.into(),
            source: match error {
                rusqlite_migration::Error::RusqliteError { err, .. } => err.into(),
                error => DatabaseError::new(error, false),
            },
        })?;
        prepare_writer(&connection).map_err(|source| LedgerError::Open { path: path.into(), source: source.into() })?;
        let witness = Witness::new(path)
            .map_err(|error| LedgerError::Open { path: path.into(), source: DatabaseError::new(error, true) })?;
        let witness = Arc::new(Mutex::new(witness));
        Ok(Ledger {
            shared: Arc::new(Shared {
                reader: Reader::new(path),
                writer: Writer::start(connection, witness.clone()),
                turns: Turns::default(),
                count: Mutex::default(),
                wakeups: Arc::default(),
                router: Arc::default(),
                path: path.into(),
                witness,
            }),
        })
    }

    /// Runs a write; when this returns `Ok`, it is committed and synced. What fails is rolled back alone.
    async fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.shared.writer.write(write).await
    }

    /// [`Ledger::write`] for threads outside the async runtime.
    fn write_blocking<T: Send + 'static>(
        &self,
        write: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.shared.writer.write_blocking(write)
    }

    /// From now on, whoever `router` says hears of what persons do about studies, in the transaction of their deed. The first call
    /// counts.
    pub fn tell_by(&self, router: Router) {
        let _ = self.shared.router.set(router);
    }
}

impl Deref for Ledger {
    type Target = Reader;

    fn deref(&self) -> &Reader {
        &self.shared.reader
    }
}

/// How many migrations a database has had.
fn schema_of(connection: &Connection, path: &Path) -> Result<usize> {
    let found: i64 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(|source| LedgerError::Open { path: path.into(), source: source.into() })?;
    Ok(usize::try_from(found).unwrap_or(0))
}

/// A database that a later version has migrated is not read as if it were this version's.
fn refuse_newer(connection: &Connection, path: &Path) -> Result<()> {
    let (found, known) = (schema_of(connection, path)?, steps().len());
    match found > known {
        true => Err(LedgerError::Newer { path: path.into(), found, known }),
        false => Ok(()),
    }
}

/// Makes the database file for its owner alone, whatever the umask; SQLite gives its log files the same mode.
fn restrict(path: &Path) -> std::io::Result<()> {
    // One that is there is not opened: to close it would drop the locks that SQLite has on it for another connection of this process.
    match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        made => drop(made?),
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
}

fn connect(path: &Path) -> Result<Connection> {
    if let Err(error) = restrict(path) {
        // SQLite says better what is wrong with the file; that it is not ours to change is no reason to stop.
        tracing::debug!(path = %path.display(), "the mode of the database could not be set: {error}");
    }
    let open = || -> rusqlite::Result<Connection> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(BUSY)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        // Migrations build tables anew, which foreign keys forbid; they are turned on after them.
        connection.pragma_update(None, "foreign_keys", "OFF")?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(connection)
    };
    open().map_err(|source| LedgerError::Open { path: path.into(), source: source.into() })
}

/// What the writer's connection needs beyond the migrations.
fn prepare_writer(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "foreign_keys", "ON")?;
    // Each write has a savepoint, for which SQLite keeps the pages that it changes: by default in a file that it makes and removes in each
    // transaction, with more bytes than the log gets. In memory they are some hundred KiB. A migration that builds an index of a large
    // table would take gigabytes of memory so.
    connection.pragma_update(None, "temp_store", "MEMORY")
}

/// Brings a database of schema `found` to this version's, a step at a time: of a large one a step may take minutes, and what is done stays done if
/// the node is ended meanwhile.
fn migrate(connection: &mut Connection, found: usize) -> rusqlite_migration::Result<()> {
    let (migrations, newest) = (migrations(), steps().len());
    if found == 0 {
        return migrations.to_latest(connection);
    }
    for next in found + 1..=newest {
        tracing::info!("the database is brought to schema {next} of {newest}");
        migrations.to_version(connection, next)?;
    }
    Ok(())
}

fn migrations() -> Migrations<'static> {
    Migrations::new(steps())
}

/// One for each version of the schema; a database's `user_version` says how many it has had.
fn steps() -> Vec<M<'static>> {
    vec![
        M::up(include_str!("migrations/0001_initial.sql")),
        M::up(include_str!("migrations/0002_reading_order.sql")),
        M::up(include_str!("migrations/0003_shadow.sql")),
        M::up(include_str!("migrations/0004_retention.sql")),
        M::up(include_str!("migrations/0005_leases.sql")),
        M::up(include_str!("migrations/0006_audit.sql")),
        M::up(include_str!("migrations/0007_delivery.sql")),
        M::up(include_str!("migrations/0008_verdicts.sql")).foreign_key_check(),
        M::up(include_str!("migrations/0009_commitment.sql")),
        M::up(include_str!("migrations/0010_login.sql")),
        M::up(include_str!("migrations/0011_dicom_out.sql")),
        M::up(include_str!("migrations/0012_sources.sql")),
        M::up(include_str!("migrations/0013_pulse.sql")),
        M::up_with_hook(include_str!("migrations/0014_worklist.sql"), |transaction: &Transaction<'_>| {
            Ok(search::add_all_words(transaction)?)
        }),
        M::up(include_str!("migrations/0015_boxes.sql")),
        M::up_with_hook(include_str!("migrations/0016_identity.sql"), |transaction: &Transaction<'_>| {
            let identity = uuid::Uuid::new_v4().to_string();
            let sql = "INSERT INTO identity (id, uuid, generation, at) VALUES (1, ?1, 0, ?2)";
            transaction.execute(sql, [identity, now()])?;
            Ok(())
        }),
        M::up(include_str!("migrations/0017_measurements.sql")),
        M::up(include_str!("migrations/0018_subject.sql")),
        M::up(include_str!("migrations/0019_evidence.sql")),
        M::up(include_str!("migrations/0020_delivery.sql")),
        M::up(include_str!("migrations/0021_broken_off.sql")),
        M::up(include_str!("migrations/0022_verdict_id.sql")),
        M::up(include_str!("migrations/0023_turns.sql")),
    ]
}

#[cfg(test)]
mod tests;
