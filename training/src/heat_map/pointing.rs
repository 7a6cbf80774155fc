//! How often a heat map's box hits the blood that masks show.

use triaged_model::HeatMap;

/// Slices with a mask, and what their heat maps' boxes hold: the positions with at least half of the highest value that are joined
/// to it, as the node draws them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pointing {
    pub slices: usize,
    /// Slices that the model finds positive; all that follows is of those.
    pub positive: usize,
    /// The box holds some of the blood.
    pub hits: usize,
    /// The box holds the middle of the blood's own box.
    pub middles: usize,
    /// The sum of the blood's shares that the boxes hold, and of the boxes' shares of the image.
    held: f64,
    area: f64,
}

impl Pointing {
    /// Counts a slice: its map of `[rows, columns]`, and its mask at the size of the model's input, rows of `width` pixels.
    pub fn count(&mut self, is_positive: bool, map: &[f32], [rows, columns]: [usize; 2], mask: &[f32], width: usize) {
        self.slices += 1;
        if !is_positive {
            return;
        }
        self.positive += 1;
        let Some(region) = HeatMap::new(rows, columns, map.to_vec()).and_then(|map| map.region()) else { return };
        let height = mask.len() / width.max(1);
        let share = |place: usize, edge: usize| (place as f64 + 0.5) / edge as f64;
        let holds =
            |y: f64, x: f64| (region.top..region.bottom).contains(&y) && (region.left..region.right).contains(&x);
        let blood: Vec<[f64; 2]> = (0..mask.len())
            .filter(|&i| mask[i] > 0.5)
            .map(|i| [share(i / width, height), share(i % width, width)])
            .collect();
        let held = blood.iter().filter(|[y, x]| holds(*y, *x)).count();
        let ends = |axis: usize| {
            let along = blood.iter().map(|place| place[axis]);
            along.clone().fold(f64::INFINITY, f64::min) / 2.0 + along.fold(f64::NEG_INFINITY, f64::max) / 2.0
        };
        self.hits += usize::from(held > 0);
        self.middles += usize::from(holds(ends(0), ends(1)));
        self.held += held as f64 / blood.len().max(1) as f64;
        self.area += (region.bottom - region.top) * (region.right - region.left);
    }

    /// For people.
    pub fn text(&self) -> String {
        let share = |count: f64| 100.0 * count / self.positive.max(1) as f64;
        format!(
            "{} slices with a mask, {} found positive. Of those, the heat map's box hits the blood in {:.0} %, holds its middle in {:.0} %, \
             and holds {:.0} % of its pixels in the mean; it takes {:.0} % of the input.",
            self.slices,
            self.positive,
            share(self.hits as f64),
            share(self.middles as f64),
            share(self.held),
            share(self.area),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_hits_what_lies_in_it() {
        // 8×8 with blood in the upper left 3×3; maps of 2×2.
        let mask: Vec<f32> = (0..64).map(|i| f32::from(u8::from(i / 8 < 3 && i % 8 < 3))).collect();
        let mut pointing = Pointing::default();
        pointing.count(true, &[0.9, 0.1, 0.2, 0.0], [2, 2], &mask, 8);
        pointing.count(true, &[0.1, 0.9, 0.2, 0.0], [2, 2], &mask, 8);
        pointing.count(true, &[0.0; 4], [2, 2], &mask, 8);
        pointing.count(false, &[0.9, 0.1, 0.2, 0.0], [2, 2], &mask, 8);
        assert_eq!((pointing.slices, pointing.positive, pointing.hits, pointing.middles), (4, 3, 1, 1));
        assert!((pointing.held - 1.0).abs() < 1e-9 && (pointing.area - 0.5).abs() < 1e-9, "{pointing:?}");
    }
}
