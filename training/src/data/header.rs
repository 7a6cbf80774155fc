//! The part of an image's header that an index takes: whose slice it is, how large, and where it lies.

use std::path::Path;

use dicom_dictionary_std::{tags, uids};
use triaged_imaging as imaging;

use super::origin::SYNTHETIC_STUDY;

/// The values that an index takes from an object.
pub struct Header {
    pub patient: Option<String>,
    pub study: Option<String>,
    pub series: Option<String>,
    /// SOP Instance UID.
    pub instance: Option<String>,
    /// Whether `synthesize` drew it, as its own tags say.
    pub is_synthetic: bool,
    /// Rows and columns.
    pub size: [u32; 2],
    pub position: Option<i64>,
}

/// Whose slice this is, if the object says, its rows and columns, and where it lies. The pixels are not read; but a file
/// that is too short for those that its header promises is refused here, before a training meets it.
pub fn header(file: &Path) -> Result<Header, String> {
    let object = imaging::read_header(file).map_err(|error| error.cause.to_string())?;
    let text = |tag| {
        let value = object.element_opt(tag).ok().flatten()?.to_str().ok()?.trim_matches([' ', '\0']).to_owned();
        (!value.is_empty()).then_some(value)
    };
    let number = |tag| object.element_opt(tag).ok().flatten()?.to_int::<u32>().ok();
    let side = |tag, name| number(tag).filter(|side| *side > 0).ok_or_else(|| format!("no {name}"));
    let size = [side(tags::ROWS, "Rows")?, side(tags::COLUMNS, "Columns")?];
    let plain = [uids::IMPLICIT_VR_LITTLE_ENDIAN, uids::EXPLICIT_VR_LITTLE_ENDIAN];
    if plain.contains(&object.meta().transfer_syntax()) {
        let bits = u64::from(number(tags::BITS_ALLOCATED).unwrap_or(16));
        let needed = u64::from(size[0]) * u64::from(size[1]) * bits / 8;
        let length = std::fs::metadata(file).map_err(|error| error.to_string())?.len();
        if length < needed {
            return Err(format!("cut off: {length} bytes, its pixels alone are {needed}"));
        }
    }
    let numbers = |tag| object.element_opt(tag).ok().flatten()?.to_multi_float64().ok();
    let along = numbers(tags::IMAGE_POSITION_PATIENT)
        .and_then(|place| along_normal(&place, numbers(tags::IMAGE_ORIENTATION_PATIENT).as_deref()));
    let instance = || Some(i64::from(object.element_opt(tags::INSTANCE_NUMBER).ok().flatten()?.to_int::<i32>().ok()?));
    Ok(Header {
        patient: text(tags::PATIENT_ID),
        study: text(tags::STUDY_INSTANCE_UID),
        series: text(tags::SERIES_INSTANCE_UID),
        instance: text(tags::SOP_INSTANCE_UID),
        is_synthetic: text(tags::STUDY_DESCRIPTION).is_some_and(|description| description == SYNTHETIC_STUDY),
        size,
        position: along.or_else(instance),
    })
}

/// The place of a slice along its normal, in micrometers (PS3.3 C.7.6.2.1.1); without an orientation along the body.
fn along_normal(position: &[f64], orientation: Option<&[f64]>) -> Option<i64> {
    let &[x, y, z] = position else { return None };
    let normal = match orientation {
        Some(&[a, b, c, d, e, f]) => [b * f - c * e, c * d - a * f, a * e - b * d],
        _ => [0.0, 0.0, 1.0],
    };
    let along = 1000.0 * (x * normal[0] + y * normal[1] + z * normal[2]);
    along.is_finite().then_some(along.round() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_lie_along_their_normal() {
        let axial = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0];
        assert_eq!(along_normal(&[-125.0, -120.0, 37.5], Some(&axial)), Some(37_500));
        assert_eq!(along_normal(&[-125.0, -120.0, 37.5], None), Some(37_500));
        // Tilted by 30° about the row: the normal is (0, -1/2, √3/2).
        let tilted = [1.0, 0.0, 0.0, 0.0, 3.0f64.sqrt() / 2.0, 0.5];
        assert_eq!(along_normal(&[5.0, 0.0, 10.0], Some(&tilted)), Some(8_660));
        assert_eq!(along_normal(&[5.0, 10.0, 10.0], Some(&tilted)), Some(3_660));
        assert_eq!(along_normal(&[1.0, 2.0], Some(&axial)), None);
        assert_eq!(along_normal(&[1.0, 2.0, f64::NAN], None), None);
    }
}
