//! Eligibility: whether an object is a slice of a head CT at all.
//!
//! Decided on header attributes alone. Real objects lack attributes (RSNA 2019 files have no Image Type, some no SOP
//! class), so an absent or empty one never makes an object ineligible; one that contradicts does.

use dicom_dictionary_std::{tags, uids};

use triaged_imaging::DicomObject;
use triaged_imaging::attributes::{integer, text, values};

/// Whether an object is to be scored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Eligibility {
    Eligible,
    /// Why not, for an administrator; a short text without patient data.
    Ineligible(String),
}

/// Judges an object by its header; pixel data need not have been read. That pixels cannot be had is another matter,
/// see [`ImagingError::is_contradiction`](triaged_imaging::ImagingError::is_contradiction).
pub fn assess(object: &DicomObject) -> Eligibility {
    let checks = [sop_class, modality, image_type, body_part, monochrome];
    match checks.into_iter().find_map(|check| check(object)) {
        Some(reason) => Eligibility::Ineligible(reason),
        None => Eligibility::Eligible,
    }
}

/// At most this much of an attribute is repeated in a reason.
fn shown(value: &str) -> String {
    value.chars().filter(|c| !c.is_control()).take(64).collect()
}

/// Storage classes of CT images (PS3.4 annex B.5); an object of another standard class is something else, secondary
/// captures of CT included: dose reports, screenshots, films. A private class says nothing, the attributes do.
fn sop_class(object: &DicomObject) -> Option<String> {
    let in_meta = || Some(object.meta().media_storage_sop_class_uid().trim_end_matches(['\0', ' ']).to_string());
    let class =
        text(object, tags::SOP_CLASS_UID).or_else(in_meta).filter(|class| class.starts_with("1.2.840.10008."))?;
    match class.as_str() {
        uids::CT_IMAGE_STORAGE | uids::ENHANCED_CT_IMAGE_STORAGE | uids::LEGACY_CONVERTED_ENHANCED_CT_IMAGE_STORAGE => {
            None
        }
        other => {
            let name = match other {
                uids::SECONDARY_CAPTURE_IMAGE_STORAGE => " (secondary capture)",
                uids::MR_IMAGE_STORAGE | uids::ENHANCED_MR_IMAGE_STORAGE => " (MR)",
                uids::POSITRON_EMISSION_TOMOGRAPHY_IMAGE_STORAGE => " (PET)",
                uids::COMPUTED_RADIOGRAPHY_IMAGE_STORAGE => " (radiograph)",
                uids::X_RAY_RADIATION_DOSE_SR_STORAGE => " (radiation dose report)",
                uids::ENCAPSULATED_PDF_STORAGE => " (PDF)",
                uids::SEGMENTATION_STORAGE => " (segmentation)",
                _ => "",
            };
            Some(format!("not a CT image: SOP class {}{name}", shown(other)))
        }
    }
}

fn modality(object: &DicomObject) -> Option<String> {
    let modality = text(object, tags::MODALITY)?;
    (!modality.eq_ignore_ascii_case("CT")).then(|| format!("not CT: modality {}", shown(&modality)))
}

/// Image Type (PS3.3 C.7.6.1.1.2): a localizer is no slice; what is derived *and* secondary is a screenshot, a
/// reformat or a report page. `DERIVED\PRIMARY` stays in: original slices after compression or anonymization.
fn image_type(object: &DicomObject) -> Option<String> {
    let values: Vec<String> = values(object, tags::IMAGE_TYPE).iter().map(|value| value.to_ascii_uppercase()).collect();
    let shown = || shown(&values.join("\\"));
    if values.iter().any(|value| value == "LOCALIZER" || value == "SCOUT") {
        return Some(format!("a localizer: image type {}", shown()));
    }
    match &values[..] {
        [derived, secondary, ..] if derived == "DERIVED" && secondary == "SECONDARY" => {
            Some(format!("not an original slice: image type {}", shown()))
        }
        _ => None,
    }
}

/// Words that name the head in Body Part Examined, as vendors and sites write it: the defined terms of PS3.16 annex L
/// (HEAD, BRAIN, SKULL, HEADNECK, …), and free text such as `CT HEAD`, `Kopf`, `CRANE`, `HEAD_NO_CONTRAST`.
const HEAD: [&str; 15] = [
    "HEAD", "BRAIN", "SKULL", "CRANI", "CEREBR", "CRANE", "CRÂNE", "KOPF", "SCHAEDEL", "SCHÄDEL", "HIRN", "CABEZA",
    "CABEÇA", "TETE", "TÊTE",
];

/// Heads of other things.
const NO_HEAD: [&str; 5] = ["FEMUR", "FEMORAL", "HUMER", "RADI", "FOREHEAD"];

/// By which consoles say that they do not know; as good as absent.
const UNKNOWN: [&str; 6] = ["UNKNOWN", "OTHER", "NONE", "N/A", "UNDEFINED", "DEFAULT"];

fn body_part(object: &DicomObject) -> Option<String> {
    let part = text(object, tags::BODY_PART_EXAMINED)?;
    let upper = part.to_uppercase();
    let names = |words: &[&str]| words.iter().any(|word| upper.contains(word));
    let head = names(&HEAD) && !names(&NO_HEAD);
    (!head && !UNKNOWN.contains(&upper.as_str())).then(|| format!("not the head: body part {}", shown(&part)))
}

fn monochrome(object: &DicomObject) -> Option<String> {
    if let Some(samples) = integer(object, tags::SAMPLES_PER_PIXEL)
        && samples != 1
    {
        return Some(format!("not a monochrome image: {samples} samples a pixel"));
    }
    let photometric = text(object, tags::PHOTOMETRIC_INTERPRETATION)?;
    let monochrome = ["MONOCHROME1", "MONOCHROME2"].contains(&photometric.as_str());
    (!monochrome).then(|| format!("not a monochrome image: photometric interpretation {}", shown(&photometric)))
}

#[cfg(test)]
mod tests {
    use dicom_core::{DataElement, Tag, VR};
    use dicom_object::{FileMetaTableBuilder, InMemDicomObject};

    use super::*;

    fn object(attributes: &[(Tag, VR, &str)]) -> DicomObject {
        let elements = attributes.iter().map(|&(tag, vr, value)| DataElement::new(tag, vr, value));
        let meta = FileMetaTableBuilder::new().transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN);
        InMemDicomObject::from_element_iter(elements).with_meta(meta).expect("a complete meta group")
    }

    fn reason(attributes: &[(Tag, VR, &str)]) -> Option<String> {
        match assess(&object(attributes)) {
            Eligibility::Eligible => None,
            Eligibility::Ineligible(reason) => Some(reason),
        }
    }

    #[test]
    fn a_phantom_is_eligible() {
        use triaged_imaging::phantom::{PhantomSpec, series};
        let slice = series(&PhantomSpec { slices: 6, ..PhantomSpec::default() }).nth(3).expect("a fourth slice");
        assert_eq!(assess(&slice), Eligibility::Eligible);
    }

    #[test]
    fn nothing_absent_or_empty_makes_ineligible() {
        assert_eq!(reason(&[(tags::SOP_INSTANCE_UID, VR::UI, "ID_6c5d82413")]), None);
        let empty = [
            (tags::SOP_CLASS_UID, VR::UI, ""),
            (tags::MODALITY, VR::CS, ""),
            (tags::IMAGE_TYPE, VR::CS, ""),
            (tags::BODY_PART_EXAMINED, VR::CS, " "),
            (tags::PHOTOMETRIC_INTERPRETATION, VR::CS, ""),
        ];
        assert_eq!(reason(&empty), None);
    }

    #[test]
    fn ct_storage_classes_and_private_ones_pass_and_others_do_not() {
        for class in [
            uids::CT_IMAGE_STORAGE,
            uids::ENHANCED_CT_IMAGE_STORAGE,
            uids::LEGACY_CONVERTED_ENHANCED_CT_IMAGE_STORAGE,
            "1.3.12.2.1107.5.9.1",
        ] {
            assert_eq!(reason(&[(tags::SOP_CLASS_UID, VR::UI, class)]), None, "{class}");
        }
        for class in [uids::MR_IMAGE_STORAGE, uids::SECONDARY_CAPTURE_IMAGE_STORAGE, "1.2.840.10008.9.9"] {
            assert!(reason(&[(tags::SOP_CLASS_UID, VR::UI, class)]).is_some(), "{class}");
        }
        let mr = reason(&[(tags::SOP_CLASS_UID, VR::UI, uids::MR_IMAGE_STORAGE)]);
        assert_eq!(mr.as_deref(), Some("not a CT image: SOP class 1.2.840.10008.5.1.4.1.1.4 (MR)"));
    }

    #[test]
    fn localizers_and_screenshots_are_out_and_derived_originals_in() {
        for (image_type, eligible) in [
            ("ORIGINAL\\PRIMARY\\AXIAL", true),
            ("DERIVED\\PRIMARY\\AXIAL", true),
            ("ORIGINAL\\SECONDARY\\AXIAL", true),
            ("ORIGINAL\\PRIMARY\\LOCALIZER", false),
            ("original\\primary\\localizer ", false),
            ("DERIVED\\SECONDARY\\SCREEN SAVE", false),
            ("DERIVED\\SECONDARY", false),
        ] {
            assert_eq!(reason(&[(tags::IMAGE_TYPE, VR::CS, image_type)]).is_none(), eligible, "{image_type}");
        }
    }

    #[test]
    fn the_head_is_known_by_many_names() {
        for part in [
            "HEAD",
            "Head ",
            "BRAIN",
            "SKULL",
            "HEADNECK",
            "HEAD NECK",
            "HEAD_NECK",
            "CTHEAD",
            "CT HEAD W/O",
            "Kopf",
            "CRANIUM",
            "UNKNOWN",
            "Schädel",
        ] {
            assert_eq!(reason(&[(tags::BODY_PART_EXAMINED, VR::CS, part)]), None, "{part}");
        }
        for part in ["CHEST", "ABDOMEN", "NECK", "CSPINE", "SINUS", "FEMORAL HEAD"] {
            let why = reason(&[(tags::BODY_PART_EXAMINED, VR::CS, part)]);
            assert_eq!(why, Some(format!("not the head: body part {part}")));
        }
    }

    #[test]
    fn other_modalities_and_color_are_out() {
        assert_eq!(reason(&[(tags::MODALITY, VR::CS, "MR")]).as_deref(), Some("not CT: modality MR"));
        assert!(reason(&[(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "RGB")]).is_some());
        assert_eq!(reason(&[(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME1 ")]), None);
    }

    #[test]
    fn a_reason_repeats_little_of_an_attribute() {
        let long = reason(&[(tags::MODALITY, VR::LO, &"X\u{7}".repeat(500))]).expect("ineligible");
        assert!(long.len() < 100 && !long.contains('\u{7}'));
    }
}
