//! What is known of a head before something is drawn into it: where the inner table of the skull is, the midline, fluid, and how
//! noisy its tissue is.

use super::plane::{Plane, components, depth};
use super::stack::Stack;

/// Hounsfield units from which a pixel is bone.
const BONE: f32 = 150.0;
/// Gaps in the skull up to this many millimeters are closed.
const GAP: f32 = 5.0;
/// Square millimeters of brain that a section needs at least to be drawn into.
const LEAST_AREA: f32 = 2500.0;
/// The share of a section that lies in the one above it, at least: below that, the skull base begins.
const LEAST_OVERLAP: f32 = 0.8;
/// Of the pixels just outside the brain, the share that must have bone near them.
const LEAST_ENCLOSED: f32 = 0.85;

/// One slice's section through the inside of the skull.
pub struct Section {
    /// Pixels inside the inner table.
    pub inside: Vec<bool>,
    /// Millimeters from the inner table, 0 outside.
    pub depth: Plane,
    /// The image, smoothed within the section.
    pub smooth: Plane,
    /// How far a pixel is darker than its surroundings, in Hounsfield units: sulci, fissures and cisterns.
    pub cleft: Plane,
    /// How much of a pixel is wide fluid away from the skull, 0 to 1: the ventricles.
    pub ventricle: Plane,
    /// The middle of the section, in pixels.
    pub middle: [f32; 2],
    /// The midline's column is `midline[0] + midline[1] · row`.
    pub midline: [f32; 2],
    /// Rows of the section's first and last pixel.
    pub rows: [f32; 2],
    /// Half the section's width in pixels.
    pub half_width: f32,
    /// A piece of the image's own noise, around 0, that is laid where blood takes the tissue's place.
    noise: Plane,
}

/// The sections of a head, one a slice; none where the slice shows no closed skull around brain.
pub struct Anatomy {
    pub sections: Vec<Option<Section>>,
}

impl Anatomy {
    pub fn of(stack: &Stack) -> Self {
        let found: Vec<Option<Vec<bool>>> =
            stack.plates.iter().map(|plate| inside(&plate.image, stack.spacing)).collect();
        let area = |set: &Option<Vec<bool>>| set.as_ref().map_or(0, |set| set.iter().filter(|set| **set).count());
        let widest = (0..found.len()).max_by_key(|&at| area(&found[at])).unwrap_or(0);
        // From the widest section up and down, as long as one lies over the other.
        let mut kept = vec![false; found.len()];
        let joined = |at: usize, next: usize| match (&found[at], &found[next]) {
            (Some(a), Some(b)) => {
                let both = a.iter().zip(b).filter(|(a, b)| **a && **b).count() as f32;
                let smaller = area(&found[at]).min(area(&found[next])) as f32;
                let larger = area(&found[at]).max(area(&found[next])) as f32;
                both / smaller >= LEAST_OVERLAP && smaller / larger >= 0.5
            }
            _ => false,
        };
        if found.get(widest).is_some_and(Option::is_some) {
            kept[widest] = true;
            (widest + 1..found.len()).take_while(|&at| joined(at - 1, at)).for_each(|at| kept[at] = true);
            (0..widest).rev().take_while(|&at| joined(at + 1, at)).for_each(|at| kept[at] = true);
        }
        let sections = found.into_iter().zip(kept).zip(&stack.plates);
        let section = |set: Option<Vec<bool>>, image: &Plane| Some(Section::new(set?, image, stack.spacing));
        Self { sections: sections.map(|((set, kept), plate)| section(set.filter(|_| kept), &plate.image)).collect() }
    }

    /// The slices that can be drawn into, from below.
    pub fn usable(&self) -> Vec<usize> {
        (0..self.sections.len()).filter(|&at| self.sections[at].is_some()).collect()
    }
}

/// The pixels inside a closed skull: none in a slice without one, or with air in it.
fn inside(image: &Plane, spacing: f32) -> Option<Vec<bool>> {
    let (rows, columns) = (image.rows, image.columns);
    let smooth = image.blurred(0.7);
    let bone: Vec<bool> = smooth.values.iter().map(|&value| value > BONE).collect();
    let away = |set: &[bool]| depth(&set.iter().map(|set| !set).collect::<Vec<_>>(), rows, columns);
    let gap = GAP / spacing;
    // What is left inside when the bone is thickened by half a gap; the largest piece that does not reach the border.
    let from_bone = away(&bone);
    let open: Vec<bool> = from_bone.values.iter().map(|&pixels| pixels > gap / 2.0).collect();
    let border = |place: usize| {
        let (y, x) = (place / columns, place % columns);
        y == 0 || x == 0 || y + 1 == rows || x + 1 == columns
    };
    let piece = components(&open, columns)
        .into_iter()
        .filter(|piece| !piece.iter().any(|&place| border(place)))
        .max_by_key(Vec::len)?;
    let mut core = vec![false; rows * columns];
    piece.iter().for_each(|&place| core[place] = true);
    // Grown again up to the bone.
    let from_core = away(&core);
    let set: Vec<bool> =
        (0..rows * columns).map(|place| !bone[place] && from_core.values[place] <= gap / 2.0 + 1.0).collect();
    let count = set.iter().filter(|set| **set).count() as f32;
    if count * spacing * spacing < LEAST_AREA {
        return None;
    }
    let mean = (0..set.len()).filter(|&place| set[place]).map(|place| smooth.values[place]).sum::<f32>() / count;
    let air = (0..set.len()).filter(|&place| set[place] && image.values[place] < -150.0).count() as f32;
    if !(18.0..50.0).contains(&mean) || air / count > 0.001 {
        return None;
    }
    // Bone behind nearly all of the border: no orbit, no open skull base.
    let outer = away(&set);
    let rim: Vec<usize> = (0..set.len()).filter(|&place| outer.values[place] == 1.0).collect();
    let enclosed = rim.iter().filter(|&&place| from_bone.values[place] * spacing < 2.5).count() as f32;
    (enclosed / rim.len().max(1) as f32 >= LEAST_ENCLOSED).then_some(set)
}

impl Section {
    fn new(inside: Vec<bool>, image: &Plane, spacing: f32) -> Self {
        let (rows, columns) = (image.rows, image.columns);
        let mut depth = depth(&inside, rows, columns);
        depth.values.iter_mut().for_each(|pixels| *pixels *= spacing);
        let smooth = image.blurred_within(&inside, 0.55 / spacing);
        let wide = image.blurred_within(&inside, 3.0 / spacing);
        let cleft =
            smooth.map(|y, x| if depth.at(y, x) > 0.5 { (wide.at(y, x) - smooth.at(y, x)).max(0.0) } else { 0.0 });
        let ventricle = ventricle(&image.blurred_within(&inside, 0.9 / spacing), &depth, spacing);
        let places: Vec<(f32, f32)> = (0..inside.len())
            .filter(|&place| inside[place])
            .map(|place| ((place / columns) as f32, (place % columns) as f32))
            .collect();
        let count = places.len() as f32;
        let middle =
            [places.iter().map(|(y, _)| y).sum::<f32>() / count, places.iter().map(|(_, x)| x).sum::<f32>() / count];
        let ends = |along: fn(&(f32, f32)) -> f32| {
            places
                .iter()
                .map(along)
                .fold([f32::INFINITY, f32::NEG_INFINITY], |[low, high], at| [low.min(at), high.max(at)])
        };
        let (vertical, horizontal) = (ends(|place| place.0), ends(|place| place.1));
        Self {
            midline: midline(&inside, columns, vertical),
            noise: noise(image, &inside, &depth, spacing),
            inside,
            depth,
            smooth,
            cleft,
            ventricle,
            middle,
            rows: vertical,
            half_width: (horizontal[1] - horizontal[0]) / 2.0,
        }
    }

    /// The column of the midline in a row.
    pub fn midline_at(&self, row: f32) -> f32 {
        self.midline[0] + self.midline[1] * row
    }

    /// The image's own noise where something is drawn; another `seed` shows another part of it.
    pub fn noise_at(&self, y: usize, x: usize, seed: usize) -> f32 {
        // Mirrored at its ends, so that no seam shows.
        let fold = |at: usize, length: usize| {
            let at = at % (2 * length);
            if at < length { at } else { 2 * length - 1 - at }
        };
        let (rows, columns) = (self.noise.rows, self.noise.columns);
        self.noise.at(fold(y + 7 * seed, rows), fold(x + 13 * seed, columns))
    }
}

/// A straight line through the middles of the section's rows.
fn midline(inside: &[bool], columns: usize, [first, last]: [f32; 2]) -> [f32; 2] {
    let (quarter, mut points) = ((last - first) / 5.0, Vec::new());
    for row in (first + quarter) as usize..(last - quarter) as usize {
        let set: Vec<usize> = (0..columns).filter(|&x| inside[row * columns + x]).collect();
        if let (Some(left), Some(right)) = (set.first(), set.last()) {
            points.push((row as f32, (left + right) as f32 / 2.0));
        }
    }
    let count = points.len().max(1) as f32;
    let (y, x) = points.iter().fold((0.0, 0.0), |(a, b), (y, x)| (a + y / count, b + x / count));
    let spread: f32 = points.iter().map(|point| (point.0 - y).powi(2)).sum();
    let slope = points.iter().map(|point| (point.0 - y) * (point.1 - x)).sum::<f32>() / spread.max(1.0);
    [x - slope * y, slope]
}

/// Fluid deep in the head, in pieces wide enough to be a ventricle.
fn ventricle(smooth: &Plane, depth: &Plane, spacing: f32) -> Plane {
    let share = |place: usize| ((19.0 - smooth.values[place]) / 9.0).clamp(0.0, 1.0);
    let deep: Vec<bool> =
        (0..depth.values.len()).map(|place| depth.values[place] > 22.0 && share(place) > 0.4).collect();
    let mut kept = Plane::of(smooth.rows, smooth.columns, 0.0);
    for piece in components(&deep, smooth.columns) {
        if piece.len() as f32 * spacing * spacing >= 25.0 {
            piece.iter().for_each(|&place| kept.values[place] = 1.0);
        }
    }
    // With the pixels at their walls, which are fluid in part.
    let near = kept.blurred(1.0 / spacing);
    kept.map(|y, x| if near.at(y, x) > 0.1 { share(y * smooth.columns + x) } else { 0.0 })
}

/// The noise of the most even square of the section, without what is larger than it.
fn noise(image: &Plane, inside: &[bool], depth: &Plane, spacing: f32) -> Plane {
    let edge = ((14.0 / spacing) as usize).clamp(8, 40);
    let smooth = image.blurred_within(inside, 1.6 / spacing);
    let mut best: Option<(f32, usize, usize)> = None;
    for top in (0..image.rows.saturating_sub(edge)).step_by(edge / 3) {
        for left in (0..image.columns.saturating_sub(edge)).step_by(edge / 3) {
            let middle = depth.at(top + edge / 2, left + edge / 2);
            if middle < 14.0 {
                continue;
            }
            let square = (top..top + edge).flat_map(|y| (left..left + edge).map(move |x| (y, x)));
            let values: Vec<f32> = square.map(|(y, x)| smooth.at(y, x)).collect();
            let mean = values.iter().sum::<f32>() / values.len() as f32;
            let spread = values.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / values.len() as f32;
            if best.is_none_or(|(least, ..)| spread < least) {
                best = Some((spread, top, left));
            }
        }
    }
    let Some((_, top, left)) = best else { return Plane::of(1, 1, 0.0) };
    Plane::of(edge, edge, 0.0)
        .map(|y, x| (image.at(top + y, left + x) - smooth.at(top + y, left + x)).clamp(-15.0, 15.0))
}
