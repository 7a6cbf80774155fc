//! Small objects made by hand, with hand-computed pixels.

mod compressed;
mod files;
mod hounsfield;
mod inputs;
mod lossless_jpeg;
mod structure;
mod texts;

use dicom_core::value::{C, DataSetSequence, PixelFragmentSequence, PrimitiveValue, Value};
use dicom_core::{DataElement, Length, Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::mem::InMemElement;
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};

use super::DicomObject;

fn us(tag: Tag, value: u16) -> InMemElement {
    DataElement::new(tag, VR::US, PrimitiveValue::from(value))
}

fn text(tag: Tag, vr: VR, value: &str) -> InMemElement {
    DataElement::new(tag, vr, PrimitiveValue::from(value))
}

fn words(cells: &[u16]) -> InMemElement {
    DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(C::from(cells)))
}

fn fragments(offsets: &[u32], fragments: &[&[u8]]) -> InMemElement {
    let fragments: C<Vec<u8>> = fragments.iter().map(|fragment| fragment.to_vec()).collect();
    let sequence = PixelFragmentSequence::new(C::from(offsets), fragments);
    DataElement::new(tags::PIXEL_DATA, VR::OB, Value::PixelSequence(sequence))
}

fn sequence(tag: Tag, items: Vec<InMemDicomObject>) -> InMemElement {
    DataElement::new(tag, VR::SQ, Value::Sequence(DataSetSequence::new(items, Length::UNDEFINED)))
}

/// An unsigned image with 12 of 16 bits stored, one row, as many columns as `columns`; `elements` add to it or replace
/// what it has.
fn data_set(columns: u16, elements: impl IntoIterator<Item = InMemElement>) -> InMemDicomObject {
    let mut object = InMemDicomObject::from_element_iter([
        text(tags::SOP_CLASS_UID, VR::UI, uids::CT_IMAGE_STORAGE),
        text(tags::SOP_INSTANCE_UID, VR::UI, "2.25.1"),
        us(tags::SAMPLES_PER_PIXEL, 1),
        text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2"),
        us(tags::ROWS, 1),
        us(tags::COLUMNS, columns),
        us(tags::BITS_ALLOCATED, 16),
        us(tags::BITS_STORED, 12),
        us(tags::HIGH_BIT, 11),
        us(tags::PIXEL_REPRESENTATION, 0),
    ]);
    for element in elements {
        object.put(element);
    }
    object
}

fn with_syntax(object: InMemDicomObject, transfer_syntax: &str) -> DicomObject {
    object.with_meta(FileMetaTableBuilder::new().transfer_syntax(transfer_syntax)).expect("a complete meta group")
}

fn image(columns: u16, elements: impl IntoIterator<Item = InMemElement>) -> DicomObject {
    with_syntax(data_set(columns, elements), uids::EXPLICIT_VR_LITTLE_ENDIAN)
}
