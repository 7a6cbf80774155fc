//! JPEG 2000 and HTJ2K (ISO 15444-1 and -15), decoded by OpenJPEG.
//!
//! OpenJPEG reserves memory for what the headers declare before it has seen a byte of it, and decodes what is there of a codestream that
//! is cut off. So the headers are read here first, bounded, and the tile-parts must be whole.

use std::ops::ControlFlow;

/// Tiles of a codestream: OpenJPEG reserves some KiB for each.
const MAX_TILES: u64 = 1024;
/// Precincts and code-blocks of an image, and packets (a layer of a precinct): it reserves some hundred bytes for each. An image of 4096² in
/// precincts of 64² has 5,461 precincts, and in code-blocks of 16² 87,381.
const MAX_PRECINCTS: u64 = 32_768;
const MAX_CODE_BLOCKS: u64 = 262_144;
const MAX_PACKETS: u64 = 1 << 20;

pub(super) const JP2_SIGNATURE: &[u8] = &[0, 0, 0, 12, 0x6A, 0x50, 0x20, 0x20];

/// The image that a codestream declares (SIZ, A.5.1).
#[derive(Debug, Clone, Copy)]
pub(super) struct ImageSize {
    pub rows: u32,
    pub columns: u32,
    pub components: u16,
    pub precision: u8,
    tile: (u64, u64),
    tiles: u64,
}

/// The codestream of a JP2 file. DICOM wants the bare codestream (PS3.5 section A.4.4); some toolkits write the file.
pub(super) fn unwrap_jp2(data: &[u8]) -> &[u8] {
    if !data.starts_with(JP2_SIGNATURE) {
        return data;
    }
    let mut rest = data;
    while let Some(&[l0, l1, l2, l3, t0, t1, t2, t3]) = rest.first_chunk() {
        let length = match u32::from_be_bytes([l0, l1, l2, l3]) as usize {
            0 => rest.len(),
            n => n,
        };
        let Some(content) = rest.get(8..length) else { break };
        if &[t0, t1, t2, t3] == b"jp2c" {
            return content;
        }
        rest = &rest[length..];
    }
    data
}

fn short(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*data.get(at..)?.first_chunk()?))
}

fn long(data: &[u8], at: usize) -> Option<u64> {
    Some(u64::from(u32::from_be_bytes(*data.get(at..)?.first_chunk()?)))
}

/// From the SIZ marker segment, which must follow the start of codestream.
///
/// # Errors
/// The fault in it.
pub(super) fn image_size(data: &[u8]) -> Result<ImageSize, String> {
    if !data.starts_with(&[0xFF, 0x4F, 0xFF, 0x51]) {
        return Err("they do not begin with a start of codestream and an image size".into());
    }
    let cut = || "they end within the image size".to_string();
    let [x, y, x0, y0, tile_x, tile_y, tile_x0, tile_y0] =
        [8, 12, 16, 20, 24, 28, 32, 36].map(|at| long(data, at).unwrap_or(0));
    let components = short(data, 40).ok_or_else(cut)?;
    let (Some(&size), Some(&step_x), Some(&step_y)) = (data.get(42), data.get(43), data.get(44)) else {
        return Err(cut());
    };
    if x <= x0 || y <= y0 || tile_x == 0 || tile_y == 0 || tile_x0 > x0 || tile_y0 > y0 {
        return Err("their image and tile sizes make no sense".into());
    }
    if components == 1 && (step_x, step_y) != (1, 1) {
        return Err("they are subsampled".into());
    }
    let tiles = (x - tile_x0).div_ceil(tile_x).saturating_mul((y - tile_y0).div_ceil(tile_y));
    if tiles > MAX_TILES {
        return Err(format!("they have {tiles} tiles, more than {MAX_TILES}"));
    }
    let (columns, rows) = ((x - x0) as u32, (y - y0) as u32);
    Ok(ImageSize {
        rows,
        columns,
        components,
        precision: (size & 0x7F) + 1,
        tile: (tile_x.min(columns.into()), tile_y.min(rows.into())),
        tiles,
    })
}

/// Decodes a codestream whose image size has been checked. Returns the samples row by row: the low bits of each, as many as the precision,
/// in two's complement if they are signed.
///
/// # Errors
/// The fault in the codestream.
pub(super) fn decode(data: &[u8], size: &ImageSize) -> Result<Vec<u16>, String> {
    check_headers(data, size)?;
    let image = jpeg2k::Image::from_bytes(data).map_err(|error| format!("{error:#}"))?;
    let [component] = image.components() else { return Err("they have more than one component".into()) };
    if (component.width(), component.height()) != (size.columns, size.rows) {
        return Err("they decode to another size".into());
    }
    let mask = if size.precision >= 16 { u16::MAX } else { (1 << size.precision) - 1 };
    Ok(component.data().iter().map(|&sample| sample as u16 & mask).collect())
}

/// Steps over the main header and all tile-part headers: coding styles within bounds, and each tile-part whole.
fn check_headers(data: &[u8], size: &ImageSize) -> Result<(), String> {
    let mut at = 2;
    let mut tile_parts = 0_u64;
    let mut tiles = vec![false; size.tiles as usize];
    loop {
        let marker = short(data, at).ok_or("they end within their headers")?;
        match marker {
            // Start of a tile-part (A.4.2): its length tells where the next one is.
            0xFF90 => {
                let length = long(data, at + 6).ok_or("they end within their headers")? as usize;
                tile_parts += 1;
                if tile_parts > MAX_TILES * 64 {
                    return Err("they have too many tile-parts".into());
                }
                let end = match length {
                    // Up to the end of codestream, which only the last tile-part may leave open.
                    0 => end_of_codestream(data).ok_or("they are cut off: there is no end of codestream")?,
                    length => at.saturating_add(length),
                };
                if end > data.len() || end < at + 12 {
                    return Err(format!("they are cut off: a tile-part ends at byte {end}, there are {}", data.len()));
                }
                tile_part_header(&data[at + 12..end], size)?;
                let tile = short(data, at + 4).and_then(|index| tiles.get_mut(usize::from(index)));
                *tile.ok_or("a tile-part belongs to no tile")? = true;
                at = end;
                // Padding, or nothing, where the end of codestream must be.
                if data[at..].iter().all(|&byte| byte == 0) {
                    break;
                }
            }
            0xFFD9 => break,
            _ => at = step(data, at, size)?,
        }
    }
    if tiles.contains(&false) { Err("they are cut off: a tile is missing".into()) } else { Ok(()) }
}

fn end_of_codestream(data: &[u8]) -> Option<usize> {
    let padding = data.iter().rev().take_while(|&&byte| byte == 0).count();
    let end = data.len() - padding;
    data[..end].ends_with(&[0xFF, 0xD9]).then(|| end - 2)
}

/// The marker segments of a tile-part up to the start of its data.
fn tile_part_header(data: &[u8], size: &ImageSize) -> Result<(), String> {
    let mut at = 0;
    while short(data, at).ok_or("a tile-part ends within its header")? != 0xFF93 {
        at = step(data, at, size)?;
    }
    Ok(())
}

/// Checks the marker segment at byte `at` and steps over it.
fn step(data: &[u8], at: usize, size: &ImageSize) -> Result<usize, String> {
    let (marker, length) = (short(data, at), short(data, at + 2));
    let (Some(marker @ 0xFF30..), Some(length @ 2..)) = (marker, length) else {
        return Err("there is no marker segment where one must be".into());
    };
    let end = at + 2 + usize::from(length);
    let segment = data.get(at + 4..end).ok_or("they end within their headers")?;
    match marker {
        // Coding style default (A.6.1): Scod, progression, layers, component transform, then as in COC.
        0xFF52 => {
            let layers = short(segment, 2).ok_or("a coding style is cut off")?;
            coding_style(segment.first().is_some_and(|style| style & 1 == 1), layers, segment.get(5..), size)?;
        }
        // Coding style of a component (A.6.2): component, Scoc.
        0xFF53 => {
            coding_style(segment.get(1).is_some_and(|style| style & 1 == 1), 1, segment.get(2..), size)?;
        }
        _ => {}
    }
    Ok(end)
}

/// Counts what the coding style makes of each tile: precincts, code-blocks and packets.
fn coding_style(precincts: bool, layers: u16, style: Option<&[u8]>, size: &ImageSize) -> Result<(), String> {
    let Some(&[decompositions, block_x, block_y, _, _, ref exponents @ ..]) = style else {
        return Err("a coding style is cut off".into());
    };
    if decompositions > 32 || block_x > 8 || block_y > 8 || block_x + block_y > 8 || layers == 0 {
        return Err("their coding style makes no sense".into());
    }
    let (mut precinct_count, mut block_count) = (0_u64, 0_u64);
    let counted = (0..=decompositions).try_for_each(|resolution| {
        let exponent = match exponents.get(usize::from(resolution)) {
            Some(&exponent) if precincts => exponent,
            None if precincts => return ControlFlow::Break("a coding style is cut off"),
            _ => 0xFF,
        };
        let shrink = u32::from(decompositions - resolution);
        let side = |side: u64| side.checked_shr(shrink).unwrap_or(0) + 1;
        let (width, height) = (side(size.tile.0), side(size.tile.1));
        // One more on each side, since the grid need not begin with the tile.
        let parts = |side: u64, exponent: u8| if exponent >= 15 { 1 } else { (side >> exponent) + 2 };
        precinct_count += parts(width, exponent & 15) * parts(height, exponent >> 4);
        let block = |exponent: u8, style: u8| exponent.min(style + 2);
        block_count += ((width >> block(exponent & 15, block_x)) + 1) * ((height >> block(exponent >> 4, block_y)) + 1);
        ControlFlow::Continue(())
    });
    if let ControlFlow::Break(why) = counted {
        return Err(why.into());
    }
    let (precincts, blocks) = (precinct_count * size.tiles, block_count * size.tiles);
    let packets = precincts * u64::from(layers);
    if precincts > MAX_PRECINCTS || blocks > MAX_CODE_BLOCKS || packets > MAX_PACKETS {
        return Err(format!("they have {precincts} precincts, {blocks} code-blocks and {packets} packets, too many"));
    }
    Ok(())
}
