//! The verdicts that a shadow model would have given: on one study, and on all beside the model that counts. Computed when somebody
//! asks, as the node would judge by that model, series by series; nothing is decided here.

use std::sync::Arc;

use serde::Serialize;

use super::series::{StudyJudgement, WholeSeries, judge};
use crate::ledger::{
    Finding, JudgedStudy, LedgerError, Reader, Result, ShadowModel, ShadowRow, SliceEvidence, SliceState,
};
use triaged_model::{ModelCard, SeriesNetwork, StudyRule, VerdictRule};

/// By what a shadow model's verdicts are made. The ledger has its study rule; the rest is its card's.
#[derive(Clone, Default)]
pub struct ShadowJudge(Option<Arc<Whole>>);

/// A card with its sequence network.
struct Whole {
    card: ModelCard,
    sequence: Option<Arc<dyn SeriesNetwork>>,
}

impl ShadowJudge {
    /// By a card and its sequence network, if it has one; `default()` is by the study rule that the ledger has.
    pub fn new(card: ModelCard, sequence: Option<Arc<dyn SeriesNetwork>>) -> ShadowJudge {
        ShadowJudge(Some(Arc::new(Whole { card, sequence })))
    }

    /// What judges the scores of this model: of the card, if it is that model's.
    fn of<'j>(&'j self, model: &ShadowModel) -> Result<By<'j>> {
        let rule = serde_json::from_str(&model.rule).map_err(|error| {
            LedgerError::unreadable(format!("the study rule of the shadow model {}: {error}", model.name))
        })?;
        Ok(By { rule, whole: self.0.as_deref().filter(|whole| whole.card.sha256 == model.sha256) })
    }
}

/// What judges the scores of one shadow model.
struct By<'j> {
    /// As it was in the card.
    rule: StudyRule,
    whole: Option<&'j Whole>,
}

impl By<'_> {
    fn judge(&self, evidence: &[SliceEvidence]) -> StudyJudgement {
        let whole_series = || {
            let whole = self.whole?;
            Some(WholeSeries { card: whole.card.sequence.as_ref()?, network: &**whole.sequence.as_ref()? })
        };
        let made_for = self.whole.map(|whole| whole.card.made_for.clone()).unwrap_or_default();
        judge(evidence, &self.rule, whole_series(), &made_for)
    }
}

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
    /// The rule that made the score, in words.
    pub judged_by: String,
    pub slices: Vec<ShadowRow>,
}

/// Two models beside each other, over the studies that both have judged.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// The model that counts: that of the newest verdict.
    pub model: Option<ModelName>,
    pub shadow: ShadowModel,
    /// The rule that makes the shadow's scores of studies, in words.
    pub judged_by: String,
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
    /// The present shadow model's opinion of a study, else that of the last one; `None` where it has ended no slice.
    pub fn of_study(ledger: &Reader, study_uid: &str, judge: &ShadowJudge) -> Result<Option<ShadowStudy>> {
        let Some(model) = ledger.latest_shadow_model()? else { return Ok(None) };
        let slices = ledger.shadow_slices(study_uid, model.id)?;
        if slices.ended.is_empty() {
            return Ok(None);
        }
        let complete = slices.missing == 0;
        let judgement = judge.of(&model)?.judge(&slices.evidence);
        let flagged = judgement.finding == Finding::Flagged;
        // A study rule's flag stands whatever else is scored; a sequence network's does not.
        let stands = flagged && matches!(judgement.rule, VerdictRule::Slices(_));
        Ok(Some(ShadowStudy {
            complete,
            flagged: (judgement.score.is_some() && (stands || complete)).then_some(flagged),
            score: judgement.score,
            threshold: judgement.threshold,
            judged_by: judgement.rule.words(),
            model,
            slices: slices.ended,
        }))
    }
}

impl Comparison {
    /// Compares the present shadow model, else the last there was, with the model that counts, over the studies whose
    /// last slice came at `since` or later. `each` is given every study that is compared, the newest first. `None` where
    /// no model ever ran in shadow.
    pub fn make(
        ledger: &Reader,
        judge: &ShadowJudge,
        since: Option<&str>,
        mut each: impl FnMut(&ComparedStudy),
    ) -> Result<Option<Comparison>> {
        let Some(shadow) = ledger.latest_shadow_model()? else { return Ok(None) };
        let by = judge.of(&shadow)?;
        let model = shadow.id;
        let since = since.unwrap_or_default().max(&shadow.since).to_owned();
        let mut comparison = Comparison {
            model: None,
            agreement: Agreement::default(),
            left_out: LeftOut::default(),
            slices: SliceAgreement { waiting: ledger.shadow_queue_depth()?, ..SliceAgreement::default() },
            disagreements: Vec::new(),
            // Of no slices the rule is the same.
            judged_by: by.judge(&[]).rule.words(),
            shadow,
        };
        let mut correlation = Correlation::default();
        ledger.visit_judged_studies(model, &since, |study| {
            if let Some(study) = comparison.take(study, &by, &mut correlation) {
                each(&study);
                if study.flagged != study.shadow_flagged {
                    comparison.disagreements.push(study);
                }
            }
        })?;
        comparison.slices.compared = correlation.count;
        comparison.slices.correlation = correlation.value();
        Ok(Some(comparison))
    }

    /// Counts a study; returns it where both models have judged it.
    fn take(&mut self, judged: JudgedStudy, by: &By<'_>, correlation: &mut Correlation) -> Option<ComparedStudy> {
        let name = ModelName { model: judged.model, model_sha256: judged.model_sha256 };
        // The newest study comes first, and its verdict is by the model that counts.
        let model = self.model.get_or_insert_with(|| name.clone());
        if model.model_sha256 != name.model_sha256 {
            self.left_out.other_model += 1;
            return None;
        }
        let failed = judged.slices.iter().filter(|slice| slice.in_shadow.state == SliceState::Failed);
        self.slices.failed += failed.count() as u64;
        if judged.slices.iter().any(|slice| slice.in_shadow.state == SliceState::Queued) {
            self.left_out.incomplete += 1;
            return None;
        }
        let (evidence, probabilities): (Vec<SliceEvidence>, Vec<Option<f64>>) =
            judged.slices.into_iter().map(|slice| (slice.in_shadow, slice.probability)).unzip();
        let judgement = by.judge(&evidence);
        let (Some(flagged), Some(score), Some(shadow_score)) = (judged.flagged, judged.score, judgement.score) else {
            self.left_out.not_triaged += 1;
            return None;
        };
        let study = ComparedStudy {
            study_uid: judged.study_uid,
            accession_number: judged.accession_number,
            last_received_at: judged.last_received_at,
            flagged,
            score,
            threshold: judged.threshold,
            shadow_flagged: judgement.finding == Finding::Flagged,
            shadow_score,
            shadow_threshold: judgement.threshold,
        };
        self.agreement.add(&study);
        for (slice, probability) in evidence.iter().zip(probabilities) {
            if let (Some(probability), SliceState::Scored { probability: in_shadow, .. }) = (probability, slice.state) {
                correlation.add(probability, in_shadow);
            }
        }
        Some(study)
    }
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
