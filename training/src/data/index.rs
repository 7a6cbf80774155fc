//! The index of a labelled folder: `stage_2_train.csv` joined with `stage_2_train/*.dcm`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::about::{ABOUT, About};
use super::error::IndexError;
use super::header::{Header, header};
use super::labels::{LABELS, read_labels};
use super::mask;
use super::origin::{ORIGINS, Origin};
use super::problems::Problems;
use crate::publication::SIDE;

/// The folder of the images, `ID_xxx.dcm`.
pub const IMAGES: &str = "stage_2_train";

/// A labelled slice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// As in the label file, `ID_xxx`.
    pub id: String,
    /// The name of the folder it came from.
    pub source: String,
    /// Patient ID, or Study Instance UID where there is none, or the slice's own id where there is neither; prefixed
    /// with the source, so that equal ids of two sources are two patients. Of several that a study stands under the first.
    pub patient: String,
    /// Study Instance UID; none where the header has none, or the index did not note it: a patient is one study then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub study: Option<String>,
    /// Series Instance UID, likewise: a study is one series then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<String>,
    /// SOP Instance UID, likewise: it tells the image again, whatever its file and folder are called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Whether `any` hemorrhage is labelled.
    pub positive: bool,
    pub file: PathBuf,
    /// Its mask of blood, where the folder has one ([`super::mask`]).
    pub mask: Option<PathBuf>,
    /// Rows and columns as the header says; none in an index of before they were noted.
    pub size: Option<[u32; 2]>,
    /// Its place in its series: along the slices' normal in micrometers, or its instance number. Only the order
    /// counts. None where the header has neither, or the index did not note it.
    #[serde(default)]
    pub position: Option<i64>,
    /// Of a synthetic slice, whom it was made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// The treatment of images that are not 512×512.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum OtherSizes {
    /// They are brought to the input's size, as the node does.
    #[default]
    Resize,
    /// They are left out, as in the study.
    Discard,
}

/// The labelled slices of one or more folders, in the order of their ids.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    pub slices: Vec<Slice>,
    pub problems: Problems,
}

impl Index {
    /// Indexes a folder: reads the label file, lists the images, and reads each image's header for its patient and size.
    /// Images of all sizes are kept.
    pub fn read(folder: &Path) -> Result<Self, IndexError> {
        Self::read_sized(folder, OtherSizes::Resize)
    }

    /// As [`Index::read`]; `other_sizes` says what becomes of images that are not 512×512.
    pub fn read_sized(folder: &Path, other_sizes: OtherSizes) -> Result<Self, IndexError> {
        Ok(Self::read_renamed(folder, other_sizes)?.0)
    }

    /// As [`Index::read_sized`]; with the patients that others were joined with, by the names that those would have had.
    fn read_renamed(folder: &Path, other_sizes: OtherSizes) -> Result<(Self, BTreeMap<String, String>), IndexError> {
        let source = source_name(folder);
        let mut problems = Problems::default();
        About::read(folder).map_err(|why| IndexError::About { path: folder.join(ABOUT), why })?;
        let labels = read_labels(&folder.join(LABELS), &mut problems)?;
        let images = list_images(&folder.join(IMAGES))?;
        for id in labels.keys().filter(|id| !images.contains_key(*id)) {
            problems.labels_without_file.push(id.clone());
        }
        for id in images.keys().filter(|id| !labels.contains_key(*id) && !problems.contradictory.contains(id)) {
            problems.files_without_label.push(id.clone());
        }
        let joined: Vec<(String, bool, PathBuf)> = labels
            .into_iter()
            .filter_map(|(id, positive)| images.get(&id).map(|file| (id.clone(), positive, file.clone())))
            .collect();
        let masks = folder.join(mask::MASKS);
        let masked = masks.is_dir();
        let origins_path = folder.join(ORIGINS);
        let origins =
            Origin::read(&origins_path).map_err(|source| IndexError::Origins { path: origins_path.clone(), source })?;
        let read: Vec<Result<(Slice, Told), (PathBuf, String)>> = joined
            .into_par_iter()
            .map(|(id, positive, file)| match header(&file) {
                Ok(header) => {
                    let told = Told { by_patient_id: header.patient.is_some(), is_synthetic: header.is_synthetic };
                    let mask = masks.join(format!("{id}.pbm"));
                    let mask = (masked && positive && mask.is_file()).then_some(mask);
                    let origin = origins.as_ref().and_then(|origins| origins.get(patient_of(&header, &id))).cloned();
                    Ok((Slice { positive, mask, origin, ..slice(&source, id, file, header) }, told))
                }
                Err(why) => Err((file, why)),
            })
            .collect();
        let mut slices = Vec::with_capacity(read.len());
        let mut by_patient_id = BTreeSet::new();
        for slice in read {
            let slice = match slice {
                Ok((_, told)) if told.is_synthetic && origins.is_none() => {
                    return Err(IndexError::NoOrigins { folder: folder.into() });
                }
                Ok((slice, told)) => {
                    if told.by_patient_id && !by_patient_id.contains(&slice.patient) {
                        by_patient_id.insert(slice.patient.clone());
                    }
                    slice
                }
                Err(unreadable) => {
                    problems.unreadable.push(unreadable);
                    continue;
                }
            };
            match (slice.size.filter(|size| *size != [SIDE; 2]), other_sizes) {
                (Some(size), OtherSizes::Discard) => {
                    problems.discarded.push((slice.file, size));
                    continue;
                }
                (Some(size), OtherSizes::Resize) => problems.resized.push((slice.file.clone(), size)),
                (None, _) => {}
            }
            slices.push(slice);
        }
        if let Some(slice) = slices.iter().find(|slice| origins.is_some() && slice.origin.is_none()) {
            return Err(IndexError::NoOrigin { path: origins_path, patient: slice.patient.clone() });
        }
        if slices.is_empty() {
            return Err(IndexError::Empty { path: folder.into(), problems: Box::new(problems) });
        }
        let renamed = join_patients(&mut slices, &by_patient_id);
        problems.joined = renamed.values().cloned().collect::<BTreeSet<_>>().into_iter().collect();
        Ok((Self { slices, problems }, renamed))
    }

    /// Indexes the DICOM files (`*.dcm`) of a folder without labels, all as slices without hemorrhage.
    ///
    /// # Errors
    /// As [`Index::read`].
    pub fn unlabelled(folder: &Path) -> Result<Self, IndexError> {
        let source = source_name(folder);
        let mut problems = Problems::default();
        let mut slices = Vec::new();
        for (id, file) in list_images(folder)? {
            match header(&file) {
                Ok(header) => slices.push(slice(&source, id, file, header)),
                Err(why) => problems.unreadable.push((file, why)),
            }
        }
        if slices.is_empty() {
            return Err(IndexError::Empty { path: folder.into(), problems: Box::new(problems) });
        }
        Ok(Self { slices, problems })
    }

    /// Indexes several folders and joins them. Two of one name are refused: their slices could not be told apart.
    pub fn read_all(folders: &[PathBuf], other_sizes: OtherSizes) -> Result<Self, IndexError> {
        for (place, second) in folders.iter().enumerate() {
            for first in &folders[..place] {
                if std::fs::canonicalize(first)
                    .ok()
                    .is_some_and(|path| std::fs::canonicalize(second).ok() == Some(path))
                {
                    return Err(IndexError::Twice { folder: second.clone() });
                }
                if source_name(first) == source_name(second) {
                    let (first, second, name) = (first.clone(), second.clone(), source_name(first));
                    return Err(IndexError::SameName { first, second, name });
                }
            }
        }
        let mut all = Self::default();
        let mut all_renamed = BTreeMap::new();
        for folder in folders {
            let (Index { slices, problems }, renamed) = Self::read_renamed(folder, other_sizes)?;
            all_renamed.extend(renamed);
            all.slices.extend(slices);
            all.problems.duplicate_rows += problems.duplicate_rows;
            all.problems.contradictory.extend(problems.contradictory);
            all.problems.labels_without_file.extend(problems.labels_without_file);
            all.problems.files_without_label.extend(problems.files_without_label);
            all.problems.unreadable.extend(problems.unreadable);
            all.problems.resized.extend(problems.resized);
            all.problems.discarded.extend(problems.discarded);
            all.problems.joined.extend(problems.joined);
        }
        // What was made of somebody is so by whatever name.
        for origin in all.slices.iter_mut().filter_map(|slice| slice.origin.as_mut()) {
            if let Some(name) = all_renamed.get(&origin.patient) {
                origin.patient.clone_from(name);
            }
        }
        Ok(all)
    }

    /// In what the slices of another index are other ones, in words; none where they are the same, in the same order, with
    /// the same labels and patients. Where the files lie makes no difference.
    pub fn difference(&self, other: &Self) -> Option<String> {
        fn known(index: &Index) -> BTreeMap<(&str, &str), &Slice> {
            index.slices.iter().map(|slice| ((slice.source.as_str(), slice.id.as_str()), slice)).collect()
        }
        let (ours, theirs) = (known(self), known(other));
        let gone = ours.keys().filter(|key| !theirs.contains_key(*key)).count();
        let new = theirs.keys().filter(|key| !ours.contains_key(*key)).count();
        let otherwise = |differs: fn(&Slice, &Slice) -> bool| {
            ours.iter().filter(|(key, own)| theirs.get(*key).is_some_and(|slice| differs(own, slice))).count()
        };
        let relabelled = otherwise(|a, b| a.positive != b.positive);
        let moved = otherwise(|a, b| a.patient != b.patient || a.origin != b.origin);
        let counts = [
            (gone, "slices gone"),
            (new, "slices new"),
            (relabelled, "slices labelled otherwise"),
            (moved, "slices of another patient"),
        ];
        let texts: Vec<String> =
            counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{what}: {count}")).collect();
        if !texts.is_empty() {
            return Some(texts.join(", "));
        }
        let same_order =
            self.slices.iter().map(|s| (&s.source, &s.id)).eq(other.slices.iter().map(|s| (&s.source, &s.id)));
        (!same_order).then(|| "the slices are in another order: the folders were given in another order".into())
    }

    /// The slices that are measured, too: without the sources that are only trained on.
    pub fn measured(&self, train_only: &[String]) -> Index {
        let slices = self.slices.iter().filter(|slice| !train_only.contains(&slice.source)).cloned().collect();
        Index { slices, problems: Problems::default() }
    }

    /// Takes in the slices that another training was only trained on, as far as they are not here.
    ///
    /// # Errors
    /// A slice that has the name of one that is here and is another: the two folders have one name.
    pub fn add_trained_on(&mut self, other: &Index, train_only: &[String]) -> Result<(), String> {
        let known: BTreeMap<(&str, &str), &Slice> =
            self.slices.iter().map(|slice| ((slice.source.as_str(), slice.id.as_str()), slice)).collect();
        let mut new = Vec::new();
        for slice in other.slices.iter().filter(|slice| train_only.contains(&slice.source)) {
            let what = |slice: &Slice| (slice.patient.clone(), slice.positive, slice.origin.clone());
            match known.get(&(slice.source.as_str(), slice.id.as_str())) {
                None => new.push(slice.clone()),
                Some(here) if what(here) == what(slice) => {}
                Some(_) => return Err(format!("{} {} is another slice in the two trainings", slice.source, slice.id)),
            }
        }
        self.slices.extend(new);
        Ok(())
    }

    /// Patients with their slices, in the order of their names.
    pub fn patients(&self) -> BTreeMap<&str, Vec<&Slice>> {
        let mut patients: BTreeMap<&str, Vec<&Slice>> = BTreeMap::new();
        for slice in &self.slices {
            patients.entry(&slice.patient).or_default().push(slice);
        }
        patients
    }
}

/// What a header says beside what a slice keeps.
struct Told {
    by_patient_id: bool,
    is_synthetic: bool,
}

/// Makes one patient of those who have a study in common: a study that is sent under two Patient IDs, or with a slice that has none, is of
/// one person. They get the first of their names, of those that are Patient IDs where there are any; who shares no study keeps the name.
/// Returns the new names by the old ones.
fn join_patients(slices: &mut [Slice], by_patient_id: &BTreeSet<String>) -> BTreeMap<String, String> {
    let mut studies: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for slice in slices.iter() {
        if let Some(study) = slice.study.as_deref() {
            studies.entry(study).or_default().insert(&slice.patient);
        }
    }
    // Groups of patients; of two that share one the second is emptied into the first.
    let mut group: BTreeMap<&str, usize> = BTreeMap::new();
    let mut groups: Vec<BTreeSet<&str>> = Vec::new();
    for patients in studies.into_values().filter(|patients| patients.len() > 1) {
        let into = groups.len();
        let mut joined = BTreeSet::new();
        for patient in patients {
            match group.get(patient) {
                Some(&of) => joined.append(&mut groups[of]),
                None => {
                    joined.insert(patient);
                }
            }
        }
        joined.iter().for_each(|patient| {
            group.insert(patient, into);
        });
        groups.push(joined);
    }
    let mut names = BTreeMap::new();
    for joined in &groups {
        let named = joined.iter().find(|patient| by_patient_id.contains(**patient));
        let Some(name) = named.or(joined.first()) else { continue };
        names.extend(
            joined.iter().filter(|patient| *patient != name).map(|&patient| (patient.to_owned(), (*name).to_owned())),
        );
    }
    for slice in slices {
        if let Some(name) = names.get(&slice.patient) {
            slice.patient.clone_from(name);
        }
    }
    names
}

/// Whose a slice is: by Patient ID, else Study Instance UID, else its own id.
fn patient_of<'a>(header: &'a Header, id: &'a str) -> &'a str {
    header.patient.as_deref().or(header.study.as_deref()).unwrap_or(id)
}

/// A slice of a folder by its header: without hemorrhage, mask and origin.
fn slice(source: &str, id: String, file: PathBuf, header: Header) -> Slice {
    let patient = format!("{source}/{}", patient_of(&header, &id));
    let Header { study, series, instance, size, position, .. } = header;
    Slice {
        id,
        source: source.to_owned(),
        patient,
        study,
        series,
        instance,
        positive: false,
        file,
        mask: None,
        size: Some(size),
        position,
        origin: None,
    }
}

/// The name of a folder's slices: its own, or where the path has none, as `.`, that of the folder it leads to.
pub fn source_name(folder: &Path) -> String {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let found = name(folder).or_else(|| name(&std::fs::canonicalize(folder).ok()?));
    found.unwrap_or_else(|| "data".into())
}

fn list_images(folder: &Path) -> Result<BTreeMap<String, PathBuf>, IndexError> {
    let failed = |source| IndexError::Images { path: folder.into(), source };
    let mut images = BTreeMap::new();
    let mut other_case = 0;
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension != "dcm" && extension.eq_ignore_ascii_case("dcm")) {
            other_case += 1;
        }
        if path.extension().is_some_and(|extension| extension == "dcm")
            && let Some(stem) = path.file_stem()
        {
            images.insert(stem.to_string_lossy().into_owned(), path);
        }
    }
    if other_case > 0 {
        eprintln!(
            "{}: {other_case} files end in .DCM or so and are passed over: images are *.dcm, rename them",
            folder.display()
        );
    }
    Ok(images)
}

/// A slice for tests, of no file.
#[cfg(test)]
pub(crate) fn example(id: &str) -> Slice {
    Slice {
        id: id.into(),
        source: "a".into(),
        patient: format!("a/{id}"),
        study: None,
        series: None,
        instance: None,
        positive: false,
        file: "none".into(),
        mask: None,
        size: None,
        position: None,
        origin: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_between_two_indexes_is_told() {
        let index = |change: &dyn Fn(&mut Vec<Slice>)| {
            let mut slices = vec![example("x"), example("y"), example("z")];
            change(&mut slices);
            Index { slices, problems: Problems::default() }
        };
        let whole = index(&|_| ());
        let told = |change: &dyn Fn(&mut Vec<Slice>)| whole.difference(&index(change)).unwrap_or_default();
        assert_eq!(told(&|_| ()), "");
        // Moved files and what an older index did not note change nothing.
        assert_eq!(told(&|s| (s[0].file, s[0].study) = ("elsewhere".into(), Some("1.2".into()))), "");
        assert_eq!(told(&|s| s[2].id = "w".into()), "slices gone: 1, slices new: 1");
        assert_eq!(told(&|s| s[1].positive = true), "slices labelled otherwise: 1");
        assert_eq!(told(&|s| s[1].patient = "a/x".into()), "slices of another patient: 1");
        assert!(told(&|s| s.reverse()).contains("in another order"));
    }

    #[test]
    fn who_has_a_study_in_common_is_one_patient_and_others_keep_their_names() {
        let slice = |id: &str, patient: &str, study: &str| Slice {
            patient: format!("a/{patient}"),
            study: Some(study.into()),
            ..example(id)
        };
        // One study under two Patient IDs, the second of which has a study with a slice of none, which is known by the study's UID.
        let mut slices = vec![
            slice("1", "P2", "1.1"),
            slice("2", "P1", "1.1"),
            slice("3", "P2", "0.9"),
            slice("4", "0.9", "0.9"),
            slice("5", "P3", "1.3"),
        ];
        let by_id = ["a/P1", "a/P2", "a/P3"].map(str::to_owned).into();
        let renamed = join_patients(&mut slices, &by_id);
        let names: Vec<&str> = slices.iter().map(|slice| slice.patient.as_str()).collect();
        assert_eq!(names, ["a/P1", "a/P1", "a/P1", "a/P1", "a/P3"]);
        assert_eq!(renamed.len(), 2);
        assert_eq!(join_patients(&mut slices, &by_id), BTreeMap::new());
    }

    #[test]
    fn folders_of_one_name_are_refused_and_a_path_without_a_name_has_its_folders() {
        let root = tempfile::tempdir().expect("a folder");
        let [first, second] = ["a/data", "b/data"].map(|path| root.path().join(path));
        for folder in [&first, &second] {
            std::fs::create_dir_all(folder).expect("a folder");
        }
        assert_eq!(source_name(&first), "data");
        assert_eq!(source_name(&first.join("..")), "a");
        let refused =
            |folders: &[PathBuf]| Index::read_all(folders, OtherSizes::Resize).expect_err("one name").to_string();
        assert!(refused(&[first.clone(), second]).contains("are both called data"));
        assert!(refused(&[first.clone(), first.join("../data")]).contains("is given twice"));
    }
}
