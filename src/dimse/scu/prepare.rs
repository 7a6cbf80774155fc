//! An object's data set as it goes to the peer: the bytes of the file, or converted.

use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};
use dicom_encoding::transfer_syntax::TransferSyntaxIndex;
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

use super::find::Object;
use super::offer::{Choice, syntax_name};
use crate::causes::in_full;
use crate::decoding::uncompressed;
use triaged_imaging::{DicomObject, read_bytes};

/// A data set, ready to be sent.
pub(super) struct Prepared {
    pub context: u8,
    pub transfer_syntax: String,
    bytes: Vec<u8>,
    begin: usize,
}

impl Prepared {
    pub fn data_set(&self) -> &[u8] {
        &self.bytes[self.begin..]
    }
}

/// Reads an object and makes its data set what was chosen. `Err` says why it cannot be sent.
pub(super) fn prepare(object: &Object, choice: &Choice) -> Result<Prepared, String> {
    let file = match &object.bytes {
        Some(bytes) => bytes.to_vec(),
        None => std::fs::read(&object.path).map_err(|error| format!("cannot read it: {error}"))?,
    };
    // Also where the bytes go as they are: a file that is cut off must not arrive as a whole object.
    let parsed = read_bytes(&file).map_err(|error| error.cause.to_string())?;
    let (mut bytes, begin) = if choice.transfer_syntax == object.transfer_syntax {
        let begin = data_set_begin(&file);
        (file, begin)
    } else {
        drop(file);
        (convert(object, parsed, &choice.transfer_syntax)?, 0)
    };
    // Fragments are even (PS3.8 annex E); a deflated data set may not be, and is padded (PS3.5 A.5).
    if (bytes.len() - begin) % 2 == 1 {
        bytes.push(0);
    }
    Ok(Prepared { context: choice.context, transfer_syntax: choice.transfer_syntax.clone(), bytes, begin })
}

/// The offset at which the data set begins, in a file that [`read_bytes`] could read: behind preamble, prefix and group 0002. Its group
/// length is not believed, it is wrong in too many files.
fn data_set_begin(file: &[u8]) -> usize {
    let mut at = match file {
        _ if file.get(128..132) == Some(b"DICM") => 132,
        _ if file.starts_with(b"DICM") => 4,
        _ => 0,
    };
    while let Some(header) = file.get(at..at + 8)
        && header[..2] == [2, 0]
    {
        let (value, length) = match VR::from_binary([header[4], header[5]]) {
            Some(VR::OB | VR::OW | VR::UN | VR::UT | VR::SQ | VR::UC | VR::UR | VR::OF | VR::OD | VR::OL) => {
                let long = file.get(at + 8..at + 12).and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; 4]);
                (at + 12, u32::from_le_bytes(long) as usize)
            }
            Some(_) => (at + 8, usize::from(u16::from_le_bytes([header[6], header[7]]))),
            None => (at + 8, u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize),
        };
        at = value.saturating_add(length);
    }
    at.min(file.len())
}

/// Re-encodes a data set; one with compressed pixel data is read from its file again, by a process that decompresses it.
fn convert(object: &Object, mut parsed: DicomObject, to: &str) -> Result<Vec<u8>, String> {
    let from = &object.transfer_syntax;
    let cannot = |why: String| format!("cannot convert it from {} to {}: {why}", syntax_name(from), syntax_name(to));
    let syntax = TransferSyntaxRegistry.get(to).ok_or_else(|| cannot("unknown".into()))?;
    debug_assert!(to == uids::EXPLICIT_VR_LITTLE_ENDIAN || to == uids::IMPLICIT_VR_LITTLE_ENDIAN);
    let compressed = TransferSyntaxRegistry.get(from).is_none_or(|from| from.is_encapsulated_pixel_data());
    if compressed && parsed.get(tags::PIXEL_DATA).is_some() {
        return uncompressed(&object.path, &parsed, to).map_err(cannot);
    }
    parsed.update_meta(|meta| meta.set_transfer_syntax(syntax));
    let mut bytes = Vec::new();
    parsed.write_dataset(&mut bytes).map_err(|error| cannot(in_full(&error)))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_set_begins_behind_whatever_meta_group_there_is() {
        let meta = b"\x02\0\x10\0UI\x04\x001.2\0".to_vec();
        let data_set = b"\x08\0\x16\0UI\x02\x001\0";
        let file = |head: &[u8]| [head, &meta, data_set].concat();
        let preamble = [&[0u8; 128] as &[u8], b"DICM"].concat();
        assert_eq!(data_set_begin(&file(&preamble)), 132 + meta.len());
        assert_eq!(data_set_begin(&file(b"DICM")), 4 + meta.len());
        assert_eq!(data_set_begin(&file(b"")), meta.len());
        assert_eq!(data_set_begin(data_set), 0);
        // A length that leads out of the file ends the walk there.
        assert_eq!(data_set_begin(b"\x02\0\x10\0OB\0\0\xff\xff\xff\xff"), 12);
        assert_eq!(data_set_begin(b""), 0);
    }
}
