//! The PACS channel: the structured report of a verdict, and the key image of a flagged one, by C-STORE.
//!
//! The node notes document by document which of them the peer has stored, so another attempt sends the missing ones. A document that
//! is sent twice all the same, after a crash, is the same instance.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{
    Attempt, Channel, ChannelError, DocumentPeer, Documents, Failure, Message, NotStored, Outcome, Surroundings,
};
use crate::config;
use crate::event::Event;
use crate::ledger::DocumentState;
use crate::report::{Document, Kind, ReportError};

/// How many characters of a peer's comment are kept.
const MOST_COMMENT: usize = 200;

/// Connection, negotiation, two documents and the release, each within the peer's timeout; then a peer that drips is left.
const STEPS: u32 = 8;

/// Sends to one PACS.
pub struct Pacs {
    name: String,
    peer: Arc<dyn DocumentPeer>,
    report: bool,
    key_image: bool,
    documents: Arc<dyn Documents>,
    /// One association at a time: a PACS limits them, and an attempt that was left behind must end first.
    calling: Arc<Mutex<()>>,
}

impl Pacs {
    pub fn new(name: &str, settings: &config::Pacs, surroundings: &Surroundings) -> Result<Pacs, ChannelError> {
        let wrong = |key: &str, why: String| ChannelError::new(format!("notify.channels, channel {name:?}.{key}"), why);
        let peer = surroundings.peers.open(&settings.peer).map_err(|(key, why)| wrong(key, why))?;
        if !settings.report && !settings.key_image {
            return Err(wrong("report", "is false, and so is key_image: nothing would be sent".into()));
        }
        Ok(Pacs {
            name: name.to_owned(),
            peer,
            report: settings.report,
            key_image: settings.key_image,
            documents: surroundings.documents.clone(),
            calling: Arc::default(),
        })
    }

    async fn send(&self, message: &Message) -> Outcome {
        let attempt = Call {
            peer: self.peer.clone(),
            report: self.report,
            key_image: self.key_image,
            documents: self.documents.clone(),
            calling: self.calling.clone(),
            message: message.id,
            event: message.event.clone(),
        };
        let call = tokio::task::spawn_blocking(move || attempt.run());
        match tokio::time::timeout(self.peer.timeout() * STEPS, call).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Outcome::Reject { error: "sending panicked; this is a bug".into() },
            Err(_) => retry(format!("{} did not take the documents in time", self.peer.address())),
        }
    }
}

impl Channel for Pacs {
    fn name(&self) -> &str {
        &self.name
    }

    fn deliver<'a>(&'a self, message: &'a Message) -> Attempt<'a> {
        Box::pin(self.send(message))
    }
}

/// An attempt on a blocking thread.
struct Call {
    peer: Arc<dyn DocumentPeer>,
    report: bool,
    key_image: bool,
    documents: Arc<dyn Documents>,
    calling: Arc<Mutex<()>>,
    message: i64,
    event: Event,
}

impl Call {
    fn run(self) -> Outcome {
        let calling = self.calling.clone();
        let Ok(_turn) = calling.try_lock() else {
            let after = Some(Duration::from_secs(1));
            return Outcome::Retry { error: "an earlier association with this peer is still open".into(), after };
        };
        if let Event::Test(_) = self.event {
            return match self.peer.echo() {
                Ok(()) => Outcome::Delivered,
                Err(error) => retry(error),
            };
        }
        let study = match &self.event {
            Event::Flagged(study) | Event::Revised(study) | Event::Incomplete(study) | Event::NotFlagged(study) => {
                study
            }
            // The routing keeps these from a PACS.
            _ => return Outcome::Reject { error: "a PACS is sent verdicts only".into() },
        };
        let is_flagged = matches!(self.event, Event::Flagged(_) | Event::Revised(_));
        let wanted = [(Kind::Report, self.report), (Kind::KeyImage, self.key_image && is_flagged)];
        let stored = match self.documents.stored(self.message) {
            Ok(stored) => stored,
            Err(error) => return retry(error),
        };
        let mut documents = Vec::new();
        for (kind, _) in wanted.into_iter().filter(|(kind, wanted)| *wanted && !stored.contains(&kind.as_str().into()))
        {
            match self.documents.make(&study.study_uid, &study.decided_at, kind) {
                Ok(document) => documents.push(document),
                Err(error @ (ReportError::Ledger(_) | ReportError::NotNow(_))) => return retry(error.to_string()),
                // There will be no key image of a slice whose file is gone; the report goes all the same.
                Err(ReportError::Unavailable(why)) => {
                    if let Err(error) =
                        self.documents.note(self.message, kind, None, DocumentState::Unavailable(why.clone()))
                    {
                        return retry(error);
                    }
                    if kind == Kind::Report {
                        return Outcome::Reject { error: why.into() };
                    }
                }
            }
        }
        if !self.report && !is_flagged {
            // A delivery without a document would count as one that told somebody of the study.
            let why = "only a flagged study has a key image, and report is false for this PACS".to_owned();
            if let Err(error) = self.documents.note(self.message, Kind::KeyImage, None, DocumentState::Unavailable(why))
            {
                return retry(error);
            }
        }
        if documents.is_empty() { Outcome::Delivered } else { self.store(&documents) }
    }

    fn store(&self, documents: &[Document]) -> Outcome {
        let mut failures = Vec::new();
        let (mut is_lasting, mut unwritten) = (false, None);
        let ended = self.peer.store(documents, &mut |document, result| {
            let state = match result {
                Ok(()) => DocumentState::Stored,
                Err(NotStored { why, may_pass }) => {
                    is_lasting |= !may_pass;
                    let text: String =
                        format!("the {}: {why}", document.kind.as_str()).chars().take(MOST_COMMENT).collect();
                    failures.push(text.clone());
                    DocumentState::Refused(text)
                }
            };
            let noted = self.documents.note(self.message, document.kind, Some(&document.sop_instance_uid), state);
            if let Err(error) = noted {
                unwritten = Some(error);
            }
        });
        match (ended, failures.is_empty(), unwritten) {
            (_, _, Some(error)) => retry(error),
            (Err(NotStored { why, may_pass: false }), ..) => Outcome::Reject { error: why.into() },
            (Err(NotStored { why, .. }), ..) => retry(why),
            (Ok(()), true, None) => Outcome::Delivered,
            (Ok(()), false, None) => {
                // The peer's words may repeat the document, so they go to the ledger only.
                let text = format!("{} did not store {} of {}", self.peer.address(), failures.len(), documents.len());
                let error = Failure { text, reply: Some(failures.join("; ")) };
                if is_lasting { Outcome::Reject { error } } else { Outcome::Retry { error, after: None } }
            }
        }
    }
}

fn retry(error: String) -> Outcome {
    Outcome::Retry { error: error.into(), after: None }
}
