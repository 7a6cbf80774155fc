//! What the tests share: small made-up data sets, and the program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use dicom_core::value::PrimitiveValue;
use dicom_core::{DataElement, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use triaged_imaging::{Transform, Window};

/// Edge of the images.
pub const SIDE: u16 = 32;

/// A folder of a test's own under cargo's, removed at the end.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left behind is left to `cargo clean`.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A 32×32 CT image: a gradient in Hounsfield units that differs by `number`, with a bright square if `positive`.
pub fn write_image(path: &Path, patient: &str, number: usize, positive: bool) {
    write_sized(path, patient, number, positive, SIDE);
}

/// As [`write_image`], of another size.
pub fn write_sized(path: &Path, patient: &str, number: usize, positive: bool, edge: u16) {
    let side = usize::from(edge);
    let pixels: Vec<i16> = (0..side * side)
        .map(|i| {
            let (y, x) = (i / side, i % side);
            let bleed = positive && (10..20).contains(&y) && (10..20).contains(&x);
            match ((y + x + number * 7) % 40) as i16 {
                _ if bleed => 75,
                // No two images are the same, though they may look alike in a window.
                0 => -((number % 1000) as i16),
                value => value,
            }
        })
        .collect();
    let text = |tag, vr, value: &str| DataElement::new(tag, vr, PrimitiveValue::from(value));
    let word = |tag, value: u16| DataElement::new(tag, VR::US, PrimitiveValue::from(value));
    let object = InMemDicomObject::from_element_iter([
        text(tags::SOP_CLASS_UID, VR::UI, uids::CT_IMAGE_STORAGE),
        text(tags::SOP_INSTANCE_UID, VR::UI, &format!("2.25.{}", number + 1)),
        text(tags::MODALITY, VR::CS, "CT"),
        text(tags::PATIENT_ID, VR::LO, patient),
        text(tags::INSTANCE_NUMBER, VR::IS, &number.to_string()),
        text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2"),
        text(tags::RESCALE_INTERCEPT, VR::DS, "0"),
        text(tags::RESCALE_SLOPE, VR::DS, "1"),
        word(tags::SAMPLES_PER_PIXEL, 1),
        word(tags::ROWS, edge),
        word(tags::COLUMNS, edge),
        word(tags::BITS_ALLOCATED, 16),
        word(tags::BITS_STORED, 16),
        word(tags::HIGH_BIT, 15),
        word(tags::PIXEL_REPRESENTATION, 1),
        DataElement::new(
            tags::PIXEL_DATA,
            VR::OW,
            PrimitiveValue::U16(pixels.into_iter().map(|pixel| pixel as u16).collect()),
        ),
    ]);
    let meta = FileMetaTableBuilder::new().transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN);
    object.with_meta(meta).expect("a meta group").write_to_file(path).expect("a written image");
}

/// `patients` patients of six slices; every second patient has hemorrhage on half of them.
pub fn data_set(folder: &Path, patients: usize) {
    data_set_from(folder, 0, patients);
}

/// As [`data_set`], counted from another patient: other ids and images.
pub fn data_set_from(folder: &Path, first: usize, patients: usize) {
    let images = folder.join("stage_2_train");
    fs::create_dir_all(&images).expect("a folder");
    let mut labels = String::from("ID,Label\n");
    for patient in first..first + patients {
        for slice in 0..6 {
            let number = patient * 6 + slice;
            let positive = patient % 2 == 1 && slice >= 3;
            write_image(&images.join(format!("ID_{number:03}.dcm")), &format!("P{patient}"), number, positive);
            labels += &format!("ID_{number:03}_subdural,0\nID_{number:03}_any,{}\n", u8::from(positive));
        }
    }
    fs::write(folder.join("stage_2_train.csv"), labels).expect("labels");
}

pub fn window() -> Transform {
    let side = u32::from(SIDE);
    Transform::HounsfieldWindows {
        height: side,
        width: side,
        windows: vec![Window { center: 40.0, width: 80.0 }],
        normalization: None,
        crop_to_head: None,
    }
}

pub fn program(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_triaged-training")).args(arguments).output().expect("the program runs")
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is plain text")
}

/// The last line of what a command said.
pub fn error_line(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned()
}
