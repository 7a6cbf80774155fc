//! Studies that the node would not leave unflagged, for they are not whole: they say nothing of a threshold.
//!
//! The node's gate looks at more than an index notes: thickness, tube voltage, age, contrast and kernel. Here a study is whole that has a
//! series with as many slices as the card asks for, which covers so much of the body as it asks for where the slices' places are known.

use std::collections::{BTreeMap, BTreeSet};

use triaged_model::MadeFor;

use crate::data::Slice;

/// A series that lies within so many units of its places is one whose places are instance numbers: in micrometers it is a centimeter.
const INSTANCE_NUMBERS: i64 = 10_000;

/// The slices of whole studies, and how many studies are not.
pub fn whole<'a>(slices: &'a [Slice], made_for: &MadeFor) -> (Vec<&'a Slice>, usize) {
    type Series<'a> = BTreeMap<Option<&'a str>, Vec<&'a Slice>>;
    let mut studies: BTreeMap<(&str, Option<&str>), Series> = BTreeMap::new();
    for slice in slices {
        let study = studies.entry((&slice.patient, slice.study.as_deref())).or_default();
        study.entry(slice.series.as_deref()).or_default().push(slice);
    }
    let is_whole = |series: &Vec<&Slice>| series.len() >= made_for.min_slices as usize && covers(series, made_for);
    let broken: BTreeSet<(&str, Option<&str>)> =
        studies.into_iter().filter(|(_, series)| !series.values().any(is_whole)).map(|(study, _)| study).collect();
    let of_whole = |slice: &&Slice| !broken.contains(&(slice.patient.as_str(), slice.study.as_deref()));
    (slices.iter().filter(of_whole).collect(), broken.len())
}

/// Whether a series covers what the card asks for, from the middle of its first slice to that of its last and one distance more; also where
/// its places are not known.
fn covers(series: &[&Slice], made_for: &MadeFor) -> bool {
    let mut places: Vec<i64> = series.iter().filter_map(|slice| slice.position).collect();
    places.sort_unstable();
    places.dedup();
    let (Some(first), Some(last)) = (places.first(), places.last()) else { return true };
    let between = last - first;
    if between < INSTANCE_NUMBERS {
        return true;
    }
    let step = between as f64 / (places.len() - 1) as f64;
    // Half a millimeter for roundings, as the node allows.
    (between as f64 + step) / 1000.0 >= made_for.min_coverage_mm - 0.5
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::example;

    #[test]
    fn a_study_of_few_slices_or_of_a_part_of_the_head_is_not_whole() {
        let stack = |study: &str, count: i64, step: i64| -> Vec<Slice> {
            let slice =
                |i: i64| Slice { patient: study.into(), position: Some(i * step), ..example(&format!("{study}{i}")) };
            (0..count).map(slice).collect()
        };
        let slices =
            [stack("whole", 20, 5000), stack("few", 7, 20_000), stack("part", 10, 5000), stack("numbered", 8, 1)]
                .concat();
        let (kept, left) = whole(&slices, &MadeFor::default());
        let names: BTreeSet<&str> = kept.iter().map(|slice| slice.patient.as_str()).collect();
        assert_eq!((names.into_iter().collect::<Vec<_>>(), left), (vec!["numbered", "whole"], 2));
    }
}
