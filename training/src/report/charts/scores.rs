//! How the scores of each class are spread, and where the threshold cuts.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::{Area, Drawn, INK, LARGE, Mark, NEGATIVE, POSITIVE, SMALL, bold, draw, font, grouped, key, plane};
use crate::report::{Figure, ReportError};
use crate::run::Measurement;

const WIDTH: i32 = 940;
const HEAD: i32 = 62;
const ROW: i32 = 205;

pub fn figure(measurement: &Measurement, name: &str) -> Result<Figure, ReportError> {
    let decision = &measurement.decision;
    let sides = [
        ("Slices", measurement.slice_cases(), decision.slice_threshold, 40, "probability"),
        ("Studies", measurement.study_cases(), decision.study_rule.threshold(), 20, "score by the study rule"),
    ];
    draw(name, (WIDTH as u32, (HEAD + 2 * ROW) as u32), |area| {
        let (left, right) = area.split_horizontally(WIDTH / 2);
        for (area, (what, cases, threshold, bins, axis)) in [left, right].iter().zip(&sides) {
            super::write(area, what, &bold(LARGE), HPos::Left, (16, 18))?;
            key(area, Mark::Line(INK, 2), &format!("threshold {threshold:.4}"), (16, 42))?;
            let (_, below) = area.split_vertically(HEAD);
            let (upper, lower) = below.split_vertically(ROW);
            for (area, positive) in [(upper, false), (lower, true)] {
                let scores: Vec<f64> =
                    cases.iter().filter(|case| case.positive == positive).map(|case| case.score).collect();
                histogram(&area, &scores, positive, *threshold, *bins, axis)?;
            }
        }
        Ok(())
    })
}

/// Shares of the class in bins of equal width from 0 to 1; a score of 1 falls into the last.
fn shares(scores: &[f64], bins: usize) -> Vec<f64> {
    let mut shares = vec![0.0; bins];
    for score in scores {
        shares[((score * bins as f64) as usize).min(bins - 1)] += 1.0 / scores.len() as f64;
    }
    shares
}

fn histogram(area: &Area<'_>, scores: &[f64], positive: bool, threshold: f64, bins: usize, axis: &str) -> Drawn {
    let (with, color) = if positive { ("with", POSITIVE) } else { ("without", NEGATIVE) };
    key(area, Mark::Block(color), &format!("{} {with} hemorrhage", grouped(scores.len())), (58, 12))?;
    if scores.is_empty() {
        return super::write(area, "None of them: one class only.", &font(SMALL, INK), HPos::Left, (86, 60));
    }
    let shares = shares(scores, bins);
    let high = shares.iter().copied().fold(0.0, f64::max) * 1.08;
    let tick = |value: &f64| format!("{value:.1}");
    let percent = |share: &f64| format!("{:.0} %", share * 100.0);
    let mut plane = plane(area, 26, (0.0..1.0, axis), (0.0..high, "share"), (&tick, &percent))?;
    let edge = |bin: usize| bin as f64 / bins as f64;
    let bars = shares.iter().enumerate().filter(|(_, share)| **share > 0.0).map(|(bin, &share)| {
        let mut bar = Rectangle::new([(edge(bin), 0.0), (edge(bin + 1), share)], color.filled());
        bar.set_margin(0, 0, 0, 1);
        bar
    });
    plane.draw_series(bars)?;
    plane.draw_series([PathElement::new([(threshold, 0.0), (threshold, high)], INK.stroke_width(2))])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_score_falls_into_one_bin() {
        assert_eq!(shares(&[0.0, 0.24, 0.25, 1.0], 4), [0.5, 0.25, 0.0, 0.25]);
        let scores: Vec<f64> = (0..1000).map(|i| f64::from(i) / 999.0).collect();
        assert!((shares(&scores, 40).iter().sum::<f64>() - 1.0).abs() < 1e-9);
    }
}
