//! Whether readers agree with verdicts.

use rusqlite::params;
use serde_json::json;

use super::acknowledgement::{known, verdict_shown};
use super::reader::records;
use super::{Ledger, Reader, audit};
use crate::ledger::{Actor, Deed, FeedbackRow, LedgerError, Opinion, Result, Shown, now};

impl Ledger {
    /// Notes what a reader says of the verdict that was shown. [`LedgerError::NotFound`] where the study has none yet,
    /// [`LedgerError::JudgedAgain`] where another has taken its place. Blocks.
    pub fn give_feedback(
        &self,
        study_uid: &str,
        actor: &Actor,
        opinion: Opinion,
        note: Option<&str>,
        shown: &Shown,
    ) -> Result<()> {
        let (study_uid, actor, note, shown) = (study_uid.to_owned(), actor.clone(), note.map(str::to_owned), *shown);
        self.write_blocking(move |connection| {
            known(connection, &study_uid)?;
            let Some(verdict) = verdict_shown(connection, &study_uid, &shown)? else {
                return Err(LedgerError::NotFound(format!("there is no verdict on a study {study_uid} yet")));
            };
            connection.execute(
                "INSERT INTO feedback (study_uid, verdict_id, opinion, actor, note, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![study_uid, verdict, opinion.name(), actor.name, note, now()],
            )?;
            let details = json!({ "opinion": opinion.name() });
            audit::append(connection, &Deed { actor, name: "study.feedback", study_uid: Some(study_uid), details })
        })
    }
}

impl Reader {
    /// The readers' opinions of the verdicts on one study, or on all, oldest first; the newest `most` of them.
    pub fn feedback(&self, study_uid: Option<&str>, since: Option<&str>, most: u32) -> Result<Vec<FeedbackRow>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT * FROM (SELECT * FROM feedback_log WHERE (?1 IS NULL OR study_uid = ?1) AND (?2 IS NULL OR at >= ?2)
                                ORDER BY id DESC LIMIT ?3) ORDER BY id",
            )?;
            records(&mut statement, params![study_uid, since, most])
        })
    }
}
