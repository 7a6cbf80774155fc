//! Masks of blood that may lie beside a folder's images: `stage_2_masks/ID_xxx.pbm`, binary portable bitmaps (P4), 1 where
//! there is blood.

use std::fs;
use std::io;
use std::path::Path;

use triaged_imaging::{Frame, HeadCrop, Square, Turn};

/// The folder of the masks.
pub const MASKS: &str = "stage_2_masks";

/// Writes a mask, row by row, of `width` pixels a row.
pub fn write(path: &Path, mask: &[bool], width: usize) -> io::Result<()> {
    let mut bytes = format!("P4\n{width} {}\n", mask.len() / width.max(1)).into_bytes();
    for row in mask.chunks(width.max(1)) {
        bytes.extend(
            row.chunks(8).map(|bits| (0..8).fold(0, |byte, i| byte << 1 | u8::from(bits.get(i) == Some(&true)))),
        );
    }
    fs::write(path, bytes)
}

/// How a mask goes the way of its image ([`triaged_imaging::frame_input`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Way {
    /// What brings the image upright, and its mask.
    pub turn: Turn,
    /// The square around the head in the upright frame, and that frame's rows and columns. None: padded to a square without blood,
    /// centered; of the input's size it is taken as it is.
    pub crop: Option<(Square, [u32; 2])>,
}

impl Way {
    /// The way of a frame that is cropped to the head or not. One without a head is taken whole.
    pub fn of(frame: &Frame, crop: Option<HeadCrop>) -> Way {
        let turn = frame.turn;
        let (rows, columns) = turn.size(frame.rows, frame.columns);
        let square = crop
            .and_then(|crop| crop.square(&turn.turned(frame.hounsfield(), frame.rows, frame.columns), rows, columns));
        Way { turn, crop: square.map(|square| (square, [rows, columns])) }
    }
}

/// Reads a mask as 0 and 1 at `height`×`width`, where its image goes `way`: of each pixel's middle the nearest one of the
/// mask is taken.
///
/// # Errors
/// The file's own, or [`io::ErrorKind::InvalidData`] where it is no whole P4 bitmap.
pub fn read(path: &Path, way: Way, height: usize, width: usize) -> io::Result<Vec<f32>> {
    let bytes = fs::read(path)?;
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "not a whole binary portable bitmap (P4)");
    let mut lines = bytes.splitn(3, |byte| *byte == b'\n');
    let (kind, size, rows) = (lines.next(), lines.next(), lines.next());
    let size = size.and_then(|size| std::str::from_utf8(size).ok()).and_then(|size| size.split_once(' '));
    let (Some(b"P4"), Some((columns, lines)), Some(rows)) = (kind, size, rows) else { return Err(invalid()) };
    let (columns, lines): (usize, usize) =
        (columns.parse().map_err(|_| invalid())?, lines.parse().map_err(|_| invalid())?);
    let stride = columns.div_ceil(8);
    if columns == 0 || lines == 0 || stride.checked_mul(lines) != Some(rows.len()) {
        return Err(invalid());
    }
    let bits =
        (0..lines * columns).map(|at| rows[at / columns * stride + at % columns / 8] >> (7 - at % columns % 8) & 1);
    let (lines, columns) = (lines as u32, columns as u32);
    let blood = way.turn.turned(bits.collect::<Vec<u8>>(), lines, columns);
    let (lines, columns) = way.turn.size(lines, columns);
    let (lines, columns) = (lines as usize, columns as usize);
    let along = |first: i64, side: usize, frame: usize, mask: usize, target: usize| {
        (0..target).map(|at| place(at, target, side, first, frame, mask)).collect::<Vec<Option<usize>>>()
    };
    let longer = lines.max(columns);
    let (down, across) = match way.crop {
        Some((square, [tall, wide])) => {
            let side = square.side as usize;
            let down = along(square.top, side, tall as usize, lines, height);
            (down, along(square.left, side, wide as usize, columns, width))
        }
        None if (lines, columns) == (height, width) => {
            (along(0, lines, lines, lines, height), along(0, columns, columns, columns, width))
        }
        None => {
            let begin = |edge: usize| -(((longer - edge) / 2) as i64);
            let down = along(begin(lines), longer, lines, lines, height);
            (down, along(begin(columns), longer, columns, columns, width))
        }
    };
    let mut mask = Vec::with_capacity(height * width);
    for y in &down {
        mask.extend(across.iter().map(|x| match (y, x) {
            (Some(y), Some(x)) => f32::from(blood[y * columns + x]),
            _ => 0.0,
        }));
    }
    Ok(mask)
}

/// The place along an edge of the mask that a pixel of the input shows; none beyond the frame. The input's `target` pixels
/// cover `side` pixels of the frame from `first` on, and the frame's `frame` pixels are `mask` ones of the mask.
fn place(at: usize, target: usize, side: usize, first: i64, frame: usize, mask: usize) -> Option<usize> {
    // By the middles of the pixels, as the image is resampled.
    let of_frame = ((2 * at + 1) * side / (2 * target)) as i64 + first;
    let of_frame = usize::try_from(of_frame).ok().filter(|place| *place < frame)?;
    if frame == mask { Some(of_frame) } else { Some((2 * of_frame + 1) * mask / (2 * frame)) }
}

/// The share of blood in the field around each of `rows`×`columns` positions of a mask: fields are squares of `step`
/// pixels, the first one's middle at `middle` along both axes.
pub fn shares(mask: &[f32], width: usize, (middle, step): (f64, f64), rows: usize, columns: usize) -> Vec<f32> {
    let height = mask.len() / width.max(1);
    let field = |place: usize, end: usize| {
        let from = (middle + place as f64 * step - (step - 1.0) / 2.0).round().max(0.0) as usize;
        from.min(end)..(from + step.round().max(1.0) as usize).min(end)
    };
    let mut shares = Vec::with_capacity(rows * columns);
    for row in 0..rows {
        for column in 0..columns {
            let (lines, places) = (field(row, height), field(column, width));
            let count = lines.len() * places.len();
            let blood: f32 = lines.map(|y| mask[y * width..][places.clone()].iter().sum::<f32>()).sum();
            shares.push(if count == 0 { 0.0 } else { blood / count as f32 });
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_is_read_as_it_was_written_and_at_other_sizes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ID_x.pbm");
        // 10 columns, so that a row ends within a byte.
        let mask: Vec<bool> = (0..60).map(|i| i % 7 == 0 || i / 10 == 3).collect();
        write(&path, &mask, 10).expect("written");
        let read_back = read(&path, Way::default(), 6, 10).expect("read");
        assert!(read_back.iter().zip(&mask).all(|(value, blood)| *value == f32::from(u8::from(*blood))));
        // At twice the edge of the square around it: 2 rows without blood, 6 with the mask, 2 without, each twice.
        let twice = read(&path, Way::default(), 20, 20).expect("read");
        let expected = |i: usize| {
            let (y, x) = (i / 40, i % 20 / 2);
            if (2..8).contains(&y) { read_back[(y - 2) * 10 + x] } else { 0.0 }
        };
        assert!((0..400).all(|i| twice[i] == expected(i)));

        fs::write(&path, b"P4\n10 6\nshort").expect("written");
        assert_eq!(read(&path, Way::default(), 6, 10).expect_err("cut off").kind(), io::ErrorKind::InvalidData);
        fs::write(&path, b"P5\n10 6\n255\n").expect("written");
        assert_eq!(read(&path, Way::default(), 6, 10).expect_err("another format").kind(), io::ErrorKind::InvalidData);
    }

    /// Blood of a wide and of a tall image comes to lie where the image's own pixels do.
    #[test]
    fn a_mask_goes_the_way_of_its_image() {
        use triaged_imaging::{ModalityLut, Transform, Window, frame_input};
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ID_x.pbm");
        let window = Window { center: 50.0, width: 100.0 };
        for (rows, columns) in [(16u32, 32u32), (32, 16), (24, 24)] {
            // Off the border, where an enlarged image mixes blood with the air beyond it.
            let (across, down) = (columns / 8..3 * columns / 8, rows / 4..rows / 2);
            let blood: Vec<bool> =
                (0..rows * columns).map(|i| down.contains(&(i / columns)) && across.contains(&(i % columns))).collect();
            write(&path, &blood, columns as usize).expect("written");
            let stored = blood.iter().map(|&blood| if blood { 100 } else { 0 }).collect();
            let modality_lut = ModalityLut::Rescale { slope: 1.0, intercept: 0.0 };
            let frame = Frame { rows, columns, stored, modality_lut, padding: None, turn: Turn::default() };
            for (height, width) in [(32, 32), (64, 64), (16, 16)] {
                let transform = Transform::HounsfieldWindows {
                    height,
                    width,
                    windows: vec![window],
                    normalization: None,
                    crop_to_head: None,
                };
                let image = frame_input(&frame, &transform).expect("an input").data;
                let mask = read(&path, Way::default(), height as usize, width as usize).expect("read");
                // Resampled smoothly an image loses the corners of the blood.
                let differ = image.iter().zip(&mask).filter(|(image, mask)| (**image > 0.5) != (**mask > 0.5)).count();
                assert!(differ <= 4, "{rows}×{columns} at {height}×{width}: {differ} pixels");
            }
        }
    }

    /// Cropped to the head, blood lies where the cropped image has it: in the middle, at the border and in part outside the
    /// square, and where the square reaches beyond the frame.
    #[test]
    fn a_mask_is_cropped_as_its_image_is() {
        use triaged_imaging::{AIR, ModalityLut, Transform, Window, frame_input};
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ID_x.pbm");
        let crop = HeadCrop { threshold: 10.0, margin: 0.05, smallest: 0.5 };
        let mut shown = Vec::new();
        for (rows, columns, middle) in
            [(200u32, 200u32, (90.0, 120.0)), (160, 220, (70.0, 60.0)), (220, 160, (40.0, 60.0))]
        {
            let from = |i: u32, (y, x): (f32, f32)| {
                (f32::from((i / columns) as u16) - y).hypot(f32::from((i % columns) as u16) - x)
            };
            let blood: Vec<bool> = (0..rows * columns)
                .map(|i| from(i, middle) < 60.0 && from(i, (middle.0 + 35.0, middle.1 - 20.0)) < 15.0)
                .collect();
            let stored: Vec<i32> = (0..rows * columns)
                .map(|i| match (blood[i as usize], from(i, middle) < 60.0) {
                    (true, _) => 100,
                    (false, true) => 20,
                    (false, false) => AIR as i32,
                })
                .collect();
            write(&path, &blood, columns as usize).expect("written");
            let modality_lut = ModalityLut::Rescale { slope: 1.0, intercept: 0.0 };
            let frame = Frame { rows, columns, stored, modality_lut, padding: None, turn: Turn::default() };
            let square = crop.square(&frame.hounsfield(), rows, columns).expect("a head");
            let transform = Transform::HounsfieldWindows {
                height: 96,
                width: 96,
                windows: vec![Window { center: 60.0, width: 80.0 }],
                normalization: None,
                crop_to_head: Some(crop),
            };
            let image = frame_input(&frame, &transform).expect("an input").data;
            let mask =
                read(&path, Way { crop: Some((square, [rows, columns])), ..Way::default() }, 96, 96).expect("read");
            let count = mask.iter().filter(|blood| **blood > 0.5).count();
            let differ = image.iter().zip(&mask).filter(|(image, mask)| (**image > 0.5) != (**mask > 0.5)).count();
            assert!(count > 200 && differ * 12 < count, "{rows}×{columns}: {differ} of {count} pixels");
            shown.push((square.top, square.left, square.side));
            // A mask of half the size shows the same place.
            let half: Vec<bool> = (0..rows / 2 * (columns / 2))
                .map(|i| blood[(2 * (i / (columns / 2)) * columns + 2 * (i % (columns / 2))) as usize])
                .collect();
            write(&path, &half, columns as usize / 2).expect("written");
            let half =
                read(&path, Way { crop: Some((square, [rows, columns])), ..Way::default() }, 96, 96).expect("read");
            let differ = half.iter().zip(&mask).filter(|(a, b)| a != b).count();
            assert!(differ * 5 < count, "{rows}×{columns}: {differ} of {count} pixels at half the size");
        }
        assert!(shown.iter().any(|(top, left, _)| *top < 0 || *left < 0), "a square beyond the frame: {shown:?}");
    }

    /// A frame in which the head lies on the side is turned, and its mask with it.
    #[test]
    fn a_mask_is_turned_as_its_image_is() {
        use triaged_imaging::{AIR, ModalityLut, Transform, Window, frame_input};
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ID_x.pbm");
        let (rows, columns) = (150u32, 210u32);
        let from =
            |i: u32, y: f32, x: f32| (f32::from((i / columns) as u16) - y).hypot(f32::from((i % columns) as u16) - x);
        let blood: Vec<bool> = (0..rows * columns).map(|i| from(i, 60.0, 140.0) < 15.0).collect();
        let value = |i: u32| match (blood[i as usize], from(i, 75.0, 120.0) < 60.0) {
            (true, _) => 100,
            (false, true) => 20,
            (false, false) => AIR as i32,
        };
        write(&path, &blood, columns as usize).expect("written");
        let head = HeadCrop { threshold: 10.0, margin: 0.05, smallest: 0.5 };
        let mut seen = Vec::new();
        for orientation in
            [[0.0, 1.0, 0.0, -1.0, 0.0, 0.0], [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0], [0.0, -1.0, 0.0, 1.0, 0.0, 0.0]]
        {
            let turn = Turn::upright(&orientation);
            let stored: Vec<i32> = (0..rows * columns).map(value).collect();
            let modality_lut = ModalityLut::Rescale { slope: 1.0, intercept: 0.0 };
            let frame = Frame { rows, columns, stored, modality_lut, padding: None, turn };
            for crop_to_head in [None, Some(head)] {
                let transform = Transform::HounsfieldWindows {
                    height: 96,
                    width: 96,
                    windows: vec![Window { center: 60.0, width: 80.0 }],
                    normalization: None,
                    crop_to_head,
                };
                let image = frame_input(&frame, &transform).expect("an input").data;
                let way = Way::of(&frame, crop_to_head);
                let mask = read(&path, way, 96, 96).expect("read");
                let count = mask.iter().filter(|blood| **blood > 0.5).count();
                let differ = image.iter().zip(&mask).filter(|(image, mask)| (**image > 0.5) != (**mask > 0.5)).count();
                assert!(count > 100 && differ * 10 < count, "{orientation:?}: {differ} of {count} pixels");
                seen.push(mask);
            }
        }
        assert!(seen[0] != seen[2] && seen[1] != seen[3], "turned otherwise");
    }

    #[test]
    fn shares_count_the_field_around_each_position() {
        // 8×8 with blood in the upper left 4×4; fields of 4 whose first middle is 1.5: pixels 0 to 3.
        let mask: Vec<f32> = (0..64).map(|i| f32::from(u8::from(i / 8 < 4 && i % 8 < 4))).collect();
        assert_eq!(shares(&mask, 8, (1.5, 4.0), 2, 2), [1.0, 0.0, 0.0, 0.0]);
        // Moved by two pixels a field has half of it along either axis.
        assert_eq!(shares(&mask, 8, (3.5, 4.0), 1, 1), [0.25]);
        // A field that lies outside has nothing.
        assert_eq!(shares(&mask, 8, (1.5, 4.0), 3, 1)[2], 0.0);
    }
}
