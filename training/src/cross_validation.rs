//! The joint result of k folds: each patient is scored by a network that has not seen them, and judged by thresholds and a
//! rule that were chosen on the other folds.

use serde::{Deserialize, Serialize};

use crate::evaluate::{Choosing, Decision, Evaluation, Study, Supplement, decide, rules};
use crate::metrics::{Figures, Interval, MeanSd};

/// The figures of all folds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CrossValidation {
    /// Each fold's patients, by the decision that the other folds made.
    pub folds: Vec<Evaluation>,
    /// All patients: each judged in their own fold, the counts put together; AUC over the scores of all folds.
    pub pooled: Evaluation,
    /// Each fold's decision, made on the others. None in runs from before decisions were kept.
    #[serde(default)]
    pub decisions: Vec<Decision>,
    pub slices: Spread,
    pub studies: Spread,
    /// Chosen on all folds' scores: the decision for a network that is then trained on all patients.
    pub decision: Decision,
    #[serde(flatten)]
    pub supplement: Supplement,
}

/// Each figure's mean and deviation over the folds in which it exists.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub auc: Option<MeanSd>,
    pub f2: Option<MeanSd>,
    pub sensitivity: Option<MeanSd>,
    pub specificity: Option<MeanSd>,
    pub precision: Option<MeanSd>,
    pub accuracy: Option<MeanSd>,
}

impl Spread {
    fn of(folds: &[&Figures]) -> Self {
        let over = |value: fn(&Figures) -> Option<f64>| {
            MeanSd::of(&folds.iter().filter_map(|figures| value(figures)).collect::<Vec<f64>>())
        };
        Self {
            auc: over(|figures| figures.auc.map(|auc| auc.value)),
            f2: over(|figures| figures.f2.map(|f2| f2.value)),
            sensitivity: over(|figures| figures.sensitivity.map(|sensitivity| sensitivity.value)),
            specificity: over(|figures| figures.specificity.map(|specificity| specificity.value)),
            precision: over(|figures| Some(figures.precision.value)),
            accuracy: over(|figures| Some(figures.accuracy.value)),
        }
    }
}

impl CrossValidation {
    /// From each fold's scored test patients, each judged by what is chosen on the others' studies. None where the folds that are left after taking one out lack a class.
    pub fn of(folds: &[Vec<Study>], choosing: impl Into<Choosing>, seed: u64) -> Option<Self> {
        let choosing = choosing.into();
        let decisions =
            (0..folds.len()).map(|fold| decide(&Self::others(folds, fold), choosing)).collect::<Option<Vec<_>>>()?;
        let mut evaluations = Vec::with_capacity(folds.len());
        let mut judged = Vec::new();
        for (studies, decision) in folds.iter().zip(&decisions) {
            evaluations.push(Evaluation::of(studies, decision, seed));
            judged.extend(studies.iter().map(|study| (study, *decision)));
        }
        let decision = decide(&folds.concat(), choosing)?;
        let slices: Vec<&Figures> = evaluations.iter().map(|evaluation| &evaluation.slices).collect();
        let studies: Vec<&Figures> = evaluations.iter().map(|evaluation| &evaluation.studies).collect();
        let study_rules = rules::compare(folds, &decisions, &decision, seed);
        Some(Self {
            slices: Spread::of(&slices),
            studies: Spread::of(&studies),
            pooled: Evaluation::pooled(&judged, &decision, seed),
            supplement: Supplement { study_rules, ..Supplement::of(&judged, &decision, seed) },
            folds: evaluations,
            decisions,
            decision,
        })
    }

    /// All folds' studies but one's.
    pub fn others(folds: &[Vec<Study>], fold: usize) -> Vec<Study> {
        folds.iter().enumerate().filter(|(other, _)| *other != fold).flat_map(|(_, studies)| studies).cloned().collect()
    }

    /// A figure's mean and deviation in words, with the number of folds that have the figure where others lack a class.
    pub fn over_folds(&self, spread: Option<MeanSd>, figure: impl Fn(&Evaluation) -> Option<Interval>) -> String {
        let Some(MeanSd { mean, sd }) = spread else { return "one class only".into() };
        match self.folds.iter().filter(|fold| figure(fold).is_some()).count() {
            all if all == self.folds.len() => format!("{mean:.3} ± {sd:.3}"),
            some => format!("{mean:.3} ± {sd:.3} ({some} folds)"),
        }
    }

    /// Two tables in Markdown: all patients, and the folds.
    pub fn table(&self) -> String {
        let mut table = format!(
            "{}\n| mean ± sd over {} folds | slices | studies |\n|---|---|---|\n",
            self.pooled.table(),
            self.folds.len()
        );
        type Row = (&'static str, fn(&Spread) -> Option<MeanSd>, fn(&Figures) -> Option<Interval>);
        let rows: [Row; 6] = [
            ("AUC", |s| s.auc, |f| f.auc),
            ("F2", |s| s.f2, |f| f.f2),
            ("sensitivity", |s| s.sensitivity, |f| f.sensitivity),
            ("specificity", |s| s.specificity, |f| f.specificity),
            ("precision", |s| s.precision, |f| Some(f.precision)),
            ("accuracy", |s| s.accuracy, |f| Some(f.accuracy)),
        ];
        for (name, spread, figure) in rows {
            let slices = self.over_folds(spread(&self.slices), |fold| figure(&fold.slices));
            let studies = self.over_folds(spread(&self.studies), |fold| figure(&fold.studies));
            table += &format!("| {name} | {slices} | {studies} |\n");
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Case;

    /// Five folds of four patients, two with hemorrhage on 3 of 10 slices; `lift` is added to one fold's scores.
    fn folds(lift: f64) -> Vec<Vec<Study>> {
        (0..5)
            .map(|fold| {
                (0..4)
                    .map(|p| Study {
                        patient: format!("{fold}/{p}"),
                        study: None,
                        source: "a".into(),
                        is_ordered: false,
                        slices: (0..10)
                            .map(|s| {
                                let positive = p < 2 && s < 3;
                                let base = if positive { 0.6 } else { 0.3 };
                                let up = if fold == 0 { lift } else { 0.0 };
                                Case { score: base + up + 0.001 * f64::from(s + 10 * p + fold), positive }
                            })
                            .collect(),
                    })
                    .collect()
            })
            .collect()
    }

    #[test]
    fn every_patient_is_judged_by_what_the_other_folds_chose() {
        let clean = CrossValidation::of(&folds(0.0), 0.9, 1).expect("both classes");
        assert_eq!(clean.pooled.patients, 20);
        assert_eq!((clean.pooled.slices.confusion.tp, clean.pooled.slices.confusion.fp), (30, 0));
        assert_eq!(clean.studies.sensitivity, Some(MeanSd { mean: 1.0, sd: 0.0 }));

        // One fold's network scores everything high: judged by the others' threshold its negatives are false alarms,
        // though within the fold the order is perfect.
        let lifted = CrossValidation::of(&folds(0.35), 0.9, 1).expect("both classes");
        assert_eq!(lifted.folds[0].slices.confusion.fp, 34);
        assert_eq!(lifted.folds[0].slices.auc.expect("both classes").value, 1.0);
        assert_eq!(lifted.pooled.slices.confusion.fp, 34);
        assert!(lifted.pooled.slices.auc.expect("both classes").value < 1.0);
        let specificity = lifted.slices.specificity.expect("folds");
        assert!((specificity.mean - 0.8).abs() < 1e-9 && specificity.sd > 0.4, "{specificity:?}");
    }

    /// A fold's calibration is made on the others, and moves against the fold's own level.
    #[test]
    fn the_area_over_all_folds_is_of_scores_on_one_scale() {
        let mut moved = 0;
        for lift in [-0.25, -0.2, -0.1, 0.1, 0.2, 0.25, 0.3] {
            let folds = folds(lift);
            let found = CrossValidation::of(&folds, 0.9, 1).expect("both classes");
            let raw: Vec<Case> = folds.iter().flatten().flat_map(|study| study.slices.clone()).collect();
            let area = found.pooled.slices.auc.map(|auc| auc.value);
            assert_eq!(area, crate::metrics::auc(&raw), "{lift}");
            let calibrated = folds.iter().zip(&found.decisions).flat_map(|(studies, decision)| {
                studies.iter().flat_map(|study| study.calibrated(decision.calibration.as_ref()).slices)
            });
            moved += usize::from(crate::metrics::auc(&calibrated.collect::<Vec<Case>>()) != area);
        }
        assert!(moved > 0, "each fold on a scale of its own would give other areas");
    }

    #[test]
    fn a_fold_that_lacks_a_class_does_not_count_as_0() {
        let mut folds = folds(0.0);
        // The first fold's patients are all without hemorrhage.
        folds[0].retain(|study| !study.is_positive());
        let found = CrossValidation::of(&folds, 0.9, 1).expect("both classes");
        assert_eq!(found.studies.sensitivity, Some(MeanSd { mean: 1.0, sd: 0.0 }));
        assert_eq!(found.folds[0].studies.sensitivity, None);
        assert!(
            found.table().contains("| sensitivity | 1.000 ± 0.000 (4 folds) | 1.000 ± 0.000 (4 folds) |"),
            "{}",
            found.table()
        );
        assert!(found.table().contains("| specificity | 1.000 ± 0.000 | 1.000 ± 0.000 |"), "{}", found.table());
    }
}
