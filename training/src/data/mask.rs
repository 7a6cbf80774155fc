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

/// Reads a mask as 0 and 1 at `height`×`width`, the nearest pixel taken where it has another size.
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
    let at = |y: usize, x: usize| {
        let (y, x) = (y * lines / height, x * columns / width);
        f32::from(rows[y * stride + x / 8] >> (7 - x % 8) & 1)
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
        let twice = read(&path, 12, 20).expect("read");
        assert!((0..240).all(|i| twice[i] == read_back[i / 40 * 10 + i % 20 / 2]));

        fs::write(&path, b"P4\n10 6\nshort").expect("written");
        assert_eq!(read(&path, 6, 10).expect_err("cut off").kind(), io::ErrorKind::InvalidData);
        fs::write(&path, b"P5\n10 6\n255\n").expect("written");
        assert_eq!(read(&path, 6, 10).expect_err("another format").kind(), io::ErrorKind::InvalidData);
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
