//! The files of studies, for channels that send images or what is made of them.

use std::path::PathBuf;

use crate::ledger::Ledger;

/// A narrow view of the archive for channels.
pub trait StudyFiles: Send + Sync {
    /// The study's instances whose files the archive holds, by series and instance number. Blocks.
    fn files(&self, study_uid: &str) -> Result<Vec<StudyFile>, String>;
}

/// An instance of a study and its Part 10 file, to be read only. Retention may remove it at any moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StudyFile {
    pub series_uid: String,
    pub sop_uid: String,
    pub path: PathBuf,
}

/// The node's own archive.
pub struct ArchivedStudies {
    pub ledger: Ledger,
    pub data_dir: PathBuf,
}

impl StudyFiles for ArchivedStudies {
    fn files(&self, study_uid: &str) -> Result<Vec<StudyFile>, String> {
        let files = self.ledger.instance_files(study_uid).map_err(|error| error.to_string())?;
        let file = |file: crate::ledger::InstanceFile| StudyFile {
            series_uid: file.series_uid,
            sop_uid: file.sop_uid,
            path: self.data_dir.join(file.path),
        };
        Ok(files.into_iter().map(file).collect())
    }
}

/// For a process that has no archive at hand, such as `triaged check`.
pub struct NoFiles;

impl StudyFiles for NoFiles {
    fn files(&self, _: &str) -> Result<Vec<StudyFile>, String> {
        Ok(Vec::new())
    }
}
