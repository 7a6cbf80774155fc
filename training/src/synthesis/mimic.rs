//! What looks like blood and is none: calcium, dense sinuses, beam hardening, motion; and what has a bleed's form without blood.

use super::chance::{Chance, Noise};
use super::drawing::{Drawing, Head, Layer};
use super::extra_axial::Collection;
use super::focal::Focus;

/// A hard negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mimic {
    Hygroma,
    OldInfarct,
    FalxCalcification,
    PlexusCalcification,
    BasalGangliaCalcification,
    DenseSinus,
    BeamHardening,
    Motion,
}

impl Mimic {
    pub const ALL: [Mimic; 8] = [
        Mimic::Hygroma,
        Mimic::OldInfarct,
        Mimic::FalxCalcification,
        Mimic::PlexusCalcification,
        Mimic::BasalGangliaCalcification,
        Mimic::DenseSinus,
        Mimic::BeamHardening,
        Mimic::Motion,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Mimic::Hygroma => "hygroma",
            Mimic::OldInfarct => "old infarct",
            Mimic::FalxCalcification => "calcified falx",
            Mimic::PlexusCalcification => "calcified plexus",
            Mimic::BasalGangliaCalcification => "calcified ganglia",
            Mimic::DenseSinus => "dense sinus",
            Mimic::BeamHardening => "beam hardening",
            Mimic::Motion => "motion",
        }
    }

    /// Whether it lies over all that was drawn before.
    pub fn is_last(self) -> bool {
        self == Mimic::Motion
    }

    pub fn draw(self, chance: &mut Chance, drawing: &mut Drawing, seed: usize) {
        let head = drawing.head;
        match self {
            Mimic::Hygroma => {
                Collection::hygroma(chance, head).draw(drawing, seed);
            }
            Mimic::OldInfarct => Focus::infarct(chance, head).iter().for_each(|focus| {
                focus.draw(drawing, seed);
            }),
            Mimic::FalxCalcification => {
                let at = middle_slice(chance, head, 0.5, 0.9);
                let front = chance.range(0.12, 0.6);
                let axes = [chance.range(0.8, 1.8), chance.range(3.0, 12.0), chance.range(3.0, 8.0)];
                let place = head.anatomy.sections[at].as_ref().map(|section| {
                    let row = section.rows[0] + front * (section.rows[1] - section.rows[0]);
                    [section.midline_at(row), row]
                });
                if let Some(place) = place {
                    let density = chance.range(85.0, 240.0);
                    Grain { at, place, axes, density, rough: chance.noise(2.5) }.draw(drawing, seed);
                }
            }
            Mimic::PlexusCalcification | Mimic::BasalGangliaCalcification => {
                let is_plexus = self == Mimic::PlexusCalcification;
                let at = if is_plexus {
                    middle_slice(chance, head, 0.42, 0.6)
                } else {
                    middle_slice(chance, head, 0.38, 0.52)
                };
                let (out, back) = match is_plexus {
                    true => (chance.range(17.0, 25.0), chance.range(18.0, 28.0)),
                    false => (chance.range(15.0, 21.0), chance.range(-12.0, 4.0)),
                };
                let density = if is_plexus { chance.range(75.0, 220.0) } else { chance.range(52.0, 95.0) };
                let sides: &[f32] = if chance.is(0.75) { &[-1.0, 1.0] } else { &[1.0] };
                for side in sides {
                    let size = if is_plexus { chance.range(1.3, 3.2) } else { chance.range(2.0, 4.5) };
                    let Some(section) = &head.anatomy.sections[at] else { continue };
                    let row = section.middle[0] + (back + chance.range(-2.0, 2.0)) / head.stack.spacing;
                    let column = section.midline_at(row) + side * (out + chance.range(-1.5, 1.5)) / head.stack.spacing;
                    let axes = [size, size * chance.range(0.9, 2.0), size * chance.range(0.8, 1.5)];
                    let rough = chance.noise(if is_plexus { 2.5 } else { 2.0 });
                    Grain { at, place: [column, row], axes, density, rough }.draw(drawing, seed);
                }
            }
            Mimic::DenseSinus => dense_sinus(chance, drawing),
            Mimic::BeamHardening => beam_hardening(chance, drawing),
            Mimic::Motion => motion(chance, drawing),
        }
    }
}

fn middle_slice(chance: &mut Chance, head: &Head, low: f32, high: f32) -> usize {
    let usable = head.anatomy.usable();
    usable[(chance.range(low, high) * (usable.len() - 1) as f32) as usize]
}

/// A piece of calcium: its slice, its middle (column, row), half axes in millimeters and Hounsfield units.
struct Grain {
    at: usize,
    place: [f32; 2],
    axes: [f32; 3],
    density: f32,
    rough: Noise,
}

impl Grain {
    fn draw(&self, drawing: &mut Drawing, seed: usize) {
        let head = drawing.head;
        let spacing = head.stack.spacing;
        let middle = [self.place[0] * spacing, self.place[1] * spacing, head.stack.plates[self.at].z];
        for at in head.anatomy.usable() {
            if (head.stack.plates[at].z - middle[2]).abs() > self.axes[2] + head.stack.thickness {
                continue;
            }
            let Some(section) = &head.anatomy.sections[at] else { continue };
            let share = section.depth.map(|y, x| {
                let [across, down, _] = head.point(at, y, x);
                if (across - middle[0]).hypot(down - middle[1]) > 2.0 * self.axes[0].max(self.axes[1]) + 1.0 {
                    return 0.0;
                }
                head.through(at, |z| {
                    let point = [across, down, z];
                    let square: f32 = (0..3).map(|i| ((point[i] - middle[i]) / self.axes[i]).powi(2)).sum();
                    ((1.0 - square.sqrt() - 0.6 * self.rough.at(point)) * self.axes[0] + 0.5).clamp(0.0, 1.0)
                })
            });
            let density = section.depth.map(|_, _| self.density);
            drawing.lay(at, &Layer { share: share.blurred(0.7), density }, seed);
        }
    }
}

/// The sagittal sinus and the falx, or a transverse sinus, as bright as in thick blood.
fn dense_sinus(chance: &mut Chance, drawing: &mut Drawing) {
    let head = drawing.head;
    let usable = head.anatomy.usable();
    let spacing = head.stack.spacing;
    let (brighter, falx) = (chance.range(8.0, 22.0), chance.range(2.0, 8.0));
    let (wide, deep) = (chance.range(3.0, 5.5), chance.range(5.0, 9.0));
    let (side, transverse) = (chance.side(), chance.is(0.5));
    for (place, &at) in usable.iter().enumerate() {
        let share = place as f32 / usable.len() as f32;
        drawing.add(at, |section, y, x, value| {
            if value > 75.0 {
                return 0.0;
            }
            let off = (x as f32 - section.midline_at(y as f32)) * spacing;
            let from_back = (section.rows[1] - y as f32) * spacing;
            if share > 0.3 {
                // A triangle at the back, its base on the skull.
                let half = wide * (1.0 - from_back / deep);
                let sinus = ((half - off.abs()) / 1.2 + 0.5).clamp(0.0, 1.0) * f32::from(u8::from(from_back < deep));
                let line = (1.2 - off.abs()).clamp(0.0, 1.0) * f32::from(u8::from(share > 0.5));
                return (brighter * sinus).max(falx * line);
            }
            if !transverse || share > 0.2 {
                return 0.0;
            }
            let (own, angle) = head.direction(section, y, x);
            let depth = section.depth.at(y, x);
            let along = (1.0 - ((angle - 2.55) / 0.4).powi(2)).clamp(0.0, 1.0);
            let band = ((5.0 * along - depth) / 1.2).clamp(0.0, 1.0);
            if own == side { 0.8 * brighter * band } else { 0.4 * brighter * band }
        });
    }
}

/// Dark and bright bands between the dense bones of the skull base.
fn beam_hardening(chance: &mut Chance, drawing: &mut Drawing) {
    let head = drawing.head;
    let usable = head.anatomy.usable();
    let (spacing, reach) = (head.stack.spacing, (usable.len() / 4).max(2));
    let strength = chance.range(4.0, 12.0);
    let rows = chance.range(-14.0, 10.0);
    let streaks: Vec<[f32; 4]> = (0..5)
        .map(|_| {
            [chance.range(-25.0, 25.0), chance.range(-0.35, 0.35), chance.range(0.8, 2.5), chance.range(-1.0, 1.0)]
        })
        .collect();
    for (place, &at) in usable.iter().take(reach).enumerate() {
        let fade = 1.0 - place as f32 / reach as f32;
        drawing.add(at, |section, y, x, value| {
            let off = (x as f32 - section.midline_at(y as f32)) * spacing;
            let down = (y as f32 - section.middle[0]) * spacing;
            let band = -(-((down - rows) / 9.0).powi(2)).exp() * (1.0 - (off.abs() / 70.0)).max(0.0);
            let lines: f32 = streaks
                .iter()
                .map(|[from, slope, wide, up]| up * (-((down - from - slope * off) / wide).powi(2)).exp())
                .sum();
            if value > 100.0 { 0.0 } else { fade * strength * (band + 0.7 * lines) }
        });
    }
}

/// Some neighbouring slices seen in two places.
fn motion(chance: &mut Chance, drawing: &mut Drawing) {
    let count = drawing.images.len();
    let usable = drawing.head.anatomy.usable();
    let first = usable[(chance.range(0.0, 0.8) * usable.len() as f32) as usize];
    let slices = chance.range(2.0, 6.0) as usize;
    let share = chance.range(0.25, 0.5);
    let pixels = 1.0 / drawing.head.stack.spacing;
    for at in first..(first + slices).min(count) {
        let (down, right) = (chance.range(-2.0, 2.0) * pixels, chance.range(-2.5, 2.5) * pixels);
        let turn = chance.range(-0.02, 0.02);
        let old = drawing.images[at].clone();
        let (y0, x0) = (old.rows as f32 / 2.0, old.columns as f32 / 2.0);
        drawing.images[at] = old.map(|y, x| {
            let (dy, dx) = (y as f32 - y0, x as f32 - x0);
            let moved = old.between(y0 + dy + turn * dx + down, x0 + dx - turn * dy + right);
            (1.0 - share) * old.at(y, x) + share * moved
        });
    }
}
