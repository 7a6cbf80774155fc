//! Verdicts with their evidence as it was when they were given: what came later, or was scored again later, is not in it.

use rusqlite::params;

use super::Reader;
use super::reader::records;
use crate::ledger::{EvidenceSlice, ReportedVerdict, Result};

impl Reader {
    /// The verdicts on a study, oldest first. Blocks.
    pub fn reported_verdicts(&self, study_uid: &str) -> Result<Vec<ReportedVerdict>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT study_uid, revision, provisional, verdict, score, threshold, rule, model, model_sha256, software,
                        slices_scored, slices_ineligible, slices_failed, decided_at,
                        coalesce(last_received_at, decided_at) AS last_received_at, missing, warnings
                 FROM verdicts WHERE study_uid = ?1 ORDER BY id",
            )?;
            records(&mut statement, [study_uid])
        })
    }

    /// The slices that had been received when a verdict was given, by series, instance number and frame. Blocks.
    pub fn evidence(&self, verdict: &ReportedVerdict) -> Result<Vec<EvidenceSlice>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT i.series_uid, i.sop_uid, i.sop_class_uid, s.frame, i.instance_number,
                        EXISTS (SELECT 1 FROM slices o WHERE o.instance_id = i.id AND o.frame > 1) AS multi_frame,
                        c.probability, c.box_left, c.box_top, c.box_width, c.box_height,
                        iif(i.removed_at IS NULL, i.path, NULL) AS path, i.transfer_syntax
                 FROM instances i JOIN slices s ON s.instance_id = i.id
                 LEFT JOIN scores c ON c.id = (SELECT max(o.id) FROM scores o
                     WHERE o.slice_id = s.id AND o.model_sha256 = ?2 AND o.scored_at <= ?3)
                 WHERE i.study_uid = ?1 AND i.received_at <= ?4
                 ORDER BY i.series_uid, i.instance_number, i.sop_uid, s.frame",
            )?;
            let ReportedVerdict { study_uid, model_sha256, decided_at, last_received_at, .. } = verdict;
            records(&mut statement, params![study_uid, model_sha256, decided_at, last_received_at])
        })
    }
}
