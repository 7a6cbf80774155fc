//! The life of a study between receiving and decided.

use rusqlite::{Connection, params};
use serde_json::json;

use super::priority::{FAILED_AGAIN, FAILED_STAT_AGAIN, SCORED_AGAIN};
use super::{Ledger, audit};
use crate::ledger::{Actor, Deed, Queue, Result, now};

/// Of the study ?1: the series of which its acquisition has more images than came. Series, words, and 0, for nobody knows how many objects
/// these are. They are missing where the last association was broken off; else the sender may have kept them.
pub(super) const FEWER_IMAGES: &str =
    "SELECT i.series_uid, 'only ' || count(*) || ' of the ' || max(i.images_in_acquisition) || ' images of the acquisition came', 0
     FROM slices s JOIN instances i ON i.id = s.instance_id WHERE s.study_uid = ?1
     GROUP BY i.series_uid HAVING count(*) < max(i.images_in_acquisition) AND sum(s.state <> 'ineligible') > 0";

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

impl Ledger {
    /// Puts every slice of a study that was scored or failed back into the queue, as far as the archive still has its file, and
    /// reopens the study as its next revision. Returns how many slices that is. Blocks.
    ///
    /// A file that is known to be lost cannot be read again: its score is the best that there is, and stays.
    pub fn requeue_study(&self, study_uid: &str, actor: &Actor) -> Result<u64> {
        let (study_uid, actor) = (study_uid.to_owned(), actor.clone());
        let slices = self.write_blocking(move |connection| {
            let slices = connection.execute(
                "UPDATE slices SET state = 'queued', reason = NULL, attempts = 0, claims = 0,
                    -- What failed was never scored: it waits in its own turn, and a STAT slice before others.
                    priority = CASE WHEN state <> 'failed' THEN ?2 WHEN priority < 0 THEN ?3 ELSE ?4 END, score_id = NULL
                 WHERE study_uid = ?1 AND state IN ('scored', 'failed')
                   AND instance_id IN
                       (SELECT id FROM instances WHERE study_uid = ?1 AND removed_at IS NULL AND lost_at IS NULL)",
                params![study_uid, SCORED_AGAIN, FAILED_STAT_AGAIN, FAILED_AGAIN],
            )?;
            if slices > 0 {
                reopen(connection, &study_uid)?;
                // For one that was open its time begins anew, too: the slices have to wait again.
                connection
                    .execute("UPDATE studies SET opened_at = ?2 WHERE study_uid = ?1", params![study_uid, now()])?;
                let details = json!({ "slices": slices });
                audit::append(connection, &Deed { actor, name: "study.rescore", study_uid: Some(study_uid), details })?;
            }
            Ok(slices as u64)
        })?;
        self.queued().notify_waiters();
        Ok(slices)
    }
}
