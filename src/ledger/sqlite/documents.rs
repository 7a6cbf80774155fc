//! Documents that channels send with their messages, instance by instance.

use rusqlite::params;

use super::reader::records;
use super::{Ledger, Reader};
use crate::ledger::{DocumentState, Result, SentDocument, now};

impl Reader {
    /// The documents of a message that were sent, or could not be. Blocks.
    pub fn sent_documents(&self, notification: i64) -> Result<Vec<SentDocument>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT * FROM document_log WHERE notification_id = ?1")?;
            records(&mut statement, [notification])
        })
    }

    /// The documents about a study that channels sent, or could not. Blocks.
    pub fn documents_of(&self, study_uid: &str) -> Result<Vec<SentDocument>> {
        self.read(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT * FROM document_log WHERE study_uid = ?1 ORDER BY notification_id, kind")?;
            records(&mut statement, [study_uid])
        })
    }
}

impl Ledger {
    /// Writes how sending a document of a message ended. Blocks.
    pub fn note_document(
        &self,
        notification: i64,
        kind: &'static str,
        sop_uid: Option<&str>,
        state: DocumentState,
    ) -> Result<()> {
        let sop_uid = sop_uid.map(str::to_owned);
        self.write_blocking(move |connection| {
            let (state, error) = match &state {
                DocumentState::Stored => ("stored", None),
                DocumentState::Refused(why) => ("refused", Some(why)),
                DocumentState::Unavailable(why) => ("unavailable", Some(why)),
            };
            connection
                .prepare_cached(
                    "INSERT INTO sent_documents (notification_id, kind, sop_uid, state, error, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                     ON CONFLICT (notification_id, kind) DO UPDATE SET sop_uid = excluded.sop_uid, state = excluded.state,
                        error = excluded.error, at = excluded.at, attempts = attempts + 1",
                )?
                .execute(params![notification, kind, sop_uid, state, error, now()])?;
            Ok(())
        })
    }
}
