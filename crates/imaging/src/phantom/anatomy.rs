//! The head: Hounsfield units at a point.
//!
//! Millimeters in a frame fixed to the head: x to the patient's left, y to the back, z up; the origin in the midline
//! between forehead and occiput at the skull base, the largest cross section at z = 45, the vertex near z = 145.

use super::lesion::{Bleed, Lesion};
use super::noise::{Field, Random};

pub(super) type Point = [f32; 3];

pub(super) const AIR: f32 = -1000.0;
const FAT: f32 = -85.0;
const MUSCLE: f32 = 52.0;
const CSF: f32 = 7.0;

/// Half width and half length (mm) that the inner anatomy below is drawn for.
const WIDTH: f32 = 76.0;
const LENGTH: f32 = 93.0;

/// One person.
#[derive(Debug)]
pub(super) struct Head {
    half_width: f32,
    half_length: f32,
    /// From the largest cross section to the vertex.
    height: f32,
    /// How much wider the back of the head is than the front.
    egg: f32,
    scalp: f32,
    skull: f32,
    /// 0 for a young brain, 1 for an old, shrunken one.
    atrophy: f32,
    ventricles: f32,
    /// By how many Hounsfield units grey matter is denser than white.
    above_white: f32,
    white: f32,
    sulci: f32,
    falx: f32,
    pineal: bool,
    choroid: bool,
    sinuses: f32,
    outline: Field,
    gyri: Field,
    folds: Field,
    fine: Field,
    patches: Field,
    bone: Field,
    pub bleed: Option<Bleed>,
}

/// The tissue at a point.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tissue {
    pub hu: f32,
    /// Fresh blood of the lesion.
    pub blood: bool,
}

fn tissue(hu: f32) -> Tissue {
    Tissue { hu, blood: false }
}

/// As [`f32::hypot`], which calls the C library: in double precision nothing that is a head's overflows or is lost.
pub(super) fn length(x: f32, y: f32) -> f32 {
    let (x, y) = (f64::from(x), f64::from(y));
    (x * x + y * y).sqrt() as f32
}

/// 0 below `low`, 1 above `high`, smooth between.
fn ramp(low: f32, high: f32, value: f32) -> f32 {
    let t = ((value - low) / (high - low)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

fn bump(value: f32, center: f32, width: f32) -> f32 {
    (-((value - center) / width).powi(2)).exp()
}

/// Below 1 inside the ellipsoid.
fn ellipsoid([x, y, z]: Point, [cx, cy, cz]: Point, [rx, ry, rz]: Point) -> f32 {
    (((x - cx) / rx).powi(2) + ((y - cy) / ry).powi(2) + ((z - cz) / rz).powi(2)).sqrt()
}

/// Distance to a limb from `a` to `b` that is `ra` thick at one end and `rb` at the other; negative inside.
fn limb(p: Point, (a, ra): (Point, f32), (b, rb): (Point, f32)) -> f32 {
    let along = |i: usize| b[i] - a[i];
    let length: f32 = (0..3).map(|i| along(i).powi(2)).sum();
    let t = ((0..3).map(|i| (p[i] - a[i]) * along(i)).sum::<f32>() / length).clamp(0.0, 1.0);
    let distance = (0..3).map(|i| (p[i] - a[i] - t * along(i)).powi(2)).sum::<f32>().sqrt();
    distance - (ra + (rb - ra) * t)
}

/// Distance to the wall of a lateral ventricle that is `v` times as wide as usual (mm); negative inside. `m` is mirrored to the left.
fn lateral_ventricle(m: Point, v: f32) -> f32 {
    let frontal = limb(m, ([7.0, -33.0, 52.0], 3.0 * v), ([10.0, -18.0, 60.0], 5.2 * v));
    let body = limb(m, ([10.0, -18.0, 60.0], 5.2 * v), ([14.0, 14.0, 68.0], 5.0 * v));
    let atrium = limb(m, ([14.0, 14.0, 68.0], 5.0 * v), ([25.0, 30.0, 57.0], 6.4 * v));
    let occipital = limb(m, ([25.0, 30.0, 57.0], 6.4 * v), ([21.0, 53.0, 52.0], 2.2 * v));
    let temporal = limb(m, ([25.0, 30.0, 57.0], 5.0 * v), ([34.0, 12.0, 36.0], 2.4 * v));
    let tip = limb(m, ([34.0, 12.0, 36.0], 2.4 * v), ([30.0, -8.0, 28.0], 1.0 * v));
    frontal.min(body).min(atrium).min(occipital).min(temporal).min(tip)
}

impl Head {
    pub fn new(random: &mut Random, lesion: Option<Lesion>) -> Head {
        let half_width = random.range(71.0, 81.0);
        let half_length = random.range(87.0, 99.0);
        let atrophy = random.range(0.0, 1.0).powf(1.4);
        let mut head = Head {
            half_width,
            half_length,
            height: random.range(94.0, 104.0),
            egg: random.range(0.02, 0.12),
            scalp: random.range(4.5, 8.5),
            skull: random.range(5.0, 8.0),
            atrophy,
            ventricles: random.range(0.75, 1.05) + 0.45 * atrophy,
            // 5.5 by their composition and in measurements (Brooks et al., J Comput Assist Tomogr 1980;4:489); 3 in the deep nuclei of 93
            // volunteers, with white matter at 30 (Cala et al., AJNR 1981;2:41).
            above_white: random.range(4.5, 8.0),
            white: random.range(27.5, 30.5),
            sulci: random.range(8.5, 11.5),
            falx: random.range(40.0, 54.0),
            pineal: random.chance(0.6),
            choroid: random.chance(0.5),
            sinuses: random.range(0.3, 1.0),
            outline: Field::new(random, 45.0),
            gyri: Field::new(random, 17.0),
            folds: Field::new(random, 16.0),
            fine: Field::new(random, 5.0),
            patches: Field::new(random, 26.0),
            bone: Field::new(random, 3.0),
            bleed: None,
        };
        head.bleed = lesion.map(|lesion| Bleed::new(random, lesion));
        head
    }

    /// Size of the cross section at a height, as a part of the largest.
    fn section(&self, z: f32) -> f32 {
        if z >= 45.0 {
            let u = ((z - 45.0) / self.height).min(1.0);
            (1.0 - u.powf(2.3)).max(0.0).powf(0.5)
        } else {
            let u = (45.0 - z) / 60.0;
            1.0 - 0.10 * u * u
        }
    }

    /// The point in the measures of the standard head.
    pub fn standard(&self, [x, y, z]: Point) -> Point {
        [x * WIDTH / self.half_width, y * LENGTH / self.half_length, 45.0 + (z - 45.0) * 98.0 / self.height]
    }

    /// Depth below the skin (mm, radially; negative outside), and how much longer than across the way through a layer
    /// is in the plane of the slice, which grows toward the vertex.
    fn depth(&self, [x, y, z]: Point) -> (f32, f32) {
        let width = self.half_width * (1.0 + self.egg * (y / self.half_length).clamp(-1.0, 1.0));
        let f = length(x / width, y / self.half_length);
        // Most of the field of view is air beside the largest section.
        if f > 1.1 {
            return (-1.0, 1.0);
        }
        let section = self.section(z);
        if section <= 0.02 {
            return (-50.0, 1.0);
        }
        let r = length(x, y).max(1e-3);
        if f > section * 1.1 {
            return (-1.0, 1.0);
        }
        let (cos, sin) = (x / r, y / r);
        // a flat forehead and a slight corner behind each temple, as heads have
        let shape = 1.0 - 0.018 * (4.0 * sin.atan2(cos)).cos() + 0.012 * self.outline.at([cos * 60.0, sin * 60.0, z]);
        let radius = section * (r / f) * shape;
        let slope = if z > 45.0 { (self.section(z - 1.0) - self.section(z + 1.0)) / 2.0 * (r / f) } else { 0.0 };
        (radius - r, (1.0 + slope * slope).sqrt().min(3.0))
    }

    /// The tissue at a point.
    pub fn at(&self, p: Point) -> Tissue {
        let (depth, oblique) = self.depth(p);
        if depth <= 0.0 {
            return tissue(AIR);
        }
        let s = self.standard(p);
        let temporal = bump(s[2], 18.0, 22.0) * bump(s[1], -28.0, 26.0) * ramp(40.0, 62.0, s[0].abs());
        let nape = bump(s[2], -5.0, 20.0) * ramp(40.0, 75.0, s[1]);
        let scalp = (self.scalp + 9.0 * temporal + 10.0 * nape) * oblique;
        if depth < scalp {
            let part = depth / oblique;
            return tissue(match part {
                part if part < 1.8 => 40.0,
                part if part < self.scalp * 0.62 => FAT,
                _ if temporal + nape > 0.15 => MUSCLE + 10.0 * self.fine.at(p),
                _ => 25.0,
            });
        }
        let thick = self.skull
            * (1.0 + 0.35 * self.outline.at([p[0] + 500.0, p[1], p[2]]) + 0.45 * ramp(60.0, 90.0, s[1].abs())
                - 0.35 * ramp(40.0, 70.0, s[0].abs()) * bump(s[2], 25.0, 30.0));
        let skull = thick.max(2.5) * oblique;
        let inside = depth - scalp - skull;
        if inside < 0.0 {
            return tissue(self.skull_at(p, s, (depth - scalp) / skull, thick));
        }
        if let Some(hu) = self.base(p, s, inside) {
            return tissue(hu);
        }
        // depth below the bone in space, not in the plane of the slice: near the vertex all is cortex
        self.cranial(p, s, inside / oblique)
    }

    /// Two tables of dense bone and the diploe between, as far as the bone is thick enough to have one.
    fn skull_at(&self, p: Point, s: Point, part: f32, thick: f32) -> f32 {
        if s[2] < 26.0 && s[1] < -74.0 && s[0].abs() < 24.0 * self.sinuses && s[2] > 4.0 && (0.22..0.85).contains(&part)
        {
            return AIR; // frontal sinus
        }
        let table = (1.9 / thick).min(0.42);
        let diploe = ramp(table, table + 0.1, part) * (1.0 - ramp(0.93 - table, 1.0 - table * 0.8, part));
        let suture =
            bump(s[0], 3.0 * self.folds.at(p), 0.8) * ramp(60.0, 70.0, s[2]) * if s[1] > -55.0 { 1.0 } else { 0.0 };
        1150.0 - diploe * (620.0 + 160.0 * self.bone.at(p)) - 500.0 * suture
    }

    /// Skull base: petrous bones, sphenoid, orbits, air cells, upper nasal cavity. `None` above it or between them.
    fn base(&self, p: Point, s: Point, inside: f32) -> Option<f32> {
        let [x, y, z] = s;
        let side = x.abs();
        if z > 30.0 {
            return None;
        }
        let rough = 3.0 * self.folds.at(p) + 1.5 * self.fine.at(p);
        // petrous ridge: from the mastoid forward to the midline
        let ridge_y = 14.0 - 0.55 * (58.0 - side);
        let ridge = (y - ridge_y).abs() - (4.0 + 0.13 * side) * ramp(22.0, 4.0, z) + rough * 0.5;
        if z < 20.0 && ridge < 0.0 && side > 9.0 {
            let cells = side > 42.0 && y > ridge_y - 6.0 && self.bone.at([p[0], p[1], p[2] * 0.7]) > -0.05;
            return Some(if cells { -620.0 } else { 1050.0 + 350.0 * self.fine.at(p) });
        }
        // lesser wing of the sphenoid, between anterior and middle fossa
        let wing = (y + 30.0 + 0.28 * side).abs() - 3.2 * ramp(22.0, 8.0, z) + rough * 0.3;
        if z < 18.0 && wing < 0.0 && side > 8.0 {
            return Some(820.0 + 200.0 * self.bone.at(p));
        }
        // body of the sphenoid with its sinus, clivus
        if z < 14.0 && side < 15.0 - 0.2 * z && (-34.0..-8.0).contains(&y) {
            let sinus = ellipsoid(s, [0.0, -24.0, 4.0], [10.0, 9.0, 9.0]) < 1.0 - 0.1 * self.folds.at(p);
            return Some(if sinus { AIR } else { 640.0 + 200.0 * self.bone.at(p) });
        }
        // the face before the anterior fossa
        let floor = 20.0 - 0.10 * (y + 85.0) + rough * 0.4;
        if y < -31.0 - 0.28 * side && z < floor && inside > 0.0 {
            if z > floor - 3.0 {
                return Some(700.0);
            }
            let eye = ellipsoid([side, y, z], [31.0, -64.0, 4.0], [12.2, 12.2, 12.2]);
            if eye < 1.0 {
                let lens = ellipsoid([side, y, z], [31.0, -74.0, 4.0], [4.2, 2.0, 4.2]) < 1.0;
                return Some(if lens {
                    72.0
                } else if eye > 0.9 {
                    45.0
                } else {
                    12.0
                });
            }
            let orbit = ellipsoid([side, y, z], [30.0, -55.0, 3.0], [18.5, 25.0, 17.0]);
            if orbit < 1.0 {
                let nerve = limb([side, y, z], ([31.0, -52.0, 4.0], 2.2), ([16.0, -30.0, 6.0], 2.0)) < 0.0;
                let muscles = (0.78..0.9).contains(&orbit) && y > -62.0;
                return Some(if nerve || muscles { 42.0 } else { FAT });
            }
            if orbit < 1.13 {
                return Some(560.0);
            }
            if side < 12.0 {
                let septum = side < 1.2 || self.bone.at([p[0] * 0.5, p[1] * 0.5, p[2]]) > 0.45;
                return Some(if septum { 260.0 } else { -900.0 });
            }
            return Some(if self.folds.at(p) > 0.25 { -300.0 } else { 480.0 });
        }
        None
    }

    /// Everything inside the skull.
    fn cranial(&self, p: Point, s: Point, inside: f32) -> Tissue {
        let mut q = s;
        let mut inside = inside;
        let mut edema = 0.0;
        if let Some(bleed) = &self.bleed {
            let rough = 0.6 * self.folds.at(p) + 0.4 * self.fine.at(p);
            let clot = bleed.density + 7.0 * self.patches.at(p) + 4.0 * self.fine.at(p);
            if bleed.outside_brain(s, inside, rough) {
                return Tissue { hu: clot, blood: true };
            }
            let core = bleed.inside_brain(s, rough);
            if core < 1.0 && inside > 2.0 {
                return Tissue { hu: clot - 8.0 * ramp(0.85, 1.0, core), blood: true };
            }
            edema = bleed.edema(core);
            (q, inside) = bleed.displaced(s, inside);
        }
        let wave = self.folds.at(p);
        let [x, y, z] = q;

        // falx: between the hemispheres above the corpus callosum, all the way to the back
        let reach = 62.0 - 0.5 * (y - 10.0).max(0.0) - 14.0 * ramp(0.0, -60.0, y);
        let middle = x + 0.8 * self.patches.at([0.0, y, z]);
        let near_fissure = z > reach || (z > 30.0 && !(-48.0..=52.0).contains(&y));
        if near_fissure && middle.abs() < 0.65 && inside > 0.0 {
            return tissue(self.falx);
        }
        // sagittal sinus, torcular: flowing blood is a little brighter than brain
        if inside < 7.0 && x.abs() < 7.0 - inside && y.abs() > 30.0 && z > 25.0 {
            return tissue(50.0);
        }
        if let Some(csf) = self.fluid(p, q, inside, middle, near_fissure, wave) {
            return csf;
        }
        tissue(self.brain(p, q, inside, wave) - edema)
    }

    /// Ventricles, cisterns, fissures and sulci, and blood in them.
    fn fluid(&self, p: Point, q: Point, inside: f32, middle: f32, near_fissure: bool, wave: f32) -> Option<Tissue> {
        let [x, y, z] = q;
        let m = [x.abs(), y, z];
        let bleed = self.bleed.as_ref();
        let widen = bleed.map_or(1.0, Bleed::ventricle_widening);
        let v = self.ventricles * widen;
        let third = ellipsoid(q, [0.0, -2.0, 44.0], [1.6 * v, 13.0, 10.0]) - 1.0;
        let fourth = ellipsoid(q, [0.0, 36.0, 14.0], [6.5 * v, 4.5 * v, 10.0]) - 1.0;
        // Far from all parts of the lateral ventricles, whose thickest is 6.4, none of them is looked for.
        let reach = 6.5 * v;
        let near = m[0] < 34.0 + reach
            && (-33.0 - reach..53.0 + reach).contains(&y)
            && (28.0 - reach..68.0 + reach).contains(&z);
        let lateral = if near { lateral_ventricle(m, v) } else { f32::MAX };
        let septum = x.abs() < 1.0 && z > 50.0;
        if (lateral < 0.0 && !septum) || third < 0.0 || fourth < 0.0 {
            if self.choroid && lateral < 0.0 && ellipsoid(m, [24.0, 27.0, 58.0], [3.0, 5.0, 4.0]) < 1.0 + 0.4 * wave {
                return Some(tissue(150.0 + 120.0 * self.fine.at(p)));
            }
            let which = if lateral < 0.0 { x } else { 0.0 };
            return Some(match bleed.and_then(|bleed| bleed.in_ventricle(q, which, lateral >= 0.0)) {
                Some(hu) => Tissue { hu: hu + 5.0 * self.patches.at(p), blood: true },
                None => tissue(CSF),
            });
        }
        if self.pineal && ellipsoid(q, [0.0, 16.0, 49.0], [2.6, 3.0, 3.5]) < 1.0 {
            return Some(tissue(130.0 + 60.0 * self.fine.at(p)));
        }
        let full = bleed.map_or(0.0, |bleed| bleed.subarachnoid(q, self.patches.at(p)));
        let fluid = |cistern: bool| {
            if full > 0.5 {
                let hu = bleed.map_or(CSF, |bleed| bleed.density) - if cistern { 4.0 } else { 8.0 };
                Tissue { hu: hu + 6.0 * self.fine.at(p), blood: true }
            } else {
                tissue(CSF + 3.0)
            }
        };
        // blood swells the sulci that it fills
        let swell = if full > 0.5 { 0.9 } else { 0.0 };

        // cisterns around the brain stem, the suprasellar star, the quadrigeminal cistern
        if z < 46.0 {
            let stem = self.stem(q, wave);
            let gap = 0.10 + 0.10 * self.atrophy + 0.12 * self.patches.at([p[0] + 90.0, p[1], p[2]]) + 0.06 * swell;
            let ring = stem > 1.0 && stem < 1.0 + gap;
            let star = x.abs() * 0.9 + (y + 13.0).abs() + 5.0 * wave < 10.0 + 3.0 * self.atrophy + swell;
            if (20.0..40.0).contains(&z) && (ring || (star && stem > 1.0 && z < 33.0)) {
                return Some(fluid(true));
            }
            if (33.0..46.0).contains(&z) && ellipsoid(q, [0.0, 27.0, 40.0], [11.0, 3.2, 8.0]) < 1.0 + 0.2 * wave {
                return Some(fluid(true));
            }
            if z < 20.0 && (y + 4.0 - (20.0 - z) * 0.4).abs() < 3.5 && x.abs() < 16.0 {
                return Some(fluid(true)); // prepontine
            }
        }
        let age = self.atrophy;
        if inside < 0.9 {
            return Some(tissue(34.0)); // dura, partial volume
        }
        let over_convexity = ramp(20.0, 40.0, z);
        if inside < 1.1 + (0.5 + 2.4 * age) * over_convexity * (0.8 + 0.5 * wave) + 0.5 * swell {
            return Some(fluid(false));
        }
        // interhemispheric fissure beside the falx
        if near_fissure && middle.abs() < 1.5 + 0.9 * age + 0.6 * wave + swell {
            return Some(fluid(false));
        }
        // sylvian fissure: from the temple inward, then along the insula
        let side = x.abs() + 5.0 * self.patches.at([x * 0.7, y, z]);
        if (24.0..62.0).contains(&z) {
            let line = -14.0 + 0.25 * (70.0 - side) + 0.35 * (z - 40.0) + 4.0 * wave;
            let open = (0.7 + 1.5 * age + swell) * (1.0 + 0.6 * self.fine.at(p));
            let stem = (y - line).abs() < open * (0.8 + 0.02 * (side - 36.0)) && side > 40.0;
            let off = (y - line - 6.0) / 17.0;
            let insula = (side - 41.0 + 5.0 * off * off).abs() < open * (1.0 - off * off);
            if stem || insula {
                return Some(fluid(true));
            }
        }
        if let Some(depth) = self.sulcus(p, q, inside)
            && depth < 0.25 + 0.85 * age + 0.8 * swell
        {
            return Some(fluid(false));
        }
        None
    }

    /// Below 1 inside the brain stem: pons below, midbrain with its peduncles above.
    fn stem(&self, [x, y, z]: Point, wave: f32) -> f32 {
        let forward = if z > 24.0 { 2.5 * bump(x.abs(), 9.0, 5.0) } else { 0.0 };
        ellipsoid([x, y + forward * ramp(12.0, 0.0, y), 0.0], [0.0, 10.0 + (20.0 - z) * 0.3, 0.0], [15.0, 12.0, 1.0])
            - 0.06 * wave
    }

    /// About the distance from the middle of the nearest sulcus (mm), where there is one at this depth. Sulci are where a
    /// smooth field is zero: winding sheets, as the folds of a cortex are.
    fn sulcus(&self, p: Point, [x, y, z]: Point, inside: f32) -> Option<f32> {
        if z < 22.0 || (z < 32.0 && y > 20.0) {
            return None;
        }
        let reach = 15.0 + 7.0 * self.patches.at([p[0], p[1] + 300.0, p[2]]);
        if inside > reach {
            return None;
        }
        let field = self.gyri.at([x, y, z * 0.8]) + 0.25 * self.fine.at(p);
        Some(field.abs() * self.sulci + 0.9 * (inside / reach).powi(2))
    }

    fn grey(&self) -> f32 {
        self.white + self.above_white
    }

    /// Grey and white matter.
    fn brain(&self, p: Point, q: Point, inside: f32, wave: f32) -> f32 {
        let [x, y, z] = q;
        let side = x.abs();
        let m = [side, y, z];
        let texture = 0.7 * self.fine.at(p) + 0.8 * self.patches.at(p);
        // toward the skull, beam hardening
        let cupping = 3.0 * (-inside / 9.0).exp();
        // between the petrous bones, the dark band
        let band = if z < 22.0 {
            -9.0 * bump(y, 12.0 + 4.0 * wave, 7.0) * ramp(22.0, 8.0, z) * ramp(55.0, 20.0, side)
        } else {
            0.0
        };
        let base = texture + cupping + band;

        if z < 40.0 && self.stem(q, wave) < 1.0 {
            return base + self.white + self.above_white / 2.0;
        }
        // cerebellum below the tentorium
        let tent = 34.0 - 0.35 * side;
        if y > 18.0 && z < tent {
            let folia = (0.9 * length(y - 30.0, x * 0.7) + 2.0 * wave).sin();
            let tentorium = if z > tent - 2.0 { 6.0 } else { 0.0 };
            return base + self.grey() - 3.5 + 1.3 * folia + tentorium;
        }
        let edge = 1.0 + 0.07 * wave;
        let caudate = ellipsoid(m, [15.0, -20.0, 57.0], [5.0, 8.0, 9.0]) < edge;
        let lentiform = ellipsoid(m, [26.0, -4.0, 49.0], [6.5, 15.0, 11.0]) < edge;
        let thalamus = ellipsoid(m, [11.0, 8.0, 50.0], [8.5, 13.0, 10.0]) < edge;
        if caudate || lentiform || thalamus {
            return base + self.grey() - 0.5;
        }
        let ribbon = self.sulcus(p, q, inside).map_or(f32::MAX, |off| off) - 3.1;
        let surface = inside - 4.2;
        let sylvian = if (24.0..62.0).contains(&z) {
            (side - 41.0).abs() - 4.0 + (y + 4.0).abs().max(18.0) - 18.0
        } else {
            f32::MAX
        };
        let fissure = if z > 64.0 || !(-46.0..=50.0).contains(&y) { side - 4.5 } else { f32::MAX };
        let cortex = ribbon.min(surface).min(sylvian).min(fissure) + 1.2 * wave;
        base + self.white + self.above_white * (1.0 - ramp(-0.8, 0.8, cortex))
    }
}
