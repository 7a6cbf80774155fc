//! From a folder in the RSNA layout to a card that the node loads, on a small made-up data set.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::support::{Folder, data_set, error_line, program, text, window, write_image};
use triaged_imaging as imaging;
use triaged_model::ModelCard;
use triaged_training::data::{Augment, Cache, Draw, Index, Loader};

/// Trains m4 small, for `epochs`, into `out`.
fn train(data: &Path, out: &Path, epochs: usize, seed: u64) -> Output {
    let (epochs, seed) = (epochs.to_string(), seed.to_string());
    #[rustfmt::skip]
    let arguments = [
        "train", "--data", text(data), "--out", text(out), "--candidate", "m4", "--size", "32", "--epochs", &epochs,
        "--batch", "8", "--seed", &seed, "--patience", "9", "--folds", "0",
    ];
    program(&arguments)
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
    assert_eq!(problems.resized.len(), 11, "32×32 is not the study's size");
    assert_eq!(problems.lines().len(), 6);
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
        .map(|&i| Draw {
            file: index.slices[i].file.clone(),
            positive: index.slices[i].positive,
            mask: None,
            augment: None,
        })
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
    let folders = fs::read_dir(&kept).expect("the cache").map(|folder| folder.expect("a folder").path());
    assert_eq!(folders.map(|folder| fs::read_dir(folder).expect("its files").count()).sum::<usize>(), 24);
}

#[test]
fn a_file_that_cannot_be_decoded_ends_the_batches_with_its_name() {
    let folder = Folder::new();
    let path = folder.path().join("ID_broken.dcm");
    fs::write(&path, b"no DICOM at all").expect("a file");
    let cache = Cache::new(window(), None).expect("no cache");
    let draw = Draw { file: path, positive: true, mask: None, augment: Some((Augment::DEFAULT, 1)) };
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
    let people = fs::read_to_string(whole.join("model/m4.md")).expect("a card");
    for part in [
        "trained on 8 patients,",
        "; training, validation and test.",
        "8 in training, 2 for validation, 2 for the test",
    ] {
        assert!(people.contains(part), "{part} in {people}");
    }

    // The same in two goes: what the first left on disk is all that the second knows.
    for epochs in [1, 3] {
        let output = train(&data, &cut, epochs, 5);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let (_, resumed) = ModelCard::load(&cut.join("model/m4.json")).expect("a card");
    assert!(resumed == onnx, "a run that was cut off must end as one that was not");

    // Another seed makes another split, and is refused.
    let output = train(&data, &cut, 3, 6);
    assert_eq!(output.status.code(), Some(2));
    assert!(error_line(&output).contains("its seed was 5, not 6"), "{}", error_line(&output));
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
