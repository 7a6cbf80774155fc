//! How a head lies in a frame, and the turn that brings the patient's front up and the patient's left to the right: as the
//! images lie that models are trained on.
//!
//! A patient on the side or prone, or an image from a system that mirrors, lies otherwise. Image Orientation (PS3.3 C.7.6.2.1.1)
//! says how. Only quarter turns and mirrors are undone: pixels change places, and none is computed anew.

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use serde::{Deserialize, Serialize};

use super::attributes::{item, values};
use super::object::DicomObject;

/// The least part of a plane's normal along the patient's length for the plane to count as axial: within 45 degrees.
const AXIAL: f64 = 0.707;

/// The direction cosines of a frame's rows, then of its columns (Image Orientation; x to the patient's left, y to the back, z to
/// the head): those of the frame's own functional groups, else of the shared ones, else of the object. None where they are absent,
/// or not six finite numbers.
pub fn image_orientation(object: &DicomObject, frame: u32) -> Option<[f64; 6]> {
    let groups = [
        item(object, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, frame as usize),
        item(object, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, 0),
    ];
    let planes = groups.into_iter().flatten().filter_map(|group| item(group, tags::PLANE_ORIENTATION_SEQUENCE, 0));
    let said = |place: &InMemDicomObject| {
        Some(values(place, ORIENTATION)).filter(|values| values.iter().any(|value| !value.is_empty()))
    };
    let number = |value: &String| value.replace(',', ".").parse::<f64>().ok().filter(|number| number.is_finite());
    let said = planes.chain([&**object]).find_map(said)?;
    said.iter().map(number).collect::<Option<Vec<f64>>>()?.try_into().ok()
}

const ORIENTATION: Tag = tags::IMAGE_ORIENTATION_PATIENT;

/// A way to turn or mirror a frame: its rows reversed or not, its columns reversed or not, then rows and columns exchanged or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Turn {
    /// The frame's last row comes first.
    rows_reversed: bool,
    /// The frame's last column comes first.
    columns_reversed: bool,
    /// What is a column of the frame becomes a row.
    transposed: bool,
}

impl Turn {
    /// The turn that brings a frame of these direction cosines upright, to the nearest quarter: the patient's front up, the left to
    /// the right. None is made of a plane that is not axial, or of what spans no plane.
    pub fn upright(orientation: &[f64; 6]) -> Turn {
        let [row_x, row_y, row_z, column_x, column_y, column_z] = *orientation;
        let normal = [
            row_y * column_z - row_z * column_y,
            row_z * column_x - row_x * column_z,
            row_x * column_y - row_y * column_x,
        ];
        let length = normal.iter().map(|part| part * part).sum::<f64>().sqrt();
        if !(0.5..2.0).contains(&length) || normal[2].abs() < AXIAL * length {
            return Turn::default();
        }
        match row_x.abs() + column_y.abs() >= row_y.abs() + column_x.abs() {
            true => Turn { rows_reversed: column_y < 0.0, columns_reversed: row_x < 0.0, transposed: false },
            false => Turn { rows_reversed: column_x < 0.0, columns_reversed: row_y < 0.0, transposed: true },
        }
    }

    /// The turn that brings frame `frame` (from 0) of an object upright.
    pub fn of(object: &DicomObject, frame: u32) -> Turn {
        image_orientation(object, frame).map_or_else(Turn::default, |orientation| Turn::upright(&orientation))
    }

    /// Whether it leaves the frame as it is.
    pub fn is_none(self) -> bool {
        self == Turn::default()
    }

    /// The degrees by which a head of these direction cosines lies aslant in its plane once it is turned: 0 to 45.
    pub fn left_over(self, orientation: &[f64; 6]) -> f64 {
        let [x, y, ..] = *orientation;
        let (along, across) = if self.transposed { (y, x) } else { (x, y) };
        across.abs().atan2(along.abs()).to_degrees()
    }

    /// The turn that undoes it.
    #[must_use]
    pub fn back(self) -> Turn {
        match self.transposed {
            false => self,
            true => {
                Turn { rows_reversed: self.columns_reversed, columns_reversed: self.rows_reversed, transposed: true }
            }
        }
    }

    /// The rows and columns of a turned image of so many.
    pub fn size(self, rows: u32, columns: u32) -> (u32, u32) {
        if self.transposed { (columns, rows) } else { (rows, columns) }
    }

    /// An image of `rows` and `columns`, row by row, turned; [`size`](Self::size) says how many it has then.
    pub fn turned<T: Copy>(self, image: Vec<T>, rows: u32, columns: u32) -> Vec<T> {
        if self.is_none() {
            return image;
        }
        let (rows, columns) = (rows as usize, columns as usize);
        let at = |row: usize, column: usize| {
            let row = if self.rows_reversed { rows - 1 - row } else { row };
            let column = if self.columns_reversed { columns - 1 - column } else { column };
            image[row * columns + column]
        };
        match self.transposed {
            false => {
                (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))).map(|(r, c)| at(r, c)).collect()
            }
            true => {
                (0..columns).flat_map(|column| (0..rows).map(move |row| (row, column))).map(|(r, c)| at(r, c)).collect()
            }
        }
    }

    /// A rectangle (left, top, width, height; it may reach beyond) of an image of `rows` and `columns`, where it lies once the image is
    /// turned.
    pub fn rectangle(self, [left, top, width, height]: [i64; 4], rows: u32, columns: u32) -> [i64; 4] {
        let top = if self.rows_reversed { i64::from(rows) - top - height } else { top };
        let left = if self.columns_reversed { i64::from(columns) - left - width } else { left };
        if self.transposed { [top, left, height, width] } else { [left, top, width, height] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of 2 rows and 3 columns that shows a patient with these direction cosines; the numbers are those of the upright image
    /// (of 2 by 3 or 3 by 2), where 1 is the right front.
    const SEEN: [([f64; 6], [u8; 6], [u8; 6]); 8] = [
        ([1.0, 0.0, 0.0, 0.0, 1.0, 0.0], [1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]),
        ([-1.0, 0.0, 0.0, 0.0, -1.0, 0.0], [6, 5, 4, 3, 2, 1], [1, 2, 3, 4, 5, 6]),
        ([-1.0, 0.0, 0.0, 0.0, 1.0, 0.0], [3, 2, 1, 6, 5, 4], [1, 2, 3, 4, 5, 6]),
        ([1.0, 0.0, 0.0, 0.0, -1.0, 0.0], [4, 5, 6, 1, 2, 3], [1, 2, 3, 4, 5, 6]),
        // Upright 1 2 / 3 4 / 5 6: along a row of the frame the patient's back comes nearer, or the front does.
        ([0.0, 1.0, 0.0, -1.0, 0.0, 0.0], [2, 4, 6, 1, 3, 5], [1, 2, 3, 4, 5, 6]),
        ([0.0, -1.0, 0.0, 1.0, 0.0, 0.0], [5, 3, 1, 6, 4, 2], [1, 2, 3, 4, 5, 6]),
        ([0.0, 1.0, 0.0, 1.0, 0.0, 0.0], [1, 3, 5, 2, 4, 6], [1, 2, 3, 4, 5, 6]),
        ([0.0, -1.0, 0.0, -1.0, 0.0, 0.0], [6, 4, 2, 5, 3, 1], [1, 2, 3, 4, 5, 6]),
    ];

    #[test]
    fn each_of_the_eight_ways_to_lie_is_brought_upright_and_back() {
        for (orientation, frame, upright) in SEEN {
            let turn = Turn::upright(&orientation);
            assert_eq!(turn.turned(frame.to_vec(), 2, 3), upright, "{orientation:?}");
            let (rows, columns) = turn.size(2, 3);
            assert_eq!(turn.back().turned(upright.to_vec(), rows, columns), frame, "{orientation:?}");
            assert_eq!(turn.back().size(rows, columns), (2, 3));
            assert!(turn.left_over(&orientation) < 1e-9);
        }
    }

    #[test]
    fn a_rectangle_goes_the_way_of_its_pixels() {
        for (orientation, frame, _) in SEEN {
            let turn = Turn::upright(&orientation);
            // Marked are the frame's second and third column of its first row.
            let marked = [0, 1, 1, 0, 0, 0];
            let turned = turn.turned(marked.to_vec(), 2, 3);
            let [left, top, width, height] = turn.rectangle([1, 0, 2, 1], 2, 3);
            let columns = i64::from(turn.size(2, 3).1);
            for (at, is_marked) in turned.iter().enumerate() {
                let (row, column) = (at as i64 / columns, at as i64 % columns);
                let holds = (top..top + height).contains(&row) && (left..left + width).contains(&column);
                assert_eq!(holds, *is_marked == 1, "{frame:?} {turned:?}");
            }
            let (rows, columns) = turn.size(2, 3);
            assert_eq!(turn.back().rectangle([left, top, width, height], rows, columns), [1, 0, 2, 1]);
        }
    }

    #[test]
    fn a_slant_is_left_and_what_is_not_axial_stays() {
        let slant = |degrees: f64| {
            let (sine, cosine) = degrees.to_radians().sin_cos();
            [cosine, sine, 0.0, -sine, cosine, 0.0]
        };
        for (degrees, left) in [(20.0, 20.0), (40.0, 40.0), (50.0, 40.0), (100.0, 10.0), (170.0, 10.0), (269.0, 1.0)] {
            let orientation = slant(degrees);
            let turn = Turn::upright(&orientation);
            assert_eq!(turn.is_none(), degrees < 45.0);
            assert!((turn.left_over(&orientation) - left).abs() < 1e-6, "{degrees}");
        }
        let inclined = [0.94, 0.34, 0.0, -0.34, 0.9, -0.3];
        assert!(Turn::upright(&inclined).is_none());
        for other in
            [[1.0, 0.0, 0.0, 0.0, 0.0, -1.0], [0.0, 1.0, 0.0, 0.0, 0.0, -1.0], [0.0; 6], [0.0, 1.0, 0.0, 0.0, 1.0, 0.0]]
        {
            assert!(Turn::upright(&other).is_none(), "{other:?}");
        }
    }
}
