//! A sheet of synthetic slices in brain window, for people to judge whether they could be real.

use super::drawing::Drawing;
use super::plane::Plane;
use crate::report::sheet::{LINE, encode, write};

/// Edge of a tile in pixels, and tiles a row.
const EDGE: usize = 256;
const COLUMNS: usize = 8;
const GAP: usize = 6;
/// Most tiles a sheet.
pub const MOST: usize = 40;
const CAPTION: usize = 2 * LINE + 4;

/// A slice of a synthetic study, and what was drawn in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Tile {
    /// `EDGE` × `EDGE` gray values, row by row.
    pixels: Vec<u8>,
    lines: [String; 2],
}

impl Tile {
    /// The slice in which most was changed, of those with blood where there are some, and not the very largest of it: small is what is
    /// to be judged.
    pub(super) fn of(drawing: &Drawing, kinds: String, mimics: String) -> Self {
        let plates = &drawing.head.stack.plates;
        let blood = |at: usize| drawing.blood[at].values.iter().filter(|share| **share >= 0.4).count();
        let change = |at: usize| -> f32 {
            let both = drawing.images[at].values.iter().zip(&plates[at].image.values);
            both.map(|(new, old)| (new - old).abs().min(30.0)).sum()
        };
        let at = match (0..plates.len()).max_by_key(|&at| blood(at)).filter(|&at| blood(at) > 0) {
            Some(at) => at,
            None => (0..plates.len()).max_by(|&a, &b| change(a).total_cmp(&change(b))).unwrap_or(0),
        };
        let section = drawing.head.anatomy.sections[at].as_ref();
        let image = &drawing.images[at];
        let whole = ([image.rows as f32 / 2.0, image.columns as f32 / 2.0], image.rows.max(image.columns) as f32 / 2.0);
        let (middle, half) = section.map_or(whole, |section| {
            let height = (section.rows[1] - section.rows[0]) / 2.0;
            (section.middle, 1.22 * height.max(section.half_width))
        });
        Self { pixels: pixels(image, middle, half), lines: [kinds, format!("{at}: {mimics}")] }
    }
}

/// The square around a head in brain window (40, 80 HU).
fn pixels(image: &Plane, [row, column]: [f32; 2], half: f32) -> Vec<u8> {
    let place = |at: usize| (at as f32 + 0.5) / EDGE as f32 * 2.0 - 1.0;
    let places = (0..EDGE).flat_map(|y| (0..EDGE).map(move |x| (y, x)));
    places
        .map(|(y, x)| image.between(row + half * place(y), column + half * place(x)))
        .map(|value| (value / 80.0 * 255.0).round().clamp(0.0, 255.0) as u8)
        .collect()
}

/// Up to forty tiles as a PNG.
///
/// # Errors
/// An image that cannot be encoded, in words.
pub fn sheet(tiles: &[Tile]) -> Result<Vec<u8>, String> {
    let tiles = &tiles[..tiles.len().min(MOST)];
    let rows = tiles.len().div_ceil(COLUMNS).max(1);
    let (width, height) = (COLUMNS * (EDGE + GAP) + GAP, rows * (EDGE + CAPTION + GAP) + GAP);
    let mut canvas = vec![255; width * height];
    for (place, tile) in tiles.iter().enumerate() {
        let left = GAP + place % COLUMNS * (EDGE + GAP);
        let top = GAP + place / COLUMNS * (EDGE + CAPTION + GAP);
        for (row, line) in tile.pixels.chunks_exact(EDGE).enumerate() {
            canvas[(top + row) * width + left..][..EDGE].copy_from_slice(line);
        }
        for (number, text) in tile.lines.iter().enumerate() {
            write(&mut canvas, width, (left, top + EDGE + 2 + number * LINE), text, EDGE);
        }
    }
    encode("sheet", &canvas, (width, height)).map_err(|error| error.to_string())
}
