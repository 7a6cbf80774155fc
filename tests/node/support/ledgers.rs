//! A ledger in a temporary folder, filled through the same calls as the node's.

// Each test file compiles this module for itself and uses a part of it.
#![allow(dead_code)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use triaged::event::{Event, StudyEvent, TopSlice};
use triaged::ledger::{
    Actor, Claim, Instances, LeaseRequest, Ledger, NewInstance, NewMessage, NotificationRow, Queue, Score, SliceStart,
    Studies, Verdict, WorkerId, now,
};
use triaged::notify::Routing;

/// Leases the next slices of a ledger for some minutes.
pub async fn lease(ledger: &Ledger, most: usize) -> Vec<Claim> {
    let duration = Duration::from_secs(300);
    ledger.lease(LeaseRequest { worker: WorkerId::of_this_run(), most, duration, is_idle: true }).await.unwrap()
}

pub struct Fixture {
    pub folder: tempfile::TempDir,
    pub ledger: Ledger,
}

/// A study to be: a slice for each probability, and one for each reason to be ineligible.
pub struct Study<'a> {
    pub uid: &'a str,
    pub accession_number: Option<&'a str>,
    pub patient_id: Option<&'a str>,
    pub calling_ae: &'a str,
    pub probabilities: &'a [f64],
    pub ineligible: &'a [&'a str],
}

impl<'a> Study<'a> {
    pub fn new(uid: &'a str, probabilities: &'a [f64]) -> Study<'a> {
        let accession_number = Some("ACC-1");
        Study { uid, accession_number, patient_id: Some("PAT-1"), calling_ae: "CT1", probabilities, ineligible: &[] }
    }
}

/// A verdict on a study as channels are told of it.
pub fn study_event(study_uid: &str) -> StudyEvent {
    StudyEvent {
        study_uid: study_uid.into(),
        accession_number: Some("ACC-1".into()),
        patient_id: Some("PAT-1".into()),
        calling_ae_titles: vec!["CT1".into()],
        station_name: None,
        finding: "intracranial hemorrhage".into(),
        revision: 1,
        provisional: false,
        score: Some(0.9),
        threshold: 0.5,
        model: "m10".into(),
        model_sha256: "ab".repeat(32),
        slices_received: 1,
        slices_scored: 1,
        slices_ineligible: 0,
        slices_failed: 0,
        remarks: vec![],
        top_slices: vec![TopSlice {
            series_uid: format!("{study_uid}.1"),
            sop_uid: format!("{study_uid}.1.1"),
            instance_number: Some(1),
            frame: 1,
            probability: 0.9,
            pixel_box: None,
        }],
        first_received_at: now(),
        last_received_at: now(),
        decided_at: now(),
        software: triaged::SOFTWARE.into(),
    }
}

impl Fixture {
    pub fn new() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&folder.path().join("triaged.db")).unwrap();
        Fixture { folder, ledger }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("triaged.db")
    }

    /// The database, as an administrator opens it.
    pub fn database(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path()).unwrap()
    }

    /// Leases the next slices of the queue.
    pub async fn lease(&self, most: usize) -> Vec<Claim> {
        lease(&self.ledger, most).await
    }

    /// Receives a study and scores it, without a verdict.
    pub async fn receive(&self, study: &Study<'_>) {
        let reasons = study.ineligible.iter().map(|reason| SliceStart::Ineligible((*reason).into()));
        let slices = study.probabilities.iter().map(|_| SliceStart::Queued).chain(reasons);
        for (n, slice) in (1..).zip(slices) {
            let instance = NewInstance {
                sop_uid: format!("{}.1.{n}", study.uid),
                sop_class_uid: "1.2.840.10008.5.1.4.1.1.2".into(),
                transfer_syntax: "1.2.840.10008.1.2.1".into(),
                study_uid: study.uid.into(),
                series_uid: format!("{}.1", study.uid),
                instance_number: Some(n),
                accession_number: study.accession_number.map(str::to_owned),
                patient_id: study.patient_id.map(str::to_owned),
                digest: format!("{n:064x}"),
                path: format!("archive/{}-{n}", study.uid.len()),
                size: 1,
                calling_ae: study.calling_ae.into(),
                peer: "127.0.0.1".into(),
                received_at: now(),
                slices: vec![slice.into()],
                stat: false,
                about: Default::default(),
                concatenation: None,
                images_in_acquisition: None,
                resumes: true,
                is_taken_in_again: false,
            };
            self.ledger.store(instance).await.unwrap();
        }
        self.score(study.probabilities).await;
    }

    /// Scores the slices that wait.
    async fn score(&self, probabilities: &[f64]) {
        let claims = self.lease(probabilities.len()).await;
        assert_eq!(claims.len(), probabilities.len());
        let score = |(claim, &probability): (&Claim, &f64)| Score {
            shows: triaged_imaging::Shows::Head,
            lease: claim.lease,
            probability,
            positive: probability >= 0.5,
            location: None,
            threshold: 0.5,
            model: "m10".into(),
            model_sha256: "ab".repeat(32),
            provider: "CPU".into(),
            claimed_at: claim.claimed_at.clone(),
            decoded_at: now(),
            scored_at: now(),
        };
        self.ledger.complete(claims.iter().zip(probabilities).map(score).collect()).await.unwrap();
    }

    /// Receives a study and judges it by its highest probability; a flagged one alerts on `channel`.
    pub async fn judge(&self, study: &Study<'_>, channel: &str) {
        self.judge_and_tell(study, |event| match event {
            Event::Flagged(_) => vec![NewMessage { channel: channel.into(), event: Arc::new(event), escalation: None }],
            _ => vec![],
        })
        .await;
    }

    /// Receives a study and judges it by its highest probability; who hears of it is the routing's matter.
    pub async fn judge_and_route(&self, study: &Study<'_>, routing: &Routing) {
        self.judge_and_tell(study, |event| routing.messages(event)).await;
    }

    /// Scores a study again, with other probabilities, and judges it.
    pub async fn judge_again(&self, study: &Study<'_>) {
        let (ledger, uid) = (self.ledger.clone(), study.uid.to_owned());
        let requeue = move || ledger.requeue_study(&uid, &Actor::person("somebody")).unwrap();
        tokio::task::spawn_blocking(requeue).await.unwrap();
        self.score(study.probabilities).await;
        self.decide(study, |_| vec![]).await;
    }

    async fn judge_and_tell(&self, study: &Study<'_>, messages: impl FnOnce(Event) -> Vec<NewMessage>) {
        self.receive(study).await;
        self.decide(study, messages).await;
    }

    async fn decide(&self, study: &Study<'_>, messages: impl FnOnce(Event) -> Vec<NewMessage>) {
        let open = self
            .ledger
            .open_studies(&"ab".repeat(32))
            .unwrap()
            .into_iter()
            .find(|open| open.study_uid == study.uid)
            .unwrap();
        let score = study.probabilities.iter().copied().reduce(f64::max);
        let flagged = score.map(|score| score >= 0.5);
        let verdict = Verdict {
            study_uid: study.uid.into(),
            revision: open.revision,
            provisional: false,
            flagged,
            score,
            threshold: 0.5,
            rule: r#"{"kind":"top_k_mean","k":1,"threshold":0.5}"#.into(),
            model: "m10".into(),
            model_sha256: "ab".repeat(32),
            slices_received: open.slices_received,
            slices_scored: open.slices_scored(),
            slices_ineligible: open.slices_ineligible,
            slices_failed: open.slices_failed,
            refused: 0,
            is_broken_off: false,
            decided_at: now(),
            last_received_at: now(),
            evidence: Default::default(),
        };
        let event = StudyEvent {
            accession_number: study.accession_number.map(str::to_owned),
            patient_id: study.patient_id.map(str::to_owned),
            calling_ae_titles: vec![study.calling_ae.into()],
            revision: open.revision,
            score,
            slices_received: verdict.slices_received,
            slices_scored: verdict.slices_scored,
            slices_ineligible: verdict.slices_ineligible,
            slices_failed: verdict.slices_failed,
            first_received_at: open.opened_at.clone(),
            last_received_at: open.last_received_at.clone(),
            decided_at: verdict.decided_at.clone(),
            ..study_event(study.uid)
        };
        let event = match flagged {
            Some(true) => Event::Flagged(event),
            Some(false) => Event::NotFlagged(event),
            None => Event::Incomplete(event),
        };
        assert!(self.ledger.decide(verdict, messages(event)).await.unwrap());
    }

    pub fn notifications(&self) -> Vec<NotificationRow> {
        self.ledger.notifications(None).unwrap()
    }

    /// Waits until the only notification is as wanted. The ledger rings no bell for what a worker writes.
    pub async fn until(&self, wanted: impl Fn(&NotificationRow) -> bool) -> NotificationRow {
        let started = Instant::now();
        loop {
            let mut rows = self.notifications();
            assert_eq!(rows.len(), 1);
            let row = rows.remove(0);
            if wanted(&row) {
                return row;
            }
            assert!(started.elapsed() < Duration::from_secs(20), "still {row:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
