//! The bleed: where it is, how it looks, and how it pushes the brain.

use super::anatomy::Point;
use super::noise::Random;

/// The five types of intracranial hemorrhage that RSNA 2019 labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Lesion {
    /// In the brain itself.
    Intraparenchymal,
    /// In the ventricles.
    Intraventricular,
    /// In cisterns, fissures and sulci.
    Subarachnoid,
    /// A crescent between dura and brain.
    Subdural,
    /// A lens between skull and dura.
    Epidural,
}

impl Lesion {
    /// All of them.
    pub const ALL: [Lesion; 5] =
        [Lesion::Intraparenchymal, Lesion::Intraventricular, Lesion::Subarachnoid, Lesion::Subdural, Lesion::Epidural];

    /// As RSNA 2019 writes it.
    pub fn name(self) -> &'static str {
        match self {
            Lesion::Intraparenchymal => "intraparenchymal",
            Lesion::Intraventricular => "intraventricular",
            Lesion::Subarachnoid => "subarachnoid",
            Lesion::Subdural => "subdural",
            Lesion::Epidural => "epidural",
        }
    }
}

/// One bleed in one head, in the measures of the standard head (mm).
#[derive(Debug, Clone)]
pub(super) struct Bleed {
    lesion: Lesion,
    center: Point,
    /// Half axes; for subdural and epidural ones: (half angle in radians, thickness, half height).
    size: Point,
    side: f32,
    /// Hounsfield units of the clot.
    pub density: f32,
    edema: f32,
    push: f32,
    /// Intraventricular: how full, 0 a level in the occipital horns, 1 a cast. Subarachnoid: how far it spreads.
    fullness: f32,
}

impl Bleed {
    pub fn new(random: &mut Random, lesion: Lesion) -> Bleed {
        let side = random.side();
        let fullness = random.range(0.0, 1.0);
        let (center, size) = match lesion {
            Lesion::Intraparenchymal => {
                let r = random.range(11.0, 25.0);
                let place = random.range(0.0, 1.0);
                let (center, most): (Point, f32) = if place < 0.4 {
                    ([side * random.range(22.0, 30.0), random.range(-14.0, 8.0), random.range(42.0, 56.0)], 20.0)
                } else if place < 0.55 {
                    ([side * random.range(10.0, 14.0), random.range(3.0, 12.0), random.range(44.0, 54.0)], 14.0)
                } else if place < 0.9 {
                    let angle = random.range(-1.3, 1.3);
                    let out = random.range(36.0, 46.0);
                    ([side * out * angle.cos(), 1.2 * out * angle.sin(), random.range(50.0, 95.0)], 22.0)
                } else {
                    ([side * random.range(14.0, 26.0), random.range(42.0, 54.0), random.range(14.0, 20.0)], 14.0)
                };
                let r = r.min(most);
                (center, [r * random.range(0.7, 1.0), r * random.range(0.8, 1.2), r * random.range(0.75, 1.1)])
            }
            Lesion::Intraventricular => ([0.0, 0.0, 55.0], [40.0, 60.0, 40.0]),
            Lesion::Subarachnoid => {
                if fullness > 0.4 {
                    (
                        [side * random.range(0.0, 18.0), random.range(-24.0, 0.0), random.range(28.0, 36.0)],
                        [48.0 + 22.0 * fullness, 42.0 + 24.0 * fullness, 18.0 + 16.0 * fullness],
                    )
                } else {
                    ([side * 52.0, random.range(-40.0, 45.0), random.range(65.0, 95.0)], [34.0, 36.0, 26.0])
                }
            }
            Lesion::Subdural => (
                [random.range(-0.35, 0.35), 0.0, random.range(66.0, 88.0)],
                [random.range(0.8, 1.25), random.range(6.0, 14.0), random.range(32.0, 50.0)],
            ),
            Lesion::Epidural => (
                [random.range(-0.7, 0.6), 0.0, random.range(48.0, 78.0)],
                [random.range(0.38, 0.6), random.range(13.0, 27.0), random.range(20.0, 32.0)],
            ),
        };
        Bleed {
            lesion,
            center,
            size,
            side,
            density: random.range(57.0, 74.0),
            edema: random.range(2.0, 9.0),
            push: random.range(0.55, 0.95),
            fullness,
        }
    }

    /// Thickness of blood under the skull at a direction and height.
    fn rind(&self, [x, y, z]: Point) -> f32 {
        if !matches!(self.lesion, Lesion::Subdural | Lesion::Epidural) || x * self.side <= 0.0 {
            return 0.0;
        }
        let angle = (y / 93.0).atan2(x.abs() / 76.0) - self.center[0];
        let u = (angle / self.size[0]).abs();
        let w = ((z - self.center[2]) / self.size[2]).abs();
        let along = match self.lesion {
            // even over a wide arc, then thinning: a crescent
            Lesion::Subdural => 1.0 - u.powi(4),
            // bulging in the middle: with the curve of the skull, a lens
            _ => 1.0 - u * u,
        };
        self.size[1] * along.max(0.0) * (1.0 - w * w).max(0.0).sqrt()
    }

    /// Subdural or epidural blood here? `inside`: depth below the inner table.
    pub fn outside_brain(&self, s: Point, inside: f32, rough: f32) -> bool {
        let rind = self.rind(s);
        // the dura over an epidural clot is smooth, the brain under a subdural one is not
        let rough = if self.lesion == Lesion::Subdural { 1.2 * rough } else { 0.3 * rough };
        rind > 1.0 && inside > 0.4 && inside < rind + rough
    }

    /// Below 1 in the clot of an intraparenchymal bleed.
    pub fn inside_brain(&self, s: Point, rough: f32) -> f32 {
        if self.lesion != Lesion::Intraparenchymal {
            return f32::MAX;
        }
        let [x, y, z]: Point = std::array::from_fn(|i| (s[i] - self.center[i]) / self.size[i]);
        (x * x + y * y + z * z).sqrt() + 0.22 * rough
    }

    /// How much darker the tissue around the clot is; `core` from [`inside_brain`](Self::inside_brain).
    pub fn edema(&self, core: f32) -> f32 {
        if core == f32::MAX {
            return 0.0;
        }
        let width = self.edema / self.size[0];
        10.0 * (1.0 - ((core - 1.0) / width).clamp(0.0, 1.0))
    }

    /// The place at which the tissue that is now at `s` was before the bleed pushed it, and its depth then.
    pub fn displaced(&self, s: Point, inside: f32) -> (Point, f32) {
        match self.lesion {
            Lesion::Intraparenchymal => {
                let off: Point = std::array::from_fn(|i| s[i] - self.center[i]);
                let distance = (0..3).map(|i| (off[i] / self.size[i]).powi(2)).sum::<f32>();
                let pull = 1.0 - 0.38 * self.push * (-distance / 3.0).exp();
                (std::array::from_fn(|i| self.center[i] + off[i] * pull), inside)
            }
            Lesion::Subdural | Lesion::Epidural => {
                let rind = self.rind(s);
                let [x, y, z] = s;
                let r = x.hypot(y).max(1.0);
                let near = (inside - rind).max(0.0);
                // the cortex gives way to the clot, the midline to a part of it
                let shift = rind * self.push * (-near / 40.0).exp();
                let height = (1.0 - ((z - self.center[2]) / (self.size[2] * 1.3)).powi(2)).max(0.0);
                let midline = 0.35
                    * self.push
                    * self.size[1]
                    * height
                    * (-(x / 34.0).powi(2)).exp()
                    * (-(y / 60.0).powi(2)).exp();
                ([x + x / r * shift * 0.8 + self.side * midline, y + y / r * shift * 0.8, z], (inside - rind).max(0.5))
            }
            _ => (s, inside),
        }
    }

    /// Blood widens the ventricles that it fills, and blocks their outflow.
    pub fn ventricle_widening(&self) -> f32 {
        if self.lesion == Lesion::Intraventricular { 1.12 + 0.3 * self.fullness } else { 1.0 }
    }

    /// Density of the blood at a point in a ventricle: `x` which lateral ventricle, `middle` for third and fourth.
    pub fn in_ventricle(&self, [_, y, z]: Point, x: f32, middle: bool) -> Option<f32> {
        if self.lesion != Lesion::Intraventricular {
            return None;
        }
        if middle {
            return (self.fullness > 0.45).then_some(self.density - 4.0);
        }
        let main = x * self.side > 0.0;
        // blood sinks: a level toward the back of a supine patient, the higher the fuller
        let level = if main { 38.0 - 80.0 * self.fullness } else { 48.0 - 34.0 * self.fullness };
        let cast = main && self.fullness > 0.6 && z < 72.0;
        (y > level || cast).then_some(self.density)
    }

    /// Above 0.5 where the subarachnoid space holds blood.
    pub fn subarachnoid(&self, s: Point, patch: f32) -> f32 {
        if self.lesion != Lesion::Subarachnoid {
            return 0.0;
        }
        let [x, y, z]: Point = std::array::from_fn(|i| (s[i] - self.center[i]) / self.size[i]);
        1.5 - (x * x + y * y + z * z).sqrt() + 0.35 * patch
    }
}
