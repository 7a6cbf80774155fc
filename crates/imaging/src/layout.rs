//! The shape of an image, and what bounds it.

/// Rows and columns of an image are from 1 to this. CT is 512 or 768, rarely 1024; 4096² pixels take 64 MiB decoded.
pub const MAX_SIDE: u16 = 4096;
/// Fewer rows or columns than this are no slice of a head: CT has 256 at least, and a thumbnail 64. Objects of a thousand such frames are a few
/// bytes each.
pub const MIN_SIDE: u16 = 32;
/// Frames of an object; enhanced CT of a whole body has some thousands.
pub const MAX_FRAMES: u32 = 16_384;

/// The image pixel module (PS3.3 C.7.6.3), checked: rows and columns within bounds, one sample a pixel, 8 or 16 bits allocated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    pub rows: u16,
    pub columns: u16,
    pub bits_allocated: u16,
    pub bits_stored: u16,
    pub high_bit: u16,
    pub signed: bool,
}

impl Layout {
    pub fn pixels(&self) -> usize {
        usize::from(self.rows) * usize::from(self.columns)
    }

    pub fn bytes_per_cell(&self) -> usize {
        usize::from(self.bits_allocated / 8)
    }
}
