//! The points of ROC and precision-recall curves: one for each threshold that makes a difference.

use crate::metrics::Case;

/// A curve's point and the threshold that gives it: flagged is what scores at least that much.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// ROC: 1 - specificity. Precision-recall: sensitivity (recall).
    pub x: f64,
    /// ROC: sensitivity. Precision-recall: precision.
    pub y: f64,
    /// Infinite where nothing is flagged.
    pub threshold: f64,
}

/// Flagged negatives and flagged positives from each distinct score on, highest first.
fn counts(cases: &[Case]) -> Vec<(f64, f64, f64)> {
    let mut sorted: Vec<&Case> = cases.iter().collect();
    sorted.sort_unstable_by(|a, b| b.score.total_cmp(&a.score));
    let (mut negatives, mut positives) = (0.0, 0.0);
    sorted
        .chunk_by(|a, b| a.score == b.score)
        .map(|tied| {
            let hits = tied.iter().filter(|case| case.positive).count() as f64;
            positives += hits;
            negatives += tied.len() as f64 - hits;
            (tied[0].score, negatives, positives)
        })
        .collect()
}

/// The ROC curve from (0, 0), where nothing is flagged, to (1, 1); equal scores are one step, so a tie across the classes
/// is a slope. None with one class only.
pub fn roc(cases: &[Case]) -> Option<Vec<Point>> {
    let counts = counts(cases);
    let &(_, negatives, positives) = counts.last()?;
    if negatives == 0.0 || positives == 0.0 {
        return None;
    }
    let mut points = vec![Point { x: 0.0, y: 0.0, threshold: f64::INFINITY }];
    points.extend(counts.iter().map(|&(threshold, fp, tp)| Point { x: fp / negatives, y: tp / positives, threshold }));
    Some(points)
}

/// The precision-recall curve, by falling threshold. Between two points no precision can be had by mixing them, so it
/// is to be drawn in steps: up to a point's recall its own precision holds. None with one class only.
pub fn precision_recall(cases: &[Case]) -> Option<Vec<Point>> {
    let counts = counts(cases);
    let &(_, negatives, positives) = counts.last()?;
    if negatives == 0.0 || positives == 0.0 {
        return None;
    }
    let point = |&(threshold, fp, tp): &(f64, f64, f64)| Point { x: tp / positives, y: tp / (fp + tp), threshold };
    Some(counts.iter().map(point).collect())
}

/// The area below those steps: the mean precision over the positives, each at its own score.
pub fn average_precision(points: &[Point]) -> f64 {
    let mut recall = 0.0;
    let mut area = 0.0;
    for point in points {
        area += (point.x - recall) * point.y;
        recall = point.x;
    }
    area
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Confusion, auc, best_f2_threshold};

    fn cases(of: &[(f64, bool)]) -> Vec<Case> {
        of.iter().map(|&(score, positive)| Case { score, positive }).collect()
    }

    /// By falling score: +, tie of + and -, -, +.
    fn tied() -> Vec<Case> {
        cases(&[(0.1, true), (0.5, false), (0.9, true), (0.2, false), (0.5, true)])
    }

    fn points(of: &[(f64, f64, f64)]) -> Vec<Point> {
        of.iter().map(|&(x, y, threshold)| Point { x, y, threshold }).collect()
    }

    #[test]
    fn a_roc_curve_has_a_point_a_score_and_a_tie_is_one() {
        let third = 1.0 / 3.0;
        let expected = points(&[
            (0.0, 0.0, f64::INFINITY),
            (0.0, third, 0.9),
            (0.5, 2.0 * third, 0.5),
            (1.0, 2.0 * third, 0.2),
            (1.0, 1.0, 0.1),
        ]);
        assert_eq!(roc(&tied()).expect("two classes"), expected);
    }

    #[test]
    fn the_area_under_the_points_is_the_auc_of_pairs() {
        let points = roc(&tied()).expect("two classes");
        let area: f64 = points.windows(2).map(|pair| (pair[1].x - pair[0].x) * (pair[0].y + pair[1].y) / 2.0).sum();
        assert!((area - auc(&tied()).expect("two classes")).abs() < 1e-12);
    }

    #[test]
    fn a_precision_recall_curve_has_a_point_a_score_and_a_tie_is_one() {
        let third = 1.0 / 3.0;
        let expected =
            points(&[(third, 1.0, 0.9), (2.0 * third, 2.0 / 3.0, 0.5), (2.0 * third, 0.5, 0.2), (1.0, 3.0 / 5.0, 0.1)]);
        let found = precision_recall(&tied()).expect("two classes");
        assert_eq!(found, expected);
        // (1 + 2/3 + 3/5) / 3: the precision at each positive's score.
        assert!((average_precision(&found) - (1.0 + 2.0 / 3.0 + 0.6) / 3.0).abs() < 1e-12);
    }

    #[test]
    fn the_chosen_threshold_lies_on_both_curves() {
        let (threshold, _) = best_f2_threshold(&tied()).expect("positives");
        let at = Confusion::at(threshold, &tied());
        let on = |points: Vec<Point>, x: f64, y: f64| points.iter().any(|point| point.x == x && point.y == y);
        let (sensitivity, specificity) = at.sensitivity().zip(at.specificity()).expect("two classes");
        assert!(on(roc(&tied()).expect("two classes"), 1.0 - specificity, sensitivity));
        assert!(on(precision_recall(&tied()).expect("two classes"), sensitivity, at.precision()));
    }

    #[test]
    fn one_class_has_no_curve() {
        for one in [vec![], cases(&[(0.3, true), (0.4, true)]), cases(&[(0.3, false)])] {
            assert_eq!(roc(&one), None);
            assert_eq!(precision_recall(&one), None);
        }
    }
}
