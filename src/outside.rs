//! Text from outside, shown to people: names and identifiers that peers, providers and readers chose. It must not look like other text than it is, nor
//! command what shows it. The ledger, the JSON API and CSV keep the text itself.

use std::borrow::Cow;
use std::fmt::{self, Write};

use askama::filters::{self, Escaper};
use unicode_normalization::char::is_combining_mark;

/// Marks on one letter. Hebrew with all its points has four, Vietnamese two; more of them cover the lines above and below.
const MOST_MARKS: usize = 4;

/// The text as people may be shown it. What cannot be seen and yet changes what is read ([`is_unseen`]) becomes U+FFFD, one for one, and so does
/// what exceeds the fourth mark on a letter.
pub fn shown(text: &str) -> Cow<'_, str> {
    // Most text has neither.
    if text.is_ascii() && !text.bytes().any(|byte| byte.is_ascii_control()) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut marks = 0;
    let mut before = None;
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        marks = if is_combining_mark(c) { marks + 1 } else { 0 };
        if is_unseen(c) && !joins(before, c, rest.peek().copied()) {
            out.push(char::REPLACEMENT_CHARACTER);
        } else if marks <= MOST_MARKS {
            out.push(c);
        } else if marks == MOST_MARKS + 1 {
            out.push(char::REPLACEMENT_CHARACTER);
        }
        before = Some(c);
    }
    if out == text { Cow::Borrowed(text) } else { Cow::Owned(out) }
}

/// Whether a character is not seen itself and changes what is read or done: control characters (C0, DEL, C1), characters that reorder text
/// (bidirectional controls), line and paragraph separators, and characters without width.
pub fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c,
            // Soft hyphen, grapheme joiner, Arabic letter mark, fillers that look like nothing.
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180e}' | '\u{3164}' | '\u{ffa0}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            // Controls of musical notation and shorthand, and tags, which hide a whole text.
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e007f}')
}

/// Whether a joiner or non-joiner is a part of the spelling, as in Persian and in the scripts of India: it shows between two of their letters.
fn joins(before: Option<char>, c: char, after: Option<char>) -> bool {
    let is_of_them = |c: Option<char>| c.is_some_and(|c| matches!(c, '\u{620}'..='\u{6ff}' | '\u{900}'..='\u{dff}'));
    matches!(c, '\u{200c}' | '\u{200d}') && is_of_them(before) && is_of_them(after)
}

/// How pages escape each value (`askama.toml`), so that none can be forgotten: as HTML, and as [`shown`]. A line break does no harm there.
#[derive(Clone, Copy)]
pub struct Html;

impl Escaper for Html {
    fn write_escaped_str<W: Write>(&self, mut to: W, text: &str) -> fmt::Result {
        for (number, line) in text.split('\n').enumerate() {
            if number > 0 {
                to.write_char('\n')?;
            }
            filters::Html.write_escaped_str(&mut to, &shown(line))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reorders_hides_or_commands_is_seen() {
        assert_eq!(
            shown("A\x1b[31mB\u{9b}0m\x07\x7f\r\n\u{202e}x"),
            "A\u{fffd}[31mB\u{fffd}0m\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}x"
        );
        for hidden in [
            "\u{202e}",
            "\u{2066}",
            "\u{61c}",
            "\u{200b}",
            "\u{200d}",
            "\u{2060}",
            "\u{feff}",
            "\u{ad}",
            "\u{e0041}",
            "\u{2028}",
        ] {
            assert_eq!(shown(&format!("12{hidden}345")), "12\u{fffd}345", "{hidden:?}");
        }
    }

    #[test]
    fn a_page_escapes_and_shows() {
        let mut page = String::new();
        Html.write_escaped_str(&mut page, "<b>\u{202e}a\n&").unwrap();
        assert_eq!(page, "&#60;b&#62;\u{fffd}a\n&#38;");
    }

    #[test]
    fn marks_do_not_pile_up() {
        let piled = format!("Z{}O", "\u{301}".repeat(30));
        assert_eq!(shown(&piled), format!("Z{}\u{fffd}O", "\u{301}".repeat(MOST_MARKS)));
    }

    #[test]
    fn names_of_all_scripts_stay_as_they_are() {
        for name in [
            "Müller^Änne",
            "Mu\u{308}ller",
            "山田^太郎",
            "辻\u{e0100}",
            "כהן^דוד",
            "שׁ\u{5b8}\u{5bc}לוֹם",
            "محمد^عبد الله",
            "علی\u{200c}رضا",
            "Nguyễn",
            "श्री\u{200d}मती",
            "ཀརྨ་རྒྱལ་མཚན",
        ] {
            assert_eq!(shown(name), name, "{name:?}");
        }
    }
}
