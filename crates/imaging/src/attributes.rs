//! Attribute values as real objects carry them: padded, of the wrong VR, with too many values, in any character set.

use dicom_core::value::{PrimitiveValue, Value};
use dicom_core::{Tag, VR};
use dicom_object::InMemDicomObject;

use crate::character_set::CharacterSet;

/// The first value as text without padding; `None` if it is absent or empty.
pub fn text(object: &InMemDicomObject, tag: Tag) -> Option<String> {
    values(object, tag).into_iter().next().filter(|value| !value.is_empty())
}

/// All values as text without padding; none if the attribute is absent.
///
/// Text that is not ASCII is decoded by the data set's Specific Character Set, whatever the VR: scanners write code strings (CS) in it too,
/// against PS3.5. What cannot be decoded becomes U+FFFD.
pub fn values(object: &InMemDicomObject, tag: Tag) -> Vec<String> {
    let Some(element) = object.get(tag) else { return Vec::new() };
    let Value::Primitive(value) = element.value() else { return Vec::new() };
    let whole = match value {
        // Bytes are text that the reader left for this function, and VR UN, from systems that forgot the dictionary.
        PrimitiveValue::U8(bytes) => CharacterSet::of(object).decode(bytes, element.vr() == VR::PN),
        other => other.to_raw_str().into_owned(),
    };
    whole.split('\\').map(|value| value.trim_matches(['\0', ' ', '\t', '\r', '\n']).to_string()).collect()
}

/// The first value as an integer, from binary and text forms alike.
pub fn integer(object: &InMemDicomObject, tag: Tag) -> Option<i64> {
    let element = object.get(tag)?;
    let Value::Primitive(value) = element.value() else { return None };
    match value {
        PrimitiveValue::U8(bytes) if element.vr() == VR::UN && bytes.len() == 2 => {
            Some(i64::from(u16::from_le_bytes([bytes[0], bytes[1]])))
        }
        PrimitiveValue::Str(_) | PrimitiveValue::Strs(_) | PrimitiveValue::U8(_) => {
            let text = text(object, tag)?;
            text.parse().ok().or_else(|| text.parse::<f64>().ok().filter(|n| n.fract() == 0.0).map(|n| n as i64))
        }
        other => other.to_int().ok(),
    }
}

/// The first value of a decimal string (DS) or a binary number. DS as it occurs: leading zeros, trailing spaces,
/// several values, a decimal comma. `None` where absent or empty, an error text where it is no finite number.
pub fn decimal(object: &InMemDicomObject, tag: Tag) -> Option<Result<f64, String>> {
    let Value::Primitive(value) = object.get(tag)?.value() else { return None };
    let number = match value {
        PrimitiveValue::Str(_) | PrimitiveValue::Strs(_) | PrimitiveValue::U8(_) => {
            let text = text(object, tag)?;
            let parsed = text.parse::<f64>().or_else(|_| text.replace(',', ".").parse());
            parsed.map_err(|_| format!("{text:?} is not a number"))
        }
        PrimitiveValue::Empty => return None,
        other => other.to_float64().map_err(|error| error.to_string()),
    };
    Some(number.and_then(|n| if n.is_finite() { Ok(n) } else { Err(format!("{n} is not a finite number")) }))
}

/// The item of a sequence attribute, if it has so many.
pub fn item(object: &InMemDicomObject, tag: Tag, index: usize) -> Option<&InMemDicomObject> {
    object.get(tag)?.items()?.get(index)
}
