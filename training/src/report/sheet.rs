//! The slices a run is most wrong about, in brain window, through the node's own imaging code.

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};
use rayon::prelude::*;
use triaged_imaging::{Transform, Window};

use super::ReportError;
use crate::data::Cache;
use crate::run::{Measurement, Scored};

/// Center and width in HU of the window in which hemorrhage is looked for.
const BRAIN: Window = Window { center: 40.0, width: 80.0 };
/// Edge of a tile in pixels.
pub const EDGE: usize = 192;
/// Tiles a sheet.
const MOST: usize = 12;
const COLUMNS: usize = 4;
const GAP: usize = 8;
pub(crate) const LINE: usize = RasterHeight::Size16.val();
/// Number and probability, id, patient.
const CAPTION: usize = 3 * LINE + 4;
const PAPER: u8 = 255;

/// How a slice is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// With hemorrhage, below the threshold: the lowest probabilities first.
    FalseNegatives,
    /// Without hemorrhage, at the threshold or above: the highest probabilities first.
    FalsePositives,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::FalseNegatives => "false negatives",
            Kind::FalsePositives => "false positives",
        }
    }

    /// The file of the sheet.
    pub fn file(self) -> &'static str {
        match self {
            Kind::FalseNegatives => "worst-false-negatives.png",
            Kind::FalsePositives => "worst-false-positives.png",
        }
    }

    fn has(self, scored: &Scored) -> bool {
        match self {
            Kind::FalseNegatives => scored.slice.positive && !scored.is_flagged(),
            Kind::FalsePositives => !scored.slice.positive && scored.is_flagged(),
        }
    }
}

/// One slice of a sheet.
#[derive(Debug, Clone, PartialEq)]
pub struct Tile {
    pub scored: Scored,
    /// `EDGE` × `EDGE` gray values, row by row.
    pub pixels: Vec<u8>,
}

/// Up to twelve slices that are wrong in one way.
#[derive(Debug, Clone, PartialEq)]
pub struct Sheet {
    pub kind: Kind,
    /// How many slices are wrong in this way, on the sheet or not.
    pub total: usize,
    pub tiles: Vec<Tile>,
    /// Slices that belong on the sheet and cannot be read, and why.
    pub unreadable: Vec<(Scored, String)>,
}

impl Sheet {
    /// The worst of a side, judged by each slice's own threshold.
    pub fn of(measurement: &Measurement, kind: Kind) -> Self {
        let mut wrong: Vec<&Scored> = measurement.slices.iter().filter(|scored| kind.has(scored)).collect();
        wrong.sort_by(|a, b| match kind {
            Kind::FalseNegatives => a.probability.total_cmp(&b.probability),
            Kind::FalsePositives => b.probability.total_cmp(&a.probability),
        });
        let total = wrong.len();
        wrong.truncate(MOST);
        let read: Vec<(&Scored, Result<Vec<u8>, String>)> =
            wrong.into_par_iter().map(|scored| (scored, pixels(scored))).collect();
        let mut sheet = Self { kind, total, tiles: Vec::new(), unreadable: Vec::new() };
        for (scored, pixels) in read {
            let scored = scored.clone();
            match pixels {
                Ok(pixels) => sheet.tiles.push(Tile { scored, pixels }),
                Err(why) => sheet.unreadable.push((scored, why)),
            }
        }
        sheet
    }

    /// The tiles as a grid, each with number, probability, id and patient below. None without a tile.
    ///
    /// # Errors
    /// [`ReportError::Draw`] where the image cannot be encoded.
    pub fn png(&self) -> Result<Option<Vec<u8>>, ReportError> {
        if self.tiles.is_empty() {
            return Ok(None);
        }
        let columns = self.tiles.len().min(COLUMNS);
        let rows = self.tiles.len().div_ceil(COLUMNS);
        let (width, height) = (columns * (EDGE + GAP) + GAP, rows * (EDGE + CAPTION + GAP) + GAP);
        let mut canvas = vec![PAPER; width * height];
        for (place, tile) in self.tiles.iter().enumerate() {
            let left = GAP + place % COLUMNS * (EDGE + GAP);
            let top = GAP + place / COLUMNS * (EDGE + CAPTION + GAP);
            for (row, line) in tile.pixels.chunks_exact(EDGE).enumerate() {
                canvas[(top + row) * width + left..][..EDGE].copy_from_slice(line);
            }
            let Scored { slice, probability, .. } = &tile.scored;
            let lines = [format!("{}  {probability:.4}", place + 1), slice.id.clone(), slice.patient.clone()];
            for (number, text) in lines.iter().enumerate() {
                write(&mut canvas, width, (left, top + EDGE + 2 + number * LINE), text, EDGE);
            }
        }
        encode(self.kind.file(), &canvas, (width, height)).map(Some)
    }
}

impl Tile {
    /// The tile alone.
    ///
    /// # Errors
    /// [`ReportError::Draw`] where the image cannot be encoded.
    pub fn png(&self) -> Result<Vec<u8>, ReportError> {
        encode(&self.scored.slice.id, &self.pixels, (EDGE, EDGE))
    }
}

fn pixels(scored: &Scored) -> Result<Vec<u8>, String> {
    let edge = EDGE as u32;
    let transform = Transform::HounsfieldWindows {
        height: edge,
        width: edge,
        windows: vec![BRAIN],
        normalization: None,
        crop_to_head: None,
    };
    let values = Cache::new(transform, None).and_then(|images| images.load(&scored.slice.file));
    Ok(values.map_err(|error| error.to_string())?.iter().map(|value| (value * 255.0).round() as u8).collect())
}

/// Black text, cut off at a width of `room`; what the font has no shape for becomes a question mark.
pub(crate) fn write(canvas: &mut [u8], width: usize, (left, top): (usize, usize), text: &str, room: usize) {
    let (weight, size) = (FontWeight::Regular, RasterHeight::Size16);
    let advance = get_raster_width(weight, size);
    let shapes =
        text.chars().filter_map(|letter| get_raster(letter, weight, size).or_else(|| get_raster('?', weight, size)));
    for (place, shape) in shapes.take(room / advance).enumerate() {
        for (row, line) in shape.raster().iter().enumerate() {
            for (column, ink) in line.iter().enumerate() {
                canvas[(top + row) * width + left + place * advance + column] = PAPER - ink;
            }
        }
    }
}

/// A PNG of gray values.
pub(crate) fn encode(name: &str, gray: &[u8], (width, height): (usize, usize)) -> Result<Vec<u8>, ReportError> {
    let failed = |error: png::EncodingError| ReportError::Draw { figure: name.into(), why: error.to_string() };
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width as u32, height as u32);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(gray).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Slice, example};

    fn tile(id: &str, gray: u8) -> Tile {
        let patient = "a/a patient whose name is longer than any tile is wide".into();
        let slice = Slice { patient, positive: true, ..example(id) };
        let scored = Scored { side: "test".into(), slice, probability: 0.25, on_one_scale: 0.25, threshold: 0.5 };
        Tile { scored, pixels: vec![gray; EDGE * EDGE] }
    }

    fn decoded(png: &[u8]) -> (usize, usize, Vec<u8>) {
        let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().expect("a PNG");
        let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
        let info = reader.next_frame(&mut pixels).expect("pixels");
        (info.width as usize, info.height as usize, pixels)
    }

    #[test]
    fn tiles_stand_in_order_and_their_captions_stay_below_them() {
        let grays = [10, 60, 110, 160, 210];
        let tiles = grays.iter().map(|&gray| tile("ID_ümlaut", gray)).collect();
        let sheet = Sheet { kind: Kind::FalseNegatives, total: 5, tiles, unreadable: vec![] };
        let (width, height, pixels) = decoded(&sheet.png().expect("encoded").expect("tiles"));
        assert_eq!((width, height), (4 * 200 + 8, 2 * (200 + CAPTION) + 8));
        for (place, gray) in grays.into_iter().enumerate() {
            let (left, top) = (GAP + place % 4 * 200, GAP + place / 4 * (200 + CAPTION));
            for (x, y) in [(0, 0), (EDGE - 1, EDGE - 1)] {
                assert_eq!(pixels[(top + y) * width + left + x], gray, "tile {place}");
            }
            let ink = |x: usize| (0..CAPTION).any(|y| pixels[(top + EDGE + y) * width + x] < 128);
            assert!((left..left + EDGE).any(ink), "tile {place} has a caption");
            assert!(!(left + EDGE..left + EDGE + GAP).any(ink), "the caption of tile {place} ends with it");
        }
    }

    #[test]
    fn no_tile_no_sheet() {
        let sheet = Sheet { kind: Kind::FalsePositives, total: 0, tiles: vec![], unreadable: vec![] };
        assert_eq!(sheet.png().expect("nothing to encode"), None);
    }
}
