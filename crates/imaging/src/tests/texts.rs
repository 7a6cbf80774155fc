//! Text in all character sets, as pydicom 3.0 reads it.

use super::*;
use crate::attributes;

fn read(charset: &[u8], vr: VR, value: &[u8]) -> String {
    let bytes = |bytes: &[u8]| PrimitiveValue::U8(C::from(bytes));
    let mut object = InMemDicomObject::new_empty();
    object.put(DataElement::new(tags::SPECIFIC_CHARACTER_SET, VR::CS, bytes(charset)));
    object.put(DataElement::new(tags::PATIENT_ID, vr, bytes(value)));
    attributes::text(&object, tags::PATIENT_ID).unwrap_or_default()
}

#[test]
fn every_way_to_write_a_name() {
    for (charset, value, text) in [
        (&b"ISO_IR 192"[..], &b"M\xc3\xbcller-7 "[..], "Müller-7"),
        (b"ISO IR 192", b"M\xc3\xbcller-7", "Müller-7"),
        (b"UTF-8", b"M\xc3\xbcller-7", "Müller-7"),
        (b"ISO_IR 192", b"M\xfcller-7", "M\u{FFFD}ller-7"),
        (b"ISO_IR 192", b"M\xc3", "M\u{FFFD}"),
        (b"ISO_IR 100", b"M\xfcller", "Müller"),
        (b"ISO-IR 100", b"M\xfcller", "Müller"),
        (b"", b"M\xfcller", "Müller"),
        (b"nonsense", b"M\xfcller", "Müller"),
        (b"ISO_IR 101", b"Wa\xb3\xeasa", "Wałęsa"),
        (b"ISO_IR 144", b"\xbb\xee\xda", "Люк"),
        (b"ISO 2022 IR 144", b"\xbb\xee\xda", "Люк"),
        (b"ISO_IR 126", b"\xc4\xe9\xef", "Διο"),
        (b"ISO_IR 138", b"\xf9\xf8", "שר"),
        (b"ISO_IR 13", b"\xd4\xcf\xc0\xde", "ﾔﾏﾀﾞ"),
        (b"GB18030", b"\x8b\\12", "媆12"),
        (b"GBK", b"\xcd\xf5\xd0\xa1", "王小"),
        (b"\\ISO 2022 IR 87", b"\x1b$B;3ED\x1b(B", "山田"),
        (b"ISO 2022 IR 13\\ISO 2022 IR 87", b"\xd4\xcf\x1b$B;3ED\x1b(J12", "ﾔﾏ山田12"),
        (b"\\ISO 2022 IR 159", b"\x1b$(D0!\x1b(B", "丂"),
        (b"\\ISO 2022 IR 149", b"Hong^\x1b$)C\xb1\xe8\xc8\xf1", "Hong^김희"),
        (b"\\ISO 2022 IR 58", b"\x1b$)A\xcd\xf5", "王"),
        (b"ISO 2022 IR 100\\ISO 2022 IR 144", b"M\xfc\x1b-L\xbb", "MüЛ"),
    ] {
        assert_eq!(read(charset, VR::LO, value), text, "{charset:?} {value:?}");
    }
}

/// A backslash as the second byte of a character separates no values; one that stands alone does.
#[test]
fn values_are_told_apart_behind_the_decoding() {
    let mut object = InMemDicomObject::new_empty();
    object.put(text(tags::SPECIFIC_CHARACTER_SET, VR::CS, "GB18030"));
    let bytes = PrimitiveValue::U8(C::from_slice(b"\x8b\\1\\\x8b\\2 "));
    object.put(DataElement::new(tags::PATIENT_ID, VR::LO, bytes));
    assert_eq!(attributes::values(&object, tags::PATIENT_ID), ["媆1", "媆2"]);
}

/// PS3.5 section 6.1.2.5.3
#[test]
fn a_delimiter_ends_what_an_escape_sequence_began() {
    assert_eq!(read(b"\\ISO 2022 IR 149", VR::PN, b"\x1b$)C\xb1\xe8^\xb1"), "김^±");
    assert_eq!(read(b"\\ISO 2022 IR 149", VR::LO, b"\x1b$)C\xb1\xe8^\xc8\xf1"), "김^희");
}

#[test]
fn code_strings_are_read_in_the_character_set_too() {
    assert_eq!(read(b"ISO_IR 192", VR::CS, b"Sch\xc3\xa4del"), "Schädel");
    assert_eq!(read(b"ISO_IR 192", VR::CS, b"T\xc3\x8aTE "), "TÊTE");
}
