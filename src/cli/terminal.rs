//! Text for a terminal: without the control characters that the network may send, colour only where it is wanted.

use std::borrow::Cow;
use std::io::IsTerminal;

use comfy_table::{Cell, ContentArrangement, Table};
use triaged::outside::is_unseen;
/// Text from outside as a terminal may show it.
pub use triaged::outside::shown as clean;

/// Widths of output off a terminal, where there is no width to ask for.
const WIDTH_OFF_TERMINAL: usize = 120;

/// JSON as it may be shown on a terminal: serde_json escapes C0, this also the rest of what [`clean`] replaces. Such
/// characters occur only within strings, so the text stays the same JSON.
pub fn clean_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c != '\n' && is_unseen(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// A CSV field as a spreadsheet may read it: text that it would take for a formula begins with an apostrophe.
pub fn clean_csv(text: &str) -> Cow<'_, str> {
    let text = match text.chars().any(is_unseen) {
        true => text.chars().map(|c| if is_unseen(c) { char::REPLACEMENT_CHARACTER } else { c }).collect(),
        false => Cow::Borrowed(text),
    };
    if text.trim_start().starts_with(['=', '+', '-', '@', '\t', '\r', char::REPLACEMENT_CHARACTER]) {
        Cow::Owned(format!("'{text}"))
    } else {
        text
    }
}

/// Standard output as text is laid out for it.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    pub is_terminal: bool,
    /// In columns.
    pub width: usize,
    colour: bool,
}

impl Screen {
    pub fn of_stdout() -> Screen {
        let is_terminal = std::io::stdout().is_terminal();
        let width = if is_terminal { Table::new().width().map_or(80, usize::from) } else { WIDTH_OFF_TERMINAL };
        // https://no-color.org
        let colour = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Screen { is_terminal, width, colour }
    }

    #[cfg(test)]
    pub fn plain(width: usize) -> Screen {
        Screen { is_terminal: false, width, colour: false }
    }

    #[cfg(test)]
    pub fn terminal(width: usize) -> Screen {
        Screen { is_terminal: true, width, colour: false }
    }

    pub fn alarm(self, text: &str) -> String {
        self.paint("1;31", text)
    }

    pub fn faint(self, text: &str) -> String {
        self.paint("2", text)
    }

    pub fn strong(self, text: &str) -> String {
        self.paint("1", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A table: drawn on a terminal, plain columns off it. Cells whose row is an alarm are bold and red.
    pub fn table(self, header: &[&str], rows: Vec<(bool, Vec<String>)>) -> String {
        if self.is_terminal { self.drawn(header, rows) } else { aligned(header, &rows) }
    }

    fn drawn(self, header: &[&str], rows: Vec<(bool, Vec<String>)>) -> String {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(self.width.try_into().unwrap_or(u16::MAX));
        table.set_header(header.iter().copied());
        for (alarm, row) in rows {
            table.add_row(row.into_iter().map(|text| {
                let cell = Cell::new(text);
                if alarm && self.colour {
                    cell.fg(comfy_table::Color::Red).add_attribute(comfy_table::Attribute::Bold)
                } else {
                    cell
                }
            }));
        }
        format!("{table}\n")
    }
}

/// Columns separated by two spaces, for pipes and files.
fn aligned(header: &[&str], rows: &[(bool, Vec<String>)]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|text| text.chars().count()).collect();
    for (_, row) in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for (cell, width) in cells.zip(&widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        line.truncate(line.trim_end().len());
        line.push('\n');
        line
    };
    let mut out = line(&mut header.iter().copied());
    for (_, row) in rows {
        out.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    out
}

/// A moment of the ledger (`2026-11-23T15:42:07.123Z`) as people read it, in UTC.
pub fn moment(t: &str) -> String {
    clean(&t.get(..19).unwrap_or(t).replace('T', " ")).into_owned()
}

/// A moment that may not have come yet.
pub fn moment_or_dash(t: Option<&str>) -> String {
    t.map_or_else(|| "-".into(), moment)
}

/// A value from the network that may be absent.
pub fn text_or_dash(text: Option<&str>) -> String {
    match text.map(str::trim) {
        None | Some("") => "-".into(),
        Some(text) => clean(text).into_owned(),
    }
}

/// A probability or score that may be absent.
pub fn number_or_dash(value: Option<f64>) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_stays_the_same_value() {
        let value = serde_json::json!({ "a": "x\u{1b}[2J\u{9b}0m\u{7f}\u{202e}\u{e0041}" });
        let shown = clean_json(&serde_json::to_string_pretty(&value).unwrap());
        assert!(!shown.chars().any(|c| c != '\n' && is_unseen(c)), "{shown:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }

    #[test]
    fn a_spreadsheet_sees_no_formula() {
        for text in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1"] {
            assert!(clean_csv(text).starts_with('\''), "{text:?}");
        }
        assert_eq!(clean_csv("ACC-1"), "ACC-1");
    }

    #[test]
    fn columns_line_up() {
        let rows = vec![(false, vec!["é".into(), "1".into()]), (false, vec!["long".into(), "2".into()])];
        assert_eq!(Screen::plain(80).table(&["a", "b"], rows), "a     b\né     1\nlong  2\n");
    }
}
