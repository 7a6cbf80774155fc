//! Whether two objects are one in two encodings: a scanner sends explicit VR little endian, and a PACS the same object in implicit VR.

use std::borrow::Cow;

use dicom_core::header::Header;
use dicom_core::value::{PrimitiveValue, Value};
use dicom_object::InMemDicomObject;
use dicom_object::mem::InMemElement;

use crate::object::DicomObject;

/// Whether two uncompressed objects have the same elements with the same values, whatever the encoding of either. VRs do not count, for
/// implicit VR has none of private elements, nor do the padding of values and group lengths; pixel data do. `false` where
/// one has encapsulated pixel data: to compare these they would have to be decoded.
pub fn is_same_object(a: &DicomObject, b: &DicomObject) -> bool {
    same_data_set(a, b)
}

fn same_data_set(a: &InMemDicomObject, b: &InMemDicomObject) -> bool {
    let elements =
        |object| InMemDicomObject::iter(object).filter(|element: &&InMemElement| element.tag().element() != 0);
    elements(a).count() == elements(b).count() && elements(a).zip(elements(b)).all(|(a, b)| same_element(a, b))
}

fn same_element(a: &InMemElement, b: &InMemElement) -> bool {
    a.tag() == b.tag()
        && match (a.value(), b.value()) {
            (Value::Primitive(a), Value::Primitive(b)) => unpadded(a) == unpadded(b),
            (Value::Sequence(a), Value::Sequence(b)) => {
                a.items().len() == b.items().len() && a.items().iter().zip(b.items()).all(|(a, b)| same_data_set(a, b))
            }
            _ => false,
        }
}

/// The bytes of a value in little endian, without what fills it up to an even length.
fn unpadded(value: &PrimitiveValue) -> Cow<'_, [u8]> {
    let without = |bytes: &[u8]| bytes.iter().rposition(|byte| !matches!(byte, 0 | b' ')).map_or(0, |last| last + 1);
    match value.to_bytes() {
        Cow::Borrowed(bytes) => Cow::Borrowed(&bytes[..without(bytes)]),
        Cow::Owned(mut bytes) => {
            bytes.truncate(without(&bytes));
            Cow::Owned(bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use dicom_core::{DataElement, Tag, VR};
    use dicom_dictionary_std::tags;
    use dicom_encoding::TransferSyntaxIndex;
    use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

    use super::*;
    use crate::object::read_bytes;
    use crate::phantom::{PhantomSpec, series};

    fn in_syntax(object: &DicomObject, uid: &str) -> DicomObject {
        let mut object = object.clone();
        object.meta_mut().set_transfer_syntax(TransferSyntaxRegistry.get(uid).expect("a native one"));
        let mut bytes = Vec::new();
        object.write_all(&mut bytes).expect("it can be written");
        read_bytes(&bytes).expect("it can be read")
    }

    #[test]
    fn an_object_is_the_same_in_every_uncompressed_encoding_and_another_is_not() {
        let mut object = series(&PhantomSpec { slices: 1, lesion: None, seed: 1 }).next().expect("a slice");
        object.put(DataElement::new(Tag(0x0009, 0x0010), VR::LO, PrimitiveValue::from("TRIAGED TEST")));
        object.put(DataElement::new(Tag(0x0009, 0x1001), VR::DS, PrimitiveValue::from("1.25")));
        object.put(DataElement::new(Tag(0x0009, 0x1002), VR::LT, PrimitiveValue::from("odd")));
        let explicit = in_syntax(&object, "1.2.840.10008.1.2.1");
        for uid in ["1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1"] {
            assert!(is_same_object(&explicit, &in_syntax(&object, uid)), "{uid}");
        }
        let mut other = explicit.clone();
        other.put(DataElement::new(tags::PATIENT_ID, VR::LO, PrimitiveValue::from("SOMEBODY ELSE")));
        assert!(!is_same_object(&explicit, &other));
        let mut pixels = explicit.element(tags::PIXEL_DATA).expect("pixels").to_bytes().expect("bytes").into_owned();
        pixels[1000] ^= 1;
        let mut other = explicit.clone();
        other.put(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::from(pixels)));
        assert!(!is_same_object(&explicit, &other));
        let mut more = explicit.clone();
        more.put(DataElement::new(tags::IMAGE_COMMENTS, VR::LT, PrimitiveValue::from("more")));
        assert!(!is_same_object(&explicit, &more));
    }
}
