//! Events of the triage stage.

use crate::event::StudyEvent;
use crate::ledger::{OpenStudy, Result, Studies, Verdict};

/// How many slices an event names.
const TOP_SLICES: usize = 3;

/// A verdict as the channels are told of it. `finding` is the model card's. Blocks.
pub(super) fn study_event(
    studies: &dyn Studies,
    study: &OpenStudy,
    verdict: &Verdict,
    finding: String,
) -> Result<StudyEvent> {
    Ok(StudyEvent {
        study_uid: study.study_uid.clone(),
        accession_number: study.accession_number.clone(),
        patient_id: study.patient_id.clone(),
        calling_ae_titles: studies.calling_ae_titles(&study.study_uid)?,
        station_name: studies.station_name(&study.study_uid)?,
        finding,
        revision: verdict.revision,
        provisional: verdict.provisional,
        score: verdict.score,
        threshold: verdict.threshold,
        model: verdict.model.clone(),
        model_sha256: verdict.model_sha256.clone(),
        slices_received: verdict.slices_received,
        slices_scored: verdict.slices_scored,
        slices_ineligible: verdict.slices_ineligible,
        slices_failed: verdict.slices_failed,
        remarks: verdict.evidence.missing.iter().chain(&verdict.evidence.warnings).cloned().collect(),
        top_slices: studies.top_slices(&study.study_uid, TOP_SLICES)?,
        first_received_at: study.first_received_at.clone(),
        last_received_at: study.last_received_at.clone(),
        decided_at: verdict.decided_at.clone(),
        software: crate::SOFTWARE.into(),
    })
}
