//! The threshold that studies of a site have by the sensitivity or specificity that is wanted there.
//!
//! The threshold is an order statistic of the site's own scores. Let n patients bleed and the threshold lie just below the
//! k-th lowest of their scores: of further such patients the share that reaches it is (n − k + 1)/(n + 1) in the mean, whatever the
//! distribution of scores (S. S. Wilks: Determination of Sample Sizes for Setting Tolerance Limits, 1941). So k is the largest
//! with which that mean is what is wanted, and where n is so small that there is none, the site has too few studies.
//! The specificity's, likewise, from the other side.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::studies::Labelled;
use crate::evaluate::Department;
use crate::metrics::{Case, Interval, auc};

/// The shares that are wanted of further studies: of those with hemorrhage to be flagged, of the others to be left unflagged.
/// Each lies above 0 and below 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Wanted {
    pub sensitivity: Option<f64>,
    pub specificity: Option<f64>,
}

/// Why there is no threshold.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum NoThreshold {
    #[error(
        "{patients} patients {class} are too few to choose a threshold for a {share} of {wanted}: that takes at least {least}. Label \
         more studies, or ask for {most:.2} or less"
    )]
    TooFew { share: &'static str, class: &'static str, wanted: f64, patients: usize, least: usize, most: f64 },
    #[error(
        "no threshold gives both on these studies: with a sensitivity of {sensitivity} the specificity is {specificity_then:.2}, with a \
         specificity of {specificity} the sensitivity is {sensitivity_then:.2}. Ask for one of them, or for less"
    )]
    NotBoth { sensitivity: f64, specificity: f64, specificity_then: f64, sensitivity_then: f64 },
    #[error(
        "no threshold above 0 gives a {share} of {wanted} on these studies: the one that comes nearest has {found:.2}. Too many scores are \
         0; look whether the card's model scored them"
    )]
    OutOfReach { share: &'static str, wanted: f64, found: f64 },
}

/// A threshold and what it does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    pub threshold: f64,
    pub studies: usize,
    /// How many of them have hemorrhage.
    pub positives: usize,
    /// Patients with at least one study of the class.
    pub positive_patients: usize,
    pub negative_patients: usize,
    pub auc: Option<f64>,
    /// Each patient judged by the threshold that the others' studies give, with exact 95 % limits; a patient's several studies of a class
    /// are one, the one nearest to a wrong verdict. None where there is none of the class.
    pub sensitivity: Option<Interval>,
    pub specificity: Option<Interval>,
    /// The same by the threshold of before.
    pub sensitivity_before: Option<Interval>,
    pub specificity_before: Option<Interval>,
    pub department: Option<Department>,
}

/// How many patients of a class it takes for a wanted share in the mean of further patients.
pub fn least(wanted: f64) -> usize {
    // A quotient that is a whole number must not be rounded up for its last bit.
    (wanted / (1.0 - wanted) - 1e-9).ceil() as usize
}

/// How many it takes to be 95 % sure of the wanted share, if none of them is judged wrongly: then share^n is at most 0.05.
pub fn least_to_be_sure(wanted: f64) -> usize {
    (0.05_f64.ln() / wanted.ln() - 1e-9).ceil() as usize
}

/// Each patient's score of a class: with hemorrhage their lowest, else their highest.
struct Sides {
    positives: Vec<f64>,
    negatives: Vec<f64>,
}

impl Sides {
    fn of<'a>(studies: impl Iterator<Item = &'a Labelled>) -> Self {
        let (mut positives, mut negatives): (BTreeMap<&str, f64>, BTreeMap<&str, f64>) = Default::default();
        for study in studies {
            let side = if study.positive { &mut positives } else { &mut negatives };
            let score = side.entry(&study.patient).or_insert(study.score);
            *score = if study.positive { score.min(study.score) } else { score.max(study.score) };
        }
        let sorted = |side: BTreeMap<&str, f64>| {
            let mut scores: Vec<f64> = side.into_values().collect();
            scores.sort_unstable_by(f64::total_cmp);
            scores
        };
        Self { positives: sorted(positives), negatives: sorted(negatives) }
    }

    /// The score that the threshold must not lie above, for this share of further positives in the mean. Of too few the lowest.
    fn highest(&self, wanted: f64) -> Option<f64> {
        self.positives.get(passed_over(self.positives.len(), wanted)).copied()
    }

    /// The score that the threshold must lie above, for this share of further negatives in the mean. Of too few the highest.
    fn lowest(&self, wanted: f64) -> Option<f64> {
        let all = self.negatives.len();
        self.negatives.get(all.checked_sub(1 + passed_over(all, wanted))?).copied()
    }
}

/// How many of `all` scores may lie on the wrong side.
fn passed_over(all: usize, wanted: f64) -> usize {
    (((all + 1) as f64 * (1.0 - wanted) + 1e-9).floor() as usize).saturating_sub(1)
}

/// The threshold, of as many studies as there are. None where a class that is asked for is not there, or where both cannot be had.
fn threshold(studies: &[&Labelled], wanted: Wanted) -> Option<f64> {
    let sides = Sides::of(studies.iter().copied());
    let mut scores: Vec<f64> = studies.iter().map(|study| study.score).collect();
    scores.sort_unstable_by(f64::total_cmp);
    scores.dedup();
    // Between any two scores, below the lowest and above the highest: a threshold that lies on a score is one rounding from another verdict.
    let mut places = vec![scores.first()? / 2.0];
    places.extend(scores.windows(2).map(|pair| f64::midpoint(pair[0], pair[1])));
    places.push(f64::midpoint(*scores.last()?, 1.0));
    let most = match wanted.sensitivity {
        Some(share) => sides.highest(share)?,
        None => f64::INFINITY,
    };
    let least = match wanted.specificity {
        Some(share) => sides.lowest(share)?,
        None => f64::NEG_INFINITY,
    };
    places.retain(|&place| place <= most && place > least);
    let chosen = match (wanted.sensitivity, wanted.specificity) {
        // As few false alarms as the sensitivity allows, and as few misses as the specificity does.
        (Some(_), None) => places.last(),
        (None, _) => places.first(),
        // Away from the edges of what allows both.
        (Some(_), Some(_)) => places.get(places.len() / 2),
    };
    // A rule's threshold lies above 0 and is at most 1.
    chosen.map(|threshold| threshold.clamp(f64::MIN_POSITIVE, 1.0))
}

/// The shares of positives flagged and of negatives left unflagged, by a threshold for each patient.
fn shares(studies: &[Labelled], by: impl Fn(&str) -> Option<f64>) -> [Option<Interval>; 2] {
    let mut right: [BTreeMap<&str, bool>; 2] = Default::default();
    for study in studies {
        let Some(threshold) = by(&study.patient) else { continue };
        let is_right = (study.score >= threshold) == study.positive;
        *right[usize::from(!study.positive)].entry(&study.patient).or_insert(true) &= is_right;
    }
    right.map(|right| Interval::of_count(right.values().filter(|&&right| right).count(), right.len()))
}

impl Choice {
    /// Chooses on labelled studies; `before` is the threshold they were judged by so far.
    ///
    /// # Errors
    /// [`NoThreshold`].
    pub fn of(studies: &[Labelled], wanted: Wanted, before: f64) -> Result<Self, NoThreshold> {
        let sides = Sides::of(studies.iter());
        let (positive_patients, negative_patients) = (sides.positives.len(), sides.negatives.len());
        for (share, class, wanted, patients) in [
            ("sensitivity", "with hemorrhage", wanted.sensitivity, positive_patients),
            ("specificity", "without hemorrhage", wanted.specificity, negative_patients),
        ] {
            if let Some(wanted) = wanted
                && patients < least(wanted)
            {
                let (least, most) = (least(wanted), patients as f64 / (patients + 1) as f64);
                // Rounded down: what is advised must be had.
                let most = (most * 100.0).floor() / 100.0;
                return Err(NoThreshold::TooFew { share, class, wanted, patients, least, most });
            }
        }
        let all: Vec<&Labelled> = studies.iter().collect();
        let Some(chosen) = threshold(&all, wanted) else {
            let (sensitivity, specificity) = (wanted.sensitivity.unwrap_or(0.0), wanted.specificity.unwrap_or(0.0));
            let then = |wanted: Wanted, place: usize| {
                let by = threshold(&all, wanted);
                shares(studies, |_| by)[place].map_or(0.0, |share| share.value)
            };
            let specificity_then = then(Wanted { specificity: None, ..wanted }, 1);
            let sensitivity_then = then(Wanted { sensitivity: None, ..wanted }, 0);
            return Err(NoThreshold::NotBoth { sensitivity, specificity, specificity_then, sensitivity_then });
        };
        // A threshold lies above 0, whatever the order of the scores asks for: of scores that are all 0 it would flag none.
        let on_themselves = shares(studies, |_| Some(chosen));
        for (share, wanted, found) in [
            ("sensitivity", wanted.sensitivity, on_themselves[0]),
            ("specificity", wanted.specificity, on_themselves[1]),
        ] {
            if let (Some(wanted), Some(found)) = (wanted, found)
                && found.value < wanted - 1e-9
            {
                return Err(NoThreshold::OutOfReach { share, wanted, found: found.value });
            }
        }
        let names: BTreeSet<&str> = studies.iter().map(|study| study.patient.as_str()).collect();
        let by_others = |patient: &str| {
            let others: Vec<&Labelled> = all.iter().copied().filter(|other| other.patient != patient).collect();
            // Without this patient the others may not have both any more: then what all have chosen stands.
            threshold(&others, wanted).unwrap_or(chosen)
        };
        let patients: BTreeMap<&str, f64> = names.into_iter().map(|patient| (patient, by_others(patient))).collect();
        let by = |patient: &str| patients.get(patient).copied();
        let [sensitivity, specificity] = shares(studies, by);
        let [sensitivity_before, specificity_before] = shares(studies, |_| Some(before));
        let mut verdicts: BTreeMap<&str, Vec<Case>> = BTreeMap::new();
        for study in studies {
            let flagged = by(&study.patient).is_some_and(|threshold| study.score >= threshold);
            let case = Case { score: f64::from(u8::from(flagged)), positive: study.positive };
            verdicts.entry(&study.patient).or_default().push(case);
        }
        let cases: Vec<Case> =
            studies.iter().map(|study| Case { score: study.score, positive: study.positive }).collect();
        Ok(Self {
            threshold: chosen,
            studies: studies.len(),
            positives: studies.iter().filter(|study| study.positive).count(),
            positive_patients,
            negative_patients,
            auc: auc(&cases),
            sensitivity,
            specificity,
            sensitivity_before,
            specificity_before,
            department: Department::of(&verdicts.into_values().collect::<Vec<_>>(), 1),
        })
    }

    /// Doubts about it.
    pub fn warnings(&self, wanted: Wanted) -> Vec<String> {
        let mut warnings = Vec::new();
        for (name, class, share, patients, found) in [
            ("sensitivity", "with hemorrhage", wanted.sensitivity, self.positive_patients, self.sensitivity),
            ("specificity", "without hemorrhage", wanted.specificity, self.negative_patients, self.specificity),
        ] {
            let Some(share) = share else { continue };
            if let Some(found) = found
                && found.low < share
            {
                let needed = least_to_be_sure(share);
                let more = match patients < needed {
                    true => format!("to be sure of {share} takes {needed} at least, of whom none is judged wrongly"),
                    false => format!(
                        "{} of them are judged wrongly, and to be sure of {share} so many may not be; more patients narrow it",
                        ((1.0 - found.value) * patients as f64).round()
                    ),
                };
                warnings.push(format!(
                    "{patients} patients {class} give a {name} of {share} in the mean of many such choices, but this one may have {:.2} \
                     (the lower limit of 95 %): {more}",
                    found.low
                ));
            }
        }
        if self.auc.is_some_and(|auc| auc < 0.7) {
            warnings.push(format!(
                "the study AUC is {:.2} here: the model hardly tells these studies apart, and no threshold mends that",
                self.auc.unwrap_or_default()
            ));
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    #[test]
    fn a_threshold_that_flags_nobody_is_refused() {
        let nothing: Vec<Labelled> = (0..40).map(|i| study(i, 0.0, i < 20)).collect();
        let wanted = Wanted { sensitivity: Some(0.9), specificity: None };
        let refused = Choice::of(&nothing, wanted, 0.5).expect_err("all scores are 0");
        assert_eq!(refused, NoThreshold::OutOfReach { share: "sensitivity", wanted: 0.9, found: 0.0 });
        assert!(refused.to_string().contains("scores are 0"), "{refused}");
    }

    #[test]
    fn a_doubt_about_enough_patients_does_not_ask_for_fewer_than_there_are() {
        let studies: Vec<Labelled> = (0..60).map(|i| study(i, f64::from(i as u32 + 1) / 100.0, i >= 30)).collect();
        let wanted = Wanted { sensitivity: Some(0.9), specificity: None };
        let warnings = Choice::of(&studies, wanted, 0.5).expect("thirty").warnings(wanted);
        assert!(
            warnings[0].contains("30 patients") && warnings[0].contains("of them are judged wrongly"),
            "{warnings:?}"
        );
        assert!(!warnings[0].contains("takes 29"), "{warnings:?}");
    }

    fn study(patient: usize, score: f64, positive: bool) -> Labelled {
        Labelled { patient: patient.to_string(), score, early: None, unconfirmed: false, positive }
    }

    fn wanted(sensitivity: Option<f64>, specificity: Option<f64>) -> Wanted {
        Wanted { sensitivity, specificity }
    }

    #[test]
    fn as_many_are_passed_over_as_further_patients_bear() {
        // 39 positives at 0.61 to 0.99, negatives at 0.01 to 0.40. (39 + 1) · 0.05 = 2: the second lowest decides.
        let positives = (0..39).map(|i| study(i, 0.61 + 0.01 * i as f64, true));
        let negatives = (0..40).map(|i| study(100 + i, 0.01 * (i + 1) as f64, false));
        let studies: Vec<Labelled> = positives.chain(negatives).collect();
        let found = Choice::of(&studies, wanted(Some(0.95), None), 0.9).expect("enough");
        assert!((found.threshold - 0.615).abs() < 1e-9, "{found:?}");
        assert_eq!(
            (found.studies, found.positives, found.positive_patients, found.negative_patients),
            (79, 39, 39, 40)
        );
        assert_eq!(found.specificity.expect("negatives").value, 1.0);
        assert!(found.specificity.expect("negatives").low < 0.92, "forty are no proof of all");
        // 0.9 to 0.99, within the last bit of either.
        let before = found.sensitivity_before.expect("positives").value;
        assert!((before - 10.0 / 39.0).abs() < 0.03, "{before}");
        // The lowest threshold that leaves nine of ten unflagged passes over (40 + 1) · 0.1 = 4 scores less one.
        let found = Choice::of(&studies, wanted(None, Some(0.9)), 0.9).expect("enough");
        assert!((found.threshold - 0.375).abs() < 1e-9, "{found:?}");
        // Both: between the two.
        let both = Choice::of(&studies, wanted(Some(0.95), Some(0.9)), 0.9).expect("enough");
        assert!(both.threshold > 0.375 && both.threshold < 0.615, "{both:?}");
    }

    #[test]
    fn too_few_are_refused_with_what_they_could_bear() {
        assert_eq!((least(0.95), least(0.9), least(0.5)), (19, 9, 1));
        assert_eq!((least_to_be_sure(0.95), least_to_be_sure(0.9)), (59, 29));
        let studies: Vec<Labelled> = (0..26).map(|i| study(i, 0.03 * i as f64 + 0.1, i >= 13)).collect();
        let refused = Choice::of(&studies, wanted(Some(0.95), None), 0.5).expect_err("thirteen");
        let text = refused.to_string();
        assert!(text.contains("13 patients with hemorrhage are too few") && text.contains("at least 19"), "{text}");
        assert!(text.contains("ask for 0.92 or less"), "{text}");
        Choice::of(&studies, wanted(Some(0.92), None), 0.5).expect("what was advised");
        assert!(Choice::of(&studies, wanted(None, Some(0.95)), 0.5).is_err());
    }

    #[test]
    fn where_both_cannot_be_had_both_prices_are_told() {
        let studies: Vec<Labelled> =
            (0..60).map(|i| study(i, (f64::from((i * 37 % 60) as u32) + 1.0) / 62.0, i % 2 == 0)).collect();
        let refused = Choice::of(&studies, wanted(Some(0.9), Some(0.9)), 0.5).expect_err("no order in the scores");
        assert!(
            matches!(refused, NoThreshold::NotBoth { .. }) && refused.to_string().contains("the specificity is 0.")
        );
    }

    #[test]
    fn several_studies_of_a_patient_are_one_patient() {
        let mut studies: Vec<Labelled> = (0..19).map(|i| study(i, 0.5 + 0.02 * i as f64, true)).collect();
        studies.extend((0..19).map(|i| study(i, 0.95, true)));
        studies.push(study(50, 0.1, false));
        let found = Choice::of(&studies, wanted(Some(0.95), None), 0.5).expect("nineteen patients");
        assert_eq!((found.positives, found.positive_patients), (38, 19));
        assert!(found.threshold < 0.5, "the lowest of them decides");
        studies.retain(|study| study.patient != "7");
        assert!(Choice::of(&studies, wanted(Some(0.95), None), 0.5).is_err(), "eighteen patients, though 36 studies");
    }

    /// The promise itself: over many sites, each with its own few patients, further patients are flagged as often as was wanted.
    #[test]
    fn further_patients_have_what_was_wanted_in_the_mean() {
        let mut rng = StdRng::seed_from_u64(7);
        let mut flagged = 0.0;
        let sites = 4000;
        for _ in 0..sites {
            let studies: Vec<Labelled> = (0..25)
                .map(|i| {
                    let chance: f64 = rng.random();
                    study(i, if i < 23 { chance.sqrt() } else { chance / 2.0 }, i < 23)
                })
                .collect();
            let studies: Vec<&Labelled> = studies.iter().collect();
            let threshold = threshold(&studies, wanted(Some(0.9), None)).expect("positives");
            // For positives, whose scores are roots of even numbers, the share above t is 1 − t².
            flagged += 1.0 - threshold * threshold;
        }
        let mean = flagged / f64::from(sites);
        // Two of 23 is what (23 + 1) · 0.1 allows: 22/24, and a little for the gap below the score.
        assert!(mean > 0.91 && mean < 0.94, "{mean}");
    }
}
