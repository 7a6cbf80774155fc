//! Any bytes as a file, all the way to the model's input.
#![no_main]

use libfuzzer_sys::fuzz_target;
use triaged_imaging::{Transform, Window, frame_count, model_input, read_bytes};

fuzz_target!(|bytes: &[u8]| {
    let Ok(object) = read_bytes(bytes) else { return };
    let windows = vec![Window { center: 40.0, width: 80.0 }];
    let transforms = [
        Transform::HounsfieldWindows { height: 32, width: 32, windows, normalization: None, crop_to_head: None },
        Transform::StoredValues { height: 32, width: 32 },
    ];
    for frame in 0..frame_count(&object).unwrap_or(1).min(2) {
        for transform in &transforms {
            if let Ok(tensor) = model_input(&object, frame, transform) {
                assert_eq!(tensor.data.len(), 32 * 32);
            }
        }
    }
});
