//! The sheet that is drawn on: a head's images as they become, and where blood is.

use std::collections::BTreeSet;

use triaged_imaging::phantom::Lesion;

use super::anatomy::{Anatomy, Section};
use super::plane::Plane;
use super::stack::Stack;

/// The share of a pixel that must be blood for the mask to have it.
pub const MASKED: f32 = 0.4;
/// A slice has blood with at least so many square millimeters of it; where a bleed shows less, nothing is drawn.
pub const LEAST_AREA: f32 = 12.0;
/// Hounsfield units by which a bleed changes its pixels in the mean, at least: some three times the noise of a smoothed image.
const LEAST_CONTRAST: f32 = 9.0;
/// Parts of a slice's thickness that are looked at for themselves, as shares of it from its middle.
const PARTS: [f32; 5] = [-0.4, -0.2, 0.0, 0.2, 0.4];
/// Millimeters from the inner table within which bone brightens the image: nothing there becomes darker.
const RIM: f32 = 1.4;

/// A head to draw into.
pub struct Head {
    pub stack: Stack,
    pub anatomy: Anatomy,
}

impl Head {
    pub fn new(stack: Stack) -> Self {
        let anatomy = Anatomy::of(&stack);
        Self { stack, anatomy }
    }

    /// What something is in each slice that has a usable section; `layer` gives none where it is not.
    pub fn layers(&self, layer: impl Fn(usize, &Section) -> Option<Layer>) -> Vec<(usize, Layer)> {
        let usable = self.anatomy.usable().into_iter();
        usable.filter_map(|at| Some((at, layer(at, self.anatomy.sections[at].as_ref()?)?))).collect()
    }

    /// A pixel's place in millimeters: across, down, and up along the slices' normal.
    pub fn point(&self, at: usize, y: usize, x: usize) -> [f32; 3] {
        [x as f32 * self.stack.spacing, y as f32 * self.stack.spacing, self.stack.plates[at].z]
    }

    /// A pixel's direction from the section's middle: -1 or 1 for the side of the midline, and the angle from the front, 0 there, a half
    /// circle at the back.
    pub fn direction(&self, section: &Section, y: usize, x: usize) -> (f32, f32) {
        let half_height = (section.rows[1] - section.rows[0]).max(1.0) / 2.0;
        let off = x as f32 - section.midline_at(y as f32);
        let down = (y as f32 - section.middle[0]) / half_height;
        ((if off < 0.0 { -1.0 } else { 1.0 }), (off.abs() / section.half_width.max(1.0)).atan2(-down))
    }

    /// The mean of a value over the slice's thickness, which a function gives at heights in millimeters.
    pub fn through(&self, at: usize, value: impl Fn(f32) -> f32) -> f32 {
        let z = self.stack.plates[at].z;
        PARTS.iter().map(|part| value(z + part * self.stack.thickness)).sum::<f32>() / PARTS.len() as f32
    }
}

/// What a bleed or its like is in one slice: the share of each pixel that it takes, and its Hounsfield units there.
pub struct Layer {
    pub share: Plane,
    pub density: Plane,
}

/// A head's images with what was drawn so far.
pub struct Drawing<'a> {
    pub head: &'a Head,
    pub images: Vec<Plane>,
    /// The share of each pixel that is blood.
    pub blood: Vec<Plane>,
    /// The kinds of blood that each slice shows.
    pub kinds: Vec<BTreeSet<&'static str>>,
}

impl<'a> Drawing<'a> {
    pub fn new(head: &'a Head) -> Self {
        let images: Vec<Plane> = head.stack.plates.iter().map(|plate| plate.image.clone()).collect();
        let blood = images.iter().map(|image| Plane::of(image.rows, image.columns, 0.0)).collect();
        Self { head, kinds: vec![BTreeSet::new(); images.len()], images, blood }
    }

    /// Of a finding's layers, one a slice that can be drawn into, those that a reader could see; of these the longest run of neighbouring
    /// slices.
    pub fn visible(&self, layers: Vec<(usize, Layer)>) -> Vec<(usize, Layer)> {
        let mut runs: Vec<Vec<(usize, Layer)>> = Vec::new();
        for (at, layer) in layers.into_iter().filter(|(at, layer)| self.shows(*at, layer)) {
            match runs.last_mut().filter(|run| run.last().is_some_and(|(last, _)| last + 1 == at)) {
                Some(run) => run.push((at, layer)),
                None => runs.push(vec![(at, layer)]),
            }
        }
        runs.into_iter().max_by_key(Vec::len).unwrap_or_default()
    }

    /// Draws the layers, and notes them as blood where they are. Whether there are any.
    pub fn draw(&mut self, lesion: Option<Lesion>, layers: &[(usize, Layer)], seed: usize) -> bool {
        for (at, layer) in layers {
            self.lay(*at, layer, seed);
            if let Some(lesion) = lesion {
                let blood = &mut self.blood[*at].values;
                blood.iter_mut().zip(&layer.share.values).for_each(|(blood, share)| *blood = blood.max(*share));
                self.kinds[*at].insert(lesion.name());
            }
        }
        !layers.is_empty()
    }

    /// Whether a reader could see a bleed's layer: enough of it, clear of the bone and unlike the tissue that it takes the place of. A label
    /// that nobody could give teaches nothing.
    fn shows(&self, at: usize, layer: &Layer) -> bool {
        let Some(section) = &self.head.anatomy.sections[at] else { return false };
        let spacing = self.head.stack.spacing;
        let masked = |place: &usize| layer.share.values[*place] >= MASKED && section.depth.values[*place] >= RIM;
        let clear: Vec<usize> = (0..layer.share.values.len()).filter(masked).collect();
        let contrast = |&place: &usize| {
            layer.share.values[place] * (layer.density.values[place] - section.smooth.values[place]).abs()
        };
        let mean = clear.iter().map(contrast).sum::<f32>() / clear.len().max(1) as f32;
        clear.len() as f32 * spacing * spacing >= LEAST_AREA && mean >= LEAST_CONTRAST
    }

    /// Puts a layer in the place of the tissue, with the slice's own noise in it.
    pub fn lay(&mut self, at: usize, layer: &Layer, seed: usize) {
        let Some(section) = &self.head.anatomy.sections[at] else { return };
        let image = &mut self.images[at];
        for y in 0..image.rows {
            for x in 0..image.columns {
                let place = y * image.columns + x;
                let share = layer.share.values[place];
                if share <= 0.0 || !section.inside[place] {
                    continue;
                }
                let old = image.values[place];
                let drawn = layer.density.values[place] + section.noise_at(y, x, seed);
                let new = old + share * (drawn - old);
                image.values[place] = if section.depth.values[place] < RIM { new.max(old) } else { new };
            }
        }
    }

    /// Adds Hounsfield units inside the skull.
    pub fn add(&mut self, at: usize, change: impl Fn(&Section, usize, usize, f32) -> f32) {
        let Some(section) = &self.head.anatomy.sections[at] else { return };
        let image = &mut self.images[at];
        for y in 0..image.rows {
            for x in 0..image.columns {
                let place = y * image.columns + x;
                if section.inside[place] {
                    image.values[place] += change(section, y, x, image.values[place]);
                }
            }
        }
    }

    /// Pushes the brain away from the skull by so many millimeters at each pixel's direction; less, the deeper it lies.
    pub fn push(&mut self, at: usize, thickness: &Plane) {
        const YIELD: f32 = 0.8;
        const REACH: f32 = 24.0;
        let Some(section) = &self.head.anatomy.sections[at] else { return };
        let spacing = self.head.stack.spacing;
        let inward = section.depth.blurred(2.5);
        let old = self.images[at].clone();
        let image = &mut self.images[at];
        for y in 1..image.rows - 1 {
            for x in 1..image.columns - 1 {
                let place = y * image.columns + x;
                let (thick, depth) = (thickness.values[place], section.depth.values[place]);
                if !section.inside[place] || thick <= 0.2 {
                    continue;
                }
                let wanted = thick * YIELD * (-(depth - thick).max(0.0) / REACH).exp();
                let shift = wanted.min((depth - RIM).max(0.0)) / spacing;
                let (down, right) =
                    (inward.at(y + 1, x) - inward.at(y - 1, x), inward.at(y, x + 1) - inward.at(y, x - 1));
                let length = down.hypot(right);
                if shift < 0.05 || length < 1e-3 {
                    continue;
                }
                // What lies here now lay nearer to the skull.
                let (from_y, from_x) = (y as f32 - shift * down / length, x as f32 - shift * right / length);
                image.values[place] = old.between(from_y, from_x);
            }
        }
    }
}
