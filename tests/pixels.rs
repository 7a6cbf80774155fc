//! Real and converted pixels: the same values out as went in, in every transfer syntax.

use std::path::{Path, PathBuf};

use triaged::imaging::{Frame, decode_frame, read_file, read_header};

/// The real data beside the checkout, or nothing, said aloud.
fn data(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(name);
    if !path.exists() {
        eprintln!("SKIP: {} is not there", path.display());
        return None;
    }
    Some(path)
}

fn frame(path: impl AsRef<Path>) -> Frame {
    decode_frame(&read_file(path).expect("a readable object"), 0).expect("a decodable frame")
}

fn sum(stored: &[i32]) -> i64 {
    stored.iter().map(|&value| i64::from(value)).sum()
}

/// Sum of stored values, sum of HU not below -1024, and the stored value at row 100, column 300, each computed from
/// pydicom's `pixel_array` (pydicom 3.0, numpy, int64).
#[test]
fn the_ge_series_has_the_values_that_pydicom_reads() {
    let Some(folder) = data("ge-head") else { return };
    let expected = [
        (1, -170_411_964_i64, -140_814_284_i64, 117),
        (2, -172_020_735, -142_423_055, -18),
        (11, -149_651_807, -120_054_127, 706),
        (17, -160_150_209, -130_552_529, 1312),
        (28, -251_143_152, -221_545_472, -1003),
    ];
    for (number, stored, hounsfield, pixel) in expected {
        let frame = frame(folder.join(format!("{number:02}.dcm")));
        assert_eq!((frame.rows, frame.columns), (512, 512));
        assert_eq!(sum(&frame.stored), stored, "slice {number}");
        assert_eq!(frame.stored[100 * 512 + 300], pixel, "slice {number}");
        let hu = frame.hounsfield();
        assert_eq!(hu.iter().map(|&hu| f64::from(hu)).sum::<f64>(), hounsfield as f64, "slice {number}");
        assert!(hu.iter().all(|&hu| hu >= -1024.0));
    }
    for number in 1..=28 {
        assert!(sum(&frame(folder.join(format!("{number:02}.dcm"))).stored) < 0);
    }
}

/// As above; JPEG 2000 lossless, decoded for pydicom by pylibjpeg-openjpeg.
#[test]
fn ct_ich_slices_have_the_values_that_pydicom_reads() {
    let Some(folder) = data("ct-ich/stage_2_train") else { return };
    for (name, stored, pixel) in [("ID_00276d390", 62_741_590, 12), ("ID_0066ac725", 79_922_625, 556)] {
        let frame = frame(folder.join(format!("{name}.dcm")));
        assert_eq!(sum(&frame.stored), stored, "{name}");
        assert_eq!(frame.stored[100 * 512 + 300], pixel, "{name}");
        assert_eq!(frame.hounsfield()[100 * 512 + 300], (2 * pixel - 1024) as f32);
    }
}

#[test]
fn a_header_has_everything_but_pixels() {
    let Some(folder) = data("ge-head") else { return };
    let (header, whole) = (read_header(folder.join("01.dcm")).unwrap(), read_file(folder.join("01.dcm")).unwrap());
    assert_eq!(header.iter().count() + 1, whole.iter().count());
    assert!(header.get(dicom_dictionary_std::tags::PIXEL_DATA).is_none());
}
