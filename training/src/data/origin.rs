//! Whom a synthetic patient was made of: a network that learned from the one must not be measured on the other.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The file of a folder of synthetic studies that says it, beside the labels: `patient,origin,origin_study`.
pub const ORIGINS: &str = "stage_2_origins.csv";

/// The Study Description of synthetic studies, by which they are known without that file.
pub const SYNTHETIC_STUDY: &str = "SYNTHETIC HEAD, NOT A PATIENT";

/// The patient, and the study where it has a UID, that a synthetic one was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// As [`Slice::patient`](super::Slice::patient) has it, the folder's name before it.
    pub patient: String,
    /// Study Instance UID: it tells the study again, whatever its folder is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub study: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Row {
    patient: String,
    origin: String,
    origin_study: String,
}

impl Origin {
    /// Whether it names this patient, or the study of this UID.
    pub fn names(&self, patient: &str, study: Option<&str>) -> bool {
        self.patient == patient || (self.study.is_some() && self.study.as_deref() == study)
    }

    /// Writes the file of a folder: each synthetic patient with the origin.
    ///
    /// # Errors
    /// As writing does.
    pub fn write<'a>(path: &Path, rows: impl Iterator<Item = (&'a str, &'a Origin)>) -> csv::Result<()> {
        let mut file = csv::Writer::from_path(path)?;
        for (patient, origin) in rows {
            let study = origin.study.clone().unwrap_or_default();
            file.serialize(Row { patient: patient.into(), origin: origin.patient.clone(), origin_study: study })?;
        }
        Ok(file.flush()?)
    }

    /// The origins of a folder by Patient ID; none where the folder has no such file.
    ///
    /// # Errors
    /// A file that cannot be read: without it a network could be measured on whom it was trained on.
    pub fn read(path: &Path) -> csv::Result<Option<BTreeMap<String, Origin>>> {
        if !path.exists() {
            return Ok(None);
        }
        let mut origins = BTreeMap::new();
        for row in csv::ReaderBuilder::new().trim(csv::Trim::All).from_path(path)?.deserialize() {
            let Row { patient, origin, origin_study } = row?;
            let study = (!origin_study.is_empty()).then_some(origin_study);
            origins.insert(patient, Origin { patient: origin, study });
        }
        Ok(Some(origins))
    }
}
