//! Facts about data sources, for the card.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::data::{About, Slice};

/// The folder that `phantoms` is told to write in the documentation: its heads are no patients.
pub(super) const PHANTOMS: &str = "phantoms";

/// Facts about a data source: how to cite it, under which terms it may be used, and what to know of its images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub citation: String,
    pub terms: String,
    pub note: String,
}

impl Known {
    fn new(citation: &str, terms: &str, note: &str) -> Self {
        Self { citation: citation.into(), terms: terms.into(), note: note.into() }
    }
}

/// What is known of the source of these slices: what its folder says itself (`source.toml`), else what is known of its name.
pub(super) fn facts(source: &str, slices: &[&Slice]) -> Option<Known> {
    let folder = slices.first().and_then(|slice| slice.file.parent()?.parent());
    // A file that cannot be read was refused when the folder was indexed; since then it may be gone.
    let own = folder.and_then(|folder| About::read(folder).ok().flatten());
    match own {
        Some(About { citation, terms, note }) => {
            let or = |text: Option<String>| text.unwrap_or_else(|| NOT_RECORDED.into());
            Some(Known { citation: or(citation), terms: or(terms), note: or(note) })
        }
        None => known(source),
    }
}

/// Stands where nobody says it.
pub(super) const NOT_RECORDED: &str = "not recorded";

/// Sources by the name of their folder.
pub(super) fn known(source: &str) -> Option<Known> {
    Some(match source {
        "ct-ich" => Known::new(
            "M. Hssayeni, M. S. Croock, A. D. Salman, H. F. Al-khafaji, Z. A. Yahya, B. Ghoraani: Intracranial \
                       Hemorrhage Segmentation Using a Deep Convolutional Model. Data 5(1):14, 2020; PhysioNet, CT-ICH \
                       version 1.0.0.",
            "Creative Commons Attribution 4.0, as the data descriptor has it; versions from 1.3.1 on are restricted",
            "reconstructed HU: published as windowed 8-bit images, brain and bone windows fused back into about \
                   2 HU steps between -20 and 104 HU, coarser outside; 650×650 resampled to 512×512",
        ),
        "rsna-png" => Known::new(
            "A. E. Flanders et al.: Construction of a Machine Learning Dataset through Collaboration: The RSNA \
                       2019 Brain CT Hemorrhage Challenge. Radiology: Artificial Intelligence 2(3), 2020.",
            "RSNA challenge data: non-commercial use, with citation of the challenge",
            "reconstructed HU: 224×224 brain-window PNG enlarged to 512×512, clipped to 0 to 80 HU",
        ),
        "head-ct-200" => Known::new(
            "F. Kitamura: Head CT - hemorrhage. Kaggle, 2018.",
            "as published on Kaggle",
            "reconstructed HU: web figures of all sizes with burned-in marks, clipped to 0 to 80 HU",
        ),
        "phe-sich" => Known::new(
            "Ma et al.: PHE-SICH-CT-IDS, CT images of spontaneous intracerebral hemorrhage with perihematomal edema, 2024.",
            "non-commercial use, with citation",
            "reconstructed HU: 8-bit brain-window pictures of another hospital's spontaneous bleeds of the basal ganglia and \
                   thalamus; level assumed, bone saturated; all patients bleed",
        ),
        "bhsd-mini" => Known::new(
            "B. Wu et al.: BHSD, a 3D Multi-Class Brain Hemorrhage Segmentation Dataset, 2023, made of RSNA 2019 images: \
                       A. E. Flanders et al.: Construction of a Machine Learning Dataset through Collaboration: The RSNA 2019 Brain CT \
                       Hemorrhage Challenge. Radiology: Artificial Intelligence 2(3), 2020.",
            "RSNA challenge data: non-commercial use, with citation of both",
            "reconstructed HU: grey values taken as 0 to 255 HU; all slices bleed",
        ),
        PHANTOMS => Known::new(
            "Synthetic head CT made by this project's own phantom generator.",
            "as this project",
            "no patients; trained on, with masks of their blood where the training asks for localization, so that \
                   filters learn what blood is and the demonstration's phantoms are judged; never part of a figure about patients",
        ),
        _ => return None,
    })
}

/// A folder of `synthesize`, whatever it is called.
pub(super) fn synthetic() -> Known {
    Known::new(
        "Bleeds, and what looks like them, drawn by this project's own program into heads without hemorrhage of the other \
                   sources.",
        "those of the sources that the heads are of",
        "no patients, though made of some: a network is never trained on one that is made of a patient it is measured on; \
               never part of a figure about patients",
    )
}

/// One source's part in a model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Source {
    pub source: String,
    pub patients: usize,
    pub slices: usize,
    pub positive_slices: usize,
    pub role: String,
    pub citation: String,
    pub terms: String,
    pub note: String,
}

/// The terms of the sources whose heads a source's synthetic patients were made of: they hold for what is drawn into those heads, too.
pub(super) fn terms_of_origins(slices: &[&Slice]) -> Vec<String> {
    let patients = slices.iter().filter_map(|slice| slice.origin.as_ref()).map(|origin| origin.patient.as_str());
    let folders: BTreeSet<&str> = patients.filter_map(|patient| Some(patient.split_once('/')?.0)).collect();
    folders
        .into_iter()
        .map(|folder| format!("{folder}: {}", known(folder).map_or(NOT_RECORDED.into(), |known| known.terms)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Origin, example};

    #[test]
    fn what_a_folder_says_of_itself_counts_before_what_is_known_of_its_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let slice = Slice { file: folder.path().join("stage_2_train/ID_a.dcm"), ..example("a") };
        let terms = |name: &str| facts(name, &[&slice]).map(|known| known.terms);
        assert!(terms("ct-ich").is_some_and(|terms| terms.starts_with("Creative Commons")));
        assert_eq!(terms("ours"), None);
        std::fs::write(folder.path().join("source.toml"), "terms = \"ours alone\"\n").expect("written");
        assert_eq!((terms("ct-ich"), terms("ours")), (Some("ours alone".into()), Some("ours alone".into())));
    }

    #[test]
    fn heads_keep_the_terms_of_their_source() {
        let of = |origin: &str| {
            let origin = Some(Origin { patient: origin.into(), study: None });
            Slice { origin, ..example("one") }
        };
        let slices = [of("phe-sich/1"), of("ct-ich/7"), of("phe-sich/2"), of("ours/1")];
        let terms = terms_of_origins(&slices.each_ref());
        assert_eq!(terms.len(), 3, "{terms:?}");
        assert!(terms[0].starts_with("ct-ich: Creative Commons") && terms[1] == "ours: not recorded", "{terms:?}");
        assert_eq!(terms[2], "phe-sich: non-commercial use, with citation");
    }
}
