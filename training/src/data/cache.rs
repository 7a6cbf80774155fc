//! From a file to the model's input, through the node's own imaging code, and an optional folder of decoded slices so
//! that epochs after the first are not bound by decoding.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use triaged_imaging::{self as imaging, HeadCrop, Normalization, Transform, Turn};

use super::context::{Neighbours, NoOrder};
use super::mask::{self, Way};

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("{} {source}", source.path.display())]
    Read {
        #[from]
        source: imaging::ReadError,
    },
    #[error("cannot decode {file}: {source}")]
    Decode { file: PathBuf, source: imaging::ImagingError },
    #[error("cannot read the mask {path}: {source}")]
    Mask { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    NoOrder(#[from] NoOrder),
    #[error("{file} is not in the index that neighbours were looked up in")]
    NoNeighbours { file: PathBuf },
    #[error("cannot keep decoded slices in {folder}: {source}")]
    Cache { folder: PathBuf, source: std::io::Error },
}

/// Decodes slices, and remembers them in a folder if it has one: 4 bytes a value, 1 MiB a slice of 512×512, in 256 folders by
/// the beginning of their names, so that none has more than some thousands even of RSNA's 752,803. What the folder holds is found by the file's path, length and time of change and by the transform, so a changed file or
/// transform is decoded anew. A normalization is not part of what is kept: augmentation comes before it.
#[derive(Debug, Clone)]
pub struct Cache {
    /// Without the normalization.
    transform: Transform,
    normalization: Option<Normalization>,
    folder: Option<PathBuf>,
    neighbours: Option<Arc<Neighbours>>,
}

impl Cache {
    /// # Errors
    /// [`LoadError::Cache`] where the folder cannot be made.
    pub fn new(transform: Transform, folder: Option<PathBuf>) -> Result<Self, LoadError> {
        if let Some(folder) = &folder {
            fs::create_dir_all(folder).map_err(|source| LoadError::Cache { folder: folder.clone(), source })?;
        }
        let normalization = transform.normalization();
        Ok(Self { transform: transform.windowed(), normalization, folder, neighbours: None })
    }

    /// A cache that gives each slice with those before and after it: three times the channels, the slice's own in the
    /// middle.
    pub fn with_neighbours(self, neighbours: Neighbours) -> Self {
        Self { neighbours: Some(Arc::new(neighbours)), ..self }
    }

    pub fn shape(&self) -> [usize; 3] {
        let [channels, height, width] = self.transform.shape();
        [if self.neighbours.is_some() { 3 * channels } else { channels }, height, width]
    }

    /// The model's input for the first frame of a file.
    pub fn input(&self, file: &Path) -> Result<Vec<f32>, LoadError> {
        let mut input = self.load(file)?;
        self.normalize(&mut input);
        Ok(input)
    }

    /// Makes the model's input of what [`load`](Self::load) gave.
    pub fn normalize(&self, values: &mut [f32]) {
        if let Some(normalization) = self.normalization {
            normalization.apply(values);
        }
    }

    /// The model's input for the first frame of a file before it is normalized, where it is.
    pub fn load(&self, file: &Path) -> Result<Vec<f32>, LoadError> {
        let Some(neighbours) = &self.neighbours else { return self.load_one(file) };
        let [before, after] = neighbours.around(file).ok_or_else(|| LoadError::NoNeighbours { file: file.into() })?;
        Ok([self.load_one(before)?, self.load_one(file)?, self.load_one(after)?].concat())
    }

    /// One file's part of the input.
    fn load_one(&self, file: &Path) -> Result<Vec<f32>, LoadError> {
        let place = self.folder.as_ref().and_then(|folder| Some(place_of(folder, &self.key(file)?)));
        let count = self.transform.shape().iter().product::<usize>();
        if let Some(values) = place.as_ref().and_then(|place| kept(place, count)) {
            return Ok(values);
        }
        let object = imaging::read_file(file)?;
        let input = imaging::model_input(&object, 0, &self.transform)
            .map_err(|source| LoadError::Decode { file: file.into(), source })?;
        if let (Some(place), Some(folder)) = (place, &self.folder) {
            keep(&place, &input.data).map_err(|source| LoadError::Cache { folder: folder.clone(), source })?;
        }
        Ok(input.data)
    }

    /// A slice's mask of blood at the input's height and width, gone the way of the slice's image.
    pub fn mask(&self, file: &Path, mask: &Path) -> Result<Vec<f32>, LoadError> {
        let [_, height, width] = self.shape();
        let (way, place) = match self.transform.crop_to_head() {
            None => (Way { turn: turn(file)?, crop: None }, None),
            Some(crop) => {
                let keys = self.folder.as_ref().and_then(|_| Some((self.key(file)?, self.key(mask)?)));
                let place = self.folder.as_ref().zip(keys).map(|(folder, (image, mask))| {
                    // Of both: the image says where the head is.
                    place_of(folder, &hex::encode(&Sha256::digest(format!("{image}{mask}"))[..16]))
                });
                if let Some(values) = place.as_ref().and_then(|place| kept(place, height * width)) {
                    return Ok(values);
                }
                (way(file, crop)?, place)
            }
        };
        let failed = |source| LoadError::Mask { path: mask.into(), source };
        let values = mask::read(mask, way, height, width).map_err(failed)?;
        if let (Some(place), Some(folder)) = (place, &self.folder) {
            keep(&place, &values).map_err(|source| LoadError::Cache { folder: folder.clone(), source })?;
        }
        Ok(values)
    }

    fn key(&self, file: &Path) -> Option<String> {
        let file = fs::canonicalize(file).ok()?;
        let about = fs::metadata(&file).ok()?;
        let transform = serde_json::to_string(&self.transform).ok()?;
        let text = format!("{}\n{}\n{:?}\n{transform}", file.display(), about.len(), about.modified().ok()?);
        Some(hex::encode(&Sha256::digest(text)[..16]))
    }
}

/// The file of a key in the cache.
fn place_of(folder: &Path, key: &str) -> PathBuf {
    folder.join(&key[..2]).join(format!("{key}.f32"))
}

/// What brings an image upright.
fn turn(file: &Path) -> Result<Turn, LoadError> {
    Ok(Turn::of(&*imaging::read_header(file)?, 0))
}

/// Where an image is cropped: its file is decoded for that.
fn way(file: &Path, crop: HeadCrop) -> Result<Way, LoadError> {
    let object = imaging::read_file(file)?;
    let frame = imaging::decode_frame(&object, 0).map_err(|source| LoadError::Decode { file: file.into(), source })?;
    Ok(Way::of(&frame, Some(crop)))
}

/// The `count` values that were kept at a place.
fn kept(place: &Path, count: usize) -> Option<Vec<f32>> {
    let bytes = fs::read(place).ok().filter(|bytes| bytes.len() == 4 * count)?;
    let (values, _) = bytes.as_chunks::<4>();
    Some(values.iter().map(|value| f32::from_le_bytes(*value)).collect())
}

/// Written beside and renamed, so that a cut-off write is never read.
fn keep(place: &Path, values: &[f32]) -> std::io::Result<()> {
    let draft = place.with_extension(format!("{}.{:?}.draft", std::process::id(), std::thread::current().id()));
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    if let Some(folder) = place.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&draft, bytes)?;
    fs::rename(&draft, place)
}
