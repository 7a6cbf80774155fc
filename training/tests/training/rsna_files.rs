//! Files as the RSNA 2019 set has them, built byte by byte: indexed, decoded, and made model inputs of the values that
//! follow by hand. And what becomes of images that the study discarded.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{Folder, data_set, error_line, program, text, write_sized};
use dicom_dictionary_std::{tags, uids};
use triaged_imaging::{self as imaging, Transform, Window};
use triaged_training::data::{Cache, Index, OtherSizes};

/// Edge of the images here.
const EDGE: usize = 16;

/// How a file's meta group is written.
#[derive(Clone, Copy, PartialEq)]
enum Meta {
    /// As PS3.10 section 7.1 wants it.
    Whole,
    /// Without group length (0002,0000) and version (0002,0001).
    Short,
}

/// A kind of file, and what it must be read as. Eight stored values, repeated over the image.
struct Kind {
    id: &'static str,
    meta: Meta,
    /// Explicit VR little endian, or implicit.
    explicit: bool,
    sop_class: bool,
    patient: Option<&'static str>,
    signed: bool,
    bits_stored: u16,
    padding: Option<i16>,
    window: [&'static str; 2],
    rescale: [&'static str; 2],
    stored: [i16; 8],
    hounsfield: [f32; 8],
    /// Through the window of center 40 and width 80: HU / 80, 0 below 0, 1 above 80.
    input: [f32; 8],
}

const KINDS: [Kind; 5] = [
    // Signed 16 bit, -2000 outside the field of view, which the rescale makes -3024: air.
    Kind {
        id: "ID_6c5d82413",
        meta: Meta::Whole,
        explicit: true,
        sop_class: true,
        patient: Some("ID_ac69bc32"),
        signed: true,
        bits_stored: 16,
        padding: Some(-2000),
        window: ["30", "80"],
        rescale: ["1", "-1024"],
        stored: [-2000, 0, 1024, 1044, 1064, 1084, 1104, 3000],
        hounsfield: [-1024.0, -1024.0, 0.0, 20.0, 40.0, 60.0, 80.0, 1976.0],
        input: [0.0, 0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.0],
    },
    // The same padding with nothing that names it, no SOP class, and two windows with leading zeros.
    Kind {
        id: "ID_0002081b6",
        meta: Meta::Whole,
        explicit: true,
        sop_class: false,
        patient: Some("ID_ac69bc32"),
        signed: true,
        bits_stored: 16,
        padding: None,
        window: ["00036\\00036", "00080\\00080"],
        rescale: ["1.000000", "-1024.000000"],
        stored: [-2000, -1, 1, 1034, 1074, 1094, 1120, 32767],
        hounsfield: [-1024.0, -1024.0, -1023.0, 10.0, 50.0, 70.0, 96.0, 31743.0],
        input: [0.0, 0.0, 0.0, 0.125, 0.625, 0.875, 1.0, 1.0],
    },
    // Stored values that are Hounsfield units but for the slope.
    Kind {
        id: "ID_9558fdfa1",
        meta: Meta::Whole,
        explicit: true,
        sop_class: false,
        patient: Some("ID_0a1b2c3d"),
        signed: true,
        bits_stored: 16,
        padding: Some(-2000),
        window: ["00040", "00150"],
        rescale: ["2.0", "0"],
        stored: [-2000, -600, -1, 5, 10, 20, 35, 400],
        hounsfield: [-1024.0, -1024.0, -2.0, 10.0, 20.0, 40.0, 70.0, 800.0],
        input: [0.0, 0.0, 0.0, 0.125, 0.25, 0.5, 0.875, 1.0],
    },
    // Unsigned 12 bit, implicit VR, a meta group that lacks its first two elements.
    Kind {
        id: "ID_00f1c3a5e",
        meta: Meta::Short,
        explicit: false,
        sop_class: true,
        patient: Some("ID_45785016"),
        signed: false,
        bits_stored: 12,
        padding: None,
        window: ["00036\\00036", "00080\\00080"],
        rescale: ["1.000000", "-1024.000000"],
        stored: [0, 24, 1024, 1034, 1054, 1064, 1104, 4095],
        hounsfield: [-1024.0, -1000.0, 0.0, 10.0, 30.0, 40.0, 80.0, 3071.0],
        input: [0.0, 0.0, 0.0, 0.125, 0.375, 0.5, 1.0, 1.0],
    },
    // The same with neither SOP class nor patient.
    Kind {
        id: "ID_fffb6e6a7",
        meta: Meta::Short,
        explicit: false,
        sop_class: false,
        patient: None,
        signed: false,
        bits_stored: 12,
        padding: None,
        window: ["40", "80"],
        rescale: ["1", "-1024.000000"],
        stored: [0, 1023, 1025, 1044, 1084, 1094, 1105, 2024],
        hounsfield: [-1024.0, -1.0, 1.0, 20.0, 60.0, 70.0, 81.0, 1000.0],
        input: [0.0, 0.0, 0.0125, 0.25, 0.75, 0.875, 1.0, 1.0],
    },
];

/// The study of kinds that name no patient, as RSNA wrote UIDs; that of others ends with the patient, whose it is alone.
const STUDY: &str = "ID_45e4c06199";

fn study_of(kind: &Kind) -> String {
    format!("{STUDY}{}", kind.patient.unwrap_or_default())
}

/// One element, little endian; `value` is padded to an even length, UIDs with NUL, other text with a space.
fn element(explicit: bool, (group, number): (u16, u16), vr: &[u8; 2], value: &[u8]) -> Vec<u8> {
    let mut value = value.to_vec();
    if value.len() % 2 == 1 {
        value.push(if vr == b"UI" { 0 } else { b' ' });
    }
    let mut bytes = [group.to_le_bytes(), number.to_le_bytes()].concat();
    match (explicit, vr) {
        (true, b"OB" | b"OW") => bytes.extend([&vr[..], &[0, 0], &(value.len() as u32).to_le_bytes()].concat()),
        (true, _) => bytes.extend([&vr[..], &(value.len() as u16).to_le_bytes()].concat()),
        (false, _) => bytes.extend((value.len() as u32).to_le_bytes()),
    }
    [bytes, value].concat()
}

/// A whole Part 10 file. None has ImageType, StudyDate, Manufacturer or SliceThickness.
fn file(kind: &Kind) -> Vec<u8> {
    let syntax = if kind.explicit { uids::EXPLICIT_VR_LITTLE_ENDIAN } else { uids::IMPLICIT_VR_LITTLE_ENDIAN };
    let mut meta = Vec::new();
    if kind.meta == Meta::Whole {
        meta.extend(element(true, (2, 1), b"OB", &[0, 1]));
    }
    meta.extend(element(true, (2, 2), b"UI", uids::CT_IMAGE_STORAGE.as_bytes()));
    meta.extend(element(true, (2, 3), b"UI", kind.id.as_bytes()));
    meta.extend(element(true, (2, 0x10), b"UI", syntax.as_bytes()));
    meta.extend(element(true, (2, 0x12), b"UI", b"1.2.40.0.13.1.1.1"));
    if kind.meta == Meta::Whole {
        meta = [element(true, (2, 0), b"UL", &(meta.len() as u32).to_le_bytes()), meta].concat();
    }
    let mut data = Vec::new();
    let mut put = |tag, vr, value: &[u8]| data.extend(element(kind.explicit, tag, vr, value));
    let word = |value: u16| value.to_le_bytes();
    if kind.sop_class {
        put((0x0008, 0x0016), b"UI", uids::CT_IMAGE_STORAGE.as_bytes());
    }
    put((0x0008, 0x0018), b"UI", kind.id.as_bytes());
    put((0x0008, 0x0060), b"CS", b"CT");
    if let Some(patient) = kind.patient {
        put((0x0010, 0x0020), b"LO", patient.as_bytes());
    }
    put((0x0020, 0x000D), b"UI", study_of(kind).as_bytes());
    put((0x0020, 0x000E), b"UI", b"ID_8c78e0a0e3");
    put((0x0020, 0x0010), b"SH", b"");
    put((0x0020, 0x0032), b"DS", b"-125.000000\\-112.437\\52.031");
    put((0x0020, 0x0037), b"DS", b"1.000000\\0.000000\\0.000000\\0.000000\\0.956305\\-0.292372");
    put((0x0028, 0x0002), b"US", &word(1));
    put((0x0028, 0x0004), b"CS", b"MONOCHROME2");
    put((0x0028, 0x0010), b"US", &word(EDGE as u16));
    put((0x0028, 0x0011), b"US", &word(EDGE as u16));
    put((0x0028, 0x0030), b"DS", b"0.488281\\0.488281");
    put((0x0028, 0x0100), b"US", &word(16));
    put((0x0028, 0x0101), b"US", &word(kind.bits_stored));
    put((0x0028, 0x0102), b"US", &word(kind.bits_stored - 1));
    put((0x0028, 0x0103), b"US", &word(u16::from(kind.signed)));
    if let Some(padding) = kind.padding {
        put((0x0028, 0x0120), b"SS", &padding.to_le_bytes());
    }
    put((0x0028, 0x1050), b"DS", kind.window[0].as_bytes());
    put((0x0028, 0x1051), b"DS", kind.window[1].as_bytes());
    put((0x0028, 0x1052), b"DS", kind.rescale[1].as_bytes());
    put((0x0028, 0x1053), b"DS", kind.rescale[0].as_bytes());
    let pixels: Vec<u8> = tiled(&kind.stored).iter().flat_map(|value| value.to_le_bytes()).collect();
    put((0x7FE0, 0x0010), b"OW", &pixels);
    [&[0; 128][..], b"DICM", &meta, &data].concat()
}

/// Eight values, repeated over an image.
fn tiled<T: Copy>(values: &[T; 8]) -> Vec<T> {
    values.iter().copied().cycle().take(EDGE * EDGE).collect()
}

/// A folder in the RSNA layout with a file of each kind, every second one positive.
fn folder() -> Folder {
    let folder = Folder::new();
    let images = folder.path().join("stage_2_train");
    fs::create_dir_all(&images).expect("a folder");
    let mut labels = String::from("ID,Label\n");
    for (number, kind) in KINDS.iter().enumerate() {
        fs::write(images.join(format!("{}.dcm", kind.id)), file(kind)).expect("a file");
        labels += &format!("{0}_epidural,0\n{0}_any,{1}\n", kind.id, number % 2);
    }
    fs::write(folder.path().join("stage_2_train.csv"), labels).expect("labels");
    folder
}

#[test]
fn every_kind_is_indexed() {
    let folder = folder();
    let index = Index::read(folder.path()).expect("an index");
    assert_eq!(index.problems.unreadable, []);
    let name = folder.path().file_name().expect("a name").to_string_lossy();
    let mut expected: Vec<(String, String, bool)> = KINDS
        .iter()
        .enumerate()
        .map(|(number, kind)| (kind.id.into(), format!("{name}/{}", kind.patient.unwrap_or(STUDY)), number % 2 == 1))
        .collect();
    expected.sort();
    let found: Vec<(String, String, bool)> =
        index.slices.iter().map(|slice| (slice.id.clone(), slice.patient.clone(), slice.positive)).collect();
    assert_eq!(found, expected);
    assert!(index.slices.iter().all(|slice| slice.size == Some([16, 16])));
}

/// Through the cache that training loads by, and through the node's `model_input`.
#[test]
fn every_kind_becomes_the_values_computed_by_hand() {
    let folder = folder();
    let size = EDGE as u32;
    let window = Window { center: 40.0, width: 80.0 };
    let windowed = Transform::HounsfieldWindows {
        height: size,
        width: size,
        windows: vec![window],
        normalization: None,
        crop_to_head: None,
    };
    let stored = Transform::StoredValues { height: size, width: size };
    for kind in &KINDS {
        let path = folder.path().join(format!("stage_2_train/{}.dcm", kind.id));
        let object = imaging::read_file(&path).expect("a readable file");
        assert_eq!(object.meta().media_storage_sop_instance_uid(), kind.id);
        assert_eq!(object.get(tags::SOP_CLASS_UID).is_some(), kind.sop_class, "{}", kind.id);
        let frame = imaging::decode_frame(&object, 0).expect("a frame");
        assert_eq!(frame.hounsfield(), tiled(&kind.hounsfield), "{}", kind.id);
        let raw = tiled(&kind.stored.map(f32::from));
        for (transform, expected) in [(&windowed, tiled(&kind.input)), (&stored, raw)] {
            let node = imaging::model_input(&object, 0, transform).expect("an input");
            assert_eq!(node.shape, [1, EDGE, EDGE]);
            assert_eq!(node.data, expected, "{} by {transform:?}", kind.id);
            let cache = Cache::new(transform.clone(), None).expect("no cache");
            assert_eq!(cache.load(&path).expect("an input"), expected, "{} by {transform:?}", kind.id);
        }
    }
}

/// That the files are what they are meant to be: DICOM in another reader's eyes.
#[test]
fn dcmtk_reads_every_kind() {
    let folder = folder();
    for kind in &KINDS {
        let path = folder.path().join(format!("stage_2_train/{}.dcm", kind.id));
        let Ok(dump) = Command::new("dcmdump").args(["+P", "0008,0018", "+P", "0028,1052"]).arg(&path).output() else {
            eprintln!("SKIP dcmtk_reads_every_kind: dcmdump is not installed");
            return;
        };
        let said = String::from_utf8_lossy(&dump.stdout);
        assert!(dump.status.success(), "{}: {}", kind.id, String::from_utf8_lossy(&dump.stderr));
        assert!(said.contains(kind.id) && said.contains(kind.rescale[1]), "{}: {said}", kind.id);
    }
}

#[test]
fn other_sizes_are_resized_or_discarded_as_asked() {
    let folder = Folder::new();
    data_set(folder.path(), 1);
    let images = folder.path().join("stage_2_train");
    write_sized(&images.join("ID_000.dcm"), "P0", 0, false, 512);
    write_sized(&images.join("ID_001.dcm"), "P0", 1, false, 512);
    write_sized(&images.join("ID_002.dcm"), "P0", 2, false, 64);

    let kept = Index::read_sized(folder.path(), OtherSizes::Resize).expect("an index");
    assert_eq!(kept.slices.len(), 6);
    assert_eq!(kept.slices[0].size, Some([512, 512]));
    assert_eq!((kept.problems.resized.len(), kept.problems.discarded.len()), (4, 0));
    assert!(
        kept.problems.lines()[0]
            .starts_with("4 images are not 512×512 and are resized: ID_002 (64×64), ID_003 (32×32)")
    );

    let out = folder.path().join("index.json");
    let discard = program(&["index", "--data", text(folder.path()), "--other-sizes", "discard", "--out", text(&out)]);
    assert!(discard.status.success(), "{}", error_line(&discard));
    assert!(
        error_line(&discard).starts_with("4 images are not 512×512 and are left out: "),
        "{}",
        error_line(&discard)
    );
    let index: Index = serde_json::from_str(&fs::read_to_string(&out).expect("the index")).expect("an index");
    assert_eq!(index.slices.iter().map(|slice| slice.id.as_str()).collect::<Vec<_>>(), ["ID_000", "ID_001"]);
    assert_eq!(index.problems.discarded[0], (images.join("ID_002.dcm"), [64, 64]));
    assert_eq!(index, Index::read_sized(folder.path(), OtherSizes::Discard).expect("an index"));
}

#[test]
fn an_image_that_is_cut_off_is_left_out_of_the_index() {
    let folder = Folder::new();
    data_set(folder.path(), 1);
    let images = folder.path().join("stage_2_train");
    let whole = fs::read(images.join("ID_003.dcm")).expect("a file");
    fs::write(images.join("ID_003.dcm"), &whole[..whole.len() - 1000]).expect("a file");
    // No rows, no size.
    let kind = &KINDS[0];
    let rows = element(kind.explicit, (0x0028, 0x0010), b"US", &(EDGE as u16).to_le_bytes());
    let bytes = file(kind);
    let at = bytes.windows(rows.len()).position(|window| window == rows).expect("Rows");
    fs::write(images.join("ID_004.dcm"), [&bytes[..at], &bytes[at + rows.len()..]].concat()).expect("a file");

    let index = Index::read(folder.path()).expect("an index");
    assert_eq!(index.slices.len(), 4);
    let why: Vec<(&Path, &str)> =
        index.problems.unreadable.iter().map(|(file, why)| (file.as_path(), why.as_str())).collect();
    assert_eq!(why[0].0, images.join("ID_003.dcm"));
    assert!(why[0].1.starts_with("cut off: "), "{}", why[0].1);
    assert_eq!(why[1], (images.join("ID_004.dcm").as_path(), "no Rows"));
}
