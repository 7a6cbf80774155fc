//! What is wrong is said in one clear line and a non-zero exit, and what was there before stays.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::{Folder, data_set, error_line, program, text};

/// `fit` of a small m1 with these further arguments.
fn fit(data: &Path, out: &Path, more: &[&str]) -> Output {
    program(&[&["fit", "--data", text(data), "--out", text(out)][..], &SMALL, more].concat())
}

/// m1 has no convolution, whose rectifier could take what is not a number for 0.
const SMALL: [&str; 7] = ["--candidate", "m1", "--size", "32", "--batch", "8", "--no-augment"];

/// That a command failed with one line that holds these words.
fn refused(output: &Output, words: &[&str]) {
    let line = error_line(output);
    assert_eq!(output.status.code(), Some(2), "{line}");
    for word in words {
        assert!(line.contains(word), "{word:?} is not in: {line}");
    }
}

/// Every file of a folder with its content.
fn content(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(content(&path));
        } else {
            files.push((path.clone(), fs::read(&path).expect("a file")));
        }
    }
    files.sort();
    files
}

#[test]
fn a_bad_label_row_is_named_by_its_line() {
    let folder = Folder::new();
    let (data, out) = (folder.path().join("data"), folder.path().join("run"));
    data_set(&data, 4);
    let labels = data.join("stage_2_train.csv");
    let good = fs::read_to_string(&labels).expect("labels");
    for (row, why) in
        [("ID_007_any,maybe\n", "the label is \"maybe\", not 0 or 1"), ("ID_007_any\n", "needs an ID and a Label")]
    {
        fs::write(&labels, format!("{good}{row}")).expect("labels");
        let line = good.lines().count() + 1;
        refused(&fit(&data, &out, &[]), &["stage_2_train.csv", &format!("line {line}"), why]);
        assert!(!out.exists());
    }
}

#[test]
fn labels_that_all_lack_their_image_are_counted() {
    let folder = Folder::new();
    let (data, out) = (folder.path().join("data"), folder.path().join("run"));
    data_set(&data, 4);
    let images = data.join("stage_2_train");
    fs::remove_dir_all(&images).expect("removed");
    refused(&fit(&data, &out, &[]), &["cannot list the images in", "stage_2_train"]);
    fs::create_dir(&images).expect("a folder");
    refused(&fit(&data, &out, &[]), &["holds no slice", "24 labels have no image and are left out: ID_000"]);
    // An index that was there stays.
    let index = folder.path().join("index.json");
    fs::write(&index, "kept").expect("a file");
    refused(&program(&["index", "--data", text(&data), "--out", text(&index)]), &["holds no slice"]);
    assert_eq!(fs::read_to_string(&index).expect("the file"), "kept");
    assert!(!out.exists());
}

#[test]
fn one_class_is_refused_before_anything_is_written() {
    let folder = Folder::new();
    let (data, out) = (folder.path().join("data"), folder.path().join("run"));
    data_set(&data, 1);
    refused(&fit(&data, &out, &[]), &["0 positive and", "it needs both"]);
    refused(
        &fit(&data, &out, &["--validation", "0", "--test", "0", "--monitor", "last"]),
        &["0 positive and 6 negative"],
    );
    let quick = program(&["quick-eval", "m1", "--data", text(&data), "--out", text(&out), "--size", "32"]);
    refused(&quick, &["m1", "it needs both"]);
    assert!(!out.exists());
}

#[test]
fn a_fold_without_positives_is_refused_before_the_first_is_trained() {
    let folder = Folder::new();
    let (data, out) = (folder.path().join("data"), folder.path().join("folds"));
    // Two of four patients have hemorrhage: the third fold has none of them.
    data_set(&data, 4);
    let command = ["cross-validate", "--data", text(&data), "--out", text(&out), "--folds", "3"];
    refused(&program(&[&command[..], &SMALL].concat()), &["0 positive and", "it needs both", "patients"]);
    assert!(!out.exists());
}

/// What a network was trained on in one division of the patients it would be tested on in another.
#[test]
fn folds_of_other_data_or_another_division_are_refused_and_stay() {
    let folder = Folder::new();
    let (data, out) = (folder.path().join("data"), folder.path().join("folds"));
    data_set(&data, 12);
    let cross_validate = |folds: &str| {
        let command = ["cross-validate", "--data", text(&data), "--out", text(&out), "--epochs", "1", "--folds", folds];
        program(&[&command[..], &SMALL].concat())
    };
    let first = cross_validate("3");
    assert!(first.status.success(), "{}", error_line(&first));
    let before = content(&out);
    refused(
        &cross_validate("2"),
        &["fold-1 was begun with other data, another sample or split", "stood on another side"],
    );
    let labels = data.join("stage_2_train.csv");
    let good = fs::read_to_string(&labels).expect("labels");
    fs::write(&labels, good.replace("ID_008_any,0", "ID_008_any,1")).expect("labels");
    refused(&cross_validate("3"), &["slices labelled otherwise: 1", "take another folder"]);
    data_set(&data, 14);
    refused(&cross_validate("3"), &["fold-1 was begun with other data", "slices new: 12"]);
    assert!(content(&out) == before, "what was there stays");
    // The same data elsewhere are the same.
    data_set(&data, 12);
    let moved = folder.path().join("elsewhere");
    fs::create_dir(&moved).expect("a folder");
    fs::rename(&data, moved.join("data")).expect("moved");
    let command = ["cross-validate", "--out", text(&out), "--epochs", "1", "--folds", "3", "--data"];
    let again = program(&[&command[..], &[text(&moved.join("data"))], &SMALL].concat());
    assert!(again.status.success(), "{}", error_line(&again));
}

#[test]
fn a_run_of_some_patients_does_not_become_one_of_all() {
    let folder = Folder::new();
    let (data, out) = (folder.path().join("data"), folder.path().join("run"));
    data_set(&data, 12);
    let train = |folds: &[&str]| {
        let command = ["train", "--data", text(&data), "--out", text(&out), "--epochs", "1"];
        program(&[&command[..], &SMALL, folds].concat())
    };
    let held = train(&["--folds", "0"]);
    assert!(held.status.success(), "{}", error_line(&held));
    let before = content(&out);
    refused(&train(&["--folds", "2"]), &["run was begun with", "4 patients stood on another side"]);
    refused(&fit(&data, &out, &["--epochs", "1", "--test", "0.3"]), &["stood on another side"]);
    assert!(content(&out) == before, "no fold was trained first, and what was there stays");
}

#[test]
fn sources_of_one_name_are_refused() {
    let folder = Folder::new();
    let (data, other, out) = (folder.path().join("data"), folder.path().join("b/data"), folder.path().join("run"));
    data_set(&data, 12);
    data_set(&other, 4);
    refused(&fit(&data, &out, &["--train-only", text(&other)]), &["are both called data", "rename one"]);
    refused(&fit(&data, &out, &["--train-only", text(&data)]), &["is given twice"]);
    assert!(!out.exists());
}

#[test]
fn a_measured_patient_under_another_name_is_not_trained_on() {
    let folder = Folder::new();
    let (data, other, out) = (folder.path().join("data"), folder.path().join("other"), folder.path().join("run"));
    data_set(&data, 12);
    // The same image in another file, with a label of its own.
    fs::create_dir_all(other.join("stage_2_train")).expect("a folder");
    fs::copy(data.join("stage_2_train/ID_009.dcm"), other.join("stage_2_train/ID_x.dcm")).expect("copied");
    fs::write(other.join("stage_2_train.csv"), "ID,Label\nID_x_any,1\n").expect("labels");
    refused(
        &fit(&data, &out, &["--train-only", text(&other)]),
        &["other/P1 and data/P1 are one patient", "an image's UID"],
    );
    assert!(!out.exists());
}

#[test]
fn another_sample_is_another_configuration_and_its_key_is_named() {
    let folder = Folder::new();
    let (data, out) = (folder.path().join("data"), folder.path().join("run"));
    data_set(&data, 12);
    let first = fit(&data, &out, &["--epochs", "1", "--sample", "24"]);
    assert!(first.status.success(), "{}", error_line(&first));
    refused(
        &fit(&data, &out, &["--epochs", "2", "--sample", "30"]),
        &["another configuration", "sample was 24, now 30"],
    );
}

#[test]
fn phantoms_are_not_drawn_over_patients() {
    let folder = Folder::new();
    let data = folder.path().join("data");
    data_set(&data, 2);
    let before = content(&data);
    refused(&program(&["phantoms", "--out", text(&data), "--studies", "2", "--slices", "2"]), &["which is no phantom"]);
    assert!(content(&data) == before);
    for few in [["--studies", "0"], ["--slices", "1"]] {
        let output = program(&["phantoms", "--out", text(&folder.path().join("new")), few[0], few[1]]);
        assert_eq!(output.status.code(), Some(2));
        assert!(!folder.path().join("new").exists());
    }
}

#[test]
fn a_learning_rate_beyond_sense_ends_in_its_first_epoch() {
    let folder = Folder::new();
    let (data, out) = (folder.path().join("data"), folder.path().join("run"));
    data_set(&data, 12);
    refused(
        &fit(&data, &out, &["--learning-rate", "1e30", "--epochs", "3"]),
        &["the loss stopped being a number in epoch 1, batch ", "before any epoch was finished"],
    );
    assert!(!out.join("best-1").exists() && !out.join("checkpoint-1").exists());
}

#[test]
fn a_loss_that_is_no_number_ends_a_run_and_keeps_its_best_epoch() {
    let folder = Folder::new();
    let [data, out, cache] = ["data", "run", "cache"].map(|name| folder.path().join(name));
    data_set(&data, 12);
    let first = fit(&data, &out, &["--cache", text(&cache), "--epochs", "1"]);
    assert!(first.status.success(), "{}", error_line(&first));
    let best = content(&out.join("best-1"));

    // The decoded slices are poisoned, so that the second epoch's first loss is none.
    for (path, bytes) in content(&cache) {
        fs::write(path, f32::NAN.to_le_bytes().repeat(bytes.len() / 4)).expect("a file");
    }
    // The same again: a run that ended so does not go on.
    for _ in 0..2 {
        let second = fit(&data, &out, &["--cache", text(&cache), "--epochs", "3"]);
        refused(&second, &["stopped being a number in epoch 2, batch 1", "the best epoch before it, 1, is kept"]);
        assert_eq!(content(&out.join("best-1")), best);
    }
    let state: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(out.join("state.json")).expect("the state")).expect("JSON");
    assert_eq!((&state["nan"], &state["best"]), (&serde_json::json!([2, 1]), &serde_json::json!(1)));

    // What was kept is whole: on sound slices it is measured.
    let measured = program(&["evaluate", "--run", text(&out)]);
    assert!(measured.status.success(), "{}", error_line(&measured));
}

#[test]
fn a_cut_off_checkpoint_is_named_and_nothing_is_overwritten() {
    let folder = Folder::new();
    let (data, out) = (folder.path().join("data"), folder.path().join("run"));
    data_set(&data, 12);
    assert!(fit(&data, &out, &["--epochs", "2"]).status.success());
    for name in ["network.bin", "adam.bin"] {
        let checkpoint = out.join("checkpoint-2").join(name);
        let whole = fs::read(&checkpoint).expect("a checkpoint");
        fs::write(&checkpoint, &whole[..whole.len() / 2]).expect("cut off");
        let [state, best] = ["state.json", "best-2/network.bin"].map(|file| fs::read(out.join(file)).ok());
        refused(&fit(&data, &out, &["--epochs", "3"]), &["the checkpoint", "checkpoint-2", "cannot be used"]);
        assert_eq!([state, best], ["state.json", "best-2/network.bin"].map(|file| fs::read(out.join(file)).ok()));
        assert_eq!(fs::read(&checkpoint).expect("a checkpoint").len(), whole.len() / 2);
        fs::write(&checkpoint, &whole).expect("restored");
    }
    let best = fs::read_dir(&out).expect("the run").map(|entry| entry.expect("an entry").path());
    let best = best.into_iter().find(|path| path.to_string_lossy().contains("best-")).expect("a best epoch");
    fs::write(best.join("network.bin"), b"").expect("cut off");
    refused(&program(&["evaluate", "--run", text(&out)]), &["the checkpoint", "best-", "cannot be used"]);
    assert!(!out.join("evaluation.json").exists());
}

/// A full disk, by a limit on the size of files: the checkpoint does not fit, at its begin or at its very end.
#[test]
fn a_full_disk_is_named_and_the_run_goes_on_where_there_is_space() {
    let folder = Folder::new();
    let (data, out) = (folder.path().join("data"), folder.path().join("run"));
    data_set(&data, 12);
    assert!(fit(&data, &out, &["--epochs", "1"]).status.success());
    let before =
        [fs::read(out.join("state.json")), fs::read(out.join("best-1/network.bin"))].map(|file| file.expect("a file"));
    let length = fs::metadata(out.join("checkpoint-1/network.bin")).expect("a checkpoint").len();
    // In kibibytes: half the network, and all of it but the last few bytes.
    for limit in [length / 2 / 1024, length / 1024] {
        let script = format!("trap '' XFSZ; ulimit -f {limit} || exit 99; exec \"$@\"");
        let more = ["--epochs", "2"];
        let command = [&["fit", "--data", text(&data), "--out", text(&out)][..], &SMALL, &more].concat();
        let full = Command::new("bash")
            .args(["-c", &script, "bash", env!("CARGO_BIN_EXE_triaged-training")])
            .args(command)
            .output()
            .expect("bash runs");
        refused(&full, &["checkpoint-2", "network.bin", "File too large"]);
        let after = [fs::read(out.join("state.json")), fs::read(out.join("best-1/network.bin"))];
        assert_eq!(before, after.map(|file| file.expect("a file")));
    }
    let more = fit(&data, &out, &["--epochs", "2"]);
    assert!(more.status.success(), "{}", error_line(&more));
}

#[test]
fn a_run_of_no_data_and_a_card_that_is_none_are_refused() {
    let folder = Folder::new();
    let nothing = folder.path().join("nothing");
    refused(&program(&["evaluate", "--run", text(&nothing)]), &["nothing/config.json", "No such file"]);
    refused(&program(&["export", "--run", text(&nothing), "--out", text(&nothing)]), &["nothing/config.json"]);
    refused(&program(&["compare", text(&nothing), text(&nothing)]), &["cannot read the model card", "nothing"]);
    assert!(!nothing.exists());
}

#[test]
fn a_reader_that_goes_away_ends_nothing() {
    let folder = Folder::new();
    let (data, out) = (folder.path().join("data"), folder.path().join("out"));
    data_set(&data, 12);
    let arguments = [&["fit", "--data", text(&data), "--out", text(&out), "--epochs", "1"][..], &SMALL].concat();
    let mut child = Command::new(env!("CARGO_BIN_EXE_triaged-training"))
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    drop((child.stdout.take(), child.stderr.take()));
    assert!(child.wait().expect("an end").success());
    let state = fs::read_to_string(out.join("state.json")).expect("a state");
    assert!(state.contains("\"epoch\": 1"), "{state}");
}
