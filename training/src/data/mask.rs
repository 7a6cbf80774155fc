//! Masks of blood that may lie beside a folder's images: `stage_2_masks/ID_xxx.pbm`, binary portable bitmaps (P4), 1 where
//! there is blood.

use std::fs;
use std::io;
use std::path::Path;

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

/// Reads a mask as 0 and 1 at `height`×`width`. One of another size goes the way of its image
/// ([`triaged_imaging::frame_input`]): it is padded to a square without blood, centered, and of that the nearest pixel is
/// taken.
///
/// # Errors
/// The file's own, or [`io::ErrorKind::InvalidData`] where it is no whole P4 bitmap.
pub fn read(path: &Path, height: usize, width: usize) -> io::Result<Vec<f32>> {
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
    let (tall, wide) =
        if (lines, columns) == (height, width) { (lines, columns) } else { [lines.max(columns); 2].into() };
    let (top, left) = ((tall - lines) / 2, (wide - columns) / 2);
    // By the middles of the pixels, as the image is resampled.
    let place = |target: usize, length: usize, of: usize| (2 * target + 1) * length / (2 * of);
    let at = |y: usize, x: usize| {
        let (y, x) = (place(y, tall, height).wrapping_sub(top), place(x, wide, width).wrapping_sub(left));
        if y < lines && x < columns { f32::from(rows[y * stride + x / 8] >> (7 - x % 8) & 1) } else { 0.0 }
    };
    Ok((0..height).flat_map(|y| (0..width).map(move |x| (y, x))).map(|(y, x)| at(y, x)).collect())
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
        let read_back = read(&path, 6, 10).expect("read");
        assert!(read_back.iter().zip(&mask).all(|(value, blood)| *value == f32::from(u8::from(*blood))));
        // At twice the edge of the square around it: 2 rows without blood, 6 with the mask, 2 without, each twice.
        let twice = read(&path, 20, 20).expect("read");
        let expected = |i: usize| {
            let (y, x) = (i / 40, i % 20 / 2);
            if (2..8).contains(&y) { read_back[(y - 2) * 10 + x] } else { 0.0 }
        };
        assert!((0..400).all(|i| twice[i] == expected(i)));

        fs::write(&path, b"P4\n10 6\nshort").expect("written");
        assert_eq!(read(&path, 6, 10).expect_err("cut off").kind(), io::ErrorKind::InvalidData);
        fs::write(&path, b"P5\n10 6\n255\n").expect("written");
        assert_eq!(read(&path, 6, 10).expect_err("another format").kind(), io::ErrorKind::InvalidData);
    }

    /// Blood of a wide and of a tall image comes to lie where the image's own pixels do.
    #[test]
    fn a_mask_goes_the_way_of_its_image() {
        use triaged_imaging::{Frame, ModalityLut, Transform, Window, frame_input};
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
            let frame = Frame { rows, columns, stored, modality_lut, padding: None };
            for (height, width) in [(32, 32), (64, 64), (16, 16)] {
                let transform = Transform::HounsfieldWindows {
                    height,
                    width,
                    windows: vec![window],
                    normalization: None,
                    crop_to_head: None,
                };
                let image = frame_input(&frame, &transform).expect("an input").data;
                let mask = read(&path, height as usize, width as usize).expect("read");
                // Resampled smoothly an image loses the corners of the blood.
                let differ = image.iter().zip(&mask).filter(|(image, mask)| (**image > 0.5) != (**mask > 0.5)).count();
                assert!(differ <= 4, "{rows}×{columns} at {height}×{width}: {differ} pixels");
            }
        }
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
