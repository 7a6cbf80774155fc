//! Contradictions in a labelled folder.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::publication::SIDE;

/// Things that did not fit together. None of them stops an index; each is counted, listed and, but for images that are resized and
/// patients that are joined, left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problems {
    /// Rows that repeat an earlier one.
    pub duplicate_rows: usize,
    /// Ids with both labels, or with a kind of hemorrhage and none of any kind.
    pub contradictory: Vec<String>,
    pub labels_without_file: Vec<String>,
    pub files_without_label: Vec<String>,
    /// File and reason.
    pub unreadable: Vec<(PathBuf, String)>,
    /// Images of another size than 512×512 that are kept: file, rows and columns.
    #[serde(default)]
    pub resized: Vec<(PathBuf, [u32; 2])>,
    /// Images of another size than 512×512 that are left out.
    #[serde(default)]
    pub discarded: Vec<(PathBuf, [u32; 2])>,
    /// Patients with a study that stands under several Patient IDs, or partly under none: they count as one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub joined: Vec<String>,
}

impl Problems {
    /// One line for each kind that occurred, with the first few names.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.duplicate_rows > 0 {
            lines.push(format!("{} label rows repeat an earlier one", self.duplicate_rows));
        }
        for (what, names) in [
            ("slices have labels that contradict each other and are left out", &self.contradictory),
            ("labels have no image and are left out", &self.labels_without_file),
            ("images have no label and are left out", &self.files_without_label),
        ] {
            if !names.is_empty() {
                lines.push(format!("{} {what}: {}", names.len(), few(names)));
            }
        }
        if !self.unreadable.is_empty() {
            let names: Vec<String> =
                self.unreadable.iter().map(|(file, why)| format!("{} ({why})", file.display())).collect();
            lines.push(format!("{} images cannot be read and are left out: {}", names.len(), few(&names)));
        }
        if !self.joined.is_empty() {
            let (count, names) = (self.joined.len(), few(&self.joined));
            lines.push(format!("{count} patients have a study under several Patient IDs, or partly under none, and count as one: {names}"));
        }
        for (what, images) in [("are resized", &self.resized), ("are left out", &self.discarded)] {
            if !images.is_empty() {
                let name = |(file, [rows, columns]): &(PathBuf, [u32; 2])| {
                    format!("{} ({rows}×{columns})", file.file_stem().unwrap_or_default().to_string_lossy())
                };
                let names: Vec<String> = images.iter().map(name).collect();
                lines.push(format!("{} images are not {SIDE}×{SIDE} and {what}: {}", names.len(), few(&names)));
            }
        }
        lines
    }
}

/// The first five of some names.
pub fn few(names: &[String]) -> String {
    let shown = names.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > 5 { format!("{shown}, …") } else { shown }
}
