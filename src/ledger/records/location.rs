//! Where in a slice a model sees the finding.

use triaged_imaging::PixelBox;

/// A box in a slice, and the model's map that it is of.
#[derive(Debug, Clone, PartialEq)]
pub struct Location {
    pub pixel_box: PixelBox,
    /// The slice's size, in pixels.
    pub rows: u32,
    pub columns: u32,
    pub map: StoredMap,
}

/// A model's map of a slice, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMap {
    /// Positions of the map, not pixels.
    pub rows: u32,
    pub columns: u32,
    /// Row by row, 255 for a probability of 1.
    pub values: Vec<u8>,
    /// The rectangle of the slice that it covers: left, top, width and height in pixels. It may reach beyond the slice.
    pub covers: [i64; 4],
}

/// From the columns of the ledger, all of which are there or none is.
pub(in crate::ledger) fn pixel_box(columns: [Option<i64>; 4]) -> Option<PixelBox> {
    let number = |column: Option<i64>| u32::try_from(column?).ok();
    let [left, top, width, height] = columns.map(number);
    Some(PixelBox { left: left?, top: top?, width: width?, height: height? })
}
