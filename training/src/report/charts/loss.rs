//! Losses by epoch: of one training, or a line a fold.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::{Area, Drawn, INK, LARGE, LINES, Mark, POSITIVE, bold, draw, key, plane};
use crate::fit::Epoch;
use crate::report::{Figure, ReportError};
use crate::run::History;

const WIDTH: i32 = 940;
const HEIGHT: i32 = 380;

/// One line of the chart.
struct Line {
    name: String,
    color: RGBColor,
    is_ringed: bool,
    values: Vec<(f64, f64)>,
}

/// None where no epoch was trained.
pub fn figure(histories: &[History]) -> Result<Option<Figure>, ReportError> {
    let of = |history: &History, value: fn(&Epoch) -> Option<f64>| -> Vec<(f64, f64)> {
        history.state.epochs.iter().filter_map(|row| Some((row.epoch as f64, value(row)?))).collect()
    };
    let mut losses = Vec::new();
    let mut aucs = Vec::new();
    let one = histories.len() == 1;
    for (number, history) in histories.iter().enumerate() {
        // The network that is shipped beside its folds stands out in black.
        let is_fold = one || history.name.starts_with("fold");
        let color = if is_fold { LINES[number % LINES.len()] } else { INK };
        let line = |name: &str, color, is_ringed, values| Line { name: name.into(), color, is_ringed, values };
        losses.push(line(&history.name, color, false, of(history, |row| Some(row.loss))));
        let validation = if one { "validation".into() } else { format!("{}, validation", history.name) };
        let color = if one { POSITIVE } else { color };
        losses.push(line(&validation, color, true, of(history, |row| row.validation_loss)));
        aucs.push(line(&validation, color, true, of(history, |row| row.validation_auc)));
    }
    losses.retain(|line| !line.values.is_empty());
    aucs.retain(|line| !line.values.is_empty());
    if losses.is_empty() {
        return Ok(None);
    }
    let best = histories.first().filter(|_| one).and_then(|history| history.state.best);
    draw("loss.svg", (WIDTH as u32, HEIGHT as u32), |area| {
        if aucs.is_empty() {
            return panel(area, "Loss", "weighted cross-entropy", &losses, best);
        }
        let (left, right) = area.split_horizontally(WIDTH * 3 / 5);
        panel(&left, "Loss", "weighted cross-entropy", &losses, best)?;
        panel(&right, "Validation, slices", "AUC", &aucs, best)
    })
    .map(Some)
}

fn panel(area: &Area<'_>, title: &str, axis: &str, lines: &[Line], best: Option<usize>) -> Drawn {
    super::write(area, title, &bold(LARGE), HPos::Left, (16, 18))?;
    let width = area.dim_in_pixel().0 as i32;
    let (mut x, mut y) = (16, 42);
    let mut place = |text: &str| {
        let length = 48 + 8 * text.chars().count() as i32;
        if x + length > width && x > 16 {
            (x, y) = (16, y + 20);
        }
        x += length;
        (x - length, y)
    };
    for line in lines {
        let mark = if line.is_ringed { Mark::Ring(line.color) } else { Mark::Line(line.color, 2) };
        key(area, mark, &line.name, place(&line.name))?;
    }
    let best = best.map(|best| (best as f64, format!("epoch {best}, kept")));
    if let Some((_, text)) = &best {
        key(area, Mark::Line(INK, 1), text, place(text))?;
    }
    let values = || lines.iter().flat_map(|line| line.values.iter().copied());
    let last = values().map(|(epoch, _)| epoch).fold(1.0, f64::max);
    let low = values().map(|(_, value)| value).fold(f64::INFINITY, f64::min);
    let high = values().map(|(_, value)| value).fold(f64::NEG_INFINITY, f64::max);
    let room = ((high - low) * 0.08).max(0.01);
    let x = if last > 1.0 { 1.0..last } else { 0.5..1.5 };
    let (low, high) = (low - room, high + room);
    let whole = |epoch: &f64| if epoch.fract() == 0.0 { format!("{epoch:.0}") } else { String::new() };
    let figure = |value: &f64| format!("{value:.2}");
    let mut plane = plane(area, y + 20, (x, "epoch"), (low..high, axis), (&whole, &figure))?;
    if let Some((best, _)) = best {
        plane.draw_series([PathElement::new([(best, low), (best, high)], INK.stroke_width(1))])?;
    }
    // Beyond that the marks would run into each other.
    let marked = last <= 60.0;
    for line in lines {
        plane.draw_series(LineSeries::new(line.values.iter().copied(), line.color.stroke_width(2)))?;
        let style = if line.is_ringed { line.color.stroke_width(2) } else { line.color.filled() };
        let radius = if line.is_ringed { 4 } else { 3 };
        if marked {
            plane.draw_series(line.values.iter().map(|&at| Circle::new(at, radius, style)))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;
    use crate::fit::State;

    fn history(name: &str, epochs: usize, held: bool) -> History {
        let epoch = |epoch: usize| Epoch {
            epoch,
            loss: 0.7 - 0.1 * epoch as f64,
            validation_loss: held.then_some(0.65),
            validation_auc: held.then_some(0.8),
            seconds: 1.0,
        };
        let state = State {
            epochs: (1..=epochs).map(epoch).collect(),
            best: Some(epochs),
            nan: None,
            first_sensitivity: None,
            mean_of: Vec::new(),
        };
        History { name: name.into(), state }
    }

    #[test]
    fn a_line_a_fold() {
        let folds: Vec<History> = (1..=5).map(|fold| history(&format!("fold {fold}"), 3, false)).collect();
        let figure = figure(&folds).expect("drawn").expect("a chart");
        let (texts, elements) = read(&figure);
        assert!(texts.iter().any(|text| text == "fold 5"), "{texts:?}");
        // Each with a mark an epoch. Axes and keys are polylines of two points: not counted here.
        assert_eq!(elements("circle"), 5 * 3);
        assert_eq!(long_lines(&figure), 5);
    }

    #[test]
    fn a_held_out_run_shows_both_losses_the_auc_and_the_epoch_that_is_kept() {
        let figure = figure(&[history("training", 4, true)]).expect("drawn").expect("a chart");
        let (texts, _) = read(&figure);
        for wanted in ["training", "validation", "epoch 4, kept", "AUC"] {
            assert!(texts.iter().any(|text| text == wanted), "{wanted} in {texts:?}");
        }
        assert_eq!(long_lines(&figure), 3);
    }

    #[test]
    fn no_epoch_no_chart_and_one_epoch_one_point() {
        assert_eq!(figure(&[history("training", 0, true)]).expect("nothing"), None);
        assert!(figure(&[history("training", 1, false)]).expect("drawn").is_some());
    }

    /// Polylines of more than two points.
    fn long_lines(figure: &Figure) -> usize {
        let document = roxmltree::Document::parse(&figure.svg).expect("well-formed XML");
        let points = document.descendants().filter_map(|node| node.attribute("points"));
        points.filter(|points| points.split_whitespace().count() > 2).count()
    }
}
