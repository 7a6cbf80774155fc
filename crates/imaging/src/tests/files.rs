//! Files as senders and archives write them, and as an attacker would.

use super::*;
use crate::{ReadCause, decode_frame, read_bytes, read_file, read_header};

/// The data set in a transfer syntax, without a meta group.
fn bare(object: &InMemDicomObject, transfer_syntax: &str) -> Vec<u8> {
    use dicom_encoding::TransferSyntaxIndex;
    let syntax = dicom_transfer_syntax_registry::TransferSyntaxRegistry.get(transfer_syntax).expect("a known syntax");
    let mut bytes = Vec::new();
    object.write_dataset_with_ts(&mut bytes, syntax).expect("a writable data set");
    bytes
}

fn preamble() -> Vec<u8> {
    [&[0; 128][..], b"DICM"].concat()
}

/// A meta element with a 16-bit length.
fn meta(element: u8, vr: &[u8; 2], value: &str) -> Vec<u8> {
    let padded = if value.len() % 2 == 1 { format!("{value}\0") } else { value.to_string() };
    [&[2, 0, element, 0][..], vr, &(padded.len() as u16).to_le_bytes(), padded.as_bytes()].concat()
}

fn stored(bytes: &[u8]) -> Vec<i32> {
    decode_frame(&read_bytes(bytes).expect("a readable object"), 0).expect("a frame").stored
}

fn cause(bytes: &[u8]) -> ReadCause {
    read_bytes(bytes).expect_err("not readable").cause
}

fn slice() -> InMemDicomObject {
    data_set(3, [words(&[1, 2, 3])])
}

#[expect(deprecated, reason = "retired from the standard, not from archives")]
const BIG_ENDIAN: &str = uids::EXPLICIT_VR_BIG_ENDIAN;

#[test]
fn every_uncompressed_transfer_syntax() {
    for syntax in [
        uids::IMPLICIT_VR_LITTLE_ENDIAN,
        uids::EXPLICIT_VR_LITTLE_ENDIAN,
        BIG_ENDIAN,
        uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    ] {
        let mut bytes = Vec::new();
        with_syntax(slice(), syntax).write_all(&mut bytes).expect("a writable object");
        assert_eq!(stored(&bytes), [1, 2, 3], "{syntax}");
        assert_eq!(read_bytes(&bytes).unwrap().meta().transfer_syntax(), syntax);
    }
}

/// Implicit VR, a meta group without group length and version, no SOP class, UIDs that are not UIDs.
#[test]
fn a_file_as_in_rsna_2019() {
    let mut object = slice();
    object.remove_element(tags::SOP_CLASS_UID);
    object.put(text(tags::SOP_INSTANCE_UID, VR::UI, "ID_6c5d82413"));
    let head = [
        preamble(),
        meta(0x02, b"UI", uids::CT_IMAGE_STORAGE),
        meta(0x03, b"UI", "ID_6c5d82413"),
        meta(0x10, b"UI", uids::IMPLICIT_VR_LITTLE_ENDIAN),
    ];
    let bytes = [head.concat(), bare(&object, uids::IMPLICIT_VR_LITTLE_ENDIAN)].concat();
    let read = read_bytes(&bytes).expect("readable");
    assert_eq!(read.meta().media_storage_sop_instance_uid(), "ID_6c5d82413");
    assert_eq!(read.meta().media_storage_sop_class_uid(), uids::CT_IMAGE_STORAGE);
    assert_eq!(stored(&bytes), [1, 2, 3]);
}

#[test]
fn without_preamble_or_meta_group() {
    for syntax in [uids::IMPLICIT_VR_LITTLE_ENDIAN, uids::EXPLICIT_VR_LITTLE_ENDIAN, BIG_ENDIAN] {
        let data_set = bare(&slice(), syntax);
        assert_eq!(stored(&data_set), [1, 2, 3], "bare, {syntax}");
        let read = read_bytes(&data_set).unwrap();
        assert_eq!(read.meta().transfer_syntax(), syntax);
        assert_eq!(read.meta().media_storage_sop_instance_uid(), "2.25.1", "taken from the data set");
        let prefixed = [b"DICM".to_vec(), meta(0x10, b"UI", syntax), data_set.clone()].concat();
        assert_eq!(stored(&prefixed), [1, 2, 3], "no preamble, {syntax}");
        assert_eq!(stored(&[preamble(), data_set].concat()), [1, 2, 3], "no meta elements, {syntax}");
    }
}

#[test]
fn another_encoding_than_the_transfer_syntax_says() {
    for (says, is) in [
        (uids::EXPLICIT_VR_LITTLE_ENDIAN, uids::IMPLICIT_VR_LITTLE_ENDIAN),
        (uids::IMPLICIT_VR_LITTLE_ENDIAN, uids::EXPLICIT_VR_LITTLE_ENDIAN),
    ] {
        let bytes = [preamble(), meta(0x10, b"UI", says), bare(&slice(), is)].concat();
        assert_eq!(stored(&bytes), [1, 2, 3]);
        assert_eq!(read_bytes(&bytes).unwrap().meta().transfer_syntax(), is);
    }
}

#[test]
fn padding_behind_the_pixels_is_ignored() {
    let bytes = bare(&slice(), uids::EXPLICIT_VR_LITTLE_ENDIAN);
    for junk in [vec![0; 3], vec![0; 512], vec![0xFF; 40], b"trailing text".to_vec()] {
        assert_eq!(stored(&[bytes.clone(), junk.clone()].concat()), [1, 2, 3], "{junk:?}");
    }
}

/// A private sequence of VR UN and undefined length in an explicit VR object holds implicit VR (PS3.5 section 6.2.2).
#[test]
fn a_sequence_that_lost_its_vr() {
    let nested = InMemDicomObject::from_element_iter([text(tags::PATIENT_ID, VR::LO, "AB")]);
    let mut un = vec![0x09, 0x00, 0x10, 0x10, b'U', b'N', 0, 0, 0xFF, 0xFF, 0xFF, 0xFF];
    un.extend([0xFE, 0xFF, 0x00, 0xE0, 0xFF, 0xFF, 0xFF, 0xFF]);
    un.extend(bare(&nested, uids::IMPLICIT_VR_LITTLE_ENDIAN));
    un.extend([0xFE, 0xFF, 0x0D, 0xE0, 0, 0, 0, 0, 0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0]);
    let bytes = bare(&slice(), uids::EXPLICIT_VR_LITTLE_ENDIAN);
    // between group 0008 and group 0028
    let at = bytes.windows(4).position(|tag| tag == [0x28, 0, 2, 0]).expect("Samples per Pixel");
    let bytes = [&bytes[..at], &un, &bytes[at..]].concat();
    assert_eq!(stored(&bytes), [1, 2, 3]);
    let read = read_bytes(&bytes).unwrap();
    let item = &read.element(Tag(0x0009, 0x1010)).unwrap().items().unwrap()[0];
    assert_eq!(item.element(tags::PATIENT_ID).unwrap().to_str().unwrap(), "AB");
}

#[test]
fn a_length_that_the_file_cannot_hold_is_not_believed() {
    let mut bytes = bare(&slice(), uids::EXPLICIT_VR_LITTLE_ENDIAN);
    bytes.truncate(bytes.len() - 2);
    let ReadCause::Truncated { tag, length: 6, left: 4, .. } = cause(&bytes) else { panic!("truncated pixel data") };
    assert_eq!(tag, tags::PIXEL_DATA);
    // 4 GiB of private data in a file of 30 bytes
    let huge = [&[8, 0, 0x10, 0, b'O', b'B', 0, 0, 0xFE, 0xFF, 0xFF, 0xFF][..], &[0; 18]].concat();
    assert!(matches!(cause(&huge), ReadCause::Truncated { length: 0xFFFF_FFFE, left: 18, .. }));
    // and in the meta group
    let meta = [preamble(), vec![2, 0, 1, 0, b'O', b'B', 0, 0, 0xFE, 0xFF, 0xFF, 0x7F, 0, 1]].concat();
    assert!(matches!(cause(&meta), ReadCause::Truncated { .. }));
}

#[test]
fn nesting_has_an_end() {
    let level = [
        &[0x08, 0x00, 0x40, 0x11, b'S', b'Q', 0, 0, 0xFF, 0xFF, 0xFF, 0xFF][..],
        &[0xFE, 0xFF, 0x00, 0xE0, 0xFF, 0xFF, 0xFF, 0xFF],
    ];
    assert!(matches!(cause(&level.concat().repeat(100_000)), ReadCause::TooDeep));
}

#[test]
fn what_is_no_dicom_says_so() {
    for bytes in [&b""[..], b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x89PNG\r\n\x1a\n", &[0; 500], &[0xFF; 500]]
    {
        assert!(matches!(cause(bytes), ReadCause::NotDicom), "{bytes:?}");
    }
    assert!(matches!(cause(&preamble()), ReadCause::NotDicom));
    let missing = read_file("/nonexistent/file").expect_err("no such file");
    assert!(missing.to_string().starts_with("cannot be read as a DICOM object: "));
    assert!(!missing.to_string().contains("/nonexistent"), "people are shown this text");
    assert_eq!(missing.path, std::path::Path::new("/nonexistent/file"));
}

#[test]
fn a_header_stops_at_the_pixels_and_does_not_miss_them() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut bytes = bare(&slice(), uids::EXPLICIT_VR_LITTLE_ENDIAN);
    bytes.truncate(bytes.len() - 4);
    std::fs::write(file.path(), &bytes).unwrap();
    let header = read_header(file.path()).expect("a header, though the pixels are cut off");
    assert!(header.get(tags::PIXEL_DATA).is_none());
    assert!(header.get(tags::PIXEL_REPRESENTATION).is_some());
    assert!(read_file(file.path()).is_err());
}
