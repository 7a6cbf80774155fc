//! Compressed pixel data (PS3.5 annex A.4): the codestream of one frame found, checked and decoded.
//!
//! The codecs are those of `dicom-transfer-syntax-registry`, the ones behind `dicom-pixeldata`, and [`jpeg12`]. They
//! trust the size that a codestream declares, so it is checked here first.

use std::any::Any;
use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use dicom_core::value::{InMemFragment, PixelFragmentSequence, PrimitiveValue, Value};
use dicom_dictionary_std::{tags, uids};
use dicom_encoding::adapters::{PixelDataObject, RawPixelData};
use dicom_encoding::transfer_syntax::{Codec as RegistryCodec, TransferSyntaxIndex};
use dicom_object::InMemDicomObject;
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

use super::error::ImagingError;
use super::jpeg12;
use super::object::chain;

/// Tiles of a JPEG 2000 codestream: OpenJPEG reserves some KiB for each before it has seen a byte of it.
const MAX_TILES: u64 = 1024;

/// The image pixel module, checked: rows and columns within bounds, one sample a pixel, 8 or 16 bits allocated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub rows: u16,
    pub columns: u16,
    pub bits_allocated: u16,
    pub bits_stored: u16,
    pub high_bit: u16,
    pub signed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Codec {
    Uncompressed,
    Rle,
    Jpeg,
    JpegLs,
    Jpeg2000,
}

impl Codec {
    fn of(transfer_syntax: &str) -> Option<Codec> {
        match transfer_syntax {
            uids::ENCAPSULATED_UNCOMPRESSED_EXPLICIT_VR_LITTLE_ENDIAN => Some(Codec::Uncompressed),
            uids::RLE_LOSSLESS => Some(Codec::Rle),
            uids::JPEG_BASELINE8_BIT | uids::JPEG_EXTENDED12_BIT | uids::JPEG_LOSSLESS | uids::JPEG_LOSSLESS_SV1 => {
                Some(Codec::Jpeg)
            }
            uids::JPEGLS_LOSSLESS | uids::JPEGLS_NEAR_LOSSLESS => Some(Codec::JpegLs),
            uids::JPEG2000_LOSSLESS
            | uids::JPEG2000
            | uids::HTJ2K_LOSSLESS
            | uids::HTJ2K_LOSSLESS_RPCL
            | uids::HTJ2K => Some(Codec::Jpeg2000),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Codec::Uncompressed => "encapsulated",
            Codec::Rle => "RLE",
            Codec::Jpeg => "JPEG",
            Codec::JpegLs => "JPEG-LS",
            Codec::Jpeg2000 => "JPEG 2000",
        }
    }

    /// Whether a fragment is the first of a frame. RLE frames are one fragment each (PS3.5 section A.4.2).
    fn begins_frame(self, fragment: &[u8]) -> bool {
        match self {
            Codec::Uncompressed | Codec::Rle => true,
            Codec::Jpeg | Codec::JpegLs => fragment.starts_with(&[0xFF, 0xD8]),
            Codec::Jpeg2000 => fragment.starts_with(&[0xFF, 0x4F]) || fragment.starts_with(JP2_SIGNATURE),
        }
    }
}

/// Whether pixel data in this transfer syntax can be decoded: what the node may accept and promise to score.
pub fn can_decode(transfer_syntax: &str) -> bool {
    #[expect(deprecated, reason = "retired from the standard, not from archives")]
    let native = [
        uids::IMPLICIT_VR_LITTLE_ENDIAN,
        uids::EXPLICIT_VR_LITTLE_ENDIAN,
        uids::EXPLICIT_VR_BIG_ENDIAN,
        uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    ];
    native.contains(&transfer_syntax) || Codec::of(transfer_syntax).is_some()
}

/// The pixel cells of one frame of encapsulated pixel data.
pub(super) fn decode(
    object: &InMemDicomObject,
    sequence: &PixelFragmentSequence<InMemFragment>,
    transfer_syntax: &str,
    layout: &Layout,
    frame: u32,
    frames: u32,
) -> Result<Vec<u16>, ImagingError> {
    let unsupported = || ImagingError::TransferSyntax(transfer_syntax.to_string());
    let codec = Codec::of(transfer_syntax).ok_or_else(unsupported)?;
    let wrong = |why: String| ImagingError::Codestream { codec: codec.name(), frame, why };

    let data = codestream(object, sequence, codec, frame, frames).map_err(wrong)?;
    let data = if codec == Codec::Jpeg2000 { unwrap_jp2(&data) } else { &data };
    let Cells { bytes: bytes_per_cell, extended } = check(codec, data, layout).map_err(wrong)?;
    if extended {
        return jpeg12::decode(data, layout.rows.into(), layout.columns.into()).map_err(wrong);
    }
    let pixels = usize::from(layout.rows) * usize::from(layout.columns);

    let bytes = if codec == Codec::Uncompressed {
        Cow::Borrowed(data)
    } else {
        let syntax = TransferSyntaxRegistry.get(transfer_syntax).ok_or_else(unsupported)?;
        let RegistryCodec::EncapsulatedPixelData(Some(reader), _) = syntax.codec() else { return Err(unsupported()) };
        let view = OneFrame { layout, bits_allocated: bytes_per_cell as u16 * 8, transfer_syntax, data };
        let mut decoded = Vec::new();
        // The one place where a panic is caught. The codecs index by what the codestream says, and panic where it
        // lies; the codestream is from the network. `decoded` is dropped on panic and nothing else is shared, so no
        // broken state outlives it.
        let outcome = catch_unwind(AssertUnwindSafe(|| reader.decode_frame(&view, 0, &mut decoded)));
        match outcome {
            Ok(Ok(())) => Cow::Owned(decoded),
            Ok(Err(error)) => return Err(wrong(chain(&error))),
            Err(panic) => return Err(wrong(format!("the decoder gave up: {}", panic_text(&*panic)))),
        }
    };
    if bytes.len() < pixels * bytes_per_cell {
        return Err(wrong(format!("{} bytes where {} are needed", bytes.len(), pixels * bytes_per_cell)));
    }
    let bytes = &bytes[..pixels * bytes_per_cell];
    Ok(if bytes_per_cell == 1 {
        bytes.iter().map(|&byte| byte.into()).collect()
    } else {
        bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect()
    })
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given")
}

/// The fragments of a frame, joined.
///
/// By, in turn: one frame takes all; as many fragments as frames, one each; the extended or the basic offset table;
/// fragments that begin like a frame.
fn codestream<'a>(
    object: &InMemDicomObject,
    sequence: &'a PixelFragmentSequence<InMemFragment>,
    codec: Codec,
    frame: u32,
    frames: u32,
) -> Result<Cow<'a, [u8]>, String> {
    let (fragments, frame, frames) = (sequence.fragments(), frame as usize, frames as usize);
    if fragments.is_empty() {
        return Err("there are no fragments".into());
    }
    let range = if frames == 1 {
        0..fragments.len()
    } else if fragments.len() == frames {
        frame..frame + 1
    } else {
        let begins = match offsets(object, sequence, frames) {
            Some(offsets) => at_offsets(fragments, &offsets)?,
            None => (0..fragments.len()).filter(|&index| codec.begins_frame(&fragments[index])).collect(),
        };
        if begins.len() != frames {
            return Err(format!("{} frames are in {} fragments, not {frames}", begins.len(), fragments.len()));
        }
        begins[frame]..begins.get(frame + 1).copied().unwrap_or(fragments.len())
    };
    match &fragments[range] {
        [one] => Ok(Cow::Borrowed(one)),
        several => Ok(Cow::Owned(several.concat())),
    }
}

/// The offset of each frame, from the extended offset table (PS3.3 C.7.6.3.1.8) or the basic one.
fn offsets(
    object: &InMemDicomObject,
    sequence: &PixelFragmentSequence<InMemFragment>,
    frames: usize,
) -> Option<Vec<u64>> {
    let extended = match object.get(tags::EXTENDED_OFFSET_TABLE).map(|element| element.value()) {
        Some(Value::Primitive(PrimitiveValue::U64(offsets))) => offsets.to_vec(),
        Some(Value::Primitive(PrimitiveValue::U8(bytes))) => {
            bytes.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect()
        }
        _ => Vec::new(),
    };
    let basic = || sequence.offset_table().iter().map(|&offset| offset.into()).collect();
    [extended, basic()].into_iter().find(|table: &Vec<u64>| table.len() == frames)
}

/// The fragments that begin at the offsets, which count from the first fragment's item tag (PS3.5 section A.4).
fn at_offsets(fragments: &[InMemFragment], offsets: &[u64]) -> Result<Vec<usize>, String> {
    let mut begins = Vec::with_capacity(offsets.len());
    let (mut index, mut position) = (0, 0);
    for &offset in offsets {
        while position < offset && index < fragments.len() {
            position += 8 + fragments[index].len() as u64;
            index += 1;
        }
        if position != offset || index >= fragments.len() {
            return Err(format!("no fragment begins at offset {offset} of the offset table"));
        }
        begins.push(index);
    }
    if begins.windows(2).any(|pair| pair[0] >= pair[1]) {
        return Err("the offset table does not ascend".into());
    }
    Ok(begins)
}

/// How a codestream is to be decoded.
struct Cells {
    /// Bytes of a decoded cell.
    bytes: usize,
    /// JPEG with 12 bits a sample, which only [`jpeg12`] decodes.
    extended: bool,
}

/// Checks that a codestream declares the image that the object declares, before a decoder allocates for it.
fn check(codec: Codec, data: &[u8], layout: &Layout) -> Result<Cells, String> {
    let image = match codec {
        Codec::Uncompressed => return Ok(Cells { bytes: usize::from(layout.bits_allocated / 8), extended: false }),
        Codec::Rle => return check_rle(data, layout),
        Codec::Jpeg | Codec::JpegLs => jpeg_image(codec, data)?,
        Codec::Jpeg2000 => jpeg2000_image(data)?,
    };
    let (rows, columns) = (u32::from(layout.rows), u32::from(layout.columns));
    if (image.rows, image.columns) != (rows, columns) {
        return Err(format!("they declare {} × {}, the object {columns} × {rows}", image.columns, image.rows));
    }
    if image.components != 1 {
        return Err(format!("they have {} components", image.components));
    }
    if !(2..=16).contains(&image.precision) {
        return Err(format!("they have {} bits a sample", image.precision));
    }
    // OpenJPEG hands out 32-bit samples, of which the registry takes as many bytes as are asked for
    let narrow = image.precision <= 8 && codec != Codec::Jpeg2000;
    let extended = codec == Codec::Jpeg && image.marker == 0xC1 && image.precision == 12;
    Ok(Cells { bytes: if narrow { 1 } else { 2 }, extended })
}

/// The header of PS3.5 section G.5: the number of segments and fifteen offsets.
fn check_rle(data: &[u8], layout: &Layout) -> Result<Cells, String> {
    let bytes = usize::from(layout.bits_allocated / 8);
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
    Ok(Cells { bytes, extended: false })
}

/// What a codestream declares of its image.
struct Declared {
    /// Of the frame header (JPEG) or image size (JPEG 2000), which tells the process.
    marker: u8,
    rows: u32,
    columns: u32,
    components: u16,
    precision: u8,
}

/// From the frame header (ISO 10918-1 B.2.2, ISO 14495-1 C.2.2): marker segments are stepped over strictly, so that no
/// decoder can find another frame header than this one first.
fn jpeg_image(codec: Codec, data: &[u8]) -> Result<Declared, String> {
    let cut = || "they end before the frame header".to_string();
    if !data.starts_with(&[0xFF, 0xD8]) {
        return Err("they do not begin with a start of image".into());
    }
    let mut at = 2;
    loop {
        if *data.get(at).ok_or_else(cut)? != 0xFF {
            return Err("there is no marker where one must be".into());
        }
        while data.get(at) == Some(&0xFF) {
            at += 1;
        }
        let marker = *data.get(at).ok_or_else(cut)?;
        let segment = data.get(at + 1..).ok_or_else(cut)?;
        let length = usize::from(u16::from_be_bytes(*segment.first_chunk().ok_or_else(cut)?));
        match (marker, codec) {
            (0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF, Codec::Jpeg) | (0xF7, Codec::JpegLs) => {
                let [_, _, precision, r0, r1, c0, c1, components] = *segment.first_chunk().ok_or_else(cut)?;
                return Ok(Declared {
                    marker,
                    rows: u16::from_be_bytes([r0, r1]).into(),
                    columns: u16::from_be_bytes([c0, c1]).into(),
                    components: components.into(),
                    precision,
                });
            }
            // tables, comments and application segments may stand before the frame header; JPEG-LS has its parameters
            (0xC4 | 0xCC | 0xDB | 0xDD | 0xE0..=0xEF | 0xFE, _) | (0xF8, Codec::JpegLs) if length >= 2 => {
                at += 1 + length;
            }
            _ => return Err(format!("marker FF{marker:02X} cannot stand before the frame header")),
        }
    }
}

const JP2_SIGNATURE: &[u8] = &[0, 0, 0, 12, 0x6A, 0x50, 0x20, 0x20];

/// The codestream of a JP2 file. DICOM wants the bare codestream (PS3.5 section A.4.4); some toolkits write the file.
fn unwrap_jp2(data: &[u8]) -> &[u8] {
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

/// From the SIZ marker segment (ISO 15444-1 A.5.1), which must follow the start of codestream.
fn jpeg2000_image(data: &[u8]) -> Result<Declared, String> {
    if !data.starts_with(&[0xFF, 0x4F, 0xFF, 0x51]) {
        return Err("they do not begin with a start of codestream and an image size".into());
    }
    let cut = || "they end within the image size".to_string();
    let short = |at: usize| Some(u16::from_be_bytes(*data.get(at..)?.first_chunk()?));
    let long = |at: usize| Some(u64::from(u32::from_be_bytes(*data.get(at..)?.first_chunk()?)));
    let [x, y, x0, y0, tile_x, tile_y, tile_x0, tile_y0] =
        [8, 12, 16, 20, 24, 28, 32, 36].map(|at| long(at).unwrap_or(0));
    let components = short(40).ok_or_else(cut)?;
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
    Ok(Declared {
        marker: 0x51,
        rows: (y - y0) as u32,
        columns: (x - x0) as u32,
        components,
        precision: (size & 0x7F) + 1,
    })
}

/// One frame of an object, for the registry's decoders.
struct OneFrame<'a> {
    layout: &'a Layout,
    bits_allocated: u16,
    transfer_syntax: &'a str,
    data: &'a [u8],
}

impl PixelDataObject for OneFrame<'_> {
    fn transfer_syntax_uid(&self) -> &str {
        self.transfer_syntax
    }

    fn rows(&self) -> Option<u16> {
        Some(self.layout.rows)
    }

    fn cols(&self) -> Option<u16> {
        Some(self.layout.columns)
    }

    fn samples_per_pixel(&self) -> Option<u16> {
        Some(1)
    }

    fn bits_allocated(&self) -> Option<u16> {
        Some(self.bits_allocated)
    }

    fn bits_stored(&self) -> Option<u16> {
        Some(self.layout.bits_stored.min(self.bits_allocated))
    }

    fn photometric_interpretation(&self) -> Option<&str> {
        Some("MONOCHROME2")
    }

    fn number_of_frames(&self) -> Option<u32> {
        Some(1)
    }

    fn number_of_fragments(&self) -> Option<u32> {
        Some(1)
    }

    fn fragment(&self, fragment: usize) -> Option<Cow<'_, [u8]>> {
        (fragment == 0).then_some(Cow::Borrowed(self.data))
    }

    fn offset_table(&self) -> Option<Cow<'_, [u32]>> {
        Some(Cow::Borrowed(&[]))
    }

    fn raw_pixel_data(&self) -> Option<RawPixelData> {
        Some(RawPixelData { fragments: [self.data.to_vec()].into_iter().collect(), offset_table: Default::default() })
    }
}
