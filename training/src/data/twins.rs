//! The same images under other names: nobody may be measured whom a network was trained on, whatever folder and files are called.
//!
//! Compared are Study and SOP Instance UIDs, and of images that have other ones the decoded pixels in Hounsfield units: who takes a patient's name
//! away often gives new UIDs, and who packs images otherwise writes other bytes.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use rayon::prelude::*;
use sha2::{Digest, Sha256};
use triaged_imaging::{decode_frame, read_file};

use super::index::Slice;

/// Images whose pixels are compared at most: some minutes' decoding on two cores. Of more only the UIDs are compared, which is said.
const MOST: usize = 20_000;
/// An image of fewer values, as air alone, is like those of many patients and tells nobody.
const FEWEST_VALUES: usize = 16;

/// Two slices that are of one patient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Twin<'a> {
    pub known: &'a Slice,
    pub other: &'a Slice,
    /// What they have in common.
    pub by: &'static str,
}

/// Two folders that hold one patient, of whom at least one is measured.
#[derive(Debug, thiserror::Error)]
#[error(
    "{other} and {known} are one patient ({by}; {count} slices of {source_name}): a network would be measured on whom it was trained on. Take the \
     patient out of one of the folders"
)]
pub struct TwinError {
    known: String,
    other: String,
    source_name: String,
    by: &'static str,
    count: usize,
}

/// Those of the `others` that are of the patients of the `known`, by UIDs or pixels. Synthetic slices are passed over: their origins say whom they
/// are of, and what was not drawn into is as it was.
pub fn twins<'a>(known: &[&'a Slice], others: &[&'a Slice]) -> Vec<Twin<'a>> {
    let real =
        |of: &[&'a Slice]| -> Vec<&'a Slice> { of.iter().copied().filter(|slice| slice.origin.is_none()).collect() };
    let (known, others) = (real(known), real(others));
    let by_uid = |uid: fn(&Slice) -> Option<&str>| -> HashMap<&'a str, &'a Slice> {
        known.iter().filter_map(|&slice| Some((uid(slice)?, slice))).collect()
    };
    let (studies, instances) = (by_uid(|slice| slice.study.as_deref()), by_uid(|slice| slice.instance.as_deref()));
    let mut twins = Vec::new();
    let mut rest = Vec::new();
    for other in others {
        let study = other.study.as_deref().and_then(|study| Some((*studies.get(study)?, "by the study's UID")));
        let instance = || other.instance.as_deref().and_then(|uid| Some((*instances.get(uid)?, "by an image's UID")));
        match study.or_else(instance) {
            Some((known, by)) => twins.push(Twin { known, other, by }),
            None => rest.push(other),
        }
    }
    // Pixels are the same only of images of one size.
    let sizes = |of: &[&Slice]| -> HashSet<Option<[u32; 2]>> { of.iter().map(|slice| slice.size).collect() };
    let (of_known, of_rest) = (sizes(&known), sizes(&rest));
    let known: Vec<&Slice> = known.into_iter().filter(|slice| of_rest.contains(&slice.size)).collect();
    let rest: Vec<&Slice> = rest.into_iter().filter(|slice| of_known.contains(&slice.size)).collect();
    if known.len() + rest.len() > MOST {
        eprintln!("{} images and more are compared by their UIDs alone, not by their pixels", MOST);
        return twins;
    }
    let digests: HashMap<[u8; 32], &Slice> =
        known.par_iter().filter_map(|&slice| Some((digest(&slice.file)?, slice))).collect();
    let same = |&other: &&'a Slice| {
        let known = *digests.get(&digest(&other.file)?)?;
        Some(Twin { known, other, by: "by an image's pixels" })
    };
    twins.extend(if digests.is_empty() { Vec::new() } else { rest.par_iter().filter_map(same).collect::<Vec<_>>() });
    twins
}

/// Refuses folders that hold a patient of another one, unless both are only trained on.
///
/// # Errors
/// `TwinError`, of the first patient found.
pub fn check_apart(slices: &[Slice], train_only: &[String]) -> Result<(), TwinError> {
    let (only, measured): (Vec<&Slice>, Vec<&Slice>) =
        slices.iter().partition(|slice| train_only.contains(&slice.source));
    // The slices of a folder follow each other.
    let mut before: Vec<&Slice> = Vec::new();
    let folders: Vec<&[&Slice]> = measured.chunk_by(|a, b| a.source == b.source).collect();
    for others in folders.into_iter().chain([only.as_slice()]) {
        let found = if before.is_empty() || others.is_empty() { Vec::new() } else { twins(&before, others) };
        if let Some(Twin { known, other, by }) = found.first() {
            return Err(TwinError {
                known: known.patient.clone(),
                other: other.patient.clone(),
                source_name: other.source.clone(),
                by,
                count: found.iter().filter(|twin| twin.other.source == other.source).count(),
            });
        }
        before.extend(others);
    }
    Ok(())
}

/// The digest of an image's pixels in Hounsfield units. None where it cannot be decoded, or shows too little to tell anybody.
fn digest(file: &Path) -> Option<[u8; 32]> {
    let frame = decode_frame(&read_file(file).ok()?, 0).ok()?;
    let values: Vec<i32> = frame.hounsfield().into_iter().map(|value| value.round() as i32).collect();
    let mut seen = HashSet::new();
    if !values.iter().any(|value| seen.insert(*value) && seen.len() >= FEWEST_VALUES) {
        return None;
    }
    let mut digest = Sha256::new();
    digest.update([frame.rows as u64, frame.columns as u64].map(u64::to_le_bytes).concat());
    values.iter().for_each(|value| digest.update(value.to_le_bytes()));
    Some(digest.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Index, phantoms};

    #[test]
    fn a_patient_under_other_names_and_uids_is_found_by_the_pixels() {
        let root = tempfile::tempdir().expect("a folder");
        let [first, second] = ["first", "second"].map(|name| root.path().join(name));
        phantoms::write(&first, 2, 4, 1).expect("phantoms");
        phantoms::write(&second, 2, 4, 100).expect("phantoms");
        let read = |folder: &Path| Index::read(folder).expect("an index").slices;
        let apart = [read(&first), read(&second)].concat();
        check_apart(&apart, &["second".into()]).expect("other phantoms");
        let copied = |change: &dyn Fn(&mut Slice)| {
            let mut copies = read(&first);
            for slice in &mut copies {
                (slice.source, slice.patient) = ("copy".into(), format!("copy/{}", slice.patient));
                slice.id = format!("ID_x{}", slice.id);
                change(slice);
            }
            [apart.clone(), copies].concat()
        };
        let without_study = |slice: &mut Slice| slice.study = None;
        let without_uids = |slice: &mut Slice| (slice.study, slice.instance) = (None, None);
        type Change<'a> = &'a dyn Fn(&mut Slice);
        let changes: [(&str, Change); 3] =
            [("the study's UID", &|_| ()), ("an image's UID", &without_study), ("an image's pixels", &without_uids)];
        for (by, change) in changes {
            let refused = check_apart(&copied(change), &["copy".into()]).expect_err("one patient").to_string();
            assert!(refused.contains(by) && refused.contains("are one patient"), "{refused}");
        }
        // What is only trained on may be there twice.
        check_apart(&copied(&without_uids), &["first".into(), "second".into(), "copy".into()])
            .expect("nobody is measured");
    }
}
