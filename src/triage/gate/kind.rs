//! The kind of object that a slice belongs to: SOP class, modality, image type, values that are no Hounsfield units, colours.

use dicom_core::Tag;
use dicom_dictionary_std::{tags, uids};

use triaged_imaging::MIN_SIDE;
use triaged_imaging::attributes::{integer, item, text, values};

use super::frame::Frame;
use super::words::{fold, has_phrase};
use super::{
    LOCALIZER, NO_RESCALE, NOT_A_SLICE, NOT_AS_ACQUIRED, NOT_AXIAL, NOT_CT_IMAGE, NOT_MONOCHROME, NOT_ORIGINAL, Notes,
    shown,
};
use crate::config;

/// The standard's classes of CT images.
const CT_IMAGES: [&str; 3] =
    [uids::CT_IMAGE_STORAGE, uids::ENHANCED_CT_IMAGE_STORAGE, uids::LEGACY_CONVERTED_ENHANCED_CT_IMAGE_STORAGE];

/// Whether objects of this SOP class may be CT images: those of a private class may.
pub fn may_be_ct_image(sop_class_uid: &str) -> bool {
    let class = sop_class_uid.trim_end_matches(['\0', ' ']);
    !class.starts_with("1.2.840.10008.") || CT_IMAGES.contains(&class)
}

/// Storage classes of CT images (PS3.4 annex B.5); an object of another standard class is something else, secondary captures
/// of CT included: dose reports, screenshots, films. A private class says nothing, the attributes do.
pub(super) fn sop_class(frame: &Frame, _: &config::Gate, _: &mut Notes) -> Option<String> {
    let object = frame.object();
    let in_meta = || Some(object.meta().media_storage_sop_class_uid().trim_end_matches(['\0', ' ']).to_string());
    let class = text(object, tags::SOP_CLASS_UID).or_else(in_meta)?;
    match class.as_str() {
        class if may_be_ct_image(class) => None,
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
            Some(format!("{NOT_CT_IMAGE}: SOP class {}{name}", shown(other)))
        }
    }
}

pub(super) fn modality(frame: &Frame, _: &config::Gate, _: &mut Notes) -> Option<String> {
    let modality = text(frame.object(), tags::MODALITY)?;
    (!modality.eq_ignore_ascii_case("CT")).then(|| format!("not CT: modality {}", shown(&modality)))
}

/// Image Type (PS3.3 C.7.6.1.1.2, C.8.16.1) and a frame's Frame Type. `DERIVED\PRIMARY` stays in: original slices after
/// compression or anonymization. `DERIVED\SECONDARY` is a reformat where it says so, else a screenshot or a report page.
pub(super) fn image_type(frame: &Frame, rules: &config::Gate, notes: &mut Notes) -> Option<String> {
    let of = |sequence: Tag, tag: Tag| -> Vec<String> { frame.values(sequence, tag).iter().map(|v| fold(v)).collect() };
    let frame_type = of(tags::CT_IMAGE_FRAME_TYPE_SEQUENCE, tags::FRAME_TYPE);
    let image_type = of(tags::CT_IMAGE_FRAME_TYPE_SEQUENCE, tags::IMAGE_TYPE);
    for (values, name) in [(frame_type, "frame type"), (image_type, "image type")] {
        let said = || format!("{name} {}", shown(&values.join("\\")));
        let has = |words: &[String]| values.iter().any(|value| has_phrase(value, words).is_some());
        if has(&rules.localizer_words) {
            return Some(format!("{LOCALIZER}: {}", said()));
        }
        if has(&rules.image_types_out) {
            return Some(format!("{NOT_AS_ACQUIRED}: {}", said()));
        }
        if let [derived, secondary, ..] = &values[..]
            && derived == "DERIVED"
            && secondary == "SECONDARY"
        {
            if !has(&rules.reformat_words) || notes.plane.normal.is_none() {
                return Some(format!("{NOT_ORIGINAL}: {}", said()));
            }
            notes.substitute(format!("a reformat: {}", said()));
        }
    }
    None
}

/// A localizer by any of its names; pictures, projections and maps by theirs.
pub(super) fn description(frame: &Frame, rules: &config::Gate, notes: &mut Notes) -> Option<String> {
    let description = text(frame.object(), tags::SERIES_DESCRIPTION)?;
    let said = || format!("series description {}", shown(&description));
    if has_phrase(&description, &rules.localizer_words).is_some() {
        // Value 3 of Image Type tells the two apart (PS3.3 C.8.2.1.1.1), and people write anything into descriptions.
        if values(frame.object(), tags::IMAGE_TYPE).iter().any(|value| fold(value) == "AXIAL") {
            notes.doubts.push(format!("perhaps a localizer, though its image type is axial: {}", said()));
        } else {
            return Some(format!("{LOCALIZER}: {}", said()));
        }
    }
    if notes.plane.normal.is_none() && has_phrase(&description, &rules.other_plane_words).is_some() {
        return Some(format!("{NOT_AXIAL}: {}", said()));
    }
    if has_phrase(&description, &rules.derived_words).is_some() {
        notes.substitute(format!("perhaps {NOT_AS_ACQUIRED}: {}", said()));
    }
    None
}

/// Rescale Type (0028,1054; PS3.3 C.11.1.1.2) and the type of a modality LUT: anything but Hounsfield units is a map of
/// something else. `US`, unspecified, says nothing.
pub(super) fn rescale_type(frame: &Frame, _: &config::Gate, _: &mut Notes) -> Option<String> {
    let table = item(frame.object(), tags::MODALITY_LUT_SEQUENCE, 0);
    let of_table = table.and_then(|table| text(table, tags::MODALITY_LUT_TYPE));
    let of_rescale = frame.text(tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE, tags::RESCALE_TYPE);
    [of_rescale, of_table].into_iter().flatten().find_map(|said| {
        let letters: String = fold(&said).chars().filter(|c| c.is_alphanumeric()).collect();
        let hounsfield = ["HU", "CT", "US", "UNSPECIFIED", "UNKNOWN", "NONE", ""].contains(&letters.as_str())
            || letters.starts_with("HOUNSFIELD");
        (!hounsfield).then(|| format!("no Hounsfield units: rescale type {}", shown(&said)))
    })
}

/// Rescale Slope and Intercept (type 1 in the CT Image module, PS3.3 C.8.2.1, and in the macro, C.7.6.16.2.9), or a modality LUT. Their
/// absence puts nothing out, but an object that says that it is a CT image is to have them.
pub(super) fn rescale(frame: &Frame, _: &config::Gate, notes: &mut Notes) -> Option<String> {
    let object = frame.object();
    let class = text(object, tags::SOP_CLASS_UID)?;
    let is_absent = |tag| frame.text(tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE, tag).is_none();
    let lacks = item(object, tags::MODALITY_LUT_SEQUENCE, 0).is_none()
        && (is_absent(tags::RESCALE_SLOPE) || is_absent(tags::RESCALE_INTERCEPT));
    if lacks && CT_IMAGES.contains(&class.trim_end_matches(['\0', ' '])) {
        notes.doubts.push(NO_RESCALE.into());
    }
    None
}

pub(super) fn monochrome(frame: &Frame, _: &config::Gate, _: &mut Notes) -> Option<String> {
    let object = frame.object();
    if let Some(samples) = integer(object, tags::SAMPLES_PER_PIXEL)
        && samples != 1
    {
        return Some(format!("{NOT_MONOCHROME}: {samples} samples a pixel"));
    }
    let photometric = text(object, tags::PHOTOMETRIC_INTERPRETATION)?;
    let monochrome = ["MONOCHROME1", "MONOCHROME2"].contains(&photometric.as_str());
    (!monochrome).then(|| format!("{NOT_MONOCHROME}: photometric interpretation {}", shown(&photometric)))
}

/// A thumbnail or an icon. An object of a few KiB could have thousands of such frames.
pub(super) fn size(frame: &Frame, _: &config::Gate, _: &mut Notes) -> Option<String> {
    let side = |tag| integer(frame.object(), tag).filter(|side| *side > 0);
    let (rows, columns) = (side(tags::ROWS)?, side(tags::COLUMNS)?);
    let is_small = rows.min(columns) < i64::from(MIN_SIDE);
    is_small.then(|| format!("{NOT_A_SLICE}: {rows} rows and {columns} columns, less than {MIN_SIDE}"))
}
