//! A confusion matrix: labels in rows, answers in columns, each cell with its share of the row.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::{FAINT, INK, LARGE, NEGATIVE, POSITIVE, SMALL, bold, draw, font, grouped, write};
use crate::metrics::Confusion;
use crate::report::{Figure, ReportError};

const WIDTH: u32 = 460;
const HEIGHT: u32 = 284;
const LEFT: i32 = 136;
const TOP: i32 = 64;
const CELL: (i32, i32) = (156, 104);

pub fn figure(name: &str, what: &str, counts: &Confusion) -> Result<Figure, ReportError> {
    // Right answers blue, wrong ones orange; the words say which is which.
    let rows = [
        ("without", [("true negatives", counts.tn, NEGATIVE), ("false positives", counts.fp, POSITIVE)]),
        ("with", [("false negatives", counts.fn_, POSITIVE), ("true positives", counts.tp, NEGATIVE)]),
    ];
    draw(name, (WIDTH, HEIGHT), |area| {
        let title: String = what.chars().take(1).flat_map(char::to_uppercase).chain(what.chars().skip(1)).collect();
        write(area, &title, &bold(LARGE), HPos::Left, (16, 18))?;
        for (column, text) in (0..).zip(["not flagged", "flagged"]) {
            write(area, text, &font(SMALL, INK), HPos::Center, (LEFT + CELL.0 * column + CELL.0 / 2, TOP - 14))?;
        }
        for (row, (label, cells)) in (0..).zip(rows) {
            let top = TOP + CELL.1 * row;
            let middle = top + CELL.1 / 2;
            write(area, label, &font(SMALL, INK), HPos::Right, (LEFT - 12, middle - 9))?;
            write(area, "hemorrhage", &font(SMALL, INK), HPos::Right, (LEFT - 12, middle + 9))?;
            let whole = cells[0].1 + cells[1].1;
            for (column, (meaning, count, color)) in (0..).zip(cells) {
                let left = LEFT + CELL.0 * column;
                let corners = [(left, top), (left + CELL.0, top + CELL.1)];
                let share = if whole == 0 { 0.0 } else { count as f64 / whole as f64 };
                area.draw(&Rectangle::new(corners, color.mix(0.06 + 0.44 * share).filled()))?;
                area.draw(&Rectangle::new(corners, FAINT.stroke_width(1)))?;
                let center = left + CELL.0 / 2;
                write(area, &grouped(count), &bold(30.0), HPos::Center, (center, middle - 22))?;
                write(area, meaning, &font(SMALL, INK), HPos::Center, (center, middle + 8))?;
                let of =
                    if whole == 0 { "none in the row".into() } else { format!("{:.1} % of the row", share * 100.0) };
                write(area, &of, &font(SMALL, INK), HPos::Center, (center, middle + 29))?;
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;

    #[test]
    fn all_counts_stand_in_it_with_their_share_of_the_label() {
        let counts = Confusion { tn: 97_951, fp: 30_991, fn_: 4_094, tp: 17_471 };
        let (texts, _) = read(&figure("confusion-slices.svg", "slices", &counts).expect("a chart"));
        // Row by row.
        let cells: Vec<&str> = texts.iter().map(String::as_str).filter(|text| text.contains([',', '%'])).collect();
        let expected = [
            ("97,951", "76.0 % of the row"),
            ("30,991", "24.0 % of the row"),
            ("4,094", "19.0 % of the row"),
            ("17,471", "81.0 % of the row"),
        ];
        assert_eq!(cells, expected.iter().flat_map(|&(count, share)| [count, share]).collect::<Vec<_>>());
    }

    #[test]
    fn a_class_without_cases_has_no_share() {
        let counts = Confusion { tn: 0, fp: 0, fn_: 1, tp: 2 };
        let (texts, _) = read(&figure("confusion-studies.svg", "studies", &counts).expect("a chart"));
        assert_eq!(texts.iter().filter(|text| *text == "none in the row").count(), 2);
    }
}
