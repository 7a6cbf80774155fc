//! Phantom series for tests. Drawing one takes a tenth of a second of processor time a slice, and most tests ask for the same few: each is
//! drawn once by the program under test and kept in the build's folder, for that very program.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::UNIX_EPOCH;

use dicom_core::{DataElement, Tag, VR};
use dicom_dictionary_std::tags;
use triaged_imaging::{DicomObject, read_file};

use super::dicom_files;

const PROGRAM: &str = env!("CARGO_BIN_EXE_triaged");

/// The files of a phantom that `triaged phantom` makes with these options, in a folder of their own: a test may change them.
pub fn phantom(options: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in dicom_files(&drawn(options)) {
        std::fs::copy(&file, folder.path().join(file.file_name().unwrap())).unwrap();
    }
    folder
}

/// The slices of a phantom as a study of their own, with UIDs and patient by the number: many studies of one drawing.
pub fn study(options: &[&str], number: u64) -> Vec<DicomObject> {
    let uid = |what: &str, index: usize| format!("2.25.{}{:04}{index:04}", what.len() + 10, number);
    let slices = dicom_files(&drawn(options)).into_iter().enumerate();
    slices
        .map(|(index, file)| {
            let mut object = read_file(&file).unwrap();
            let mut put = |tag: Tag, vr: VR, value: &str| drop(object.put(DataElement::new(tag, vr, value)));
            put(tags::STUDY_INSTANCE_UID, VR::UI, &uid("study", 0));
            put(tags::SERIES_INSTANCE_UID, VR::UI, &uid("series", 0));
            put(tags::FRAME_OF_REFERENCE_UID, VR::UI, &uid("frame of reference", 0));
            put(tags::SOP_INSTANCE_UID, VR::UI, &uid("instance", index));
            put(tags::PATIENT_ID, VR::LO, &format!("PHANTOM-{number}"));
            let meta = object.meta_mut();
            meta.media_storage_sop_instance_uid = uid("instance", index);
            meta.update_information_group_length();
            object
        })
        .collect()
}

/// The files of such a study, in a folder of their own.
pub fn study_files(options: &[&str], number: u64) -> (tempfile::TempDir, Vec<PathBuf>) {
    let folder = tempfile::tempdir().unwrap();
    for (index, object) in study(options, number).iter().enumerate() {
        object.write_to_file(folder.path().join(format!("{index:04}.dcm"))).unwrap();
    }
    let files = dicom_files(folder.path());
    (folder, files)
}

/// The folder of a phantom with these options; whoever asks first has it drawn.
fn drawn(options: &[&str]) -> PathBuf {
    let program = std::fs::metadata(PROGRAM).unwrap();
    let changed = program.modified().unwrap().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    // Debug and release builds share the folder of temporary files, and may run side by side.
    let profile = Path::new(PROGRAM).parent().and_then(Path::file_name).unwrap();
    let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("phantoms").join(profile);
    let ours = all.join(format!("{changed}-{}", program.len()));
    let folder = ours.join(name_of(options));
    if !folder.is_dir() {
        std::fs::create_dir_all(&ours).unwrap();
        // Those of other programs, that is, of earlier builds.
        for entry in std::fs::read_dir(&all).unwrap().flatten().filter(|entry| entry.path() != ours) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
        let draft = tempfile::tempdir_in(&ours).unwrap();
        let output = Command::new(PROGRAM).args(["phantom", "--out"]).arg(draft.path()).args(options).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // Another test may have been faster; then this draft goes.
        if std::fs::rename(draft.path(), &folder).is_ok() {
            let _ = draft.keep();
        }
    }
    folder
}

/// The same for options in another order, and for those that only say what is so without them.
fn name_of(options: &[&str]) -> String {
    let mut all = BTreeMap::from([("--lesion", "none"), ("--seed", "1"), ("--slices", "30")]);
    for pair in options.chunks(2) {
        let [option, value] = pair else { panic!("{options:?}: an option without a value") };
        all.insert(option, value).unwrap_or_else(|| panic!("{option}: an option that `triaged phantom` has not"));
    }
    all.into_values().collect::<Vec<_>>().join("-")
}
