//! Compressed objects as data sets without compression, for peers that take nothing else. The codecs run in a process of their own, as for
//! all that is decoded.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use dicom_core::header::HasLength;
use dicom_core::{DataElement, Length, PrimitiveValue, VR};
use dicom_dictionary_std::tags;
use dicom_encoding::transfer_syntax::TransferSyntaxIndex;
use dicom_pixeldata::Transcode;
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

use super::process::{DecoderProcess, PATIENCE};
use super::protocol::MOST_CONVERTED;
use super::{DecodeLimits, Failure, THIS_PROGRAM};
use crate::causes::in_full;
use triaged_imaging::DicomObject;
use triaged_imaging::attributes::integer;

/// Processor time and memory that any conversion may take, beside what its size asks for.
const SECONDS: u64 = 10;
const MEMORY: u64 = 512 << 20;

/// Bytes that are decoded in a second, by a slow codec on a slow core.
const DECODED_IN_A_SECOND: u64 = 4 << 20;

/// The data set of a file as it is in another transfer syntax, which is not compressed. `object` is what was read of the file. Blocks, with
/// a process that ends with the conversion.
///
/// # Errors
/// Why it cannot be converted: it would be larger than 2 GiB, its pixel data cannot be decoded, or decoding them took more than their size
/// allows.
pub fn uncompressed(path: &Path, object: &DicomObject, to: &str) -> Result<Vec<u8>, String> {
    let file = File::open(path).map_err(|error| format!("cannot read it: {error}"))?;
    let size = file.metadata().map_err(|error| format!("cannot read it: {error}"))?.len();
    let becomes = uncompressed_size(object);
    if becomes > MOST_CONVERTED {
        return Err(format!("without compression it would take {} MiB", becomes >> 20));
    }
    // Pixel data are there as they were read, decoded, and as they are written.
    let memory = MEMORY.saturating_add(3 * becomes).saturating_add(2 * size);
    let limits = DecodeLimits { seconds: SECONDS + becomes / DECODED_IN_A_SECOND, memory };
    let mut process = DecoderProcess::start(Path::new(THIS_PROGRAM), limits).map_err(|error| error.to_string())?;
    process.wait_for(PATIENCE + Duration::from_secs(limits.seconds)).map_err(|error| error.to_string())?;
    match process.convert(file, to) {
        Ok(converted) => converted.map_err(Failure::into_reason),
        Err(ended) => {
            metrics::counter!("triaged_decoder_ends_total", "why" => ended.label()).increment(1);
            Err(match ended.label() {
                "time" => format!("decoding it took more than {} s of processor time", limits.seconds),
                "killed" => "its decoder process was killed from outside".into(),
                _ => format!("decoding ended its process: a bug, or it needs more than {} MiB of memory", memory >> 20),
            })
        }
    }
}

/// Bytes of the pixel data without compression, as the header has them.
fn uncompressed_size(object: &DicomObject) -> u64 {
    let number = |tag, usual: u64| integer(object, tag).and_then(|n| u64::try_from(n).ok()).unwrap_or(usual);
    let cell = number(tags::BITS_ALLOCATED, 16).div_ceil(8);
    [number(tags::COLUMNS, 0), number(tags::SAMPLES_PER_PIXEL, 1), number(tags::NUMBER_OF_FRAMES, 1).max(1), cell]
        .into_iter()
        .fold(number(tags::ROWS, 0), u64::saturating_mul)
}

/// Decompresses and encodes a data set: in the process.
pub(super) fn data_set(mut object: DicomObject, to: &str) -> Result<Vec<u8>, String> {
    let syntax = TransferSyntaxRegistry.get(to).ok_or("the transfer syntax is unknown")?;
    object.transcode(syntax).map_err(|error| in_full(&error))?;
    // The decoder gives colour by pixel, whatever the compressed form was.
    if object.get(tags::SAMPLES_PER_PIXEL).is_some_and(|samples| samples.to_int::<u16>().is_ok_and(|n| n > 1)) {
        object.put(DataElement::new(tags::PLANAR_CONFIGURATION, VR::US, PrimitiveValue::from(0u16)));
    }
    even_length(&mut object);
    // Group 7FE0 attributes about the compressed form.
    for tag in [tags::EXTENDED_OFFSET_TABLE, tags::EXTENDED_OFFSET_TABLE_LENGTHS] {
        object.remove_element(tag);
    }
    let mut bytes = Vec::new();
    object.write_dataset(&mut bytes).map_err(|error| in_full(&error))?;
    Ok(bytes)
}

/// PS3.5 8.1.1: pixel data of an odd number of bytes is padded.
fn even_length(object: &mut DicomObject) {
    let Some(mut bytes) = object
        .get(tags::PIXEL_DATA)
        .filter(|element| element.length().get().is_some_and(|length| length % 2 == 1))
        .and_then(|element| element.to_bytes().ok())
        .map(|bytes| bytes.into_owned())
    else {
        return;
    };
    bytes.push(0);
    let length = Length::defined(bytes.len() as u32);
    object.put(DataElement::new_with_len(tags::PIXEL_DATA, VR::OW, length, PrimitiveValue::from(bytes)));
}
