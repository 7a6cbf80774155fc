//! The slices of a study as bars: probability from left (0) to right (1), the threshold as a mark.

use triaged::ledger::SliceRow;

use super::terminal::{Screen, text_or_dash};

/// Bars shorter than this tell nothing, longer ones no more.
const BAR: std::ops::RangeInclusive<usize> = 16..=64;

/// The left eighths of a cell, one to seven.
const EIGHTHS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/// One line a slice, grouped by series, in order of instance number and frame. `slices` are ordered by series already.
pub fn chart(slices: &[SliceRow], threshold: Option<f64>, screen: Screen) -> String {
    let labels: Vec<String> = slices.iter().map(label).collect();
    let widest = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0);
    // "  label  bar  0.123 positive"
    let bar = screen.width.saturating_sub(widest + 22).clamp(*BAR.start(), *BAR.end());
    let mut out = String::new();
    let mut series = None;
    for (slice, label) in slices.iter().zip(&labels) {
        if series != Some(&slice.series_uid) {
            series = Some(&slice.series_uid);
            out.push_str(&format!("series {}\n", text_or_dash(Some(&slice.series_uid))));
        }
        let line = match slice.probability.filter(|_| slice.state == "scored") {
            Some(probability) => {
                let drawn = draw(probability, threshold, bar);
                let positive = slice.positive == Some(true);
                let number = format!("{probability:.3}{}", if positive { " positive" } else { "" });
                if positive {
                    format!("{}  {}", screen.alarm(&drawn), screen.alarm(&number))
                } else {
                    format!("{drawn}  {number}")
                }
            }
            None => {
                let reason =
                    slice.reason.as_deref().map(|r| format!(": {}", text_or_dash(Some(r)))).unwrap_or_default();
                screen.faint(&format!("{}{reason}", slice.state))
            }
        };
        out.push_str(&format!("  {label:>widest$}  {line}\n"));
    }
    out
}

/// Instance number, and the frame where there are several.
fn label(slice: &SliceRow) -> String {
    let number = slice.instance_number.map_or_else(|| "?".into(), |n| n.to_string());
    if slice.frame > 1 { format!("{number}.{}", slice.frame) } else { number }
}

fn draw(probability: f64, threshold: Option<f64>, width: usize) -> String {
    let eighths = (probability.clamp(0.0, 1.0) * (width * 8) as f64).round() as usize;
    let mark = threshold.map(|t| ((t.clamp(0.0, 1.0) * width as f64) as usize).min(width - 1));
    (0..width)
        .map(|cell| {
            if Some(cell) == mark {
                return if eighths > cell * 8 { '┃' } else { '┊' };
            }
            match eighths.saturating_sub(cell * 8) {
                0 => {
                    if mark.is_some_and(|mark| cell > mark) || cell == width - 1 {
                        ' '
                    } else {
                        '·'
                    }
                }
                n @ 1..=7 => EIGHTHS[n - 1],
                _ => '█',
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(number: i64, state: &str, probability: Option<f64>, reason: Option<&str>) -> SliceRow {
        SliceRow {
            study_uid: "1.2".into(),
            series_uid: "1.2.3".into(),
            sop_uid: format!("1.2.3.{number}"),
            frame: 1,
            instance_number: Some(number),
            state: state.into(),
            reason: reason.map(Into::into),
            probability,
            positive: probability.map(|p| p >= 0.5),
            model: None,
            model_sha256: None,
            provider: None,
            received_at: String::new(),
            scored_at: None,
            position: None,
            thickness: None,
            doubts: None,
            calling_ae: "CT".into(),
            box_left: None,
            box_top: None,
            box_width: None,
            box_height: None,
            slice_rows: None,
            slice_columns: None,
        }
    }

    #[test]
    fn bars_grow_with_the_probability_and_show_the_threshold() {
        assert_eq!(draw(0.0, Some(0.5), 8), "····┊   ");
        assert_eq!(draw(0.25, Some(0.5), 8), "██··┊   ");
        assert_eq!(draw(1.0, Some(0.5), 8), "████┃███");
        assert_eq!(draw(0.5625, None, 8), "████▌·· ");
        assert_eq!(draw(f64::NAN, Some(1.0), 8).chars().count(), 8);
        for thousandth in 0..=1000 {
            assert_eq!(draw(f64::from(thousandth) / 1000.0, Some(0.3), 16).chars().count(), 16);
        }
    }

    #[test]
    fn what_was_not_scored_says_why_and_cannot_command_the_terminal() {
        let slices = [
            slice(1, "scored", Some(0.75), None),
            slice(2, "ineligible", None, Some("image type is LOCALIZER\x1b[2J")),
            slice(10, "queued", None, None),
        ];
        let text = chart(&slices, Some(0.5), Screen::plain(60));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "series 1.2.3");
        assert!(lines[1].starts_with("   1  █") && lines[1].ends_with("0.750 positive"), "{}", lines[1]);
        assert_eq!(lines[2], "   2  ineligible: image type is LOCALIZER\u{fffd}[2J");
        assert_eq!(lines[3], "  10  queued");
        assert!(text.lines().all(|line| line.chars().count() <= 60));
    }
}
