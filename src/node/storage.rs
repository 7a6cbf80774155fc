//! Opens archive and ledger together, and looks whether they belong to each other before either is written.

use std::path::Path;

use tracing::warn;

use crate::archive::Archive;
use crate::config::Settings;
use crate::ledger::{FileStanding, Ledger, LedgerError, Reader, set_foreign_log_aside};
use crate::lineage::Lineage;

use super::error::{StartError, StorageError};

/// Files of the archive that are looked for where the archive does not know its ledger.
const SAMPLE: u32 = 50;

/// Archive and ledger, which belong to each other now.
pub struct Storage {
    pub archive: Archive,
    pub ledger: Ledger,
    /// What is to be told to people of how they were found; none where they were as the node had left them.
    pub remark: Option<String>,
}

/// What to do with an archive and a ledger that do not belong to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strangers {
    /// Change nothing, and say so.
    Refuse,
    /// Join them: a person has said that this is wanted (`triaged recover --join`).
    Join,
}

/// Opens both. Makes what is not there yet. Blocks.
pub fn open_storage(settings: &Settings, strangers: Strangers) -> Result<Storage, StartError> {
    let folder = |source| StartError::DataFolder { path: settings.data_dir.clone(), source };
    let (archive, parts) = Archive::open(&settings.data_dir).map_err(folder)?;
    if parts > 0 {
        warn!(
            parts,
            "removed objects that were coming in when the node last ended; their senders had no success for them"
        );
    }
    let archive = archive.with_min_free(settings.archive.min_free_mib.saturating_mul(1 << 20));
    let told = archive.told().map_err(folder)?;
    let database = settings.database();
    let mut remarks = Vec::new();
    if let Some(told) = &told {
        // Before anything reads the database: a log of another state would show it damaged. The log of a stranger stays.
        if set_foreign_log_aside(&database, told)? == FileStanding::LogSetAside {
            remarks.push("a write-ahead log of a later state lay beside the database and was moved away".to_owned());
        }
        // Before anything is written into a database that is not ours.
        if strangers == Strangers::Refuse && database.exists() {
            refuse_stranger(&Reader::open_former(&database)?, told, &database)?;
        }
    }
    let was_there = database.exists();
    let ledger = Ledger::open(&database)?;
    let (identity, generation) = ledger.stored_identity()?;
    let is_away = || Ok::<_, LedgerError>(generation > 0 && has_no_file(&ledger, &archive)?);
    let lineage = match &told {
        None if strangers == Strangers::Refuse && is_away()? => {
            return Err(StorageError::ArchiveAway { archive: settings.data_dir.join("archive") }.into());
        }
        None => Lineage { identity, generation: generation + 1, in_file: 0 },
        Some(told) => {
            remarks.extend(remark(told, &identity, generation, was_there));
            Lineage { identity: told.identity.clone(), generation: told.generation.max(generation) + 1, in_file: 0 }
        }
    };
    ledger.take_identity(&lineage.identity, lineage.generation)?;
    archive.tell(&lineage).map_err(folder)?;
    let remark = (!remarks.is_empty()).then(|| remarks.join("; "));
    Ok(Storage { archive, ledger, remark })
}

/// A database with an identity of its own and with objects belongs to another archive. One of before there were identities has none that
/// counts, and an empty one is what somebody made after a loss.
fn refuse_stranger(database: &Reader, told: &Lineage, path: &Path) -> Result<(), StartError> {
    let Some((found, generation)) = database.identity_if_any()? else { return Ok(()) };
    if found == told.identity || generation == 0 || !database.has_instances()? {
        return Ok(());
    }
    Err(StorageError::Foreign { database: path.into(), found, expected: told.identity.clone() }.into())
}

/// Whether none of the files that the ledger lists is there, though it lists some.
fn has_no_file(ledger: &Ledger, archive: &Archive) -> Result<bool, LedgerError> {
    let files = ledger.archived_files(SAMPLE)?;
    Ok(!files.is_empty() && !files.iter().any(|file| archive.file(&file.path).exists()))
}

fn remark(told: &Lineage, identity: &str, generation: u64, was_there: bool) -> Option<String> {
    if !was_there {
        return Some("the database was gone, and a new one was made".into());
    }
    if identity != told.identity {
        return Some("the database was not the one that the archive had, and was joined with it".into());
    }
    let behind = told.generation.checked_sub(generation).filter(|behind| *behind > 0)?;
    Some(format!("the database is an older state, {behind} steps behind the archive"))
}
