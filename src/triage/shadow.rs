//! What a shadow model would have said: of one study, and of all beside the model that counts. Computed when somebody
//! asks, by the study rule of the shadow model's card; nothing is decided here.

use rusqlite::types::Type;
use rusqlite::{Connection, params};
use serde::Serialize;

use crate::ledger::{Result, ShadowModel, ShadowRow, shadow_queue_depth};
use triaged_model::{Judgement, StudyRule};

/// A study as a shadow model sees it.
#[derive(Debug, Clone, Serialize)]
pub struct ShadowStudy {
    #[serde(flatten)]
    pub model: ShadowModel,
    /// Whether the shadow model has ended every slice that it can score. Only then can a study be left unflagged.
    pub complete: bool,
    pub flagged: Option<bool>,
    pub score: Option<f64>,
    pub threshold: f64,
    pub slices: Vec<ShadowRow>,
}

/// Two models beside each other, over the studies that both have judged.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// The model that counts: that of the newest verdict.
    pub model: Option<ModelName>,
    pub shadow: ShadowModel,
    pub agreement: Agreement,
    pub left_out: LeftOut,
    pub slices: SliceAgreement,
    /// The studies that one model flags and the other does not, the newest first.
    pub disagreements: Vec<ComparedStudy>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelName {
    pub model: String,
    pub model_sha256: String,
}

/// Studies that both models have judged, by what each says of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Agreement {
    pub studies: u64,
    pub both: u64,
    pub only_model: u64,
    pub only_shadow: u64,
    pub neither: u64,
}

/// Studies with a verdict that are not compared, and why.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// The shadow model has not ended all of their slices.
    pub incomplete: u64,
    /// One of the two has scored none of their slices.
    pub not_triaged: u64,
    /// Their verdict is by an earlier model.
    pub other_model: u64,
}

/// Slices, by what both models make of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct SliceAgreement {
    /// Scored by both, of the studies that are compared.
    pub compared: u64,
    /// Pearson's correlation of their probabilities; none where one of the two always says the same.
    pub correlation: Option<f64>,
    /// That the shadow model failed on, of all studies of this model's.
    pub failed: u64,
    /// That wait for the shadow model, of any study.
    pub waiting: u64,
}

/// A study with what both models say of it.
#[derive(Debug, Clone, Serialize)]
pub struct ComparedStudy {
    pub study_uid: String,
    pub accession_number: Option<String>,
    pub last_received_at: String,
    pub flagged: bool,
    pub score: f64,
    pub threshold: f64,
    pub shadow_flagged: bool,
    pub shadow_score: f64,
    pub shadow_threshold: f64,
}

impl ShadowStudy {
    /// What the present shadow model, else the last there was, has to say of a study; `None` where it has ended no slice.
    pub fn of_study(connection: &Connection, study_uid: &str) -> Result<Option<ShadowStudy>> {
        let Some(model) = ShadowModel::latest(connection)? else { return Ok(None) };
        let slices = ShadowRow::of_study(connection, study_uid, model.id)?;
        if slices.is_empty() {
            return Ok(None);
        }
        let mut statement = connection.prepare_cached(
            "SELECT count(*) FROM slices s WHERE s.study_uid = ?1 AND s.state <> 'ineligible'
             AND NOT EXISTS (SELECT 1 FROM shadow_scores x WHERE x.slice_id = s.id AND x.model_id = ?2)",
        )?;
        let missing: i64 = statement.query_row(params![study_uid, model.id], |row| row.get(0))?;
        let complete = missing == 0;
        let probabilities: Vec<f64> = slices.iter().filter_map(|slice| slice.probability).collect();
        let Judgement { score, threshold, flagged } = rule(&model)?.judge(&probabilities);
        let scored = !probabilities.is_empty();
        Ok(Some(ShadowStudy {
            complete,
            flagged: (scored && (flagged || complete)).then_some(flagged),
            score: scored.then_some(score),
            threshold,
            model,
            slices,
        }))
    }
}

impl Comparison {
    /// Compares the present shadow model, else the last there was, with the model that counts, over the studies whose
    /// last slice came at `since` or later. `each` is given every study that is compared, the newest first. `None` where
    /// no model ever ran in shadow.
    pub fn make(
        connection: &Connection,
        since: Option<&str>,
        mut each: impl FnMut(&ComparedStudy),
    ) -> Result<Option<Comparison>> {
        let Some(shadow) = ShadowModel::latest(connection)? else { return Ok(None) };
        let rule = rule(&shadow)?;
        let mut comparison = Comparison {
            model: None,
            agreement: Agreement::default(),
            left_out: LeftOut::default(),
            slices: SliceAgreement { waiting: shadow_queue_depth(connection)?, ..SliceAgreement::default() },
            disagreements: Vec::new(),
            shadow,
        };
        let since = since.unwrap_or_default().max(&comparison.shadow.since).to_owned();
        let mut correlation = Correlation::default();
        let mut studies = connection.prepare_cached(
            "SELECT t.study_uid, t.accession_number, t.last_received_at, v.flagged, v.score, v.threshold, v.model,
                    v.model_sha256
             FROM studies t INDEXED BY studies_by_time
             JOIN verdicts v ON v.id = (SELECT max(id) FROM verdicts WHERE study_uid = t.study_uid
                                        AND revision = t.revision AND NOT provisional)
             WHERE t.last_received_at >= ?1 AND t.state = 'decided' ORDER BY t.last_received_at DESC",
        )?;
        let mut slices = connection.prepare_cached(
            "SELECT c.probability, x.state, x.probability FROM slices s LEFT JOIN scores c ON c.id = s.score_id
             LEFT JOIN shadow_scores x ON x.slice_id = s.id AND x.model_id = ?2
             WHERE s.study_uid = ?1 AND s.state <> 'ineligible'",
        )?;
        let mut rows = studies.query([&since])?;
        while let Some(row) = rows.next()? {
            let name = ModelName { model: row.get(6)?, model_sha256: row.get(7)? };
            let model = comparison.model.get_or_insert_with(|| name.clone());
            if model.model_sha256 != name.model_sha256 {
                comparison.left_out.other_model += 1;
                continue;
            }
            let study_uid: String = row.get(0)?;
            let both = slices.query_map(params![study_uid, comparison.shadow.id], |row| {
                Ok(BothSlices { probability: row.get(0)?, shadow_state: row.get(1)?, shadow: row.get(2)? })
            })?;
            let both = both.collect::<rusqlite::Result<Vec<BothSlices>>>()?;
            let probabilities: Vec<f64> = both.iter().filter_map(|slice| slice.shadow).collect();
            let failed = both.iter().filter(|slice| slice.shadow_state.as_deref() == Some("failed"));
            comparison.slices.failed += failed.count() as u64;
            if both.iter().any(|slice| slice.shadow_state.is_none()) {
                comparison.left_out.incomplete += 1;
                continue;
            }
            let (Some(flagged), Some(score), false) = (row.get(3)?, row.get(4)?, probabilities.is_empty()) else {
                comparison.left_out.not_triaged += 1;
                continue;
            };
            let judgement = rule.judge(&probabilities);
            let study = ComparedStudy {
                study_uid,
                accession_number: row.get(1)?,
                last_received_at: row.get(2)?,
                flagged,
                score,
                threshold: row.get(5)?,
                shadow_flagged: judgement.flagged,
                shadow_score: judgement.score,
                shadow_threshold: judgement.threshold,
            };
            comparison.agreement.add(&study);
            for slice in &both {
                if let (Some(a), Some(b)) = (slice.probability, slice.shadow) {
                    correlation.add(a, b);
                }
            }
            each(&study);
            if study.flagged != study.shadow_flagged {
                comparison.disagreements.push(study);
            }
        }
        comparison.slices.compared = correlation.count;
        comparison.slices.correlation = correlation.value();
        Ok(Some(comparison))
    }
}

/// A slice with what both models gave it.
struct BothSlices {
    probability: Option<f64>,
    shadow_state: Option<String>,
    shadow: Option<f64>,
}

impl Agreement {
    fn add(&mut self, study: &ComparedStudy) {
        self.studies += 1;
        *match (study.flagged, study.shadow_flagged) {
            (true, true) => &mut self.both,
            (true, false) => &mut self.only_model,
            (false, true) => &mut self.only_shadow,
            (false, false) => &mut self.neither,
        } += 1;
    }
}

/// Pearson's correlation of pairs, in one pass (Welford).
#[derive(Default)]
struct Correlation {
    count: u64,
    mean: (f64, f64),
    /// Sums of squared deviations, and of their products.
    squares: (f64, f64),
    products: f64,
}

impl Correlation {
    fn add(&mut self, a: f64, b: f64) {
        self.count += 1;
        let count = self.count as f64;
        let (da, db) = (a - self.mean.0, b - self.mean.1);
        self.mean = (self.mean.0 + da / count, self.mean.1 + db / count);
        self.squares.0 += da * (a - self.mean.0);
        self.squares.1 += db * (b - self.mean.1);
        self.products += da * (b - self.mean.1);
    }

    fn value(&self) -> Option<f64> {
        let spread = (self.squares.0 * self.squares.1).sqrt();
        (spread > 0.0).then(|| (self.products / spread).clamp(-1.0, 1.0))
    }
}

/// The study rule as it was in the card.
fn rule(model: &ShadowModel) -> Result<StudyRule> {
    let unknown = |error| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error));
    Ok(serde_json::from_str(&model.rule).map_err(unknown)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn correlation_is_pearsons() {
        let of = |pairs: &[(f64, f64)]| {
            let mut correlation = Correlation::default();
            pairs.iter().for_each(|&(a, b)| correlation.add(a, b));
            correlation.value()
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[(0.3, 0.2)]), None);
        assert_eq!(of(&[(0.3, 0.2), (0.3, 0.9)]), None, "one of the two always says the same");
        assert!((of(&[(0.0, 1.0), (0.5, 0.5), (1.0, 0.0)]).unwrap() + 1.0).abs() < 1e-12);
        // By hand: deviations (-1, -1), (0, 1), (1, 0) of means (1, 1); products 1, squares 2 and 2.
        assert!((of(&[(0.0, 0.0), (1.0, 2.0), (2.0, 1.0)]).unwrap() - 0.5).abs() < 1e-12);
    }
}
