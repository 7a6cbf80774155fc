//! Delivers the reports of storage commitment (N-EVENT-REPORT, PS3.4 J.3.3): on the association of the request while it is open, else
//! on an association of the node's own to the peer, in the role of SCP. What is not delivered is tried again, over restarts too.

use std::sync::Arc;
use std::time::Duration;

use dicom_dictionary_std::{tags, uids};
use jiff::Timestamp;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::commitment::{Commitments, Report};
use crate::config;
use crate::ledger::{CommitmentEnd, CommitmentRow, Ledger, LedgerError, format_time};

use super::command::{NewCommandSet, Operation};
use super::context::Context;
use super::link::Caller;
use super::scu::{self, Association, Role};

/// How long the association of the request is waited for: to be released, or to take the report.
pub const SAME_ASSOCIATION: Duration = Duration::from_secs(60);

/// Most requestors release at once, and some of those do not expect a request meanwhile.
const GRACE: Duration = Duration::from_millis(500);

/// For the connection to a requestor and each of its answers.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often requests are looked for whose time has come.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// After so many attempts (some four days) a report is given up.
const MOST_ATTEMPTS: u32 = 30;
const FIRST_RETRY: Duration = Duration::from_secs(10);
const LONGEST_RETRY: Duration = Duration::from_secs(4 * 3600);

/// Cheap to clone.
#[derive(Clone)]
pub struct Reporter {
    ledger: Ledger,
    commitments: Commitments,
    settings: Arc<config::Dimse>,
    /// Files are read again for one report at a time, so that a large request does not slow the intake.
    reading: Arc<Semaphore>,
    due: Arc<Notify>,
}

impl Reporter {
    pub fn new(ledger: Ledger, commitments: Commitments, settings: &config::Dimse) -> Reporter {
        let settings = Arc::new(settings.clone());
        Reporter { ledger, commitments, settings, reading: Arc::new(Semaphore::new(1)), due: Arc::default() }
    }

    /// Delivers on associations of the node's own until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        // No association of before is open: what waits for one is due.
        if let Err(error) = self.ledger.resume_commitments().await {
            error!("reports of storage commitment cannot be resumed: {error}");
        }
        loop {
            if let Err(error) = self.round(&stop).await {
                error!("reports of storage commitment cannot be looked for: {error}");
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = self.due.notified() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn round(&self, stop: &CancellationToken) -> Result<(), LedgerError> {
        let ledger = self.ledger.clone();
        let due = tokio::task::spawn_blocking(move || ledger.due_commitments(64, LONGEST_RETRY)).await;
        for request in due.map_err(|_| LedgerError::Closed)?? {
            if stop.is_cancelled() {
                break;
            }
            let sent = tokio::select! {
                sent = self.on_own_association(&request) => sent,
                () = stop.cancelled() => break,
            };
            let end = match sent {
                Ok(report) => delivered(&request, &report, "a new association"),
                Err(failed) => self.later(&request, failed),
            };
            self.ledger.end_commitment(request.id, end).await?;
        }
        Ok(())
    }

    /// The report of a request, from the files as they are now.
    async fn report(&self, request: &CommitmentRow) -> Result<Report, LedgerError> {
        let _turn = self.reading.acquire().await.map_err(|_| LedgerError::Closed)?;
        let (commitments, request) = (self.commitments.clone(), request.clone());
        tokio::task::spawn_blocking(move || commitments.report(&request)).await.map_err(|_| LedgerError::Closed)?
    }

    /// Reports on the association of the request, if it stays open. Else the request is due at once.
    pub async fn on_same_association(&self, id: i64, caller: Caller, context: Context) {
        let told = async {
            let ledger = self.ledger.clone();
            let request = tokio::task::spawn_blocking(move || ledger.commitment(id)).await;
            let Some(request) = request.map_err(|_| LedgerError::Closed)?? else { return Ok(true) };
            tokio::time::sleep(GRACE).await;
            if caller.is_over() {
                return Ok(false);
            }
            let report = self.report(&request).await?;
            let Ok(data_set) = report.write(context.transfer_syntax) else { return Ok(false) };
            match caller.call(&context, event(&report), Some(data_set)).await {
                Ok(reply) if reply.status == 0 => {
                    let end = delivered(&request, &report, "the association of the request");
                    self.ledger.end_commitment(id, end).await?;
                    Ok(true)
                }
                Ok(_) | Err(_) => Ok::<bool, LedgerError>(false),
            }
        };
        let told = tokio::time::timeout(SAME_ASSOCIATION, told).await;
        if matches!(told, Ok(Ok(true))) {
            return;
        }
        let end = CommitmentEnd::Again { at: format_time(Timestamp::now()), error: NOT_ON_THE_SAME.into() };
        if let Err(error) = self.ledger.end_commitment(id, end).await {
            warn!(%error, "a report of storage commitment waits for its next attempt");
        }
        self.due.notify_one();
    }

    async fn on_own_association(&self, request: &CommitmentRow) -> Result<Report, Undelivered> {
        let known = match &request.peer {
            Some(name) => self.settings.peer(name),
            None => None,
        };
        let titled = |peer: &&config::KnownPeer| peer.ae_titles.iter().any(|title| title.trim() == request.calling_ae);
        let Some(known) = known.or_else(|| self.settings.peers.iter().find(titled)) else {
            let why = format!(
                "no peer of dimse.peers has the AE title {:?}, so that the node could call it",
                request.calling_ae
            );
            return Err(Undelivered::ForGood(why));
        };
        // The title that asked is the one that expects the answer.
        let called = request.calling_ae.clone();
        let calling = Some(request.called_ae.clone()).filter(|title| config::ae_title_is_valid(title));
        let peer = scu::Peer::known(known, &self.settings, PATIENCE).map_err(|error| match error {
            scu::PeerError::NoAddress(_) => Undelivered::ForGood(error.to_string()),
            error => Undelivered::ForNow(error.to_string()),
        })?;
        let calling_ae_title = calling.unwrap_or_else(|| peer.calling_ae_title.clone());
        let peer = scu::Peer { called_ae_title: called, calling_ae_title, ..peer };
        let report = self.report(request).await.map_err(|error| Undelivered::ForNow(error.to_string()))?;
        let sent = report.clone();
        let sent = tokio::task::spawn_blocking(move || send(&peer, &sent)).await;
        sent.map_err(|error| Undelivered::ForNow(error.to_string()))?.map_err(Undelivered::ForNow)?;
        Ok(report)
    }

    fn later(&self, request: &CommitmentRow, failed: Undelivered) -> CommitmentEnd {
        let (calling_ae, attempts) = (&request.calling_ae, request.attempts + 1);
        let error = match failed {
            Undelivered::ForNow(error) if attempts < MOST_ATTEMPTS => {
                let wait = FIRST_RETRY.saturating_mul(1 << request.attempts.min(16)).min(LONGEST_RETRY);
                warn!(calling_ae, attempts, "a report of storage commitment was not delivered, for now: {error}");
                return CommitmentEnd::Again { at: format_time(Timestamp::now() + wait), error };
            }
            Undelivered::ForNow(error) | Undelivered::ForGood(error) => error,
        };
        metrics::counter!("triaged_commitments_total", "outcome" => "dead").increment(1);
        error!(
            calling_ae,
            attempts,
            transaction_uid = request.transaction_uid,
            "a report of storage commitment is given up; the sender hears of it when it asks again: {error}"
        );
        CommitmentEnd::GivenUp { error }
    }
}

/// Why the report is not sent on the association of the request.
const NOT_ON_THE_SAME: &str = "the association of the request ended before the report";

/// Why a report did not arrive.
enum Undelivered {
    ForNow(String),
    ForGood(String),
}

fn delivered(request: &CommitmentRow, report: &Report, on: &str) -> CommitmentEnd {
    let (committed, failed) = (report.committed.len() as u64, report.failed.len() as u64);
    metrics::counter!("triaged_commitments_total", "outcome" => "delivered").increment(1);
    info!(calling_ae = request.calling_ae, committed, failed, "storage commitment reported on {on}");
    CommitmentEnd::Delivered { committed, failed }
}

fn event(report: &Report) -> NewCommandSet {
    NewCommandSet::request(Operation::NEventReport)
        .uid(tags::AFFECTED_SOP_CLASS_UID, uids::STORAGE_COMMITMENT_PUSH_MODEL)
        .uid(tags::AFFECTED_SOP_INSTANCE_UID, uids::STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE)
        .number(tags::EVENT_TYPE_ID, report.event_type())
}

/// Sends a report on an association of the node's own. Blocks. `Err` says why it did not arrive.
fn send(peer: &scu::Peer, report: &Report) -> Result<(), String> {
    let syntaxes = [uids::EXPLICIT_VR_LITTLE_ENDIAN, uids::IMPLICIT_VR_LITTLE_ENDIAN];
    let contexts = syntaxes.map(|syntax| (uids::STORAGE_COMMITMENT_PUSH_MODEL.to_owned(), syntax.to_owned()));
    let mut association = Association::request(peer, &contexts, Role::Scp).map_err(|error| error.to_string())?;
    let Some(context) = association.accepted.first().cloned() else { return Err("no context was accepted".into()) };
    let data_set = report.write(&context.transfer_syntax)?;
    let asked = association.ask(context.id, Operation::NEventReport, 1, event(report), Some(&data_set));
    let response = asked.map_err(|error| error.to_string())?;
    association.release();
    match response.status {
        0 => Ok(()),
        status => Err(format!("the report was answered with status {status:04X}H")),
    }
}
