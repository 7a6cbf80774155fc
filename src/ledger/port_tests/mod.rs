//! Tests of the ledger's ports. A backend names itself once, in [`port_tests!`], and has all of them.

use std::sync::Arc;
use std::time::Duration;

use super::{
    Claim, Escalations, Instances, LeaseRequest, NewInstance, NewMessage, OpenStudy, Outbox, Queue, Score, SliceRow,
    SliceStart, Studies, Verdict, WorkerId, WorklistRow, now,
};
use crate::event::{Event, StudyEvent};

pub(super) mod escalations;
pub(super) mod instances;
pub(super) mod outbox;
pub(super) mod queue;
pub(super) mod studies;

/// A backend in an empty place: its ports, and what the tests look at beside them.
pub(super) trait Backend {
    fn queue(&self) -> &dyn Queue;
    fn instances(&self) -> &dyn Instances;
    fn studies(&self) -> &dyn Studies;
    fn outbox(&self) -> &dyn Outbox;
    fn escalations(&self) -> &dyn Escalations;
    fn slices(&self, study_uid: &str) -> Vec<SliceRow>;
    fn row(&self, study_uid: &str) -> WorklistRow;
    /// The finding of each verdict of a study, in their order.
    fn flags(&self, study_uid: &str) -> Vec<Option<bool>>;
}

/// Makes a test of each function of these modules, with a backend that `$new` makes.
macro_rules! port_tests {
    ($new:expr) => {
        $crate::ledger::port_tests::port_tests! { $new;
            queue {
                a_leased_slice_is_given_to_nobody_else
                a_lease_that_expired_is_given_to_another_and_ends_nothing_any_more
                a_lease_that_is_extended_does_not_expire
                a_lease_that_expired_but_was_not_taken_still_ends_its_slice
                a_worker_that_takes_its_own_expired_lease_again_has_not_died
                a_run_that_died_is_counted_and_its_slices_are_taken_up
                a_slice_that_ended_runs_is_leased_alone_by_an_idle_worker
                what_is_given_back_is_counted_as_no_death_however_often
                an_attempt_that_failed_is_counted_and_waits
                a_slice_ends_once
                a_backend_that_fails_a_slice_keeps_the_reason
                stat_slices_go_first_and_starve_nobody
                senders_take_turns_however_many_studies_one_has
                an_object_is_given_up_as_a_whole
            }
            instances {
                the_same_content_again_is_a_duplicate_and_other_content_a_conflict
                what_is_posted_is_recorded_as_what_is_stored
                what_was_set_aside_is_counted_once
                what_was_refused_is_missing_until_it_comes
                parts_of_a_concatenation_that_did_not_come_are_missing
                what_a_broken_association_left_out_is_missing
                an_unflagged_study_of_a_broken_association_is_told_of_again
                several_patients_are_known_by_name_and_birth_date_too
                what_is_set_aside_of_another_patient_mixes_no_two
                what_failed_for_want_of_its_file_is_scored_when_it_comes_again
                a_readable_copy_takes_the_place_of_one_that_failed
                the_end_of_a_transfer_wakes_who_waits_for_studies
            }
            studies {
                one_alarm_a_study_however_often_it_is_judged
                a_flag_is_never_taken_back
                scores_of_another_model_are_made_anew_before_a_verdict
                a_verdict_on_evidence_that_has_changed_is_not_taken
                a_slice_scored_after_the_hard_cap_reopens_its_study
                the_most_suspicious_slices_come_first
                who_sent_a_study_is_known
            }
            outbox {
                a_message_is_due_until_it_is_delivered
                an_alert_is_due_before_what_nobody_hurries_for
                an_alert_does_not_wait_for_a_clock_that_was_set_back
                a_dead_message_is_sent_again_when_a_person_wants_it
                a_dead_message_is_tried_again_when_its_channel_works
                a_message_that_was_sent_is_not_written_again
                what_is_posted_wakes_the_channels
                news_of_an_acknowledgement_waits_for_the_alert
            }
            escalations {
                what_nobody_acknowledged_is_raised_once
                a_step_waits_for_its_time
                a_message_that_does_not_arrive_is_reported_once
                each_step_is_told_once_though_the_final_verdict_follows_the_early_one
                a_study_that_is_flagged_since_is_not_escalated_as_incomplete
                a_study_that_is_still_incomplete_is_escalated_once_that_is_certain
                what_waits_for_a_channel_that_is_gone_is_given_up
            }
        }
    };
    ($new:expr; $($port:ident { $($test:ident)* })*) => {
        $(mod $port {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let (_folder, backend) = $new;
                $crate::ledger::port_tests::$port::$test(&backend).await;
            })*
        })*
    };
}
pub(super) use port_tests;

const MINUTE: Duration = Duration::from_secs(60);

pub(crate) fn instance(sop: &str, study: &str) -> NewInstance {
    NewInstance {
        sop_uid: sop.into(),
        sop_class_uid: "1.2.840.10008.5.1.4.1.1.2".into(),
        transfer_syntax: "1.2.840.10008.1.2.1".into(),
        study_uid: study.into(),
        series_uid: "1.3".into(),
        instance_number: Some(1),
        accession_number: None,
        patient_id: Some("P".into()),
        digest: "aa".into(),
        path: format!("archive/{sop}"),
        size: 1,
        calling_ae: "CT".into(),
        peer: "127.0.0.1".into(),
        received_at: now(),
        slices: vec![SliceStart::Queued.into()],
        stat: false,
        about: Default::default(),
        concatenation: None,
        images_in_acquisition: None,
        resumes: true,
        is_taken_in_again: false,
    }
}

pub(in crate::ledger) fn worker(run: &str) -> WorkerId {
    WorkerId { node: "node".into(), run: run.into() }
}

/// A request of a worker that is idle.
pub(crate) fn request(run: &str, most: usize, duration: Duration) -> LeaseRequest {
    LeaseRequest { worker: worker(run), most, duration, is_idle: true }
}

pub(crate) fn score(claim: &Claim, probability: f64) -> Score {
    Score {
        shows: triaged_imaging::Shows::Head,
        lease: claim.lease,
        probability,
        positive: probability >= 0.5,
        location: None,
        threshold: 0.5,
        model: "m".into(),
        model_sha256: "00".into(),
        provider: "CPU".into(),
        claimed_at: claim.claimed_at.clone(),
        decoded_at: now(),
        scored_at: now(),
    }
}

/// Receives an instance with one slice and gives it this probability. Returns its study, as the triage stage sees it.
async fn scored(backend: &dyn Backend, sop: &str, probability: f64) -> OpenStudy {
    backend.instances().store(instance(sop, "s")).await.unwrap();
    let claim = backend.queue().lease(request("run", 1, MINUTE)).await.unwrap().remove(0);
    assert!(backend.queue().complete(vec![score(&claim, probability)]).await.unwrap().is_empty());
    open(backend)
}

/// The one study that is open.
fn open(backend: &dyn Backend) -> OpenStudy {
    let mut open = backend.studies().open_studies("00").unwrap();
    assert_eq!(open.len(), 1);
    open.remove(0)
}

pub(in crate::ledger) fn verdict(study: &OpenStudy, provisional: bool, flagged: bool) -> Verdict {
    Verdict {
        study_uid: study.study_uid.clone(),
        revision: study.revision,
        provisional,
        flagged: Some(flagged),
        score: Some(0.9),
        threshold: 0.5,
        rule: "{}".into(),
        model: "m".into(),
        model_sha256: "00".into(),
        slices_received: study.slices_received,
        slices_scored: study.slices_scored(),
        slices_ineligible: study.slices_ineligible,
        slices_failed: study.slices_failed,
        refused: study.refused,
        is_broken_off: study.is_broken_off,
        decided_at: now(),
        last_received_at: now(),
        evidence: Default::default(),
    }
}

/// The message that study `s` is flagged, for channel `webhook`.
pub(in crate::ledger) fn alert() -> NewMessage {
    let event = StudyEvent { study_uid: "s".into(), model_sha256: "00".into(), ..StudyEvent::sample() };
    NewMessage { channel: "webhook".into(), event: Arc::new(Event::Flagged(event)), escalation: None }
}
