//! ROC and precision-recall curves of slices and studies, with the thresholds that were chosen.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::{Area, Drawn, FAINT, INK, LARGE, Mark, NEGATIVE, POSITIVE, QUIET, bold, draw, font, grouped, key, plane};
use crate::metrics::{Case, Confusion, Figures};
use crate::report::curves::{self, Point};
use crate::report::{Figure, ReportError};
use crate::run::{Measurement, Side};

const WIDTH: i32 = 940;
const HEAD: i32 = 34;
const LINE: i32 = 20;
/// The size of a panel's plane; with the axes' room it is about square.
const PLANE: i32 = 390;
/// Points closer than this, in shares of an axis, are one on paper: large test sets have one for each of their slices.
const NEAR: f64 = 0.001;

/// One panel's cases.
struct Panel<'a> {
    what: &'a str,
    cases: Vec<Case>,
    folds: Vec<Vec<Case>>,
    threshold: f64,
    figures: &'a Figures,
    is_crossed: bool,
}

fn panels(measurement: &Measurement) -> [Panel<'_>; 2] {
    let is_crossed = measurement.side == Side::Folds;
    [
        Panel {
            what: "Slices",
            cases: measurement.slice_cases(),
            folds: measurement.by_fold(),
            threshold: measurement.decision.slice_threshold,
            figures: &measurement.evaluation.slices,
            is_crossed,
        },
        Panel {
            what: "Studies",
            cases: measurement.study_cases(),
            // A fold's few studies make a staircase, no curve.
            folds: Vec::new(),
            threshold: measurement.decision.study_rule.threshold(),
            figures: &measurement.evaluation.studies,
            is_crossed,
        },
    ]
}

/// Which of the two.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Roc,
    PrecisionRecall,
}

pub fn roc(measurement: &Measurement, name: &str) -> Result<Figure, ReportError> {
    figure(measurement, name, Kind::Roc)
}

pub fn precision_recall(measurement: &Measurement, name: &str) -> Result<Figure, ReportError> {
    figure(measurement, name, Kind::PrecisionRecall)
}

fn figure(measurement: &Measurement, name: &str, kind: Kind) -> Result<Figure, ReportError> {
    let panels = panels(measurement);
    let lines = if panels[0].is_crossed { 4 } else { 2 };
    let top = HEAD + LINE * lines + 10;
    draw(name, (WIDTH as u32, (top + PLANE) as u32), |area| {
        let (left, right) = area.split_horizontally(WIDTH / 2);
        panels[0].draw(&left, kind, top)?;
        panels[1].draw(&right, kind, top)
    })
}

impl Kind {
    fn points(self, cases: &[Case]) -> Option<Vec<Point>> {
        match self {
            Kind::Roc => curves::roc(cases),
            Kind::PrecisionRecall => curves::precision_recall(cases),
        }
    }

    /// The point of a decision; none with one class only, or for precision where nothing is flagged.
    fn place(self, at: &Confusion) -> Option<(f64, f64)> {
        match self {
            Kind::Roc => Some((1.0 - at.specificity()?, at.sensitivity()?)),
            Kind::PrecisionRecall => Some((at.sensitivity()?, at.precision())).filter(|_| at.tp + at.fp > 0),
        }
    }

    fn says(self, at: &Confusion) -> String {
        let three = |figure: Option<f64>| figure.map_or("one class only".into(), |figure| format!("{figure:.3}"));
        let (sensitivity, specificity) = (three(at.sensitivity()), three(at.specificity()));
        match self {
            Kind::Roc => format!("sensitivity {sensitivity}, specificity {specificity}"),
            Kind::PrecisionRecall => format!("recall {sensitivity}, precision {:.3}", at.precision()),
        }
    }

    /// The points to draw a line through.
    fn line(self, points: &[Point]) -> Vec<(f64, f64)> {
        let mut kept: Vec<(f64, f64)> = Vec::new();
        for (i, point) in points.iter().enumerate() {
            let last = i + 1 == points.len();
            let near = |&(x, y): &(f64, f64)| (point.x - x).abs() < NEAR && (point.y - y).abs() < NEAR;
            if last || !kept.last().is_some_and(near) {
                kept.push((point.x, point.y));
            }
        }
        match self {
            Kind::Roc => kept,
            Kind::PrecisionRecall => {
                let mut recall = 0.0;
                let step = |(x, y): (f64, f64)| [(std::mem::replace(&mut recall, x), y), (x, y)];
                kept.into_iter().flat_map(step).collect()
            }
        }
    }
}

impl Panel<'_> {
    fn draw(&self, area: &Area<'_>, kind: Kind, top: i32) -> Drawn {
        let positives = self.cases.iter().filter(|case| case.positive).count();
        let title = format!("{}: {}, {} with hemorrhage", self.what, grouped(self.cases.len()), grouped(positives));
        super::write(area, &title, &bold(LARGE), HPos::Left, (16, 18))?;
        let Some(points) = kind.points(&self.cases) else {
            let text = format!("One class only: no curve of these {}.", self.what.to_lowercase());
            return super::write(area, &text, &font(LARGE, INK), HPos::Left, (16, top));
        };
        let at = Confusion::at(self.threshold, &self.cases);
        let area_text = match (kind, self.figures.auc) {
            (Kind::Roc, Some(auc)) => format!("AUC {:.3} ({:.3} to {:.3})", auc.value, auc.low, auc.high),
            (Kind::Roc, None) => "ROC curve".into(),
            (Kind::PrecisionRecall, _) => format!("average precision {:.3}", curves::average_precision(&points)),
        };
        let line = |number: i32| (16, HEAD + 10 + LINE * number);
        key(area, Mark::Line(NEGATIVE, 2), &area_text, line(0))?;
        key(area, Mark::Disc(POSITIVE), &format!("threshold {:.4}: {}", self.threshold, kind.says(&at)), line(1))?;
        if self.is_crossed {
            let text = format!("by the other folds: {}", kind.says(&self.figures.confusion));
            key(area, Mark::Ring(INK), &text, line(2))?;
        }
        if !self.folds.is_empty() {
            key(area, Mark::Line(QUIET, 1), "single folds", line(3))?;
        }
        let (x, y) = match kind {
            Kind::Roc => ("1 − specificity", "sensitivity"),
            Kind::PrecisionRecall => ("recall (sensitivity)", "precision"),
        };
        let tick = |value: &f64| format!("{value:.1}");
        let mut plane = plane(area, top, (0.0..1.0, x), (0.0..1.0, y), (&tick, &tick))?;
        let share = positives as f64 / self.cases.len() as f64;
        let chance = match kind {
            Kind::Roc => [(0.0, 0.0), (1.0, 1.0)],
            Kind::PrecisionRecall => [(0.0, share), (1.0, share)],
        };
        plane.draw_series([PathElement::new(chance, FAINT.stroke_width(2))])?;
        for points in self.folds.iter().filter_map(|fold| kind.points(fold)) {
            plane.draw_series([PathElement::new(kind.line(&points), QUIET.mix(0.6).stroke_width(1))])?;
        }
        plane.draw_series([PathElement::new(kind.line(&points), NEGATIVE.stroke_width(2))])?;
        if let Some(place) = kind.place(&at) {
            plane.draw_series([Circle::new(place, 6, POSITIVE.filled())])?;
        }
        if let Some(place) = kind.place(&self.figures.confusion).filter(|_| self.is_crossed) {
            plane.draw_series([Circle::new(place, 6, INK.stroke_width(2))])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_points_are_one_on_paper_and_the_ends_stay() {
        let cases: Vec<Case> =
            (0..20_000).map(|i| Case { score: f64::from(i) / 20_000.0, positive: i % 7 < 3 }).collect();
        let all = curves::roc(&cases).expect("two classes");
        let line = Kind::Roc.line(&all);
        assert_eq!(all.len(), 20_001);
        assert!(line.len() <= 2_002, "{}", line.len());
        assert_eq!((line[0], line[line.len() - 1]), ((0.0, 0.0), (1.0, 1.0)));
    }

    #[test]
    fn precision_goes_in_steps() {
        let point = |x, y| Point { x, y, threshold: 0.5 };
        let line = Kind::PrecisionRecall.line(&[point(0.25, 1.0), point(1.0, 0.4)]);
        assert_eq!(line, [(0.0, 1.0), (0.25, 1.0), (0.25, 0.4), (1.0, 0.4)]);
    }

    #[test]
    fn a_decision_that_flags_nothing_has_no_precision_to_show() {
        let none = Confusion { tn: 5, fp: 0, fn_: 3, tp: 0 };
        assert_eq!(Kind::PrecisionRecall.place(&none), None);
        assert_eq!(Kind::Roc.place(&none), Some((0.0, 0.0)));
    }
}
