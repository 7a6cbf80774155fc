//! From anatomy to the pixels of a slice: partial volume, blur and noise as a scanner has them.

use super::anatomy::{AIR, Head, Point, length};
use super::noise::Random;

/// Rows and columns of a slice.
pub const SIDE: usize = 512;

/// How the head lies in the scanner.
#[derive(Debug, Clone)]
pub(super) struct Pose {
    pub pixel_spacing: f32,
    /// Position of the head's origin in the field of view (mm).
    pub offset: [f32; 2],
    /// Roll, and how much the head is tilted to the front and to the side (radians).
    pub roll: f32,
    pub nod: f32,
    pub lean: f32,
    /// Standard deviation of the noise (HU).
    pub noise: f32,
}

impl Pose {
    pub fn new(random: &mut Random) -> Pose {
        Pose {
            pixel_spacing: (random.range(0.43, 0.49) * 1000.0).round() / 1000.0,
            offset: [random.range(-6.0, 6.0), random.range(-8.0, 4.0)],
            roll: random.range(-0.12, 0.12),
            nod: random.range(-0.12, 0.12),
            lean: random.range(-0.05, 0.05),
            noise: random.range(2.8, 4.8),
        }
    }

    /// The point of the head (mm) at a pixel of the slice at height `z`; `roll` has sine and cosine of that angle.
    fn head(&self, row: usize, column: usize, z: f32, (sin, cos): (f32, f32)) -> Point {
        let center = (SIDE as f32 - 1.0) / 2.0;
        let x = (column as f32 - center) * self.pixel_spacing - self.offset[0];
        let y = (row as f32 - center) * self.pixel_spacing - self.offset[1];
        [x * cos + y * sin, y * cos - x * sin, z + self.nod * y + self.lean * x]
    }
}

/// A rendered slice.
pub(super) struct Pixels {
    /// Hounsfield units, row by row.
    pub hu: Vec<f32>,
    /// Which pixels are mostly blood of the lesion.
    pub blood: Vec<bool>,
}

/// Renders the slice from `z - thickness/2` to `z + thickness/2`.
pub(super) fn slice(head: &Head, pose: &Pose, z: f32, thickness: f32, random: &mut Random) -> Pixels {
    let heights = [-1.0, 0.0, 1.0].map(|part| z + part * thickness / 3.0);
    let roll = pose.roll.sin_cos();
    let mut hu = vec![AIR; SIDE * SIDE];
    let mut blood = vec![false; SIDE * SIDE];
    for (row, (line, blood)) in hu.chunks_exact_mut(SIDE).zip(blood.chunks_exact_mut(SIDE)).enumerate() {
        for (column, (pixel, blood)) in line.iter_mut().zip(blood).enumerate() {
            let tissues = heights.map(|z| head.at(pose.head(row, column, z, roll)));
            *pixel = tissues.iter().map(|tissue| tissue.hu).sum::<f32>() / 3.0;
            if *pixel < -990.0 {
                *pixel = head_rest(pose.head(row, column, z, roll)).unwrap_or(AIR);
            }
            *blood = tissues.iter().filter(|tissue| tissue.blood).count() >= 2;
        }
    }
    // the scanner's resolution, about 0.7 mm full width
    blur(&mut hu, &[0.06, 0.24, 0.40, 0.24, 0.06]);
    // quantum noise, which reconstruction makes a little smooth; the factor restores its standard deviation
    let kernel = [0.25, 0.5, 0.25];
    let factor = pose.noise / kernel.iter().map(|k| k * k).sum::<f32>();
    let mut noise: Vec<f32> = (0..SIDE * SIDE).map(|_| random.normal() * factor).collect();
    blur(&mut noise, &kernel);
    for (pixel, noise) in hu.iter_mut().zip(noise) {
        *pixel += noise;
    }
    Pixels { hu, blood }
}

/// The shell that the head lies in.
fn head_rest([x, y, _]: Point) -> Option<f32> {
    let r = length(x / 104.0, (y - 2.0) / 122.0);
    (y > 30.0 && (1.0..1.03).contains(&r)).then_some(-180.0)
}

/// Convolves with a symmetric kernel along rows, then along columns.
fn blur(image: &mut [f32], kernel: &[f32]) {
    let half = kernel.len() / 2;
    let at = |i: usize, k: usize| (i + k).saturating_sub(half).min(SIDE - 1);
    for line in image.chunks_exact_mut(SIDE) {
        let source = line.to_vec();
        for (i, pixel) in line.iter_mut().enumerate() {
            *pixel = kernel.iter().enumerate().map(|(k, weight)| weight * source[at(i, k)]).sum();
        }
    }
    let source = image.to_vec();
    for (row, line) in image.chunks_exact_mut(SIDE).enumerate() {
        line.fill(0.0);
        for (k, weight) in kernel.iter().enumerate() {
            let from = &source[at(row, k) * SIDE..][..SIDE];
            line.iter_mut().zip(from).for_each(|(pixel, value)| *pixel += weight * value);
        }
    }
}
