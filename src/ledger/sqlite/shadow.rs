//! The shadow model's own tables: which model it is, the queue of slices it is still to score, and what it scored.
//! Nothing here touches a slice, a score, a study or the outbox.

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::queue::claim;
use super::reader::records;
use super::verdict::evidence_in_state;
use super::{Ledger, Reader};
use crate::ledger::{
    Claim, JudgedStudy, NewShadowModel, Result, ScoredTwice, ShadowEnd, ShadowModel, ShadowOutcome, ShadowSlices,
    SliceId, SliceState, format_time, now,
};

/// Rows that one write puts into or takes out of the queue: the writer thread is the receiving associations', too.
const ROWS_A_WRITE: usize = 500;

impl Ledger {
    /// Makes a model the shadow model, of studies whose last slice came within so many days, and returns its row.
    /// Slices that waited for another one do so no longer.
    pub async fn start_shadow(&self, model: NewShadowModel, days: u32) -> Result<ShadowModel> {
        let since = days_ago(days);
        self.write(move |connection| {
            let goes_on = connection
                .query_row(
                    "SELECT 1 FROM shadow_models WHERE present = 1 AND model_sha256 = ?1",
                    [&model.sha256],
                    |_| Ok(()),
                )
                .optional()?
                .is_some();
            if !goes_on {
                end_shadow(connection)?;
            }
            connection.execute(
                "INSERT INTO shadow_models (model, model_sha256, slice_threshold, rule, present, started_at, since)
                 VALUES (?1, ?2, ?3, ?4, 1, ?5, ?6)
                 ON CONFLICT (model_sha256) DO UPDATE SET
                     model = excluded.model, slice_threshold = excluded.slice_threshold, rule = excluded.rule,
                     present = 1, started_at = excluded.started_at, since = min(since, excluded.since)",
                params![model.name, model.sha256, model.slice_threshold, model.rule, now(), since],
            )?;
            Ok(connection.query_row("SELECT * FROM shadow_models WHERE present = 1", [], shadow_model)?)
        })
        .await
    }

    /// From now on there is no shadow model; what one has scored stays.
    pub async fn stop_shadow(&self) -> Result<()> {
        self.write(end_shadow).await
    }

    /// Puts into the queue what the shadow model has not ended and the archive still has, of studies whose last slice came within so many days:
    /// at most `most` slices, of the newest studies. Returns how many it found. Blocks; other writes come between.
    pub fn fill_shadow_queue(&self, model: i64, days: u32, most: u64) -> Result<usize> {
        let slices = self.read(|connection| {
            let mut statement = connection.prepare(
                "SELECT s.id FROM studies t INDEXED BY studies_by_time CROSS JOIN slices s ON s.study_uid = t.study_uid
                 CROSS JOIN instances i ON i.id = s.instance_id AND i.removed_at IS NULL AND i.lost_at IS NULL
                 WHERE t.last_received_at >= ?1 AND s.state IN ('scored', 'failed')
                   AND NOT EXISTS (SELECT 1 FROM shadow_scores x WHERE x.slice_id = s.id AND x.model_id = ?2)
                 ORDER BY t.last_received_at DESC LIMIT ?3",
            )?;
            let rows = statement.query_map(params![days_ago(days), model, most as i64], |row| row.get(0))?;
            Ok(rows.collect::<rusqlite::Result<Vec<SliceId>>>()?)
        })?;
        self.for_each_row(&slices, "INSERT INTO shadow_queue (slice_id) VALUES (?1) ON CONFLICT DO NOTHING")?;
        Ok(slices.len())
    }

    /// Takes out of the queue what has waited so long that its study's last slice came before so many days. Blocks.
    pub fn prune_shadow_queue(&self, days: u32) -> Result<usize> {
        let slices = self.read(|connection| {
            let mut statement = connection.prepare(
                "SELECT q.slice_id FROM shadow_queue q JOIN slices s ON s.id = q.slice_id
                 JOIN studies t ON t.study_uid = s.study_uid WHERE t.last_received_at < ?1",
            )?;
            let rows = statement.query_map([days_ago(days)], |row| row.get(0))?;
            Ok(rows.collect::<rusqlite::Result<Vec<SliceId>>>()?)
        })?;
        self.for_each_row(&slices, "DELETE FROM shadow_queue WHERE slice_id = ?1")?;
        Ok(slices.len())
    }

    fn for_each_row(&self, slices: &[SliceId], sql: &'static str) -> Result<()> {
        slices.chunks(ROWS_A_WRITE).try_for_each(|slices| {
            let slices = slices.to_vec();
            self.write_blocking(move |connection| {
                let mut statement = connection.prepare_cached(sql)?;
                slices.iter().try_for_each(|slice| statement.execute([slice]).map(drop))?;
                Ok(())
            })
        })
    }

    /// The next slices for the shadow model, all tried equally often, and counts the claim before they are touched: a
    /// slice that takes the process with it must not do so for ever. There is one shadow, so its claims are no leases: their number
    /// is 0. Blocks.
    pub fn claim_shadow(&self, most: usize) -> Result<Vec<Claim>> {
        let mut claims = self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT q.slice_id, s.study_uid, i.sop_uid, s.frame, i.path, q.attempts, q.claims, i.transfer_syntax, s.head_check
                 FROM (SELECT * FROM shadow_queue INDEXED BY shadow_queue_order
                       ORDER BY attempts, slice_id DESC LIMIT ?1) q
                 CROSS JOIN slices s ON s.id = q.slice_id JOIN instances i ON i.id = s.instance_id
                 ORDER BY q.attempts, q.slice_id DESC",
            )?;
            let claimed_at = now();
            let rows = statement.query_map([most as i64], |row| claim(row, 0, &claimed_at))?;
            Ok(rows.collect::<rusqlite::Result<Vec<Claim>>>()?)
        })?;
        if let Some(first) = claims.first().map(|claim| claim.attempts) {
            claims.retain(|claim| claim.attempts == first);
        }
        // One that the process ended with is looked at alone, so that no other is blamed for it.
        if let Some(suspect) = claims.iter().position(|claim| claim.deaths > 0) {
            claims.truncate(suspect.max(1));
        }
        let slices: Vec<SliceId> = claims.iter().map(|claim| claim.lease.slice).collect();
        self.for_each_row(&slices, "UPDATE shadow_queue SET claims = claims + 1 WHERE slice_id = ?1")?;
        Ok(claims)
    }

    /// Ends slices for the shadow model. Blocks.
    pub fn end_shadow_slices(&self, model: i64, ends: Vec<ShadowEnd>) -> Result<()> {
        self.write_blocking(move |connection| ends.iter().try_for_each(|end| end_slice(connection, model, end)))
    }

    /// Leaves a slice in the queue, with one more attempt counted. Blocks.
    pub fn retry_shadow_slice(&self, slice: SliceId) -> Result<()> {
        self.for_each_row(&[slice], "UPDATE shadow_queue SET attempts = attempts + 1 WHERE slice_id = ?1")
    }

    /// Takes back the claims of slices that were not touched. Blocks.
    pub fn give_back_shadow(&self, slices: Vec<SliceId>) -> Result<()> {
        self.for_each_row(&slices, "UPDATE shadow_queue SET claims = claims - 1 WHERE slice_id = ?1")
    }
}

fn days_ago(days: u32) -> String {
    let since = Timestamp::now().checked_sub(SignedDuration::from_hours(24 * i64::from(days)));
    format_time(since.unwrap_or(Timestamp::MIN))
}

fn end_shadow(connection: &Connection) -> Result<()> {
    connection.execute("UPDATE shadow_models SET present = 0 WHERE present = 1", [])?;
    connection.execute("DELETE FROM shadow_queue", [])?;
    Ok(())
}

fn end_slice(connection: &Connection, model: i64, end: &ShadowEnd) -> Result<()> {
    let (state, reason, probability, positive, decoded_at) = match &end.outcome {
        ShadowOutcome::Scored { probability, positive, decoded_at } => {
            ("scored", None, Some(probability), Some(positive), Some(decoded_at))
        }
        ShadowOutcome::Failed { reason } => ("failed", Some(reason), None, None, None),
    };
    connection
        .prepare_cached(
            "INSERT INTO shadow_scores (slice_id, model_id, state, reason, probability, positive, threshold, provider,
                                        software, claimed_at, decoded_at, scored_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            end.slice,
            model,
            state,
            reason,
            probability,
            positive,
            end.threshold,
            end.provider,
            crate::SOFTWARE,
            end.claimed_at,
            decoded_at,
            end.ended_at
        ])?;
    connection.prepare_cached("DELETE FROM shadow_queue WHERE slice_id = ?1")?.execute([end.slice])?;
    Ok(())
}

fn shadow_model(row: &Row<'_>) -> rusqlite::Result<ShadowModel> {
    Ok(ShadowModel {
        id: row.get("id")?,
        name: row.get("model")?,
        sha256: row.get("model_sha256")?,
        slice_threshold: row.get("slice_threshold")?,
        rule: row.get("rule")?,
        present: row.get("present")?,
        since: row.get("since")?,
    })
}

/// The slices of the study ?1 that the shadow model ?2 can score, as [`scored_twice`] reads them.
const IN_SHADOW: &str = "SELECT i.series_uid, x.reason, i.instance_number, s.frame, s.position, s.orientation, s.thickness, s.doubts, s.is_substitute,
            s.id, s.shows, s.lacking, s.location, x.state, x.probability, x.positive, c.probability
     FROM slices s JOIN instances i ON i.id = s.instance_id LEFT JOIN scores c ON c.id = s.score_id
     LEFT JOIN shadow_scores x ON x.slice_id = s.id AND x.model_id = ?2
     WHERE s.study_uid = ?1 AND s.state <> 'ineligible'";

fn scored_twice(row: &Row<'_>) -> rusqlite::Result<ScoredTwice> {
    let state: Option<String> = row.get(13)?;
    let state = match (state, row.get(14)?) {
        (None, _) => SliceState::Queued,
        (Some(_), Some(probability)) => {
            SliceState::Scored { probability, positive: row.get::<_, Option<bool>>(15)? == Some(true) }
        }
        (Some(_), None) => SliceState::Failed,
    };
    Ok(ScoredTwice { probability: row.get(16)?, in_shadow: evidence_in_state(row, state)? })
}

impl Reader {
    /// The present shadow model, else the last there was.
    pub fn latest_shadow_model(&self) -> Result<Option<ShadowModel>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT * FROM shadow_models ORDER BY present DESC, started_at DESC, id DESC LIMIT 1",
            )?;
            Ok(statement.query_row([], shadow_model).optional()?)
        })
    }

    /// How many slices wait for the shadow model.
    pub fn shadow_queue_depth(&self) -> Result<u64> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT count(*) FROM shadow_queue")?;
            Ok(statement.query_row([], |row| row.get::<_, i64>(0))? as u64)
        })
    }

    /// The slices of a study that a shadow model ended, and how many it has not.
    pub fn shadow_slices(&self, study_uid: &str, model: i64) -> Result<ShadowSlices> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT i.series_uid, i.sop_uid, s.frame, i.instance_number, x.state, x.reason, x.probability, x.positive,
                        x.provider, x.scored_at
                 FROM slices s JOIN shadow_scores x ON x.slice_id = s.id AND x.model_id = ?2
                 JOIN instances i ON i.id = s.instance_id
                 WHERE s.study_uid = ?1 ORDER BY i.series_uid, i.instance_number, i.sop_uid, s.frame",
            )?;
            let ended = records(&mut statement, params![study_uid, model])?;
            let mut statement = connection.prepare_cached(
                "SELECT count(*) FROM slices s WHERE s.study_uid = ?1 AND s.state <> 'ineligible'
                 AND NOT EXISTS (SELECT 1 FROM shadow_scores x WHERE x.slice_id = s.id AND x.model_id = ?2)",
            )?;
            let missing: i64 = statement.query_row(params![study_uid, model], |row| row.get(0))?;
            let mut statement = connection.prepare_cached(IN_SHADOW)?;
            let evidence = statement.query_map(params![study_uid, model], |row| Ok(scored_twice(row)?.in_shadow))?;
            let evidence = evidence.collect::<rusqlite::Result<_>>()?;
            Ok(ShadowSlices { ended, evidence, missing: missing as u64 })
        })
    }

    /// Gives `visit` every decided study whose last slice came at `since` or later, with its final verdict and what this shadow
    /// model made of its slices, the newest first and one at a time. All are as of one moment.
    pub fn visit_judged_studies(&self, model: i64, since: &str, mut visit: impl FnMut(JudgedStudy)) -> Result<()> {
        self.read(|connection| {
            let mut studies = connection.prepare_cached(
                "SELECT t.study_uid, t.accession_number, t.last_received_at, v.flagged, v.score, v.threshold, v.model,
                        v.model_sha256
                 FROM studies t INDEXED BY studies_by_time
                 JOIN verdicts v ON v.id = (SELECT max(id) FROM verdicts WHERE study_uid = t.study_uid
                                            AND revision = t.revision AND NOT provisional)
                 WHERE t.last_received_at >= ?1 AND t.state = 'decided' ORDER BY t.last_received_at DESC",
            )?;
            let mut slices = connection.prepare_cached(IN_SHADOW)?;
            // The open outer query is the read transaction that the inner ones run in.
            let mut rows = studies.query([since])?;
            while let Some(row) = rows.next()? {
                let study_uid: String = row.get(0)?;
                let slices = slices.query_map(params![study_uid, model], scored_twice)?;
                let slices = slices.collect::<rusqlite::Result<_>>()?;
                visit(JudgedStudy {
                    study_uid,
                    accession_number: row.get(1)?,
                    last_received_at: row.get(2)?,
                    flagged: row.get(3)?,
                    score: row.get(4)?,
                    threshold: row.get(5)?,
                    model: row.get(6)?,
                    model_sha256: row.get(7)?,
                    slices,
                });
            }
            Ok(())
        })
    }
}
