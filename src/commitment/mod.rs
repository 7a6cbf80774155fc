//! Storage commitment (PS3.4 J, Push Model): what the node says when a sender asks whether it keeps its objects.
//!
//! A request is a row before it is answered, so a restart loses none. Whether an instance is kept is decided when the report is made:
//! by its row, and by the digest of its file, read again. [`information`] is what request and report say on the wire. This module
//! knows no association: `dimse` receives the requests and delivers the reports.

pub mod information;

use std::time::Duration;

use jiff::Timestamp;
use tracing::warn;

use crate::archive::Archive;
use crate::config;
use crate::ledger::{CommitmentRow, KeptInstance, Ledger, LedgerError, NewCommitment, PendingCommitments, format_time};
use crate::plural::counted;

pub use information::{FailureReason, Reference, Report};

/// The part of a budget (`archive.max_gib`) from which files are so near to their removal that none is committed.
const NEARLY_FULL: f64 = 0.9;

/// Requests that may wait for their reports: of a sender, by AE title or address, and of all. A sender that asks for each image of a day
/// alone, and cannot be called, does not reach them.
const MOST_PENDING: [PendingCommitments; 2] =
    [PendingCommitments { requests: 5_000, bytes: 256 << 20 }, PendingCommitments { requests: 20_000, bytes: 1 << 30 }];

/// Requests and their reports. Cheap to clone.
#[derive(Clone)]
pub struct Commitments {
    ledger: Ledger,
    archive: Archive,
    /// How long retention keeps a file from when it was received; `None`: for ever.
    keep: Option<Duration>,
    /// Bytes of the archive past which retention removes files.
    budget: Option<u64>,
    /// How much longer a file has to be kept to be committed.
    least: Duration,
}

/// The state of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requested {
    /// It is recorded: a report with this number follows.
    Accepted(i64),
    /// The same requestor has used the transaction UID for other instances.
    DuplicateTransaction,
    /// The node keeps no more requests now, for this reason; the requestor should ask again later.
    OutOfResources(String),
}

impl Commitments {
    pub fn new(ledger: Ledger, archive: Archive, settings: &config::Settings) -> Commitments {
        let days = |days: f64| Duration::from_secs_f64(days.max(0.0) * 86_400.0);
        let (retention, budget) = (settings.archive.retention_days, settings.archive.max_gib);
        Commitments {
            ledger,
            archive,
            keep: (retention > 0.0).then(|| days(retention)),
            budget: (budget > 0.0).then_some((budget * f64::from(1 << 30)) as u64),
            least: days(settings.dimse.storage_commitment.min_days),
        }
    }

    /// Records a request. When this returns `Ok`, it is on disk.
    pub async fn request(&self, request: NewCommitment) -> Result<Requested, LedgerError> {
        let (commitments, calling_ae, address) = (self.clone(), request.calling_ae.clone(), request.address.clone());
        let full = tokio::task::spawn_blocking(move || commitments.is_full(&calling_ae, &address)).await;
        if let Some(why) = full.map_err(|_| LedgerError::Closed)?? {
            return Ok(Requested::OutOfResources(why));
        }
        let recorded = self.ledger.request_commitment(request).await?;
        Ok(recorded.map_or(Requested::DuplicateTransaction, Requested::Accepted))
    }

    /// Why no more requests of a sender are kept now, if that is so. Blocks.
    fn is_full(&self, calling_ae: &str, address: &str) -> Result<Option<String>, LedgerError> {
        // Requests are on the disk that the archive is on, and what is free there is for objects.
        if let Err(error) = self.archive.room() {
            return Ok(Some(error.to_string()));
        }
        let pending = self.ledger.pending_commitments(calling_ae, address)?;
        let is_past = |(pending, most): (&PendingCommitments, &PendingCommitments)| {
            pending.requests >= most.requests || pending.bytes >= most.bytes
        };
        let past = pending.iter().zip(&MOST_PENDING).position(is_past);
        Ok(past.map(|which| {
            let whose = ["of this sender", "of all senders"][which];
            format!("{} {whose} wait for reports", counted(pending[which].requests, "request"))
        }))
    }

    /// Makes the report of a request from what is there now: each file is read again. Blocks, for as long as that takes.
    pub fn report(&self, request: &CommitmentRow) -> Result<Report, LedgerError> {
        let references: Vec<Reference> = serde_json::from_str(&request.items).map_err(LedgerError::unreadable)?;
        let now = Timestamp::now();
        let is_full = match self.budget {
            Some(budget) => self.ledger.archived_bytes()? as f64 > budget as f64 * NEARLY_FULL,
            None => false,
        };
        let mut report = Report { transaction_uid: request.transaction_uid.clone(), ..Report::default() };
        for reference in references {
            match self.decide(&reference, is_full, now)? {
                Ok(()) => report.committed.push(reference),
                Err(reason) => report.failed.push((reference, reason)),
            }
        }
        Ok(report)
    }

    /// Whether the node keeps an instance, and will: `Err` says why it does not commit itself.
    fn decide(
        &self,
        reference: &Reference,
        is_full: bool,
        now: Timestamp,
    ) -> Result<Result<(), FailureReason>, LedgerError> {
        let kept = self.ledger.kept_instances(&reference.sop_instance_uid)?;
        if kept.is_empty() {
            return Ok(Err(FailureReason::NoSuchInstance));
        }
        if kept.iter().all(|instance| instance.sop_class_uid != reference.sop_class_uid) {
            return Ok(Err(FailureReason::ClassInstanceConflict));
        }
        // Whoever asks may mean the other content that came under these UIDs and is set aside.
        if self.ledger.is_in_conflict(&reference.sop_instance_uid)? {
            return Ok(Err(FailureReason::ProcessingFailure));
        }
        if is_full || kept.iter().any(|instance| self.is_due(instance, now)) {
            return Ok(Err(FailureReason::ResourceLimitation));
        }
        for instance in kept {
            match self.archive.digest(&instance.path) {
                Ok(digest) if digest == instance.digest => {}
                Ok(_) => {
                    warn!(
                        path = instance.path,
                        "the file is not what was received: it is not committed; restore it from a backup"
                    );
                    return Ok(Err(FailureReason::ProcessingFailure));
                }
                Err(error) => {
                    warn!(path = instance.path, %error, "the file cannot be read: it is not committed");
                    return Ok(Err(FailureReason::ProcessingFailure));
                }
            }
        }
        Ok(Ok(()))
    }

    /// Whether retention may remove the file before it was kept for as long as a commitment says.
    fn is_due(&self, instance: &KeptInstance, now: Timestamp) -> bool {
        let Some(keep) = self.keep else { return false };
        let Some(left) = keep.checked_sub(self.least) else { return true };
        // As retention compares: moments as text.
        let Ok(before) = now.checked_sub(left) else { return false };
        instance.received_at < format_time(before)
    }
}
