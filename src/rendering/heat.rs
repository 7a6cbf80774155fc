//! A model's map as a picture that is laid over the slice.

use png::{BitDepth, ColorType, Compression, Encoder, EncodingError};

use crate::ledger::StoredMap;

/// Told from every grey of a slice, by people with any colour vision, in the light and in the dark.
const COLOUR: [u8; 3] = [255, 176, 0];

/// The most certain position still shows what is below it.
const MOST_OPAQUE: f32 = 0.6;

/// Pixels along the picture's longer edge: a coarse map has no more to show.
const LONGEST: u32 = 128;

/// A PNG of the shape of a slice of `rows` by `columns` pixels: one colour, the more opaque the higher the map is there, linear
/// between the map's positions, clear where the map does not reach.
///
/// # Errors
/// The slice has no pixels.
pub fn heat_map(map: &StoredMap, rows: u32, columns: u32) -> Result<Vec<u8>, EncodingError> {
    let longer = rows.max(columns).max(1);
    let side = |edge: u32| (u64::from(edge) * u64::from(LONGEST)).div_ceil(u64::from(longer)) as u32;
    let (height, width) = (side(rows), side(columns));
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, width, height);
    encoder.set_color(ColorType::Rgba);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(Compression::Fast);
    let [red, green, blue] = COLOUR;
    let mut data = Vec::with_capacity(4 * width as usize * height as usize);
    for row in 0..height {
        let y = (row as f32 + 0.5) * rows as f32 / height as f32;
        for column in 0..width {
            let x = (column as f32 + 0.5) * columns as f32 / width as f32;
            data.extend([red, green, blue, (at(map, x, y) * MOST_OPAQUE).round() as u8]);
        }
    }
    encoder.write_header()?.write_image_data(&data)?;
    Ok(bytes)
}

/// The map's value, 0 to 255, at a place of the slice in pixels.
fn at(map: &StoredMap, x: f32, y: f32) -> f32 {
    let [left, top, width, height] = map.covers.map(|edge| edge as f32);
    let (x, y) = ((x - left) / width, (y - top) / height);
    if !(0.0..=1.0).contains(&x) || !(0.0..=1.0).contains(&y) {
        return 0.0;
    }
    // The value of a position is that of its middle.
    let between = |share: f32, count: u32| {
        let last = count.saturating_sub(1) as f32;
        let place = (share * count as f32 - 0.5).clamp(0.0, last);
        (place.floor() as usize, (place.floor() + 1.0).min(last) as usize, place.fract())
    };
    let ((row, below, down), (column, right, across)) = (between(y, map.rows), between(x, map.columns));
    let value = |row: usize, column: usize| {
        f32::from(map.values.get(row * map.columns as usize + column).copied().unwrap_or(0))
    };
    let mix = |from: f32, to: f32, share: f32| from + (to - from) * share;
    mix(
        mix(value(row, column), value(row, right), across),
        mix(value(below, column), value(below, right), across),
        down,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pixels(png: &[u8]) -> (u32, u32, Vec<u8>) {
        let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        (info.width, info.height, pixels)
    }

    #[test]
    fn a_map_lies_where_it_was_made_of_and_is_clear_elsewhere() {
        let map = StoredMap { rows: 1, columns: 2, values: vec![0, 255], covers: [256, 0, 256, 256] };
        let (width, height, pixels) = pixels(&heat_map(&map, 256, 512).unwrap());
        assert_eq!((width, height), (128, 64));
        let opacity = |row: usize, column: usize| pixels[4 * (row * 128 + column) + 3];
        assert_eq!(pixels[..4], [255, 176, 0, 0]);
        assert_eq!([opacity(10, 60), opacity(10, 66), opacity(10, 126), opacity(63, 127)], [0, 0, 153, 153]);
        assert!((70..85).contains(&opacity(30, 96)), "{}", opacity(30, 96));
    }

    #[test]
    fn nonsense_is_no_panic() {
        let map = StoredMap { rows: 0, columns: 0, values: vec![], covers: [0, 0, 0, 0] };
        assert!(heat_map(&map, 10, 10).is_ok());
        assert!(heat_map(&map, 0, 0).is_err());
        let short = StoredMap { rows: 4, columns: 4, values: vec![255; 3], covers: [-5, -5, 1000, 1000] };
        assert!(heat_map(&short, 4096, 1).is_ok());
    }
}
