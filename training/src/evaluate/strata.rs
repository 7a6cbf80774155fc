//! How many bleeds of each kind and of each size are found, out of fold: what a figure over all bleeds hides.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::decision::Decision;
use super::evaluation::ROUNDS;
use super::study::Study;
use crate::data::{ANY, LABELS, LabelRow, Slice};
use crate::metrics::{Case, Interval, figures};

/// The bleeds of one kind, or of one size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stratum {
    pub name: String,
    /// Slices with hemorrhage of it, and the share of them that is positive.
    pub slices: usize,
    pub slice_sensitivity: Interval,
    /// Studies with such slices, and the share of them that is flagged, for whatever reason.
    pub studies: usize,
    pub study_sensitivity: Interval,
}

/// Studies by how many slices with hemorrhage they have, the last without end.
const SIZES: [(usize, usize, &str); 3] =
    [(1, 4, "1 to 4 slices with hemorrhage"), (5, 9, "5 to 9"), (10, usize::MAX, "10 or more")];

/// A slice with hemorrhage, by what it and its study were judged.
struct Found<'a> {
    patient: &'a str,
    study: String,
    kinds: BTreeSet<String>,
    /// How many of its study's slices have hemorrhage.
    size: usize,
    is_positive: bool,
    is_flagged: bool,
}

/// The strata of folds: each fold's slices and their scores, judged by its decision. Kinds are those that the label files
/// name beside `any`; where they name none, there are only the sizes.
pub fn strata(folds: &[(Vec<&Slice>, Vec<f64>)], decisions: &[Decision], seed: u64) -> Vec<Stratum> {
    let mut labels: BTreeMap<PathBuf, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    let mut found: Vec<Found> = Vec::new();
    for ((slices, scores), decision) in folds.iter().zip(decisions) {
        let calibrated = |score: f64| decision.calibration.map_or(score, |platt| platt.apply(score));
        let name = |slice: &Slice| format!("{} {:?}", slice.patient, slice.study);
        let mut by_study: BTreeMap<String, (Vec<&Slice>, Vec<f64>)> = BTreeMap::new();
        for (slice, &score) in slices.iter().zip(scores) {
            let study = by_study.entry(name(slice)).or_default();
            study.0.push(slice);
            study.1.push(score);
        }
        for (study, (slices, scores)) in by_study {
            let grouped = Study::group(&slices, &scores);
            let rule = &decision.study_rule;
            let flagged =
                |study: &Study| study.calibrated(decision.calibration.as_ref()).case(rule).score >= rule.threshold();
            let is_flagged = grouped.iter().any(flagged);
            let size = slices.iter().filter(|slice| slice.positive).count();
            for (slice, &score) in slices.iter().zip(&scores).filter(|(slice, _)| slice.positive) {
                let folder = slice.file.parent().and_then(Path::parent).unwrap_or(Path::new("")).to_owned();
                let kinds = labels.entry(folder.clone()).or_insert_with(|| kinds(&folder));
                found.push(Found {
                    patient: &slice.patient,
                    study: study.clone(),
                    kinds: kinds.get(&slice.id).cloned().unwrap_or_default(),
                    size,
                    is_positive: calibrated(score) >= decision.slice_threshold,
                    is_flagged,
                });
            }
        }
    }
    let names: BTreeSet<String> = found.iter().flat_map(|found| found.kinds.iter().cloned()).collect();
    let kinds = names.into_iter().filter_map(|kind| {
        let of = |found: &&Found| found.kinds.contains(&kind);
        stratum(kind.clone(), &found.iter().filter(of).collect::<Vec<_>>(), seed)
    });
    let sizes = SIZES.into_iter().filter_map(|(from, to, name)| {
        let of = |found: &&Found| (from..=to).contains(&found.size);
        stratum(name.into(), &found.iter().filter(of).collect::<Vec<_>>(), seed)
    });
    kinds.chain(sizes).collect()
}

/// None of nothing.
fn stratum(name: String, found: &[&Found], seed: u64) -> Option<Stratum> {
    let hit = |yes: bool| Case { score: f64::from(u8::from(yes)), positive: true };
    let mut slices: BTreeMap<&str, Vec<Case>> = BTreeMap::new();
    let mut studies: BTreeMap<&str, BTreeMap<&str, Case>> = BTreeMap::new();
    for found in found {
        slices.entry(found.patient).or_default().push(hit(found.is_positive));
        studies.entry(found.patient).or_default().insert(&found.study, hit(found.is_flagged));
    }
    let slices: Vec<Vec<Case>> = slices.into_values().collect();
    let studies: Vec<Vec<Case>> = studies.into_values().map(|own| own.into_values().collect()).collect();
    let sensitivity = |patients: &[Vec<Case>]| figures(patients, 0.5, ROUNDS, seed).sensitivity;
    Some(Stratum {
        name,
        slices: slices.iter().flatten().count(),
        slice_sensitivity: sensitivity(&slices)?,
        studies: studies.iter().flatten().count(),
        study_sensitivity: sensitivity(&studies)?,
    })
}

/// The kinds of hemorrhage of each slice, by the label file of a folder: its rows `ID_xxx_kind` with label 1, but for
/// `any`. Empty where it cannot be read: the index, which needs it, has been made before.
fn kinds(folder: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let mut kinds: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let read = LabelRow::each(&folder.join(LABELS), |row| {
        if row.positive
            && let Some((id, kind)) = row.parts()
            && kind != ANY
        {
            kinds.entry(id.into()).or_default().insert(kind.into());
        }
    });
    read.map_or_else(|_| BTreeMap::new(), |()| kinds)
}

/// A table in Markdown.
pub fn table(strata: &[Stratum]) -> String {
    let cell = |i: Interval| format!("{:.3} ({:.3} to {:.3})", i.value, i.low, i.high);
    let mut table = "| bleeds | slices | found | studies | flagged |\n|---|---|---|---|---|\n".to_owned();
    for Stratum { name, slices, slice_sensitivity, studies, study_sensitivity } in strata {
        table += &format!(
            "| {name} | {slices} | {} | {studies} | {} |\n",
            cell(*slice_sensitivity),
            cell(*study_sensitivity)
        );
    }
    table
}

#[cfg(test)]
mod tests {
    use triaged_model::StudyRule;

    use std::fs;

    use super::*;

    #[test]
    fn bleeds_are_told_by_kind_and_by_size() {
        let folder = tempfile::tempdir().expect("a folder");
        let labels = "ID,Label\nID_a0_epidural,1\nID_a0_subdural,0\nID_a0_any,1\n\"ID_a1_epidural\",\"1\"\n\"ID_a1_any\", 1\n\
                      ID_b0_subdural,1\nID_b0_any,1\nID_b1_any,0\n";
        fs::write(folder.path().join("stage_2_train.csv"), labels).expect("written");
        let slice = |patient: &str, number: i64, positive: bool| Slice {
            id: format!("ID_{patient}{number}"),
            source: "s".into(),
            patient: format!("s/{patient}"),
            study: Some(patient.into()),
            series: Some(patient.into()),
            instance: None,
            positive,
            file: folder.path().join("stage_2_train").join(format!("ID_{patient}{number}.dcm")),
            mask: None,
            size: None,
            position: Some(number),
            origin: None,
        };
        let slices = [slice("a", 0, true), slice("a", 1, true), slice("b", 0, true), slice("b", 1, false)];
        let decision = Decision {
            slice_threshold: 0.5,
            study_rule: StudyRule::TopKMean { k: 1, threshold: 0.7 },
            calibration: None,
            wanted_sensitivity: 0.9,
            operating_point: Default::default(),
            reached: None,
        };
        let folds = [(slices.iter().collect::<Vec<_>>(), vec![0.9, 0.4, 0.6, 0.1])];
        let found = strata(&folds, &[decision], 1);
        let line = |name: &str| {
            let stratum =
                found.iter().find(|stratum| stratum.name.starts_with(name)).unwrap_or_else(|| panic!("{name}"));
            (stratum.slices, stratum.slice_sensitivity.value, stratum.studies, stratum.study_sensitivity.value)
        };
        assert_eq!(line("epidural"), (2, 0.5, 1, 1.0));
        assert_eq!(line("subdural"), (1, 1.0, 1, 0.0));
        assert_eq!(line("1 to 4"), (3, 2.0 / 3.0, 2, 0.5));
        assert_eq!(found.len(), 3);
        assert!(table(&found).contains("| epidural | 2 | 0.500 (0.000 to 1.000) | 1 | 1.000 (0.025 to 1.000) |"));
    }
}
