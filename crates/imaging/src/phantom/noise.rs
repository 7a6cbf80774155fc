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
    /// The values of the grid's points around the origin, [`Self::edge`] along each axis: points are asked for millions of times.
    near: Vec<f32>,
    /// Cells from the table's lowest point to the origin, along each axis.
    below: i32,
    edge: usize,
}

impl Field {
    /// Every point of a head lies this near to its origin (mm); what is farther away is computed each time.
    const REACH: f32 = 150.0;

    pub fn new(random: &mut Random, pitch: f32) -> Self {
        let below = (Self::REACH / pitch).ceil() as i32;
        let edge = 2 * below as usize + 1;
        let seed = random.next();
        let axis = || (-below..=below).map(i64::from);
        let near = axis().flat_map(|z| axis().flat_map(move |y| axis().map(move |x| value(seed, x, y, z)))).collect();
        Field { seed, pitch, near, below, edge }
    }

    /// From -1 to 1.
    pub fn at(&self, [x, y, z]: [f32; 3]) -> f32 {
        let cell = |v: f32| {
            let v = v / self.pitch;
            // The floor, without a call for it on processors of before SSE4.1.
            let toward_zero = v as i32;
            let floor = toward_zero - i32::from(toward_zero as f32 > v);
            let t = v - floor as f32;
            (floor, t * t * (3.0 - 2.0 * t))
        };
        let ((x, tx), (y, ty), (z, tz)) = (cell(x), cell(y), cell(z));
        let place = |v: i32| (v + self.below) as usize;
        let (i, j, k, edge) = (place(x), place(y), place(z), self.edge);
        let corners = if [i, j, k].iter().all(|&place| place < edge - 1) {
            let first = (k * edge + j) * edge + i;
            let line = |first: usize| [self.near[first], self.near[first + 1]];
            [line(first), line(first + edge), line(first + edge * edge), line(first + edge * edge + edge)]
        } else {
            let line =
                |dy, dz| [0, 1].map(|dx| value(self.seed, i64::from(x) + dx, i64::from(y) + dy, i64::from(z) + dz));
            [line(0, 0), line(1, 0), line(0, 1), line(1, 1)]
        };
        let lerp = |[a, b]: [f32; 2], t: f32| a + (b - a) * t;
        let [near, far, near_above, far_above] = corners.map(|line| lerp(line, tx));
        lerp([lerp([near, far], ty), lerp([near_above, far_above], ty)], tz)
    }
}

/// The value at a point of the grid, from -1 to 1.
fn value(seed: u64, x: i64, y: i64, z: i64) -> f32 {
    let key = x.wrapping_mul(0x1F12_3BB5) ^ y.wrapping_mul(0x5F35_6495) ^ z.wrapping_mul(0x3C6E_F372);
    unit(mix(seed ^ (key as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15))) * 2.0 - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_what_would_be_computed() {
        for pitch in [3.0, 16.0, 45.0] {
            let field = Field::new(&mut Random::new(7), pitch);
            let computed = Field { near: Vec::new(), below: 0, edge: 1, ..field.clone() };
            let mut random = Random::new(8);
            for _ in 0..20_000 {
                // Some lie beyond the table, and some on points of the grid.
                let point = [(); 3].map(|()| random.range(-200.0, 200.0));
                let point = if random.chance(0.1) { point.map(|v| (v / pitch).round() * pitch) } else { point };
                assert_eq!(field.at(point).to_bits(), computed.at(point).to_bits(), "{pitch}: {point:?}");
            }
        }
    }
}
