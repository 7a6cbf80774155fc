//! A network's coarse map of the finding, and the box around its maximum.

use triaged_imaging::{PixelBox, Placement, Region};

/// Positions along an edge at most: more would be a segmentation, not a coarse map.
pub const MAX_HEAT_MAP_SIDE: usize = 256;

/// The probability of the finding at each position of a grid that covers the network's input image evenly.
#[derive(Debug, Clone, PartialEq)]
pub struct HeatMap {
    rows: usize,
    columns: usize,
    /// Row by row, each 0 to 1.
    values: Vec<f32>,
}

impl HeatMap {
    /// A map of `rows` by `columns` positions, row by row. None where the values are another number of positions, or one of them
    /// is not between 0 and 1.
    pub fn new(rows: usize, columns: usize, values: Vec<f32>) -> Option<HeatMap> {
        let sides = 1..=MAX_HEAT_MAP_SIDE;
        let is_map = sides.contains(&rows)
            && sides.contains(&columns)
            && values.len() == rows * columns
            && values.iter().all(|value| (0.0..=1.0).contains(value));
        is_map.then_some(HeatMap { rows, columns, values })
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Row by row, each 0 to 1.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Each value as a byte, 255 for 1: as it is stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.values.iter().map(|value| (value * 255.0).round() as u8).collect()
    }

    /// The part of the input that holds the maximum, of equal ones the first row by row, and the positions with at least half of
    /// it that other such positions (also at a corner) join to it. None where the map is 0 everywhere.
    pub fn region(&self) -> Option<Region> {
        let highest = self.values.iter().copied().fold(0.0_f32, f32::max);
        let start = self.values.iter().position(|value| *value == highest && highest > 0.0)?;
        let mut seen = vec![false; self.values.len()];
        seen[start] = true;
        let mut front = vec![start];
        let (mut top, mut bottom) = (start / self.columns, start / self.columns);
        let (mut left, mut right) = (start % self.columns, start % self.columns);
        while let Some(place) = front.pop() {
            let (row, column) = (place / self.columns, place % self.columns);
            (top, bottom, left, right) = (top.min(row), bottom.max(row), left.min(column), right.max(column));
            for near_row in row.saturating_sub(1)..=(row + 1).min(self.rows - 1) {
                for near_column in column.saturating_sub(1)..=(column + 1).min(self.columns - 1) {
                    let near = near_row * self.columns + near_column;
                    if !seen[near] && self.values[near] >= highest / 2.0 {
                        seen[near] = true;
                        front.push(near);
                    }
                }
            }
        }
        let share = |place: usize, edge: usize| place as f64 / edge as f64;
        Some(Region {
            top: share(top, self.rows),
            left: share(left, self.columns),
            bottom: share(bottom + 1, self.rows),
            right: share(right + 1, self.columns),
        })
    }

    /// The [region](Self::region) in the pixels of the frame that the network's input was made of. None where the map is 0
    /// everywhere, or its maximum lies beyond the frame.
    pub fn locate(&self, placement: &Placement) -> Option<PixelBox> {
        placement.to_frame(self.region()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_is_what_is_joined_to_the_maximum_at_half_of_it() {
        #[rustfmt::skip]
        let values = vec![
            0.0, 0.1, 0.0, 0.0,
            0.1, 0.8, 0.3, 0.0,
            0.0, 0.3, 0.4, 0.0,
            0.7, 0.0, 0.0, 0.5,
        ];
        let map = HeatMap::new(4, 4, values).expect("a map");
        // 0.8, 0.4 at its corner, and 0.5 at that one's; 0.7 stands apart.
        let region = map.region().expect("a region");
        assert_eq!(region, Region { top: 0.25, left: 0.25, bottom: 1.0, right: 1.0 });
        assert_eq!(map.to_bytes()[5], 204);
    }

    #[test]
    fn a_map_of_one_value_is_everywhere_and_one_of_zeros_nowhere() {
        let even = HeatMap::new(2, 3, vec![0.25; 6]).expect("a map");
        assert_eq!(even.region(), Some(Region { top: 0.0, left: 0.0, bottom: 1.0, right: 1.0 }));
        assert_eq!(HeatMap::new(2, 3, vec![0.0; 6]).expect("a map").region(), None);
    }

    #[test]
    fn what_is_no_map_is_refused() {
        assert_eq!(HeatMap::new(2, 2, vec![0.0; 3]), None);
        assert_eq!(HeatMap::new(0, 0, vec![]), None);
        for wrong in [f32::NAN, -0.1, 1.5, f32::INFINITY] {
            assert_eq!(HeatMap::new(1, 2, vec![0.0, wrong]), None, "{wrong}");
        }
    }
}
