//! RLE Lossless (PS3.5 annex G).

/// Decodes a frame of `pixels` cells of `bytes` bytes. Each byte of a cell has a segment, the most significant one first.
///
/// # Errors
/// The fault in the header or a segment.
pub(super) fn decode(data: &[u8], pixels: usize, bytes: usize) -> Result<Vec<u16>, String> {
    let word = |index: usize| {
        let bytes = data.get(index * 4..)?.first_chunk()?;
        Some(u32::from_le_bytes(*bytes) as usize)
    };
    if data.len() < 64 || word(0) != Some(bytes) {
        return Err(format!("their header does not declare {bytes} segments"));
    }
    let offsets: Vec<usize> = (1..=bytes).filter_map(word).chain([data.len()]).collect();
    if offsets[0] < 64 || offsets.windows(2).any(|pair| pair[0] > pair[1]) {
        return Err("their segment offsets make no sense".into());
    }
    let mut cells = vec![0_u16; pixels];
    for pair in offsets.windows(2) {
        let mut at = 0;
        let mut segment = data[pair[0]..pair[1]].iter().copied();
        while at < pixels {
            let control = segment.next().ok_or("a segment ends early")?;
            match control as i8 {
                count @ 0.. => {
                    // Bytes of a run beyond the image are padding.
                    for _ in 0..=count {
                        let byte = segment.next();
                        if let Some(cell) = cells.get_mut(at) {
                            *cell = *cell << 8 | u16::from(byte.ok_or("a segment ends early")?);
                        }
                        at += 1;
                    }
                }
                -128 => {}
                count => {
                    let byte = u16::from(segment.next().ok_or("a segment ends early")?);
                    let end = (at + 1 + usize::from(count.unsigned_abs())).min(pixels);
                    cells[at..end].iter_mut().for_each(|cell| *cell = *cell << 8 | byte);
                    at = end;
                }
            }
        }
    }
    Ok(cells)
}
