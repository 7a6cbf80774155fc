//! One frame of an object as stored values, and those as Hounsfield units.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use dicom_core::Tag;
use dicom_core::value::{PixelFragmentSequence, PrimitiveValue, Value};
use dicom_dictionary_std::{tags, uids};
use dicom_object::InMemDicomObject;

use super::attributes::{decimal, integer, item, text};
use super::codec::{self, Decoded};
use super::error::ImagingError;
use super::layout::{Layout, MAX_FRAMES, MAX_SIDE, MIN_SIDE};
use super::object::{DicomObject, ObjectHeader};
use super::turn::Turn;

/// Pixels outside the field of view count as air, and nothing is less dense than air (HU).
pub const AIR: f32 = -1024.0;
/// From here on a value may be tissue, fat first (HU).
const TISSUE: f32 = -200.0;

/// One decoded frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    pub rows: u32,
    pub columns: u32,
    /// Stored values (PS3.5 section 8.1.1), row by row: overlay bits masked off, sign extended.
    pub stored: Vec<i32>,
    /// From stored values to Hounsfield units.
    pub modality_lut: ModalityLut,
    /// Stored values that stand for no measurement (PS3.3 C.7.5.1.1.2), such as the corners outside a round field of
    /// view.
    pub padding: Option<RangeInclusive<i32>>,
    /// What brings the patient upright in it, by Image Orientation. Nothing here is turned yet.
    pub turn: Turn,
}

/// The modality LUT (PS3.3 C.11.1): from stored values to Hounsfield units.
#[derive(Debug, Clone, PartialEq)]
pub enum ModalityLut {
    /// `HU = slope · stored + intercept`.
    Rescale { slope: f64, intercept: f64 },
    /// `HU = table[stored - first]`, the ends of the table for what lies outside.
    Table { first: i32, table: Vec<f32> },
}

impl ModalityLut {
    /// The HU of one stored value.
    pub fn hounsfield(&self, stored: i32) -> f32 {
        match self {
            ModalityLut::Rescale { slope, intercept } => rescale(*slope, *intercept, stored),
            ModalityLut::Table { first, table } => {
                let last = table.len().saturating_sub(1);
                let index = i64::from(stored) - i64::from(*first);
                let index = usize::try_from(index.max(0)).unwrap_or(last).min(last);
                table.get(index).copied().unwrap_or(AIR)
            }
        }
    }
}

fn rescale(slope: f64, intercept: f64, stored: i32) -> f32 {
    (slope * f64::from(stored) + intercept) as f32
}

impl Frame {
    /// Hounsfield units, row by row: the modality LUT applied, padding as [`AIR`], nothing below [`AIR`].
    ///
    /// Padding lies around what was measured. Values of tissue (-200 HU and above) that the padding's range covers count as padding only
    /// where such values join them to the border: a range that is wrong hides no blood within the skull.
    ///
    /// MONOCHROME1 changes nothing here: the photometric interpretation says how values are *shown* (PS3.3
    /// C.7.6.3.1.2), behind the VOI LUT; the modality LUT gives HU for MONOCHROME1 and MONOCHROME2 alike. Inverting
    /// would make bone of air.
    pub fn hounsfield(&self) -> Vec<f32> {
        // A loop for each kind, so that the compiler can make vector instructions of the usual one.
        let stored = self.stored.iter();
        let mut hounsfield: Vec<f32> = match self.modality_lut {
            ModalityLut::Rescale { slope, intercept } => {
                stored.map(|&stored| rescale(slope, intercept, stored).max(AIR)).collect()
            }
            ModalityLut::Table { .. } => stored.map(|&stored| self.modality_lut.hounsfield(stored).max(AIR)).collect(),
        };
        if let Some(padding) = &self.padding {
            let mut is_in_doubt = false;
            for (hounsfield, stored) in hounsfield.iter_mut().zip(&self.stored) {
                if padding.contains(stored) {
                    match *hounsfield < TISSUE {
                        true => *hounsfield = AIR,
                        false => is_in_doubt = true,
                    }
                }
            }
            if is_in_doubt {
                self.clear_border(padding, &mut hounsfield);
            }
        }
        hounsfield
    }

    /// Makes air of the padding that padding (up, down, left, right) joins to the border of the frame.
    fn clear_border(&self, padding: &RangeInclusive<i32>, hounsfield: &mut [f32]) {
        let (rows, columns) = (self.rows as usize, self.columns as usize);
        if self.stored.is_empty() || self.stored.len() != rows * columns {
            return;
        }
        let mut is_left: Vec<bool> = self.stored.iter().map(|stored| padding.contains(stored)).collect();
        let sides = (0..rows).flat_map(|row| [row * columns, (row + 1) * columns - 1]);
        // Each pixel is taken once, when it comes to the front, which so has at most as many as the frame.
        let mut front: Vec<u32> = Vec::new();
        let mut reach = |place: usize, front: &mut Vec<u32>| {
            if std::mem::take(&mut is_left[place]) {
                hounsfield[place] = AIR;
                front.push(place as u32);
            }
        };
        for place in (0..columns).chain((rows - 1) * columns..rows * columns).chain(sides) {
            reach(place, &mut front);
        }
        while let Some(place) = front.pop() {
            let place = place as usize;
            let (row, column) = (place / columns, place % columns);
            if row > 0 {
                reach(place - columns, &mut front);
            }
            if row + 1 < rows {
                reach(place + columns, &mut front);
            }
            if column > 0 {
                reach(place - 1, &mut front);
            }
            if column + 1 < columns {
                reach(place + 1, &mut front);
            }
        }
    }

    /// The stored value that stands for air: what HU of [`AIR`] would be stored as, or the least stored value of the
    /// frame where the modality LUT cannot be inverted.
    pub fn stored_air(&self) -> f32 {
        match &self.modality_lut {
            ModalityLut::Rescale { slope, intercept } => ((f64::from(AIR) - intercept) / slope) as f32,
            ModalityLut::Table { .. } => self.stored.iter().min().map_or(0.0, |&least| least as f32),
        }
    }
}

/// Number of Frames (0028,0008), 1 where it is absent, empty or 0. Needs no pixel data.
///
/// # Errors
/// [`ImagingError::Frames`] where it is no number or beyond [`MAX_FRAMES`].
pub fn frame_count(object: &DicomObject) -> Result<u32, ImagingError> {
    let Some(said) = text(object, tags::NUMBER_OF_FRAMES) else { return Ok(1) };
    match integer(object, tags::NUMBER_OF_FRAMES).map(u32::try_from) {
        Some(Ok(0)) => Ok(1),
        Some(Ok(frames)) if frames <= MAX_FRAMES => Ok(frames),
        _ => Err(ImagingError::Frames { frames: said.chars().take(16).collect() }),
    }
}

/// The most frames that the pixel data can hold, whatever Number of Frames says; none without pixel data.
///
/// A native frame has all its bytes, an encapsulated one a fragment of its own (PS3.5 section A.4) and some bytes for the headers of its
/// codestream.
pub fn most_frames(header: &ObjectHeader) -> u64 {
    /// Shorter than any codestream: the headers of JPEG-LS take 27 bytes, those of the others more.
    const LEAST_CODESTREAM: u64 = 32;
    let Some(pixels) = header.pixels else { return 0 };
    let said = || {
        let number = |tag| integer(header, tag).and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0);
        let cells = number(tags::ROWS)?.checked_mul(number(tags::COLUMNS)?)?;
        let cell = number(tags::BITS_ALLOCATED).map_or(1, |bits| bits.div_ceil(8).max(1));
        cells.checked_mul(cell)
    };
    // If the size is not said, no frame can be decoded, and the smallest that could be a slice is as good as any.
    let size = || said().unwrap_or(u64::from(MIN_SIDE).pow(2));
    match pixels.fragments {
        // Frames of uncompressed fragments may be cut anywhere.
        Some(_) if is_uncompressed(header) => pixels.bytes.div_ceil(size()),
        Some(fragments) => fragments.min(pixels.bytes.div_ceil(LEAST_CODESTREAM)),
        None => pixels.bytes.div_ceil(size()),
    }
}

/// How many whole frames the pixel data have beyond those that Number of Frames says; none where there are none, or where it
/// cannot be told. Nothing reads them. Of compressed ones each fragment counts that begins as a codestream does.
pub fn uncounted_frames(header: &ObjectHeader) -> Option<u64> {
    let pixels = header.pixels?;
    let there = match pixels.fragments {
        Some(_) if !is_uncompressed(header) => pixels.codestreams,
        _ => {
            let layout = layout(header).ok()?;
            pixels.bytes.checked_div(layout.pixels() as u64 * layout.bytes_per_cell() as u64)?
        }
    };
    there.checked_sub(frame_count(header).ok()?.into()).filter(|more| *more > 0)
}

fn is_uncompressed(object: &DicomObject) -> bool {
    let syntax = object.meta().transfer_syntax().trim_end_matches(['\0', ' ']);
    syntax == uids::ENCAPSULATED_UNCOMPRESSED_EXPLICIT_VR_LITTLE_ENDIAN
}

/// Decodes frame `frame` (from 0) of an object, in any transfer syntax that [`can_decode`](codec::can_decode).
/// Only this frame is decoded, and nothing is allocated for it before its declared size, and that of its compressed
/// data, has been checked against [`MAX_SIDE`].
///
/// # Errors
/// [`ImagingError`]; [`ImagingError::is_contradiction`] tells objects that cannot be triaged from failures.
pub fn decode_frame(object: &DicomObject, frame: u32) -> Result<Frame, ImagingError> {
    let layout = layout(object)?;
    let frames = frame_count(object)?;
    let modality_lut = modality_lut(object, frame)?;
    if frame >= frames {
        return Err(ImagingError::NoSuchFrame { frame, frames });
    }
    let decoded = decoded(object, &layout, frame, frames)?;
    let padding = padding(object, &layout);
    let layout = sample_bits(object, &layout, &decoded);
    let stored = stored_values(&decoded.cells, &layout, padding.as_ref());
    Ok(Frame {
        rows: layout.rows.into(),
        columns: layout.columns.into(),
        stored,
        modality_lut,
        padding,
        turn: Turn::of(object, frame),
    })
}

/// The image pixel module (PS3.3 C.7.6.3), checked.
fn layout(object: &DicomObject) -> Result<Layout, ImagingError> {
    let samples = integer(object, tags::SAMPLES_PER_PIXEL).unwrap_or(1);
    let photometric = text(object, tags::PHOTOMETRIC_INTERPRETATION).unwrap_or_else(|| "MONOCHROME2".into());
    if samples != 1 || !matches!(photometric.as_str(), "MONOCHROME1" | "MONOCHROME2") {
        return Err(ImagingError::NotMonochrome { samples, photometric });
    }
    let rows = integer(object, tags::ROWS).unwrap_or(0);
    let columns = integer(object, tags::COLUMNS).unwrap_or(0);
    let side = |n: i64| u16::try_from(n).ok().filter(|n| (1..=MAX_SIDE).contains(n));
    let (Some(rows), Some(columns)) = (side(rows), side(columns)) else {
        return Err(ImagingError::Size { rows, columns });
    };
    let allocated = integer(object, tags::BITS_ALLOCATED).unwrap_or(16);
    let stored = integer(object, tags::BITS_STORED).unwrap_or(allocated);
    if !matches!(allocated, 8 | 16) || !(2..=allocated).contains(&stored) {
        return Err(ImagingError::Depth { allocated, stored });
    }
    // a high bit that cannot be is taken for the one that PS3.5 section 8.1.1 requires
    let high_bit = integer(object, tags::HIGH_BIT).filter(|bit| (stored - 1..allocated).contains(bit));
    Ok(Layout {
        rows,
        columns,
        bits_allocated: allocated as u16,
        bits_stored: stored as u16,
        high_bit: high_bit.unwrap_or(stored - 1) as u16,
        signed: is_signed(object),
    })
}

/// The pixel cells of a frame, as many as the image has pixels.
fn decoded(object: &DicomObject, layout: &Layout, frame: u32, frames: u32) -> Result<Decoded, ImagingError> {
    let element = object.get(tags::PIXEL_DATA).ok_or(ImagingError::NoPixelData)?;
    let syntax = object.meta().transfer_syntax().trim_end_matches(['\0', ' ']);
    match element.value() {
        Value::Sequence(_) => Err(ImagingError::NoPixelData),
        Value::PixelSequence(sequence) => codec::decode(object, sequence, syntax, layout, frame, frames),
        Value::Primitive(PrimitiveValue::Empty) => Err(ImagingError::NoPixelData),
        Value::Primitive(value) => {
            if codec::is_encapsulated(syntax) {
                let bytes = value.to_bytes();
                // A codestream that was not encapsulated, which only one can be.
                if codec::is_codestream(&bytes) {
                    let sequence = PixelFragmentSequence::new_fragments(vec![bytes.into_owned()]);
                    return codec::decode(object, &sequence, syntax, layout, frame, frames);
                }
                // Otherwise somebody decompressed it and left the transfer syntax: then the size is right.
                let size = layout.pixels() as u64 * layout.bytes_per_cell() as u64 * u64::from(frames);
                if bytes.len() as u64 != size.next_multiple_of(2) {
                    return Err(ImagingError::TransferSyntax(format!("{syntax} of pixel data without fragments")));
                }
            }
            #[expect(deprecated, reason = "retired from the standard, not from archives")]
            let big = syntax == uids::EXPLICIT_VR_BIG_ENDIAN;
            Ok(Decoded { cells: native_cells(value, big, layout, frame)?, precision: None })
        }
    }
}

/// The cells of a frame of uncompressed pixel data, each with all its allocated bits.
fn native_cells(value: &PrimitiveValue, big: bool, layout: &Layout, frame: u32) -> Result<Vec<u16>, ImagingError> {
    let pixels = layout.pixels();
    let size = pixels * layout.bytes_per_cell();
    let begin = size as u64 * u64::from(frame);
    let truncated = |present| ImagingError::Truncated { frame, needed: begin + size as u64, present: present as u64 };
    if let PrimitiveValue::U16(words) = value {
        let present = words.len() * 2;
        if layout.bits_allocated == 16 {
            let begin = (begin / 2) as usize;
            return words.get(begin..begin + pixels).map(<[u16]>::to_vec).ok_or_else(|| truncated(present));
        }
        // 8-bit pixels in words: the first pixel is in the low byte, whatever the byte order (PS3.5 section 8.2)
        let begin = begin as usize;
        if begin + pixels > present {
            return Err(truncated(present));
        }
        let byte = |index: usize| words[index / 2].to_le_bytes()[index % 2];
        return Ok((begin..begin + pixels).map(|index| byte(index).into()).collect());
    }
    let bytes: Cow<'_, [u8]> = match value {
        PrimitiveValue::U8(bytes) => Cow::Borrowed(bytes),
        other => other.to_bytes(),
    };
    let begin = begin as usize;
    let bytes = bytes.get(begin..begin + size).ok_or_else(|| truncated(bytes.len()))?;
    Ok(match (layout.bits_allocated, big) {
        (8, _) => bytes.iter().map(|&byte| byte.into()).collect(),
        (_, false) => bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect(),
        (_, true) => bytes.chunks_exact(2).map(|b| u16::from_be_bytes([b[0], b[1]])).collect(),
    })
}

/// Which bits of the cells are the sample.
///
/// A codestream says itself how many bits its samples have. Encoders write 12 where 16 are stored, with the sign in bit 11, or 13-bit samples as
/// unsigned though the object is signed; pydicom and DCMTK read the sign from the codestream's highest bit too.
fn sample_bits(object: &DicomObject, layout: &Layout, decoded: &Decoded) -> Layout {
    let shifted = layout.high_bit + 1 > layout.bits_stored;
    match decoded.precision {
        Some(precision) if precision <= layout.bits_stored => {
            Layout { bits_stored: precision, high_bit: precision - 1, ..*layout }
        }
        // More bits are coded than are stored: overlays in them do not count, anything else does.
        Some(precision) if !shifted && !has_embedded_overlay(object) => {
            Layout { bits_allocated: 16, bits_stored: precision, high_bit: precision - 1, ..*layout }
        }
        _ if shifted && is_right_justified(&decoded.cells, layout) => {
            Layout { high_bit: layout.bits_stored - 1, ..*layout }
        }
        _ => *layout,
    }
}

/// Whether a plane of an overlay is in the bits of the pixel cells that are not stored ones (PS3.5 section 8.1.2, retired).
fn has_embedded_overlay(object: &DicomObject) -> bool {
    (0x6000..0x6020).step_by(2).any(|group| {
        let position = integer(object, Tag(group, 0x0102));
        position.is_some_and(|bit| bit > 0) && object.get(Tag(group, 0x3000)).is_none()
    })
}

/// Whether samples are in the low bits of the cells, though High Bit says that they are in high ones. Some systems write High Bit 15 for 12
/// bits and do not shift. Samples that are shifted leave the low bits 0, or overlays in them, and use the high ones.
fn is_right_justified(cells: &[u16], layout: &Layout) -> bool {
    let below = (1_u16 << (layout.high_bit + 1 - layout.bits_stored)) - 1;
    let above = u16::MAX << layout.bits_stored;
    let sign = 1 << (layout.bits_stored - 1);
    let extended = |cell: u16| layout.signed && cell & (above | sign) == above | sign;
    cells.iter().any(|cell| cell & below != 0) && cells.iter().all(|&cell| cell & above == 0 || extended(cell))
}

/// From pixel cells to stored values: the stored bits cut out, so that overlay bits in the others do not count, and
/// the sign extended.
///
/// Some systems pad with a value that needs more bits than are stored (-2000 in 12 bits); such cells keep it whole.
fn stored_values(cells: &[u16], layout: &Layout, padding: Option<&RangeInclusive<i32>>) -> Vec<i32> {
    let shift = layout.high_bit + 1 - layout.bits_stored;
    let unused = 32 - u32::from(layout.bits_stored);
    let stored = |cell: u16| {
        let bits = u32::from(cell >> shift) << unused;
        if layout.signed { (bits as i32) >> unused } else { (bits >> unused) as i32 }
    };
    let whole = |cell: u16| match (layout.signed, layout.bits_allocated) {
        (true, 8) => i32::from(cell as u8 as i8),
        (true, _) => i32::from(cell as i16),
        (false, _) => i32::from(cell),
    };
    let (least, most) = (stored(1 << layout.high_bit), stored(!(u16::from(layout.signed) << layout.high_bit)));
    let beyond = padding.filter(|range| *range.start() < least.min(0) || *range.end() > most);
    // A loop of its own for what is usual: the compiler makes vector instructions of it.
    match beyond {
        None => cells.iter().map(|&cell| stored(cell)).collect(),
        Some(range) => {
            let value = |&cell: &u16| if range.contains(&whole(cell)) { whole(cell) } else { stored(cell) };
            cells.iter().map(value).collect()
        }
    }
}

/// Pixel Padding Value (0028,0120), with Pixel Padding Range Limit (0028,0121) as a range.
fn padding(object: &DicomObject, layout: &Layout) -> Option<RangeInclusive<i32>> {
    // both have VR US or SS, by Pixel Representation; some writers take the wrong one of the two
    let value = |tag: Tag| {
        let value = integer(object, tag)? as u16;
        Some(if layout.signed { i32::from(value as i16) } else { i32::from(value) })
    };
    let first = value(tags::PIXEL_PADDING_VALUE)?;
    let limit = value(tags::PIXEL_PADDING_RANGE_LIMIT).unwrap_or(first);
    Some(first.min(limit)..=first.max(limit))
}

/// The modality LUT of a frame: the functional groups of the frame, those shared by all frames (enhanced multi-frame
/// objects, PS3.3 C.7.6.16.2.9), then the object itself. Without any, stored values are Hounsfield units. Where a functional group has
/// one of slope and intercept, the other must be somewhere: both are type 1 there, and what is missing is nobody's to guess.
fn modality_lut(object: &DicomObject, frame: u32) -> Result<ModalityLut, ImagingError> {
    if let Some(table) = item(object, tags::MODALITY_LUT_SEQUENCE, 0) {
        return lut_table(table, is_signed(object));
    }
    let groups = [
        item(object, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, frame as usize),
        item(object, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, 0),
    ];
    let transformations =
        groups.into_iter().flatten().filter_map(|group| item(group, tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE, 0));
    let number = |tag: Tag, name: &str, absent: f64| {
        let mut places = transformations.clone().chain([&**object]);
        match places.find_map(|place| decimal(place, tag)) {
            Some(number) => number.map_err(|why| ImagingError::Rescale(format!("{name}: {why}"))),
            None => Ok(absent),
        }
    };
    let has = |place: &InMemDicomObject, tag: Tag| decimal(place, tag).is_some();
    for (tag, other, name) in [
        (tags::RESCALE_SLOPE, tags::RESCALE_INTERCEPT, "rescale slope without intercept"),
        (tags::RESCALE_INTERCEPT, tags::RESCALE_SLOPE, "rescale intercept without slope"),
    ] {
        let is_half = transformations.clone().any(|group| has(group, tag))
            && !transformations.clone().chain([&**object]).any(|place| has(place, other));
        if is_half {
            return Err(ImagingError::Rescale(name.into()));
        }
    }
    let slope = number(tags::RESCALE_SLOPE, "rescale slope", 1.0)?;
    let intercept = number(tags::RESCALE_INTERCEPT, "rescale intercept", 0.0)?;
    if slope == 0.0 {
        return Err(ImagingError::Rescale("rescale slope is 0".into()));
    }
    Ok(ModalityLut::Rescale { slope, intercept })
}

/// Whether stored values are signed (Pixel Representation).
fn is_signed(object: &DicomObject) -> bool {
    integer(object, tags::PIXEL_REPRESENTATION) == Some(1)
}

/// An item of the Modality LUT Sequence (PS3.3 C.11.1.1.1). The first stored value that it maps is `signed` as those are, whatever VR it
/// came with: with an implicit VR, and from some writers with an explicit one, -1024 reads as 64512.
fn lut_table(table: &InMemDicomObject, signed: bool) -> Result<ModalityLut, ImagingError> {
    let wrong = |why: &str| ImagingError::Rescale(format!("modality LUT: {why}"));
    let numbers = |tag: Tag| -> Option<Vec<i64>> {
        match table.get(tag)?.value() {
            Value::Primitive(PrimitiveValue::U8(bytes)) => {
                Some(bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]).into()).collect())
            }
            Value::Primitive(value) => value.to_multi_int::<i64>().ok(),
            _ => None,
        }
    };
    let descriptor = numbers(tags::LUT_DESCRIPTOR).ok_or_else(|| wrong("no descriptor"))?;
    let data = numbers(tags::LUT_DATA).ok_or_else(|| wrong("no data"))?;
    let [entries, first, bits] = descriptor[..] else { return Err(wrong("the descriptor has not three values")) };
    // 0 stands for 65536; with VR SS both may come out negative
    let entries = match entries & 0xFFFF {
        0 => 65536,
        n => n as usize,
    };
    if !(8..=16).contains(&bits) {
        return Err(wrong(&format!("{bits} bits an entry")));
    }
    if data.len() < entries {
        return Err(wrong(&format!("{} entries where the descriptor says {entries}", data.len())));
    }
    let table = data[..entries].iter().map(|&value| (value & 0xFFFF) as f32).collect();
    let first = if signed { i32::from(first as i16) } else { first as i32 };
    Ok(ModalityLut::Table { first, table })
}
