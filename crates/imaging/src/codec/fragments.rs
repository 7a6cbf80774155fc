//! The codestream of one frame, found among the fragments of encapsulated pixel data (PS3.5 annex A.4).

use std::borrow::Cow;

use dicom_core::value::{InMemFragment, PixelFragmentSequence, PrimitiveValue, Value};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;

use super::{Codec, JP2_SIGNATURE};
use crate::layout::Layout;

/// The fragments of a frame, joined.
///
/// By, in turn: fragments that begin as a frame of the codec begins, as many as there are frames; as many fragments as frames, one
/// each; the extended or the basic offset table. An offset table that contradicts the fragments is not used: what the
/// fragments hold is certain, and tables are often wrong. If fewer frames are there than the object says, those that are there are
/// decoded.
pub(super) fn codestream<'a>(
    object: &InMemDicomObject,
    sequence: &'a PixelFragmentSequence<InMemFragment>,
    codec: Codec,
    layout: &Layout,
    frame: u32,
    frames: u32,
) -> Result<Cow<'a, [u8]>, String> {
    let (fragments, frame, frames) = (sequence.fragments(), frame as usize, frames as usize);
    if fragments.is_empty() {
        return Err("there are no fragments".into());
    }
    if codec == Codec::Uncompressed && fragments.len() != frames {
        return native(fragments, layout, frame);
    }
    let begins: Vec<usize> = (0..fragments.len()).filter(|&i| begins_frame(codec, layout, &fragments[i])).collect();
    let begins = if begins.first() == Some(&0) && (begins.len() == frames || frames == 1) {
        begins
    } else if fragments.len() == frames {
        (0..frames).collect()
    } else if let Some(begins) = at_offsets(object, sequence, frames) {
        begins
    } else if frames == 1 {
        vec![0]
    } else if begins.first() == Some(&0) {
        begins
    } else {
        return Err(format!("{frames} frames cannot be told apart in {} fragments", fragments.len()));
    };
    let Some(&begin) = begins.get(frame) else {
        return Err(format!("{} frames are there, not {frames}", begins.len()));
    };
    let end = begins.get(frame + 1).copied().unwrap_or(fragments.len());
    match &fragments[begin..end] {
        [one] => Ok(Cow::Borrowed(one)),
        several => Ok(Cow::Owned(several.concat())),
    }
}

/// Whether a fragment is the first of a frame. The patterns occur nowhere else in a codestream.
fn begins_frame(codec: Codec, layout: &Layout, fragment: &[u8]) -> bool {
    match codec {
        Codec::Uncompressed | Codec::Deflated => true,
        // The header (PS3.5 section G.5) with the number of segments, and the first of them behind it.
        Codec::Rle => {
            let segments = (layout.bytes_per_cell() as u32).to_le_bytes();
            fragment.starts_with(&segments) && fragment.get(4..8) == Some(&64_u32.to_le_bytes())
        }
        Codec::Jpeg | Codec::JpegLs => fragment.starts_with(&[0xFF, 0xD8, 0xFF]),
        Codec::Jpeg2000 => fragment.starts_with(&[0xFF, 0x4F, 0xFF, 0x51]) || fragment.starts_with(JP2_SIGNATURE),
    }
}

/// A frame of uncompressed fragments, whatever is in each of them.
fn native<'a>(fragments: &'a [InMemFragment], layout: &Layout, frame: usize) -> Result<Cow<'a, [u8]>, String> {
    let size = layout.pixels() * layout.bytes_per_cell();
    let mut skip = size * frame;
    let mut cells = Vec::with_capacity(size);
    for fragment in fragments {
        let begin = skip.min(fragment.len());
        skip -= begin;
        let more = (size - cells.len()).min(fragment.len() - begin);
        cells.extend_from_slice(&fragment[begin..begin + more]);
    }
    Ok(Cow::Owned(cells))
}

/// The fragments that begin at the offsets of a table, which count from the first fragment's item tag (PS3.5 section A.4), or from
/// the first fragment without item headers, as some toolkits count. `None` if no table has an offset for each frame that is the
/// begin of a fragment.
fn at_offsets(
    object: &InMemDicomObject,
    sequence: &PixelFragmentSequence<InMemFragment>,
    frames: usize,
) -> Option<Vec<usize>> {
    // PS3.3 C.7.6.3.1.8
    let extended: Vec<u64> = match object.get(tags::EXTENDED_OFFSET_TABLE).map(|element| element.value()) {
        Some(Value::Primitive(PrimitiveValue::U64(offsets))) => offsets.to_vec(),
        Some(Value::Primitive(PrimitiveValue::U8(bytes))) => {
            bytes.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect()
        }
        _ => Vec::new(),
    };
    let basic: Vec<u64> = sequence.offset_table().iter().map(|&offset| offset.into()).collect();
    let tables = [extended, basic].into_iter().filter(|table| table.len() == frames);
    tables.flat_map(|table| [8, 0].map(|header| begins(sequence.fragments(), &table, header))).flatten().next()
}

/// The fragments at those offsets, if all begin one, in ascending order. `header` are the bytes before each fragment that count.
fn begins(fragments: &[InMemFragment], offsets: &[u64], header: u64) -> Option<Vec<usize>> {
    let mut begins = Vec::with_capacity(offsets.len());
    let (mut index, mut position) = (0, 0);
    for &offset in offsets {
        while position < offset && index < fragments.len() {
            position += header + fragments[index].len() as u64;
            index += 1;
        }
        let ascends = begins.last().is_none_or(|&last| last < index);
        if position != offset || index >= fragments.len() || !ascends {
            return None;
        }
        begins.push(index);
    }
    (begins.first() == Some(&0)).then_some(begins)
}
