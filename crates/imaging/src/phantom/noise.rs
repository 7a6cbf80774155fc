//! Reproducible randomness: the same seed gives the same phantom on every machine and in every version of any crate.

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// Uniform in `[low, high)`.
    pub fn range(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * unit(self.next())
    }

    pub fn chance(&mut self, probability: f32) -> bool {
        self.range(0.0, 1.0) < probability
    }

    /// -1 or 1.
    pub fn side(&mut self) -> f32 {
        if self.chance(0.5) { 1.0 } else { -1.0 }
    }

    /// Standard normal, by the sum of twelve: tails beyond 6 are cut, which is as well for pixels.
    pub fn normal(&mut self) -> f32 {
        (0..6).map(|_| self.next()).map(|bits| unit(bits) + unit(bits << 32)).sum::<f32>() - 6.0
    }
}

fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

fn unit(bits: u64) -> f32 {
    (bits >> 40) as f32 / (1u64 << 24) as f32
}

/// Smooth noise in space: random values on a grid of the given pitch (mm), interpolated.
#[derive(Debug, Clone)]
pub(super) struct Field {
    seed: u64,
    pitch: f32,
}

impl Field {
    pub fn new(random: &mut Random, pitch: f32) -> Self {
        Field { seed: random.next(), pitch }
    }

    /// From -1 to 1.
    pub fn at(&self, [x, y, z]: [f32; 3]) -> f32 {
        let cell = |v: f32| {
            let v = v / self.pitch;
            let t = v - v.floor();
            (v.floor() as i64, t * t * (3.0 - 2.0 * t))
        };
        let ((x, tx), (y, ty), (z, tz)) = (cell(x), cell(y), cell(z));
        let corner = |dx: i64, dy: i64, dz: i64| {
            let key = (x + dx).wrapping_mul(0x1F12_3BB5)
                ^ (y + dy).wrapping_mul(0x5F35_6495)
                ^ (z + dz).wrapping_mul(0x3C6E_F372);
            unit(mix(self.seed ^ (key as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15))) * 2.0 - 1.0
        };
        let lerp = |a: f32, b: f32, t: f32| a + (b - a) * t;
        let plane = |dz| {
            let near = lerp(corner(0, 0, dz), corner(1, 0, dz), tx);
            let far = lerp(corner(0, 1, dz), corner(1, 1, dz), tx);
            lerp(near, far, ty)
        };
        lerp(plane(0), plane(1), tz)
    }
}
