//! Why the ledger did not do what it was asked.

use std::path::PathBuf;

/// An error of the ledger. `NotFound` and `JudgedAgain` are the caller's, everything else the database's.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("cannot open the database {path}: {source}")]
    Open { path: PathBuf, source: DatabaseError },
    #[error("the database {path} cannot be brought to this version's schema: {source}")]
    Migrate { path: PathBuf, source: DatabaseError },
    #[error(
        "the database {path} has schema {found}, which a newer triaged made; this one reads up to {known}: run the newer program, or restore \
         a backup from before the upgrade"
    )]
    Newer { path: PathBuf, found: usize, known: usize },
    #[error(
        "the database {path} has schema {found}, which an earlier triaged made; this one reads {known}: make a copy (`triaged backup`), stop the \
         earlier program where it still runs, and start this one, which brings the database to its schema"
    )]
    Older { path: PathBuf, found: usize, known: usize },
    #[error(
        "the database {path} was removed or replaced while the node runs ({why}): nothing is kept until the node is started again, on the one \
         that is there then"
    )]
    Replaced { path: PathBuf, why: String },
    #[error("database: {0}")]
    Database(#[from] DatabaseError),
    #[error("database: the transaction could not begin: {0}")]
    Begin(String),
    #[error("database: the transaction could not be committed: {0}")]
    Commit(String),
    #[error("{0}")]
    NotFound(String),
    /// A deed was about a verdict that is not what the study says any more. Nothing was done.
    #[error("{0}")]
    JudgedAgain(String),
    #[error("the ledger is closed")]
    Closed,
}

/// The error of the database, whichever database it is.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct DatabaseError {
    source: Box<dyn std::error::Error + Send + Sync>,
    may_pass: bool,
}

impl DatabaseError {
    /// `may_pass`: it may be gone at the next try.
    pub fn new(source: impl Into<Box<dyn std::error::Error + Send + Sync>>, may_pass: bool) -> DatabaseError {
        DatabaseError { source: source.into(), may_pass }
    }
}

impl LedgerError {
    /// A row that this version cannot read: it will be the same at the next try.
    pub fn unreadable(why: impl std::fmt::Display) -> LedgerError {
        LedgerError::Database(DatabaseError::new(format!("a row cannot be read: {why}"), false))
    }

    /// Whether it may be gone at the next try: another process kept the database from us for too long, or the disk is full, ails
    /// or is not there yet.
    pub fn may_pass(&self) -> bool {
        match self {
            LedgerError::Open { source, .. } | LedgerError::Migrate { source, .. } | LedgerError::Database(source) => {
                source.may_pass
            }
            LedgerError::NotFound(_)
            | LedgerError::JudgedAgain(_)
            | LedgerError::Newer { .. }
            | LedgerError::Older { .. } => false,
            LedgerError::Replaced { .. } => true,
            LedgerError::Begin(_) | LedgerError::Commit(_) | LedgerError::Closed => true,
        }
    }
}

pub type Result<T, E = LedgerError> = std::result::Result<T, E>;
