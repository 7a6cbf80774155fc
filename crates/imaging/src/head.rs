//! Whether a slice is an axial one of a head with its brain: for objects whose header says another part of the body, and to tell whether
//! the pixels of those whose header says a head are what it says, in Hounsfield units.
//!
//! An axial slice of a head is one body that bone encloses all around, close below the skin, with soft tissue and hardly any air
//! or fat inside. Ribs enclose lungs, a pelvis is open and full of fat, the bones of limbs lie in their middle. Sizes in mm
//! are not used: pixel spacing is missing or wrong too often.

use std::collections::VecDeque;
use std::f64::consts::TAU;

/// The image is reduced to at most about so many pixels a side: a skull is some 6 mm thick.
const SIDE: usize = 128;
/// Directions in which the bone is looked for.
const RAYS: usize = 96;
/// The bone is looked for in the outer part of the way from the middle to the skin.
const OUTER: f64 = 0.6;

/// Hounsfield units: what is denser is body, bone; what is less dense is air.
const BODY: f32 = -200.0;
const BONE: f32 = 250.0;
const AIR: f32 = -300.0;

/// The measurements of an axial slice. All fields are fractions, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadSigns {
    /// Directions from the middle of the body in which bone lies near the skin.
    pub enclosed: f64,
    /// The share of soft tissue like brain, blood and water (-20 to 110 HU) in the area that bone encloses.
    pub soft: f64,
    /// Bone of the skull base and the vertex.
    pub bone: f64,
    pub air: f64,
    pub fat: f64,
    /// The body's share of the image.
    pub body: f64,
}

/// What is to be seen in a slice; the later, the more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shows {
    /// Nothing denser than air.
    Nothing,
    /// Something that does not look like a head with its brain.
    Body,
    /// It may be a head, in Hounsfield units; part of the skull may be missing.
    Head,
}

impl Shows {
    /// As the ledger keeps it.
    pub fn name(self) -> &'static str {
        match self {
            Shows::Nothing => "nothing",
            Shows::Body => "body",
            Shows::Head => "head",
        }
    }

    pub fn named(name: &str) -> Option<Shows> {
        [Shows::Nothing, Shows::Body, Shows::Head].into_iter().find(|shows| shows.name() == name)
    }

    /// From the signs of a slice, none where there is no body in it.
    pub fn of(signs: Option<&HeadSigns>) -> Shows {
        match signs {
            None => Shows::Nothing,
            Some(signs) if signs.may_be_head() => Shows::Head,
            Some(_) => Shows::Body,
        }
    }
}

impl HeadSigns {
    /// Whether these are those of a head, whatever the header says. The bounds are measured, see the tests.
    pub fn is_head(&self) -> bool {
        self.enclosed >= 0.75 && self.may_be_head()
    }

    /// Whether these may be those of a head, if the header says so: its skull may be as thin as an infant's. Of a head whose lower two
    /// thirds are cut off, bone encloses less (0.61 to 0.64).
    pub fn may_be_head(&self) -> bool {
        self.enclosed >= 0.70
            && self.soft + self.bone >= 0.75
            && self.soft >= 0.25
            && self.air <= 0.10
            && self.fat <= 0.10
            && self.body >= 0.03
    }
}

/// Looks at a slice in Hounsfield units, row by row. `None` where there is no body in it.
pub fn head_signs(hounsfield: &[f32], rows: u32, columns: u32) -> Option<HeadSigns> {
    let image = Reduced::new(hounsfield, rows as usize, columns as usize)?;
    let body = image.largest_body()?;
    let pixels = body.iter().filter(|inside| **inside).count();
    let (mut y, mut x) = (0.0, 0.0);
    for (index, _) in body.iter().enumerate().filter(|(_, inside)| **inside) {
        y += (index / image.columns) as f64;
        x += (index % image.columns) as f64;
    }
    let (y, x) = (y / pixels as f64, x / pixels as f64);
    let mut enclosed = 0;
    let mut inside = Vec::new();
    for ray in 0..RAYS {
        let (sin, cos) = (TAU * ray as f64 / RAYS as f64).sin_cos();
        // Half a pixel a step, to the edge of the image.
        let way: Vec<usize> = (0..)
            .map(|step| ((y + sin * f64::from(step) / 2.0).round(), (x + cos * f64::from(step) / 2.0).round()))
            .take_while(|(y, x)| (0.0..image.rows as f64).contains(y) && (0.0..image.columns as f64).contains(x))
            .map(|(y, x)| y as usize * image.columns + x as usize)
            .collect();
        let Some(skin) = way.iter().rposition(|pixel| body[*pixel]) else { continue };
        let outer = (OUTER * skin as f64) as usize;
        if let Some(bone) = way[outer..=skin].iter().position(|pixel| image.hounsfield[*pixel] >= BONE) {
            enclosed += 1;
            inside.extend(way[..(outer + bone).saturating_sub(1)].iter().map(|pixel| image.hounsfield[*pixel]));
        }
    }
    let part = |of: &dyn Fn(f32) -> bool| {
        inside.iter().filter(|hounsfield| of(**hounsfield)).count() as f64 / inside.len().max(1) as f64
    };
    Some(HeadSigns {
        enclosed: f64::from(enclosed) / RAYS as f64,
        soft: part(&|hu| (-20.0..110.0).contains(&hu)),
        bone: part(&|hu| hu > 200.0),
        air: part(&|hu| hu < AIR),
        fat: part(&|hu| (-200.0..-25.0).contains(&hu)),
        body: pixels as f64 / body.len() as f64,
    })
}

/// A slice of fewer pixels, each the mean of a square of the original's.
struct Reduced {
    hounsfield: Vec<f32>,
    rows: usize,
    columns: usize,
}

impl Reduced {
    fn new(hounsfield: &[f32], rows: usize, columns: usize) -> Option<Reduced> {
        let step = (rows.max(columns) / SIDE).max(1);
        let (small_rows, small_columns) = (rows / step, columns / step);
        if small_rows == 0 || small_columns == 0 || hounsfield.len() < rows * columns {
            return None;
        }
        let mut reduced = vec![0.0; small_rows * small_columns];
        for y in 0..small_rows * step {
            let row = &hounsfield[y * columns..][..small_columns * step];
            for (x, square) in row.chunks_exact(step).enumerate() {
                reduced[y / step * small_columns + x] += square.iter().sum::<f32>();
            }
        }
        let pixels = (step * step) as f32;
        reduced.iter_mut().for_each(|sum| *sum /= pixels);
        let reduced = Reduced { hounsfield: reduced, rows: small_rows, columns: small_columns };
        Some(if step == 1 { reduced.smoothed() } else { reduced })
    }

    /// Each pixel the mean of itself and its neighbours: in place of the reduction, which takes the noise of larger images.
    fn smoothed(&self) -> Reduced {
        let around = |at: usize, most: usize| at.saturating_sub(1)..(at + 2).min(most);
        let mean = |index: usize| {
            let (rows, columns) = (around(index / self.columns, self.rows), around(index % self.columns, self.columns));
            let pixels = (rows.len() * columns.len()) as f32;
            let row = |y: usize| self.hounsfield[y * self.columns..][columns.clone()].iter().sum::<f32>();
            rows.map(row).sum::<f32>() / pixels
        };
        Reduced { hounsfield: (0..self.hounsfield.len()).map(mean).collect(), ..*self }
    }

    /// The largest connected region denser than air and most of fat; none where there is no such pixel.
    fn largest_body(&self) -> Option<Vec<bool>> {
        let mut region = vec![0u32; self.hounsfield.len()];
        let (mut largest, mut most) = (0, 0);
        let mut next = 0;
        for begin in 0..region.len() {
            if region[begin] != 0 || self.hounsfield[begin] <= BODY {
                continue;
            }
            next += 1;
            region[begin] = next;
            let mut front = VecDeque::from([begin]);
            let mut pixels = 0;
            while let Some(pixel) = front.pop_front() {
                pixels += 1;
                let (y, x) = (pixel / self.columns, pixel % self.columns);
                let neighbours = [
                    (y > 0).then(|| pixel - self.columns),
                    (y + 1 < self.rows).then(|| pixel + self.columns),
                    (x > 0).then(|| pixel - 1),
                    (x + 1 < self.columns).then(|| pixel + 1),
                ];
                for neighbour in neighbours.into_iter().flatten() {
                    if region[neighbour] == 0 && self.hounsfield[neighbour] > BODY {
                        region[neighbour] = next;
                        front.push_back(neighbour);
                    }
                }
            }
            if pixels > most {
                (largest, most) = (next, pixels);
            }
        }
        (largest > 0).then(|| region.iter().map(|of| *of == largest).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phantom::{Lesion, PhantomSpec, series};
    use crate::{decode_frame, read_file};

    fn is_head(object: &crate::DicomObject) -> bool {
        let frame = decode_frame(object, 0).expect("a frame");
        head_signs(&frame.hounsfield(), frame.rows, frame.columns).is_some_and(|signs| signs.is_head())
    }

    /// A body of ellipses, later ones over earlier ones: center, half axes (all in pixels of 256), Hounsfield units.
    fn body(ellipses: &[(f32, f32, f32, f32, f32)]) -> Option<HeadSigns> {
        const SIDE: usize = 256;
        let mut image = vec![-1000.0; SIDE * SIDE];
        for (index, pixel) in image.iter_mut().enumerate() {
            let (y, x) = ((index / SIDE) as f32, (index % SIDE) as f32);
            for &(cx, cy, a, b, hu) in ellipses {
                if ((x - cx) / a).powi(2) + ((y - cy) / b).powi(2) <= 1.0 {
                    *pixel = hu;
                }
            }
        }
        head_signs(&image, SIDE as u32, SIDE as u32)
    }

    /// Ribs: `count` bright ovals around an ellipse.
    fn ribs(count: usize, a: f32, b: f32, thick: f32) -> Vec<(f32, f32, f32, f32, f32)> {
        let angle = |rib: usize| TAU as f32 * rib as f32 / count as f32;
        (0..count)
            .map(|rib| (128.0 + a * angle(rib).cos(), 128.0 + b * angle(rib).sin(), thick, thick, 600.0))
            .collect()
    }

    #[test]
    fn other_parts_of_the_body_are_no_head() {
        let fat = -100.0;
        let spine = (128.0, 175.0, 14.0, 14.0, 400.0);
        let with = |first: &[(f32, f32, f32, f32, f32)], more: Vec<_>| [first, &more].concat();
        for count in [10, 16, 24] {
            let trunk = [(128.0, 128.0, 115.0, 85.0, fat), (128.0, 128.0, 105.0, 76.0, 50.0)];
            let mut chest = with(&trunk, ribs(count, 98.0, 70.0, 5.0));
            chest.extend([(80.0, 125.0, 38.0, 52.0, -850.0), (176.0, 125.0, 38.0, 52.0, -850.0), spine]);
            assert!(!body(&chest).expect("a body").is_head(), "chest with {count} ribs: {:?}", body(&chest));
            let mut upper_abdomen = with(&trunk, ribs(count, 98.0, 70.0, 5.0));
            upper_abdomen.extend([(128.0, 128.0, 85.0, 58.0, fat), (90.0, 120.0, 50.0, 40.0, 60.0), spine]);
            let said = body(&upper_abdomen).expect("a body");
            assert!(!said.is_head(), "upper abdomen with {count} ribs: {said:?}");
        }
        let pelvis = [
            (128.0, 128.0, 115.0, 80.0, fat),
            (128.0, 128.0, 100.0, 65.0, 50.0),
            (128.0, 128.0, 75.0, 45.0, fat),
            (55.0, 130.0, 12.0, 40.0, 500.0),
            (201.0, 130.0, 12.0, 40.0, 500.0),
            (128.0, 180.0, 35.0, 12.0, 400.0),
        ];
        let thigh =
            [(128.0, 128.0, 90.0, 90.0, fat), (128.0, 128.0, 75.0, 75.0, 55.0), (128.0, 128.0, 18.0, 18.0, 1200.0)];
        let neck = [
            (128.0, 128.0, 70.0, 65.0, 50.0),
            (128.0, 150.0, 22.0, 18.0, 600.0),
            (128.0, 105.0, 12.0, 10.0, -1000.0),
            (128.0, 75.0, 40.0, 8.0, 700.0),
        ];
        let abdomen = [(128.0, 128.0, 110.0, 80.0, fat), (128.0, 128.0, 85.0, 60.0, 45.0), spine];
        let water = [(128.0, 128.0, 90.0, 90.0, 0.0)];
        let bowl = [(128.0, 128.0, 90.0, 90.0, 120.0), (128.0, 128.0, 85.0, 85.0, 0.0)];
        for (name, parts) in [
            ("pelvis", &pelvis[..]),
            ("thigh", &thigh),
            ("neck", &neck),
            ("abdomen", &abdomen),
            ("water", &water),
            ("water in plastic", &bowl),
        ] {
            let said = body(parts).expect("a body");
            assert!(!said.is_head(), "{name}: {said:?}");
        }
        assert_eq!(body(&[]), None);
        assert_eq!(head_signs(&[], 0, 0), None);
        assert_eq!(head_signs(&[0.0; 4], 2, 3), None, "fewer pixels than said");
        let _ = head_signs(&[50.0], 1, 1);
    }

    #[test]
    fn a_skull_with_a_gap_may_be_a_head_and_a_head_that_is_cut_off_is_none() {
        let object = series(&PhantomSpec { slices: 30, lesion: None, seed: 1 }).nth(18).expect("a slice");
        let frame = decode_frame(&object, 0).expect("a frame");
        let (rows, columns) = (frame.rows as usize, frame.columns as usize);
        let whole = frame.hounsfield();
        let shows = |image: &[f32]| Shows::of(head_signs(image, frame.rows, frame.columns).as_ref());
        assert_eq!(shows(&whole), Shows::Head);
        // Of a quarter of the way around, the skull is as thin as an infant's.
        let mut opened = whole.clone();
        for (index, pixel) in opened.iter_mut().enumerate() {
            let (y, x) =
                ((index / columns) as f64 - rows as f64 / 2.0, (index % columns) as f64 - columns as f64 / 2.0);
            if y.atan2(x).abs() < TAU / 7.3 && *pixel > 100.0 {
                *pixel = 30.0;
            }
        }
        let signs = head_signs(&opened, frame.rows, frame.columns).expect("a body");
        assert!(signs.may_be_head() && !signs.is_head(), "{signs:?}");
        let cut: Vec<f32> =
            whole.iter().enumerate().map(|(i, hu)| if i / columns > rows / 3 { -1024.0 } else { *hu }).collect();
        assert_eq!(shows(&cut), Shows::Body, "the lower two thirds are zeros");
        // Stored values that are taken for Hounsfield units, their rescale being absent.
        assert_eq!(shows(&whole.iter().map(|hu| hu + 1024.0).collect::<Vec<_>>()), Shows::Body);
        assert_eq!(shows(&vec![-1024.0; whole.len()]), Shows::Nothing);
        assert_eq!(shows(&vec![3071.0; whole.len()]), Shows::Body);
        let mut noise = 1_u32;
        // Evenly from 0 to 4095.
        let mut next = || {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (noise >> 20) as f32
        };
        assert_eq!(shows(&(0..whole.len()).map(|_| next() - 1024.0).collect::<Vec<_>>()), Shows::Body);
        // A small image with the noise of a sharp kernel: a standard deviation of some 80.
        let small: Vec<f32> = (0..128 * 128)
            .map(|index| whole[index / 128 * 4 * columns + index % 128 * 4] + (next() - 2047.5) / 2048.0 * 140.0)
            .collect();
        let signs = head_signs(&small, 128, 128).expect("a body");
        assert!(signs.may_be_head(), "{signs:?}");
    }

    #[test]
    fn phantoms_are_heads_but_for_the_ends() {
        for seed in [1, 2] {
            let lesion = (seed % 2 == 0).then_some(Lesion::Subdural);
            let heads: Vec<bool> =
                series(&PhantomSpec { slices: 30, lesion, seed }).map(|slice| is_head(&slice)).collect();
            let count = heads.iter().filter(|head| **head).count();
            assert!(count >= 24, "seed {seed}: {count} of 30: {heads:?}");
        }
    }

    #[test]
    fn real_heads_are_heads_where_the_brain_is() {
        let data = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
        let mut files: Vec<_> = match std::fs::read_dir(data.join("ge-head")) {
            Ok(files) => files.map(|file| file.expect("an entry").path()).collect(),
            Err(_) => return println!("SKIP the shared data are absent"),
        };
        files.retain(|file| file.extension().is_some_and(|e| e == "dcm"));
        let count = files.iter().filter(|file| is_head(&read_file(file).expect("an object"))).count();
        assert!(count >= 20, "ge-head: {count} of {}", files.len());
        // Every third slice of ct-ich, whose lowest quarter shows faces and necks.
        let folder = std::fs::read_dir(data.join("ct-ich/stage_2_train")).expect("the folder beside ge-head");
        let mut files: Vec<_> = folder.map(|file| file.expect("an entry").path()).collect();
        files.sort();
        let seen: Vec<bool> =
            files.iter().step_by(3).map(|file| is_head(&read_file(file).expect("an object"))).collect();
        let part = seen.iter().filter(|head| **head).count() as f64 / seen.len() as f64;
        println!("ct-ich: {part:.3} of {} slices", seen.len());
        assert!(part >= 0.70, "{part}");
    }
}
