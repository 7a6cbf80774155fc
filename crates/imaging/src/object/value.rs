//! The value of an element, from its bytes.

use dicom_core::value::{C, PrimitiveValue};
use dicom_core::{Tag, VR};

use super::limits::MAX_TEXT;

/// The value that the bytes stand for (PS3.5 section 6.2).
///
/// Bytes remain bytes if they are no whole number of values of the VR, if the text is longer than [`MAX_TEXT`], and if the text has other
/// characters than those of ASCII: which ones they are depends on the Specific Character Set, which may come later or from an
/// outer data set. [`attributes`](crate::attributes) decodes them, and an object that is written again has the same bytes.
pub(super) fn value(vr: VR, bytes: Vec<u8>, big: bool) -> PrimitiveValue {
    if bytes.is_empty() {
        return PrimitiveValue::Empty;
    }
    match vr {
        VR::OB | VR::UN => PrimitiveValue::U8(bytes.into()),
        VR::US | VR::OW => numbers(bytes, big, u16::from_le_bytes, u16::from_be_bytes, PrimitiveValue::U16),
        VR::SS => numbers(bytes, big, i16::from_le_bytes, i16::from_be_bytes, PrimitiveValue::I16),
        VR::UL | VR::OL => numbers(bytes, big, u32::from_le_bytes, u32::from_be_bytes, PrimitiveValue::U32),
        VR::SL => numbers(bytes, big, i32::from_le_bytes, i32::from_be_bytes, PrimitiveValue::I32),
        VR::FL | VR::OF => numbers(bytes, big, f32::from_le_bytes, f32::from_be_bytes, PrimitiveValue::F32),
        VR::FD | VR::OD => numbers(bytes, big, f64::from_le_bytes, f64::from_be_bytes, PrimitiveValue::F64),
        VR::UV | VR::OV => numbers(bytes, big, u64::from_le_bytes, u64::from_be_bytes, PrimitiveValue::U64),
        VR::SV => numbers(bytes, big, i64::from_le_bytes, i64::from_be_bytes, PrimitiveValue::I64),
        VR::AT => {
            let half = |b: [u8; 2]| if big { u16::from_be_bytes(b) } else { u16::from_le_bytes(b) };
            let tag = |[g0, g1, e0, e1]: [u8; 4]| Tag(half([g0, g1]), half([e0, e1]));
            numbers(bytes, false, tag, tag, PrimitiveValue::Tags)
        }
        VR::ST | VR::LT | VR::UT | VR::UR => match ascii(bytes) {
            Ok(text) => PrimitiveValue::Str(text),
            Err(bytes) => PrimitiveValue::U8(bytes.into()),
        },
        // Numbers written as text are written again as text only if they are text.
        VR::IS | VR::DS if bytes.len() <= MAX_TEXT => texts(&String::from_utf8_lossy(&bytes)),
        _ => match ascii(bytes) {
            Ok(text) => texts(&text),
            Err(bytes) => PrimitiveValue::U8(bytes.into()),
        },
    }
}

fn numbers<const N: usize, T>(
    bytes: Vec<u8>,
    big: bool,
    from_little: impl Fn([u8; N]) -> T,
    from_big: impl Fn([u8; N]) -> T,
    values: fn(C<T>) -> PrimitiveValue,
) -> PrimitiveValue {
    let (chunks, rest) = bytes.as_chunks::<N>();
    if !rest.is_empty() {
        return PrimitiveValue::U8(bytes.into());
    }
    values(chunks.iter().map(|&chunk| if big { from_big(chunk) } else { from_little(chunk) }).collect())
}

/// The bytes as text if they are plain ASCII, without the escape sequences of ISO 2022.
fn ascii(bytes: Vec<u8>) -> Result<String, Vec<u8>> {
    let plain = bytes.len() <= MAX_TEXT && bytes.iter().all(|&byte| byte < 0x80 && byte != 0x1B);
    if !plain {
        return Err(bytes);
    }
    String::from_utf8(bytes).map_err(std::string::FromUtf8Error::into_bytes)
}

fn texts(text: &str) -> PrimitiveValue {
    PrimitiveValue::Strs(text.split('\\').map(str::to_string).collect())
}
