//! Where the finding is: a measurement group by TID 1410 for each of the most suspicious slices whose model says where.

use triaged_imaging::PixelBox;

use super::algorithm::algorithm;
use super::codes::{dcm, finding};
use super::content::{Item, Relationship};
use super::{Basis, uids};
use crate::ledger::EvidenceSlice;

/// The groups, the most suspicious slice first.
pub(super) fn groups(basis: &Basis<'_>) -> Vec<Item> {
    let with_box = basis.top().into_iter().filter_map(|slice| Some((slice, slice.pixel_box()?)));
    with_box.map(|(slice, pixel_box)| group(basis, slice, pixel_box)).collect()
}

fn group(basis: &Basis<'_>, slice: &EvidenceSlice, pixel_box: PixelBox) -> Item {
    // The same region of a later verdict has the same tracking UID: it is of the same slice.
    let frame = slice.frame.to_string();
    let tracking = uids::uid(&["region", &uids::identity(basis.first), &slice.series_uid, &slice.sop_uid, &frame]);
    let number = slice.instance_number.map_or_else(|| "without a number".into(), |number| number.to_string());
    let image = Item::image(None, &slice.sop_class_uid, &slice.sop_uid, slice.multi_frame.then_some(slice.frame));
    let region = Item::polyline(&dcm("111030", "Image Region"), &outline(pixel_box));
    let probability = slice.probability.map(|share| Item::percent(&dcm("111012", "Certainty of Finding"), share));
    Item::container(&dcm("125007", "Measurement Group"), Some("1410"))
        .with(
            Relationship::HasObservationContext,
            [
                Item::text(&dcm("112039", "Tracking Identifier"), &format!("region in instance {number}")),
                Item::uid(&dcm("112040", "Tracking Unique Identifier"), &tracking),
            ],
        )
        .with(Relationship::Contains, [Item::code(&dcm("121071", "Finding"), &finding(basis.finding))])
        .with(Relationship::HasConceptModifier, algorithm(basis.verdict))
        .with(Relationship::Contains, [region.with(Relationship::SelectedFrom, [image])])
        .with(Relationship::Contains, probability)
}

/// The corners as columns and rows, closed. The upper left corner of the image's first pixel is 0\0 (PS3.3 C.18.6.1.2).
fn outline(pixel_box: PixelBox) -> [[f32; 2]; 5] {
    let PixelBox { left, top, width, height } = pixel_box;
    let [left, top, right, bottom] = [left, top, left + width, top + height].map(|edge| edge as f32);
    [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outline_goes_around_whole_pixels_and_is_closed() {
        let outline = outline(PixelBox { left: 0, top: 10, width: 5, height: 2 });
        assert_eq!(outline, [[0.0, 10.0], [5.0, 10.0], [5.0, 12.0], [0.0, 12.0], [0.0, 10.0]]);
    }
}
