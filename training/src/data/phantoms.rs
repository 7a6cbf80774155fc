//! A folder of phantoms in the RSNA 2019 layout, to train on beside patients or to try a model on.

use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use triaged_imaging::phantom::{self, Lesion, PhantomSpec};

use super::mask;

/// A slice with at least so many pixels of blood is labelled positive: a spot of 4 mm across.
const BLOOD_PIXELS: usize = 60;

#[derive(Debug, thiserror::Error)]
pub enum PhantomError {
    #[error("cannot write {path}: {why}")]
    Write { path: PathBuf, why: String },
}

/// Writes `studies` phantoms of `slices` each, every second one bleeding, the five types in turn, with seeds from
/// `first_seed` on, and masks of the blood. Returns how many slices were labelled negative and positive.
pub fn write(folder: &Path, studies: u64, slices: u32, first_seed: u64) -> Result<(usize, usize), PhantomError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error: &dyn std::fmt::Display| PhantomError::Write { path, why: error.to_string() }
    };
    let images = folder.join("stage_2_train");
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
                let id = format!("ID_phantom_{seed}_{number:02}");
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
    let path = folder.join("stage_2_train.csv");
    fs::write(&path, format!("ID,Label\n{rows}")).map_err(|error| failed(&path)(&error))?;
    let positive = labels.iter().filter(|(_, positive)| *positive).count();
    Ok((labels.len() - positive, positive))
}
