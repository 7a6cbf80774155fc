//! How many slices and patients have hemorrhage, by side and source.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::{Area, Drawn, LARGE, Mark, NEGATIVE, POSITIVE, QUIET, SMALL, bold, draw, font, grouped, key, write};
use crate::report::{Figure, ReportError};
use crate::run::LabelCount;

const WIDTH: u32 = 940;
const NAMES: i32 = 210;
const PANEL: i32 = 365;
/// The length of the longest bar; the rest of a panel holds its numbers.
const BAR: i32 = 225;
const HEAD: i32 = 64;
const ROW: i32 = 34;

pub fn figure(counts: &[LabelCount]) -> Result<Figure, ReportError> {
    draw("labels.svg", (WIDTH, (HEAD + ROW * counts.len() as i32 + 8) as u32), |area| {
        key(area, Mark::Block(NEGATIVE), "without hemorrhage", (NAMES, 20))?;
        key(area, Mark::Block(POSITIVE), "with hemorrhage", (NAMES + 175, 20))?;
        for (row, count) in (0..).zip(counts) {
            let y = HEAD + ROW * row + ROW / 2;
            let name = format!("{}, {}", count.side, short(&count.source));
            write(area, &name, &font(SMALL, super::INK), HPos::Right, (NAMES - 12, y))?;
        }
        panel(area, "Slices", NAMES, &counts.iter().map(|count| count.slices).collect::<Vec<_>>())?;
        panel(area, "Patients", NAMES + PANEL, &counts.iter().map(|count| count.patients).collect::<Vec<_>>())
    })
}

/// The part of a name that fits beside the bars; the page's table has the whole name.
fn short(source: &str) -> String {
    const MOST: usize = 16;
    if source.chars().count() <= MOST { source.into() } else { source.chars().take(MOST - 1).chain(['…']).collect() }
}

fn panel(area: &Area<'_>, title: &str, left: i32, counts: &[[usize; 2]]) -> Drawn {
    write(area, title, &bold(LARGE), HPos::Left, (left, HEAD - 16))?;
    let most = counts.iter().map(|[without, with]| without + with).max().unwrap_or(0).max(1) as f64;
    let length = |count: usize| (count as f64 / most * f64::from(BAR)).round() as i32;
    for (row, &[without, with]) in (0..).zip(counts) {
        let (top, bottom) = (HEAD + ROW * row + 6, HEAD + ROW * (row + 1) - 6);
        let middle = left + length(without);
        let end = left + length(without + with);
        area.draw(&Rectangle::new([(left, top), (middle, bottom)], NEGATIVE.filled()))?;
        area.draw(&Rectangle::new([(middle, top), (end, bottom)], POSITIVE.filled()))?;
        let text = format!("{} + {}", grouped(without), grouped(with));
        write(area, &text, &font(SMALL, super::INK), HPos::Left, (end + 8, (top + bottom) / 2))?;
    }
    let bottom = HEAD + ROW * counts.len() as i32;
    area.draw(&PathElement::new([(left, HEAD), (left, bottom)], QUIET.stroke_width(1)))
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;

    #[test]
    fn every_row_states_both_counts() {
        let count = |side: &str, slices, patients| LabelCount {
            side: side.into(),
            source: "a<b>&\u{1}c".into(),
            slices,
            patients,
        };
        let figure =
            figure(&[count("training", [1100, 52], [20, 12]), count("test", [0, 7], [0, 3])]).expect("a chart");
        let (texts, elements) = read(&figure);
        for wanted in ["training, a<b>&c", "1,100 + 52", "20 + 12", "0 + 7", "0 + 3"] {
            assert!(texts.iter().any(|text| text == wanted), "{wanted} in {texts:?}");
        }
        // The ground, two of the key, and two for each of two rows in two panels.
        assert_eq!(elements("rect"), 1 + 2 + 8);
    }
}
