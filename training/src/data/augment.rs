//! Random changes that leave the label true: mirrored, moved, turned, scaled, seen through a slightly other window.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

/// How far each change goes; 0 (or false) leaves it out. Each is drawn evenly within its bounds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augment {
    /// Left and right exchanged, every second time.
    pub flip: bool,
    /// Either way along both axes, as a share of the image's edge.
    pub shift: f32,
    /// Either way, in degrees.
    pub rotate: f32,
    /// Larger or smaller, as a share.
    pub zoom: f32,
    /// The window's width (as a share) and center (as a share of the width): values strictly inside 0 to 1 are scaled
    /// and moved, what the window clipped stays clipped. Only for windowed input.
    pub window: f32,
}

impl Augment {
    /// The augmentation that is used unless another is asked for.
    pub const DEFAULT: Augment = Augment { flip: true, shift: 0.06, rotate: 15.0, zoom: 0.1, window: 0.1 };
    /// The study's: none.
    pub const NONE: Augment = Augment { flip: false, shift: 0.0, rotate: 0.0, zoom: 0.0, window: 0.0 };

    /// A changed copy of an image of `[channels, height, width]`; the same seed changes it the same way. What comes in
    /// from outside has the value of the channel's first corner.
    pub fn apply(&self, image: &[f32], [_, height, width]: [usize; 3], seed: u64) -> Vec<f32> {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut draw = |bound: f32| if bound > 0.0 { rng.random_range(-bound..bound) } else { 0.0 };
        let (down, right) = (draw(self.shift) * height as f32, draw(self.shift) * width as f32);
        let (sin, cos) = draw(self.rotate).to_radians().sin_cos();
        let scale = 1.0 / (1.0 + draw(self.zoom));
        let (gain, offset) = (1.0 + draw(self.window), draw(self.window));
        let mirror = if self.flip && rng.random_bool(0.5) { -1.0 } else { 1.0 };

        // Each target position is looked up in the source: the inverse of the change.
        let (center_y, center_x) = ((height as f32 - 1.0) / 2.0, (width as f32 - 1.0) / 2.0);
        let mut changed = Vec::with_capacity(image.len());
        for channel in image.chunks_exact(height * width) {
            let outside = channel[0];
            let at = |y: i32, x: i32| {
                let inside = (0..height as i32).contains(&y) && (0..width as i32).contains(&x);
                if inside { channel[y as usize * width + x as usize] } else { outside }
            };
            for y in 0..height {
                let dy = y as f32 - center_y - down;
                for x in 0..width {
                    let dx = x as f32 - center_x - right;
                    let sy = (cos * dy - sin * dx) * scale + center_y;
                    let sx = (sin * dy + cos * dx) * scale * mirror + center_x;
                    let (y0, x0) = (floor(sy), floor(sx));
                    let (fy, fx) = (sy - y0 as f32, sx - x0 as f32);
                    let inside = y0 >= 0 && x0 >= 0 && y0 + 1 < height as i32 && x0 + 1 < width as i32;
                    let [a, b, c, d] = if inside {
                        let place = y0 as usize * width + x0 as usize;
                        let (upper, lower) = (&channel[place..place + 2], &channel[place + width..place + width + 2]);
                        [upper[0], upper[1], lower[0], lower[1]]
                    } else {
                        [at(y0, x0), at(y0, x0 + 1), at(y0 + 1, x0), at(y0 + 1, x0 + 1)]
                    };
                    let (top, bottom) = (a + fx * (b - a), c + fx * (d - c));
                    changed.push(top + fy * (bottom - top));
                }
            }
        }
        if self.window > 0.0 {
            for value in changed.iter_mut().filter(|value| **value > 0.0 && **value < 1.0) {
                *value = ((*value - 0.5) * gain + 0.5 + offset).clamp(0.0, 1.0);
            }
        }
        changed
    }
}

/// Rounds down. Without SSE4.1, which a build for any x86-64 cannot count on, `f32::floor` is a call.
fn floor(value: f32) -> i32 {
    let cut = value as i32;
    cut - i32::from(cut as f32 > value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: [usize; 3] = [1, 20, 30];

    fn image() -> Vec<f32> {
        (0..600).map(|i| if (60..540).contains(&i) { (i * 37 % 101) as f32 / 101.0 } else { 0.0 }).collect()
    }

    #[test]
    fn nothing_asked_changes_nothing() {
        let changed = Augment::NONE.apply(&image(), SHAPE, 3);
        let worst = changed.iter().zip(image()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-5, "{worst}");
    }

    #[test]
    fn a_flip_mirrors_left_and_right_every_second_time() {
        let flip = Augment { flip: true, ..Augment::NONE };
        let mirrored: Vec<f32> =
            image().chunks(30).flat_map(|row| row.iter().rev().copied().collect::<Vec<_>>()).collect();
        let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
        let flipped = (0..200).filter(|&seed| near(&flip.apply(&image(), SHAPE, seed), &mirrored)).count();
        let kept = (0..200).filter(|&seed| near(&flip.apply(&image(), SHAPE, seed), &image())).count();
        assert_eq!(flipped + kept, 200);
        assert!((60..140).contains(&flipped), "{flipped}");
    }

    #[test]
    fn changes_repeat_with_the_seed_and_stay_within_the_window() {
        let apply = |seed| Augment::DEFAULT.apply(&image(), SHAPE, seed);
        assert_eq!(apply(1), apply(1));
        assert_ne!(apply(1), apply(2));
        assert!(apply(5).iter().all(|value| (0.0..=1.0).contains(value)));
    }
}
