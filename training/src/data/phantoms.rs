//! A folder of phantoms in the RSNA 2019 layout, to train on beside patients or to try a model on.

use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use triaged_imaging::phantom::{self, Lesion, PhantomSpec};

use super::index::IMAGES;
use super::labels::{LABELS, LabelRow};
use super::mask;

/// A slice with at least so many pixels of blood is labelled positive: a spot of 4 mm across.
const BLOOD_PIXELS: usize = 60;

#[derive(Debug, thiserror::Error)]
pub enum PhantomError {
    #[error("cannot write {path}: {why}")]
    Write { path: PathBuf, why: String },
    #[error("{folder} holds {found}, which is no phantom: its labels would be written over. Take a new folder")]
    NotOurs { folder: PathBuf, found: String },
}

/// How the ids of phantoms begin.
const ID: &str = "ID_phantom_";

/// Refuses a folder with anything but phantoms: the labels of real patients would be written over. One that was drawn, or begun, before is
/// drawn anew.
fn check_ours(folder: &Path) -> Result<(), PhantomError> {
    let foreign = |found: String| PhantomError::NotOurs { folder: folder.into(), found };
    for (below, ours) in
        [(folder.to_path_buf(), None), (folder.join(IMAGES), Some(ID)), (folder.join(mask::MASKS), Some(ID))]
    {
        for entry in fs::read_dir(&below).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_ours = match ours {
                Some(begin) => name.starts_with(begin),
                None => [IMAGES, mask::MASKS, LABELS].contains(&name.as_str()),
            };
            if !is_ours {
                return Err(foreign(name));
            }
        }
    }
    let labels = folder.join(LABELS);
    if labels.exists() {
        let mut others = None;
        let read = LabelRow::each(&labels, |row| {
            if !row.name.starts_with(ID) {
                others.get_or_insert(row.name);
            }
        });
        if let Some(name) = read.map_or_else(|error| Some(error.to_string()), |()| others) {
            return Err(foreign(name));
        }
    }
    Ok(())
}

/// Writes `studies` phantoms of `slices` each, every second one bleeding, the five types in turn, with seeds from
/// `first_seed` on, and masks of the blood. Returns how many slices were labelled negative and positive.
pub fn write(folder: &Path, studies: u64, slices: u32, first_seed: u64) -> Result<(usize, usize), PhantomError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error: &dyn std::fmt::Display| PhantomError::Write { path, why: error.to_string() }
    };
    check_ours(folder)?;
    let images = folder.join(IMAGES);
    let masks = folder.join(mask::MASKS);
    for folder in [&images, &masks] {
        fs::create_dir_all(folder).map_err(|error| failed(folder)(&error))?;
    }
    let labels: Vec<Vec<(String, bool)>> = (0..studies)
        .into_par_iter()
        .map(|study| {
            let seed = first_seed + study;
            let lesion = (study % 2 == 1).then(|| Lesion::ALL[(study / 2) as usize % Lesion::ALL.len()]);
            let mut labels = Vec::new();
            for (number, slice) in phantom::slices(&PhantomSpec { slices, lesion, seed }).enumerate() {
                let id = format!("{ID}{seed}_{number:02}");
                let path = images.join(format!("{id}.dcm"));
                slice.object.write_to_file(&path).map_err(|error| failed(&path)(&error))?;
                let positive = slice.blood_pixels() >= BLOOD_PIXELS;
                if positive {
                    let path = masks.join(format!("{id}.pbm"));
                    mask::write(&path, &slice.blood, phantom::SIDE).map_err(|error| failed(&path)(&error))?;
                }
                labels.push((id, positive));
            }
            Ok(labels)
        })
        .collect::<Result<_, PhantomError>>()?;
    let labels = labels.concat();
    let rows: String = labels.iter().map(|(id, positive)| format!("{id}_any,{}\n", u8::from(*positive))).collect();
    let path = folder.join(LABELS);
    fs::write(&path, format!("ID,Label\n{rows}")).map_err(|error| failed(&path)(&error))?;
    let positive = labels.iter().filter(|(_, positive)| *positive).count();
    Ok((labels.len() - positive, positive))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_patients_is_not_written_over_and_one_of_phantoms_is_drawn_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let out = folder.path();
        write(out, 2, 2, 1).expect("phantoms");
        write(out, 2, 2, 1).expect("the same again");
        let labels = "ID,Label\nID_real_any,1\n";
        fs::write(out.join(LABELS), labels).expect("labels");
        let refused = write(out, 2, 2, 1).expect_err("labels of patients").to_string();
        assert!(refused.contains("ID_real_any"), "{refused}");
        assert_eq!(fs::read_to_string(out.join(LABELS)).expect("labels"), labels);
    }
}
