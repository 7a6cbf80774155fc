//! Faults in how a data set is written that DCMTK, GDCM or pydicom read past: the pixels must come out all the same.

use super::*;
use crate::{ReadCause, attributes, decode_frame, read_bytes, read_frames_bytes, read_header_bytes};

const UNDEFINED: u32 = u32::MAX;

fn tag_bytes(tag: u32) -> Vec<u8> {
    [((tag >> 16) as u16).to_le_bytes(), (tag as u16).to_le_bytes()].concat()
}

/// An element in explicit VR, with a length that may lie.
fn element_of(tag: u32, vr: &[u8; 2], length: u32, value: &[u8]) -> Vec<u8> {
    let long = matches!(vr, b"OB" | b"OW" | b"SQ" | b"UN" | b"UT" | b"OF");
    let length =
        if long { [&[0, 0][..], &length.to_le_bytes()].concat() } else { (length as u16).to_le_bytes().into() };
    [&tag_bytes(tag)[..], vr, &length, value].concat()
}

fn element(tag: u32, vr: &[u8; 2], value: &[u8]) -> Vec<u8> {
    element_of(tag, vr, value.len() as u32, value)
}

fn item(length: Option<u32>, content: &[u8]) -> Vec<u8> {
    [&tag_bytes(0xFFFE_E000)[..], &length.unwrap_or(content.len() as u32).to_le_bytes(), content].concat()
}

fn item_end() -> Vec<u8> {
    [tag_bytes(0xFFFE_E00D), vec![0; 4]].concat()
}

fn sequence_end() -> Vec<u8> {
    [tag_bytes(0xFFFE_E0DD), vec![0; 4]].concat()
}

fn short(value: u16) -> [u8; 2] {
    value.to_le_bytes()
}

/// The elements of a small CT image in explicit VR little endian, by tag.
fn elements() -> Vec<(u32, Vec<u8>)> {
    [
        (0x0008_0016, b"UI", b"1.2.840.10008.5.1.4.1.1.2\0".to_vec()),
        (0x0008_0018, b"UI", b"2.25.1".to_vec()),
        (0x0008_0060, b"CS", b"CT".to_vec()),
        (0x0008_0070, b"LO", b"Invented".to_vec()),
        (0x0010_0020, b"LO", b"CASE-1".to_vec()),
        (0x0018_0015, b"CS", b"HEAD".to_vec()),
        (0x0020_000D, b"UI", b"2.25.22".to_vec()),
        (0x0028_0002, b"US", short(1).to_vec()),
        (0x0028_0004, b"CS", b"MONOCHROME2 ".to_vec()),
        (0x0028_0010, b"US", short(2).to_vec()),
        (0x0028_0011, b"US", short(3).to_vec()),
        (0x0028_0100, b"US", short(16).to_vec()),
        (0x0028_0101, b"US", short(12).to_vec()),
        (0x0028_0102, b"US", short(11).to_vec()),
        (0x0028_0103, b"US", short(0).to_vec()),
        (0x0028_1052, b"DS", b"-1024 ".to_vec()),
        (0x0028_1053, b"DS", b"1 ".to_vec()),
        (0x7FE0_0010, b"OW", [1000_u16, 1024, 1050, 1064, 1100, 2000].iter().flat_map(|v| v.to_le_bytes()).collect()),
    ]
    .into_iter()
    .map(|(tag, vr, value)| (tag, element(tag, vr, &value)))
    .collect()
}

const HU: [f32; 6] = [-24.0, 0.0, 26.0, 40.0, 76.0, 976.0];

fn join(elements: &[(u32, Vec<u8>)]) -> Vec<u8> {
    elements.iter().flat_map(|(_, bytes)| bytes.clone()).collect()
}

/// The image with an element put in its place by tag.
fn with(tag: u32, bytes: &[u8]) -> Vec<u8> {
    let mut all = elements();
    all.retain(|(other, _)| *other != tag);
    let at = all.iter().position(|(other, _)| *other > tag).unwrap_or(all.len());
    all.insert(at, (tag, bytes.to_vec()));
    join(&all)
}

fn check(what: &str, bytes: &[u8]) {
    let object = read_bytes(bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
    let frame = decode_frame(&object, 0).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(frame.hounsfield(), HU, "{what}");
    let header = read_header_bytes(bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
    for tag in [tags::PATIENT_ID, tags::ROWS, tags::RESCALE_INTERCEPT] {
        assert!(header.get(tag).is_some(), "{what}: the header lacks {tag}");
    }
    assert!(header.get(tags::PIXEL_DATA).is_none());
    assert_eq!(attributes::text(&header, tags::PATIENT_ID).as_deref(), Some("CASE-1"), "{what}");
}

#[test]
fn elements_in_any_order_and_behind_the_pixel_data() {
    check("in order", &join(&elements()));
    for moved in [0x0008_0060, 0x0010_0020, 0x0028_0010, 0x0028_0100, 0x0028_1052, 0x0028_1053] {
        let (behind, mut all): (Vec<_>, Vec<_>) = elements().into_iter().partition(|(tag, _)| *tag == moved);
        all.extend(behind);
        check(&format!("{moved:08x} behind the pixels"), &join(&all));
        check(&format!("{moved:08x} and padding"), &[join(&all), vec![0; 130]].concat());
    }
    // A bare data set would not be told by its first element.
    let meta = [&[0; 128][..], b"DICM", &element(0x0002_0010, b"UI", b"1.2.840.10008.1.2.1\0")].concat();
    let mut all = elements();
    all.reverse();
    check("backwards", &[&meta[..], &join(&all)].concat());
    all.rotate_left(7);
    check("rotated", &[&meta[..], &join(&all)].concat());
}

#[test]
fn a_used_element_that_is_there_twice_is_refused_unless_both_are_equal() {
    let all = join(&elements());
    check("twice the same", &[&all[..], &element(0x0028_1052, b"DS", b"-1024 ")].concat());
    let other = [&all[..], &element(0x0028_1052, b"DS", b"0 ")].concat();
    assert!(matches!(read_bytes(&other).expect_err("ambiguous").cause, ReadCause::Ambiguous { .. }));
    check("an unused one", &[&all[..], &element(0x0008_0070, b"LO", b"Other ")].concat());
}

#[test]
fn a_vr_that_is_none() {
    for vr in [b"  ", b"--", b"RE", b"??", b"\0\0", b"ox"] {
        let what = String::from_utf8_lossy(vr).into_owned();
        check(&what, &with(0x0008_0070, &element(0x0008_0070, vr, b"Invented")));
        check(&what, &with(0x0028_1052, &element(0x0028_1052, vr, b"-1024 ")));
        let long = [&tag_bytes(0x0009_1001)[..], vr, &[0, 0], &8_u32.to_le_bytes(), b"Invented"].concat();
        check(&what, &with(0x0009_1001, &long));
    }
    // in all elements
    let all = elements().into_iter().map(|(tag, mut bytes)| {
        if tag != 0x7FE0_0010 && tag != 0x0008_0016 {
            bytes[4..6].copy_from_slice(b"  ");
        }
        bytes
    });
    check("all", &all.flatten().collect::<Vec<_>>());
}

#[test]
fn implicit_inside_explicit_and_explicit_inside_implicit() {
    for tag in [0x0008_0070, 0x0010_0020, 0x0028_1052, 0x0028_0010] {
        let (_, bytes) = elements().into_iter().find(|(other, _)| *other == tag).expect("an element");
        let value = &bytes[8..];
        let implicit = [&tag_bytes(tag)[..], &(value.len() as u32).to_le_bytes(), value].concat();
        check(&format!("{tag:08x}"), &with(tag, &implicit));
    }
    let implicit = elements().into_iter().map(|(tag, bytes)| match tag {
        0x0018_0015 | 0x0028_1053 => bytes,
        _ => {
            let value = &bytes[if tag == 0x7FE0_0010 { 12 } else { 8 }..];
            [&tag_bytes(tag)[..], &(value.len() as u32).to_le_bytes(), value].concat()
        }
    });
    check("two explicit ones", &implicit.flatten().collect::<Vec<_>>());
}

#[test]
fn delimiters_too_many_too_few_and_wrong() {
    const REFERENCED: u32 = 0x0008_1140;
    let content = [element(0x0008_1150, b"UI", b"1.2\0"), element(0x0008_1155, b"UI", b"2.25.7")].concat();
    let whole = item(None, &content);
    let open = item(Some(UNDEFINED), &content);
    let defined = element(REFERENCED, b"SQ", &whole);
    let undefined = |content: &[u8]| element_of(REFERENCED, b"SQ", UNDEFINED, content);
    for (what, bytes) in [
        ("sound, lengths", defined.clone()),
        ("sound, delimiters", undefined(&[open.clone(), item_end(), sequence_end()].concat())),
        ("a delimiter behind a length", [defined.clone(), sequence_end()].concat()),
        ("two of them", [defined.clone(), item_end(), sequence_end()].concat()),
        ("the sequence's for the item's", undefined(&[open.clone(), sequence_end(), sequence_end()].concat())),
        ("one for both", undefined(&[open.clone(), sequence_end()].concat())),
        ("zeros for the sequence's", undefined(&[open.clone(), item_end(), vec![0; 8]].concat())),
        ("an item's delimiter too many", undefined(&[whole.clone(), item_end(), sequence_end()].concat())),
        ("none for the sequence", undefined(&whole)),
        ("the sequence 2 bytes short", element_of(REFERENCED, b"SQ", whole.len() as u32 - 2, &whole)),
        ("the sequence 2 bytes long", element_of(REFERENCED, b"SQ", whole.len() as u32 + 2, &whole)),
        ("item and sequence short", {
            let item = item(Some(content.len() as u32 - 4), &content);
            element_of(REFERENCED, b"SQ", item.len() as u32 - 4, &item)
        }),
        ("garbage", element(REFERENCED, b"SQ", &[0xA5; 41])),
        ("garbage in an item", element(REFERENCED, b"SQ", &item(None, &[0x5A; 40]))),
        ("garbage in a private one", element(0x0009_1001, b"SQ", &item(None, &[0x5A; 40]))),
        (
            "an element longer than its item",
            element(REFERENCED, b"SQ", &item(None, &element_of(0x0008_1150, b"UI", 4000, b"1.2\0"))),
        ),
    ] {
        check(what, &with(REFERENCED, &bytes));
    }
}

#[test]
fn an_icon_whose_lengths_do_not_count_its_last_delimiter() {
    let jpeg = [item(None, b""), item(None, &[0; 30]), sequence_end()].concat();
    let content = [
        element(0x0028_0010, b"US", &short(64)),
        element(0x0028_0011, b"US", &short(64)),
        element_of(0x7FE0_0010, b"OB", UNDEFINED, &jpeg),
    ]
    .concat();
    for short in [8, 16, 24, 34, 46] {
        let item = item(Some(content.len() as u32 - short), &content);
        let icon = element_of(0x0088_0200, b"SQ", item.len() as u32 - short, &item);
        let mut all = elements();
        all.insert(17, (0x0088_0200, icon));
        check(&format!("{short} bytes short"), &join(&all));
    }
}

#[test]
fn wrong_lengths_of_what_is_not_used() {
    for length in [3, 6, 7, 9, 10, 54, 0xFFFE] {
        let bytes = with(0x0008_0070, &element_of(0x0008_0070, b"LO", length, b"Invented"));
        check(&format!("length {length}"), &bytes);
        check(&format!("length {length}, padding behind the pixels"), &[bytes, vec![0; 130]].concat());
    }
    // nothing is guessed of what is
    let wrong = with(0x0028_1052, &element_of(0x0028_1052, b"DS", 60, b"-1024 "));
    assert!(read_bytes(&wrong).is_err());
    check("group length", &with(0x0008_0000, &element(0x0008_0000, b"UL", &4711_u32.to_le_bytes())));
}

#[test]
fn pad_bytes_missing_and_extra() {
    check("missing", &with(0x0008_0070, &element_of(0x0008_0070, b"LO", 8, b"Invente")));
    check("not counted", &with(0x0008_0070, &element_of(0x0008_0070, b"LO", 7, b"Invente ")));
    check("odd", &with(0x0008_0070, &element(0x0008_0070, b"LO", b"Invente")));
    // 8-bit pixels of an odd number, whose pad byte is counted and not there
    let pixels = [1, 2, 3];
    for vr in [b"OB", b"OW"] {
        let mut all = elements();
        all.retain(|(tag, _)| !matches!(tag, 0x0028_0010 | 0x0028_0100..=0x0028_0102 | 0x7FE0_0010));
        all.push((0x7FE0_0010, element_of(0x7FE0_0010, vr, 4, &pixels)));
        for (tag, value) in [(0x0028_0010, 1), (0x0028_0100, 8), (0x0028_0101, 8), (0x0028_0102, 7)] {
            all.push((tag, element(tag, b"US", &short(value))));
        }
        all.sort();
        let object = read_bytes(&join(&all)).expect("a readable object");
        assert_eq!(decode_frame(&object, 0).expect("a frame").stored, [1, 2, 3]);
    }
}

#[test]
fn fragments_without_their_delimiter() {
    let cells: Vec<u8> = [1000_u16, 1024, 1050, 1064, 1100, 2000].iter().flat_map(|v| v.to_le_bytes()).collect();
    let fragments = |end: &[u8]| [item(None, b""), item(None, &cells), end.to_vec()].concat();
    let syntax = b"1.2.840.10008.1.2.1.98";
    let meta = [&[0; 128][..], b"DICM", &element(0x0002_0010, b"UI", syntax)].concat();
    for (what, end) in [
        ("sound", sequence_end()),
        ("zeros", vec![0; 8]),
        ("an item's", item_end()),
        ("none", vec![]),
        ("junk", vec![0; 99]),
    ] {
        let bytes = with(0x7FE0_0010, &element_of(0x7FE0_0010, b"OB", UNDEFINED, &fragments(&end)));
        check(what, &[&meta[..], &bytes].concat());
    }
    // and an element behind them
    let mut all = elements();
    let (_, rescale) = all.remove(15);
    all[16].1 = element_of(0x7FE0_0010, b"OB", UNDEFINED, &fragments(&sequence_end()));
    all.push((0x0028_1052, rescale));
    check("an element behind", &[meta, join(&all)].concat());
}

#[test]
fn frames_before_a_cut_are_decoded_where_they_are_asked_for() {
    let mut bytes = with(0x0028_0008, &element(0x0028_0008, b"IS", b"2 "));
    assert!(matches!(
        decode_frame(&read_bytes(&bytes).expect("readable"), 1),
        Err(crate::ImagingError::Truncated { .. })
    ));
    let cut = bytes.len() - 12;
    bytes[cut - 4..cut].copy_from_slice(&24_u32.to_le_bytes());
    assert!(matches!(read_bytes(&bytes).expect_err("cut").cause, ReadCause::Truncated { length: 24, left: 12, .. }));
    let object = read_frames_bytes(&bytes).expect("the frames that are there");
    assert_eq!(decode_frame(&object, 0).expect("the first").hounsfield(), HU);
    assert!(matches!(decode_frame(&object, 1), Err(crate::ImagingError::Truncated { frame: 1, .. })));
}

/// A sequence of VR UN and defined length, as systems without a dictionary forward it: its content is implicit (PS3.5 section 6.2.2).
#[test]
fn functional_groups_that_lost_their_vr_are_read() {
    let implicit = |tag: u32, value: &[u8]| [&tag_bytes(tag)[..], &(value.len() as u32).to_le_bytes(), value].concat();
    let rescale = [implicit(0x0028_1052, b"-24 "), implicit(0x0028_1053, b"2 ")].concat();
    let group = implicit(0x0028_9145, &item(None, &rescale));
    let bytes = with(0x5200_9229, &element(0x5200_9229, b"UN", &item(None, &group)));
    let frame = decode_frame(&read_bytes(&bytes).expect("readable"), 0).expect("a frame");
    assert_eq!(frame.hounsfield()[0], 1976.0);
}

/// Files of a few KiB or MiB that would take gigabytes or hours.
#[test]
fn what_would_take_too_much_is_refused() {
    let items = item(None, &element(0x0008_1150, b"UI", b"")).repeat(300_000);
    let bytes = with(0x0008_1140, &element(0x0008_1140, b"SQ", &items));
    assert!(matches!(read_bytes(&bytes).expect_err("300,000 items").cause, ReadCause::TooMuchMemory));
    let many: Vec<u8> = (0..70_000_u32)
        .flat_map(|i| element(0x0009_1000 + (i % 0x8000) + (i / 0x8000) * 0x2_0000, b"LO", b""))
        .collect();
    let bytes = with(0x0009_1000, &many);
    assert!(matches!(read_bytes(&bytes).expect_err("70,000 elements").cause, ReadCause::TooMany));
}
