//! Patients who did not lie on the back: the same head in any of the eight ways that pixels may lie has the same score, and its box is on the
//! blood in the image as it was sent.

use std::path::{Path, PathBuf};

use dicom_core::value::PrimitiveValue;
use dicom_core::{DataElement, VR};
use dicom_dictionary_std::tags;
use triaged_imaging::attributes::text;
use triaged_imaging::phantom::{Lesion, PhantomSlice, PhantomSpec, SIDE, slices};
use triaged_imaging::{PixelBox, Turn};

use crate::scores::probabilities_agree;
use crate::support::{Node, dicom_files, has, storescu};

/// Rows of an image that is not square: a phantom's lower rows are air.
const ROWS: usize = 440;

/// The ways other than upright, by name.
const LYING: [(&str, [f64; 6]); 7] = [
    ("on the left side", [0.0, 1.0, 0.0, -1.0, 0.0, 0.0]),
    ("on the right side", [0.0, -1.0, 0.0, 1.0, 0.0, 0.0]),
    ("prone", [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0]),
    ("mirrored", [-1.0, 0.0, 0.0, 0.0, 1.0, 0.0]),
    ("upside down, mirrored", [1.0, 0.0, 0.0, 0.0, -1.0, 0.0]),
    ("on the side, mirrored", [0.0, 1.0, 0.0, 1.0, 0.0, 0.0]),
    ("on the other side, mirrored", [0.0, -1.0, 0.0, -1.0, 0.0, 0.0]),
];

fn bleeding() -> Vec<PhantomSlice> {
    slices(&PhantomSpec { slices: 10, lesion: Some(Lesion::Epidural), seed: 1 }).collect()
}

/// The slices without their lowest rows, as a system writes them of a patient who lies so, in files of their own. Beside each its blood,
/// and how many columns a row of it has.
fn lying(orientation: &[f64; 6], folder: &Path, of: Vec<PhantomSlice>) -> Vec<(PathBuf, String, Vec<bool>, usize)> {
    let turn = Turn::upright(orientation).back();
    let cosines = orientation.map(|cosine| format!("{cosine}")).join("\\");
    let (rows, columns) = turn.size(ROWS as u32, SIDE as u32);
    let written = of.into_iter().enumerate().map(|(index, slice)| {
        let mut object = slice.object;
        let stored = object.get(tags::PIXEL_DATA).unwrap().to_multi_int::<u16>().unwrap();
        let stored = turn.turned(stored[..ROWS * SIDE].to_vec(), ROWS as u32, SIDE as u32);
        object.put(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(stored.into())));
        object.put(DataElement::new(tags::ROWS, VR::US, PrimitiveValue::from(rows as u16)));
        object.put(DataElement::new(tags::COLUMNS, VR::US, PrimitiveValue::from(columns as u16)));
        object.put(DataElement::new(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, PrimitiveValue::from(cosines.as_str())));
        let path = folder.join(format!("{index:02}.dcm"));
        object.write_to_file(&path).unwrap();
        let blood = turn.turned(slice.blood[..ROWS * SIDE].to_vec(), ROWS as u32, SIDE as u32);
        (path, text(&object, tags::SOP_INSTANCE_UID).unwrap(), blood, columns as usize)
    });
    written.collect()
}

#[test]
fn a_head_is_scored_upright_however_it_lies_in_the_image() {
    if !has("storescu") {
        return;
    }
    // By the shipped model, which knows what is up and what down, and which the network alone would not be.
    let settings = [("TRIAGED__INFERENCE__MODEL", "models/m12-int8.json"), ("TRIAGED__TRIAGE__QUIET_SECONDS", "1")];
    let scored = |orientation: &[f64; 6]| {
        let folder = tempfile::tempdir().unwrap();
        let truth = lying(orientation, folder.path(), bleeding());
        let node = Node::start(&settings);
        storescu(&node, &[], &dicom_files(folder.path())).unwrap();
        node.wait_until("SELECT count(*) = 1 FROM worklist WHERE state = 'decided'");
        (node, truth)
    };
    let (upright, truth) = scored(&[1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
    let of = |node: &Node, sop: &str| -> f64 {
        node.query(&format!("SELECT probability FROM slice_results WHERE sop_uid = '{sop}'"))
    };
    let expected: Vec<f64> = truth.iter().map(|(_, sop, ..)| of(&upright, sop)).collect();
    assert_eq!(upright.query::<Option<String>>("SELECT warnings FROM worklist"), None);
    for (name, orientation) in LYING {
        let (node, truth) = scored(&orientation);
        let mut boxes = 0;
        for ((_, sop, blood, columns), expected) in truth.iter().zip(&expected) {
            let found = of(&node, sop);
            assert!((found - expected).abs() < 1e-6, "{name}: {found}, upright {expected}");
            if blood.iter().filter(|blood| **blood).count() < 400 {
                continue;
            }
            let of_box = |edge: &str| -> Option<u32> {
                node.query(&format!("SELECT box_{edge} FROM slice_results WHERE sop_uid = '{sop}'"))
            };
            let Some(left) = of_box("left") else { continue };
            let [top, width, height] = ["top", "width", "height"].map(|edge| of_box(edge).unwrap());
            let seen = PixelBox { left, top, width, height };
            let hit = (0..blood.len()).any(|at| blood[at] && seen.holds((at / columns) as u32, (at % columns) as u32));
            assert!(hit, "{name}: {seen:?} is not on the blood");
            boxes += 1;
        }
        assert!(boxes >= 3, "{name}: {boxes} boxes");
        let said: String = node.query("SELECT warnings FROM worklist");
        assert!(said.contains("turned upright"), "{name}: {said}");
    }
}

/// Another implementation turns alike: pydicom and numpy.
#[test]
fn python_turns_alike() {
    if !has("storescu") {
        return;
    }
    let slices = bleeding();
    let folders: Vec<tempfile::TempDir> = LYING.iter().map(|_| tempfile::tempdir().unwrap()).collect();
    // A slice each, so that no two are the same object.
    let files: Vec<PathBuf> = LYING
        .iter()
        .zip(&folders)
        .zip(slices)
        .flat_map(|(((_, orientation), folder), slice)| lying(orientation, folder.path(), vec![slice]))
        .map(|(path, ..)| path)
        .collect();
    for card in [("models/m11.json", 1e-4), ("models/m12.json", 1e-4)] {
        probabilities_agree(card, &[(&files, &[])]);
    }
}
