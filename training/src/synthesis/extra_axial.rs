//! Collections between skull and brain: crescents (subdural) and lenses (epidural), of blood or of water (hygroma).

use std::collections::BTreeMap;

use triaged_imaging::phantom::Lesion;

use super::anatomy::Section;
use super::chance::{Chance, Noise};
use super::drawing::{Drawing, Head, Layer};
use super::plane::Plane;

/// A collection along the inner table.
pub struct Collection {
    /// Blood of this kind; none for water.
    lesion: Option<Lesion>,
    side: f32,
    /// Its middle: the angle from the front, and the height in millimeters.
    angle: f32,
    height: f32,
    /// Half its extent: the angle, and millimeters of height.
    half_angle: f32,
    half_height: f32,
    /// Millimeters where it is thickest.
    thickness: f32,
    /// Hounsfield units, and by how much they change within it.
    density: f32,
    mixed: f32,
    /// Hounsfield units that it is denser at the back, where cells settle.
    settled: f32,
    rough: Noise,
    fine: Noise,
    inner: Noise,
}

impl Collection {
    /// A crescent over a wide arc. Acute blood has 50 to 75 HU; in the second and third week it is as bright as brain, later darker.
    /// (R. Bradford et al.: Serial neuroimaging of subdural hematomas, 2013; a HU less a day and a half.)
    pub fn subdural(chance: &mut Chance, head: &Head) -> Self {
        let (density, settled) = match chance.range(0.0, 1.0) {
            acute if acute < 0.78 => (chance.range(50.0, 72.0), 0.0),
            subacute if subacute < 0.9 => (chance.range(38.0, 47.0), chance.range(0.0, 8.0)),
            _ => (chance.range(24.0, 32.0), chance.range(8.0, 22.0)),
        };
        // What is as bright as brain is seen by what it pushes away: a thin one would be invisible.
        let least = if density < 48.0 { 5.0 } else { 2.4 };
        let thickness = chance.small(least, 10.0);
        Self {
            half_angle: chance.range(0.45, 1.0),
            half_height: chance.range(14.0, 38.0),
            thickness,
            density,
            settled,
            mixed: chance.range(1.0, 5.0),
            ..Self::somewhere(chance, head, Some(Lesion::Subdural))
        }
    }

    /// A lens under the vault, most often at its side. Fresh clot has 55 to 80 HU, and less where blood still flows in.
    pub fn epidural(chance: &mut Chance, head: &Head) -> Self {
        let thickness = chance.small(4.0, 18.0);
        // A lens is some five times as wide as thick, and as high.
        let half_width = thickness * chance.range(2.0, 3.0);
        let swirl = chance.is(0.25);
        Self {
            half_angle: (half_width / 62.0).clamp(0.16, 0.6),
            half_height: half_width * chance.range(0.8, 1.2),
            thickness,
            density: chance.range(52.0, 76.0),
            mixed: if swirl { chance.range(7.0, 12.0) } else { chance.range(1.0, 4.0) },
            ..Self::somewhere(chance, head, Some(Lesion::Epidural))
        }
    }

    /// Water in a crescent: no blood, though it has a subdural's form.
    pub fn hygroma(chance: &mut Chance, head: &Head) -> Self {
        Self {
            half_angle: chance.range(0.5, 1.1),
            half_height: chance.range(16.0, 38.0),
            thickness: chance.small(3.0, 9.0),
            density: chance.range(4.0, 11.0),
            mixed: 0.5,
            ..Self::somewhere(chance, head, None)
        }
    }

    fn somewhere(chance: &mut Chance, head: &Head, lesion: Option<Lesion>) -> Self {
        let usable = head.anatomy.usable();
        let height = |place: usize| head.stack.plates[usable[place.min(usable.len() - 1)]].z;
        let (low, high) = (height(usable.len() / 5), height(usable.len() * 4 / 5));
        Self {
            lesion,
            side: chance.side(),
            angle: chance.range(0.9, 2.2),
            height: chance.range(low, high),
            half_angle: 0.5,
            half_height: 20.0,
            thickness: 3.0,
            density: 60.0,
            mixed: 2.0,
            settled: 0.0,
            rough: chance.noise(16.0),
            fine: chance.noise(5.0),
            inner: chance.noise(7.0),
        }
    }

    /// Draws it. Whether any slice shows enough of it.
    pub fn draw(&self, drawing: &mut Drawing, seed: usize) -> bool {
        let head = drawing.head;
        let mut thickness = BTreeMap::new();
        let mut layers = Vec::new();
        for at in head.anatomy.usable() {
            let away = (head.stack.plates[at].z - self.height).abs();
            let Some(section) = head.anatomy.sections[at].as_ref() else { continue };
            if away < self.half_height + head.stack.thickness {
                let (layer, thick) = self.layer(head, section, at);
                layers.push((at, layer));
                thickness.insert(at, thick);
            }
        }
        let layers = drawing.visible(layers);
        for (at, _) in &layers {
            drawing.push(*at, &thickness[at]);
        }
        drawing.draw(self.lesion, &layers, seed)
    }

    /// The layer of a slice, and how thick the collection is at each pixel's direction.
    fn layer(&self, head: &Head, section: &Section, at: usize) -> (Layer, Plane) {
        let thickness_at = |y: usize, x: usize, z: f32| {
            let (side, angle) = head.direction(section, y, x);
            if side != self.side {
                return 0.0;
            }
            let (u, w) = ((angle - self.angle).abs() / self.half_angle, (z - self.height).abs() / self.half_height);
            if u >= 1.0 || w >= 1.0 {
                return 0.0;
            }
            let along = if self.lesion == Some(Lesion::Epidural) { 1.0 - u * u } else { 1.0 - u.powi(4) };
            let [across, down, _] = head.point(at, y, x);
            let rough = self.rough.at([across, down, z]);
            let uneven = if self.lesion == Some(Lesion::Epidural) { 1.0 + 0.1 * rough } else { 1.0 + 0.3 * rough };
            self.thickness * along * (1.0 - w * w).sqrt() * uneven
        };
        let within = |y: usize, x: usize| section.inside[y * section.depth.columns + x];
        let z = head.stack.plates[at].z;
        let thickness = section.depth.map(|y, x| if within(y, x) { thickness_at(y, x, z) } else { 0.0 });
        let share = section.depth.map(|y, x| {
            let depth = section.depth.at(y, x);
            if !within(y, x) || depth > 1.5 * self.thickness + 2.0 || thickness.at(y, x) <= 0.0 && depth > 3.0 {
                return 0.0;
            }
            let [across, down, _] = head.point(at, y, x);
            head.through(at, |z| {
                let thick = thickness_at(y, x, z);
                let edge = thick + 0.35 * self.fine.at([across, down, z]);
                if thick <= 0.6 { 0.0 } else { ((edge - depth) / 1.1 + 0.5).clamp(0.0, 1.0) }
            })
        });
        let density = section.depth.map(|y, x| {
            let [across, down, z] = head.point(at, y, x);
            let back = (y as f32 - section.middle[0]) / (section.rows[1] - section.rows[0]).max(1.0) + 0.5;
            self.density + self.mixed * self.inner.at([across, down, z]) + self.settled * back.clamp(0.0, 1.0)
        });
        (Layer { share: share.blurred(0.7), density }, thickness.blurred(3.0))
    }
}
