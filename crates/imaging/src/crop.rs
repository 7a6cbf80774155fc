//! The place of the head in a frame: a square around it, so that a model sees the head at one size and in the middle,
//! whatever the field of view, the head's place in it, and what else lies there.
//!
//! The search is made of whole numbers after one comparison a pixel, so that any other implementation finds the same
//! square ([`HeadCrop::square`] gives the steps; `tests/peers/reference_input.py` is one).

use serde::{Deserialize, Serialize};

/// The search works on at most so many cells along the longer edge of the frame.
const CELLS: usize = 128;
/// How many times what was found is eroded by one cell, and grown again: what is thinner than twice that many cells (a
/// headrest, a tube) is no head.
const EROSIONS: usize = 2;
/// The largest component is a head if it has at least one of so many cells after the erosion.
const LEAST_SHARE: usize = 200;

/// How a card's transform crops to the head.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadCrop {
    /// Hounsfield units above which a pixel may belong to the head: above fat, water and foam, so that brain and bone
    /// count and a pad under the head does not; and above 0, so that images made from a brain window, which are 0
    /// outside the head, are cropped as a scanner's are.
    pub threshold: f32,
    /// Room left on each side of the head, as a share of its longer edge.
    pub margin: f64,
    /// The square's least edge, as a share of the frame's longer edge: how far a small section of the head, at the
    /// vertex, may be enlarged.
    pub smallest: f64,
}

/// A square of a frame, in pixels. It may reach beyond the frame, where there is air.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Square {
    /// The row of its first line; negative above the frame.
    pub top: i64,
    /// The column of its first place; negative to the left of the frame.
    pub left: i64,
    pub side: u32,
}

impl HeadCrop {
    /// Whether the numbers make sense: a finite threshold, a margin from 0 to 1, a smallest edge from 0 to 1.
    ///
    /// # Errors
    /// The fault, for the error of a card.
    pub fn check(&self) -> Result<(), String> {
        let HeadCrop { threshold, margin, smallest } = *self;
        let share = |value: f64| (0.0..=1.0).contains(&value);
        if threshold.is_finite() && share(margin) && share(smallest) {
            return Ok(());
        }
        Err(format!(
            "a crop_to_head of threshold {threshold}, margin {margin} and smallest {smallest}: margin and smallest are \
             shares from 0 to 1"
        ))
    }

    /// The square around the head in a frame of Hounsfield units, row by row. None where there is no head.
    ///
    /// 1. The frame is divided into square cells from its upper left corner, as small as gives at most 128 along its
    ///    longer edge; those at the right and lower border may be cut. A cell is filled when more than half of its pixels
    ///    are above the threshold.
    /// 2. Empty cells that no way over empty cells (up, down, left, right) joins to the border are filled.
    /// 3. Twice, cells that are at the border or beside an empty one (up, down, left, right) are emptied.
    /// 4. Of the components (up, down, left, right) the one with the most cells is taken, of equal ones the first row by
    ///    row. It is a head if it has at least a 200th of all cells.
    /// 5. Its bounding box grows by two cells on each side, within the frame. The square has the box's middle
    ///    (rounded down), and as its edge the box's longer one with the margin on both sides, rounded; at least the smallest,
    ///    at most the frame's longer edge.
    pub fn square(&self, hounsfield: &[f32], rows: u32, columns: u32) -> Option<Square> {
        let (rows, columns) = (rows as usize, columns as usize);
        let longer = rows.max(columns);
        if longer == 0 || hounsfield.len() != rows * columns {
            return None;
        }
        let cell = longer.div_ceil(CELLS);
        let mut grid = Grid::new(hounsfield, columns, cell, self.threshold);
        grid.fill_holes();
        for _ in 0..EROSIONS {
            grid.erode();
        }
        let [top, bottom, left, right] = grid.largest_component()?;
        // From cells to pixels; the last ones are not counted in.
        let begin = |first: usize| first.saturating_sub(EROSIONS) * cell;
        let end = |last: usize, edge: usize| ((last + 1 + EROSIONS) * cell).min(edge);
        let (top, bottom) = (begin(top), end(bottom, rows));
        let (left, right) = (begin(left), end(right, columns));
        let head = (bottom - top).max(right - left) as f64;
        let rounded = |value: f64| (value + 0.5).floor() as usize;
        let side = rounded(head * (1.0 + 2.0 * self.margin)).max(rounded(self.smallest * longer as f64));
        let side = side.clamp(1, longer);
        let first = |begin: usize, end: usize| (begin as i64 + end as i64 - side as i64).div_euclid(2);
        Some(Square { top: first(top, bottom), left: first(left, right), side: side as u32 })
    }
}

impl Square {
    /// The square's part of an image of `columns`, row by row, and `outside` where it reaches beyond.
    pub fn of<T: Copy>(&self, image: &[T], columns: u32, outside: T) -> Vec<T> {
        let (side, columns) = (i64::from(self.side), i64::from(columns));
        let rows = image.len() as i64 / columns.max(1);
        let mut cut = Vec::with_capacity((side * side) as usize);
        for row in self.top..self.top + side {
            for column in self.left..self.left + side {
                let inside = (0..rows).contains(&row) && (0..columns).contains(&column);
                cut.push(if inside { image[(row * columns + column) as usize] } else { outside });
            }
        }
        cut
    }
}

/// Cells, row by row: whether each is filled.
struct Grid {
    rows: usize,
    columns: usize,
    filled: Vec<bool>,
}

impl Grid {
    /// The square in an image whose row has `width` pixels.
    fn new(image: &[f32], width: usize, cell: usize, threshold: f32) -> Self {
        let height = image.len() / width;
        let (rows, columns) = (height.div_ceil(cell), width.div_ceil(cell));
        let mut above = vec![0usize; rows * columns];
        for (y, line) in image.chunks_exact(width).enumerate() {
            for (pixels, count) in line.chunks(cell).zip(&mut above[y / cell * columns..]) {
                *count += pixels.iter().filter(|&&pixel| pixel > threshold).count();
            }
        }
        let pixels = |place: usize, edge: usize| ((place + 1) * cell).min(edge) - place * cell;
        let filled = above
            .iter()
            .enumerate()
            .map(|(place, &above)| 2 * above > pixels(place / columns, height) * pixels(place % columns, width));
        Self { rows, columns, filled: filled.collect() }
    }

    /// The cells above, below, to the left and to the right that there are.
    fn neighbours(&self, place: usize) -> impl Iterator<Item = usize> + use<> {
        let (rows, columns) = (self.rows, self.columns);
        let (row, column) = (place / columns, place % columns);
        [
            (row > 0).then(|| place - columns),
            (row + 1 < rows).then(|| place + columns),
            (column > 0).then(|| place - 1),
            (column + 1 < columns).then(|| place + 1),
        ]
        .into_iter()
        .flatten()
    }

    fn is_at_border(&self, place: usize) -> bool {
        self.neighbours(place).count() < 4
    }

    /// The cells that a way over cells like `start` joins to it; they are noted in `seen`.
    fn joined(&self, start: usize, seen: &mut [bool]) -> Vec<usize> {
        let mut found = vec![start];
        seen[start] = true;
        let mut next = 0;
        while let Some(&place) = found.get(next) {
            next += 1;
            for neighbour in self.neighbours(place) {
                if self.filled[neighbour] == self.filled[start] && !seen[neighbour] {
                    seen[neighbour] = true;
                    found.push(neighbour);
                }
            }
        }
        found
    }

    fn fill_holes(&mut self) {
        let mut outside = vec![false; self.filled.len()];
        for place in 0..self.filled.len() {
            if self.is_at_border(place) && !self.filled[place] && !outside[place] {
                self.joined(place, &mut outside);
            }
        }
        for (filled, outside) in self.filled.iter_mut().zip(outside) {
            *filled = !outside;
        }
    }

    fn erode(&mut self) {
        let inner = |place: &usize| {
            self.filled[*place] && !self.is_at_border(*place) && self.neighbours(*place).all(|near| self.filled[near])
        };
        let kept: Vec<usize> = (0..self.filled.len()).filter(inner).collect();
        self.filled.fill(false);
        kept.into_iter().for_each(|place| self.filled[place] = true);
    }

    /// The first and last row, and the first and last column, of the largest component. None where it is too small.
    fn largest_component(&self) -> Option<[usize; 4]> {
        let mut seen = vec![false; self.filled.len()];
        let mut largest: Vec<usize> = Vec::new();
        for place in 0..self.filled.len() {
            if self.filled[place] && !seen[place] {
                let component = self.joined(place, &mut seen);
                if component.len() > largest.len() {
                    largest = component;
                }
            }
        }
        if largest.is_empty() || largest.len() * LEAST_SHARE < self.filled.len() {
            return None;
        }
        let rows = largest.iter().map(|place| place / self.columns);
        let columns = largest.iter().map(|place| place % self.columns);
        let both = "a component has cells";
        Some([
            rows.clone().min().expect(both),
            rows.max().expect(both),
            columns.clone().min().expect(both),
            columns.max().expect(both),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CROP: HeadCrop = HeadCrop { threshold: 10.0, margin: 0.05, smallest: 0.5 };

    /// A frame of air with what `inside` says at each pixel (row, column).
    fn frame(rows: u32, columns: u32, inside: impl Fn(f32, f32) -> Option<f32>) -> Vec<f32> {
        let at = |i: u32| inside((i / columns) as f32, (i % columns) as f32).unwrap_or(-1000.0);
        (0..rows * columns).map(at).collect()
    }

    /// A skull around brain, `radius` pixels from the middle.
    fn head(row: f32, column: f32, (y, x): (f32, f32), radius: f32) -> Option<f32> {
        let distance = ((row - y).powi(2) + (column - x).powi(2)).sqrt();
        match distance {
            d if d < radius - 12.0 => Some(30.0),
            d if d < radius => Some(900.0),
            _ => None,
        }
    }

    /// The square's middle and edge.
    fn middle(square: Square) -> (f32, f32, f32) {
        let half = square.side as f32 / 2.0;
        (square.top as f32 + half, square.left as f32 + half, square.side as f32)
    }

    fn is_near(square: Option<Square>, (y, x, side): (f32, f32, f32)) {
        let found = middle(square.expect("a head"));
        let near = |a: f32, b: f32| (a - b).abs() <= 8.0;
        assert!(near(found.0, y) && near(found.1, x) && near(found.2, side), "{found:?} and not {:?}", (y, x, side));
    }

    #[test]
    fn the_head_is_found_wherever_it_lies() {
        for (y, x) in [(256.0, 256.0), (190.0, 300.0), (330.0, 180.0)] {
            let image = frame(512, 512, |row, column| head(row, column, (y, x), 150.0));
            is_near(CROP.square(&image, 512, 512), (y, x, 330.0));
        }
    }

    #[test]
    fn what_is_beside_the_head_does_not_move_the_square() {
        let plain = frame(512, 512, |row, column| head(row, column, (230.0, 256.0), 150.0));
        let plain = CROP.square(&plain, 512, 512);
        let with = |what: &dyn Fn(f32, f32) -> Option<f32>| {
            let image =
                frame(512, 512, |row, column| head(row, column, (230.0, 256.0), 150.0).or_else(|| what(row, column)));
            CROP.square(&image, 512, 512)
        };
        // A headrest of 12 pixels, dense as plastic. Apart from the head it counts for nothing; one that lies on bare bone is
        // joined to it, and moves the square by no more than its thickness.
        for (gap, most) in [(20.0, 0.0), (0.0, 16.0)] {
            let distance = |row: f32, column: f32| ((row - 230.0).powi(2) + (column - 256.0).powi(2)).sqrt();
            let headrest = move |row: f32, column: f32| {
                let d = distance(row, column) - 150.0 - gap;
                (row > 300.0 && (0.0..12.0).contains(&d)).then_some(120.0)
            };
            let (found, plain) = (middle(with(&headrest).expect("a head")), middle(plain.expect("a head")));
            for (found, plain) in [(found.0, plain.0), (found.1, plain.1), (found.2, plain.2)] {
                assert!((found - plain).abs() <= most, "{found} for {plain}, {gap} pixels from the head");
            }
        }
        // Bandages are mostly air, pads are foam; a tube is thin and a tooth small.
        is_near(with(&|row, _| (row > 380.0).then_some(-150.0)), middle(plain.expect("a head")));
        let bandage = |row: f32, column: f32| head(row, column, (230.0, 256.0), 180.0).map(|_| -120.0);
        is_near(with(&bandage), middle(plain.expect("a head")));
        is_near(with(&|_, column| (column < 10.0).then_some(200.0)), middle(plain.expect("a head")));
        is_near(with(&|row, column| (row < 24.0 && column < 24.0).then_some(3000.0)), middle(plain.expect("a head")));
    }

    #[test]
    fn an_open_skull_and_wide_fluid_do_not_shrink_it() {
        // A gap in the bone, and fluid below the threshold between bone and brain.
        let image = frame(512, 512, |row, column| {
            let shape = head(row, column, (256.0, 256.0), 150.0)?;
            let distance = ((row - 256.0).powi(2) + (column - 256.0).powi(2)).sqrt();
            match distance {
                d if d > 138.0 && row < 130.0 => None,
                d if (118.0..138.0).contains(&d) && row > 256.0 => Some(4.0),
                _ => Some(shape),
            }
        });
        is_near(CROP.square(&image, 512, 512), (256.0, 256.0, 330.0));
    }

    #[test]
    fn a_head_that_is_cut_off_is_cropped_to_what_is_there() {
        let image = frame(512, 512, |row, column| head(row, column, (256.0, 40.0), 150.0));
        let square = CROP.square(&image, 512, 512).expect("a head");
        assert!(square.left < 0 && square.side >= 300, "{square:?}");
        // Larger than the field: all of the field.
        let image = frame(512, 512, |row, column| head(row, column, (256.0, 256.0), 400.0));
        assert_eq!(CROP.square(&image, 512, 512), Some(Square { top: 0, left: 0, side: 512 }));
    }

    #[test]
    fn a_slice_without_a_head_has_no_square() {
        let nothing = frame(512, 512, |_, _| None);
        assert_eq!(CROP.square(&nothing, 512, 512), None);
        let table = frame(512, 512, |row, _| (row > 500.0).then_some(200.0));
        assert_eq!(CROP.square(&table, 512, 512), None);
        let noise: Vec<f32> = (0..512 * 512).map(|i: u32| (i.wrapping_mul(2_654_435_761) % 41) as f32 - 30.0).collect();
        assert_eq!(CROP.square(&noise, 512, 512), None);
        assert_eq!(CROP.square(&[], 0, 0), None);
        assert_eq!(CROP.square(&[f32::NAN; 4096], 64, 64), None);
    }

    #[test]
    fn a_small_section_is_enlarged_only_so_far_and_other_sizes_work() {
        let vertex = frame(512, 512, |row, column| head(row, column, (200.0, 240.0), 50.0));
        is_near(CROP.square(&vertex, 512, 512), (200.0, 240.0, 256.0));
        for (rows, columns) in [(300u32, 500u32), (500, 300), (1024, 1024), (64, 64)] {
            let (y, x) = (rows as f32 / 2.0, columns as f32 / 2.0);
            let radius = rows.min(columns) as f32 * 0.4;
            let image = frame(rows, columns, |row, column| {
                let distance = ((row - y).powi(2) + (column - x).powi(2)).sqrt();
                (distance < radius).then_some(40.0)
            });
            is_near(CROP.square(&image, rows, columns), (y, x, (2.2 * radius).max(0.5 * rows.max(columns) as f32)));
        }
    }

    #[test]
    fn a_square_cuts_out_what_it_holds() {
        let image: Vec<i32> = (0..12).collect();
        let cut = Square { top: -1, left: 2, side: 3 }.of(&image, 4, -9);
        assert_eq!(cut, [-9, -9, -9, 2, 3, -9, 6, 7, -9]);
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(CROP.check().is_ok());
        assert!(HeadCrop { margin: -0.1, ..CROP }.check().is_err());
        assert!(HeadCrop { smallest: 1.5, ..CROP }.check().is_err());
        assert!(HeadCrop { threshold: f32::NAN, ..CROP }.check().is_err());
    }
}
