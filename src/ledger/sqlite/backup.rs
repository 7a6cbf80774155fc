//! A copy of the database.

use std::path::Path;

use rusqlite::Connection;

use super::{Reader, Soundness};
use crate::ledger::Result;

impl Reader {
    /// Copies the database as of one moment, also while others write, and checks the copy. `to` is an empty file.
    pub fn copy_to(&self, to: &Path) -> Result<Soundness> {
        self.read(|source| {
            // A read transaction holds the moment; without it, each commit of a running node starts the copy over.
            let moment = source.unchecked_transaction()?;
            let count = |sql| moment.query_row(sql, [], |row| row.get::<_, i64>(0));
            let studies = count("SELECT count(*) FROM studies")? as u64;
            let instances = count("SELECT count(*) FROM instances")? as u64;
            moment.backup("main", to, None)?;
            moment.commit()?;
            let copy = Connection::open(to)?;
            // One file, no -wal beside it.
            copy.pragma_update(None, "journal_mode", "DELETE")?;
            let problem: String = copy.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
            Ok(Soundness { problem: (problem != "ok").then_some(problem), studies, instances })
        })
    }
}
