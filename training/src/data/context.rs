//! A slice's neighbours in its series, which a network may get as further channels.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use super::index::{Index, Slice};

/// The slices before and after each one in its series; of slices that name no series, in their study or patient.
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
    /// [`NoOrder`] for a series of several slices one of which has no position.
    pub fn of(index: &Index) -> Result<Self, NoOrder> {
        let mut neighbours = HashMap::new();
        let mut series: BTreeMap<_, Vec<&Slice>> = BTreeMap::new();
        for slice in &index.slices {
            series.entry((slice.patient.as_str(), &slice.study, &slice.series)).or_default().push(slice);
        }
        for ((patient, ..), mut slices) in series {
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
            study: None,
            series: None,
            instance: None,
            positive: false,
            file: file.into(),
            mask: None,
            size: None,
            position,
            origin: None,
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
        // Another series of the same patient lies at the same places, and is not between them.
        let of =
            |series: &str, file, position| Slice { series: Some(series.into()), ..slice("p", file, Some(position)) };
        let slices = vec![of("thick", "a", 0), of("thin", "b", 1), of("thick", "c", 2), of("thin", "d", 3)];
        let neighbours = Neighbours::of(&Index { slices, problems: Problems::default() }).expect("an order");
        let around = |file: &str| neighbours.around(Path::new(file)).expect("known").clone();
        assert_eq!(around("a"), ["a", "c"].map(PathBuf::from));
        assert_eq!(around("d"), ["b", "d"].map(PathBuf::from));
        let slices = vec![slice("p", "low", Some(1)), slice("p", "lost", None)];
        let lost = Neighbours::of(&Index { slices, problems: Problems::default() }).expect_err("no order");
        assert!(lost.to_string().contains("images of p do not say"), "{lost}");
    }
}
