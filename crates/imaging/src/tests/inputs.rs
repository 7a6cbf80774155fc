//! From a frame to the model's input.

use super::*;
use crate::{Frame, ModalityLut, Normalization, Transform, Window, frame_input, model_input};

fn frame(rows: u32, columns: u32, stored: Vec<i32>) -> Frame {
    Frame {
        rows,
        columns,
        stored,
        modality_lut: ModalityLut::Rescale { slope: 2.0, intercept: -1024.0 },
        padding: None,
    }
}

fn windows(height: u32, width: u32, windows: &[(f32, f32)]) -> Transform {
    let windows = windows.iter().map(|&(center, width)| Window { center, width }).collect();
    Transform::HounsfieldWindows { height, width, windows, normalization: None }
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
