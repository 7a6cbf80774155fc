//! A grey picture of eight bits: a slice in a window, with lines of text above and below it.

use std::convert::Infallible;

use embedded_graphics::mono_font::MonoTextStyle;
use embedded_graphics::mono_font::ascii::FONT_10X20;
use embedded_graphics::pixelcolor::{Gray8, GrayColor};
use embedded_graphics::prelude::{
    DrawTarget, DrawTargetExt, Drawable, OriginDimensions, Pixel, Point, Primitive, Size,
};
use embedded_graphics::primitives::{PrimitiveStyle, Rectangle};
use embedded_graphics::text::{Baseline, Text};
use triaged_imaging::PixelBox;

use crate::decoding::HounsfieldFrame;

/// Width and height of a letter, in pixels.
const LETTER: (u32, u32) = (10, 20);

/// Around text, in pixels.
const MARGIN: u32 = 8;

/// Slices narrower than this are enlarged by a whole number: text and detail must be legible.
const NARROWEST: u32 = 512;

/// Lines above or below the slice at most; what is longer is cut with a sign.
const MOST_LINES: usize = 12;

/// Window centre and width for brain tissue, HU.
const BRAIN: (f32, f32) = (40.0, 80.0);

/// Row by row.
pub(super) struct Picture {
    pub rows: u32,
    pub columns: u32,
    pub pixels: Vec<u8>,
}

impl Picture {
    /// A slice in the brain window, with a frame around a part of it, between texts, each a list of lines that are broken where
    /// they are too long.
    pub fn of_slice(frame: &HounsfieldFrame, marked: Option<PixelBox>, above: &[String], below: &[String]) -> Picture {
        let scale = NARROWEST.div_ceil(frame.columns.max(1)).max(1);
        let columns = frame.columns * scale;
        let (above, below) = (broken(above, columns), broken(below, columns));
        let (top, bottom) = (height(above.len()), height(below.len()));
        let slice_rows = frame.rows * scale;
        let rows = top + slice_rows + bottom;
        let mut picture = Picture { rows, columns, pixels: vec![0; rows as usize * columns as usize] };
        for row in 0..slice_rows {
            let source = (row / scale) as usize * frame.columns as usize;
            let begin = (top + row) as usize * columns as usize;
            for column in 0..columns {
                let hu = frame.hounsfield[source + (column / scale) as usize];
                picture.pixels[begin + column as usize] = grey(hu);
            }
        }
        if let Some(marked) = marked {
            picture.mark(marked, scale, top, slice_rows);
        }
        picture.write(&above, 0);
        picture.write(&below, top + slice_rows);
        picture
    }

    /// Draws a frame around a part of the slice, outside of it: white, between black lines that tell it from bone. `top` is the
    /// slice's first row, and it has so many `rows`.
    fn mark(&mut self, part: PixelBox, scale: u32, top: u32, rows: u32) {
        let slice = Rectangle::new(Point::new(0, top as i32), Size::new(self.columns, rows));
        let corner = Point::new((part.left * scale) as i32, (top + part.top * scale) as i32);
        let part = Rectangle::new(corner, Size::new(part.width * scale, part.height * scale));
        for (distance, shade) in [(3, Gray8::BLACK), (2, Gray8::WHITE), (1, Gray8::BLACK)] {
            let line = part.offset(distance).into_styled(PrimitiveStyle::with_stroke(shade, 1));
            let Ok(()) = line.draw(&mut self.clipped(&slice));
        }
    }

    fn write(&mut self, lines: &[String], top: u32) {
        let style = MonoTextStyle::new(&FONT_10X20, Gray8::WHITE);
        for (number, line) in (0..).zip(lines) {
            let at = Point::new(MARGIN as i32, (top + MARGIN + number * LETTER.1) as i32);
            let drawn = Text::with_baseline(line, at, style, Baseline::Top).draw(self);
            let Ok(_) = drawn;
        }
    }
}

/// PS3.3 C.11.2.1.2.1, to eight bits.
fn grey(hu: f32) -> u8 {
    let (centre, width) = BRAIN;
    ((hu - (centre - 0.5)) / (width - 1.0) + 0.5).mul_add(255.0, 0.0).round().clamp(0.0, 255.0) as u8
}

fn height(lines: usize) -> u32 {
    if lines == 0 { 0 } else { lines as u32 * LETTER.1 + 2 * MARGIN }
}

/// Breaks lines at spaces so that they fit.
fn broken(lines: &[String], columns: u32) -> Vec<String> {
    let most = (columns.saturating_sub(2 * MARGIN) / LETTER.0).max(1) as usize;
    let mut broken: Vec<String> = Vec::new();
    for line in lines {
        let mut row = String::new();
        for word in line.split_whitespace() {
            let mut word = word;
            if !row.is_empty() && row.len() + 1 + word.len() > most {
                broken.push(std::mem::take(&mut row));
            }
            // A word longer than a line goes over several.
            while word.len() > most {
                let (head, tail) = word.split_at(most);
                broken.push(head.to_owned());
                word = tail;
            }
            if !row.is_empty() {
                row.push(' ');
            }
            row.push_str(word);
        }
        if !row.is_empty() {
            broken.push(row);
        }
    }
    if broken.len() > MOST_LINES {
        broken.truncate(MOST_LINES);
        if let Some(last) = broken.last_mut() {
            last.truncate(most.saturating_sub(4));
            last.push_str(" ...");
        }
    }
    broken
}

impl OriginDimensions for Picture {
    fn size(&self) -> Size {
        Size::new(self.columns, self.rows)
    }
}

impl DrawTarget for Picture {
    type Color = Gray8;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Gray8>>>(&mut self, pixels: I) -> Result<(), Infallible> {
        for Pixel(Point { x, y }, colour) in pixels {
            let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) else { continue };
            if x < self.columns && y < self.rows {
                self.pixels[y as usize * self.columns as usize + x as usize] = colour.luma();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(rows: u32, columns: u32) -> HounsfieldFrame {
        HounsfieldFrame { rows, columns, hounsfield: vec![40.0; (rows * columns) as usize] }
    }

    #[test]
    fn the_window_maps_its_ends_to_black_and_white() {
        assert_eq!((grey(-1024.0), grey(0.0), grey(79.0), grey(3000.0)), (0, 0, 255, 255));
        assert!((127..=129).contains(&grey(39.5)));
    }

    #[test]
    fn text_stands_beside_the_slice_and_never_on_it() {
        let text = ["FLAGGED: suspected intracranial hemorrhage".to_owned()];
        let picture = Picture::of_slice(&frame(512, 512), None, &text, &text);
        assert_eq!((picture.columns, picture.rows), (512, 512 + 2 * 36));
        let rows: Vec<&[u8]> = picture.pixels.chunks(512).collect();
        assert!(rows[..36].iter().flat_map(|row| *row).any(|&grey| grey == 255), "letters above");
        assert!(rows[36..36 + 512].iter().flat_map(|row| *row).all(|&value| value == grey(40.0)));
        assert!(rows[548..].iter().flat_map(|row| *row).any(|&grey| grey == 255), "letters below");
    }

    #[test]
    fn a_frame_goes_around_its_part_and_stays_on_the_slice() {
        let text = ["text".to_owned()];
        let part = PixelBox { left: 100, top: 0, width: 50, height: 30 };
        let picture = Picture::of_slice(&frame(512, 512), Some(part), &text, &text);
        let at = |row: usize, column: usize| picture.pixels[(36 + row) * 512 + column];
        let inside: Vec<u8> =
            (0..30).flat_map(|row| (100..150).map(move |column| (row, column))).map(|(r, c)| at(r, c)).collect();
        assert!(inside.iter().all(|&value| value == grey(40.0)), "nothing is drawn over the part");
        assert_eq!([96, 97, 98, 99].map(|column| at(10, column)), [grey(40.0), 0, 255, 0]);
        assert_eq!([150, 151, 152, 153].map(|column| at(10, column)), [0, 255, 0, grey(40.0)]);
        assert_eq!([30, 31, 32, 33].map(|row| at(row, 120)), [0, 255, 0, grey(40.0)]);
        let without = Picture::of_slice(&frame(512, 512), None, &text, &text);
        assert!(picture.pixels[..36 * 512] == without.pixels[..36 * 512], "nothing is drawn over the text");
        let all = PixelBox { left: 0, top: 0, width: 512, height: 512 };
        assert_eq!(Picture::of_slice(&frame(512, 512), Some(all), &text, &text).pixels, without.pixels);
    }

    #[test]
    fn small_slices_are_enlarged_and_long_texts_broken_or_cut() {
        let picture = Picture::of_slice(&frame(3, 5), None, &[], &[]);
        assert_eq!((picture.columns, picture.rows), (515, 309));
        let lines = broken(&["a ".repeat(400), "b".repeat(2000)], 512);
        assert_eq!(lines.len(), MOST_LINES);
        assert!(lines.iter().all(|line| line.len() <= 49) && lines.last().unwrap().ends_with(" ..."), "{lines:?}");
        assert!(broken(&[], 512).is_empty());
    }
}
