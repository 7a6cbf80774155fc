//! Lines for the terminal. A reader that has seen enough, as in `triaged-training … | head`, must not end a training: what
//! cannot be written is left out.

use std::fmt::Arguments;
use std::io::Write;

/// Writes a line to standard output or standard error.
pub fn line(mut to: impl Write, text: Arguments) {
    // Nobody is left to be told.
    let _ = to.write_fmt(text).and_then(|()| to.write_all(b"\n")).and_then(|()| to.flush());
}

/// Writes text without a line break, likewise.
pub fn text(mut to: impl Write, text: Arguments) {
    let _ = to.write_fmt(text).and_then(|()| to.flush());
}
