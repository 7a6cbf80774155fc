//! The figures that were published of m1 to m10 (P. Tran: Machine Learning in the Detection of Intracranial Hemorrhages from Head CT
//! Scans), to set ours beside. What its table heads "specificity" is precision ([`crate::metrics`]).

use crate::metrics::{Confusion, MeanSd};

/// Edge of the publication's images; it discarded those of another size.
pub const SIDE: u32 = 512;
/// Share of the sample that the publication's quick evaluation tests on.
pub const TEST: f64 = 0.2;
/// Share of what the test leaves that it validates on.
pub const VALIDATION: f64 = 0.2;

/// A candidate's figures in the published quick evaluation. Its true specificity is not reported.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    pub candidate: &'static str,
    pub f2: f64,
    pub accuracy: f64,
    pub sensitivity: f64,
    pub precision: f64,
}

const fn row(candidate: &'static str, [f2, accuracy, sensitivity, precision]: [f64; 4]) -> Row {
    Row { candidate, f2, accuracy, sensitivity, precision }
}

/// The quick evaluation of all candidates, each on a random sample of its own size, split by image. m3 flags nothing;
/// m4 and m6 flag (nearly) everything.
#[expect(clippy::approx_constant, reason = "m8's precision 0.3927 is a measurement, not π/8")]
pub const QUICK_EVALUATION: [Row; 10] = [
    row("m1", [0.5361, 0.4780, 0.9059, 0.2036]),
    row("m2", [0.2745, 0.8225, 0.2613, 0.3440]),
    row("m3", [0.0000, 0.8565, 0.0000, 0.0000]),
    row("m4", [0.4602, 0.1585, 1.0000, 0.1457]),
    row("m5", [0.4578, 0.8053, 0.4884, 0.3659]),
    row("m6", [0.4555, 0.1433, 1.0000, 0.1433]),
    row("m7", [0.5818, 0.7970, 0.6698, 0.3815]),
    row("m8", [0.4204, 0.8232, 0.4279, 0.3927]),
    row("m9", [0.5938, 0.7418, 0.7480, 0.3255]),
    row("m10", [0.6188, 0.7334, 0.7995, 0.3250]),
];

/// m10 in 5-fold cross-validation on 100,000 slices.
pub const CROSS_VALIDATION_F2: MeanSd = MeanSd { mean: 0.492, sd: 0.232 };
pub const CROSS_VALIDATION_ACCURACY: MeanSd = MeanSd { mean: 0.795, sd: 0.035 };

/// The threshold with the highest F2 on m10's training data.
pub const HOLD_OUT_THRESHOLD: f64 = 0.420;
/// m10 on the 150,507 held-out slices at that threshold.
pub const HOLD_OUT: Confusion = Confusion { tn: 97_951, fp: 30_991, fn_: 4_094, tp: 17_471 };

/// The published row of a candidate.
pub fn quick_evaluation(candidate: &str) -> Option<&'static Row> {
    QUICK_EVALUATION.iter().find(|row| row.candidate == candidate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::candidates::PUBLISHED;
    use crate::metrics::f2;

    #[test]
    fn every_f2_follows_from_precision_and_sensitivity() {
        assert_eq!(QUICK_EVALUATION.map(|row| row.candidate), *PUBLISHED);
        for row in QUICK_EVALUATION {
            let found = f2(row.precision, row.sensitivity);
            // Two figures of four digits leave the third within about one unit of its last.
            assert!((found - row.f2).abs() < 1.5e-4, "{}: {found} for {}", row.candidate, row.f2);
        }
        assert_eq!(quick_evaluation("m7"), Some(&QUICK_EVALUATION[6]));
        assert_eq!(quick_evaluation("m11"), None);
    }

    #[test]
    fn the_hold_out_figures_follow_from_the_counts() {
        let round = |value: f64| (value * 1000.0).round() / 1000.0;
        assert_eq!(HOLD_OUT.tn + HOLD_OUT.fp + HOLD_OUT.fn_ + HOLD_OUT.tp, 150_507);
        assert_eq!(round(HOLD_OUT.f2()), 0.648);
        assert_eq!(round(HOLD_OUT.accuracy()), 0.767);
        assert_eq!(HOLD_OUT.sensitivity().map(round), Some(0.810));
        assert_eq!(round(HOLD_OUT.precision()), 0.361);
        assert_eq!(HOLD_OUT.specificity().map(round), Some(0.760));
    }
}
