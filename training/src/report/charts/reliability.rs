//! How scores agree with what is seen, before calibration and after.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::{Area, Drawn, FAINT, INK, LARGE, Mark, NEGATIVE, SMALL, bold, draw, font, grouped, key, plane};
use crate::calibration::{Calibrated, Reliability};
use crate::report::{Figure, ReportError};

const WIDTH: i32 = 940;
const TOP: i32 = 86;
const PLANE: i32 = 390;

pub fn figure(calibrated: &Calibrated) -> Result<Figure, ReportError> {
    draw("reliability.svg", (WIDTH as u32, (TOP + PLANE) as u32), |area| {
        let (left, right) = area.split_horizontally(WIDTH / 2);
        panel(&left, "As the network was trained", &calibrated.before)?;
        panel(&right, "Calibrated", &calibrated.after)
    })
}

fn panel(area: &Area<'_>, title: &str, reliability: &Reliability) -> Drawn {
    super::write(area, title, &bold(LARGE), HPos::Left, (16, 18))?;
    let Reliability { brier, ece, bins } = reliability;
    key(area, Mark::Disc(NEGATIVE), &format!("calibration error {ece:.4}, Brier score {brier:.4}"), (16, 44))?;
    key(area, Mark::Line(FAINT, 2), "a score that means what it says", (16, 64))?;
    let tick = |value: &f64| format!("{value:.1}");
    let (x, y) = ((0.0..1.0, "mean score of the bin"), (0.0..1.0, "share with hemorrhage"));
    let mut plane = plane(area, TOP, x, y, (&tick, &tick))?;
    plane.draw_series([PathElement::new([(0.0, 0.0), (1.0, 1.0)], FAINT.stroke_width(2))])?;
    let place = |bin: &crate::calibration::Bin| (bin.mean_score, bin.share());
    plane.draw_series([PathElement::new(bins.iter().map(place).collect::<Vec<_>>(), NEGATIVE.stroke_width(2))])?;
    plane.draw_series(bins.iter().map(|bin| Circle::new(place(bin), 5, NEGATIVE.filled())))?;
    // How many slices a point speaks for, on the side where the axis leaves room.
    plane.draw_series(bins.iter().map(|bin| {
        let anchor = if bin.mean_score > 0.85 { HPos::Right } else { HPos::Left };
        let dx = if bin.mean_score > 0.85 { -9 } else { 9 };
        let style = font(SMALL, INK).pos(plotters::style::text_anchor::Pos::new(anchor, super::VPos::Center));
        EmptyElement::at(place(bin)) + Text::new(grouped(bin.cases), (dx, 0), style)
    }))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;
    use crate::metrics::Case;

    #[test]
    fn both_panels_state_error_and_cases() {
        let cases = |scores: [f64; 4]| scores.map(|score| Case { score, positive: score > 0.5 });
        let of = |scores| Reliability::of(&cases(scores)).expect("cases");
        let calibrated = Calibrated { before: of([0.3, 0.3, 0.8, 0.9]), after: of([0.0, 0.0, 1.0, 1.0]) };
        let figure = figure(&calibrated).expect("a chart");
        let (texts, count) = read(&figure);
        assert!(texts.iter().any(|text| text == "calibration error 0.2250, Brier score 0.0575"), "{texts:?}");
        assert!(texts.iter().any(|text| text == "calibration error 0.0000, Brier score 0.0000"), "{texts:?}");
        // Three bins before, two after; a disc each and two in the keys.
        assert_eq!(count("circle"), 3 + 2 + 2);
    }
}
