//! From a model's answer about a slice to the box that people see.

use super::lane::Answer;
use crate::ledger::{Location, StoredMap};
use triaged_imaging::Placement;
use triaged_model::ModelCard;

/// Where in its slice the finding is. Only for a suspicious slice: one that is positive, or as probable as the study rule asks of
/// a study. A map of a slice in which nothing is seen has a maximum, too, and a box around that would mislead.
pub(super) fn locate(card: &ModelCard, answer: &Answer, placement: &Placement) -> Option<Location> {
    let map = answer.heat_map.as_ref()?;
    if answer.probability < card.slice_threshold.min(card.study_rule.threshold()) {
        return None;
    }
    let pixel_box = map.locate(placement)?;
    let (rows, columns) = placement.frame_size();
    let covers = placement.covers();
    let (values, map_rows, map_columns) =
        placement.turned_back(map.to_bytes(), map.rows() as u32, map.columns() as u32);
    Some(Location { pixel_box, rows, columns, map: StoredMap { rows: map_rows, columns: map_columns, values, covers } })
}
