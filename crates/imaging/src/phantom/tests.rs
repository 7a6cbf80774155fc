//! Tests of a phantom's promises to those who show it or train on it.

use super::*;
use crate::{Frame, decode_frame, read_bytes};

/// Slices one by one, here and there through the head.
fn some(spec: &PhantomSpec) -> Vec<PhantomSlice> {
    let phantom = Phantom::new(spec);
    (0..spec.slices).map(|index| phantom.slice(index)).collect()
}

fn frame(object: &DicomObject) -> Frame {
    decode_frame(object, 0).expect("a phantom can be decoded")
}

fn share(hu: &[f32], from: f32, to: f32) -> f32 {
    hu.iter().filter(|&&hu| hu >= from && hu < to).count() as f32 / hu.len() as f32
}

#[test]
fn a_slice_survives_the_file() {
    let spec = PhantomSpec { slices: 6, ..PhantomSpec::default() };
    let slice = series(&spec).nth(3).expect("a fourth slice");
    let mut bytes = Vec::new();
    slice.write_all(&mut bytes).expect("a phantom can be written");
    let read = read_bytes(&bytes).expect("and read");
    assert_eq!(frame(&read), frame(&slice));
    assert_eq!(frame(&read).stored.len(), SIDE * SIDE);
}

#[test]
fn a_healthy_head_is_air_bone_and_brain_without_blood() {
    let spec = PhantomSpec { slices: 6, ..PhantomSpec::default() };
    let slices = some(&spec);
    assert!(slices.iter().all(|slice| slice.blood_pixels() == 0));
    let hu = frame(&slices[2].object).hounsfield();
    assert!(share(&hu, -1100.0, -900.0) > 0.3, "air around");
    assert!(share(&hu, 700.0, 2000.0) > 0.02, "skull");
    assert!(share(&hu, 15.0, 50.0) > 0.15, "brain");
}

#[test]
fn every_type_bleeds_with_the_density_of_blood_and_not_everywhere() {
    for (lesion, seed) in Lesion::ALL.into_iter().zip(1..) {
        let slices = some(&PhantomSpec { slices: 8, lesion: Some(lesion), seed });
        let most = slices.iter().max_by_key(|slice| slice.blood_pixels()).expect("eight slices");
        assert!(most.blood_pixels() > 100, "{lesion:?}");
        assert!(slices.iter().any(|slice| slice.blood_pixels() == 0), "{lesion:?}");
        let dense = share(&frame(&most.object).hounsfield(), 50.0, 95.0) * (SIDE * SIDE) as f32;
        assert!(dense > most.blood_pixels() as f32 * 0.5, "{lesion:?}: {dense} of {}", most.blood_pixels());
    }
}

#[test]
fn equal_specifications_give_equal_objects_and_others_do_not() {
    let spec = PhantomSpec { slices: 4, lesion: Some(Lesion::Subdural), seed: 7 };
    let second = |spec: &PhantomSpec| series(spec).nth(2).expect("a third slice");
    assert_eq!(*second(&spec), *second(&spec));
    let other = second(&PhantomSpec { seed: 8, ..spec.clone() });
    let (a, b) = (frame(&second(&spec)).stored, frame(&other).stored);
    assert!(a.iter().zip(&b).filter(|(a, b)| a.abs_diff(**b) > 60).count() > 5000, "another person");
    for tag in [tags::STUDY_INSTANCE_UID, tags::SERIES_INSTANCE_UID, tags::SOP_INSTANCE_UID] {
        let uid = |object: &DicomObject| object.element(tag).unwrap().to_str().unwrap().to_string();
        assert_ne!(uid(&second(&spec)), uid(&other));
        assert!(uid(&other).starts_with("2.25.") && uid(&other).len() <= 64);
    }
}
