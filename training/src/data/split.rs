//! Who is trained on, who decides when to stop and where thresholds lie, and who is kept for the figures.

use std::collections::{BTreeMap, BTreeSet};

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use super::index::{Index, Slice};

/// The role of a source that figures are not about, in a card.
pub const TRAINING_ONLY: &str = "training only";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    Train,
    Validation,
    Test,
}

/// The unit that stays together: all slices of a patient, or (as the study did, which puts one patient's slices on both sides)
/// each slice for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum SplitBy {
    Patient,
    Image,
}

/// The side of every patient (or slice), as it is saved beside the model. The same seed and index give the same split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Split {
    pub by: SplitBy,
    pub seed: u64,
    /// Sources all of whose slices are trained on and never measured.
    pub train_only: Vec<String>,
    /// By patient, or by `source/id`.
    pub sides: BTreeMap<String, Side>,
}

#[derive(Debug, thiserror::Error)]
pub enum SplitError {
    #[error("a share of {validation} for validation and {test} for the test leaves nothing to train on")]
    Shares { validation: f64, test: f64 },
    #[error(
        "{0} holds synthetic studies, made of patients of other folders: they are trained on and never measured; give the folder with \
         --train-only"
    )]
    Synthetic(String),
    #[error(
        "{what} has no study {class} hemorrhage: thresholds and the study rule are chosen on studies of both classes. Patients with and without it \
         are needed among those that are measured, not among those that are only trained on"
    )]
    NoChoice { what: String, class: &'static str },
    #[error("cross-validation needs at least 2 folds, not {0}")]
    Folds(usize),
    #[error(
        "the {side:?} side has {positives} positive and {negatives} negative slices: it needs both; too few {of}s?{cause}"
    )]
    OneClass { side: Side, positives: usize, negatives: usize, of: &'static str, cause: &'static str },
}

impl Split {
    /// Takes in the sources that another training was only trained on, with their patients.
    pub fn add_train_only(&mut self, other: &Split) {
        let new = other.train_only.iter().filter(|source| !self.train_only.contains(source)).cloned();
        self.train_only.extend(new.collect::<Vec<_>>());
        for (patient, side) in &other.sides {
            self.sides.entry(patient.clone()).or_insert(*side);
        }
    }

    /// Splits, stratified by whether a patient (or slice) has any hemorrhage.
    pub fn new(
        index: &Index,
        by: SplitBy,
        validation: f64,
        test: f64,
        train_only: &[String],
        seed: u64,
    ) -> Result<Self, SplitError> {
        if !(validation >= 0.0 && test >= 0.0 && validation + test < 1.0) {
            return Err(SplitError::Shares { validation, test });
        }
        let synthetic = |slice: &&Slice| slice.origin.is_some() && !train_only.contains(&slice.source);
        if let Some(slice) = index.slices.iter().find(synthetic) {
            return Err(SplitError::Synthetic(slice.source.clone()));
        }
        let mut split = Self { by, seed, train_only: train_only.to_vec(), sides: BTreeMap::new() };
        for slice in index.slices.iter().filter(|slice| train_only.contains(&slice.source)) {
            split.sides.insert(split.unit(slice), Side::Train);
        }
        let mut rng = StdRng::seed_from_u64(seed);
        for stratum in [true, false] {
            let mut units = split.stratum(index, stratum);
            units.shuffle(&mut rng);
            let share = |fraction: f64| (units.len() as f64 * fraction).round() as usize;
            let (to_test, to_validation) = (share(test), share(validation));
            for (i, unit) in units.into_iter().enumerate() {
                let side = match i {
                    i if i < to_test => Side::Test,
                    i if i < to_test + to_validation => Side::Validation,
                    _ => Side::Train,
                };
                split.sides.insert(unit, side);
            }
        }
        split.leave_out_what_was_made_of_held_back(index);
        let wanted = [(Side::Train, 1.0), (Side::Validation, validation), (Side::Test, test)];
        let wanted: Vec<Side> = wanted.into_iter().filter(|(_, share)| *share > 0.0).map(|(side, _)| side).collect();
        split.check(index, &wanted)?;
        if validation > 0.0 {
            check_choice("the validation side", &split.slices(index, Side::Validation))?;
        }
        Ok(split)
    }

    /// `folds` splits of the same patients: each stands on the test side of exactly one, and is trained on in the others.
    /// Stratified as in [`Split::new`]; nobody is on a validation side.
    pub fn folds(
        index: &Index,
        by: SplitBy,
        folds: usize,
        train_only: &[String],
        seed: u64,
    ) -> Result<Vec<Self>, SplitError> {
        if folds < 2 {
            return Err(SplitError::Folds(folds));
        }
        // Sides as if nothing was held out, then each fold's own patients are taken out.
        let whole = Self::new(index, by, 0.0, 0.0, train_only, seed)?;
        let mut rng = StdRng::seed_from_u64(seed);
        let mut fold_of: BTreeMap<String, usize> = BTreeMap::new();
        for stratum in [true, false] {
            let mut units = whole.stratum(index, stratum);
            units.shuffle(&mut rng);
            for unit in units {
                // Counting on from the stratum before, so that no fold is larger by more than one.
                let next = fold_of.len() % folds;
                fold_of.insert(unit, next);
            }
        }
        (0..folds)
            .map(|fold| {
                let others: Vec<&Slice> = index
                    .slices
                    .iter()
                    .filter(|slice| fold_of.get(&whole.unit(slice)).is_some_and(|of| *of != fold))
                    .collect();
                check_choice(&format!("what is left without fold {}", fold + 1), &others)?;
                let mut split = whole.clone();
                for unit in fold_of.iter().filter(|(_, of)| **of == fold).map(|(unit, _)| unit) {
                    split.sides.insert(unit.clone(), Side::Test);
                }
                split.leave_out_what_was_made_of_held_back(index);
                split.check(index, &[Side::Train, Side::Test])?;
                Ok(split)
            })
            .collect()
    }

    /// Takes the synthetic patients (or slices) off all sides whose origin is not on the training side alone: a network that learned
    /// from them would know whom it is measured on. Those of an origin that is not in the index stay.
    fn leave_out_what_was_made_of_held_back(&mut self, index: &Index) {
        let held: Vec<&Slice> = index
            .slices
            .iter()
            .filter(|slice| self.sides.get(&self.unit(slice)).is_some_and(|side| *side != Side::Train))
            .collect();
        let patients: BTreeSet<&str> = held.iter().map(|slice| slice.patient.as_str()).collect();
        let studies: BTreeSet<&str> = held.iter().filter_map(|slice| slice.study.as_deref()).collect();
        for slice in &index.slices {
            let made_of_held = slice.origin.as_ref().is_some_and(|origin| {
                patients.contains(origin.patient.as_str())
                    || origin.study.as_deref().is_some_and(|study| studies.contains(study))
            });
            if made_of_held {
                self.sides.remove(&self.unit(slice));
            }
        }
    }

    /// The patients (or slices) that are measured, with hemorrhage or without, in the order of their names.
    fn stratum(&self, index: &Index, wanted: bool) -> Vec<String> {
        let mut positive: BTreeMap<String, bool> = BTreeMap::new();
        for slice in index.slices.iter().filter(|slice| !self.train_only.contains(&slice.source)) {
            *positive.entry(self.unit(slice)).or_default() |= slice.positive;
        }
        positive.into_iter().filter(|(_, positive)| *positive == wanted).map(|(unit, _)| unit).collect()
    }

    /// That each of these sides has slices of both classes.
    fn check(&self, index: &Index, sides: &[Side]) -> Result<(), SplitError> {
        for &side in sides {
            let slices = self.slices(index, side);
            let positives = slices.iter().filter(|slice| slice.positive).count();
            let negatives = slices.len() - positives;
            if positives == 0 || negatives == 0 {
                let of = if self.by == SplitBy::Patient { "patient" } else { "image" };
                let measured = index.slices.iter().filter(|slice| !self.train_only.contains(&slice.source));
                let measured: BTreeSet<&str> = measured.map(|slice| slice.patient.as_str()).collect();
                let cause = match self.by == SplitBy::Patient && measured.len() == 1 {
                    true => " All images have one Patient ID, and so are one patient",
                    false => "",
                };
                return Err(SplitError::OneClass { side, positives, negatives, of, cause });
            }
        }
        Ok(())
    }

    fn unit(&self, slice: &Slice) -> String {
        match self.by {
            SplitBy::Patient => slice.patient.clone(),
            SplitBy::Image => format!("{}/{}", slice.source, slice.id),
        }
    }

    /// In what another split is another one, in words; none where it is the same.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let unit = |by| if by == SplitBy::Patient { "patient" } else { "image" };
        if self.by != other.by {
            return Some(format!("it was split by {}, not by {}", unit(self.by), unit(other.by)));
        }
        if self.train_only != other.train_only {
            let list = |of: &[String]| if of.is_empty() { "nothing".into() } else { of.join(", ") };
            return Some(format!("only trained on was {}, not {}", list(&self.train_only), list(&other.train_only)));
        }
        if self.seed != other.seed {
            return Some(format!("its seed was {}, not {}", self.seed, other.seed));
        }
        let moved = self.sides.iter().filter(|(unit, side)| other.sides.get(*unit) != Some(side)).count();
        let new = other.sides.keys().filter(|unit| !self.sides.contains_key(*unit)).count();
        (moved + new > 0).then(|| {
            format!("{} {}s stood on another side (other --folds, --validation or --test)", moved + new, unit(self.by))
        })
    }

    /// One side's slices, in the index's order. A slice that the split does not know is on no side.
    pub fn slices<'a>(&self, index: &'a Index, side: Side) -> Vec<&'a Slice> {
        index.slices.iter().filter(|slice| self.sides.get(&self.unit(slice)) == Some(&side)).collect()
    }

    /// How many patients (or slices) stand on a side.
    pub fn count(&self, side: Side) -> usize {
        self.sides.values().filter(|s| **s == side).count()
    }
}

/// That there are studies of both classes to choose a rule on: else that is known only when all is trained.
fn check_choice(what: &str, slices: &[&Slice]) -> Result<(), SplitError> {
    let mut studies: BTreeMap<(&str, Option<&str>), bool> = BTreeMap::new();
    for slice in slices {
        *studies.entry((&slice.patient, slice.study.as_deref())).or_default() |= slice.positive;
    }
    for (wanted, class) in [(true, "with"), (false, "without")] {
        if !studies.values().any(|positive| *positive == wanted) {
            return Err(SplitError::NoChoice { what: what.into(), class });
        }
    }
    Ok(())
}

/// The patients of some slices.
pub fn patients<'a>(slices: &[&'a Slice]) -> BTreeSet<&'a str> {
    slices.iter().map(|slice| slice.patient.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Origin, Problems};

    /// 20 patients of 10 slices, every third with hemorrhage on three slices, and a second source of single images.
    fn index() -> Index {
        let mut slices = Vec::new();
        for patient in 0..20 {
            for slice in 0..10 {
                slices.push(Slice {
                    id: format!("ID_{patient}_{slice}"),
                    source: "a".into(),
                    patient: format!("a/{patient}"),
                    study: None,
                    series: None,
                    instance: None,
                    positive: patient % 3 == 0 && slice < 3,
                    file: "none".into(),
                    mask: None,
                    size: None,
                    position: None,
                    origin: None,
                });
            }
        }
        for image in 0..8 {
            slices.push(Slice {
                id: format!("ID_x{image}"),
                source: "b".into(),
                patient: format!("b/{image}"),
                study: None,
                series: None,
                instance: None,
                positive: image % 2 == 0,
                file: "none".into(),
                mask: None,
                size: None,
                position: None,
                origin: None,
            });
        }
        Index { slices, problems: Problems::default() }
    }

    fn split(by: SplitBy, seed: u64) -> Split {
        Split::new(&index(), by, 0.2, 0.2, &["b".into()], seed).expect("a split")
    }

    #[test]
    fn patients_of_one_class_are_refused_before_anything_is_trained() {
        let mut index = index();
        // All bleed, on some slices.
        for slice in &mut index.slices {
            slice.positive = slice.id.ends_with("_1");
        }
        let only = ["b".to_owned()];
        let folds = Split::folds(&index, SplitBy::Patient, 2, &only, 1).map(|_| ()).map_err(|error| error.to_string());
        assert!(folds.as_ref().is_err_and(|why| why.contains("no study without hemorrhage")), "{folds:?}");
        let held =
            Split::new(&index, SplitBy::Patient, 0.2, 0.2, &only, 1).map(|_| ()).map_err(|error| error.to_string());
        assert!(held.as_ref().is_err_and(|why| why.contains("the validation side has no study without")), "{held:?}");
        assert!(Split::new(&index, SplitBy::Patient, 0.0, 0.0, &only, 1).is_ok(), "nothing is chosen");
    }

    #[test]
    fn no_patient_stands_on_two_sides() {
        let index = index();
        for seed in 0..20 {
            let split = split(SplitBy::Patient, seed);
            let [train, validation, test] =
                [Side::Train, Side::Validation, Side::Test].map(|side| split.slices(&index, side));
            assert_eq!(train.len() + validation.len() + test.len(), index.slices.len());
            let [a, b, c] = [&train, &validation, &test].map(|slices| patients(slices));
            assert!(a.is_disjoint(&b) && a.is_disjoint(&c) && b.is_disjoint(&c));
            // Stratified: one of the seven patients with hemorrhage is 0.2 of them, rounded.
            for side in [&validation, &test] {
                assert_eq!(patients(side).len(), 4);
                assert_eq!(side.iter().filter(|slice| slice.positive).count(), 3);
            }
            assert!(train.iter().filter(|slice| slice.source == "b").count() == 8);
        }
    }

    #[test]
    fn a_split_repeats_with_its_seed() {
        assert_eq!(split(SplitBy::Patient, 4), split(SplitBy::Patient, 4));
        assert_ne!(split(SplitBy::Patient, 4).sides, split(SplitBy::Patient, 5).sides);
    }

    #[test]
    fn what_differs_between_two_splits_is_told() {
        let whole = split(SplitBy::Patient, 4);
        let told = |other: &Split| whole.difference(other).unwrap_or_default();
        assert_eq!(told(&whole), "");
        assert_eq!(told(&split(SplitBy::Image, 4)), "it was split by patient, not by image");
        assert_eq!(told(&split(SplitBy::Patient, 5)), "its seed was 4, not 5");
        let open = Split::new(&index(), SplitBy::Patient, 0.2, 0.2, &[], 4).expect("a split");
        assert_eq!(told(&open), "only trained on was b, not nothing");
        let mut moved = whole.clone();
        moved.sides.values_mut().take(2).for_each(|side| {
            *side = if *side == Side::Test { Side::Train } else { Side::Test };
        });
        assert!(told(&moved).starts_with("2 patients stood on another side"), "{}", told(&moved));
    }

    #[test]
    fn by_image_patients_are_torn_as_in_the_study() {
        let index = index();
        let split = split(SplitBy::Image, 1);
        let (train, test) = (split.slices(&index, Side::Train), split.slices(&index, Side::Test));
        assert!(!patients(&train).is_disjoint(&patients(&test)));
    }

    #[test]
    fn every_patient_is_tested_in_exactly_one_fold() {
        let index = index();
        let folds = Split::folds(&index, SplitBy::Patient, 5, &["b".into()], 3).expect("folds");
        let mut tested: Vec<String> = Vec::new();
        for fold in &folds {
            let (train, test) = (fold.slices(&index, Side::Train), fold.slices(&index, Side::Test));
            assert!(patients(&train).is_disjoint(&patients(&test)));
            assert_eq!(train.len() + test.len(), index.slices.len());
            assert_eq!(patients(&test).len(), 4, "folds of one size");
            assert!(test.iter().all(|slice| slice.source == "a"), "what is only trained on is never tested");
            tested.extend(patients(&test).into_iter().map(str::to_owned));
        }
        tested.sort();
        tested.dedup();
        assert_eq!(tested.len(), 20);
        assert_eq!(folds, Split::folds(&index, SplitBy::Patient, 5, &["b".into()], 3).expect("folds"));
        for refused in [0, 1, 8] {
            // Seven patients have hemorrhage: an eighth fold would have none.
            let folds = Split::folds(&index, SplitBy::Patient, refused, &["b".into()], 3);
            assert!(folds.is_err(), "{refused} folds");
        }
    }

    /// A synthetic study of each of the 20 patients: named by patient, or where the folder has another name now, by study.
    fn with_synthetic() -> Index {
        let mut index = index();
        for patient in 0..20 {
            let origin = match patient % 2 {
                0 => Origin { patient: format!("a/{patient}"), study: None },
                _ => Origin { patient: format!("before/{patient}"), study: Some(format!("1.2.{patient}")) },
            };
            for slice in 0..4 {
                let mut drawn = index.slices[patient * 10].clone();
                drawn.id = format!("ID_s_{patient}_{slice}");
                (drawn.source, drawn.patient) = ("synthetic".into(), format!("synthetic/{patient}"));
                (drawn.study, drawn.positive, drawn.origin) = (None, slice < 2, Some(origin.clone()));
                index.slices.push(drawn);
            }
        }
        for (place, slice) in index.slices.iter_mut().enumerate().take(200) {
            slice.study = Some(format!("1.2.{}", place / 10));
        }
        index
    }

    #[test]
    fn a_synthetic_study_is_never_trained_on_where_its_patient_is_held_back() {
        let index = with_synthetic();
        let only = ["b".to_owned(), "synthetic".to_owned()];
        let check = |split: &Split| {
            let number = |patient: &str| patient.rsplit('/').next().expect("a name").to_owned();
            let [train, validation, test] =
                [Side::Train, Side::Validation, Side::Test].map(|side| split.slices(&index, side));
            let is_synthetic = |slice: &&&Slice| slice.source == "synthetic";
            assert!(!validation.iter().chain(&test).any(|slice| slice.source == "synthetic"), "never measured");
            let drawn: BTreeSet<String> =
                train.iter().filter(is_synthetic).map(|slice| number(&slice.patient)).collect();
            let real: BTreeSet<String> =
                train.iter().filter(|slice| slice.source == "a").map(|slice| number(&slice.patient)).collect();
            assert_eq!(
                drawn, real,
                "those of whom a synthetic study is trained on are those who are trained on themselves"
            );
            assert_eq!(split.count(Side::Train), 2 * real.len() + 8, "what is left out is on no side");
            drawn.len()
        };
        for by_share in [(0.2, 0.2, 12), (0.0, 0.0, 20), (0.0, 0.25, 15)] {
            let (validation, test, left) = by_share;
            let split = Split::new(&index, SplitBy::Patient, validation, test, &only, 3).expect("a split");
            assert_eq!(check(&split), left);
        }
        for fold in Split::folds(&index, SplitBy::Patient, 5, &only, 3).expect("folds") {
            assert_eq!(check(&fold), 16);
        }
        // By image all patients are torn, and nothing synthetic is left.
        let torn = Split::new(&index, SplitBy::Image, 0.3, 0.3, &only, 3).expect("a split");
        assert!(!torn.slices(&index, Side::Train).iter().any(|slice| slice.source == "synthetic"));
        // The same folds of the real patients as without it.
        let without = Split::folds(&super::tests::index(), SplitBy::Patient, 5, &["b".into()], 3).expect("folds");
        let with = Split::folds(&index, SplitBy::Patient, 5, &only, 3).expect("folds");
        for (a, b) in without.iter().zip(&with) {
            assert!(a.sides.iter().all(|(unit, side)| b.sides.get(unit) == Some(side)));
        }
        let measured = Split::folds(&index, SplitBy::Patient, 5, &["b".into()], 3).expect_err("synthetic").to_string();
        assert!(measured.contains("--train-only"), "{measured}");
    }

    #[test]
    fn a_side_with_one_class_is_refused() {
        let mut index = index();
        index.slices.retain(|slice| slice.source == "a");
        index.slices.iter_mut().for_each(|slice| slice.positive &= slice.patient == "a/0");
        let error = Split::new(&index, SplitBy::Patient, 0.2, 0.2, &[], 1).expect_err("one positive patient");
        assert!(matches!(error, SplitError::OneClass { .. }), "{error}");
    }
}
