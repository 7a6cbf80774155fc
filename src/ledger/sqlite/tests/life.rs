//! A study's life against a small reference that knows no database: whatever is received, scored, decided, acknowledged, revised and scored
//! again, in whatever order and with whatever crashes between, both say the same.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::ledger::{Evidence, Finding, SeriesVerdict};

const STUDY: &str = "1.2";

/// Something that happens to the study.
#[derive(Debug, Clone)]
enum Deed {
    /// An object comes, one of a few; the same again is a duplicate, and with other bytes it is set aside.
    Receive {
        sop: u8,
        other_bytes: bool,
    },
    /// The oldest slices of the queue are scored, or fail.
    Score {
        positive: bool,
    },
    Fail,
    /// The judge decides on what is scored; a provisional verdict only ever flags.
    Decide {
        provisional: bool,
    },
    Acknowledge,
    Undo,
    Rescore,
    /// The process ends and another opens the ledger.
    Crash,
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        6 => (0..6_u8, prop::bool::weighted(0.1)).prop_map(|(sop, other_bytes)| Deed::Receive { sop, other_bytes }),
        6 => prop::bool::weighted(0.3).prop_map(|positive| Deed::Score { positive }),
        1 => Just(Deed::Fail),
        5 => prop::bool::weighted(0.3).prop_map(|provisional| Deed::Decide { provisional }),
        3 => Just(Deed::Acknowledge),
        1 => Just(Deed::Undo),
        1 => Just(Deed::Rescore),
        1 => Just(Deed::Crash),
    ];
    prop::collection::vec(deed, 1..40)
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Slice {
    Queued,
    Scored(bool),
    Failed,
}

/// What a verdict said: flagged, not flagged, or neither; and how many positive slices it counted.
type Said = (Option<bool>, i64);

/// The reference.
#[derive(Debug, Default)]
struct Model {
    slices: BTreeMap<u8, Slice>,
    /// Which of an object's two contents is kept, and which made room for the other.
    kept: BTreeMap<u8, bool>,
    made_room: BTreeSet<(u8, bool)>,
    is_decided: bool,
    revision: i64,
    flagged: Option<bool>,
    /// Whether there is a verdict of this revision, and what the last one of all said.
    last: Option<Said>,
    verdicts: i64,
    /// What the person had before them; none: no verdict yet.
    acknowledged: Option<Option<Said>>,
    seen: bool,
    /// The verdict that the latest acknowledgement is about that was not taken back, whatever became of it.
    latest_deed: Vec<Option<Said>>,
    is_incomplete: bool,
    alerts: i64,
}

impl Model {
    fn reopen(&mut self) {
        if self.is_decided {
            self.is_decided = false;
            self.revision += 1;
            self.flagged = self.flagged.filter(|flagged| *flagged);
            self.is_incomplete = false;
        }
    }

    fn count(&self, which: impl Fn(&Slice) -> bool) -> i64 {
        self.slices.values().filter(|slice| which(slice)).count() as i64
    }

    fn positives(&self) -> i64 {
        self.count(|slice| *slice == Slice::Scored(true))
    }

    /// What the judge finds: any positive slice flags; what failed leaves it incomplete.
    fn finding(&self) -> Option<bool> {
        match (
            self.positives() > 0,
            self.count(|slice| matches!(slice, Slice::Scored(_))),
            self.count(|slice| *slice == Slice::Failed),
        ) {
            (true, ..) => Some(true),
            (false, 0, _) => None,
            (false, _, failed) => (failed == 0).then_some(false),
        }
    }

    fn decide(&mut self, provisional: bool) {
        let said = (self.finding(), self.positives());
        self.verdicts += 1;
        self.flagged = if self.flagged == Some(true) { Some(true) } else { said.0 };
        self.is_incomplete = self.flagged.is_none();
        self.is_decided = !provisional;
        if said.0 == Some(true) {
            // Once a study, whatever comes after.
            self.alerts = 1;
        }
        let before = self.latest_deed.last().copied().flatten();
        if self.acknowledged.is_some() || self.seen {
            let covers = match (before, said) {
                (Some((Some(true), old)), (Some(true), new)) => !(new >= old + 2 && 2 * new >= 3 * old),
                (_, (Some(true), _)) => false,
                (Some((Some(true), _)), _) => self.flagged == Some(true),
                (Some((None, _)), (None, _)) => true,
                _ => false,
            };
            if !(covers && self.acknowledged.is_some()) {
                self.acknowledged = None;
                self.seen = false;
            }
        }
        self.last = Some(said);
    }

    fn acknowledge(&mut self) -> Acknowledged {
        let can_be = self.flagged == Some(true) || self.is_incomplete;
        if can_be && self.acknowledged.is_some() {
            return Acknowledged::Before;
        }
        self.latest_deed.push(self.last);
        if can_be {
            self.acknowledged = Some(self.last);
            return Acknowledged::First;
        }
        self.seen = true;
        Acknowledged::Seen
    }
}

/// The ledger under test, with the folder that outlives its crashes.
struct Real {
    folder: tempfile::TempDir,
    ledger: Option<Ledger>,
    run: u32,
}

impl Real {
    fn ledger(&self) -> &Ledger {
        self.ledger.as_ref().expect("it is open between two deeds")
    }

    async fn crash(&mut self) {
        self.ledger = None;
        self.run += 1;
        let ledger = Ledger::open(&self.folder.path().join("triaged.db")).unwrap();
        // As a node does at its start.
        ledger.recover("node").await.unwrap();
        self.ledger = Some(ledger);
    }

    async fn claim(&self) -> Option<Claim> {
        self.ledger().lease(request(&format!("run {}", self.run), 1, HOUR)).await.unwrap().pop()
    }
}

fn digest_of(sop: u8, other_bytes: bool) -> String {
    format!("{sop:02}{}", if other_bytes { "b" } else { "a" })
}

fn number(claim: &Claim) -> u8 {
    claim.sop_uid.parse().expect("the UIDs of this test are numbers")
}

async fn blocking<T: Send + 'static>(ledger: &Ledger, call: impl FnOnce(&Ledger) -> T + Send + 'static) -> T {
    let ledger = ledger.clone();
    tokio::task::spawn_blocking(move || call(&ledger)).await.unwrap()
}

async fn live(deeds: Vec<Deed>) {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&folder.path().join("triaged.db")).unwrap();
    let mut real = Real { folder, ledger: Some(ledger), run: 0 };
    let mut model = Model { revision: 1, ..Model::default() };
    for deed in deeds {
        step(&mut real, &mut model, &deed).await;
        compare(real.ledger(), &model, &deed);
    }
}

async fn step(real: &mut Real, model: &mut Model, deed: &Deed) {
    match deed {
        Deed::Receive { sop, other_bytes } => {
            let digest = digest_of(*sop, *other_bytes);
            let mut received = instance(&sop.to_string(), STUDY, &digest);
            received.path = format!("archive/{sop}-{digest}");
            let stored = real.ledger().store(received).await.unwrap();
            let expected = match (model.slices.get(sop), model.kept.get(sop).copied()) {
                (Some(_), Some(kept)) if kept == *other_bytes => Stored::Duplicate,
                // Nothing of the first could be read, and these bytes did not make room before.
                (Some(Slice::Failed), Some(kept)) if !model.made_room.contains(&(*sop, *other_bytes)) => {
                    model.made_room.insert((*sop, kept));
                    Stored::Replaced
                }
                (Some(_), kept) => Stored::Conflict { kept_digest: digest_of(*sop, kept == Some(true)) },
                (None, _) => Stored::New,
            };
            if matches!(expected, Stored::New | Stored::Replaced) {
                model.reopen();
                model.slices.insert(*sop, Slice::Queued);
                model.kept.insert(*sop, *other_bytes);
            }
            assert_eq!(stored, expected, "{deed:?} {model:?}");
        }
        Deed::Score { positive } => {
            let Some(claim) = real.claim().await else { return };
            let sop = number(&claim);
            assert_eq!(model.slices[&sop], Slice::Queued, "only what waits is given out");
            real.ledger().complete(vec![score(&claim, if *positive { 0.9 } else { 0.1 })]).await.unwrap();
            model.slices.insert(sop, Slice::Scored(*positive));
        }
        Deed::Fail => {
            let Some(claim) = real.claim().await else { return };
            let sop = number(&claim);
            real.ledger().fail(claim.lease, "cannot be decoded".into()).await.unwrap();
            model.slices.insert(sop, Slice::Failed);
        }
        Deed::Decide { provisional } => {
            let (finding, positives) = (model.finding(), model.positives());
            let is_open = !model.is_decided && !model.slices.is_empty();
            let waits = model.count(|slice| *slice == Slice::Queued) > 0;
            if (*provisional && finding != Some(true)) || (!provisional && waits) {
                return;
            }
            let open = blocking(real.ledger(), |ledger| ledger.open_studies("00").unwrap()).await.pop();
            assert_eq!(open.is_some(), is_open, "{model:?}");
            let Some(open) = open else { return };
            let flagged = SeriesVerdict {
                series_uid: "1.3".into(),
                finding: Some(Finding::Flagged),
                score: None,
                threshold: 0.5,
                reason: None,
                doubts: None,
                positives,
                slices_received: 0,
                slices_scored: 0,
                slices_failed: 0,
            };
            let series = if finding == Some(true) { vec![flagged] } else { Vec::new() };
            let verdict = Verdict {
                flagged: finding,
                evidence: Evidence { positives, series, ..Evidence::default() },
                ..verdict(&open, *provisional, true)
            };
            let messages = if finding == Some(true) { alert_of(STUDY) } else { Vec::new() };
            assert!(real.ledger().decide(verdict.clone(), messages.clone()).await.unwrap());
            model.decide(*provisional);
            // A verdict on what was is not taken: here one of a revision that is over.
            let stale = Verdict { revision: verdict.revision - 1, ..verdict };
            assert!(!real.ledger().decide(stale, messages).await.unwrap());
        }
        Deed::Acknowledge => {
            if model.slices.is_empty() {
                return;
            }
            let said = blocking(real.ledger(), |ledger| ledger.acknowledge(STUDY, &Actor::person("Dr A"), None)).await;
            assert_eq!(said.unwrap(), model.acknowledge(), "{model:?}");
        }
        Deed::Undo => {
            if model.slices.is_empty() {
                return;
            }
            let undone =
                blocking(real.ledger(), |ledger| ledger.undo_acknowledgement(STUDY, &Actor::person("Dr A"))).await;
            let expected = model.acknowledged.is_some() || model.seen;
            assert_eq!(undone.unwrap(), expected, "{model:?}");
            if expected {
                model.latest_deed.pop();
                (model.acknowledged, model.seen) = (None, false);
            }
        }
        Deed::Rescore => {
            let expected = model.count(|slice| *slice != Slice::Queued);
            let queued = blocking(real.ledger(), |ledger| ledger.requeue_study(STUDY, &Actor::system())).await.unwrap();
            assert_eq!(queued as i64, expected);
            if expected > 0 {
                model.reopen();
                model.slices.values_mut().for_each(|slice| *slice = Slice::Queued);
            }
        }
        Deed::Crash => real.crash().await,
    }
}

fn alert_of(study: &str) -> Vec<NewMessage> {
    let event = StudyEvent { study_uid: study.into(), model_sha256: "00".into(), ..StudyEvent::sample() };
    vec![NewMessage { channel: "webhook".into(), event: Arc::new(Event::Flagged(event)), escalation: None }]
}

fn compare(ledger: &Ledger, model: &Model, deed: &Deed) {
    let Some(row) = ledger.study(STUDY).unwrap() else {
        assert!(model.slices.is_empty());
        return;
    };
    let found = (
        row.state == "decided",
        row.revision,
        row.flagged,
        row.acknowledged_at.is_some(),
        [row.slices_received, row.slices_scored, row.slices_failed],
    );
    let expected = (
        model.is_decided,
        model.revision,
        model.flagged,
        model.acknowledged.is_some(),
        [
            model.slices.len() as i64,
            model.count(|slice| matches!(slice, Slice::Scored(_))),
            model.count(|slice| *slice == Slice::Failed),
        ],
    );
    assert_eq!(found, expected, "after {deed:?}: {model:?}");
    assert_eq!(ledger.verdicts(STUDY).unwrap().len() as i64, model.verdicts);
    assert_eq!(ledger.notifications(Some(STUDY)).unwrap().len() as i64, model.alerts, "one alarm");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_study_lives_as_its_reference_does(deeds in deeds()) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(live(deeds));
    }
}
