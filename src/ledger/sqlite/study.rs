//! The life of a study between receiving and decided.

use rusqlite::{Connection, params};

use crate::ledger::{Result, now};

/// Reopens a study that was decided, as its next revision; one that is open stays as it is. The one place where this is done.
///
/// Its flag stays up if it was up, for a machine never retracts; "not flagged" is no longer true of it.
pub(super) fn reopen(connection: &Connection, study_uid: &str) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE studies SET state = 'receiving', revision = revision + 1, opened_at = ?2, decided_at = NULL,
                    flagged = iif(flagged = 0, NULL, flagged), verdict = iif(flagged = 1, verdict, NULL), missing = NULL
             WHERE study_uid = ?1 AND state = 'decided'",
        )?
        .execute(params![study_uid, now()])?;
    Ok(())
}
