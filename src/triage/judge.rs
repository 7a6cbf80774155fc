//! Judges studies: provisionally as soon as the evidence suffices, finally when a study is complete.
//!
//! A study is complete when nothing came for it for the quiet time and no slice of it waits; or at the hard cap, whatever still
//! waits. While the transfer that brought its last object is open and brings no other study, the quiet time is twice as long, and ten seconds at least.
//! A slice that comes or is scored later reopens it as its next revision.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::events::study_event;
use super::series::{StudyJudgement, WholeSeries, declined_within_a_head, judge, judge_early};
use super::{Activity, Quiet};
use crate::config;
use crate::event::Event;
use crate::ledger::{Evidence, Finding, LedgerError, OpenStudy, Studies, Verdict, now};
use crate::notify::Routing;
use triaged_model::{ModelCard, SeriesNetwork, VerdictRule};

/// Studies are not looked at more often than this, however many slices are scored meanwhile …
const SHORTEST: Duration = Duration::from_millis(100);
/// … and as often as this though nothing rang: time passes, and other processes write.
const LONGEST: Duration = Duration::from_millis(500);

/// A study whose transfer is open and brings no other study is not judged before this, however short the quiet time.
const OPEN_QUIET_SECONDS: f64 = 10.0;

/// The triage stage.
pub struct Judge {
    pub studies: Arc<dyn Studies>,
    pub activity: Activity,
    pub card: ModelCard,
    /// The card's sequence network, which gives the final verdicts; none where the card has none.
    pub sequence: Option<Arc<dyn SeriesNetwork>>,
    pub settings: config::Triage,
    /// Who hears of which verdict.
    pub routing: Arc<Routing>,
}

/// The next step for a study.
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
            let rung = self.studies.changed().notified();
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
        let (studies, sha256) = (self.studies.clone(), self.card.sha256.clone());
        let open = tokio::task::spawn_blocking(move || studies.open_studies(&sha256)).await;
        for study in open.map_err(|_| LedgerError::Closed)?? {
            if study.slices_of_other_models > 0 {
                self.studies.requeue_other_models(study.study_uid, self.card.sha256.clone()).await?;
                continue;
            }
            let early = judge_early(&study.slices, &self.card.early_rule(), &self.card.made_for);
            let due = due(
                &study,
                early.finding == Finding::Flagged,
                self.activity.quiet_for(&study.study_uid),
                age(&study.last_received_at),
                age(&study.opened_at),
                &self.settings,
            );
            if due == Due::Final {
                let within = declined_within_a_head(&study.slices);
                if !within.is_empty() {
                    info!(study = study.study_uid, slices = within.len(), "slices within a head are scored after all");
                    self.studies.score_declined(study.study_uid.clone(), within).await?;
                    continue;
                }
            }
            let judgement = match due {
                Due::Nothing => continue,
                Due::Provisional => early,
                Due::Final => judge(&study.slices, &self.card.study_rule, self.whole_series(), &self.card.made_for),
            };
            let judgement = match study.refused_elsewhere {
                0 => judgement,
                _ if due == Due::Provisional => judgement,
                count => {
                    judgement.lacking(format!("{count} of its objects were refused, of series that nothing came of"))
                }
            };
            let judgement = match study.has_more_refused && due == Due::Final {
                true => judgement.lacking("more of its objects were refused than the node keeps a list of".into()),
                false => judgement,
            };
            let uid = study.study_uid.clone();
            // An error about one study must not keep the others waiting.
            if let Err(error) = self.decide(study, judgement, due == Due::Provisional).await {
                error!(study = uid, "the study cannot be judged: {error}");
            }
        }
        Ok(())
    }

    fn whole_series(&self) -> Option<WholeSeries<'_>> {
        Some(WholeSeries { card: self.card.sequence.as_ref()?, network: &**self.sequence.as_ref()? })
    }

    async fn decide(
        &self,
        study: OpenStudy,
        judgement: StudyJudgement,
        provisional: bool,
    ) -> crate::ledger::Result<()> {
        let mut warnings = judgement.doubts.clone();
        if let Some(why) = &judgement.fallback {
            warn!(study = study.study_uid, "the sequence network failed, and the study rule decides: {why}");
            warnings.insert(0, format!("judged by the study rule alone, for the sequence network failed ({why})"));
        }
        warnings.extend(judgement.asides.iter().cloned());
        warnings.extend(contradicted(&study, &judgement));
        if study.has_several_patients {
            warnings.insert(0, "several patient IDs came under this Study Instance UID".into());
        }
        if study.has_several_names {
            warnings.insert(0, "several names or birth dates of patients came under this Study Instance UID".into());
        }
        if study.is_broken_off {
            warnings.push(
                "the association that brought its last object was broken off, and nothing came since: images may be missing".into(),
            );
        }
        // A sender that sends each image in an association of its own, and stops on the way, breaks none off.
        if let Some(fewer) = study.fewer_images.as_ref().filter(|_| !study.is_broken_off && !provisional) {
            warnings.push(format!(
                "{fewer} (Images in Acquisition): the sender may have kept the others, or not sent them yet"
            ));
        }
        if study.set_aside > 0 {
            warnings.push(format!(
                "{} of its objects were set aside: other content under UIDs that it has",
                study.set_aside
            ));
        }
        let joined = |texts: &[String]| (!texts.is_empty()).then(|| texts.join("; "));
        let verdict = Verdict {
            study_uid: study.study_uid.clone(),
            revision: study.revision,
            provisional,
            flagged: judgement.finding.flagged(),
            score: judgement.score,
            threshold: judgement.threshold,
            rule: judgement.rule.json(),
            model: self.card.name.clone(),
            model_sha256: self.card.sha256.clone(),
            slices_received: study.slices_received,
            slices_scored: study.slices_scored(),
            slices_ineligible: study.slices_ineligible,
            slices_failed: study.slices_failed,
            refused: study.refused,
            is_broken_off: study.is_broken_off,
            decided_at: now(),
            last_received_at: study.last_received_at.clone(),
            evidence: Evidence {
                missing: joined(&judgement.missing),
                warnings: joined(&warnings),
                positives: judgement.positives as i64,
                series: judgement.series.clone(),
            },
        };
        let (studies, finding, decided) = (self.studies.clone(), self.card.finding.clone(), verdict.clone());
        let (was_flagged, is_acknowledged) = (study.flagged, study.is_acknowledged);
        let has_several_patients = study.has_several_patients || study.has_several_names;
        let event = tokio::task::spawn_blocking(move || study_event(&*studies, &study, &decided, finding)).await;
        let event = event.map_err(|_| LedgerError::Closed)??;
        let events = match verdict.flagged {
            // Somebody takes care of it: another model that flags it too is no alert.
            Some(true) if was_flagged && is_acknowledged => vec![Event::Revised(event)],
            // Whoever has not been told of the flag by this model is told of it, the others of its revision.
            Some(true) if was_flagged => vec![Event::Flagged(event.clone()), Event::Revised(event)],
            Some(true) => vec![Event::Flagged(event)],
            // The machine never retracts: a study that was flagged stays so for whoever was told.
            _ if was_flagged => vec![],
            Some(false) => vec![Event::NotFlagged(event)],
            None => vec![Event::Incomplete(event)],
        };
        let messages = events.into_iter().flat_map(|event| self.routing.messages(event)).collect();
        if !self.studies.decide(verdict.clone(), messages).await? {
            return Ok(());
        }
        let words = judgement.finding.name();
        if has_several_patients {
            warn!(study = verdict.study_uid, "several patients came under one Study Instance UID");
        }
        info!(
            study = verdict.study_uid,
            revision = verdict.revision,
            provisional,
            score = verdict.score.map(|s| format!("{s:.3}")),
            threshold = verdict.threshold,
            scored = verdict.slices_scored,
            ineligible = verdict.slices_ineligible,
            failed = verdict.slices_failed,
            missing = verdict.evidence.missing,
            "study {words}"
        );
        if !provisional {
            self.activity.forget(&verdict.study_uid);
            metrics::counter!("triaged_verdicts_total", "flagged" => words).increment(1);
        }
        Ok(())
    }
}

/// Said of a study that was flagged before, early as a rule, and that the sequence network would not have flagged.
fn contradicted(study: &OpenStudy, judgement: &StudyJudgement) -> Option<String> {
    let by_sequence = matches!(judgement.rule, VerdictRule::Sequence(_));
    (study.flagged && by_sequence && judgement.finding != Finding::Flagged).then(|| {
        "flagged before, and stays so: the sequence network, which reads whole series, does not confirm it".to_owned()
    })
}

/// `silent`: since its last object came, by the wall clock, which may be set back; so it counts only where the process has not
/// seen the study itself.
fn due(
    study: &OpenStudy,
    flags: bool,
    quiet: Quiet,
    silent: Duration,
    open_for: Duration,
    settings: &config::Triage,
) -> Due {
    let lasting = if quiet.lasting == Duration::MAX { silent } else { quiet.lasting };
    let wanted = match quiet.is_open {
        true => (2.0 * settings.quiet_seconds).max(OPEN_QUIET_SECONDS),
        false => settings.quiet_seconds,
    };
    let quiet_enough = lasting.as_secs_f64() >= wanted;
    // What is only scored again has been judged and told of. Its time is that of the queue, which comes to it in the end: to call the study
    // incomplete meanwhile would take a verdict away, and tell people, for nothing.
    let is_capped = open_for.as_secs_f64() >= settings.hard_cap_seconds && !study.waits_to_be_scored_again;
    if quiet_enough && study.slices_queued() == 0 || is_capped {
        Due::Final
    } else if settings.provisional_alerts && flags && !study.flagged {
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
    use crate::ledger::{SliceEvidence, SliceState};

    fn settings() -> config::Triage {
        config::Triage {
            quiet_seconds: 10.0,
            hard_cap_seconds: 900.0,
            provisional_alerts: true,
            stat_calling_ae_titles: Vec::new(),
            stat_attributes: Vec::new(),
            gate: config::Gate::default(),
        }
    }
    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_secs(1);

    fn study(received: i64, scored: usize) -> OpenStudy {
        OpenStudy {
            study_uid: "s".into(),
            accession_number: None,
            patient_id: None,
            revision: 1,
            flagged: false,
            is_acknowledged: false,
            waits_to_be_scored_again: false,
            slices_received: received,
            slices_ineligible: 0,
            slices_failed: 0,
            opened_at: now(),
            first_received_at: now(),
            last_received_at: now(),
            slices_of_other_models: 0,
            has_several_patients: false,
            has_several_names: false,
            is_broken_off: false,
            fewer_images: None,
            has_more_refused: false,
            refused: 0,
            refused_elsewhere: 0,
            set_aside: 0,
            slices: vec![scored_slice(); scored],
        }
    }

    fn scored_slice() -> SliceEvidence {
        SliceEvidence {
            id: 0,
            shows: None,
            lacking: None,
            series_uid: "1".into(),
            state: SliceState::Scored { probability: 0.5, positive: true },
            reason: None,
            instance_number: None,
            frame: 1,
            position: None,
            location: None,
            orientation: None,
            thickness: None,
            doubts: None,
            is_substitute: false,
        }
    }

    fn sequence() -> triaged_model::Sequence {
        let card = r#"{"file": "a.onnx", "sha256": "", "input": "a", "slice_output": "b", "series_output": "c",
                       "spacing_mm": 5.0, "slice_threshold": 0.5, "threshold": 0.5}"#;
        serde_json::from_str(card).expect("a sequence")
    }

    fn quiet(lasting: Duration) -> Quiet {
        Quiet { lasting, is_open: false }
    }

    #[test]
    fn a_study_waits_for_its_quiet_time_and_its_queue() {
        let due = |study: &OpenStudy, quiet, silent| due(study, false, quiet, silent, LONG, &settings());
        assert_eq!(due(&study(2, 2), quiet(SHORT), LONG), Due::Nothing, "something just came");
        assert_eq!(due(&study(2, 2), quiet(Duration::MAX), SHORT), Due::Nothing, "a slice came before a restart");
        assert_eq!(due(&study(2, 1), quiet(LONG), LONG), Due::Nothing, "a slice waits");
        assert_eq!(due(&study(2, 2), quiet(LONG), LONG), Due::Final);
    }

    #[test]
    fn an_open_association_makes_a_study_wait_longer_and_not_for_ever() {
        let open = |seconds| Quiet { lasting: Duration::from_secs(seconds), is_open: true };
        let due = |quiet| due(&study(2, 2), false, quiet, LONG, LONG, &settings());
        assert_eq!((due(open(11)), due(open(20))), (Due::Nothing, Due::Final));
    }

    #[test]
    fn the_hard_cap_does_not_wait() {
        let cap = Duration::from_secs(900);
        assert_eq!(due(&study(2, 1), false, quiet(SHORT), SHORT, cap, &settings()), Due::Final);
    }

    #[test]
    fn the_hard_cap_does_not_end_a_study_that_only_waits_to_be_scored_again() {
        let again = |scored| OpenStudy { waits_to_be_scored_again: scored < 2, ..study(2, scored) };
        let due = |study: &OpenStudy, flags| due(study, flags, quiet(LONG), LONG, 100 * LONG, &settings());
        assert_eq!(due(&again(1), false), Due::Nothing);
        assert_eq!(due(&again(1), true), Due::Provisional, "an alert never waits");
        assert_eq!(due(&again(2), false), Due::Final, "all are scored");
    }

    #[test]
    fn the_alert_does_not_wait_for_the_rest_of_the_study_and_comes_once() {
        let due = |study: &OpenStudy, settings: &config::Triage| due(study, true, quiet(SHORT), SHORT, SHORT, settings);
        assert_eq!(due(&study(30, 3), &settings()), Due::Provisional);
        let alerted = OpenStudy { flagged: true, ..study(30, 4) };
        assert_eq!(due(&alerted, &settings()), Due::Nothing);
        let off = config::Triage { provisional_alerts: false, ..settings() };
        assert_eq!(due(&study(30, 3), &off), Due::Nothing);
    }

    #[test]
    fn a_flag_that_the_sequence_does_not_confirm_is_said_to_stand() {
        let rule = triaged_model::StudyRule::KthHighest { k: 1, threshold: 0.9 };
        let by_rule = judge(&study(1, 1).slices, &rule, None, &Default::default());
        let by_sequence = StudyJudgement { rule: VerdictRule::from(&sequence()), ..by_rule.clone() };
        let flagged = OpenStudy { flagged: true, ..study(1, 1) };
        assert!(contradicted(&flagged, &by_sequence).is_some_and(|said| said.contains("stays so")));
        assert_eq!(contradicted(&study(1, 1), &by_sequence), None);
        assert_eq!(contradicted(&flagged, &by_rule), None);
        assert_eq!(contradicted(&flagged, &StudyJudgement { finding: Finding::Flagged, ..by_sequence }), None);
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_make_a_study_wait() {
        assert_eq!(age("2999-01-01T00:00:00.000Z"), Duration::MAX);
        let soon = Timestamp::now() + Duration::from_secs(10);
        assert_eq!(age(&crate::ledger::format_time(soon)), Duration::ZERO);
        assert_eq!(age("yesterday"), Duration::MAX);
    }
}
