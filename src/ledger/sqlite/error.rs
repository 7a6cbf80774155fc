//! SQLite's errors in the ledger's words.

use rusqlite::ErrorCode;

use crate::ledger::{DatabaseError, LedgerError};

impl From<rusqlite::Error> for DatabaseError {
    fn from(error: rusqlite::Error) -> DatabaseError {
        use ErrorCode::{CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, SystemIoFailure};
        let passing = [DatabaseBusy, DatabaseLocked, DiskFull, SystemIoFailure, CannotOpen];
        let may_pass = error.sqlite_error_code().is_some_and(|code| passing.contains(&code));
        DatabaseError::new(error, may_pass)
    }
}

impl From<rusqlite::Error> for LedgerError {
    fn from(error: rusqlite::Error) -> LedgerError {
        LedgerError::Database(error.into())
    }
}
