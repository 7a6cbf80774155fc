//! Compressed pixel data (PS3.5 annex A.4): the codestream of one frame found, checked and decoded.
//!
//! JPEG and RLE are decoded here, JPEG-LS by CharLS, JPEG 2000 by OpenJPEG. Those trust the size that a codestream declares, so
//! it is checked first. A codestream that is cut off is an error in each of them.

mod fragments;
mod jpeg;
mod jpeg2000;
mod rle;

use std::borrow::Cow;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};

use dicom_core::value::{InMemFragment, PixelFragmentSequence};
use dicom_dictionary_std::uids;
use dicom_object::InMemDicomObject;
use flate2::read::DeflateDecoder;

use self::jpeg2000::JP2_SIGNATURE;
use crate::error::ImagingError;
use crate::layout::Layout;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Codec {
    Uncompressed,
    Deflated,
    Rle,
    Jpeg,
    JpegLs,
    Jpeg2000,
}

impl Codec {
    fn of(transfer_syntax: &str) -> Option<Codec> {
        match transfer_syntax {
            uids::ENCAPSULATED_UNCOMPRESSED_EXPLICIT_VR_LITTLE_ENDIAN => Some(Codec::Uncompressed),
            uids::DEFLATED_IMAGE_FRAME_COMPRESSION => Some(Codec::Deflated),
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

    /// From the begin of a codestream.
    fn sniff(data: &[u8]) -> Option<Codec> {
        if data.starts_with(&[0xFF, 0x4F, 0xFF, 0x51]) || data.starts_with(JP2_SIGNATURE) {
            return Some(Codec::Jpeg2000);
        }
        if !data.starts_with(&[0xFF, 0xD8, 0xFF]) {
            return None;
        }
        let header = jpeg::frame_header(data).ok()?;
        Some(if header.marker == 0xF7 { Codec::JpegLs } else { Codec::Jpeg })
    }

    fn name(self) -> &'static str {
        match self {
            Codec::Uncompressed => "encapsulated",
            Codec::Deflated => "deflated",
            Codec::Rle => "RLE",
            Codec::Jpeg => "JPEG",
            Codec::JpegLs => "JPEG-LS",
            Codec::Jpeg2000 => "JPEG 2000",
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

/// The pixels of one frame as its codec gives them.
pub(crate) struct Decoded {
    pub cells: Vec<u16>,
    /// The low bits of each cell that are its sample, if the codestream says how many; otherwise the object does.
    pub precision: Option<u16>,
}

/// The pixel cells of one frame of encapsulated pixel data.
pub(crate) fn decode(
    object: &InMemDicomObject,
    sequence: &PixelFragmentSequence<InMemFragment>,
    transfer_syntax: &str,
    layout: &Layout,
    frame: u32,
    frames: u32,
) -> Result<Decoded, ImagingError> {
    let sniffed = sequence.fragments().first().and_then(|fragment| Codec::sniff(fragment));
    let codec = match (Codec::of(transfer_syntax), sniffed) {
        // The codestream says what it is; the transfer syntax may be that of another copy.
        (Some(Codec::Jpeg | Codec::JpegLs | Codec::Jpeg2000) | None, Some(sniffed)) if can_decode(transfer_syntax) => {
            sniffed
        }
        (Some(codec), _) => codec,
        (None, _) => return Err(ImagingError::TransferSyntax(transfer_syntax.to_string())),
    };
    let wrong = |why: String| ImagingError::Codestream { codec: codec.name(), frame, why };
    let data = fragments::codestream(object, sequence, codec, layout, frame, frames).map_err(wrong)?;
    // The decoders here check what they index by; this is for the fault in one of them that no test has found. Nothing is shared with the
    // closure, so no broken state outlives a panic.
    match catch_unwind(AssertUnwindSafe(|| codestream(codec, &data, layout))) {
        Ok(decoded) => decoded.map_err(wrong),
        Err(_) => Err(wrong("the decoder gave up".into())),
    }
}

/// Whether the transfer syntax is for encapsulated pixel data.
pub(crate) fn is_encapsulated(transfer_syntax: &str) -> bool {
    Codec::of(transfer_syntax).is_some()
}

/// Whether the bytes begin like a codestream of a codec that marks its begin.
pub(crate) fn is_codestream(bytes: &[u8]) -> bool {
    Codec::sniff(bytes).is_some()
}

fn codestream(codec: Codec, data: &[u8], layout: &Layout) -> Result<Decoded, String> {
    let native = |cells: Vec<u16>| Ok(Decoded { cells, precision: None });
    match codec {
        Codec::Uncompressed => native(cells(data, layout.bytes_per_cell(), layout)?),
        Codec::Deflated => {
            let size = layout.pixels() * layout.bytes_per_cell();
            let mut inflated = Vec::new();
            let read = DeflateDecoder::new(data).take(size as u64).read_to_end(&mut inflated);
            read.map_err(|error| format!("they do not inflate: {error}"))?;
            native(cells(&inflated, layout.bytes_per_cell(), layout)?)
        }
        Codec::Rle => native(rle::decode(data, layout.pixels(), layout.bytes_per_cell())?),
        Codec::Jpeg => {
            let header = jpeg::frame_header(data)?;
            check(layout, header.rows.into(), header.columns.into(), header.components.into(), header.precision)?;
            Ok(Decoded { cells: jpeg::decode(data)?, precision: Some(header.precision.into()) })
        }
        Codec::JpegLs => {
            let header = jpeg::frame_header(data)?;
            if header.marker != 0xF7 {
                return Err("they are no JPEG-LS".into());
            }
            check(layout, header.rows.into(), header.columns.into(), header.components.into(), header.precision)?;
            let data = ended(data);
            let bytes = charls::CharLS::default().decode(&data).map_err(|error| error.to_string())?;
            let width = if header.precision <= 8 { 1 } else { 2 };
            Ok(Decoded { cells: cells(&bytes, width, layout)?, precision: Some(header.precision.into()) })
        }
        Codec::Jpeg2000 => {
            let data = jpeg2000::unwrap_jp2(data);
            let size = jpeg2000::image_size(data)?;
            check(layout, size.rows, size.columns, size.components, size.precision)?;
            Ok(Decoded { cells: jpeg2000::decode(data, &size)?, precision: Some(size.precision.into()) })
        }
    }
}

/// A JPEG-LS codestream with its EOI marker, put there where the data end without one. CharLS 2.4.5 stops at a marker, but where the data just
/// end in the middle of a run of zero bits, it goes on counting zeros until its 32-bit counter overflows, for seconds or for ever.
fn ended(data: &[u8]) -> Cow<'_, [u8]> {
    const EOI: &[u8] = &[0xFF, 0xD9];
    // An odd length is filled up by a zero (PS3.5 section A.4); some writers fill up more.
    let padding = data.iter().rev().take_while(|&&byte| byte == 0).count();
    match data[..data.len() - padding].ends_with(EOI) {
        true => Cow::Borrowed(data),
        false => Cow::Owned([data, EOI].concat()),
    }
}

/// Checks that a codestream declares the image that the object declares, before a decoder allocates for it.
fn check(layout: &Layout, rows: u32, columns: u32, components: u16, precision: u8) -> Result<(), String> {
    if (rows, columns) != (layout.rows.into(), layout.columns.into()) {
        return Err(format!("they declare {columns} × {rows}, the object {} × {}", layout.columns, layout.rows));
    }
    if components != 1 {
        return Err(format!("they have {components} components"));
    }
    if !(2..=16).contains(&precision) {
        return Err(format!("they have {precision} bits a sample"));
    }
    Ok(())
}

/// Cells of one or two bytes, little endian.
fn cells(bytes: &[u8], width: usize, layout: &Layout) -> Result<Vec<u16>, String> {
    let needed = layout.pixels() * width;
    let bytes = bytes.get(..needed).ok_or_else(|| format!("{} bytes, {needed} are needed", bytes.len()))?;
    Ok(match width {
        1 => bytes.iter().map(|&byte| byte.into()).collect(),
        _ => bytes.as_chunks::<2>().0.iter().map(|&pair| u16::from_le_bytes(pair)).collect(),
    })
}
