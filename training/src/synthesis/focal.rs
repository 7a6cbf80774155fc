//! Lesions in the brain itself: contusions, deep bleeds with edema, and old infarcts, which have their form and no blood.

use triaged_imaging::phantom::Lesion;

use super::chance::{Chance, Noise};
use super::drawing::{Drawing, Head, Layer};

/// One piece of clot, or of scar.
pub struct Focus {
    /// Blood, or an old infarct.
    is_blood: bool,
    /// In millimeters.
    middle: [f32; 3],
    half_axes: [f32; 3],
    /// How ragged its outline is, 0 an ellipsoid.
    ragged: f32,
    /// Millimeters over which its border fades.
    soft: f32,
    density: f32,
    mixed: f32,
    /// Hounsfield units that the tissue around it is darker, and over how many millimeters.
    edema: f32,
    edema_width: f32,
    outline: Noise,
    fine: Noise,
    inner: Noise,
}

impl Focus {
    /// One to four contusions near the front or the side of the brain, at its surface.
    pub fn contusions(chance: &mut Chance, head: &Head) -> Vec<Self> {
        let usable = head.anatomy.usable();
        let side = chance.side();
        let place = chance.range(0.08, 0.75);
        let angle = if chance.is(0.6) { chance.range(0.15, 0.8) } else { chance.range(1.0, 2.3) };
        let count = chance.of(&[1, 1, 2, 3, 4]);
        let mut all = Vec::new();
        for _ in 0..count {
            let at = usable[((place + chance.range(-0.06, 0.06)).clamp(0.0, 0.99) * usable.len() as f32) as usize];
            let (angle, depth) = (angle + chance.range(-0.22, 0.22), chance.range(3.5, 11.0));
            let Some(middle) = near_skull(head, at, side, angle, depth) else { continue };
            let radius = chance.small(3.2, 10.0);
            let stretch = [chance.range(0.8, 1.3), chance.range(0.8, 1.3), chance.range(0.8, 1.3)];
            all.push(Self {
                half_axes: stretch.map(|stretch| radius * stretch),
                ragged: chance.range(0.45, 0.8),
                soft: chance.range(1.8, 4.0),
                density: chance.range(50.0, 68.0),
                mixed: chance.range(6.0, 13.0),
                edema: chance.range(1.5, 7.0),
                edema_width: chance.range(5.0, 12.0),
                ..Self::at(chance, middle, true)
            });
        }
        all
    }

    /// A bleed of basal ganglia, thalamus, white matter or cerebellum.
    pub fn deep(chance: &mut Chance, head: &Head) -> Vec<Self> {
        let usable = head.anatomy.usable();
        let (low, high, least, most) = if chance.is(0.6) { (0.3, 0.5, 14.0, 30.0) } else { (0.35, 0.8, 20.0, 42.0) };
        let at = usable[(chance.range(low, high) * usable.len() as f32) as usize];
        let Some(section) = &head.anatomy.sections[at] else { return vec![] };
        let spacing = head.stack.spacing;
        let row = section.middle[0] + chance.range(-14.0, 20.0) / spacing;
        let column = section.midline_at(row) + chance.side() * chance.range(least, most) / spacing;
        let radius = chance.small(3.5, 14.0);
        let middle = [column * spacing, row * spacing, head.stack.plates[at].z + chance.range(-2.0, 2.0)];
        vec![Self {
            half_axes: half_axes(chance, radius, [(0.7, 1.0), (0.9, 1.3), (0.8, 1.1)]),
            ragged: chance.range(0.25, 0.5),
            soft: chance.range(1.4, 2.8),
            density: chance.range(52.0, 72.0),
            mixed: chance.range(2.0, 6.0),
            edema: chance.range(2.0, 8.0),
            edema_width: chance.range(4.0, 9.0),
            ..Self::at(chance, middle, true)
        }]
    }

    /// An old infarct: a piece of cortex and white matter that has become nearly water.
    pub fn infarct(chance: &mut Chance, head: &Head) -> Vec<Self> {
        let usable = head.anatomy.usable();
        let at = usable[(chance.range(0.3, 0.85) * usable.len() as f32) as usize];
        let (side, angle, depth) = (chance.side(), chance.range(0.6, 2.6), chance.range(5.0, 16.0));
        let Some(middle) = near_skull(head, at, side, angle, depth) else { return vec![] };
        let radius = chance.small(5.0, 18.0);
        vec![Self {
            half_axes: half_axes(chance, radius, [(0.8, 1.2), (0.8, 1.2), (0.6, 1.0)]),
            ragged: chance.range(0.35, 0.6),
            soft: chance.range(2.0, 4.0),
            density: chance.range(9.0, 22.0),
            mixed: 3.0,
            edema: 0.0,
            edema_width: 1.0,
            ..Self::at(chance, middle, false)
        }]
    }

    fn at(chance: &mut Chance, middle: [f32; 3], is_blood: bool) -> Self {
        Self {
            is_blood,
            middle,
            half_axes: [5.0; 3],
            ragged: 0.3,
            soft: 2.0,
            density: 60.0,
            mixed: 3.0,
            edema: 0.0,
            edema_width: 3.0,
            outline: chance.noise(7.0),
            fine: chance.noise(2.6),
            inner: chance.noise(4.0),
        }
    }

    /// How far from its middle a point is, 1 at its border.
    fn distance(&self, point: [f32; 3]) -> f32 {
        let square: f32 = (0..3).map(|i| ((point[i] - self.middle[i]) / self.half_axes[i]).powi(2)).sum();
        square.sqrt() + self.ragged * (0.7 * self.outline.at(point) + 0.5 * self.fine.at(point))
    }

    /// Draws it. Whether any slice shows enough of it.
    pub fn draw(&self, drawing: &mut Drawing, seed: usize) -> bool {
        let head = drawing.head;
        let radius = self.half_axes.iter().copied().fold(0.0, f32::max);
        let reach = radius * (1.0 + 1.2 * self.ragged) + self.soft;
        let near = |at: &usize| {
            (head.stack.plates[*at].z - self.middle[2]).abs()
                < self.half_axes[2] * (1.0 + 1.2 * self.ragged) + head.stack.thickness
        };
        let layers = head.layers(|at, section| {
            if !near(&at) {
                return None;
            }
            let soft = self.soft / self.half_axes[0].max(2.0);
            let share = section.depth.map(|y, x| {
                let [across, down, _] = head.point(at, y, x);
                let away = (across - self.middle[0]).hypot(down - self.middle[1]);
                if away > reach || !section.inside[y * section.depth.columns + x] {
                    return 0.0;
                }
                head.through(at, |z| ((1.0 - self.distance([across, down, z])) / soft + 0.5).clamp(0.0, 1.0))
            });
            let density = section.depth.map(|y, x| self.density + self.mixed * self.inner.at(head.point(at, y, x)));
            Some(Layer { share: share.blurred(0.7), density })
        });
        let layers = drawing.visible(layers);
        let width = self.edema_width / self.half_axes[0].max(2.0);
        for (at, _) in layers.iter().filter(|_| self.edema > 0.0) {
            drawing.add(*at, |section, y, x, value| {
                let point = head.point(*at, y, x);
                let away = (point[0] - self.middle[0]).hypot(point[1] - self.middle[1]);
                if away > reach + 2.0 * self.edema_width || value > 60.0 {
                    return 0.0;
                }
                let around = (1.0 - (self.distance(point) - 1.0).max(0.0) / width).clamp(0.0, 1.0).powi(2);
                // Tissue swells; fluid and bone do not.
                let tissue = ((section.smooth.at(y, x) - 12.0) / 12.0).clamp(0.0, 1.0);
                -self.edema * around * tissue
            });
        }
        drawing.draw(self.is_blood.then_some(Lesion::Intraparenchymal), &layers, seed)
    }
}

/// The point so many millimeters inside the inner table in a direction; none where the section has no such place.
pub fn near_skull(head: &Head, at: usize, side: f32, angle: f32, depth: f32) -> Option<[f32; 3]> {
    let section = head.anatomy.sections[at].as_ref()?;
    let half_height = (section.rows[1] - section.rows[0]) / 2.0;
    let mut found = None;
    // From the middle outward, the last place that is deep enough.
    for step in 0..200 {
        let out = step as f32 / 160.0;
        let row = section.middle[0] - out * angle.cos() * half_height;
        let column = section.midline_at(row) + side * out * angle.sin() * section.half_width;
        let inside = row >= 0.0
            && column >= 0.0
            && (row as usize) < section.depth.rows
            && (column as usize) < section.depth.columns;
        if inside && section.depth.at(row as usize, column as usize) >= depth {
            found = Some([column * head.stack.spacing, row * head.stack.spacing, head.stack.plates[at].z]);
        }
    }
    found
}

/// Half axes in millimeters: the radius times a share drawn from each range.
fn half_axes(chance: &mut Chance, radius: f32, shares: [(f32, f32); 3]) -> [f32; 3] {
    shares.map(|(least, most)| radius * chance.range(least, most))
}
