//! Every form of uncompressed pixels, to stored values and Hounsfield units.

use super::*;
use crate::{ImagingError, decode_frame, frame_count};

fn stored(object: &DicomObject) -> Vec<i32> {
    decode_frame(object, 0).expect("a frame").stored
}

fn hu(object: &DicomObject) -> Vec<f32> {
    decode_frame(object, 0).expect("a frame").hounsfield()
}

fn rescale(slope: &str, intercept: &str) -> [InMemElement; 2] {
    [text(tags::RESCALE_SLOPE, VR::DS, slope), text(tags::RESCALE_INTERCEPT, VR::DS, intercept)]
}

#[test]
fn unsigned_twelve_bits() {
    let object = image(3, rescale("1", "-1024").into_iter().chain([words(&[0, 1024, 4095])]));
    assert_eq!(stored(&object), [0, 1024, 4095]);
    assert_eq!(hu(&object), [-1024.0, 0.0, 3071.0]);
}

#[test]
fn overlay_bits_above_the_stored_ones_do_not_count() {
    assert_eq!(stored(&image(2, [words(&[0xF000, 0x8FFF])])), [0, 4095]);
    // and below them, where the high bit is 15
    assert_eq!(stored(&image(2, [us(tags::HIGH_BIT, 15), words(&[0x001F, 0xFFF3])])), [1, 4095]);
}

#[test]
fn signed_values_are_extended_from_the_stored_bits() {
    let signed = us(tags::PIXEL_REPRESENTATION, 1);
    assert_eq!(stored(&image(4, [signed.clone(), words(&[0x0FFF, 0x0800, 0x07FF, 0x1001])])), [-1, -2048, 2047, 1]);
    let sixteen = [signed, us(tags::BITS_STORED, 16), us(tags::HIGH_BIT, 15), words(&[0xFFFF, 0x8000, 0x7FFF])];
    assert_eq!(stored(&image(3, sixteen)), [-1, -32768, 32767]);
}

#[test]
fn high_bit_15_of_samples_that_were_not_shifted() {
    let high = us(tags::HIGH_BIT, 15);
    assert_eq!(stored(&image(3, [high.clone(), words(&[0, 1046, 4095])])), [0, 1046, 4095]);
    let signed = us(tags::PIXEL_REPRESENTATION, 1);
    assert_eq!(stored(&image(3, [high.clone(), signed.clone(), words(&[0xFFFF, 0xF800, 0x07FF])])), [-1, -2048, 2047]);
    // shifted ones
    assert_eq!(stored(&image(2, [high.clone(), words(&[0x4160, 0xFFF0])])), [1046, 4095]);
    assert_eq!(stored(&image(2, [high, signed, words(&[0xFFF0, 0x0010])])), [-1, 1]);
}

#[test]
fn eight_bits_in_bytes_and_in_words() {
    let eight = [us(tags::BITS_ALLOCATED, 8), us(tags::BITS_STORED, 8), us(tags::HIGH_BIT, 7)];
    let bytes = DataElement::new(tags::PIXEL_DATA, VR::OB, PrimitiveValue::from(vec![0_u8, 128, 255, 0]));
    assert_eq!(stored(&image(3, eight.clone().into_iter().chain([bytes]))), [0, 128, 255]);
    assert_eq!(stored(&image(3, eight.clone().into_iter().chain([words(&[0x8000, 0x00FF])]))), [0, 128, 255]);
    let signed = [us(tags::PIXEL_REPRESENTATION, 1), words(&[0x80FF])];
    assert_eq!(stored(&image(2, eight.into_iter().chain(signed))), [-1, -128]);
}

#[test]
fn monochrome1_has_the_same_hounsfield_units() {
    let one = image(2, [text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME1"), words(&[0, 40])]);
    let two = image(2, [words(&[0, 40])]);
    assert_eq!(hu(&one), hu(&two));
}

#[test]
fn padding_and_what_is_below_air_are_air() {
    let signed = [us(tags::PIXEL_REPRESENTATION, 1), us(tags::BITS_STORED, 16), us(tags::HIGH_BIT, 15)];
    let pixels = words(&[(-2000_i16) as u16, (-1500_i16) as u16, 40]);
    let padding = DataElement::new(tags::PIXEL_PADDING_VALUE, VR::SS, PrimitiveValue::from(40_i16));
    let object = image(3, signed.into_iter().chain([pixels, padding]));
    assert_eq!(stored(&object), [-2000, -1500, 40], "stored values stay as they are");
    assert_eq!(hu(&object), [-1024.0, -1024.0, -1024.0]);
}

#[test]
fn a_padding_range_counts_in_either_order() {
    let object = |limit| {
        image(
            4,
            [us(tags::PIXEL_PADDING_VALUE, 10), us(tags::PIXEL_PADDING_RANGE_LIMIT, limit), words(&[9, 10, 12, 13])],
        )
    };
    assert_eq!(hu(&object(12)), [9.0, -1024.0, -1024.0, 13.0]);
    assert_eq!(hu(&object(9)), [-1024.0, -1024.0, 12.0, 13.0]);
}

#[test]
fn a_padding_range_that_covers_tissue_hides_none_within_bone() {
    // Six by five: padding at the border and in a bay of it, bone around two values of the range and a cavity of the range's lowest.
    #[rustfmt::skip]
    let values = [
        50, 50, 50, 50, 50, 50,
        9, 900, 900, 900, 50, 9,
        9, 900, 40, 60, 900, 9,
        9, 900, 60, 9, 900, 9,
        50, 900, 900, 900, 900, 9,
    ];
    let [range, limit] =
        [(tags::PIXEL_PADDING_VALUE, 40), (tags::PIXEL_PADDING_RANGE_LIMIT, 60)].map(|(tag, value)| us(tag, value));
    let object = image(6, [us(tags::ROWS, 5), range, limit, words(&values)]);
    #[rustfmt::skip]
    let expected = [
        -1024.0, -1024.0, -1024.0, -1024.0, -1024.0, -1024.0,
        9.0, 900.0, 900.0, 900.0, -1024.0, 9.0,
        9.0, 900.0, 40.0, 60.0, 900.0, 9.0,
        9.0, 900.0, 60.0, 9.0, 900.0, 9.0,
        -1024.0, 900.0, 900.0, 900.0, 900.0, 9.0,
    ];
    assert_eq!(hu(&object), expected);
}

#[test]
fn padding_that_needs_more_bits_than_are_stored_is_still_padding() {
    // -2000 as US in a 12-bit image: masked it would be 48, brain
    let signed = [us(tags::PIXEL_REPRESENTATION, 1), us(tags::PIXEL_PADDING_VALUE, 63536), words(&[63536, 48])];
    assert_eq!(hu(&image(2, signed)), [-1024.0, 48.0]);
}

#[test]
fn rescale_values_as_they_are_written() {
    for (slope, intercept) in
        [("1", "-1024.000000"), ("01.0 ", "  -01024"), ("1\\2", "-1024\\0"), ("1.0E+00", "-1,024E3")]
    {
        let object = image(1, rescale(slope, intercept).into_iter().chain([words(&[1064])]));
        assert_eq!(hu(&object), [40.0], "{slope} {intercept}");
    }
    // absent: stored values are Hounsfield units
    assert_eq!(hu(&image(1, [words(&[40])])), [40.0]);
    assert_eq!(hu(&image(1, rescale("", "").into_iter().chain([words(&[40])]))), [40.0]);
}

#[test]
fn a_rescale_that_makes_no_sense_is_a_contradiction() {
    for (slope, intercept) in [("0", "0"), ("one", "0"), ("1", "nan"), ("inf", "0")] {
        let object = image(1, rescale(slope, intercept).into_iter().chain([words(&[1])]));
        let error = decode_frame(&object, 0).expect_err("no Hounsfield units");
        assert!(error.is_contradiction() && matches!(error, ImagingError::Rescale(_)), "{slope} {intercept}: {error}");
    }
}

#[test]
fn a_modality_lut_goes_before_a_rescale() {
    let lut = InMemDicomObject::from_element_iter([
        DataElement::new(tags::LUT_DESCRIPTOR, VR::US, PrimitiveValue::U16(C::from_slice(&[3, 10, 16]))),
        DataElement::new(tags::LUT_DATA, VR::OW, PrimitiveValue::U16(C::from_slice(&[100, 200, 300]))),
    ]);
    let object = image(
        5,
        rescale("5", "5")
            .into_iter()
            .chain([sequence(tags::MODALITY_LUT_SEQUENCE, vec![lut]), words(&[0, 10, 11, 12, 99])]),
    );
    assert_eq!(hu(&object), [100.0, 100.0, 200.0, 300.0, 300.0]);
}

#[test]
fn the_first_value_of_a_modality_lut_is_signed_where_stored_values_are() {
    let signed = || us(tags::PIXEL_REPRESENTATION, 1);
    for descriptor in [
        DataElement::new(tags::LUT_DESCRIPTOR, VR::SS, PrimitiveValue::I16(C::from_slice(&[3, -1024, 16]))),
        // As from implicit VR, where the dictionary says US.
        DataElement::new(tags::LUT_DESCRIPTOR, VR::US, PrimitiveValue::U16(C::from_slice(&[3, 64512, 16]))),
    ] {
        let data = DataElement::new(tags::LUT_DATA, VR::OW, PrimitiveValue::U16(C::from_slice(&[100, 200, 300])));
        let lut = InMemDicomObject::from_element_iter([descriptor, data]);
        let sixteen =
            [signed(), us(tags::BITS_STORED, 16), us(tags::HIGH_BIT, 15), words(&[0xFC00, 0xFC01, 0xFC02, 7])];
        let object = image(4, sixteen.into_iter().chain([sequence(tags::MODALITY_LUT_SEQUENCE, vec![lut])]));
        assert_eq!(hu(&object), [100.0, 200.0, 300.0, 300.0]);
    }
}

/// An item of a functional groups sequence with a rescale.
fn group(slope: &str, intercept: &str) -> InMemDicomObject {
    let item = InMemDicomObject::from_element_iter(rescale(slope, intercept));
    InMemDicomObject::from_element_iter([sequence(tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE, vec![item])])
}

#[test]
fn an_enhanced_object_has_a_rescale_for_all_frames_or_for_each() {
    let frames = [text(tags::NUMBER_OF_FRAMES, VR::IS, "3 "), words(&[1, 2, 3, 4, 5, 6])];
    let shared = sequence(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, vec![group("2", "-10")]);
    let object = image(2, frames.iter().cloned().chain([shared.clone()]));
    assert_eq!(frame_count(&object).unwrap(), 3);
    assert_eq!(decode_frame(&object, 1).unwrap().hounsfield(), [-4.0, -2.0]);

    let each = vec![group("1", "0"), group("1", "100"), InMemDicomObject::new_empty()];
    let each = sequence(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, each);
    let object = image(2, frames.into_iter().chain([shared, each]));
    assert_eq!(decode_frame(&object, 0).unwrap().hounsfield(), [1.0, 2.0]);
    assert_eq!(decode_frame(&object, 1).unwrap().hounsfield(), [103.0, 104.0]);
    assert_eq!(decode_frame(&object, 2).unwrap().hounsfield(), [0.0, 2.0], "frame 2 has none of its own");
    assert!(matches!(decode_frame(&object, 3), Err(ImagingError::NoSuchFrame { frame: 3, frames: 3 })));
}

#[test]
fn half_a_rescale_in_a_functional_group_is_none() {
    let whole = group;
    let group = |tag: Tag, value: &str| {
        let item = InMemDicomObject::from_element_iter([text(tag, VR::DS, value)]);
        InMemDicomObject::from_element_iter([sequence(tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE, vec![item])])
    };
    let object = |shared: &[InMemElement], each: Vec<InMemDicomObject>| {
        let frames = [text(tags::NUMBER_OF_FRAMES, VR::IS, "2 "), words(&[1, 2, 3, 4])];
        let each = sequence(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, each);
        image(2, frames.into_iter().chain(shared.iter().cloned()).chain([each]))
    };
    let slope = || group(tags::RESCALE_SLOPE, "2");
    let half = object(&[], vec![whole("1", "-10"), slope()]);
    assert_eq!(decode_frame(&half, 0).expect("a whole one").hounsfield(), [-9.0, -8.0]);
    let error = decode_frame(&half, 1).expect_err("half of one");
    assert!(matches!(&error, ImagingError::Rescale(why) if why == "rescale slope without intercept"), "{error}");
    let other = object(&[], vec![group(tags::RESCALE_INTERCEPT, "-1024"), slope()]);
    assert!(matches!(decode_frame(&other, 0), Err(ImagingError::Rescale(_))));
    // The other half stands elsewhere.
    let shared = sequence(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, vec![group(tags::RESCALE_INTERCEPT, "-10")]);
    let whole = object(&[shared], vec![slope(), slope()]);
    assert_eq!(decode_frame(&whole, 1).expect("slope and intercept").hounsfield(), [-4.0, -2.0]);
    let own = text(tags::RESCALE_INTERCEPT, VR::DS, "-10");
    assert_eq!(decode_frame(&object(&[own], vec![slope(), slope()]), 1).expect("both").hounsfield(), [-4.0, -2.0]);
}

#[test]
fn objects_that_cannot_be_triaged_are_contradictions() {
    let pixels = || words(&[0, 0]);
    let cases: [(&str, Vec<InMemElement>); 9] = [
        ("no pixel data", vec![]),
        ("no rows", vec![us(tags::ROWS, 0), pixels()]),
        ("absurdly wide", vec![us(tags::COLUMNS, 65535), pixels()]),
        ("color", vec![us(tags::SAMPLES_PER_PIXEL, 3), pixels()]),
        ("a palette", vec![text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "PALETTE COLOR"), pixels()]),
        ("one bit", vec![us(tags::BITS_ALLOCATED, 1), us(tags::BITS_STORED, 1), pixels()]),
        ("more stored than allocated", vec![us(tags::BITS_STORED, 17), pixels()]),
        ("too many frames", vec![text(tags::NUMBER_OF_FRAMES, VR::IS, "99999999"), pixels()]),
        ("frames of no number", vec![text(tags::NUMBER_OF_FRAMES, VR::IS, "many"), pixels()]),
    ];
    for (what, elements) in cases {
        let error = decode_frame(&image(2, elements), 0).expect_err(what);
        assert!(error.is_contradiction(), "{what}: {error}");
    }
}

#[test]
fn too_few_pixels_are_a_failure_that_says_so() {
    let error = decode_frame(&image(3, [words(&[1, 2])]), 0).expect_err("truncated");
    assert!(!error.is_contradiction());
    assert_eq!(error.to_string(), "pixel data truncated: frame 0 ends at byte 6, there are 4");
    let two = image(2, [text(tags::NUMBER_OF_FRAMES, VR::IS, "2"), words(&[1, 2, 3])]);
    assert!(decode_frame(&two, 0).is_ok());
    assert!(matches!(decode_frame(&two, 1), Err(ImagingError::Truncated { frame: 1, needed: 8, present: 6 })));
}

#[test]
fn what_is_absent_has_its_usual_value() {
    let mut object = image(2, [words(&[7, 8])]);
    for tag in [
        tags::SAMPLES_PER_PIXEL,
        tags::PHOTOMETRIC_INTERPRETATION,
        tags::BITS_STORED,
        tags::HIGH_BIT,
        tags::PIXEL_REPRESENTATION,
    ] {
        object.remove_element(tag);
    }
    assert_eq!(stored(&object), [7, 8]);
    assert_eq!(frame_count(&object).unwrap(), 1);
}
