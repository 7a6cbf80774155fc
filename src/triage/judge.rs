//! Judges studies: provisionally as soon as the evidence suffices, finally when a study is complete.
//!
//! A study is complete when every association that brought slices of it has ended, nothing came for the quiet time, and
//! no slice of it waits; or at the hard cap, whatever still waits. A slice that comes or is scored later reopens it as
//! its next revision.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::Activity;
use super::events::study_event;
use crate::config;
use crate::event::Event;
use crate::ledger::{Ledger, LedgerError, OpenStudy, Verdict, now};
use crate::notify::Routing;
use triaged_model::{Judgement, ModelCard};

/// Studies are not looked at more often than this, however many slices are scored meanwhile …
const SHORTEST: Duration = Duration::from_millis(100);
/// … and as often as this though nothing rang: time passes, and other processes write.
const LONGEST: Duration = Duration::from_millis(500);

/// The triage stage.
pub struct Judge {
    pub ledger: Ledger,
    pub activity: Activity,
    pub card: ModelCard,
    pub settings: config::Triage,
    /// Who hears of which verdict.
    pub routing: Arc<Routing>,
}

/// What is to be done about a study now.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Due {
    Nothing,
    /// Alert at once, and go on receiving.
    Provisional,
    Final,
}

impl Judge {
    /// Judges until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let rung = self.ledger.changed().notified();
            if let Err(error) = self.round().await {
                error!("studies cannot be judged: {error}");
            }
            tokio::select! {
                () = async {
                    tokio::time::sleep(SHORTEST).await;
                    let _ = tokio::time::timeout(LONGEST - SHORTEST, rung).await;
                } => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn round(&self) -> crate::ledger::Result<()> {
        let (ledger, sha256) = (self.ledger.clone(), self.card.sha256.clone());
        let open = tokio::task::spawn_blocking(move || ledger.open_studies(&sha256)).await;
        for study in open.map_err(|_| LedgerError::Closed)?? {
            if study.slices_of_other_models > 0 {
                self.ledger.requeue_other_models(study.study_uid, self.card.sha256.clone()).await?;
                continue;
            }
            let judgement = self.card.study_rule.judge(&study.probabilities);
            let due = due(
                &study,
                &judgement,
                self.activity.quiet_for(&study.study_uid),
                age(&study.last_received_at),
                age(&study.opened_at),
                &self.settings,
            );
            let uid = study.study_uid.clone();
            // What is wrong with one study must not keep the others waiting.
            if due != Due::Nothing
                && let Err(error) = self.decide(study, judgement, due == Due::Provisional).await
            {
                error!(study = uid, "the study cannot be judged: {error}");
            }
        }
        Ok(())
    }

    async fn decide(&self, study: OpenStudy, judgement: Judgement, provisional: bool) -> crate::ledger::Result<()> {
        let scored = !study.probabilities.is_empty();
        // Part of the evidence can flag a study; only all of it can leave it unflagged (promise 7).
        let conclusive = scored && (judgement.flagged || study.slices_queued() == 0);
        let verdict = Verdict {
            study_uid: study.study_uid.clone(),
            revision: study.revision,
            provisional,
            flagged: conclusive.then_some(judgement.flagged),
            score: scored.then_some(judgement.score),
            threshold: judgement.threshold,
            rule: serde_json::to_string(&self.card.study_rule).expect("a rule is a name and numbers"),
            model: self.card.name.clone(),
            model_sha256: self.card.sha256.clone(),
            slices_received: study.slices_received,
            slices_scored: study.probabilities.len() as i64,
            slices_ineligible: study.slices_ineligible,
            slices_failed: study.slices_failed,
            decided_at: now(),
        };
        let (ledger, finding, decided) = (self.ledger.clone(), self.card.finding.clone(), verdict.clone());
        let was_flagged = study.flagged;
        let event = tokio::task::spawn_blocking(move || study_event(&ledger, &study, &decided, finding)).await;
        let event = event.map_err(|_| LedgerError::Closed)??;
        let event = match verdict.flagged {
            Some(true) => Some(Event::Flagged(event)),
            // The machine never retracts: a study that was flagged stays so for whoever was told.
            _ if was_flagged => None,
            Some(false) => Some(Event::NotFlagged(event)),
            None => Some(Event::Incomplete(event)),
        };
        let messages = event.map(|event| self.routing.messages(event)).unwrap_or_default();
        if !self.ledger.decide(verdict.clone(), messages).await? {
            return Ok(());
        }
        let words = match verdict.flagged {
            Some(true) => "flagged",
            Some(false) => "not flagged",
            None => "not triaged",
        };
        info!(
            study = verdict.study_uid,
            revision = verdict.revision,
            provisional,
            score = verdict.score.map(|s| format!("{s:.3}")),
            threshold = verdict.threshold,
            scored = verdict.slices_scored,
            ineligible = verdict.slices_ineligible,
            failed = verdict.slices_failed,
            "study {words}"
        );
        if !provisional {
            self.activity.forget(&verdict.study_uid);
            metrics::counter!("triaged_verdicts_total", "flagged" => words).increment(1);
        }
        Ok(())
    }
}

/// `quiet`: since the last of its associations ended, `None` while one is open, `MAX` when that was before the process
/// started. `silent`: since its last object came, by the wall clock, which may be set back; so it counts only then.
fn due(
    study: &OpenStudy,
    judgement: &Judgement,
    quiet: Option<Duration>,
    silent: Duration,
    open_for: Duration,
    settings: &config::Triage,
) -> Due {
    let quiet = quiet.map(|quiet| if quiet == Duration::MAX { silent } else { quiet });
    let quiet_enough = quiet.is_some_and(|quiet| quiet.as_secs_f64() >= settings.quiet_seconds);
    if quiet_enough && study.slices_queued() == 0 || open_for.as_secs_f64() >= settings.hard_cap_seconds {
        Due::Final
    } else if settings.provisional_alerts && judgement.flagged && !study.flagged {
        Due::Provisional
    } else {
        Due::Nothing
    }
}

/// How long ago a moment of the ledger was. One that lies more than a minute ahead was written before the clock was set
/// back; like an unreadable one it counts as long ago, for to wait hours is worse than to judge early and revise.
fn age(time: &str) -> Duration {
    let Ok(then) = time.parse::<Timestamp>() else { return Duration::MAX };
    let ago = Timestamp::now().duration_since(then);
    if ago.as_secs() < -60 { Duration::MAX } else { Duration::try_from(ago).unwrap_or(Duration::ZERO) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: config::Triage = config::Triage {
        quiet_seconds: 10.0,
        hard_cap_seconds: 900.0,
        provisional_alerts: true,
        stat_calling_ae_titles: Vec::new(),
        stat_attributes: Vec::new(),
    };
    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_secs(1);

    fn study(received: i64, scored: usize) -> OpenStudy {
        OpenStudy {
            study_uid: "s".into(),
            accession_number: None,
            patient_id: None,
            revision: 1,
            flagged: false,
            slices_received: received,
            slices_ineligible: 0,
            slices_failed: 0,
            opened_at: now(),
            first_received_at: now(),
            last_received_at: now(),
            slices_of_other_models: 0,
            probabilities: vec![0.5; scored],
        }
    }

    fn judgement(flagged: bool) -> Judgement {
        Judgement { score: 0.5, threshold: 0.5, flagged }
    }

    #[test]
    fn a_study_waits_for_its_associations_its_quiet_time_and_its_queue() {
        let no = judgement(false);
        assert_eq!(due(&study(2, 2), &no, None, LONG, LONG, &SETTINGS), Due::Nothing, "an association is open");
        assert_eq!(due(&study(2, 2), &no, Some(SHORT), LONG, LONG, &SETTINGS), Due::Nothing, "it just ended");
        let before = Some(Duration::MAX);
        assert_eq!(
            due(&study(2, 2), &no, before, SHORT, LONG, &SETTINGS),
            Due::Nothing,
            "a slice came before a restart"
        );
        assert_eq!(due(&study(2, 1), &no, Some(LONG), LONG, LONG, &SETTINGS), Due::Nothing, "a slice waits");
        assert_eq!(due(&study(2, 2), &no, Some(LONG), LONG, LONG, &SETTINGS), Due::Final);
    }

    #[test]
    fn the_hard_cap_does_not_wait() {
        let cap = Duration::from_secs(900);
        assert_eq!(due(&study(2, 1), &judgement(false), None, SHORT, cap, &SETTINGS), Due::Final);
    }

    #[test]
    fn the_alert_does_not_wait_for_the_rest_of_the_study_and_comes_once() {
        assert_eq!(due(&study(30, 3), &judgement(true), None, SHORT, SHORT, &SETTINGS), Due::Provisional);
        let alerted = OpenStudy { flagged: true, ..study(30, 4) };
        assert_eq!(due(&alerted, &judgement(true), None, SHORT, SHORT, &SETTINGS), Due::Nothing);
        let off = config::Triage { provisional_alerts: false, ..SETTINGS };
        assert_eq!(due(&study(30, 3), &judgement(true), None, SHORT, SHORT, &off), Due::Nothing);
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_make_a_study_wait() {
        assert_eq!(age("2999-01-01T00:00:00.000Z"), Duration::MAX);
        let soon = Timestamp::now() + Duration::from_secs(10);
        assert_eq!(age(&crate::ledger::format_time(soon)), Duration::ZERO);
        assert_eq!(age("yesterday"), Duration::MAX);
    }
}
