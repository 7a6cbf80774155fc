//! From a frame to the model's input.

use super::*;
use crate::phantom::{self, PhantomSpec};
use crate::{
    Frame, HeadCrop, ModalityLut, Normalization, Transform, Turn, Window, decode_frame, frame_input, model_input,
};

fn frame(rows: u32, columns: u32, stored: Vec<i32>) -> Frame {
    Frame {
        rows,
        columns,
        stored,
        modality_lut: ModalityLut::Rescale { slope: 2.0, intercept: -1024.0 },
        padding: None,
        turn: Turn::default(),
    }
}

fn windows(height: u32, width: u32, windows: &[(f32, f32)]) -> Transform {
    let windows = windows.iter().map(|&(center, width)| Window { center, width }).collect();
    Transform::HounsfieldWindows { height, width, windows, normalization: None, crop_to_head: None }
}

#[test]
fn stored_values_go_in_as_they_are() {
    let object = image(2, [us(tags::ROWS, 2), text(tags::RESCALE_INTERCEPT, VR::DS, "-1024"), words(&[0, 1, 2, 4095])]);
    let tensor = model_input(&object, 0, &Transform::StoredValues { height: 2, width: 2 }).unwrap();
    assert_eq!(tensor.shape, [1, 2, 2]);
    assert_eq!(tensor.data, [0.0, 1.0, 2.0, 4095.0]);
}

#[test]
fn each_window_is_a_channel_from_0_to_1() {
    // 0, 40, 80, 3000 HU
    let frame = frame(2, 2, vec![512, 532, 552, 2012]);
    let tensor = frame_input(&frame, &windows(2, 2, &[(40.0, 80.0), (80.0, 200.0)])).unwrap();
    assert_eq!(tensor.shape, [2, 2, 2]);
    assert_eq!(tensor.data, [0.0, 0.5, 1.0, 1.0, 0.1, 0.3, 0.5, 1.0]);
}

#[test]
fn a_frame_of_another_size_is_padded_with_air_and_resampled() {
    // two rows of four columns: air above and below
    let tensor = frame_input(&frame(2, 4, vec![512; 8]), &windows(4, 4, &[(0.0, 4096.0)])).unwrap();
    let air = (-1024.0 + 2048.0) / 4096.0;
    assert_eq!(tensor.data, [[air; 4], [0.5; 4], [0.5; 4], [air; 4]].concat());
    let stored = frame_input(&frame(4, 2, vec![512; 8]), &Transform::StoredValues { height: 4, width: 4 }).unwrap();
    assert_eq!(stored.data, [0.0, 512.0, 512.0, 0.0].repeat(4), "stored 0 is air, -1024 HU");
    // shrunk and grown, what is even stays even
    for side in [3, 7, 16] {
        let tensor = frame_input(&frame(8, 8, vec![532; 64]), &windows(side, side, &[(40.0, 80.0)])).unwrap();
        assert_eq!(tensor.data.len(), (side * side) as usize);
        assert!(tensor.data.iter().all(|value| (value - 0.5).abs() < 1e-5), "{side}: {:?}", tensor.data);
    }
}

#[test]
fn shrinking_averages_and_does_not_overshoot() {
    let stripes = (0..64).map(|i| if i % 2 == 0 { 512 } else { 552 }).collect();
    let tensor = frame_input(&frame(8, 8, stripes), &Transform::StoredValues { height: 2, width: 2 }).unwrap();
    assert!(tensor.data.iter().all(|value| (value - 532.0).abs() < 8.0), "{:?}", tensor.data);
    let edge = (0..64).map(|i| if i % 8 < 4 { 0 } else { 2000 }).collect();
    let tensor = frame_input(&frame(8, 8, edge), &Transform::StoredValues { height: 20, width: 20 }).unwrap();
    assert!(tensor.data.iter().all(|value| (0.0..=2000.0).contains(value)), "{:?}", tensor.data);
}

#[test]
fn windows_that_make_no_sense_are_refused() {
    assert!(windows(2, 2, &[(40.0, 80.0)]).check().is_ok());
    for window in [(40.0, 0.0), (40.0, -1.0), (f32::NAN, 80.0), (40.0, f32::NAN)] {
        assert!(windows(2, 2, &[(40.0, 80.0), window]).check().is_err(), "{window:?}");
    }
}

fn normalized(windows: &[(f32, f32)], mean: f32, deviation: f32) -> Transform {
    let windows = windows.iter().map(|&(center, width)| Window { center, width }).collect();
    Transform::HounsfieldWindows {
        height: 2,
        width: 2,
        windows,
        normalization: Some(Normalization { mean, deviation }),
        crop_to_head: None,
    }
}

#[test]
fn a_normalization_follows_the_windows_in_every_channel() {
    // 0, 40, 80, 3000 HU: windowed 0, 0.5, 1, 1 and 0.1, 0.3, 0.5, 1
    let frame = frame(2, 2, vec![512, 532, 552, 2012]);
    let transform = normalized(&[(40.0, 80.0), (80.0, 200.0)], 0.5, 0.25);
    let tensor = frame_input(&frame, &transform).unwrap();
    assert_eq!(tensor.shape, [2, 2, 2]);
    let by_hand = [-2.0, 0.0, 2.0, 2.0, -1.6, -0.8, 0.0, 2.0];
    assert!(tensor.data.iter().zip(by_hand).all(|(value, hand)| (value - hand).abs() < 1e-6), "{:?}", tensor.data);

    // Training windows, augments and then normalizes: bit for bit the same.
    let mut windowed = frame_input(&frame, &transform.windowed()).unwrap();
    assert_eq!(windowed.data, [0.0, 0.5, 1.0, 1.0, 0.1, 0.3, 0.5, 1.0]);
    transform.normalization().expect("the card has one").apply(&mut windowed.data);
    assert_eq!(windowed, tensor);
    assert_eq!(transform.windowed().normalization(), None);
}

#[test]
fn a_normalization_in_a_card_is_optional_and_strict() {
    let parse = |normalization: &str| {
        serde_json::from_str::<Transform>(&format!(
            r#"{{"name": "hounsfield_windows", "height": 2, "width": 2, "windows": [{{"center": 40, "width": 80}}]{normalization}}}"#
        ))
    };
    let without = parse("").expect("a card of before");
    assert_eq!(without, windows(2, 2, &[(40.0, 80.0)]));
    assert!(!serde_json::to_string(&without).unwrap().contains("normalization"), "such a card is written as before");
    let with = parse(r#", "normalization": {"mean": 0.5, "deviation": 0.25}"#).expect("a card of now");
    assert_eq!(with, normalized(&[(40.0, 80.0)], 0.5, 0.25));
    assert_eq!(serde_json::from_str::<Transform>(&serde_json::to_string(&with).unwrap()).unwrap(), with);
    for wrong in [
        r#", "normalisation": {"mean": 0.5, "deviation": 0.25}"#,
        r#", "normalization": {"mean": 0.5}"#,
        r#", "normalization": {"mean": 0.5, "deviation": 0.25, "std": 1}"#,
    ] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
    let stored = r#"{"name": "stored_values", "height": 2, "width": 2, "normalization": {"mean": 0, "deviation": 1}}"#;
    assert!(serde_json::from_str::<Transform>(stored).is_err(), "stored values are not normalized");
}

#[test]
fn a_normalization_that_makes_no_sense_is_refused() {
    assert!(normalized(&[(40.0, 80.0)], 0.5, 0.5).check().is_ok());
    for (mean, deviation) in [(0.5, 0.0), (0.5, -1.0), (0.5, f32::NAN), (0.5, f32::INFINITY), (f32::NAN, 0.5)] {
        assert!(normalized(&[(40.0, 80.0)], mean, deviation).check().is_err(), "{mean} {deviation}");
    }
    assert!(normalized(&[(40.0, 0.0)], 0.5, 0.5).check().is_err(), "a window without width");
}

/// A head of 200 pixels in a field of 500×400, off the middle: bone around brain, 32 HU within.
fn head_in_a_field() -> Frame {
    let stored = (0..500 * 400).map(|i| {
        let (row, column) = ((i / 400) as f32, (i % 400) as f32);
        match ((row - 180.0).powi(2) + (column - 240.0).powi(2)).sqrt() {
            distance if distance < 92.0 => 528,
            distance if distance < 100.0 => 1000,
            _ => 0,
        }
    });
    frame(500, 400, stored.collect())
}

#[test]
fn a_crop_to_the_head_comes_before_all_else_and_leaves_other_slices_whole() {
    let crop = HeadCrop { threshold: 10.0, margin: 0.05, smallest: 0.3 };
    let with = |crop_to_head| match normalized(&[(40.0, 80.0)], 0.5, 0.25) {
        Transform::HounsfieldWindows { windows, normalization, .. } => {
            Transform::HounsfieldWindows { height: 64, width: 64, windows, normalization, crop_to_head }
        }
        stored => stored,
    };
    let (whole, cropped) = (with(None), with(Some(crop)));
    let head = head_in_a_field();
    // The share of the image within the bone.
    let brain = |transform: &Transform| {
        let tensor = frame_input(&head, transform).unwrap();
        tensor.data.iter().filter(|value| (**value + 0.4).abs() < 1e-4).count() as f32 / tensor.data.len() as f32
    };
    let area = |field: f32| std::f32::consts::PI * 92.0 * 92.0 / (field * field);
    assert!((brain(&whole) - area(500.0)).abs() < 0.03, "{} for {}", brain(&whole), area(500.0));
    assert!((brain(&cropped) - area(220.0)).abs() < 0.06, "{} for {}", brain(&cropped), area(220.0));
    assert_eq!(cropped.windowed().crop_to_head(), Some(crop), "training crops too");
    let empty = frame(500, 400, vec![0; 500 * 400]);
    assert_eq!(frame_input(&empty, &cropped).unwrap(), frame_input(&empty, &whole).unwrap());

    let text = serde_json::to_string(&cropped).unwrap();
    assert_eq!(serde_json::from_str::<Transform>(&text).unwrap(), cropped);
    assert!(!serde_json::to_string(&whole).unwrap().contains("crop"), "a card without one is written as before");
    assert!(serde_json::from_str::<Transform>(&text.replace("smallest", "least")).is_err());
    assert!(cropped.check().is_ok() && with(Some(HeadCrop { margin: 2.0, ..crop })).check().is_err());
}

/// A phantom's head lies in the square, whole and not much smaller, in every slice that has one.
#[test]
fn phantoms_are_cropped_to_their_heads() {
    let crop = HeadCrop { threshold: 10.0, margin: 0.05, smallest: 0.3 };
    let mut found = 0;
    for slice in phantom::series(&PhantomSpec { slices: 10, lesion: None, seed: 7 }) {
        let frame = decode_frame(&slice, 0).unwrap();
        let hounsfield = frame.hounsfield();
        let Some(square) = crop.square(&hounsfield, frame.rows, frame.columns) else {
            // The tip of the skull is no head.
            let dense = hounsfield.iter().filter(|hu| **hu > crop.threshold).count();
            assert!(dense * 50 < hounsfield.len(), "a head of {dense} pixels is not found");
            continue;
        };
        found += 1;
        let bone = |i: &usize| hounsfield[*i] > 300.0;
        let places: Vec<[i64; 2]> = (0..hounsfield.len())
            .filter(bone)
            .map(|i| [i as i64 / i64::from(frame.columns), i as i64 % i64::from(frame.columns)])
            .collect();
        let side = i64::from(square.side);
        for (axis, begin) in [square.top, square.left].into_iter().enumerate() {
            let of = |place: &[i64; 2]| place[axis];
            let (first, last) = (places.iter().map(of).min().unwrap(), places.iter().map(of).max().unwrap());
            assert!(begin <= first && last < begin + side, "{square:?} leaves out bone from {first} to {last}");
        }
        let longest = [0, 1].map(|axis| {
            let of = |place: &[i64; 2]| place[axis];
            places.iter().map(of).max().unwrap() - places.iter().map(of).min().unwrap()
        });
        let longest = longest[0].max(longest[1]);
        assert!(side <= longest * 5 / 4 || side == 154, "{square:?} for a skull of {longest}");
    }
    assert!(found >= 8, "{found} heads in 10 slices");
}
