//! The charts, as SVG. Colours are Okabe and Ito's, which the colour-blind tell apart; what they say is also said by
//! place, shape or word.

mod confusion;
mod curves;
mod labels;
mod loss;
mod reliability;
mod scores;

use std::io;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{Figure, ReportError};
use crate::run::{Measurement, Run};

const NEGATIVE: RGBColor = RGBColor(0, 114, 178);
const POSITIVE: RGBColor = RGBColor(213, 94, 0);
const INK: RGBColor = RGBColor(27, 31, 36);
const QUIET: RGBColor = RGBColor(110, 118, 129);
const FAINT: RGBColor = RGBColor(208, 215, 222);
/// Told apart from each other and from the axes: the lines of folds.
const LINES: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(213, 94, 0),
];

/// The size of texts; the SVG's own unit is 1.24 times smaller.
const SMALL: f64 = 15.5;
const LARGE: f64 = 18.5;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn<T = ()> = Result<T, DrawingAreaErrorKind<io::Error>>;
type Plane<'a> = ChartContext<
    'a,
    SVGBackend<'a>,
    Cartesian2d<plotters::coord::types::RangedCoordf64, plotters::coord::types::RangedCoordf64>,
>;

/// How an axis writes its numbers.
type Format<'a> = &'a dyn Fn(&f64) -> String;

/// All charts of a run, in the order of the page.
pub fn all(run: &Run) -> Result<Vec<Figure>, ReportError> {
    let mut figures = vec![labels::figure(&run.labels)?];
    figures.extend(loss::figure(&run.histories)?);
    if let Some(calibrated) = &run.supplement.reliability {
        figures.push(reliability::figure(calibrated)?);
    }
    for measurement in &run.measurements {
        figures.extend(of(measurement)?);
    }
    Ok(figures)
}

/// The charts of one side.
fn of(measurement: &Measurement) -> Result<Vec<Figure>, ReportError> {
    let prefix = measurement.side.prefix();
    let evaluation = &measurement.evaluation;
    Ok(vec![
        curves::roc(measurement, &format!("{prefix}roc.svg"))?,
        curves::precision_recall(measurement, &format!("{prefix}precision-recall.svg"))?,
        confusion::figure(&format!("{prefix}confusion-slices.svg"), "slices", &evaluation.slices.confusion)?,
        confusion::figure(&format!("{prefix}confusion-studies.svg"), "studies", &evaluation.studies.confusion)?,
        scores::figure(measurement, &format!("{prefix}scores.svg"))?,
    ])
}

/// Draws on white; `size` is width and height.
fn draw(name: &str, size: (u32, u32), body: impl for<'a> FnOnce(&Area<'a>) -> Drawn) -> Result<Figure, ReportError> {
    let mut svg = String::new();
    let drawn = {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        area.fill(&WHITE).and_then(|()| body(&area)).and_then(|()| area.present())
    };
    drawn.map_err(|error| ReportError::Draw { figure: name.into(), why: error.to_string() })?;
    Ok(Figure { name: name.into(), svg })
}

fn font(size: f64, color: RGBColor) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&color)
}

fn bold(size: f64) -> TextStyle<'static> {
    ("sans-serif", size).into_font().style(FontStyle::Bold).color(&INK)
}

/// Text whose anchor is `place`: `h` says which of its ends, vertically always its middle.
fn write(area: &Area<'_>, text: &str, style: &TextStyle<'static>, h: HPos, place: (i32, i32)) -> Drawn {
    // XML has no way to write most control characters, and a folder's name may hold them.
    let text: String = text.chars().filter(|letter| !letter.is_control()).collect();
    area.draw_text(&text, &style.pos(Pos::new(h, VPos::Center)), place)
}

/// The beginning of a line in a figure's key.
#[derive(Clone, Copy)]
enum Mark {
    Line(RGBColor, u32),
    Disc(RGBColor),
    Ring(RGBColor),
    Block(RGBColor),
}

/// A mark and its meaning; `place` is the left end, vertically the middle.
fn key(area: &Area<'_>, mark: Mark, text: &str, (x, y): (i32, i32)) -> Drawn {
    match mark {
        Mark::Line(color, width) => {
            area.draw(&PathElement::new([(x, y), (x + 20, y)], color.stroke_width(width)))?;
        }
        Mark::Disc(color) => area.draw(&Circle::new((x + 10, y), 5, color.filled()))?,
        Mark::Ring(color) => area.draw(&Circle::new((x + 10, y), 5, color.stroke_width(2)))?,
        Mark::Block(color) => area.draw(&Rectangle::new([(x + 4, y - 6), (x + 16, y + 6)], color.filled()))?,
    }
    write(area, text, &font(SMALL, INK), HPos::Left, (x + 28, y))
}

/// A plane below a heading of `top` pixels, with axes and their names.
fn plane<'a>(
    area: &Area<'a>,
    top: i32,
    x: (std::ops::Range<f64>, &str),
    y: (std::ops::Range<f64>, &str),
    format: (Format<'_>, Format<'_>),
) -> Drawn<Plane<'a>> {
    let mut plane = ChartBuilder::on(area)
        .margin_top(top)
        .margin_right(18)
        .margin_left(6)
        .margin_bottom(4)
        .x_label_area_size(46)
        .y_label_area_size(58)
        .build_cartesian_2d(x.0, y.0)?;
    plane
        .configure_mesh()
        .x_desc(x.1)
        .y_desc(y.1)
        .x_labels(6)
        .y_labels(6)
        .x_label_formatter(format.0)
        .y_label_formatter(format.1)
        .label_style(font(SMALL, INK))
        .axis_desc_style(font(SMALL, INK))
        .axis_style(QUIET)
        .bold_line_style(FAINT.mix(0.6))
        .light_line_style(TRANSPARENT)
        .draw()?;
    Ok(plane)
}

/// An integer with its thousands set apart.
pub(super) fn grouped(number: impl TryInto<u64>) -> String {
    let digits = number.try_into().unwrap_or(u64::MAX).to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The texts of an SVG, and how many elements of a name it has: what tests look at.
#[cfg(test)]
fn read(figure: &Figure) -> (Vec<String>, impl Fn(&str) -> usize) {
    let document = roxmltree::Document::parse(&figure.svg).expect("well-formed XML");
    let texts = document.descendants().filter(|node| node.has_tag_name(("http://www.w3.org/2000/svg", "text")));
    let texts = texts.map(|node| node.text().unwrap_or_default().trim().to_owned()).collect();
    let names: Vec<String> = document.descendants().map(|node| node.tag_name().name().to_owned()).collect();
    (texts, move |name: &str| names.iter().filter(|found| *found == name).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([0usize, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
