//! The part of a frame that a model's input shows, and the way back from the input to the frame's pixels.

use serde::{Deserialize, Serialize};

use super::crop::Square;
use super::turn::Turn;

/// The rectangle of a frame that was brought to a model's input: the square around the head where the transform crops, else
/// the frame, padded to a square where it had to be. It may reach beyond the frame. A frame that was turned upright before that
/// is turned back on the way out: boxes and maps are of the frame as it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The upright frame's size, in pixels.
    rows: u32,
    columns: u32,
    /// The rectangle's first row and column, in the upright frame's pixels; negative above the frame and to the left of it.
    top: i64,
    left: i64,
    height: u32,
    width: u32,
    /// What brought the frame upright.
    turn: Turn,
}

/// A part of a model's input: shares of its height and width, from 0 at the upper left corner to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Region {
    pub top: f64,
    pub left: f64,
    pub bottom: f64,
    pub right: f64,
}

/// A rectangle of whole pixels in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PixelBox {
    /// Its first column, from 0 at the left.
    pub left: u32,
    /// Its first row, from 0 at the top.
    pub top: u32,
    /// Columns, at least 1.
    pub width: u32,
    /// Rows, at least 1.
    pub height: u32,
}

impl Placement {
    /// An upright frame as it is.
    pub(crate) fn whole(rows: u32, columns: u32, turn: Turn) -> Placement {
        Placement { rows, columns, top: 0, left: 0, height: rows, width: columns, turn }
    }

    /// The frame, centered in the square that it is padded to.
    pub(crate) fn padded(rows: u32, columns: u32, turn: Turn) -> Placement {
        let side = rows.max(columns);
        let before = |edge: u32| -i64::from((side - edge) / 2);
        Placement { rows, columns, top: before(rows), left: before(columns), height: side, width: side, turn }
    }

    /// A square of the frame.
    pub(crate) fn cropped(rows: u32, columns: u32, square: Square, turn: Turn) -> Placement {
        let Square { top, left, side } = square;
        Placement { rows, columns, top, left, height: side, width: side, turn }
    }

    /// The frame's rows and columns, as it was sent.
    pub fn frame_size(&self) -> (u32, u32) {
        self.turn.back().size(self.rows, self.columns)
    }

    /// Values on a grid over the input, row by row, and its rows and columns, as they lie in the frame as it was sent.
    pub fn turned_back<T: Copy>(&self, grid: Vec<T>, rows: u32, columns: u32) -> (Vec<T>, u32, u32) {
        let back = self.turn.back();
        let size = back.size(rows, columns);
        (back.turned(grid, rows, columns), size.0, size.1)
    }

    /// The part of the frame that the whole input shows, in the frame's pixels: left, top, width and height. It may reach beyond it.
    pub fn covers(&self) -> [i64; 4] {
        let covers = [self.left, self.top, i64::from(self.width), i64::from(self.height)];
        self.turn.back().rectangle(covers, self.rows, self.columns)
    }

    /// The pixels of the frame that a region of the input shows: each that it touches. None where it lies beyond the frame.
    pub fn to_frame(&self, region: Region) -> Option<PixelBox> {
        // The edges as whole pixels, within the frame. A share is of at most 2³² pixels, so nothing is lost in an f64; NaN is 0.
        let span = |begin: f64, end: f64, first: i64, extent: u32, edge: u32| {
            let place = |share: f64| first as f64 + share.clamp(0.0, 1.0) * f64::from(extent);
            let begin = place(begin).floor().clamp(0.0, f64::from(edge)) as u32;
            let end = place(end).ceil().clamp(0.0, f64::from(edge)) as u32;
            (end > begin).then(|| (begin, end - begin))
        };
        let (top, height) = span(region.top, region.bottom, self.top, self.height, self.rows)?;
        let (left, width) = span(region.left, region.right, self.left, self.width, self.columns)?;
        let upright = [left, top, width, height].map(i64::from);
        let edges = self.turn.back().rectangle(upright, self.rows, self.columns);
        let [left, top, width, height] =
            edges.map(|edge| u32::try_from(edge).expect("a box within a frame stays within it"));
        Some(PixelBox { left, top, width, height })
    }
}

impl PixelBox {
    /// Whether it holds a pixel, by row and column from 0.
    pub fn holds(&self, row: u32, column: u32) -> bool {
        (self.top..self.top.saturating_add(self.height)).contains(&row)
            && (self.left..self.left.saturating_add(self.width)).contains(&column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Region = Region { top: 0.0, left: 0.0, bottom: 1.0, right: 1.0 };
    const LOWER_RIGHT: Region = Region { top: 0.5, left: 0.5, bottom: 1.0, right: 1.0 };

    #[test]
    fn a_region_of_the_input_is_found_in_the_frame() {
        let whole = Placement::whole(100, 200, Turn::default());
        assert_eq!(whole.to_frame(ALL), Some(PixelBox { left: 0, top: 0, width: 200, height: 100 }));
        assert_eq!(whole.to_frame(LOWER_RIGHT), Some(PixelBox { left: 100, top: 50, width: 100, height: 50 }));
        // 50 rows of air above and below: the lower half of the square begins in the middle of the frame.
        let padded = Placement::padded(100, 200, Turn::default());
        assert_eq!(padded.to_frame(LOWER_RIGHT), Some(PixelBox { left: 100, top: 50, width: 100, height: 50 }));
        let air = Region { top: 0.0, left: 0.0, bottom: 0.25, right: 1.0 };
        assert_eq!(padded.to_frame(air), None);
        let square = Square { top: -20, left: 30, side: 80 };
        let cropped = Placement::cropped(512, 512, square, Turn::default());
        assert_eq!(cropped.to_frame(ALL), Some(PixelBox { left: 30, top: 0, width: 80, height: 60 }));
        assert_eq!(cropped.to_frame(LOWER_RIGHT), Some(PixelBox { left: 70, top: 20, width: 40, height: 40 }));
    }

    #[test]
    fn what_lies_in_a_turned_frame_is_found_where_it_was_sent() {
        // A frame of 100 rows and 200 columns whose rows run from the front to the back: upright it has 200 and 100.
        let turn = Turn::upright(&[0.0, 1.0, 0.0, -1.0, 0.0, 0.0]);
        let whole = Placement::whole(200, 100, turn);
        assert_eq!(whole.frame_size(), (100, 200));
        assert_eq!(whole.covers(), [0, 0, 200, 100]);
        // The back on the left: of the frame the right half, and there the upper one, for its columns run to the right.
        assert_eq!(whole.to_frame(LOWER_RIGHT), Some(PixelBox { left: 100, top: 0, width: 100, height: 50 }));
        let grid = vec![1, 2, 3, 4, 5, 6];
        assert_eq!(whole.turned_back(grid, 3, 2), (vec![2, 4, 6, 1, 3, 5], 2, 3));
        let padded = Placement::padded(200, 100, turn);
        assert_eq!(padded.covers(), [0, -50, 200, 200]);
        assert_eq!(padded.to_frame(LOWER_RIGHT), Some(PixelBox { left: 100, top: 0, width: 100, height: 50 }));
    }

    #[test]
    fn nonsense_is_within_the_frame_or_nowhere() {
        let placement = Placement::whole(64, 64, Turn::default());
        let nan = Region { top: f64::NAN, left: 0.0, bottom: f64::NAN, right: 1.0 };
        assert_eq!(placement.to_frame(nan), None);
        let far = Region { top: -5.0, left: -5.0, bottom: 9.0, right: 9.0 };
        assert_eq!(placement.to_frame(far), Some(PixelBox { left: 0, top: 0, width: 64, height: 64 }));
        let nothing = Region { top: 0.7, left: 0.2, bottom: 0.3, right: 0.1 };
        assert_eq!(placement.to_frame(nothing), None);
    }

    #[test]
    fn a_box_holds_its_pixels() {
        let of = PixelBox { left: 2, top: 3, width: 1, height: 2 };
        assert!(of.holds(3, 2) && of.holds(4, 2));
        assert!(!of.holds(5, 2) && !of.holds(3, 3) && !of.holds(2, 2));
    }
}
