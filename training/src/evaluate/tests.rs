//! Decisions and figures of small made-up studies.

use triaged_model::StudyRule;

use super::*;
use crate::data::Slice;
use crate::metrics::Case;

/// Studies whose slices score so; positive where the first of the pair says so.
pub fn studies(of: &[(bool, &[f64])]) -> Vec<Study> {
    of.iter()
        .enumerate()
        .map(|(i, (positive, scores))| Study {
            patient: format!("a/{i}"),
            study: None,
            source: "a".into(),
            is_ordered: true,
            slices: scores.iter().map(|&score| Case { score, positive: *positive }).collect(),
        })
        .collect()
}

/// Ten studies of 20 slices; the last four have hemorrhage on five slices, which score 0.5 to 0.8 by study. Two of
/// the others have one slice each that scores 0.95: noise that a rule over several slices sees through.
fn ten_studies() -> Vec<Study> {
    (0..10)
        .map(|p| Study {
            patient: format!("{p}"),
            study: None,
            source: "a".into(),
            is_ordered: false,
            slices: (0..20)
                .map(|s| {
                    let positive = p >= 6 && s < 5;
                    let score = match () {
                        () if positive => 0.5 + 0.1 * f64::from(p - 6),
                        () if p < 2 && s == 9 => 0.95,
                        () => 0.01 * f64::from(p),
                    };
                    Case { score, positive }
                })
                .collect(),
        })
        .collect()
}

#[test]
fn the_rule_sees_through_single_slices() {
    let decision = decide(&ten_studies(), 0.9).expect("both classes");
    let calibrated = ten_studies().into_iter().map(|study| study.calibrated(decision.calibration.as_ref()));
    let cases: Vec<Case> = calibrated.map(|study| study.case(&decision.study_rule)).collect();
    let flagged: Vec<bool> = cases.iter().map(|c| c.score >= decision.study_rule.threshold()).collect();
    assert_eq!(flagged, [[false; 6].as_slice(), &[true; 4]].concat());
    decision.study_rule.check().expect("a rule the node takes");
    // Between scores of 0.09 and 0.5, calibrated.
    let platt = decision.calibration.expect("both classes");
    assert!(decision.slice_threshold > platt.apply(0.09) && decision.slice_threshold < platt.apply(0.5));
}

#[test]
fn a_patients_studies_are_judged_each_for_itself() {
    let slice = |study: Option<&str>, series: &str, position: i64, positive: bool| Slice {
        id: format!("{study:?}{series}{position}"),
        source: "a".into(),
        patient: "a/p".into(),
        study: study.map(str::to_owned),
        series: Some(series.into()),
        instance: None,
        positive,
        file: "none".into(),
        mask: None,
        size: None,
        position: Some(position),
        origin: None,
    };
    // Before: bleeding, in two series. After: one series, its slices out of order.
    let slices = [
        slice(Some("before"), "1", 0, true),
        slice(Some("after"), "3", 5, false),
        slice(Some("before"), "2", 0, false),
        slice(Some("after"), "3", 4, false),
    ];
    let studies = Study::group(&slices.iter().collect::<Vec<_>>(), &[0.9, 0.2, 0.3, 0.1]);
    let names: Vec<String> = studies.iter().map(Study::name).collect();
    assert_eq!(names, ["a/p, study after", "a/p, study before"]);
    assert_eq!(studies.iter().map(Study::is_positive).collect::<Vec<_>>(), [false, true]);
    assert_eq!(studies[0].slices.iter().map(|case| case.score).collect::<Vec<_>>(), [0.1, 0.2]);
    assert_eq!(studies.iter().map(|study| study.is_ordered).collect::<Vec<_>>(), [true, false]);
    // Still one patient of the interval.
    let decision = Decision {
        slice_threshold: 0.5,
        study_rule: StudyRule::TopKMean { k: 1, threshold: 0.5 },
        calibration: None,
        wanted_sensitivity: 0.9,
        operating_point: Default::default(),
        reached: None,
    };
    let evaluation = Evaluation::of(&studies, &decision, 1);
    assert_eq!((evaluation.patients, evaluation.studies.cases), (1, 2));

    // An older index names no study: a patient is one.
    let old: Vec<Slice> = slices.map(|slice| Slice { study: None, series: None, ..slice }).into();
    let studies = Study::group(&old.iter().collect::<Vec<_>>(), &[0.9, 0.2, 0.3, 0.1]);
    assert_eq!((studies.len(), studies[0].name().as_str()), (1, "a/p"));
}

#[test]
fn one_class_decides_nothing() {
    let mut studies = ten_studies();
    studies.truncate(5);
    assert_eq!(decide(&studies, 0.9), None);
}

#[test]
fn an_evaluation_counts_patients_slices_and_ten_studies() {
    let decision = decide(&ten_studies(), 0.9).expect("both classes");
    let evaluation = Evaluation::of(&ten_studies(), &decision, 1);
    assert_eq!((evaluation.patients, evaluation.slices.cases, evaluation.studies.cases), (10, 200, 10));
    assert_eq!((evaluation.slices.positives, evaluation.studies.positives), (20, 4));
    assert_eq!(evaluation.studies.sensitivity.map(|found| found.value), Some(1.0));
    assert!(evaluation.table().contains("| TN, FP, FN, TP | 178, 2, 0, 20 | 6, 0, 0, 4 |"), "{}", evaluation.table());
}
