//! A slice's neighbours in its series, which a network may get as further channels.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::index::{Index, Slice};

/// The slices before and after each one. A patient is one series here: the data sets have one each.
#[derive(Debug, Clone)]
pub struct Neighbours(HashMap<PathBuf, [PathBuf; 2]>);

#[derive(Debug, thiserror::Error)]
#[error("the images of {patient} do not say where they lie: their neighbours are not known")]
pub struct NoOrder {
    pub patient: String,
}

impl Neighbours {
    /// By the positions in the index; beyond the ends of a series the slice stands for itself.
    ///
    /// # Errors
    /// [`NoOrder`] for a patient of several slices one of which has no position.
    pub fn of(index: &Index) -> Result<Self, NoOrder> {
        let mut neighbours = HashMap::new();
        for (patient, mut slices) in index.patients() {
            if slices.len() > 1 && slices.iter().any(|slice| slice.position.is_none()) {
                return Err(NoOrder { patient: patient.into() });
            }
            slices.sort_by_key(|slice| slice.position);
            let file = |place: Option<&&Slice>, own: &Slice| place.map_or(own, |slice| slice).file.clone();
            for (place, own) in slices.iter().enumerate() {
                let before = place.checked_sub(1).and_then(|before| slices.get(before));
                neighbours.insert(own.file.clone(), [file(before, own), file(slices.get(place + 1), own)]);
            }
        }
        Ok(Self(neighbours))
    }

    /// The files before and after one.
    pub fn around(&self, file: &Path) -> Option<&[PathBuf; 2]> {
        self.0.get(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Problems;

    fn slice(patient: &str, file: &str, position: Option<i64>) -> Slice {
        Slice {
            id: file.into(),
            source: "a".into(),
            patient: patient.into(),
            positive: false,
            file: file.into(),
            mask: None,
            size: None,
            position,
        }
    }

    #[test]
    fn neighbours_are_those_along_the_body_and_the_ends_their_own() {
        let slices = vec![
            slice("p", "middle", Some(5)),
            slice("q", "alone", None),
            slice("p", "low", Some(-5)),
            slice("p", "high", Some(15)),
        ];
        let neighbours = Neighbours::of(&Index { slices, problems: Problems::default() }).expect("an order");
        let around =
            |file: &str| neighbours.around(Path::new(file)).expect("known").clone().map(|f| f.display().to_string());
        assert_eq!(around("middle"), ["low", "high"]);
        assert_eq!(
            (around("low"), around("high")),
            (["low".into(), "middle".into()], ["middle".into(), "high".into()])
        );
        assert_eq!(around("alone"), ["alone", "alone"]);
        assert!(neighbours.around(Path::new("other")).is_none());
        let slices = vec![slice("p", "low", Some(1)), slice("p", "lost", None)];
        let lost = Neighbours::of(&Index { slices, problems: Problems::default() }).expect_err("no order");
        assert!(lost.to_string().contains("images of p do not say"), "{lost}");
    }
}
