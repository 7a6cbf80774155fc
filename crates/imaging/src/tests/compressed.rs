//! Encapsulated pixel data: frames among fragments, and codestreams that lie.

use super::*;
use crate::{ImagingError, can_decode, decode_frame, read_header_bytes, uncounted_frames};

const UNCOMPRESSED: &str = uids::ENCAPSULATED_UNCOMPRESSED_EXPLICIT_VR_LITTLE_ENDIAN;

fn frames(count: &str, pixels: InMemElement) -> DicomObject {
    with_syntax(data_set(2, [text(tags::NUMBER_OF_FRAMES, VR::IS, count), pixels]), UNCOMPRESSED)
}

fn stored(object: &DicomObject, frame: u32) -> Vec<i32> {
    decode_frame(object, frame).expect("a frame").stored
}

fn why(data: &[u8], transfer_syntax: &str) -> String {
    let object = with_syntax(data_set(2, [fragments(&[], &[data])]), transfer_syntax);
    match decode_frame(&object, 0).expect_err("a codestream that lies") {
        error @ ImagingError::Codestream { .. } => {
            assert!(!error.is_contradiction());
            error.to_string()
        }
        other => panic!("{other}"),
    }
}

#[test]
fn fragments_belong_to_frames_by_number_or_offset_table() {
    let (a, b): (&[u8], &[u8]) = (&[1, 0, 2, 0], &[3, 0, 4, 0]);
    assert_eq!(stored(&frames("1", fragments(&[], &[&a[..2], &a[2..]])), 0), [1, 2]);
    assert_eq!(stored(&frames("2", fragments(&[], &[a, b])), 1), [3, 4]);
    let split = frames("2", fragments(&[0, 20], &[&a[..2], &a[2..], &b[..2], &b[2..]]));
    assert_eq!(stored(&split, 0), [1, 2]);
    assert_eq!(stored(&split, 1), [3, 4]);
    let mut extended = frames("2", fragments(&[], &[&a[..2], &a[2..], b]));
    let table = PrimitiveValue::U64(C::from_slice(&[0, 20]));
    extended.put(DataElement::new(tags::EXTENDED_OFFSET_TABLE, VR::OV, table));
    assert_eq!(stored(&extended, 1), [3, 4]);
}

/// The fragments are certain; an offset table that contradicts them is not used.
#[test]
fn offset_tables_that_point_nowhere_are_not_used() {
    let pieces: [&[u8]; 3] = [&[1, 0], &[2, 0], &[3, 0, 4, 0]];
    for table in [[0, 19], [0, 4096], [20, 0], [0, 0]] {
        let object = frames("2", fragments(&table, &pieces));
        assert_eq!((stored(&object, 0), stored(&object, 1)), (vec![1, 2], vec![3, 4]));
    }
    let none = decode_frame(&frames("1", fragments(&[], &[])), 0).expect_err("no fragments");
    assert!(none.to_string().contains("no fragments"));
}

#[test]
fn frames_that_are_there_are_decoded_and_a_missing_one_says_so() {
    let rle = |low: u8| {
        let mut bytes: Vec<u8> = [2_u32, 64, 66].iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.resize(64, 0);
        bytes.extend([0xFF, 0, 0xFF, low]);
        bytes
    };
    let (a, b) = (rle(1), rle(2));
    for (count, table) in [("3", &[][..]), ("2", &[0, 5][..]), ("1", &[][..]), ("2", &[0, 20][..])] {
        // each frame in two fragments
        let pieces: [&[u8]; 4] = [&a[..66], &a[66..], &b[..66], &b[66..]];
        let object = with_syntax(
            data_set(2, [text(tags::NUMBER_OF_FRAMES, VR::IS, count), fragments(table, &pieces)]),
            uids::RLE_LOSSLESS,
        );
        assert_eq!(stored(&object, 0), [1, 1], "{count} {table:?}");
        if count != "1" {
            assert_eq!(stored(&object, 1), [2, 2], "{count} {table:?}");
        }
        if count == "3" {
            let error = decode_frame(&object, 2).expect_err("the third frame is missing").to_string();
            assert!(error.contains("2 frames are there, not 3"), "{error}");
        }
    }
}

#[test]
fn frames_behind_the_last_that_is_counted_are_told() {
    let rle: Vec<u8> = [vec![1, 0, 0, 0, 64, 0, 0, 0], vec![0; 56], vec![0xFF, 0, 0xFF, 1]].concat();
    let jpeg_2000: &[u8] = &[0xFF, 0x4F, 0xFF, 0x51, 0, 0, 0, 0];
    let more = |syntax: &str, count: &str, pieces: &[&[u8]]| {
        let object =
            with_syntax(data_set(2, [text(tags::NUMBER_OF_FRAMES, VR::IS, count), fragments(&[], pieces)]), syntax);
        let mut bytes = Vec::new();
        object.write_all(&mut bytes).expect("written");
        uncounted_frames(&read_header_bytes(&bytes).expect("a header"))
    };
    assert_eq!(more(uids::RLE_LOSSLESS, "2", &[&rle, &rle]), None);
    assert_eq!(more(uids::RLE_LOSSLESS, "1", &[&rle, &rle, &rle]), Some(2));
    // Each frame in two fragments.
    assert_eq!(more(uids::RLE_LOSSLESS, "2", &[&rle[..64], &rle[64..], &rle[..64], &rle[64..]]), None);
    assert_eq!(more(uids::JPEG2000, "1", &[jpeg_2000, &jpeg_2000[2..], jpeg_2000]), Some(1));
}

/// SOI, then a frame header with these numbers.
fn jpeg(marker: u8, precision: u8, rows: u16, columns: u16, components: u8) -> Vec<u8> {
    let mut bytes = vec![0xFF, 0xD8, 0xFF, marker, 0, 11, precision];
    bytes.extend(rows.to_be_bytes());
    bytes.extend(columns.to_be_bytes());
    bytes.extend([components, 1, 0x11, 0]);
    bytes
}

#[test]
fn a_jpeg_of_another_size_is_refused_before_it_is_decoded() {
    for (marker, syntax) in
        [(0xC3, uids::JPEG_LOSSLESS_SV1), (0xC1, uids::JPEG_EXTENDED12_BIT), (0xF7, uids::JPEGLS_LOSSLESS)]
    {
        assert!(
            why(&jpeg(marker, 12, 65535, 65535, 1), syntax).contains("they declare 65535 × 65535, the object 2 × 1")
        );
        assert!(why(&jpeg(marker, 12, 1, 2, 3), syntax).contains("3 components"));
        assert!(why(&jpeg(marker, 20, 1, 2, 1), syntax).contains("20 bits"));
        assert!(why(&[0xFF, 0xD8, 0xFF], syntax).contains("end within their headers"));
        assert!(why(&[0xFF, 0xD8, 0, 0, 0xFF, marker], syntax).contains("no marker"));
        assert!(why(b"nonsense", syntax).contains("do not begin"));
        // the right size, and nothing behind it: the decoder's own words
        why(&jpeg(marker, 12, 1, 2, 1), syntax);
    }
}

/// SOC and SIZ: image size, tile size, components, precision.
fn jpeg2000(size: (u32, u32), tile: (u32, u32), components: u16, precision: u8) -> Vec<u8> {
    let mut bytes = vec![0xFF, 0x4F, 0xFF, 0x51, 0, 41, 0, 0];
    for value in [size.0, size.1, 0, 0, tile.0, tile.1, 0, 0] {
        bytes.extend(value.to_be_bytes());
    }
    bytes.extend(components.to_be_bytes());
    bytes.extend([precision - 1, 1, 1]);
    bytes
}

#[test]
fn a_jpeg_2000_of_another_size_or_of_too_many_tiles_is_refused() {
    let syntax = uids::JPEG2000_LOSSLESS;
    assert!(why(&jpeg2000((4_000_000, 4_000_000), (4_000_000, 4_000_000), 1, 12), syntax).contains("they declare"));
    assert!(why(&jpeg2000((2, 1), (2, 1), 3, 12), syntax).contains("3 components"));
    assert!(why(&jpeg2000((2, 1), (0, 1), 1, 12), syntax).contains("make no sense"));
    assert!(why(&jpeg2000((60_000, 60_000), (1, 1), 1, 12), syntax).contains("tiles"));
    assert!(why(&jpeg2000((2, 1), (2, 1), 1, 12)[..30], syntax).contains("end within"));
    why(&jpeg2000((2, 1), (2, 1), 1, 12), syntax);
}

#[test]
fn an_rle_header_that_lies_is_refused() {
    let syntax = uids::RLE_LOSSLESS;
    let header = |words: &[u32]| {
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.resize(64, 0);
        bytes
    };
    assert!(why(&header(&[u32::MAX]), syntax).contains("2 segments"));
    assert!(why(&header(&[1, 64]), syntax).contains("2 segments"));
    assert!(why(&header(&[2, 64, 4096]), syntax).contains("make no sense"));
    assert!(why(&header(&[2, 0, 0]), syntax).contains("make no sense"));
    assert!(why(&[2, 0, 0], syntax).contains("2 segments"));
    assert!(why(&header(&[2, 64, 64]), syntax).contains("a segment ends early"));
    let good = [header(&[2, 64, 68]), vec![1, 0x0A, 0x0B, 0x80, 1, 0x01, 0x02, 0x80]].concat();
    let object = with_syntax(data_set(2, [fragments(&[], &[&good])]), syntax);
    assert_eq!(stored(&object, 0), [0x0A01, 0x0B02]);
}

#[test]
fn a_transfer_syntax_without_decoder_is_a_failure_of_its_own_name() {
    let mpeg = uids::MPEG2MPML;
    assert!(!can_decode(mpeg) && can_decode(uids::JPEG_LOSSLESS_SV1) && can_decode(uids::IMPLICIT_VR_LITTLE_ENDIAN));
    let error = decode_frame(&with_syntax(data_set(2, [fragments(&[], &[&[0; 8]])]), mpeg), 0).expect_err("no decoder");
    assert!(matches!(&error, ImagingError::TransferSyntax(uid) if uid == mpeg));
}

/// Cut off in a run of zero bits, as a transfer that broke off and was filled up with zeros. CharLS counted such zeros for seconds: some of these
/// hundreds of streams of 64×64 pixels took minutes together, and nothing but such a decoder takes one.
#[test]
fn a_jpeg_ls_that_ends_without_a_marker_is_refused_at_once() {
    let (rows, columns) = (64_u16, 64_u16);
    let (sent, done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for (near, noise) in (0..16_u32).map(|n| (2 * (n % 2) as u8, n / 2)) {
            for zeros in 0..24 {
                let mut stream = jpeg(0xF7, 12, rows, columns, 1);
                stream.extend([0xFF, 0xDA, 0, 8, 1, 1, 0, near, 0, 0]);
                // Noise without a 0xFF, so that no marker is in it.
                stream.extend((0..200_u32).map(|i| ((i + 31 * noise) * 7919 % 251) as u8));
                stream.extend(std::iter::repeat_n(0, zeros));
                let mut object = data_set(2, [fragments(&[], &[&stream])]);
                object.put(DataElement::new(tags::ROWS, VR::US, PrimitiveValue::from(rows)));
                object.put(DataElement::new(tags::COLUMNS, VR::US, PrimitiveValue::from(columns)));
                let object = with_syntax(object, uids::JPEGLS_NEAR_LOSSLESS);
                let error = decode_frame(&object, 0).expect_err("too little data");
                assert!(matches!(error, ImagingError::Codestream { .. }), "{error}");
            }
        }
        sent.send(()).expect("the test waits");
    });
    done.recv_timeout(std::time::Duration::from_secs(60)).expect("every stream is refused");
}
