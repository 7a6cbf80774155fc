//! Whether the database at its path is still the one that is open. A row written into a file that was taken away, exchanged or overwritten
//! is a row that nobody will ever see, and SQLite does not notice.

use std::fs::{File, Metadata};
use std::io;
use std::mem::ManuallyDrop;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};

use crate::ledger::{LedgerError, Result};
use crate::lineage::Lineage;

/// Knows the files that are open and what is in them. The writer thread asks it at each transaction.
pub(super) struct Witness {
    path: PathBuf,
    /// Device and number of the database file, and of its log and the log's index once they were seen.
    database: FileId,
    beside: [(PathBuf, Option<FileId>); 2],
    /// The database file when it was last looked into, and how far the log had been copied into it.
    looked: Option<(Look, Copied)>,
    index: Index,
    lineage: Option<Lineage>,
    /// Why the database is no longer the one that was opened. It stays so.
    replaced: Option<String>,
}

type FileId = (u64, u64);

/// Size and time of the last write.
#[derive(PartialEq, Eq, Clone, Copy)]
struct Look {
    size: u64,
    written: (i64, i64),
}

/// How far the log was copied into the database (a checkpoint), from the log's index: which log (its salt), how many frames are copied, and
/// how many are being copied. In WAL mode nothing else ever writes into the database file.
#[derive(PartialEq, Eq, Clone, Copy)]
struct Copied {
    log: [u8; 8],
    /// Frames in the log.
    frames: u32,
    done: u32,
    attempted: u32,
}

/// The log's index, open to be read. It is never closed: with a close the system drops every lock that the process has on a file
/// (`fcntl(2)`), and SQLite's locks are on this one.
#[derive(Default)]
struct Index(Option<(FileId, ManuallyDrop<File>)>);

impl Index {
    /// Reads the index (<https://sqlite.org/walformat.html>, section 2.2: mxFrame at byte 16, the salt at 32, nBackfill at 96, nBackfillAttempted at 128).
    fn copied(&mut self, path: &Path) -> Option<Copied> {
        let id = id(&std::fs::metadata(path).ok()?);
        if self.0.as_ref().is_none_or(|(known, _)| *known != id) {
            self.0 = Some((id, ManuallyDrop::new(File::open(path).ok()?)));
        }
        let (_, file) = self.0.as_ref()?;
        let mut bytes = [0; 132];
        file.read_exact_at(&mut bytes, 0).ok()?;
        let number = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let log = bytes[32..40].try_into().expect("eight bytes");
        Some(Copied { log, frames: number(16), done: number(96), attempted: number(128) })
    }
}

impl Copied {
    /// Whether some process is at it, so that the database file changes from moment to moment.
    fn is_under_way(&self) -> bool {
        self.attempted > self.done
    }

    /// Whether the database file alone is a state of the database: it has everything that is in the log, or nothing of it.
    fn is_sound_alone(&self) -> bool {
        self.done == self.frames || self.done == 0 && self.attempted == 0
    }

    /// Whether nothing was copied between the two.
    fn is_same_as(self, other: Copied) -> bool {
        Copied { frames: 0, ..self } == Copied { frames: 0, ..other }
    }
}

/// The files that SQLite keeps beside a database: the write-ahead log and its index.
fn beside(path: &Path) -> [PathBuf; 2] {
    ["-wal", "-shm"].map(|end| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        name.into()
    })
}

impl Witness {
    pub fn new(path: &Path) -> io::Result<Witness> {
        let database = id(&std::fs::metadata(path)?);
        let beside = beside(path).map(|path| (path, None));
        Ok(Witness {
            path: path.into(),
            database,
            beside,
            looked: None,
            index: Index::default(),
            lineage: None,
            replaced: None,
        })
    }

    /// The identity and generation that the ledger has from now on.
    pub fn know(&mut self, identity: String, generation: u64) {
        self.lineage = Some(Lineage { identity, generation, in_file: 0 });
        self.looked = None;
    }

    /// The generation has come to this.
    pub fn counted(&mut self, generation: u64) {
        if let Some(lineage) = &mut self.lineage {
            lineage.generation = lineage.generation.max(generation);
        }
    }

    pub fn lineage(&self) -> Option<Lineage> {
        self.lineage.clone()
    }

    pub fn is_replaced(&self) -> bool {
        self.replaced.is_some()
    }

    /// Looks at everything, within a transaction that has begun: the files, what the database file has in it if anybody wrote into it, and
    /// the identity that this connection reads. Counts the generation up, so that every state of the ledger has one of its own. Returns it.
    pub fn check(&mut self, connection: &Connection) -> Result<u64> {
        self.check_files()?;
        if let Some(Alarm { why, is_certain }) = self.look_into_file()? {
            return Err(match is_certain {
                true => self.replaced_because(&why),
                // The log stays: the next start, which reads the file in peace, decides whose it is.
                false => self.refuse(&why),
            });
        }
        let counted = "UPDATE identity SET generation = generation + 1 WHERE id = 1 RETURNING uuid, generation";
        let found = connection
            .prepare_cached(counted)?
            .query_row([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?.max(0) as u64)))
            .optional()?;
        match (found, &self.lineage) {
            (Some((identity, generation)), Some(known))
                if identity == known.identity && generation > known.generation =>
            {
                Ok(generation)
            }
            (found, None) => Ok(found.map_or(0, |(_, generation)| generation)),
            (found, Some(known)) => {
                let why = difference(found, &known.identity, known.generation);
                Err(self.replaced_because(&why))
            }
        }
    }

    /// Whether the files are those that were opened. Takes microseconds.
    pub fn check_files(&mut self) -> Result<()> {
        if let Some(why) = &self.replaced {
            return Err(LedgerError::Replaced { path: self.path.clone(), why: why.clone() });
        }
        if is_other(&self.path, self.database) {
            return Err(self.replaced_because("another file is at its path, or none"));
        }
        for (path, known) in &mut self.beside {
            match known {
                Some(known) if is_other(path, *known) => {
                    let why = format!("{} was removed or exchanged", path.display());
                    return Err(self.replaced_because(&why));
                }
                Some(_) => {}
                None => *known = std::fs::metadata(path).ok().map(|about| id(&about)),
            }
        }
        Ok(())
    }

    /// What is wrong with the database file itself, without its log, if anybody wrote into it since the last look.
    ///
    /// Alone the file is a state of the database only where the whole log has been copied into it, or nothing of it: while a reader needs an
    /// older state, a checkpoint copies some pages and leaves others, and the file looks damaged. So nothing is read of it then.
    fn look_into_file(&mut self) -> Result<Option<Alarm>> {
        let Some(known) = self.lineage.clone() else { return Ok(None) };
        let index = self.beside[1].0.clone();
        // In this order: what is copied after the first of them is more than what is noted, and so explains a later write.
        let before = self.index.copied(&index).filter(|copied| !copied.is_under_way());
        let Ok(look) = std::fs::metadata(&self.path).map(|about| look(&about)) else { return Ok(None) };
        let mut is_explained = true;
        if let Some((looked, copied)) = self.looked {
            if look == looked {
                self.looked = before.map(|copied| (look, copied));
                return Ok(None);
            }
            // Its time alone changes by `touch` and by programs that put times back; then what is in it tells.
            is_explained = self.index.copied(&index).is_none_or(|now| !now.is_same_as(copied));
            if !is_explained && !before.is_some_and(|before| before.is_sound_alone()) {
                return Ok(Some(Alarm { why: "another process wrote into its file".into(), is_certain: false }));
            }
        }
        self.looked = before.map(|copied| (look, copied));
        let Some(before) = before.filter(Copied::is_sound_alone) else { return Ok(None) };
        let found = read_file_alone(&self.path);
        if self.index.copied(&index) != Some(before) {
            // Somebody copies or writes meanwhile; the next transaction looks again.
            self.looked = None;
            return Ok(None);
        }
        match found {
            // A copy of a later state is none of this file's: its pages need not lie where the log takes them to be.
            Ok(Some((identity, generation)))
                if identity == known.identity && !is_explained && generation > known.in_file =>
            {
                Ok(Some(Alarm::certain("another process wrote into its file".into())))
            }
            Ok(Some((identity, generation))) if identity == known.identity && generation >= known.in_file => {
                self.lineage = Some(Lineage { in_file: generation, ..known });
                Ok(None)
            }
            // Its identity may be in the log alone.
            Ok(None) if known.in_file == 0 => Ok(None),
            Ok(found) => Ok(Some(Alarm::certain(difference(found, &known.identity, known.in_file)))),
            Err(error) if is_damage(&error) => Ok(Some(Alarm::certain(format!("its file cannot be read: {error}")))),
            Err(error) => Err(error.into()),
        }
    }

    /// The log belongs to what was there before. Beside another database it would be taken for that one's, and spoil it.
    fn replaced_because(&mut self, why: &str) -> LedgerError {
        let [log, index] = &self.beside;
        for (path, known) in [log, index] {
            if known.is_some_and(|known| !is_other(path, known)) {
                set_aside(path);
            }
        }
        self.refuse(why)
    }

    fn refuse(&mut self, why: &str) -> LedgerError {
        self.replaced = Some(why.to_owned());
        LedgerError::Replaced { path: self.path.clone(), why: why.to_owned() }
    }
}

/// Why the database file is taken for another's.
struct Alarm {
    why: String,
    /// What the file has in it says so, not only that somebody wrote.
    is_certain: bool,
}

impl Alarm {
    fn certain(why: String) -> Alarm {
        Alarm { why, is_certain: true }
    }
}

fn id(about: &Metadata) -> FileId {
    (about.dev(), about.ino())
}

fn look(about: &Metadata) -> Look {
    Look { size: about.len(), written: (about.mtime(), about.mtime_nsec()) }
}

/// Whether a path leads to another file than it did, or to none. Where the disk ails, the write that follows says how.
fn is_other(path: &Path, known: FileId) -> bool {
    match std::fs::metadata(path) {
        Ok(about) => id(&about) != known,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

fn difference(found: Option<(String, u64)>, identity: &str, at_least: u64) -> String {
    match found {
        None => "other content was written over it, which has no identity".into(),
        Some((found, _)) if found != identity => {
            "other content was written over it, with the identity of another ledger".into()
        }
        Some((_, generation)) => {
            format!("an older state was written over it: generation {generation}, where {at_least} was there before")
        }
    }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
}

/// Moves a file out of SQLite's way, keeping it for whoever wants to know.
fn set_aside(path: &Path) -> Option<PathBuf> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".of-another-database-{}", jiff::Timestamp::now().as_second()));
    std::fs::rename(path, &aside).ok().map(|()| aside.into())
}

/// Identity and generation of a database, or none where it is of before there were identities.
pub(super) fn identity_if_any(connection: &Connection) -> rusqlite::Result<Option<(String, u64)>> {
    let known = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'identity')";
    match connection.query_row(known, [], |row| row.get(0))? {
        false => Ok(None),
        true => read_identity(connection),
    }
}

/// Identity and generation of a database.
pub(super) fn read_identity(connection: &Connection) -> rusqlite::Result<Option<(String, u64)>> {
    connection
        .prepare_cached("SELECT uuid, generation FROM identity WHERE id = 1")?
        .query_row([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.max(0) as u64)))
        .optional()
}

/// Identity and generation as the database file has them without its write-ahead log; none where it has none.
fn read_file_alone(path: &Path) -> rusqlite::Result<Option<(String, u64)>> {
    identity_if_any(&open_file_alone(path)?)
}

/// The same with the log, which no reader copies into the file.
fn read_with_log(path: &Path) -> rusqlite::Result<Option<(String, u64)>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    identity_if_any(&Connection::open_with_flags(path, flags)?)
}

fn open_file_alone(path: &Path) -> rusqlite::Result<Connection> {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => uri.push(char::from(*byte)),
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    // Immutable: the log, locks and the log's index are left alone.
    uri.push_str("?mode=ro&immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(uri, flags)
}

/// The content of a database file beside what its archive was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileStanding {
    /// Nothing speaks against it.
    Own,
    /// It is an older state, and a write-ahead log lay beside it that belongs to a later one. The log is moved away.
    LogSetAside,
}

/// Before a database is opened: a write-ahead log that is left of another state of it would be taken for its own, and spoil it. So it is
/// where an older copy was put in the place of a database whose node was killed.
pub fn set_foreign_log_aside(path: &Path, told: &Lineage) -> Result<FileStanding> {
    let [log, index] = beside(path);
    let has_log = std::fs::metadata(&log).is_ok_and(|about| about.len() > 0);
    if !has_log || told.in_file == 0 || !path.exists() {
        return Ok(FileStanding::Own);
    }
    let failed = |source: rusqlite::Error| LedgerError::Open { path: path.into(), source: source.into() };
    match read_file_alone(path) {
        // Of another ledger: the log may well be its own. Whoever opens it decides.
        Ok(Some((identity, _))) if identity != told.identity => return Ok(FileStanding::Own),
        Ok(Some((_, generation))) if generation >= told.in_file => return Ok(FileStanding::Own),
        // An older state, or one of before there were identities.
        Ok(_) => {}
        // Without its log a file looks damaged whose log was copied in part when the node was killed. The log is its own.
        Err(error) if is_damage(&error) => return Ok(FileStanding::Own),
        Err(error) => return Err(failed(error)),
    }
    // Whole disks are put back, too, with a log that belongs to the older state. A later one leads to a later state.
    let is_later = match read_with_log(path) {
        Ok(found) => {
            found.is_some_and(|(identity, generation)| identity == told.identity && generation >= told.in_file)
        }
        Err(error) if is_damage(&error) => true,
        Err(error) => return Err(failed(error)),
    };
    if !is_later {
        return Ok(FileStanding::Own);
    }
    set_aside(&log);
    set_aside(&index);
    Ok(FileStanding::LogSetAside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Ledger;

    /// A ledger with an identity whose file has generation 5.
    fn ledger(folder: &Path) -> (Ledger, PathBuf) {
        let path = folder.join("a database?.db");
        let ledger = Ledger::open(&path).unwrap();
        ledger.take_identity("us", 5).unwrap();
        (ledger, path)
    }

    fn beat(ledger: &Ledger) -> Result<()> {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(ledger.beat())
    }

    fn refused(ledger: &Ledger) -> String {
        match beat(ledger) {
            Err(error @ LedgerError::Replaced { .. }) => error.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_generation_counts_up_and_the_file_follows() {
        let folder = tempfile::tempdir().unwrap();
        let (ledger, path) = ledger(folder.path());
        beat(&ledger).unwrap();
        beat(&ledger).unwrap();
        let known = ledger.lineage().unwrap();
        assert_eq!((known.identity.as_str(), known.generation, known.in_file), ("us", 7, 5));
        // Another process copies the log into the file, which is no trouble.
        Connection::open(&path).unwrap().execute_batch("PRAGMA wal_checkpoint(PASSIVE)").unwrap();
        beat(&ledger).unwrap();
        assert_eq!(ledger.lineage().unwrap().in_file, 7);
        drop(ledger);
        assert_eq!(Ledger::open(&path).unwrap().stored_identity().unwrap(), ("us".into(), 8));
    }

    #[test]
    fn whatever_is_done_to_the_files_is_noticed_at_the_next_write() {
        type Deed = fn(&Path, &[u8]);
        let deeds: [(&str, Deed); 7] = [
            ("an older state was written over it", |path, older| std::fs::write(path, older).unwrap()),
            ("other content was written over it", |path, _| std::fs::write(path, b"").unwrap()),
            ("its file cannot be read", |path, _| std::fs::write(path, [7; 40_000]).unwrap()),
            ("another file is at its path", |path, _| std::fs::remove_file(path).unwrap()),
            ("another file is at its path", |path, older| {
                std::fs::write(path.with_extension("new"), older).unwrap();
                std::fs::rename(path.with_extension("new"), path).unwrap();
            }),
            ("was removed or exchanged", |path, _| std::fs::remove_file(&beside(path)[0]).unwrap()),
            ("an older state was written over it", |path, older| {
                // As `.restore` of the sqlite3 shell does it: a transaction like any other.
                std::fs::write(path.with_extension("older"), older).unwrap();
                let source = Connection::open(path.with_extension("older")).unwrap();
                source.backup("main", path, None).unwrap();
            }),
        ];
        for (why, deed) in deeds {
            let folder = tempfile::tempdir().unwrap();
            let (ledger, path) = ledger(folder.path());
            let copy = folder.path().join("copy");
            std::fs::write(&copy, b"").unwrap();
            ledger.copy_to(&copy).unwrap();
            let older = std::fs::read(&copy).unwrap();
            beat(&ledger).unwrap();
            // The file itself moves on from the state of the copy.
            Connection::open(&path).unwrap().execute_batch("PRAGMA wal_checkpoint(PASSIVE)").unwrap();
            beat(&ledger).unwrap();
            deed(&path, &older);
            println!("{why}");
            let said = refused(&ledger);
            assert!(said.contains(why), "{why}: {said}");
            refused(&ledger);
            drop(ledger);
            // What was put there is not spoilt by the log of what was there before.
            if std::fs::read(&path).is_ok_and(|found| found == older) {
                assert_eq!(Ledger::open(&path).unwrap().stored_identity().unwrap(), ("us".into(), 5));
            }
        }
    }

    /// A copy of a state that the file had, with a checkpoint after it, so that somebody is known to have written into the file.
    #[test]
    fn an_older_state_is_noticed_by_its_generation_where_a_checkpoint_hides_who_wrote() {
        let folder = tempfile::tempdir().unwrap();
        let (ledger, path) = ledger(folder.path());
        let copy = folder.path().join("copy");
        std::fs::write(&copy, b"").unwrap();
        ledger.copy_to(&copy).unwrap();
        let checkpoint = || Connection::open(&path).unwrap().execute_batch("PRAGMA wal_checkpoint(PASSIVE)").unwrap();
        beat(&ledger).unwrap();
        checkpoint();
        beat(&ledger).unwrap();
        checkpoint();
        std::fs::copy(&copy, &path).unwrap();
        assert!(refused(&ledger).contains("an older state was written over it: generation 5"));
    }

    #[test]
    fn checkpoints_of_others_are_no_trouble() {
        let folder = tempfile::tempdir().unwrap();
        let (ledger, path) = ledger(folder.path());
        let other = Connection::open(&path).unwrap();
        for kind in ["PASSIVE", "FULL", "RESTART", "TRUNCATE"].iter().cycle().take(40) {
            beat(&ledger).unwrap();
            other.execute_batch(&format!("PRAGMA wal_checkpoint({kind})")).unwrap();
            beat(&ledger).unwrap();
            beat(&ledger).unwrap();
        }
    }

    /// A reader that needs an older state makes a checkpoint copy some pages and leave others. A node that took its own file for damaged
    /// then would refuse everything, and put its log aside.
    #[test]
    fn a_log_that_is_copied_in_part_is_no_trouble_while_it_runs_and_after_a_kill() {
        let folder = tempfile::tempdir().unwrap();
        let (ledger, path) = ledger(folder.path());
        let other = Connection::open(&path).unwrap();
        let fill = |rounds: usize| {
            for round in 0..rounds {
                let sql = format!(
                    "INSERT INTO studies (study_uid, first_received_at, last_received_at, opened_at, patient_name)
                     SELECT hex(randomblob(20)) || value, 't{round}', 't', 't', hex(randomblob(200)) FROM json_each('[1,2,3,4,5,6,7,8,9]')"
                );
                ledger.write_blocking(move |connection| Ok(connection.execute(&sql, [])?)).unwrap();
            }
        };
        let mut damaged = 0;
        for round in 0..30 {
            fill(4);
            other.execute_batch("BEGIN; SELECT count(*) FROM studies").unwrap();
            fill(4);
            let checkpoint =
                || Connection::open(&path).unwrap().execute_batch("PRAGMA wal_checkpoint(PASSIVE)").unwrap();
            checkpoint();
            damaged += usize::from(read_file_alone(&path).is_err() || is_torn(&path));
            beat(&ledger).unwrap();
            other.execute_batch("COMMIT").unwrap();
            beat(&ledger).unwrap();
            if round % 3 == 0 {
                checkpoint();
                beat(&ledger).unwrap();
            }
        }
        assert!(damaged > 0, "the file was never copied in part");
        // As a kill leaves it: no orderly end, and the log copied in part.
        fill(4);
        other.execute_batch("BEGIN; SELECT count(*) FROM studies").unwrap();
        fill(4);
        Connection::open(&path).unwrap().execute_batch("PRAGMA wal_checkpoint(PASSIVE)").unwrap();
        let told = ledger.lineage().unwrap();
        let killed = folder.path().join("killed.db");
        std::fs::copy(&path, &killed).unwrap();
        std::fs::copy(&beside(&path)[0], &beside(&killed)[0]).unwrap();
        let studies: i64 = other.query_row("SELECT count(*) FROM studies", [], |row| row.get(0)).unwrap();
        assert_eq!(set_foreign_log_aside(&killed, &told).unwrap(), FileStanding::Own);
        let again = Connection::open(&killed).unwrap();
        let found: i64 = again.query_row("SELECT count(*) FROM studies", [], |row| row.get(0)).unwrap();
        assert!(found > studies, "{found} of more than {studies}: its log is applied");
        assert_eq!(again.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)).unwrap(), "ok");
    }

    /// Whether the file without its log is no sound database.
    fn is_torn(path: &Path) -> bool {
        let check =
            |connection: Connection| connection.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0));
        open_file_alone(path).and_then(check).is_ok_and(|said| said != "ok")
    }

    /// A backup program that puts times back changes the file's time and nothing else.
    #[test]
    fn another_time_of_the_file_is_no_trouble() {
        let folder = tempfile::tempdir().unwrap();
        let (ledger, path) = ledger(folder.path());
        let touch = |seconds| {
            let file = File::options().append(true).open(&path).unwrap();
            file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).unwrap();
            // Closed, it would drop the locks that SQLite has on the file.
            std::mem::forget(file);
        };
        for seconds in 1..6 {
            beat(&ledger).unwrap();
            touch(seconds);
            beat(&ledger).unwrap();
            // Everything of the log is copied.
            Connection::open(&path).unwrap().execute_batch("PRAGMA wal_checkpoint(PASSIVE)").unwrap();
            beat(&ledger).unwrap();
            touch(100 + seconds);
            beat(&ledger).unwrap();
        }
    }

    /// Where the log is copied in part, nobody can tell at once whether what was written is bad. Then the node refuses, and the log stays for
    /// the next start.
    #[test]
    fn the_log_stays_where_it_is_not_certain_that_the_file_is_anothers() {
        let folder = tempfile::tempdir().unwrap();
        let (ledger, path) = ledger(folder.path());
        let other = Connection::open(&path).unwrap();
        beat(&ledger).unwrap();
        other.execute_batch("BEGIN; SELECT count(*) FROM studies").unwrap();
        beat(&ledger).unwrap();
        Connection::open(&path).unwrap().execute_batch("PRAGMA wal_checkpoint(PASSIVE)").unwrap();
        beat(&ledger).unwrap();
        let file = File::options().append(true).open(&path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        std::mem::forget(file);
        let said = refused(&ledger);
        assert!(said.contains("wrote into its file"), "{said}");
        let told = Lineage { in_file: 5, ..ledger.lineage().unwrap() };
        other.execute_batch("COMMIT").unwrap();
        // The last connection would copy the log into the file.
        drop(other);
        drop(ledger);
        assert!(beside(&path)[0].exists(), "nothing of it is lost");
        assert_eq!(set_foreign_log_aside(&path, &told).unwrap(), FileStanding::Own);
        assert!(Ledger::open(&path).unwrap().stored_identity().unwrap().1 >= 8);
    }

    #[test]
    fn a_whole_disk_that_was_put_back_keeps_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let (ledger, path) = ledger(folder.path());
        beat(&ledger).unwrap();
        beat(&ledger).unwrap();
        let disk = folder.path().join("disk.db");
        std::fs::write(&disk, b"").unwrap();
        std::fs::copy(&beside(&path)[0], &beside(&disk)[0]).unwrap();
        // The file is opened by SQLite alone while the ledger is.
        assert!(std::process::Command::new("cp").args([&path, &disk]).status().unwrap().success());
        for _ in 0..3 {
            beat(&ledger).unwrap();
        }
        Connection::open(&path).unwrap().execute_batch("PRAGMA wal_checkpoint(PASSIVE)").unwrap();
        beat(&ledger).unwrap();
        let told = ledger.lineage().unwrap();
        assert!(told.in_file > 7, "{told:?}");
        assert_eq!(set_foreign_log_aside(&disk, &told).unwrap(), FileStanding::Own);
        assert_eq!(Ledger::open(&disk).unwrap().stored_identity().unwrap().1, 7, "its own log is applied");
    }

    #[test]
    fn a_log_that_a_killed_node_left_is_not_taken_for_that_of_an_older_copy() {
        let folder = tempfile::tempdir().unwrap();
        let (ledger, path) = ledger(folder.path());
        let copy = folder.path().join("copy");
        std::fs::write(&copy, b"").unwrap();
        ledger.copy_to(&copy).unwrap();
        beat(&ledger).unwrap();
        Connection::open(&path).unwrap().execute_batch("PRAGMA wal_checkpoint(PASSIVE)").unwrap();
        beat(&ledger).unwrap();
        let told = ledger.lineage().unwrap();
        let log = beside(&path)[0].clone();
        let left = std::fs::read(&log).unwrap();
        assert!(!left.is_empty());
        drop(ledger);
        std::fs::write(&log, &left).unwrap();
        assert_eq!(set_foreign_log_aside(&path, &told).unwrap(), FileStanding::Own);
        std::fs::copy(&copy, &path).unwrap();
        assert_eq!(set_foreign_log_aside(&path, &told).unwrap(), FileStanding::LogSetAside);
        assert!(!log.exists());
        assert_eq!(Ledger::open(&path).unwrap().stored_identity().unwrap().1, 5);
    }
}
