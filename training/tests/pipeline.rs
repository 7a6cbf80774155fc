//! From a folder in the RSNA layout to a card that the node loads, on a small made-up data set.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use dicom_core::value::PrimitiveValue;
use dicom_core::{DataElement, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use triaged::imaging::{self, Transform, Window};
use triaged::inference::ModelCard;
use triaged_training::data::{Augment, Cache, Draw, Index, Loader};

const SIDE: u16 = 32;

/// A folder of a test's own under cargo's, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn path(&self) -> &Path {
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
fn write_image(path: &Path, patient: &str, number: usize, positive: bool) {
    let side = usize::from(SIDE);
    let pixels: Vec<i16> = (0..side * side)
        .map(|i| {
            let (y, x) = (i / side, i % side);
            let bleed = positive && (10..20).contains(&y) && (10..20).contains(&x);
            if bleed { 75 } else { ((y + x + number * 7) % 40) as i16 }
        })
        .collect();
    let text = |tag, vr, value: &str| DataElement::new(tag, vr, PrimitiveValue::from(value));
    let word = |tag, value: u16| DataElement::new(tag, VR::US, PrimitiveValue::from(value));
    let object = InMemDicomObject::from_element_iter([
        text(tags::SOP_CLASS_UID, VR::UI, uids::CT_IMAGE_STORAGE),
        text(tags::SOP_INSTANCE_UID, VR::UI, &format!("2.25.{}", number + 1)),
        text(tags::MODALITY, VR::CS, "CT"),
        text(tags::PATIENT_ID, VR::LO, patient),
        text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2"),
        text(tags::RESCALE_INTERCEPT, VR::DS, "0"),
        text(tags::RESCALE_SLOPE, VR::DS, "1"),
        word(tags::SAMPLES_PER_PIXEL, 1),
        word(tags::ROWS, SIDE),
        word(tags::COLUMNS, SIDE),
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
fn data_set(folder: &Path, patients: usize) {
    let images = folder.join("stage_2_train");
    fs::create_dir_all(&images).expect("a folder");
    let mut labels = String::from("ID,Label\n");
    for patient in 0..patients {
        for slice in 0..6 {
            let number = patient * 6 + slice;
            let positive = patient % 2 == 1 && slice >= 3;
            write_image(&images.join(format!("ID_{number:03}.dcm")), &format!("P{patient}"), number, positive);
            labels += &format!("ID_{number:03}_subdural,0\nID_{number:03}_any,{}\n", u8::from(positive));
        }
    }
    fs::write(folder.join("stage_2_train.csv"), labels).expect("labels");
}

fn window() -> Transform {
    let side = u32::from(SIDE);
    Transform::HounsfieldWindows { height: side, width: side, windows: vec![Window { center: 40.0, width: 80.0 }] }
}

fn program(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_triaged-training")).args(arguments).output().expect("the program runs")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is plain text")
}

/// Trains m4 small, for `epochs`, into `out`.
fn train(data: &Path, out: &Path, epochs: usize, seed: u64) -> Output {
    let (epochs, seed) = (epochs.to_string(), seed.to_string());
    #[rustfmt::skip]
    let arguments = [
        "train", "--data", text(data), "--out", text(out), "--candidate", "m4", "--size", "32", "--epochs", &epochs,
        "--batch", "8", "--seed", &seed, "--patience", "9",
    ];
    program(&arguments)
}

fn error_line(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned()
}

#[test]
fn what_does_not_fit_together_is_counted_and_listed() {
    let folder = Folder::new();
    data_set(folder.path(), 2);
    let images = folder.path().join("stage_2_train");
    let labels = folder.path().join("stage_2_train.csv");
    let more = "ID_000_any,0\nID_gone_any,1\nID_001_any,1\nID_broken_any,0\n";
    fs::write(&labels, fs::read_to_string(&labels).expect("labels") + more).expect("labels");
    write_image(&images.join("ID_unlabelled.dcm"), "P9", 900, false);
    fs::write(images.join("ID_broken.dcm"), b"no DICOM at all").expect("a file");

    let index = Index::read(folder.path()).expect("an index");
    let problems = &index.problems;
    assert_eq!(problems.duplicate_rows, 1);
    assert_eq!(problems.contradictory, ["ID_001"]);
    assert_eq!(problems.labels_without_file, ["ID_gone"]);
    assert_eq!(problems.files_without_label, ["ID_unlabelled"]);
    assert_eq!(problems.unreadable.len(), 1);
    assert_eq!(index.slices.len(), 11, "of twelve slices the contradictory one is left out");
    assert_eq!(index.patients().len(), 2);
    assert_eq!(index.slices.iter().filter(|slice| slice.positive).count(), 3);
    assert_eq!(problems.lines().len(), 5);
}

#[test]
fn a_missing_label_file_is_one_clear_line() {
    let folder = Folder::new();
    let output = program(&["index", "--data", text(folder.path())]);
    assert_eq!(output.status.code(), Some(2));
    let line = error_line(&output);
    assert!(line.contains("cannot read the labels") && line.contains("stage_2_train.csv"), "{line}");
}

#[test]
fn batches_come_in_order_with_the_nodes_own_pixels() {
    let folder = Folder::new();
    data_set(folder.path(), 4);
    let index = Index::read(folder.path()).expect("an index");
    let kept = folder.path().join("cache");
    let order: Vec<usize> = (0..24).map(|i| i * 7 % 24).collect();
    let draws: Vec<Draw> = order
        .iter()
        .map(|&i| Draw { file: index.slices[i].file.clone(), positive: index.slices[i].positive, augment: None })
        .collect();
    // Once decoded, once out of the cache.
    for round in 0..2 {
        let cache = Cache::new(window(), Some(kept.clone())).expect("a cache");
        let batches: Vec<_> = Loader::new(&cache, draws.clone(), 5).map(|batch| batch.expect("a batch")).collect();
        assert_eq!(batches.iter().map(|batch| batch.len()).collect::<Vec<_>>(), [5, 5, 5, 5, 4]);
        let images: Vec<f32> = batches.iter().flat_map(|batch| batch.images.clone()).collect();
        let positive: Vec<bool> = batches.iter().flat_map(|batch| batch.positive.clone()).collect();
        for (place, &i) in order.iter().enumerate() {
            let object = imaging::read_file(&index.slices[i].file).expect("an object");
            let input = imaging::model_input(&object, 0, &window()).expect("an input");
            assert_eq!(images[place * 1024..][..1024], input.data, "slice {place}, round {round}");
            assert_eq!(positive[place], index.slices[i].positive);
        }
    }
    assert_eq!(fs::read_dir(&kept).expect("the cache").count(), 24);
}

#[test]
fn a_file_that_cannot_be_decoded_ends_the_batches_with_its_name() {
    let folder = Folder::new();
    let path = folder.path().join("ID_broken.dcm");
    fs::write(&path, b"no DICOM at all").expect("a file");
    let cache = Cache::new(window(), None).expect("no cache");
    let draw = Draw { file: path, positive: true, augment: Some((Augment::DEFAULT, 1)) };
    let mut loader = Loader::new(&cache, vec![draw.clone(), draw], 1);
    let error = loader.next().expect("a result").expect_err("no DICOM");
    assert!(error.to_string().contains("ID_broken.dcm"), "{error}");
    assert!(loader.next().is_none());
}

#[test]
fn a_folder_becomes_a_model_that_the_node_loads_and_a_cut_off_run_ends_the_same() {
    let folder = Folder::new();
    let (data, whole, cut) = (folder.path().join("data"), folder.path().join("whole"), folder.path().join("cut"));
    data_set(&data, 12);
    let output = train(&data, &whole, 3, 5);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (card, onnx) = ModelCard::load(&whole.join("model/m4.json")).expect("a card that the node takes");
    assert_eq!(card.name, "m4");
    assert_eq!(card.about["training"]["epochs"], 3);
    assert_eq!(card.about["test"]["slices"]["cases"], 12, "two of twelve patients, rounded by stratum");
    if std::env::var_os("ORT_DYLIB_PATH").is_some() {
        let largest = card.about["parity_with_onnx_runtime"]["largest_difference"].as_f64().expect("a parity check");
        assert!(largest <= 1e-4, "{largest}");
    } else {
        eprintln!("SKIP parity with ONNX Runtime: ORT_DYLIB_PATH is not set");
    }
    assert!(whole.join("model/m4.md").exists());

    // The same in two goes: what the first left on disk is all that the second knows.
    for epochs in [1, 3] {
        let output = train(&data, &cut, epochs, 5);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let (_, resumed) = ModelCard::load(&cut.join("model/m4.json")).expect("a card");
    assert!(resumed == onnx, "a run that was cut off must end as one that was not");

    // Another configuration in its folder is refused.
    let output = train(&data, &cut, 3, 6);
    assert_eq!(output.status.code(), Some(2));
    assert!(error_line(&output).contains("another configuration"), "{}", error_line(&output));
}

#[test]
fn cuda_without_cuda_is_an_error() {
    if cfg!(feature = "cuda") {
        eprintln!("SKIP cuda_without_cuda_is_an_error: this build has CUDA");
        return;
    }
    let folder = Folder::new();
    data_set(folder.path(), 4);
    let out: PathBuf = folder.path().join("run");
    let output = program(&["fit", "--data", text(folder.path()), "--out", text(&out), "--device", "cuda"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(error_line(&output).contains("no CUDA"), "{}", error_line(&output));
    assert!(!out.exists());
}
