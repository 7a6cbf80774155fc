//! A series of slices to draw into: whole heads without hemorrhage, from folders in the RSNA layout or of plain DICOM files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use triaged_imaging::{DicomObject, ModalityLut, decode_frame, read_file};

use super::SynthesisError;
use super::plane::Plane;
use crate::data::{Index, LABELS, ORIGINS, OtherSizes, Slice};

/// Slices that a stack needs at least: fewer are single pictures, not a head.
const LEAST: usize = 8;

/// How the Patient IDs of synthetic studies begin.
pub(super) const SYNTHETIC: &str = "SYNTHETIC-";

/// One patient's series without hemorrhage, by its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// As [`Slice::patient`] has it, the folder's name before it.
    pub patient: String,
    /// Study Instance UID, where there is one.
    pub study: Option<String>,
    /// From the lowest slice up, with the place along the normal in micrometers.
    files: Vec<(PathBuf, i64)>,
}

/// A slice to draw into.
pub struct Plate {
    pub object: DicomObject,
    /// As they are stored, row by row.
    pub stored: Vec<i32>,
    /// Hounsfield units.
    pub image: Plane,
    /// Hounsfield units a stored unit.
    pub slope: f32,
    /// Along the slices' normal in millimeters.
    pub z: f32,
}

/// A head, from its lowest slice up.
pub struct Stack {
    pub plates: Vec<Plate>,
    /// Millimeters from one pixel to the next.
    pub spacing: f32,
    /// Millimeters that a slice shows, the distance to the next one.
    pub thickness: f32,
}

/// The series without hemorrhage of a labelled folder, each the longest of its patient, in the order of the patients' names; all series
/// of a folder of DICOM files that has no labels, which are taken to be healthy.
///
/// # Errors
/// As [`Index::read_sized`] and [`Index::unlabelled`]; [`SynthesisError::Synthetic`] where the studies are synthetic themselves.
pub fn healthy(folder: &Path) -> Result<Vec<Source>, SynthesisError> {
    let index = match folder.join(LABELS).exists() {
        true => Index::read_sized(folder, OtherSizes::Resize)?,
        false => Index::unlabelled(folder)?,
    };
    // Made of a synthetic study, another would name that one as its origin, and no longer the patient.
    let is_synthetic = |slice: &Slice| slice.origin.is_some() || slice.patient.contains(SYNTHETIC);
    if folder.join(ORIGINS).exists() || index.slices.iter().any(is_synthetic) {
        return Err(SynthesisError::Synthetic(folder.into()));
    }
    let patients = index.patients();
    let healthy = patients.into_iter().filter(|(_, slices)| !slices.iter().any(|slice| slice.positive));
    Ok(healthy.filter_map(|(patient, slices)| source(patient, &slices)).collect())
}

fn source(patient: &str, slices: &[&Slice]) -> Option<Source> {
    let mut series: BTreeMap<Option<&str>, Vec<&Slice>> = BTreeMap::new();
    for slice in slices {
        series.entry(slice.series.as_deref()).or_default().push(slice);
    }
    let longest = series.into_values().max_by_key(Vec::len)?;
    let mut files: Vec<(PathBuf, i64)> =
        longest.iter().map(|slice| Some((slice.file.clone(), slice.position?))).collect::<Option<_>>()?;
    files.sort_by_key(|(_, position)| *position);
    files.dedup_by_key(|(_, position)| *position);
    let study = longest.first().and_then(|slice| slice.study.clone());
    (files.len() >= LEAST).then(|| Source { patient: patient.into(), study, files })
}

impl Source {
    /// Reads the series. None where its images have no size in millimeters, other sizes among themselves or stored values that no
    /// straight line takes to Hounsfield units: nothing can be drawn into those.
    ///
    /// # Errors
    /// A file that cannot be read or decoded.
    pub fn load(&self) -> Result<Option<Stack>, SynthesisError> {
        let mut plates = Vec::with_capacity(self.files.len());
        let mut spacing = None;
        for (file, position) in &self.files {
            let object = read_file(file)?;
            let frame =
                decode_frame(&object, 0).map_err(|source| SynthesisError::Decode { file: file.clone(), source })?;
            let numbers = |tag| object.element_opt(tag).ok().flatten()?.to_multi_float32().ok();
            let across = numbers(dicom_dictionary_std::tags::PIXEL_SPACING).and_then(|both| both.first().copied());
            let ModalityLut::Rescale { slope, .. } = frame.modality_lut else { return Ok(None) };
            let Some(across) = across.filter(|across| *across > 0.0 && slope > 0.0) else { return Ok(None) };
            spacing.get_or_insert(across);
            let image = Plane::new(frame.rows as usize, frame.columns as usize, frame.hounsfield());
            let z = *position as f32 / 1000.0;
            plates.push(Plate { object, stored: frame.stored, image, slope: slope as f32, z });
        }
        let size = |plate: &Plate| (plate.image.rows, plate.image.columns);
        if plates.iter().any(|plate| size(plate) != size(&plates[0])) {
            return Ok(None);
        }
        let mut gaps: Vec<f32> = plates.windows(2).map(|pair| pair[1].z - pair[0].z).collect();
        gaps.sort_by(f32::total_cmp);
        let thickness = gaps.get(gaps.len() / 2).copied().unwrap_or(5.0);
        Ok(spacing.map(|spacing| Stack { plates, spacing, thickness }))
    }
}
