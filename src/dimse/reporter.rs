//! Delivers the reports of storage commitment (N-EVENT-REPORT, PS3.4 J.3.3): on the association of the request while it is open, else
//! on an association of the node's own to the peer, in the role of SCP. What is not delivered is tried again, over restarts too.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dicom_dictionary_std::{tags, uids};
use jiff::Timestamp;
use tokio::sync::{Notify, Semaphore};
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::commitment::{Commitments, Report};
use crate::config;
use crate::ledger::{CommitmentEnd, CommitmentRow, DueCommitment, Ledger, LedgerError, format_time};

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

/// Peers that are told at one time, each of its own requests one after the other; and requests of a peer that are taken up at once.
const MOST_PEERS: usize = 32;
const MOST_OF_PEER: usize = 64;

/// Which instances a request named is forgotten so long after its end, looked for once an hour, a few requests in a write.
const KEPT_AFTER_END: Duration = Duration::from_secs(7 * 86_400);
const FORGET_EVERY: Duration = Duration::from_secs(3600);
const FORGOTTEN_AT_ONCE: usize = 16;

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
        // Each peer is told by a task of its own, so that one that hangs holds up no other.
        let mut telling: JoinSet<()> = JoinSet::new();
        let mut told: HashMap<Id, String> = HashMap::new();
        let mut forgot: Option<Instant> = None;
        loop {
            match self.due(&told).await {
                Ok(due) => {
                    for (who, ids) in due {
                        let task = telling.spawn(self.clone().tell(ids, stop.clone()));
                        told.insert(task.id(), who);
                    }
                }
                Err(error) => error!("reports of storage commitment cannot be looked for: {error}"),
            }
            if forgot.is_none_or(|at| at.elapsed() >= FORGET_EVERY) {
                self.forget().await;
                forgot = Some(Instant::now());
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = self.due.notified() => {}
                Some(ended) = telling.join_next_with_id(), if !telling.is_empty() => {
                    told.remove(&ended.map_or_else(|error| error.id(), |(id, ())| id));
                }
                () = stop.cancelled() => break,
            }
        }
        while telling.join_next().await.is_some() {}
    }

    /// The requests that are due, by whom to tell; nobody who is `told` already.
    async fn due(&self, told: &HashMap<Id, String>) -> Result<Vec<(String, Vec<i64>)>, LedgerError> {
        let ledger = self.ledger.clone();
        let due = tokio::task::spawn_blocking(move || ledger.due_commitments(MOST_OF_PEER, LONGEST_RETRY)).await;
        let busy: HashSet<&String> = told.values().collect();
        let mut of_peers: Vec<(String, Vec<i64>)> = Vec::new();
        for DueCommitment { id, who } in due.map_err(|_| LedgerError::Closed)?? {
            let is_room_left = busy.len() + of_peers.len() < MOST_PEERS;
            match of_peers.iter_mut().find(|(other, _)| *other == who) {
                Some((_, ids)) => ids.push(id),
                None if is_room_left && !busy.contains(&who) => of_peers.push((who, vec![id])),
                None => {}
            }
        }
        Ok(of_peers)
    }

    /// Tells a peer of its requests.
    async fn tell(self, ids: Vec<i64>, stop: CancellationToken) {
        tokio::select! {
            told = self.tell_all(ids) => {
                if let Err(error) = told {
                    error!("reports of storage commitment cannot be made: {error}");
                    // What was sent and could not be noted is sent again, but not at once.
                    tokio::select! {
                        () = tokio::time::sleep(LOOK_EVERY) => {}
                        () = stop.cancelled() => {}
                    }
                }
            }
            () = stop.cancelled() => {}
        }
    }

    async fn tell_all(&self, ids: Vec<i64>) -> Result<(), LedgerError> {
        // The others would wait as long for the same answer.
        let mut unreachable: Option<String> = None;
        for id in ids {
            let ledger = self.ledger.clone();
            let request = tokio::task::spawn_blocking(move || ledger.commitment(id)).await;
            let Some(request) = request.map_err(|_| LedgerError::Closed)?? else { continue };
            let sent = match &unreachable {
                Some(why) => Err(Undelivered::ForNow(why.clone())),
                None => self.on_own_association(&request).await,
            };
            let end = match sent {
                Ok(report) => delivered(&request, &report, "a new association"),
                Err(failed) => {
                    if let Undelivered::Unreachable(why) = &failed {
                        unreachable = Some(why.clone());
                    }
                    self.later(&request, failed)
                }
            };
            self.ledger.end_commitment(request.id, end).await?;
        }
        Ok(())
    }

    /// Forgets what the requests named that ended long ago.
    async fn forget(&self) {
        let before = Timestamp::now().checked_sub(KEPT_AFTER_END).unwrap_or(Timestamp::MIN);
        loop {
            match self.ledger.forget_commitment_items(format_time(before), FORGOTTEN_AT_ONCE).await {
                Ok(forgotten) if forgotten < FORGOTTEN_AT_ONCE as u64 => return,
                Ok(_) => {}
                Err(error) => {
                    error!("former requests of storage commitment cannot be tidied up: {error}");
                    return;
                }
            }
        }
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
        sent.map_err(|error| Undelivered::ForNow(error.to_string()))??;
        Ok(report)
    }

    fn later(&self, request: &CommitmentRow, failed: Undelivered) -> CommitmentEnd {
        let (calling_ae, attempts) = (&request.calling_ae, request.attempts + 1);
        let error = match failed {
            Undelivered::Unreachable(error) | Undelivered::ForNow(error) if attempts < MOST_ATTEMPTS => {
                let wait = FIRST_RETRY.saturating_mul(1 << request.attempts.min(16)).min(LONGEST_RETRY);
                warn!(calling_ae, attempts, "a report of storage commitment was not delivered, for now: {error}");
                return CommitmentEnd::Again { at: format_time(Timestamp::now() + wait), error };
            }
            Undelivered::Unreachable(error) | Undelivered::ForNow(error) | Undelivered::ForGood(error) => error,
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
    /// The peer takes no report now, whatever it is about.
    Unreachable(String),
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
fn send(peer: &scu::Peer, report: &Report) -> Result<(), Undelivered> {
    let unreachable = |error: scu::ScuError| Undelivered::Unreachable(error.to_string());
    let syntaxes = [uids::EXPLICIT_VR_LITTLE_ENDIAN, uids::IMPLICIT_VR_LITTLE_ENDIAN];
    let contexts = syntaxes.map(|syntax| (uids::STORAGE_COMMITMENT_PUSH_MODEL.to_owned(), syntax.to_owned()));
    let mut association = Association::request(peer, &contexts, Role::Scp).map_err(unreachable)?;
    let Some(context) = association.accepted.first().cloned() else {
        return Err(Undelivered::Unreachable("no context was accepted".into()));
    };
    let data_set = report.write(&context.transfer_syntax).map_err(Undelivered::ForNow)?;
    let asked = association.ask(context.id, Operation::NEventReport, 1, event(report), Some(&data_set));
    // What it does with one report says nothing of the others.
    let response = asked.map_err(|error| Undelivered::ForNow(error.to_string()))?;
    association.release();
    match response.status {
        0 => Ok(()),
        status => Err(Undelivered::ForNow(format!("the report was answered with status {status:04X}H"))),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::sync::Mutex;

    use super::*;
    use crate::archive::Archive;
    use crate::config::Settings;
    use crate::ledger::NewCommitment;

    /// Somebody who takes connections and says nothing, or ends them at once.
    struct Mute {
        address: String,
        taken: Arc<Mutex<Vec<Option<TcpStream>>>>,
    }

    impl Mute {
        fn start(ends_at_once: bool) -> Mute {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let taken: Arc<Mutex<Vec<Option<TcpStream>>>> = Arc::default();
            let noted = taken.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    noted.lock().unwrap().push((!ends_at_once).then_some(stream));
                }
            });
            Mute { address, taken }
        }
    }

    impl Drop for Mute {
        fn drop(&mut self) {
            // Whoever waits for an answer is released.
            self.taken.lock().unwrap().clear();
        }
    }

    fn reporter(peers: &[(&str, &Mute)]) -> (tempfile::TempDir, Reporter) {
        let folder = tempfile::tempdir().unwrap();
        let entry = |(title, peer): &(&str, &Mute)| {
            let name = title.to_lowercase();
            let address = &peer.address;
            format!("[[dimse.peers]]\nname = \"{name}\"\nae_titles = [\"{title}\"]\naddress = \"{address}\"\n")
        };
        let file = folder.path().join("triaged.toml");
        std::fs::write(&file, peers.iter().map(entry).collect::<String>()).unwrap();
        let settings = Settings::load(Some(&file), &[]).unwrap();
        let ledger = Ledger::open(&folder.path().join("triaged.db")).unwrap();
        let commitments = Commitments::new(ledger.clone(), Archive::at(folder.path()), &settings);
        (folder, Reporter::new(ledger, commitments, &settings.dimse))
    }

    async fn asked(reporter: &Reporter, title: &str, transaction: &str) -> i64 {
        let request = NewCommitment {
            transaction_uid: transaction.into(),
            calling_ae: title.into(),
            called_ae: "TRIAGED".into(),
            peer: Some(title.to_lowercase()),
            address: "127.0.0.1".into(),
            items: r#"[{"sop_class_uid":"1.2","sop_instance_uid":"1.3"}]"#.into(),
            next_attempt_at: format_time(Timestamp::now()),
        };
        reporter.ledger.request_commitment(request).await.unwrap().unwrap()
    }

    fn attempts(reporter: &Reporter, id: i64) -> u32 {
        reporter.ledger.commitment(id).unwrap().unwrap().attempts
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_peer_that_hangs_holds_up_no_other() {
        let (silent, gone) = (Mute::start(false), Mute::start(true));
        let (_folder, reporter) = reporter(&[("ALPHA", &silent), ("BETA", &gone)]);
        let mut alpha = Vec::new();
        for number in 0..5 {
            alpha.push(asked(&reporter, "ALPHA", &format!("1.{number}")).await);
        }
        let beta = asked(&reporter, "BETA", "2").await;
        let stop = CancellationToken::new();
        let running = tokio::spawn(reporter.clone().run(stop.clone()));
        // Much less than what five requests of a silent peer take.
        let tried = async {
            while attempts(&reporter, beta) == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, tried).await.expect("BETA's turn comes while ALPHA says nothing");
        assert!(alpha.iter().all(|id| attempts(&reporter, *id) == 0), "it still hangs at the first of these");
        stop.cancel();
        running.await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_peer_that_cannot_be_reached_is_tried_once_for_all_that_is_due() {
        let gone = Mute::start(true);
        let (_folder, reporter) = reporter(&[("ALPHA", &gone)]);
        let mut ids = Vec::new();
        for number in 0..3 {
            ids.push(asked(&reporter, "ALPHA", &format!("1.{number}")).await);
        }
        reporter.tell_all(ids.clone()).await.unwrap();
        assert_eq!(ids.iter().map(|id| attempts(&reporter, *id)).collect::<Vec<_>>(), [1, 1, 1]);
        assert_eq!(gone.taken.lock().unwrap().len(), 1);
        assert!(reporter.ledger.due_commitments(9, LONGEST_RETRY).unwrap().is_empty(), "each waits for its time");
    }
}
