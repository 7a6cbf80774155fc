//! Seeded chance: numbers that repeat, and smooth noise in the head's space.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// A source of random numbers; the same seed gives the same ones.
pub struct Chance(StdRng);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// Evenly from `low` to `high`.
    pub fn range(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.0.random::<f32>()
    }

    /// From `low` to `high`, small ones more often: half of all lie in the lowest quarter.
    pub fn small(&mut self, low: f32, high: f32) -> f32 {
        let share = self.0.random::<f32>();
        low + (high - low) * share * share
    }

    pub fn is(&mut self, probability: f32) -> bool {
        self.0.random::<f32>() < probability
    }

    /// -1 or 1.
    pub fn side(&mut self) -> f32 {
        if self.is(0.5) { 1.0 } else { -1.0 }
    }

    pub fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.0.random_range(0..choices.len())]
    }

    /// A noise of so many millimeters from one hill to the next.
    pub fn noise(&mut self, pitch: f32) -> Noise {
        Noise { seed: self.0.random(), pitch }
    }
}

/// Smooth noise from -1 to 1 in space: random values on a lattice, interpolated.
#[derive(Debug, Clone, Copy)]
pub struct Noise {
    seed: u64,
    pitch: f32,
}

impl Noise {
    /// At a point in millimeters.
    pub fn at(&self, point: [f32; 3]) -> f32 {
        let cells = point.map(|along| along / self.pitch);
        let first = cells.map(f32::floor);
        let share: [f32; 3] = std::array::from_fn(|i| {
            let t = cells[i] - first[i];
            t * t * (3.0 - 2.0 * t)
        });
        let corner = |bits: usize| {
            let place: [i64; 3] = std::array::from_fn(|i| first[i] as i64 + (bits >> i & 1) as i64);
            let weight: f32 = (0..3).map(|i| if bits >> i & 1 == 1 { share[i] } else { 1.0 - share[i] }).product();
            weight * self.value(place)
        };
        (0..8).map(corner).sum()
    }

    fn value(&self, place: [i64; 3]) -> f32 {
        // SplitMix64's mixing (Steele, Lea, Flood 2014) of place and seed.
        let mut bits = place.iter().fold(self.seed, |bits, &along| {
            (bits ^ along as u64)
                .wrapping_add(0x9E37_79B9_7F4A_7C15)
                .wrapping_mul(0xBF58_476D_1CE4_E5B9)
                .rotate_left(29)
        });
        bits = (bits ^ bits >> 30).wrapping_mul(0x94D0_49BB_1331_11EB);
        (bits >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_repeats_is_smooth_and_fills_its_range() {
        let noise = Chance::new(3).noise(10.0);
        assert_eq!(noise.at([1.0, 2.0, 3.0]), Chance::new(3).noise(10.0).at([1.0, 2.0, 3.0]));
        let values: Vec<f32> =
            (0..4000).map(|i| noise.at([i as f32 * 0.7, i as f32 * 0.31, -(i as f32) * 0.9])).collect();
        assert!(values.iter().all(|value| (-1.0..=1.0).contains(value)));
        assert!(values.iter().any(|value| *value > 0.6) && values.iter().any(|value| *value < -0.6));
        let near = (0..1000).map(|i| {
            let at = i as f32 * 0.37;
            (noise.at([at, 5.0, 5.0]) - noise.at([at + 0.1, 5.0, 5.0])).abs()
        });
        assert!(near.fold(0.0, f32::max) < 0.05);
    }
}
