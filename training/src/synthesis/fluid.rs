//! Blood in the fluid: in sulci and cisterns (subarachnoid), and in the ventricles with a level (intraventricular).

use triaged_imaging::phantom::Lesion;

use super::chance::{Chance, Noise};
use super::drawing::{Drawing, Head, Layer};
use super::focal::near_skull;
use super::plane::components;

/// Square millimeters of a cleft that blood is drawn into, at least.
const LEAST_CLEFT: f32 = 9.0;

/// Blood in clefts that are there, within a region.
pub struct Subarachnoid {
    middle: [f32; 3],
    half_axes: [f32; 3],
    density: f32,
    patchy: Noise,
}

impl Subarachnoid {
    /// Over the convexity, after trauma, or in the middle of the base, after an aneurysm. Mixed with fluid, it has 40 to 65 HU.
    pub fn new(chance: &mut Chance, head: &Head) -> Option<Self> {
        let usable = head.anatomy.usable();
        let (middle, half_axes) = if chance.is(0.72) {
            let at = usable[(chance.range(0.25, 0.92) * usable.len() as f32) as usize];
            let (side, angle) = (chance.side(), chance.range(0.3, 2.7));
            let middle = near_skull(head, at, side, angle, chance.range(4.0, 9.0))?;
            let reach = chance.small(9.0, 28.0);
            (middle, [reach, reach * chance.range(0.8, 1.4), chance.range(6.0, 18.0)])
        } else {
            let at = usable[(chance.range(0.05, 0.25) * usable.len() as f32) as usize];
            let section = head.anatomy.sections[at].as_ref()?;
            let row = section.middle[0] + chance.range(-16.0, 2.0) / head.stack.spacing;
            let middle =
                [section.midline_at(row) * head.stack.spacing, row * head.stack.spacing, head.stack.plates[at].z];
            (middle, [chance.range(18.0, 50.0), chance.range(16.0, 34.0), chance.range(9.0, 20.0)])
        };
        Some(Self { middle, half_axes, density: chance.range(48.0, 66.0), patchy: chance.noise(11.0) })
    }

    pub fn draw(&self, drawing: &mut Drawing, seed: usize) -> bool {
        let head = drawing.head;
        let layers = head.layers(|at, section| {
            if (head.stack.plates[at].z - self.middle[2]).abs() >= 1.4 * self.half_axes[2] {
                return None;
            }
            let mut share = section.depth.map(|y, x| {
                let cleft = section.cleft.at(y, x);
                if cleft < 2.0 || section.ventricle.at(y, x) > 0.2 || section.depth.at(y, x) < 0.8 {
                    return 0.0;
                }
                let point = head.point(at, y, x);
                let square: f32 = (0..3).map(|i| ((point[i] - self.middle[i]) / self.half_axes[i]).powi(2)).sum();
                let region = (1.15 - square.sqrt() + 0.35 * self.patchy.at(point)).clamp(0.0, 0.25) * 4.0;
                region * ((cleft - 2.0) / 4.5).clamp(0.0, 1.0)
            });
            // Specks are noise: a cleft has a length.
            let set: Vec<bool> = share.values.iter().map(|share| *share > 0.25).collect();
            let mut kept = vec![false; set.len()];
            for piece in components(&set, share.columns) {
                if piece.len() as f32 * head.stack.spacing.powi(2) >= LEAST_CLEFT {
                    piece.iter().for_each(|&place| kept[place] = true);
                }
            }
            share.values.iter_mut().zip(kept).for_each(|(share, kept)| *share *= f32::from(u8::from(kept)));
            let density = section.depth.map(|y, x| self.density + 3.0 * self.patchy.at(head.point(at, y, x)));
            Some(Layer { share: share.blurred(0.75), density })
        });
        let layers = drawing.visible(layers);
        drawing.draw(Some(Lesion::Subarachnoid), &layers, seed)
    }
}

/// Blood that has sunk to the back of the ventricles of a patient on the back.
pub struct Intraventricular {
    /// The rows in millimeters from which on there is blood, left and right of the midline.
    levels: [f32; 2],
    density: f32,
    uneven: Noise,
}

impl Intraventricular {
    /// None where the ventricles are too narrow to see it in.
    pub fn new(chance: &mut Chance, head: &Head) -> Option<Self> {
        let mut rows = Vec::new();
        for at in head.anatomy.usable() {
            let section = head.anatomy.sections[at].as_ref()?;
            let fluid = &section.ventricle;
            let set = (0..fluid.values.len()).filter(|&place| fluid.values[place] > 0.5);
            rows.extend(set.map(|place| (place / fluid.columns) as f32 * head.stack.spacing));
        }
        // Some two milliliters of wide fluid.
        let volume = rows.len() as f32 * head.stack.spacing.powi(2) * head.stack.thickness;
        if volume < 2500.0 {
            return None;
        }
        rows.sort_by(f32::total_cmp);
        // Of the fluid's volume a small part or up to a half.
        let filled = |share: f32| rows[((1.0 - share) * (rows.len() - 1) as f32) as usize];
        let (first, second) = (chance.small(0.04, 0.45), chance.range(0.3, 1.0));
        let both = [filled(first), filled(first * second)];
        let levels = if chance.is(0.5) { both } else { [both[1], both[0]] };
        Some(Self { levels, density: chance.range(46.0, 68.0), uneven: chance.noise(6.0) })
    }

    pub fn draw(&self, drawing: &mut Drawing, seed: usize) -> bool {
        let head = drawing.head;
        let layers = head.layers(|at, section| {
            let share = section.depth.map(|y, x| {
                let fluid = section.ventricle.at(y, x);
                if fluid <= 0.0 {
                    return 0.0;
                }
                let point = head.point(at, y, x);
                let side = usize::from(x as f32 > section.midline_at(y as f32));
                let below = point[1] - self.levels[side] + 0.8 * self.uneven.at(point);
                // The wall is fluid in part; what is drawn there keeps its share.
                (1.25 * fluid).min(1.0) * (below / 2.0 + 0.5).clamp(0.0, 1.0)
            });
            let density = section.depth.map(|y, x| self.density + 3.0 * self.uneven.at(head.point(at, y, x)));
            Some(Layer { share: share.blurred(0.6), density })
        });
        let layers = drawing.visible(layers);
        drawing.draw(Some(Lesion::Intraventricular), &layers, seed)
    }
}
