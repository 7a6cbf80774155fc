//! Series of scored slices, as the sequence network is trained and measured on them.

use std::collections::BTreeMap;

use triaged_model::{SAME_PLACE_MM, SeriesInput, SeriesPlace};

use crate::calibration::Platt;
use crate::data::Slice;

/// A series of a patient, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    pub patient: String,
    pub study: Option<String>,
    pub slices: Vec<Scored>,
}

/// A slice of a series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    /// Along the normal, in mm; none where the index knows an order at most.
    pub position: Option<f64>,
    /// The slice network's own probability, not calibrated.
    pub probability: f64,
    pub positive: bool,
}

impl Series {
    /// The series of scored slices, in the order of patient, study and series.
    pub fn group<'a>(scored: impl IntoIterator<Item = (&'a Slice, f64)>) -> Vec<Series> {
        type Key<'a> = (&'a str, Option<&'a str>, Option<&'a str>);
        let mut found: BTreeMap<Key<'_>, Vec<(&Slice, f64)>> = BTreeMap::new();
        for (slice, probability) in scored {
            let key = (slice.patient.as_str(), slice.study.as_deref(), slice.series.as_deref());
            found.entry(key).or_default().push((slice, probability));
        }
        let series = |((patient, study, _), mut slices): (Key<'_>, Vec<(&Slice, f64)>)| {
            slices.sort_by_key(|(slice, _)| (slice.position.is_none(), slice.position, &slice.id));
            let in_mm = lies_in_micrometers(&slices.iter().filter_map(|(slice, _)| slice.position).collect::<Vec<_>>());
            let scored = |(slice, probability): &(&Slice, f64)| Scored {
                position: slice.position.filter(|_| in_mm).map(|position| position as f64 / 1000.0),
                probability: *probability,
                positive: slice.positive,
            };
            let slices = slices.iter().map(scored).collect();
            Series { patient: patient.into(), study: study.map(str::to_owned), slices }
        };
        found.into_iter().map(series).collect()
    }

    /// As the network gets it, of calibrated probabilities.
    pub fn input(&self, calibration: Option<&Platt>, spacing_mm: f64) -> SeriesInput {
        let place = |slice: &Scored| SeriesPlace {
            position: slice.position,
            probability: Some(calibration.map_or(slice.probability, |platt| platt.apply(slice.probability))),
        };
        SeriesInput::new(&[self.slices.iter().map(place).collect()], spacing_mm)
    }

    pub fn is_positive(&self) -> bool {
        self.slices.iter().any(|slice| slice.positive)
    }
}

/// Whether positions, in order, are micrometers and not instance numbers: the index keeps either, for their order. Places lie at
/// least [`SAME_PLACE_MM`] apart, instance numbers 1.
fn lies_in_micrometers(positions: &[i64]) -> bool {
    let mut steps: Vec<i64> = positions.windows(2).map(|pair| pair[1] - pair[0]).filter(|step| *step > 0).collect();
    steps.sort_unstable();
    steps.get(steps.len() / 2).is_some_and(|usual| *usual as f64 >= 1000.0 * SAME_PLACE_MM)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(id: usize, series: &str, position: Option<i64>) -> Slice {
        Slice {
            id: format!("ID_{id}"),
            source: "a".into(),
            patient: "a/P".into(),
            study: Some("1".into()),
            series: Some(series.into()),
            instance: None,
            positive: id == 2,
            file: "x".into(),
            mask: None,
            size: None,
            position,
            origin: None,
        }
    }

    #[test]
    fn slices_stand_in_the_order_of_their_places_a_series_each() {
        let slices = [slice(1, "1", Some(10_000)), slice(2, "1", Some(5_000)), slice(3, "2", Some(7_000))];
        let found = Series::group(slices.iter().zip([0.1, 0.2, 0.3]));
        assert_eq!(found.len(), 2);
        let places: Vec<(Option<f64>, f64)> = found[0].slices.iter().map(|s| (s.position, s.probability)).collect();
        assert_eq!(places, [(Some(5.0), 0.2), (Some(10.0), 0.1)]);
        assert!(found[0].is_positive() && !found[1].is_positive());
        // A slice alone lies anywhere.
        assert_eq!(found[1].slices[0].position, None);
    }

    #[test]
    fn instance_numbers_are_an_order_and_no_place() {
        let slices: Vec<Slice> = [3, 1, 2].iter().map(|&n| slice(n, "1", Some(n as i64))).collect();
        let found = Series::group(slices.iter().zip([0.3, 0.1, 0.2]));
        assert!(found[0].slices.iter().all(|slice| slice.position.is_none()));
        assert_eq!(found[0].slices.iter().map(|slice| slice.probability).collect::<Vec<_>>(), [0.1, 0.2, 0.3]);
        assert_eq!(found[0].input(None, 5.0).len(), 3, "a bin each");
        let raised = found[0].input(Some(&Platt { a: 1.0, b: 8.0 }), 5.0);
        assert!(raised.values()[..3].iter().all(|logit| *logit > 5.0), "calibrated");
    }
}
