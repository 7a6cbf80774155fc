//! Text in the character sets of DICOM (PS3.3 C.12.1.1.2, PS3.5 section 6.1), read as pydicom reads it, misspelt names included.

use dicom_core::value::{PrimitiveValue, Value};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use dicom_object::mem::InMemElement;
use encoding_rs::{
    EUC_JP, EUC_KR, Encoding, GB18030, GBK, ISO_8859_2, ISO_8859_3, ISO_8859_4, ISO_8859_5, ISO_8859_6, ISO_8859_7,
    ISO_8859_8, ISO_8859_15, SHIFT_JIS, UTF_8, WINDOWS_874, WINDOWS_1254,
};

const ESCAPE: u8 = 0x1B;

/// The characters for bytes from 0x80. `None` is Latin alphabet No. 1, which also stands for the default repertoire: it has a character for
/// each byte.
type Upper = Option<&'static Encoding>;

/// The characters that bytes below 0x80 stand for (G0).
#[derive(Debug, Clone, Copy, PartialEq)]
enum Lower {
    Ascii,
    /// JIS X 0208, two bytes a character.
    Kanji,
    /// JIS X 0212, two bytes a character.
    SupplementaryKanji,
}

/// The first value of Specific Character Set. Escape sequences (ISO 2022) name all others themselves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CharacterSet(Upper);

impl CharacterSet {
    /// That of a data set; the default repertoire if it has none.
    pub fn of(object: &InMemDicomObject) -> CharacterSet {
        let Some(Value::Primitive(value)) = object.get(tags::SPECIFIC_CHARACTER_SET).map(InMemElement::value) else {
            return CharacterSet(None);
        };
        let names = match value {
            PrimitiveValue::U8(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            other => other.to_raw_str().into_owned(),
        };
        CharacterSet(upper(names.split('\\').next().unwrap_or_default()))
    }

    /// The text; U+FFFD for what is none. `names` says that `^` and `=` end what an escape sequence began (PS3.5
    /// section 6.1.2.5.3), as in person names.
    pub fn decode(self, bytes: &[u8], names: bool) -> String {
        if !bytes.contains(&ESCAPE) {
            return decode_upper(self.0, bytes);
        }
        let mut text = String::with_capacity(bytes.len());
        let (mut lower, mut upper) = (Lower::Ascii, self.0);
        let mut rest = bytes;
        while let Some(&byte) = rest.first() {
            if byte == ESCAPE
                && let Some(behind) = escape(rest, &mut lower, &mut upper)
            {
                rest = behind;
                continue;
            }
            let length = match (lower, rest) {
                (Lower::Kanji, &[a @ 0x21..=0x7E, b @ 0x21..=0x7E, ..]) => {
                    text.push_str(&EUC_JP.decode_without_bom_handling(&[a | 0x80, b | 0x80]).0);
                    2
                }
                (Lower::SupplementaryKanji, &[a @ 0x21..=0x7E, b @ 0x21..=0x7E, ..]) => {
                    text.push_str(&EUC_JP.decode_without_bom_handling(&[0x8F, a | 0x80, b | 0x80]).0);
                    2
                }
                (_, [0x00..=0x7F, ..]) => {
                    // The sets of the first value are in force again behind a delimiter.
                    if matches!(byte, b'\t' | b'\n' | 0x0C | b'\r' | b'\\') || (names && matches!(byte, b'^' | b'=')) {
                        (lower, upper) = (Lower::Ascii, self.0);
                    }
                    text.push(byte.into());
                    1
                }
                _ => {
                    let length = rest.iter().take_while(|&&byte| byte >= 0x80).count();
                    text.push_str(&decode_upper(upper, &rest[..length]));
                    length
                }
            };
            rest = &rest[length..];
        }
        text
    }
}

fn decode_upper(set: Upper, bytes: &[u8]) -> String {
    match set {
        None => bytes.iter().map(|&byte| char::from(byte)).collect(),
        Some(encoding) => encoding.decode_without_bom_handling(bytes).0.into_owned(),
    }
}

/// The set that a value of Specific Character Set names: defined terms, and what is written for them (`ISO IR 192`, `ISO-IR 100`,
/// `ISO2022 IR 87`, `UTF-8`, `GB 18030`).
fn upper(name: &str) -> Upper {
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_uppercase()).collect();
    match name.as_str() {
        "UTF8" => return Some(UTF_8),
        "GB18030" => return Some(GB18030),
        "GBK" | "ISO2022GBK" => return Some(GBK),
        "GB2312" => return Some(GBK),
        "ISO885915" => return Some(ISO_8859_15),
        _ => {}
    }
    let number = name
        .strip_prefix("ISO2022IR")
        .or_else(|| name.strip_prefix("ISO2022"))
        .or_else(|| name.strip_prefix("ISOIR"))
        .or_else(|| name.strip_prefix("IR"));
    by_number(number?.parse().ok()?)
}

/// Registered sets (ISO-IR) by number.
fn by_number(number: u16) -> Upper {
    Some(match number {
        13 => SHIFT_JIS,
        58 => GBK,
        101 => ISO_8859_2,
        109 => ISO_8859_3,
        110 => ISO_8859_4,
        126 => ISO_8859_7,
        127 => ISO_8859_6,
        138 => ISO_8859_8,
        144 => ISO_8859_5,
        148 => WINDOWS_1254,
        149 => EUC_KR,
        166 => WINDOWS_874,
        192 => UTF_8,
        203 => ISO_8859_15,
        _ => return None,
    })
}

/// Obeys the escape sequence at the begin of `bytes` (PS3.3 tables C.12-3 and C.12-4); returns what is behind it, `None` if it is none that DICOM
/// knows.
fn escape<'a>(bytes: &'a [u8], lower: &mut Lower, upper: &mut Upper) -> Option<&'a [u8]> {
    let (length, ()) = match bytes {
        [_, b'(', b'B' | b'J', ..] => (3, *lower = Lower::Ascii),
        [_, b'$', b'@' | b'B', ..] => (3, *lower = Lower::Kanji),
        [_, b'$', b'(', b'D', ..] => (4, *lower = Lower::SupplementaryKanji),
        [_, b')', b'I', ..] => (3, *upper = Some(SHIFT_JIS)),
        [_, b'$', b')', b'C', ..] => (4, *upper = Some(EUC_KR)),
        [_, b'$', b')', b'A', ..] => (4, *upper = Some(GBK)),
        [_, b'-', set, ..] => {
            let number = match set {
                b'A' => 100,
                b'B' => 101,
                b'C' => 109,
                b'D' => 110,
                b'F' => 126,
                b'G' => 127,
                b'H' => 138,
                b'L' => 144,
                b'M' => 148,
                b'T' => 166,
                b'b' => 203,
                _ => return None,
            };
            (3, *upper = by_number(number))
        }
        _ => return None,
    };
    Some(&bytes[length..])
}
