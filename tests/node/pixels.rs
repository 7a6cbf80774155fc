//! Real and converted pixels: the same values out as went in, in every transfer syntax.

use std::path::{Path, PathBuf};
use std::process::Command;

use dicom_dictionary_std::{tags, uids};
use proptest::prelude::*;
use triaged::triage::Gate;
use triaged_imaging::phantom::{Lesion, PhantomSpec, series};
use triaged_imaging::{
    Frame, Transform, Window, decode_frame, frame_count, model_input, read_bytes, read_file, read_header,
};

/// The real data beside the checkout, or nothing, said aloud.
fn data(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(name);
    if !path.exists() {
        eprintln!("SKIP {} is not there", path.display());
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
    assert!(header.get(tags::PIXEL_DATA).is_none());
}

/// Runs a DCMTK tool on `input`; `None`, said aloud, where the tool is not installed.
fn dcmtk(tool: &str, options: &[&str], input: &Path, output: &Path) -> Option<()> {
    let Ok(run) = Command::new(tool).args(options).arg(input).arg(output).output() else {
        eprintln!("SKIP {tool} is not installed");
        return None;
    };
    assert!(run.status.success(), "{tool} {options:?}: {}", String::from_utf8_lossy(&run.stderr));
    Some(())
}

/// Twelve unsigned bits, made here, and sixteen signed ones from a scanner, where they are.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let phantom = folder.join("phantom.dcm");
    let spec = PhantomSpec { slices: 5, lesion: Some(Lesion::Intraventricular), seed: 5 };
    series(&spec).nth(2).expect("a third slice").write_to_file(&phantom).expect("a written phantom");
    let scanner = data("ge-head").map(|ge| ge.join("12.dcm"));
    [Some(phantom), scanner].into_iter().flatten().collect()
}

#[test]
fn lossless_transfer_syntaxes_give_the_same_pixels() {
    let folder = tempfile::tempdir().unwrap();
    let conversions: [(&str, &[&str], &str); 9] = [
        ("dcmconv", &["+ti"], uids::IMPLICIT_VR_LITTLE_ENDIAN),
        ("dcmconv", &["+te"], uids::EXPLICIT_VR_LITTLE_ENDIAN),
        ("dcmconv", &["+tb"], "1.2.840.10008.1.2.2"),
        ("dcmconv", &["+td"], uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN),
        ("dcmcrle", &[], uids::RLE_LOSSLESS),
        ("dcmcjpeg", &["+e1"], uids::JPEG_LOSSLESS_SV1),
        ("dcmcjpeg", &["+el", "+sv", "6"], uids::JPEG_LOSSLESS),
        ("dcmcjpeg", &["+e1", "+fs", "20"], uids::JPEG_LOSSLESS_SV1),
        ("dcmcjpls", &["+el"], uids::JPEGLS_LOSSLESS),
    ];
    for source in sources(folder.path()) {
        let original = frame(&source);
        for (tool, options, syntax) in conversions {
            let converted = folder.path().join("converted.dcm");
            if dcmtk(tool, options, &source, &converted).is_none() {
                continue;
            }
            let object = read_file(&converted).expect("a readable object");
            assert_eq!(object.meta().transfer_syntax(), syntax, "{tool} {options:?}");
            let decoded = decode_frame(&object, 0).unwrap_or_else(|error| panic!("{tool} {options:?}: {error}"));
            assert_eq!(decoded.stored, original.stored, "{tool} {options:?} of {}", source.display());
            assert_eq!(decoded.hounsfield(), original.hounsfield());
        }
    }
}

/// On unsigned values: DCMTK has no near-lossless encoding of signed ones.
#[test]
fn near_lossless_jpeg_ls_stays_within_its_deviation() {
    let folder = tempfile::tempdir().unwrap();
    let converted = folder.path().join("converted.dcm");
    let source = &sources(folder.path())[0];
    if dcmtk("dcmcjpls", &["+en", "+md", "2"], source, &converted).is_none() {
        return;
    }
    let (original, decoded) = (frame(source), frame(&converted));
    let off = original.stored.iter().zip(&decoded.stored).map(|(a, b)| a.abs_diff(*b)).max();
    assert!((1..=2).contains(&off.unwrap()), "{off:?}");
}

/// DCMTK's own decoder is the reference: the inverse DCT leaves a stored value or two open.
#[test]
fn lossy_jpeg_is_decoded_as_dcmtk_decodes_it() {
    let folder = tempfile::tempdir().unwrap();
    let (converted, reference) = (folder.path().join("converted.dcm"), folder.path().join("reference.dcm"));
    let source = &sources(folder.path())[0];
    for (options, syntax) in
        [(["+eb", "+q", "90"], uids::JPEG_BASELINE8_BIT), (["+ee", "+q", "90"], uids::JPEG_EXTENDED12_BIT)]
    {
        if dcmtk("dcmcjpeg", &options, source, &converted).is_none() {
            return;
        }
        dcmtk("dcmdjpeg", &[], &converted, &reference).expect("it comes with dcmcjpeg");
        assert_eq!(read_file(&converted).unwrap().meta().transfer_syntax(), syntax);
        let (decoded, reference) = (frame(&converted), frame(&reference));
        assert_eq!(decoded.modality_lut, reference.modality_lut);
        let off = decoded.stored.iter().zip(&reference.stored).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(off.unwrap() <= 2, "{syntax}: {off:?}");
    }
}

fn brain() -> Transform {
    Transform::HounsfieldWindows {
        height: 32,
        width: 32,
        windows: vec![Window { center: 40.0, width: 80.0 }],
        normalization: None,
        crop_to_head: None,
    }
}

/// Small files of several forms, to be broken.
fn small_files() -> Vec<Vec<u8>> {
    use dicom_core::value::PrimitiveValue;
    use dicom_core::{DataElement, VR};
    let mut object = series(&PhantomSpec { slices: 1, ..PhantomSpec::default() }).next().expect("a slice");
    for tag in [tags::ROWS, tags::COLUMNS] {
        object.put(DataElement::new(tag, VR::US, PrimitiveValue::from(16_u16)));
    }
    let cells: Vec<u16> = (0..256).map(|i| 1000 + i % 90).collect();
    object.put(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(cells.into())));
    let folder = tempfile::tempdir().unwrap();
    let (plain, converted) = (folder.path().join("plain.dcm"), folder.path().join("converted.dcm"));
    object.write_to_file(&plain).unwrap();
    let mut files = vec![std::fs::read(&plain).unwrap()];
    let conversions: [(&str, &[&str]); 6] = [
        ("dcmconv", &["+ti"]),
        ("dcmconv", &["+td"]),
        ("dcmcrle", &[]),
        ("dcmcjpeg", &["+e1"]),
        ("dcmcjpeg", &["+ee"]),
        ("dcmcjpls", &["+el"]),
    ];
    for (tool, options) in conversions {
        if dcmtk(tool, options, &plain, &converted).is_some() {
            files.push(std::fs::read(&converted).unwrap());
        }
    }
    files
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn broken_files_are_errors_and_never_panics(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        static FILES: std::sync::LazyLock<Vec<Vec<u8>>> = std::sync::LazyLock::new(small_files);
        let mut bytes = which.get(&FILES).clone();
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(object) = read_bytes(&bytes) {
            let _ = Gate::default().assess(&object, None);
            for frame in 0..frame_count(&object).unwrap_or(1).min(3) {
                if let Ok(tensor) = model_input(&object, frame, &brain()) {
                    prop_assert_eq!(tensor.data.len(), 32 * 32);
                    prop_assert!(tensor.data.iter().all(|value| (0.0..=1.0).contains(value)));
                }
            }
        }
    }
}
