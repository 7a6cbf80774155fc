//! Documents about verdicts, for channels that send them.

use crate::ledger::{DocumentState, Ledger};
use crate::report::{Document, Kind, ReportError, Reports, Which};

/// A narrow view of the node for a channel that sends documents.
pub trait Documents: Send + Sync {
    /// The document of the verdict that was given at this time. Blocks.
    fn make(&self, study_uid: &str, decided_at: &str, kind: Kind) -> Result<Document, ReportError>;

    /// The kinds of document that the peer of a message has already. Blocks.
    fn stored(&self, message: i64) -> Result<Vec<String>, String>;

    /// Notes how sending a document of a message ended. Blocks.
    fn note(&self, message: i64, kind: Kind, sop_uid: Option<&str>, state: DocumentState) -> Result<(), String>;
}

/// Made of the node's own ledger and archive.
pub struct OwnDocuments {
    pub ledger: Ledger,
    pub reports: Reports,
}

impl Documents for OwnDocuments {
    fn make(&self, study_uid: &str, decided_at: &str, kind: Kind) -> Result<Document, ReportError> {
        self.reports.make(&self.ledger, study_uid, &Which::DecidedAt(decided_at.to_owned()), kind)
    }

    fn stored(&self, message: i64) -> Result<Vec<String>, String> {
        let sent = self.ledger.sent_documents(message).map_err(|error| error.to_string())?;
        Ok(sent.into_iter().filter(|sent| sent.state == "stored").map(|sent| sent.kind).collect())
    }

    fn note(&self, message: i64, kind: Kind, sop_uid: Option<&str>, state: DocumentState) -> Result<(), String> {
        self.ledger.note_document(message, kind.as_str(), sop_uid, state).map_err(|error| error.to_string())
    }
}

/// For a process that has no ledger at hand, such as `triaged check`.
pub struct NoDocuments;

impl Documents for NoDocuments {
    fn make(&self, _: &str, _: &str, _: Kind) -> Result<Document, ReportError> {
        Err(ReportError::Unavailable("this process makes no documents".into()))
    }

    fn stored(&self, _: i64) -> Result<Vec<String>, String> {
        Ok(Vec::new())
    }

    fn note(&self, _: i64, _: Kind, _: Option<&str>, _: DocumentState) -> Result<(), String> {
        Ok(())
    }
}
