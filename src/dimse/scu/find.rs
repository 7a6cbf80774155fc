//! Objects in files and folders, whatever the files are called.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dicom_dictionary_std::{tags, uids};

use triaged_imaging::{DicomObject, ReadCause, read_header};

/// A DICOM object in a file, as it is announced to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The file; of an object in memory only a name.
    pub path: PathBuf,
    /// The Part 10 file itself, where it was made in memory.
    pub bytes: Option<Arc<[u8]>>,
    pub sop_class_uid: String,
    pub sop_instance_uid: String,
    pub transfer_syntax: String,
}

/// The objects that were found, and the files that are none.
#[derive(Debug, Default)]
pub struct Found {
    /// In order of path, folder by folder.
    pub objects: Vec<Object>,
    /// Files that are not DICOM objects, and DICOMDIRs.
    pub skipped: u64,
    /// Files and folders that cannot be read, and DICOM files that cannot be sent, with the reason.
    pub unreadable: Vec<(PathBuf, String)>,
}

/// Looks at files, and at all files in folders and their subfolders. Links to folders within them are not followed, so
/// that no circle is walked. `each` is called for each file looked at, with the number so far.
pub fn find(paths: &[PathBuf], each: &mut dyn FnMut(u64)) -> Found {
    let mut found = Found::default();
    let mut looked = 0;
    // A stack, not recursion: a hostile or broken tree may be deep.
    let mut waiting: Vec<PathBuf> = paths.iter().rev().cloned().collect();
    while let Some(path) = waiting.pop() {
        // Follows links of files and of what was named itself.
        match fs::metadata(&path) {
            Ok(about) if about.is_dir() => match entries(&path) {
                Ok(mut inside) => {
                    inside.sort_unstable_by(|a, b| b.cmp(a));
                    waiting.append(&mut inside);
                }
                Err(error) => found.unreadable.push((path, error.to_string())),
            },
            Ok(about) if about.is_file() => {
                looked += 1;
                each(looked);
                look(path, &mut found);
            }
            // Sockets, pipes, devices.
            Ok(_) => found.skipped += 1,
            Err(error) => found.unreadable.push((path, error.to_string())),
        }
    }
    found
}

fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut inside = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if !(entry.file_type()?.is_symlink() && path.is_dir()) {
            inside.push(path);
        }
    }
    Ok(inside)
}

fn look(path: PathBuf, found: &mut Found) {
    let header = match read_header(&path) {
        Ok(header) => header,
        Err(error) => {
            match error.cause {
                ReadCause::NotDicom => found.skipped += 1,
                ReadCause::Io(error) => found.unreadable.push((path, error.to_string())),
                // Without the prefix, it only began a little like a data set.
                cause if has_prefix(&path) => found.unreadable.push((path, cause.to_string())),
                _ => found.skipped += 1,
            }
            return;
        }
    };
    let meta = header.meta();
    let sop_class_uid = uid(&header, tags::SOP_CLASS_UID, meta.media_storage_sop_class_uid());
    let sop_instance_uid = uid(&header, tags::SOP_INSTANCE_UID, meta.media_storage_sop_instance_uid());
    if sop_class_uid == uids::MEDIA_STORAGE_DIRECTORY_STORAGE {
        found.skipped += 1;
    } else if !sop_class_uid.is_empty() && !sop_instance_uid.is_empty() {
        let transfer_syntax = trimmed(meta.transfer_syntax());
        found.objects.push(Object { path, bytes: None, sop_class_uid, sop_instance_uid, transfer_syntax });
    } else if has_prefix(&path) {
        found
            .unreadable
            .push((path, "it has no SOP Class UID or no SOP Instance UID, so no peer could take it".into()));
    } else {
        found.skipped += 1;
    }
}

/// The data set's word goes before that of the file meta group: the peer sees the data set.
fn uid(header: &DicomObject, tag: dicom_core::Tag, in_meta: &str) -> String {
    let in_data_set = header.get(tag).and_then(|element| element.to_str().ok()).map(|text| trimmed(&text));
    in_data_set.filter(|uid| !uid.is_empty()).unwrap_or_else(|| trimmed(in_meta))
}

fn trimmed(uid: &str) -> String {
    uid.trim_matches(['\0', ' ']).to_owned()
}

/// The Part 10 prefix (PS3.10 7.1).
fn has_prefix(path: &Path) -> bool {
    let mut head = [0; 132];
    File::open(path).and_then(|mut file| file.read_exact(&mut head)).is_ok() && &head[128..] == b"DICM"
}
