//! A synthetic head CT series: skull, brain, ventricles, noise, and a bleed of a chosen type.
//!
//! For demonstrations and tests, and as training material beside real slices. It is drawn, not measured: a phantom
//! shows that the way from C-STORE to alert works, never how well a model does on people.

mod anatomy;
mod lesion;
mod noise;
mod render;
#[cfg(test)]
mod tests;

use dicom_core::value::{C, PrimitiveValue};
use dicom_core::{DataElement, Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use sha2::{Digest, Sha256};

pub use lesion::Lesion;

use self::anatomy::Head;
use self::noise::Random;
use self::render::Pose;
pub use self::render::SIDE;
use super::object::DicomObject;

/// From the lowest slice to the highest (mm).
const COVERAGE: f32 = 148.0;
const LOWEST: f32 = 2.0;

/// Which phantom to make. Equal specifications give equal objects, UIDs included.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PhantomSpec {
    /// Slices from skull base to vertex; 30 make slices of 4.9 mm.
    pub slices: u32,
    /// The bleed, or none.
    pub lesion: Option<Lesion>,
    /// Another seed is another person in another pose, with another bleed of the same type.
    pub seed: u64,
}

impl Default for PhantomSpec {
    fn default() -> Self {
        PhantomSpec { slices: 30, lesion: None, seed: 1 }
    }
}

/// A slice of a phantom, and the truth about it.
#[derive(Debug)]
pub struct PhantomSlice {
    /// A CT Image Storage object, explicit VR little endian.
    pub object: DicomObject,
    /// Which of its [`SIDE`] × [`SIDE`] pixels, row by row, are mostly blood.
    pub blood: Vec<bool>,
}

impl PhantomSlice {
    /// How many pixels are mostly blood.
    pub fn blood_pixels(&self) -> usize {
        self.blood.iter().filter(|blood| **blood).count()
    }
}

/// The slices of a phantom, from the skull base up. Each is made when it is asked for, so that one is in memory at a
/// time.
pub fn slices(spec: &PhantomSpec) -> impl Iterator<Item = PhantomSlice> + use<> {
    let phantom = Phantom::new(spec);
    (0..spec.slices).map(move |index| phantom.slice(index))
}

/// The objects of a phantom, as [`slices`] without the truth.
pub fn series(spec: &PhantomSpec) -> impl Iterator<Item = DicomObject> + use<> {
    slices(spec).map(|slice| slice.object)
}

struct Phantom {
    spec: PhantomSpec,
    head: Head,
    pose: Pose,
}

impl Phantom {
    fn new(spec: &PhantomSpec) -> Phantom {
        // the same seed with and without a bleed is the same person
        let mut person = Random::new(spec.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x7068_616E_746F_6D21);
        let pose = Pose::new(&mut person);
        let head = Head::new(&mut person, spec.lesion);
        Phantom { spec: spec.clone(), head, pose }
    }

    fn spacing(&self) -> f32 {
        COVERAGE / self.spec.slices as f32
    }

    fn slice(&self, index: u32) -> PhantomSlice {
        let z = LOWEST + self.spacing() * (index as f32 + 0.5);
        let mut random = Random::new(self.spec.seed.rotate_left(32) ^ u64::from(index));
        let pixels = render::slice(&self.head, &self.pose, z, self.spacing(), &mut random);
        let stored = pixels.hu.iter().map(|hu| (hu + 1024.0).round().clamp(0.0, 4095.0) as u16).collect();
        PhantomSlice { object: self.object(index, z, stored), blood: pixels.blood }
    }

    /// A UID below 2.25 (PS3.5 annex B.2) that depends on the specification and on what it names, and on the version,
    /// since another version may draw another phantom.
    fn uid(&self, what: &str) -> String {
        let lesion = self.spec.lesion.map_or("none", Lesion::name);
        let version = env!("CARGO_PKG_VERSION");
        let text = format!("triaged phantom {version} {} {} {lesion} {what}", self.spec.seed, self.spec.slices);
        let digest = Sha256::digest(text.as_bytes());
        let bits = digest[..16].iter().fold(0u128, |bits, &byte| bits << 8 | u128::from(byte));
        // version 8 and variant of RFC 9562: a UUID by a rule of one's own
        let uuid = bits & !(0xF << 76) & !(0x3 << 62) | 8 << 76 | 2 << 62;
        format!("2.25.{uuid}")
    }

    fn object(&self, index: u32, z: f32, stored: C<u16>) -> DicomObject {
        let spacing = self.pose.pixel_spacing;
        let corner = -(SIDE as f32 - 1.0) / 2.0 * spacing;
        let number = |value: f32| format!("{value:.3}");
        let instance = (index + 1).to_string();
        let patient = format!("PHANTOM-{}", self.spec.seed);
        let health = self.spec.lesion.map_or("HEALTHY".to_owned(), |lesion| format!("{lesion:?}").to_uppercase());
        let text = |tag: Tag, vr: VR, value: &str| DataElement::new(tag, vr, PrimitiveValue::from(value));
        let short = |tag: Tag, value: u16| DataElement::new(tag, VR::US, PrimitiveValue::from(value));
        let uid = self.uid(&format!("instance {index}"));
        let object = InMemDicomObject::from_element_iter([
            text(tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 100"),
            text(tags::IMAGE_TYPE, VR::CS, "ORIGINAL\\PRIMARY\\AXIAL"),
            text(tags::SOP_CLASS_UID, VR::UI, uids::CT_IMAGE_STORAGE),
            text(tags::SOP_INSTANCE_UID, VR::UI, &uid),
            text(tags::STUDY_DATE, VR::DA, "20260101"),
            text(tags::SERIES_DATE, VR::DA, "20260101"),
            text(tags::ACQUISITION_DATE, VR::DA, "20260101"),
            text(tags::CONTENT_DATE, VR::DA, "20260101"),
            text(tags::STUDY_TIME, VR::TM, "120000"),
            text(tags::SERIES_TIME, VR::TM, "120000"),
            text(tags::ACQUISITION_TIME, VR::TM, "120000"),
            text(tags::CONTENT_TIME, VR::TM, "120000"),
            text(tags::ACCESSION_NUMBER, VR::SH, &format!("PH{}", self.spec.seed % 10_u64.pow(14))),
            text(tags::MODALITY, VR::CS, "CT"),
            text(tags::MANUFACTURER, VR::LO, "triaged"),
            text(tags::MANUFACTURER_MODEL_NAME, VR::LO, "phantom"),
            text(tags::REFERRING_PHYSICIAN_NAME, VR::PN, ""),
            text(tags::STUDY_DESCRIPTION, VR::LO, "PHANTOM HEAD, NOT A PATIENT"),
            text(tags::SERIES_DESCRIPTION, VR::LO, "PHANTOM AXIAL"),
            text(tags::PATIENT_NAME, VR::PN, &format!("PHANTOM^{health} {}", self.spec.seed)),
            text(tags::PATIENT_ID, VR::LO, &patient),
            text(tags::PATIENT_BIRTH_DATE, VR::DA, ""),
            text(tags::PATIENT_SEX, VR::CS, ""),
            text(tags::BODY_PART_EXAMINED, VR::CS, "HEAD"),
            text(tags::SLICE_THICKNESS, VR::DS, &number(self.spacing())),
            text(tags::KVP, VR::DS, "120"),
            text(tags::GANTRY_DETECTOR_TILT, VR::DS, "0"),
            text(tags::CONVOLUTION_KERNEL, VR::SH, "BRAIN"),
            text(tags::PATIENT_POSITION, VR::CS, "HFS"),
            text(tags::STUDY_INSTANCE_UID, VR::UI, &self.uid("study")),
            text(tags::SERIES_INSTANCE_UID, VR::UI, &self.uid("series")),
            text(tags::STUDY_ID, VR::SH, "1"),
            text(tags::SERIES_NUMBER, VR::IS, "2"),
            text(tags::ACQUISITION_NUMBER, VR::IS, "1"),
            text(tags::INSTANCE_NUMBER, VR::IS, &instance),
            text(
                tags::IMAGE_POSITION_PATIENT,
                VR::DS,
                &format!("{}\\{}\\{}", number(corner), number(corner), number(z)),
            ),
            text(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, "1\\0\\0\\0\\1\\0"),
            text(tags::FRAME_OF_REFERENCE_UID, VR::UI, &self.uid("frame of reference")),
            text(tags::POSITION_REFERENCE_INDICATOR, VR::LO, ""),
            text(tags::SLICE_LOCATION, VR::DS, &number(z)),
            short(tags::SAMPLES_PER_PIXEL, 1),
            text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2"),
            short(tags::ROWS, SIDE as u16),
            short(tags::COLUMNS, SIDE as u16),
            text(tags::PIXEL_SPACING, VR::DS, &format!("{}\\{}", number(spacing), number(spacing))),
            short(tags::BITS_ALLOCATED, 16),
            short(tags::BITS_STORED, 12),
            short(tags::HIGH_BIT, 11),
            short(tags::PIXEL_REPRESENTATION, 0),
            text(tags::WINDOW_CENTER, VR::DS, "40"),
            text(tags::WINDOW_WIDTH, VR::DS, "80"),
            text(tags::RESCALE_INTERCEPT, VR::DS, "-1024"),
            text(tags::RESCALE_SLOPE, VR::DS, "1"),
            text(tags::RESCALE_TYPE, VR::LO, "HU"),
            DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(stored)),
        ]);
        let meta = FileMetaTableBuilder::new()
            .transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN)
            .media_storage_sop_class_uid(uids::CT_IMAGE_STORAGE)
            .media_storage_sop_instance_uid(uid);
        object.with_exact_meta(meta.build().expect("a meta table needs only a transfer syntax, which was given"))
    }
}
