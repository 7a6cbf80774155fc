//! Why a folder gives no index.

use std::path::PathBuf;

use super::origin::ORIGINS;
use super::problems::Problems;

/// Why a folder gives no index.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    #[error("cannot read the labels {path}: {source}")]
    Labels { path: PathBuf, source: csv::Error },
    #[error("cannot read whom the synthetic patients were made of, {path}: {source}")]
    Origins { path: PathBuf, source: csv::Error },
    #[error(
        "{path} does not say whom the patient {patient} was made of: a network that learns from them could be measured on that one"
    )]
    NoOrigin { path: PathBuf, patient: String },
    #[error(
        "{folder} holds synthetic studies and no {ORIGINS}, which says whom they were made of: a network that learns from them could be \
         measured on those. Copy it from where the folder was made"
    )]
    NoOrigins { folder: PathBuf },
    #[error("{path} does not say the source's citation, terms and note: {why}")]
    About { path: PathBuf, why: String },
    #[error("{path} line {line}: {why}")]
    Row { path: PathBuf, line: u64, why: String },
    #[error("cannot list the images in {path}: {source}")]
    Images { path: PathBuf, source: std::io::Error },
    #[error("{folder} is given twice: a slice would stand on two sides; give each folder once")]
    Twice { folder: PathBuf },
    #[error(
        "{first} and {second} are both called {name}, and slices are known by their folder's name; rename one, or give it \
         through a link of another name"
    )]
    SameName { first: PathBuf, second: PathBuf, name: String },
    #[error("{path} holds no slice that has both an image (*.dcm) and an `any` label{}", because(.problems))]
    Empty { path: PathBuf, problems: Box<Problems> },
}

fn because(problems: &Problems) -> String {
    let lines = problems.lines();
    if lines.is_empty() { String::new() } else { format!(": {}", lines.join("; ")) }
}
