//! A synthetic study as files in the RSNA 2019 layout.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use dicom_core::value::{DataSetSequence, PrimitiveValue};
use dicom_core::{DataElement, Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::mem::InMemElement;
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use sha2::{Digest, Sha256};

use super::drawing::{Drawing, MASKED};
use super::sheet::Tile;
use super::stack::{Plate, SYNTHETIC, Source};
use super::study::label_names;
use super::{SynthesisError, Written, origins};
use crate::data::{IMAGES, LABELS, Origin, SYNTHETIC_STUDY, mask};

/// A study that was written.
#[derive(Debug, Clone)]
pub(super) struct Study {
    pub seed: u64,
    patient: String,
    origin: Origin,
    slices: Vec<(String, Vec<&'static str>)>,
    kinds: String,
    tile: Tile,
}

fn failed(path: &Path, error: &dyn std::fmt::Display) -> SynthesisError {
    SynthesisError::Write { path: path.to_owned(), why: error.to_string() }
}

/// Makes the folders.
pub(super) fn prepare(out: &Path) -> Result<(), SynthesisError> {
    for folder in [out.join(IMAGES), out.join(mask::MASKS)] {
        fs::create_dir_all(&folder).map_err(|error| failed(&folder, &error))?;
    }
    Ok(())
}

/// Writes a study's slices, and masks beside those with blood.
pub(super) fn write(
    out: &Path,
    source: &Source,
    drawing: &Drawing,
    seed: u64,
    mimics: Vec<&'static str>,
) -> Result<Study, SynthesisError> {
    let patient = format!("{SYNTHETIC}{seed}");
    let plates = &drawing.head.stack.plates;
    let mut slices = Vec::with_capacity(plates.len());
    for (at, plate) in plates.iter().enumerate() {
        let id = format!("ID_synthetic_{seed}_{at:02}");
        let kinds: Vec<&'static str> = drawing.kinds[at].iter().copied().collect();
        let path = out.join(IMAGES).join(format!("{id}.dcm"));
        let object = object(plate, &stored(plate, &drawing.images[at].values), &patient, seed, at);
        object.write_to_file(&path).map_err(|error| failed(&path, &error))?;
        if !kinds.is_empty() {
            let path = out.join(mask::MASKS).join(format!("{id}.pbm"));
            let blood: Vec<bool> = drawing.blood[at].values.iter().map(|share| *share >= MASKED).collect();
            mask::write(&path, &blood, plate.image.columns).map_err(|error| failed(&path, &error))?;
        }
        slices.push((id, kinds));
    }
    let mut kinds: Vec<&str> = slices.iter().flat_map(|(_, kinds)| kinds.iter().copied()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let kinds = if kinds.is_empty() { "no blood".to_owned() } else { kinds.join(" and ") };
    let tile = Tile::of(drawing, format!("{seed}: {kinds}"), mimics.join(", "));
    let origin = Origin { patient: source.patient.clone(), study: source.study.clone() };
    Ok(Study { seed, patient, origin, slices, kinds, tile })
}

/// Writes the labels and whom the patients were made of.
pub(super) fn finish(out: &Path, studies: &[Study]) -> Result<Written, SynthesisError> {
    let mut labels = String::from("ID,Label\n");
    let mut written = Written::default();
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for study in studies {
        *kinds.entry(study.kinds.clone()).or_default() += 1;
        written.tiles.push(study.tile.clone());
        for (id, kinds) in &study.slices {
            for name in label_names() {
                labels += &format!("{id}_{name},{}\n", u8::from(kinds.contains(&name)));
            }
            labels += &format!("{id}_any,{}\n", u8::from(!kinds.is_empty()));
            *(if kinds.is_empty() { &mut written.negative } else { &mut written.positive }) += 1;
        }
    }
    written.studies = kinds.into_iter().collect();
    let path = origins(out);
    Origin::write(&path, studies.iter().map(|study| (study.patient.as_str(), &study.origin)))
        .map_err(|error| failed(&path, &error))?;
    // The labels last: without them nothing is trained on.
    let path = out.join(LABELS);
    fs::write(&path, labels).map_err(|error| failed(&path, &error))?;
    Ok(written)
}

/// The stored values: those of before, but where something was drawn.
fn stored(plate: &Plate, image: &[f32]) -> Vec<i32> {
    let number = |tag| plate.object.element_opt(tag).ok().flatten().and_then(|element| element.to_int::<u32>().ok());
    let bits = number(tags::BITS_STORED).unwrap_or(16).clamp(1, 16);
    let (low, high) = match number(tags::PIXEL_REPRESENTATION) {
        Some(1) => (-(1 << (bits - 1)), (1 << (bits - 1)) - 1),
        _ => (0, (1 << bits) - 1),
    };
    let before = plate.stored.iter().zip(&plate.image.values);
    before
        .zip(image)
        .map(|((&stored, old), new)| match new - old {
            0.0 => stored,
            change => (stored + (change / plate.slope).round() as i32).clamp(low, high),
        })
        .collect()
}

/// The source's object with other pixels, as another patient's; it names the image that it was made of (PS3.3 C.7.6.1.1.4).
fn object(plate: &Plate, stored: &[i32], patient: &str, seed: u64, at: usize) -> triaged_imaging::DicomObject {
    let mut object = plate.object.clone().into_inner();
    let text =
        |tag: Tag, vr: VR, value: &str| -> InMemElement { DataElement::new(tag, vr, PrimitiveValue::from(value)) };
    let source = object.element_opt(tags::SOP_INSTANCE_UID).ok().flatten();
    let source = source.and_then(|uid| uid.to_str().ok()).map(|uid| uid.trim_matches([' ', '\0']).to_owned());
    let instance = uid(seed, &format!("instance {at}"));
    for element in [
        text(tags::SOP_CLASS_UID, VR::UI, uids::CT_IMAGE_STORAGE),
        text(tags::SOP_INSTANCE_UID, VR::UI, &instance),
        text(tags::STUDY_INSTANCE_UID, VR::UI, &uid(seed, "study")),
        text(tags::SERIES_INSTANCE_UID, VR::UI, &uid(seed, "series")),
        text(tags::FRAME_OF_REFERENCE_UID, VR::UI, &uid(seed, "frame of reference")),
        text(tags::IMAGE_TYPE, VR::CS, "DERIVED\\PRIMARY\\AXIAL"),
        text(
            tags::DERIVATION_DESCRIPTION,
            VR::ST,
            "Synthetic findings were drawn into this image; no patient has them",
        ),
        text(tags::PATIENT_ID, VR::LO, patient),
        text(tags::PATIENT_NAME, VR::PN, &format!("SYNTHETIC^{seed}")),
        text(tags::ACCESSION_NUMBER, VR::SH, &format!("SY{}", seed % 10_u64.pow(14))),
        text(tags::STUDY_DESCRIPTION, VR::LO, SYNTHETIC_STUDY),
        text(tags::STUDY_ID, VR::SH, "1"),
        DataElement::new(
            tags::PIXEL_DATA,
            VR::OW,
            PrimitiveValue::U16(stored.iter().map(|&value| value as u16).collect()),
        ),
    ] {
        object.put(element);
    }
    if let Some(source) = source.filter(|source| !source.is_empty()) {
        let item = InMemDicomObject::from_element_iter([
            text(tags::REFERENCED_SOP_CLASS_UID, VR::UI, uids::CT_IMAGE_STORAGE),
            text(tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, &source),
        ]);
        let items = DataSetSequence::from(vec![item]);
        object.put(DataElement::new(tags::SOURCE_IMAGE_SEQUENCE, VR::SQ, items));
    }
    let meta = FileMetaTableBuilder::new()
        .transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN)
        .media_storage_sop_class_uid(uids::CT_IMAGE_STORAGE)
        .media_storage_sop_instance_uid(instance);
    object.with_exact_meta(meta.build().expect("a meta table needs only a transfer syntax, which was given"))
}

/// A UID below 2.25 (PS3.5 annex B.2) that depends on the seed, on what it names and on the version, since another version may draw
/// another study.
fn uid(seed: u64, what: &str) -> String {
    let digest = Sha256::digest(format!("triaged synthesis {} {seed} {what}", env!("CARGO_PKG_VERSION")));
    let bits = digest[..16].iter().fold(0u128, |bits, &byte| bits << 8 | u128::from(byte));
    // Version 8 and variant of RFC 9562: a UUID by a rule of one's own.
    format!("2.25.{}", bits & !(0xF << 76) & !(0x3 << 62) | 8 << 76 | 2 << 62)
}
