//! The attributes that a document takes over from its images: patient and study, in their own character set.

use dicom_core::value::{PrimitiveValue, Value};
use dicom_core::{DataElement, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use triaged_imaging::attributes::{item, text};

use super::content::{put_items, put_text};
use crate::ledger::WorklistRow;

/// Attributes that a document must have, empty where the images have none (type 2 of PS3.3 C.7.1.1 and C.7.2.1).
const NEEDED: [(Tag, VR); 9] = [
    (tags::PATIENT_NAME, VR::PN),
    (tags::PATIENT_ID, VR::LO),
    (tags::PATIENT_BIRTH_DATE, VR::DA),
    (tags::PATIENT_SEX, VR::CS),
    (tags::STUDY_DATE, VR::DA),
    (tags::STUDY_TIME, VR::TM),
    (tags::REFERRING_PHYSICIAN_NAME, VR::PN),
    (tags::STUDY_ID, VR::SH),
    (tags::ACCESSION_NUMBER, VR::SH),
];

/// Attributes that a document has where the images have them.
const WELCOME: [(Tag, VR); 10] = [
    (tags::ISSUER_OF_PATIENT_ID, VR::LO),
    (tags::OTHER_PATIENT_NAMES, VR::PN),
    (tags::PATIENT_BIRTH_TIME, VR::TM),
    (tags::PATIENT_AGE, VR::AS),
    (tags::PATIENT_SIZE, VR::DS),
    (tags::PATIENT_WEIGHT, VR::DS),
    (tags::STUDY_DESCRIPTION, VR::LO),
    (tags::INSTITUTION_NAME, VR::LO),
    (tags::TIMEZONE_OFFSET_FROM_UTC, VR::SH),
    (tags::INSTITUTIONAL_DEPARTMENT_NAME, VR::LO),
];

/// Patient and study as an image names them: text as the same bytes under the same Specific Character Set. What is not valid for
/// its VR is left out, for a PACS may refuse the whole document for it.
pub(super) fn of_image(image: &InMemDicomObject, study_uid: &str) -> InMemDicomObject {
    let mut object = InMemDicomObject::new_empty();
    if let Some(value) = text_value(image, tags::SPECIFIC_CHARACTER_SET) {
        object.put(DataElement::new(tags::SPECIFIC_CHARACTER_SET, VR::CS, value));
    }
    for (tag, vr) in NEEDED {
        let value = text_value(image, tag).filter(|_| is_valid(image, tag, vr));
        object.put(DataElement::new(tag, vr, value.unwrap_or(PrimitiveValue::Empty)));
    }
    for (tag, vr) in WELCOME {
        if let Some(value) = text_value(image, tag).filter(|_| is_valid(image, tag, vr)) {
            object.put(DataElement::new(tag, vr, value));
        }
    }
    put_text(&mut object, tags::STUDY_INSTANCE_UID, VR::UI, study_uid);
    object
}

/// Patient and study as the ledger knows them, where no image can be read any more.
pub(super) fn of_ledger(study: &WorklistRow) -> InMemDicomObject {
    let mut object = InMemDicomObject::new_empty();
    put_text(&mut object, tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 192");
    for (tag, vr) in NEEDED {
        let value = match tag {
            tags::PATIENT_NAME => &study.patient_name,
            tags::PATIENT_ID => &study.patient_id,
            tags::PATIENT_BIRTH_DATE => &study.birth_date,
            tags::PATIENT_SEX => &study.sex,
            tags::STUDY_DATE => &study.study_date,
            tags::REFERRING_PHYSICIAN_NAME => &study.referring_physician,
            tags::ACCESSION_NUMBER => &study.accession_number,
            _ => &None,
        };
        let value = value.as_deref().map(|value| value.replace('\\', "/").replace(|c: char| c.is_control(), " "));
        let value = value.unwrap_or_default();
        put_text(&mut object, tag, vr, if is_valid_text(&value, vr) { &value } else { "" });
    }
    if let Some(sex) = &study.sex
        && !is_sex(sex)
    {
        put_text(&mut object, tags::PATIENT_SEX, VR::CS, "");
    }
    put_text(&mut object, tags::STUDY_INSTANCE_UID, VR::UI, &study.study_uid);
    object
}

/// A code of the images, if it is one: its value, scheme and meaning are there, and it is in plain letters.
fn code_item(source: &InMemDicomObject) -> Option<InMemDicomObject> {
    let mut code = InMemDicomObject::new_empty();
    for (tag, vr, most) in
        [(tags::CODE_VALUE, VR::SH, 16), (tags::CODING_SCHEME_DESIGNATOR, VR::SH, 16), (tags::CODE_MEANING, VR::LO, 64)]
    {
        let value = text(source, tag)?;
        let plain = value.len() <= most && value.bytes().all(|b| (0x20..0x7f).contains(&b));
        put_text(&mut code, tag, vr, plain.then_some(&value)?);
    }
    Some(code)
}

/// Puts the procedure into Procedure Code Sequence, where the images have one.
pub(super) fn put_procedure(object: &mut InMemDicomObject, image: Option<&InMemDicomObject>) {
    let code = image.and_then(|image| item(image, tags::PROCEDURE_CODE_SEQUENCE, 0)).and_then(code_item);
    if let Some(code) = code {
        put_items(object, tags::PROCEDURE_CODE_SEQUENCE, vec![code]);
    }
}

/// The value of a text attribute as it stands in the file, bytes of other character sets included.
fn text_value(image: &InMemDicomObject, tag: Tag) -> Option<PrimitiveValue> {
    match image.get(tag)?.value() {
        Value::Primitive(PrimitiveValue::U8(bytes)) => {
            let mut bytes: Vec<u8> = bytes.to_vec();
            // An odd number of bytes is padded with a space, not with the zero that is written after bytes.
            if bytes.len() % 2 == 1 {
                bytes.push(b' ');
            }
            (!bytes.is_empty()).then(|| PrimitiveValue::U8(bytes.into()))
        }
        Value::Primitive(value @ (PrimitiveValue::Str(_) | PrimitiveValue::Strs(_))) => Some(value.clone()),
        _ => None,
    }
}

fn is_valid(image: &InMemDicomObject, tag: Tag, vr: VR) -> bool {
    let value = text(image, tag).unwrap_or_default();
    is_valid_text(&value, vr) && (tag != tags::PATIENT_SEX || is_sex(&value))
}

fn is_sex(value: &str) -> bool {
    matches!(value, "M" | "F" | "O" | "")
}

/// PS3.5 6.2, for the VRs that a reader computes with. Names and descriptions are kept as they are.
fn is_valid_text(value: &str, vr: VR) -> bool {
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    match vr {
        VR::DA => {
            value.is_empty()
                || value.len() == 8
                    && digits(value)
                    && ("01"..="12").contains(&&value[4..6])
                    && ("01"..="31").contains(&&value[6..])
        }
        VR::TM => {
            let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
            digits(whole)
                && digits(fraction)
                && matches!(whole.len(), 0 | 2 | 4 | 6)
                && fraction.len() <= 6
                && (fraction.is_empty() || whole.len() == 6)
                && (whole.len() < 2 || whole[..2] < *"24")
                && (whole.len() < 4 || whole[2..4] < *"60")
                && (whole.len() < 6 || whole[4..6] <= *"60")
        }
        VR::AS => value.len() == 4 && digits(&value[..3]) && value.ends_with(['D', 'W', 'M', 'Y']),
        VR::DS => value.len() <= 16 && value.parse::<f64>().is_ok_and(f64::is_finite),
        // Offsets such as +0100 are the one attribute of this VR that is computed with; identifiers are kept.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dicom_core::value::DataSetSequence;

    fn image(elements: &[(Tag, VR, &[u8])]) -> InMemDicomObject {
        let element = |(tag, vr, bytes): &(Tag, VR, &[u8])| {
            let value = match std::str::from_utf8(bytes) {
                Ok(text) if text.is_ascii() => PrimitiveValue::Strs(text.split('\\').map(str::to_owned).collect()),
                _ => PrimitiveValue::U8(bytes.to_vec().into()),
            };
            DataElement::new(*tag, *vr, value)
        };
        InMemDicomObject::from_element_iter(elements.iter().map(element))
    }

    #[test]
    fn names_keep_their_bytes_and_their_character_set() {
        let greek = b"\xc4\xe9\xef\xed\xf5\xf3\xe9\xef\xf2";
        let source =
            image(&[(tags::SPECIFIC_CHARACTER_SET, VR::CS, b"ISO_IR 126"), (tags::PATIENT_NAME, VR::PN, greek)]);
        let object = of_image(&source, "1.2");
        assert_eq!(text(&object, tags::SPECIFIC_CHARACTER_SET).as_deref(), Some("ISO_IR 126"));
        assert_eq!(text(&object, tags::PATIENT_NAME).as_deref(), Some("Διονυσιος"));
        assert_eq!(object.get(tags::PATIENT_NAME).unwrap().to_bytes().unwrap().len() % 2, 0);
    }

    #[test]
    fn what_is_absent_is_empty_and_what_is_no_date_is_left_out() {
        let source = image(&[
            (tags::PATIENT_BIRTH_DATE, VR::DA, b"1.2.1960"),
            (tags::STUDY_DATE, VR::DA, b"20260230"),
            (tags::STUDY_TIME, VR::TM, b"0870"),
            (tags::PATIENT_SEX, VR::CS, b"male"),
            (tags::PATIENT_AGE, VR::AS, b"64"),
            (tags::PATIENT_WEIGHT, VR::DS, b"heavy"),
        ]);
        let object = of_image(&source, "1.2");
        for (tag, _) in NEEDED {
            assert!(object.get(tag).is_some(), "{tag} is needed");
        }
        assert_eq!(text(&object, tags::PATIENT_BIRTH_DATE), None);
        assert_eq!(text(&object, tags::STUDY_DATE).as_deref(), Some("20260230"), "no calendar is asked");
        assert_eq!((text(&object, tags::STUDY_TIME), text(&object, tags::PATIENT_SEX)), (None, None));
        assert!(object.get(tags::PATIENT_AGE).is_none() && object.get(tags::PATIENT_WEIGHT).is_none());
        assert_eq!(text(&object, tags::STUDY_INSTANCE_UID).as_deref(), Some("1.2"));
    }

    #[test]
    fn the_procedure_is_that_of_the_images_where_they_code_it() {
        let coded = image(&[
            (tags::CODE_VALUE, VR::SH, b"CTKOPF"),
            (tags::CODING_SCHEME_DESIGNATOR, VR::SH, b"99KIS"),
            (tags::CODE_MEANING, VR::LO, b"CT Kopf"),
        ]);
        let sequence =
            |item| DataElement::new(tags::PROCEDURE_CODE_SEQUENCE, VR::SQ, DataSetSequence::from(vec![item]));
        let of = |source: &InMemDicomObject| {
            let mut object = image(&[]);
            put_procedure(&mut object, Some(source));
            item(&object, tags::PROCEDURE_CODE_SEQUENCE, 0).and_then(|code| text(code, tags::CODE_VALUE))
        };
        let mut source = image(&[]);
        assert_eq!(of(&source), None);
        source.put(sequence(coded));
        assert_eq!(of(&source).as_deref(), Some("CTKOPF"));
        source.put(sequence(image(&[(tags::CODE_VALUE, VR::SH, b"CTKOPF")])));
        assert_eq!(of(&source), None, "a code needs its scheme and its meaning");
    }
}
