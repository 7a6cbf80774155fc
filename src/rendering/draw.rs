//! From Hounsfield units to a PNG.

use png::{BitDepth, ColorType, Compression, Encoder, EncodingError, Filter};

use super::{DisplayWindow, Size};
use triaged_imaging::PixelBox;

/// Pixels in a row or column of a picture in full.
const MOST_FULL: u32 = 1024;

/// And of a thumbnail.
const MOST_THUMBNAIL: u32 = 80;

/// A grey picture of a slice, row by row from `hounsfield`: rows × columns values. A frame goes around the part that is `marked`.
pub(super) fn png(
    hounsfield: &[f32],
    (rows, columns): (u32, u32),
    window: DisplayWindow,
    size: Size,
    marked: Option<PixelBox>,
) -> Result<Vec<u8>, EncodingError> {
    let most = match size {
        Size::Full => MOST_FULL,
        Size::Thumbnail => MOST_THUMBNAIL,
    };
    let (height, width) = fitted(rows, columns, most);
    let mut shades = scaled(hounsfield, (rows, columns), (height, width), window);
    if let Some(part) = marked {
        mark(&mut shades, (rows, columns), (height, width), part);
    }
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, width, height);
    encoder.set_color(ColorType::Grayscale);
    let data = match size {
        Size::Full => {
            encoder.set_depth(BitDepth::Eight);
            encoder.set_compression(Compression::Fast);
            shades.iter().map(|shade| (shade * 255.0).round() as u8).collect()
        }
        Size::Thumbnail => {
            encoder.set_depth(BitDepth::Four);
            encoder.set_compression(Compression::High);
            encoder.set_filter(Filter::NoFilter);
            packed(&shades, width)
        }
    };
    encoder.write_header()?.write_image_data(&data)?;
    Ok(bytes)
}

/// Height and width that fit into a square of side `most`, in the same proportion; never larger than they were.
fn fitted(rows: u32, columns: u32, most: u32) -> (u32, u32) {
    let longest = rows.max(columns);
    if longest <= most {
        return (rows, columns);
    }
    let side = |n: u32| (u64::from(n) * u64::from(most) / u64::from(longest)).max(1) as u32;
    (side(rows), side(columns))
}

/// Shades from 0 to 1, each the mean of the pixels that it stands for. They are windowed before they are averaged, as an eye
/// does it from afar.
fn scaled(hounsfield: &[f32], from: (u32, u32), to: (u32, u32), window: DisplayWindow) -> Vec<f32> {
    if from == to {
        return hounsfield.iter().map(|&value| window.shade(value)).collect();
    }
    let edges = |to: u32, from: u32| -> Vec<usize> {
        (0..=to).map(|n| (u64::from(n) * u64::from(from) / u64::from(to)) as usize).collect()
    };
    let (tops, lefts) = (edges(to.0, from.0), edges(to.1, from.1));
    let columns = from.1 as usize;
    let mut shades = Vec::with_capacity(to.0 as usize * to.1 as usize);
    for rows in tops.windows(2) {
        for span in lefts.windows(2) {
            let pixels =
                (rows[0]..rows[1]).flat_map(|row| &hounsfield[row * columns + span[0]..row * columns + span[1]]);
            let sum: f32 = pixels.map(|&value| window.shade(value)).sum();
            shades.push(sum / ((rows[1] - rows[0]) * (span[1] - span[0])) as f32);
        }
    }
    shades
}

/// Draws a white line around a part of the slice, in a scaled picture of it.
fn mark(shades: &mut [f32], from: (u32, u32), to: (u32, u32), part: PixelBox) {
    // The first and the last line, one outside of the part where the picture has room.
    let span = |begin: u32, extent: u32, from: u32, to: u32| {
        let place = |n: u32| (u64::from(n) * u64::from(to) / u64::from(from.max(1))) as u32;
        (place(begin).saturating_sub(1), place(begin.saturating_add(extent)).min(to.saturating_sub(1)))
    };
    let (top, bottom) = span(part.top, part.height, from.0, to.0);
    let (left, right) = span(part.left, part.width, from.1, to.1);
    for row in top..=bottom {
        for column in left..=right {
            if row == top || row == bottom || column == left || column == right {
                shades[(row * to.1 + column) as usize] = 1.0;
            }
        }
    }
}

/// Two pixels a byte, each row from a byte of its own (PNG, section 7.2).
fn packed(shades: &[f32], width: u32) -> Vec<u8> {
    let four_bits = |shade: f32| (shade * 15.0).round() as u8;
    let pair = |pair: &[f32]| four_bits(pair[0]) << 4 | pair.get(1).map_or(0, |&shade| four_bits(shade));
    shades.chunks(width as usize).flat_map(|row| row.chunks(2).map(pair)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Width, height, and the bytes of the rows.
    fn read(bytes: &[u8]) -> (u32, u32, Vec<u8>) {
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        pixels.truncate(info.buffer_size());
        (info.width, info.height, pixels)
    }

    #[test]
    fn a_picture_shows_the_window_pixel_by_pixel() {
        let bytes =
            png(&[0.0, 40.0, 80.0, -1000.0, 3000.0, 20.0], (2, 3), DisplayWindow::Brain, Size::Full, None).unwrap();
        assert_eq!(read(&bytes), (3, 2, vec![0, 128, 255, 0, 255, 64]));
    }

    #[test]
    fn a_thumbnail_is_small_and_averages() {
        // Columns alternate between black and white, so that every mean is grey.
        let hounsfield: Vec<f32> = (0..512 * 256).map(|n| if n % 2 == 0 { -500.0 } else { 500.0 }).collect();
        let bytes = png(&hounsfield, (512, 256), DisplayWindow::Brain, Size::Thumbnail, None).unwrap();
        let (width, height, pixels) = read(&bytes);
        assert_eq!((width, height), (40, 80));
        assert!(
            pixels.iter().all(|&pair| (6..=9).contains(&(pair >> 4)) && (6..=9).contains(&(pair & 15))),
            "{pixels:?}"
        );
        assert!(bytes.len() < 1000);
    }

    #[test]
    fn a_frame_goes_around_the_part_that_is_marked() {
        let part = PixelBox { left: 128, top: 256, width: 128, height: 128 };
        let bytes =
            png(&vec![-1000.0; 512 * 512], (512, 512), DisplayWindow::Brain, Size::Thumbnail, Some(part)).unwrap();
        let (width, height, packed) = read(&bytes);
        assert_eq!((width, height), (80, 80));
        let at = |row: usize, column: usize| packed[row * 40 + column / 2] >> (4 * (1 - column % 2)) & 15;
        assert_eq!([(39, 19), (39, 40), (60, 19), (60, 40), (50, 19), (39, 30)].map(|(r, c)| at(r, c)), [15; 6]);
        assert_eq!([(38, 30), (41, 30), (50, 18), (50, 21), (61, 30), (0, 0)].map(|(r, c)| at(r, c)), [0; 6]);
        // Parts at the borders, and ones that no slice has, stay on the picture.
        for (left, top, width, height) in [(0, 0, 512, 512), (511, 511, 1, 1), (600, 600, u32::MAX, 9)] {
            let part = PixelBox { left, top, width, height };
            png(&vec![0.0; 512 * 512], (512, 512), DisplayWindow::Brain, Size::Full, Some(part)).unwrap();
        }
    }

    #[test]
    fn a_slice_of_any_shape_fits() {
        for (rows, columns) in [(1, 1), (1, 4096), (4096, 1), (3, 7), (1025, 1024), (81, 79)] {
            let hounsfield = vec![40.0; (rows * columns) as usize];
            for size in [Size::Full, Size::Thumbnail] {
                let bytes = png(&hounsfield, (rows, columns), DisplayWindow::Bone, size, None).unwrap();
                let (width, height, _) = read(&bytes);
                assert!(width <= columns.min(MOST_FULL) && height <= rows.min(MOST_FULL), "{rows}x{columns}");
            }
        }
    }
}
