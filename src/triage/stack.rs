//! The slices of a series in their places: in order along the body, each place once, with what is missing between them.
//!
//! Order comes from Image Position and Orientation. Where they are absent, instance numbers order the slices, and what is
//! missing between them cannot be seen.

use triaged_model::{MadeFor, SAME_PLACE_MM, SeriesInput, SeriesPlace};

use crate::ledger::{SliceEvidence, SliceState};

/// A series that shows its places so often follows something over time. Two or three kernels in one series show them two or
/// three times.
const DYNAMIC: usize = 4;

/// A place of a series, with the evidence of all slices that show it.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// Along the normal, in mm.
    pub position: Option<f64>,
    pub thickness: Option<f64>,
    /// The highest probability of its slices: the same place is not counted twice, and more evidence never lowers it.
    pub probability: Option<f64>,
    pub positive: bool,
    /// How many slices show it.
    pub slices: usize,
    /// A slice was received whose pixels are not those of a head.
    pub is_no_head: bool,
}

/// The places of a series, in order.
#[derive(Debug, Clone, Default)]
pub struct Stack {
    /// One list an orientation.
    pub parts: Vec<Vec<Place>>,
}

impl Stack {
    /// Orders the slices of one series that may be of a head. Those that the gate put out have no part in it.
    pub fn new(slices: &[&SliceEvidence]) -> Stack {
        let mut slices: Vec<&SliceEvidence> = slices.iter().copied().filter(|slice| slice.has_place()).collect();
        slices.sort_by(|a, b| {
            let position = |slice: &SliceEvidence| slice.position.unwrap_or(f64::INFINITY);
            let number = |slice: &SliceEvidence| (slice.instance_number.unwrap_or(i64::MAX), slice.frame);
            a.orientation.cmp(&b.orientation).then(position(a).total_cmp(&position(b))).then(number(a).cmp(&number(b)))
        });
        let mut stack = Stack::default();
        let mut orientation = None;
        for slice in slices {
            if stack.parts.is_empty() || orientation != Some(&slice.orientation) {
                orientation = Some(&slice.orientation);
                stack.parts.push(Vec::new());
            }
            let part = stack.parts.last_mut().expect("one was just pushed");
            let is_same = |last: &&mut Place| match (last.position, slice.position) {
                (Some(last), Some(this)) => this - last < SAME_PLACE_MM,
                _ => false,
            };
            match part.last_mut().filter(is_same) {
                Some(place) => place.add(slice),
                None => {
                    let mut place = Place {
                        position: slice.position,
                        thickness: None,
                        probability: None,
                        positive: false,
                        slices: 0,
                        is_no_head: true,
                    };
                    place.add(slice);
                    part.push(place);
                }
            }
        }
        stack
    }

    /// The probabilities of the places that have one, in order.
    pub fn probabilities(&self) -> Vec<f64> {
        self.places().filter_map(|place| place.probability).collect()
    }

    /// As a sequence network gets it.
    pub fn series_input(&self, spacing_mm: f64) -> SeriesInput {
        let place = |place: &Place| SeriesPlace { position: place.position, probability: place.probability };
        let parts: Vec<Vec<SeriesPlace>> = self.parts.iter().map(|part| part.iter().map(place).collect()).collect();
        SeriesInput::new(&parts, spacing_mm)
    }

    pub fn positives(&self) -> usize {
        self.places().filter(|place| place.positive).count()
    }

    fn places(&self) -> impl Iterator<Item = &Place> {
        self.parts.iter().flatten()
    }

    /// The places of a head, scored or to be scored.
    fn of_head(&self) -> impl Iterator<Item = &Place> {
        self.places().filter(|place| !place.is_no_head)
    }

    /// Why the series is too short to leave a study unflagged; what a longer series of the study makes good.
    pub fn too_short(&self, card: &MadeFor) -> Vec<String> {
        let mut said = Vec::new();
        let count = self.of_head().count();
        if count < card.min_slices as usize {
            said.push(format!("{}, at least {} are needed", slices(count), card.min_slices));
        }
        if let Some(coverage) = self.coverage()
            && coverage < card.min_coverage_mm - 0.5
        {
            said.push(format!("{coverage:.0} mm covered, at least {:.0} mm are needed", card.min_coverage_mm));
        }
        said
    }

    /// Why the slices themselves cannot leave a study unflagged: too thick or too far apart.
    pub fn too_coarse(&self, card: &MadeFor) -> Vec<String> {
        let mut said = Vec::new();
        let thickest = self.of_head().filter_map(|place| place.thickness).fold(0.0, f64::max);
        if thickest > card.max_thickness_mm + 0.05 {
            said.push(format!("slices {thickest:.1} mm thick, at most {:.1} mm are allowed", card.max_thickness_mm));
        }
        let apart = self.parts.iter().filter_map(|part| median(steps(part).map(|step| step.length).collect()));
        let apart = apart.fold(0.0, f64::max);
        if apart > card.max_spacing_mm + 0.05 {
            said.push(format!("slices {apart:.1} mm apart, at most {:.1} mm are allowed", card.max_spacing_mm));
        }
        said
    }

    /// Why the series is none of one moment: it shows each place again and again, as a perfusion study does that does not say
    /// so.
    pub fn dynamic(&self) -> Option<String> {
        let mut counts: Vec<usize> = self.of_head().map(|place| place.slices).collect();
        counts.sort_unstable();
        let usual = counts.get(counts.len() / 2).copied().unwrap_or(0);
        (usual >= DYNAMIC).then(|| format!("each place was imaged {usual} times, as in perfusion"))
    }

    /// Whether slices are thinner than the card's least thickness.
    pub fn too_thin(&self, card: &MadeFor) -> Option<String> {
        let thinnest = self.of_head().filter_map(|place| place.thickness).fold(f64::INFINITY, f64::min);
        (thinnest < card.min_thickness_mm - 0.05).then(|| format!("slices {thinnest:.1} mm thick"))
    }

    /// The gaps of the stack, in words.
    pub fn gaps(&self) -> Vec<String> {
        let gap = |step: &Step| format!("nothing between {:.1} and {:.1} mm", step.from, step.from + step.length);
        self.parts.iter().flat_map(|part| gaps(part).iter().map(gap).collect::<Vec<_>>()).collect()
    }

    /// How much of the body's length the places of a head cover, in mm; none where positions are absent.
    pub fn coverage(&self) -> Option<f64> {
        let mut covered = None;
        for part in &self.parts {
            let heads: Vec<&Place> = part.iter().filter(|place| !place.is_no_head).collect();
            let positions: Vec<f64> = heads.iter().filter_map(|place| place.position).collect();
            if positions.len() < heads.len() {
                return None;
            }
            if let (Some(first), Some(last)) = (positions.first(), positions.last()) {
                let usual = median(steps(part).map(|step| step.length).collect()).unwrap_or(0.0);
                let thickness = heads.iter().filter_map(|place| place.thickness).fold(0.0, f64::max).max(usual);
                covered = Some(covered.unwrap_or(0.0) + last - first + thickness);
            }
        }
        covered
    }
}

impl Place {
    fn add(&mut self, slice: &SliceEvidence) {
        self.slices += 1;
        if let SliceState::Scored { probability, positive } = slice.state {
            self.probability = Some(self.probability.map_or(probability, |most| most.max(probability)));
            self.positive |= positive;
        }
        self.is_no_head &= matches!(slice.state, SliceState::NoHead);
        self.thickness = self.thickness.into_iter().chain(slice.thickness).reduce(f64::max);
    }
}

/// From a place to the next.
struct Step {
    from: f64,
    length: f64,
    /// The greater thickness of the two.
    thickness: Option<f64>,
}

fn steps(part: &[Place]) -> impl Iterator<Item = Step> + '_ {
    part.windows(2).filter_map(|pair| {
        let (from, to) = (pair[0].position?, pair[1].position?);
        let thickness = pair[0].thickness.into_iter().chain(pair[1].thickness).reduce(f64::max);
        Some(Step { from, length: to - from, thickness })
    })
}

/// Steps that are too long for what is around them. Spacing may change within a series (4 mm at the skull base, 7 mm above), so
/// a step is compared with the three on each side and with the thickness of its slices, not with the whole series.
fn gaps(part: &[Place]) -> Vec<Step> {
    let lengths: Vec<f64> = steps(part).map(|step| step.length).collect();
    let mut sorted = lengths.clone();
    sorted.sort_by(f64::total_cmp);
    let usual_least = sorted.get(sorted.len() / 4).copied().unwrap_or(0.0);
    let is_gap = |index: usize, step: &Step| {
        let before = median(lengths[index.saturating_sub(3)..index].to_vec());
        let after = median(lengths[(index + 1).min(lengths.len())..(index + 4).min(lengths.len())].to_vec());
        let around = before.into_iter().chain(after).fold(step.thickness.unwrap_or(0.0), f64::max);
        // Alone between two places, or within a series that is else contiguous.
        let longer = around > 0.0 && step.length > 1.5 * around + 0.5;
        let open = step.thickness.is_some_and(|thick| step.length > 1.5 * thick + 0.5 && usual_least <= 1.2 * thick);
        longer || open
    };
    steps(part).enumerate().filter(|(index, step)| is_gap(*index, step)).map(|(_, step)| step).collect()
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// `1 slice`, `2 slices`.
pub(super) fn slices(count: usize) -> String {
    format!("{count} slice{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(position: Option<f64>, thickness: Option<f64>, probability: f64) -> SliceEvidence {
        SliceEvidence {
            series_uid: "1".into(),
            state: SliceState::Scored { probability, positive: probability >= 0.5 },
            reason: None,
            instance_number: Some(1),
            frame: 1,
            position,
            orientation: Some("0,0,50".into()),
            thickness,
            doubts: None,
            is_substitute: false,
        }
    }

    fn stack(positions: &[f64], thickness: Option<f64>) -> Stack {
        let slices: Vec<SliceEvidence> = positions.iter().map(|z| slice(Some(*z), thickness, 0.1)).collect();
        Stack::new(&slices.iter().collect::<Vec<_>>())
    }

    fn every(mm: f64, count: usize) -> Vec<f64> {
        (0..count).map(|index| index as f64 * mm).collect()
    }

    #[test]
    fn a_place_counts_once_with_its_highest_probability() {
        let slices = [slice(Some(5.0), None, 0.9), slice(Some(0.0), None, 0.2), slice(Some(5.05), None, 0.4)];
        let stack = Stack::new(&slices.iter().collect::<Vec<_>>());
        assert_eq!(stack.probabilities(), [0.2, 0.9]);
        assert_eq!(stack.positives(), 1);
    }

    #[test]
    fn a_series_that_shows_each_place_again_and_again_is_dynamic() {
        let times = |times: usize| stack(&every(5.0, 16).repeat(times), Some(5.0)).dynamic();
        assert_eq!((times(1), times(3)), (None, None));
        assert_eq!(times(30).as_deref(), Some("each place was imaged 30 times, as in perfusion"));
        let mut one_again = every(5.0, 30);
        one_again.extend([50.0; 9]);
        assert_eq!(stack(&one_again, Some(5.0)).dynamic(), None, "one place came often");
    }

    #[test]
    fn order_is_that_of_the_positions() {
        let mut slices: Vec<SliceEvidence> =
            [3.0, 1.0, 2.0].map(|z| slice(Some(z), None, z / 10.0)).into_iter().collect();
        assert_eq!(Stack::new(&slices.iter().collect::<Vec<_>>()).probabilities(), [0.1, 0.2, 0.3]);
        for (number, slice) in (1..).zip(&mut slices) {
            (slice.position, slice.instance_number) = (None, Some(number));
        }
        assert_eq!(Stack::new(&slices.iter().collect::<Vec<_>>()).probabilities(), [0.3, 0.1, 0.2]);
    }

    #[test]
    fn a_missing_slice_is_a_gap_and_a_change_of_spacing_is_none() {
        for thickness in [None, Some(5.0)] {
            assert!(stack(&every(5.0, 30), thickness).gaps().is_empty());
            for missing in [1, 2, 14, 27, 28] {
                let mut positions = every(5.0, 30);
                positions.remove(missing);
                assert_eq!(stack(&positions, thickness).gaps().len(), 1, "without {missing}, {thickness:?}");
            }
            let mut two = every(5.0, 30);
            two.retain(|z| ![50.0, 60.0].contains(z));
            assert_eq!(stack(&two, thickness).gaps().len(), 2, "{thickness:?}");
        }
        let mixed: Vec<f64> = every(4.0, 14).into_iter().chain((1..15).map(|n| 52.0 + 7.0 * f64::from(n))).collect();
        assert!(stack(&mixed, None).gaps().is_empty());
        // Half of the slices of a contiguous acquisition did not come.
        let half: Vec<f64> = every(5.0, 10).into_iter().chain((0..10).map(|n| 55.0 + 10.0 * f64::from(n))).collect();
        assert!(!stack(&half, Some(5.0)).gaps().is_empty());
        // Every slice 5 mm thick and 10 mm from the next: an old protocol, as it was ordered.
        assert!(stack(&every(10.0, 14), Some(5.0)).gaps().is_empty());
    }

    #[test]
    fn short_and_coarse_series_are_told() {
        let card = MadeFor::default();
        assert!(stack(&every(5.0, 30), Some(5.0)).too_short(&card).is_empty());
        assert!(stack(&every(5.0, 19), None).too_short(&card).is_empty(), "the shortest of ct-ich");
        assert_eq!(
            stack(&every(5.0, 3), None).too_short(&card),
            ["3 slices, at least 8 are needed", "15 mm covered, at least 90 mm are needed"]
        );
        assert_eq!(stack(&[0.0], None).too_short(&card)[0], "1 slice, at least 8 are needed");
        assert!(stack(&every(5.0, 30), Some(5.0)).too_coarse(&card).is_empty());
        assert_eq!(stack(&every(25.0, 6), Some(25.0)).too_coarse(&card).len(), 2);
        let thin = MadeFor { min_thickness_mm: 2.0, ..card };
        assert_eq!(stack(&every(1.0, 150), Some(1.0)).too_thin(&thin).as_deref(), Some("slices 1.0 mm thick"));
    }

    #[test]
    fn slices_of_no_head_are_places_and_cover_nothing() {
        let mut slices: Vec<SliceEvidence> = every(5.0, 60).iter().map(|z| slice(Some(*z), Some(5.0), 0.1)).collect();
        slices.iter_mut().take(35).for_each(|slice| slice.state = SliceState::NoHead);
        slices[50].state = SliceState::NoHead;
        let stack = Stack::new(&slices.iter().collect::<Vec<_>>());
        assert!(stack.gaps().is_empty());
        assert_eq!(stack.coverage(), Some(125.0));
        assert_eq!(stack.probabilities().len(), 24);
    }

    #[test]
    fn without_positions_coverage_is_not_known() {
        let slices = [slice(None, Some(5.0), 0.1), slice(Some(1.0), Some(5.0), 0.1)];
        assert_eq!(Stack::new(&slices.iter().collect::<Vec<_>>()).coverage(), None);
    }
}
