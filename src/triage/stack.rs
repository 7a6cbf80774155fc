//! The slices of a series in their places: in order along the body, each place once, with what is missing between them.
//!
//! Order comes from Image Position and Orientation. Where all have one Image Position, Slice Location says more. Where positions are absent,
//! instance numbers order the slices and tell what is missing between them.

use std::collections::BTreeMap;

use triaged_imaging::Shows;
use triaged_model::{MadeFor, SAME_PLACE_MM, SeriesInput, SeriesPlace};

use super::gate;
use crate::ledger::{SliceEvidence, SliceId, SliceState};

/// A series that shows its places so often follows something over time. Two or three kernels in one series show them two or
/// three times.
const DYNAMIC: usize = 4;

/// Slices without a head between slices of one, over at most so many mm: they show that head, with a part of its skull removed or cut off,
/// say. Over more than this the header told the truth of them, and one of the heads around is none.
const WITHIN_A_HEAD: f64 = 100.0;

/// So many slices are a head where nothing says how much of it they cover.
const MIN_UNPLACED: usize = 20;

/// So far must slices that show a head reach from the first to the last, in mm, for a series to be one of a head: a neck with the base of the
/// skull is none. Of 53 real series 51 reach over 90 mm or more.
const MIN_HEAD_MM: f64 = 45.0;

/// Slices that lie side by side are no further apart than so many times their thickness.
const APART: f64 = 1.5;

/// Of whatever there may be many, so many are told.
const MOST_TOLD: usize = 3;

/// Two stacks of different tilt that meet diverge to the front and the back. They are no gap up to so many mm more.
const SEAM: f64 = 10.0;

/// A place of a series, with the evidence of all slices that show it.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// Along the normal, in mm.
    pub position: Option<f64>,
    pub thickness: Option<f64>,
    /// The instance number of its first slice, if that is a whole object.
    pub number: Option<i64>,
    /// The highest probability of its slices: the same place is not counted twice, and more evidence never lowers it.
    pub probability: Option<f64>,
    pub positive: bool,
    /// How many slices show it.
    pub slices: usize,
    /// All its slices are of another part of the body by their header, and their pixels are not those of a head.
    pub is_no_head: bool,
    /// Those slices.
    pub no_head: Vec<SliceId>,
    /// What its pixels show; the most of its slices, none where they were not looked at.
    pub shows: Option<Shows>,
}

/// The places of a series, in order.
#[derive(Debug, Clone, Default)]
pub struct Stack {
    pub parts: Vec<Part>,
    /// The slices that the gate put out.
    left_out: Vec<LeftOut>,
    /// The instance numbers of all slices, those that the gate put out too, in order, each once. None where most share theirs with others:
    /// then they count no slices.
    numbers: Vec<i64>,
}

/// A slice that the gate put out.
#[derive(Debug, Clone)]
struct LeftOut {
    reason: String,
    position: Option<f64>,
    orientation: Option<String>,
}

/// Where a slice lies that the gate put out.
enum Lies {
    /// Where the series has no other slice.
    Alone,
    /// In a plane of its own (a localizer, a reformat), or where another slice was scored.
    Elsewhere,
    Unknown,
}

/// The places of one orientation, in order.
#[derive(Debug, Clone, Default)]
pub struct Part {
    pub places: Vec<Place>,
    orientation: Option<String>,
    /// How far its normal goes along the body (z) for each mm of its length; none where the orientation is absent.
    along: Option<f64>,
}

impl Stack {
    /// Orders the slices of one series that may be of a head. Those that the gate put out are no places of it.
    pub fn new(of_series: &[&SliceEvidence]) -> Stack {
        let mut slices: Vec<&SliceEvidence> = of_series.iter().copied().filter(|slice| slice.has_place()).collect();
        let orientations = orientations(of_series);
        let places = Places::of(&slices, &orientations);
        let known = |slice: &SliceEvidence| places.of_slice(slice);
        slices.sort_by(|a, b| {
            let position = |slice: &SliceEvidence| known(slice).unwrap_or(f64::INFINITY);
            let number = |slice: &SliceEvidence| (slice.instance_number.unwrap_or(i64::MAX), slice.frame);
            named(a, &orientations)
                .cmp(&named(b, &orientations))
                .then(position(a).total_cmp(&position(b)))
                .then(number(a).cmp(&number(b)))
        });
        let left_out = of_series.iter().filter(|slice| !slice.has_place()).map(|slice| LeftOut {
            reason: slice.reason.clone().unwrap_or_else(|| "no reason recorded".into()),
            position: known(slice),
            orientation: named(slice, &orientations).map(str::to_owned),
        });
        let mut stack = Stack { parts: Vec::new(), left_out: left_out.collect(), numbers: numbers(of_series) };
        let mut orientation = None;
        for slice in slices {
            if stack.parts.is_empty() || orientation != Some(named(slice, &orientations)) {
                orientation = Some(named(slice, &orientations));
                let along = named(slice, &orientations).and_then(along_the_body);
                stack.parts.push(Part {
                    places: Vec::new(),
                    orientation: orientation.flatten().map(str::to_owned),
                    along,
                });
            }
            let part = &mut stack.parts.last_mut().expect("one was just pushed").places;
            let is_same = |last: &&mut Place| match (last.position, known(slice)) {
                (Some(last), Some(this)) => this - last < SAME_PLACE_MM,
                _ => false,
            };
            match part.last_mut().filter(is_same) {
                Some(place) => place.add(slice),
                None => {
                    let mut place = Place {
                        position: known(slice),
                        thickness: None,
                        number: slice.instance_number,
                        probability: None,
                        positive: false,
                        slices: 0,
                        is_no_head: true,
                        no_head: Vec::new(),
                        shows: None,
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
        let parts: Vec<Vec<SeriesPlace>> =
            self.parts.iter().map(|part| part.places.iter().map(place).collect()).collect();
        SeriesInput::new(&parts, spacing_mm)
    }

    pub fn positives(&self) -> usize {
        self.places().filter(|place| place.positive).count()
    }

    fn places(&self) -> impl Iterator<Item = &Place> {
        self.parts.iter().flat_map(|part| &part.places)
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
        match self.coverage() {
            Some(coverage) if coverage < card.min_coverage_mm - 0.5 => {
                said.push(format!("{coverage:.0} mm covered, at least {:.0} mm are needed", card.min_coverage_mm));
            }
            None if count < MIN_UNPLACED => {
                said.push(format!(
                    "{} without position and thickness, at least {MIN_UNPLACED} are needed",
                    slices(count)
                ));
            }
            _ => {}
        }
        // What is short anyway is told once.
        if let Some(reach) = self.head_reach().filter(|reach| said.is_empty() && *reach < MIN_HEAD_MM) {
            said.push(format!("slices that show a head over {reach:.0} mm, at least {MIN_HEAD_MM:.0} mm are needed"));
        }
        said
    }

    /// How far slices that show a head reach along the body, from the first to the last, in mm; those without a position as far as they are
    /// thick. None where nothing is known of it, or none shows a head. What was scored before pixels were looked at may show one.
    fn head_reach(&self) -> Option<f64> {
        let is_head = |place: &&Place| !place.is_no_head && place.shows.is_none_or(|shows| shows == Shows::Head);
        let heads = |part: &'_ Part| part.places.iter().filter(is_head).cloned().collect::<Vec<Place>>();
        let unplaced = (self.parts.iter()).flat_map(heads).filter(|place| place.position.is_none());
        let unplaced = unplaced.map(|place| place.thickness).sum::<Option<f64>>()?;
        let along = |part: &Part| {
            let along = part.along.unwrap_or(1.0);
            heads(part).into_iter().filter_map(move |place| Some(place.position? / along)).collect::<Vec<f64>>()
        };
        let placed: Vec<f64> = self.parts.iter().flat_map(along).collect();
        let reach = placed.iter().copied().reduce(f64::max).zip(placed.iter().copied().reduce(f64::min));
        match reach {
            Some((last, first)) => Some(last - first + unplaced),
            None => Some(unplaced).filter(|reach| *reach > 0.0),
        }
    }

    /// Why the slices themselves cannot leave a study unflagged: too thick or too far apart.
    pub fn too_coarse(&self, card: &MadeFor) -> Vec<String> {
        let mut said = Vec::new();
        let thickest = self.of_head().filter_map(|place| place.thickness).fold(0.0, f64::max);
        if thickest > card.max_thickness_mm + 0.05 {
            said.push(format!("slices {thickest:.1} mm thick, at most {:.1} mm are allowed", card.max_thickness_mm));
        }
        let apart = self.parts.iter().filter_map(|part| median(steps(&part.places).map(|step| step.length).collect()));
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
        let nothing = |from: f64, to: f64| format!("nothing between {from:.1} and {to:.1} mm");
        let mut said: Vec<String> = Vec::new();
        for part in &self.parts {
            said.extend(gaps(&part.places).iter().map(|step| nothing(step.from, step.from + step.length)));
            said.extend(missing_numbers(&part.places));
        }
        let spans = self.spans();
        let mut reached = spans.first().map(|span| span.to);
        for pair in spans.windows(2) {
            let from = reached.expect("there is a first one").max(pair[0].to);
            let usual = pair[0].step.max(pair[1].step);
            if pair[1].from - from > 1.5 * usual + SEAM {
                said.push(format!("{}, where the tilt changes", nothing(from, pair[1].from)));
            }
            reached = Some(from.max(pair[1].to));
        }
        said
    }

    /// Why slices are missing that no gap tells of, for all of the series is as sparse: of several transfers at one time, one may have
    /// brought nothing. Where the thickness is not known either, this is only to be told.
    pub fn thinned_out(&self) -> (Option<String>, Option<String>) {
        let Some(usual) = usual_step(&self.numbers).filter(|usual| *usual >= 2.0) else {
            return (None, None);
        };
        let said = |slices: &str, those: &str| {
            format!("{slices}, with instance numbers in steps of {usual:.0}: {those} between did not come")
        };
        let apart = median(self.parts.iter().flat_map(|part| steps(&part.places)).map(|step| step.length).collect());
        let thick = median(self.places().filter_map(|place| place.thickness).collect());
        match (apart, thick) {
            (Some(apart), Some(thick)) => {
                let is_sparse = apart > APART * thick;
                (
                    is_sparse
                        .then(|| said(&format!("slices {apart:.1} mm apart that are {thick:.1} mm thick"), "those")),
                    None,
                )
            }
            _ => (None, Some(said("slices of unknown thickness or distance", "perhaps those"))),
        }
    }

    /// The instance numbers between which some are missing, in words, where positions show no gap: of two scans in one series the one
    /// hides what the other lacks. Numbers that leave out many count something else.
    pub fn missing_numbers(&self) -> Vec<String> {
        let has_positions = self.places().any(|place| place.position.is_some());
        let holes = holes(&self.numbers);
        if !has_positions || holes.len() * 4 > self.numbers.len() || !self.gaps().is_empty() {
            return Vec::new();
        }
        first_few(holes.iter().map(|(from, to)| between_numbers(*from, *to)).collect())
    }

    /// The places that so many slices show where others are shown by few: their positions are wrong, and they count as one place.
    pub fn crowded(&self) -> Vec<String> {
        let mut said = Vec::new();
        for part in &self.parts {
            let mut counts: Vec<usize> = part.places.iter().map(|place| place.slices).collect();
            counts.sort_unstable();
            let usual = counts.get(counts.len() / 2).copied().unwrap_or(0);
            let most = DYNAMIC.max(2 * usual + 2);
            let crowded = part.places.iter().filter(|place| usual < DYNAMIC && place.slices >= most);
            said.extend(crowded.map(|place| format!("{} at one position", slices(place.slices))));
        }
        first_few(said)
    }

    /// The slices that the gate put out though they lie where the series has no other: what they show is not known.
    pub fn left_out(&self) -> Vec<String> {
        self.left_out_that(|lies| matches!(lies, Lies::Alone))
    }

    /// The slices that the gate put out and that may belong to the stack.
    pub fn perhaps_left_out(&self) -> Vec<String> {
        self.left_out_that(|lies| matches!(lies, Lies::Unknown))
    }

    fn left_out_that(&self, is: impl Fn(Lies) -> bool) -> Vec<String> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for slice in self.left_out.iter().filter(|slice| is(self.lies(slice))) {
            *counts.entry(&slice.reason).or_default() += 1;
        }
        let said = |(reason, count): (&str, usize)| {
            format!("{} of it {} not scored ({reason})", slices(count), if count == 1 { "was" } else { "were" })
        };
        first_few(counts.into_iter().map(said).collect())
    }

    fn lies(&self, slice: &LeftOut) -> Lies {
        let unless_view = || if gate::is_other_view(&slice.reason) { Lies::Elsewhere } else { Lies::Unknown };
        let Some(part) = self.parts.iter().find(|part| part.orientation == slice.orientation) else {
            return match slice.orientation.as_deref() {
                // Coronal, sagittal, or nearer to these than to axial.
                Some(plane) if along_the_body(plane).is_none_or(|along| along.abs() < 0.5) => Lies::Elsewhere,
                Some(_) => Lies::Unknown,
                None => unless_view(),
            };
        };
        let nearest = |position: f64| {
            let distances = part.places.iter().filter_map(|place| Some((place.position? - position).abs()));
            distances.reduce(f64::min)
        };
        match slice.position.and_then(nearest) {
            // Thinner slices between those of the stack, or pictures of them, lie where it is.
            Some(nearest) => {
                let usual = median(steps(&part.places).map(|step| step.length).collect());
                let thick = part.places.iter().filter_map(|place| place.thickness).reduce(f64::max);
                match nearest > 0.75 * usual.or(thick).unwrap_or(0.0).max(SAME_PLACE_MM) {
                    true => Lies::Alone,
                    false => Lies::Elsewhere,
                }
            }
            None => unless_view(),
        }
    }

    /// How much of the body's length the places of a head cover, in mm: of those without a position as much as they are thick. None where
    /// that is not known either.
    pub fn coverage(&self) -> Option<f64> {
        let unplaced: Vec<&Place> = self.of_head().filter(|place| place.position.is_none()).collect();
        if unplaced.is_empty() {
            return self.covered_by_places();
        }
        let thick = unplaced.iter().map(|place| place.thickness).sum::<Option<f64>>()?;
        let placed = Stack { parts: self.parts.iter().map(Part::placed).collect(), ..Stack::default() };
        Some(thick + placed.covered_by_places().unwrap_or(0.0))
    }

    /// How much of the body's length is covered by places that all have positions.
    fn covered_by_places(&self) -> Option<f64> {
        if let [part] = &self.parts[..] {
            return Span::of(&part.places, 1.0).map(|span| span.to - span.from + span.step);
        }
        // What two tilts show of the same place is covered once.
        let mut covered = None;
        let mut reached = f64::NEG_INFINITY;
        for span in self.spans() {
            let (from, to) = (span.from - span.step / 2.0, span.to + span.step / 2.0);
            covered = Some(covered.unwrap_or(0.0) + (to - from.max(reached)).max(0.0));
            reached = reached.max(to);
        }
        covered
    }

    /// Where the parts lie along the body, from the lowest on; positions that are absent are in none.
    fn spans(&self) -> Vec<Span> {
        let span = |part: &Part| Span::of(&part.places, part.along.unwrap_or(1.0));
        let mut spans: Vec<Span> = self.parts.iter().filter_map(span).collect();
        spans.sort_by(|a, b| a.from.total_cmp(&b.from));
        spans
    }

    /// The slices without a head that lie between slices of one, no further than a head is long: they are to be scored like those.
    pub fn no_head_within(&self) -> Vec<SliceId> {
        let mut within = Vec::new();
        for part in &self.parts {
            let heads: Vec<usize> =
                part.places.iter().enumerate().filter(|(_, place)| !place.is_no_head).map(|(index, _)| index).collect();
            for pair in heads.windows(2) {
                let (before, after) = (&part.places[pair[0]], &part.places[pair[1]]);
                let apart = before.position.zip(after.position).map_or(0.0, |(before, after)| after - before);
                if apart <= WITHIN_A_HEAD {
                    within.extend(part.places[pair[0] + 1..pair[1]].iter().flat_map(|place| &place.no_head));
                }
            }
        }
        within
    }

    /// Why the pixels are no evidence, whatever was scored: no slice shows a head in Hounsfield units. A series that was scored before
    /// pixels were looked at passes. Another series of the study may show it: necks are sent as heads.
    pub fn no_head(&self) -> Vec<String> {
        let shown: Vec<Option<Shows>> = self.of_head().map(|place| place.shows).collect();
        let is_none = !shown.is_empty() && shown.iter().all(|shows| shows.is_some_and(|shows| shows < Shows::Head));
        let why = "no slice shows a head in Hounsfield units: its rescale or its pixels are wrong, or it is another part of the body";
        is_none.then(|| why.to_owned()).into_iter().collect()
    }

    /// How many places it has, and whether one of them shows a head, or may.
    pub fn shows_head(&self) -> (usize, bool) {
        let may_show = |place: &Place| place.shows.is_none_or(|shows| shows == Shows::Head);
        (self.of_head().count(), self.of_head().any(may_show))
    }

    /// The places without anything in the image though slices on both sides show a head.
    pub fn empty_within(&self) -> Option<String> {
        let empty: usize = self.parts.iter().map(|part| empty_within(&part.places)).sum();
        (empty > 0).then(|| format!("{} between those of the head without anything in the image", slices(empty)))
    }
}

impl Part {
    /// Without the places that have no position.
    fn placed(&self) -> Part {
        let places = self.places.iter().filter(|place| place.position.is_some()).cloned().collect();
        Part { places, orientation: self.orientation.clone(), along: self.along }
    }
}

/// Which attribute says where the slices of a series lie.
enum Places {
    Position,
    /// Some have a position of zeros that nobody set, so these have none.
    PositionButZeros,
    /// All have one Image Position, which so is none of a slice.
    Location,
    /// All have one that nobody set, and nothing else says more.
    Unknown,
}

impl Places {
    fn of(slices: &[&SliceEvidence], orientations: &BTreeMap<String, String>) -> Places {
        let is_one = |of: &dyn Fn(&SliceEvidence) -> Option<f64>| {
            let mut known = slices.iter().map(|slice| of(slice));
            let first = known.next().flatten();
            first.filter(|first| known.all(|other| other.is_some_and(|other| (other - first).abs() < SAME_PLACE_MM)))
        };
        let Some(position) = is_one(&|slice| slice.position).filter(|_| slices.len() > 1) else {
            return match has_unset_zeros(slices, orientations) {
                true => Places::PositionButZeros,
                false => Places::Position,
            };
        };
        let has_locations = slices.iter().all(|slice| slice.location.is_some());
        match (has_locations && is_one(&|slice| slice.location).is_none(), position == 0.0) {
            (true, _) => Places::Location,
            // Nothing but zeros is what systems write that do not know positions, or must not tell them.
            (false, true) => Places::Unknown,
            (false, false) => Places::Position,
        }
    }

    fn of_slice(&self, slice: &SliceEvidence) -> Option<f64> {
        match self {
            Places::Position => slice.position,
            Places::PositionButZeros => slice.position.filter(|_| !is_zero(slice)),
            Places::Location => slice.location,
            Places::Unknown => None,
        }
    }
}

/// Whether its position is nothing but zeros, as far as can be told: one slice of a series may truly lie there.
fn is_zero(slice: &SliceEvidence) -> bool {
    slice.position == Some(0.0) && slice.location.is_none_or(|location| location == 0.0)
}

/// Whether many more slices of one orientation lie at zero than at other places: then systems wrote it that did not know the position.
fn has_unset_zeros(slices: &[&SliceEvidence], orientations: &BTreeMap<String, String>) -> bool {
    let mut zeros: BTreeMap<Option<&str>, usize> = BTreeMap::new();
    let mut elsewhere: BTreeMap<(Option<&str>, i64), usize> = BTreeMap::new();
    for slice in slices {
        let orientation = named(slice, orientations);
        match slice.position {
            Some(_) if is_zero(slice) => *zeros.entry(orientation).or_default() += 1,
            Some(position) => {
                *elsewhere.entry((orientation, (position / SAME_PLACE_MM).round() as i64)).or_default() += 1;
            }
            None => {}
        }
    }
    let usual = median(elsewhere.into_values().map(|count| count as f64).collect());
    let most = zeros.into_values().max().unwrap_or(0);
    // Two scans may meet at zero.
    usual.is_some_and(|usual| most as f64 >= (DYNAMIC as f64).max(2.0 * usual + 2.0))
}

/// The instance numbers of a series' slices, in order, each once; none where half of the slices or more share theirs: then each kernel
/// has its own count, say, or they are the frames of one object.
fn numbers(slices: &[&SliceEvidence]) -> Vec<i64> {
    distinct(slices.iter().filter_map(|slice| slice.instance_number).collect(), slices.len())
}

/// In order, each once; none where they are at most half as many as `slices`.
fn distinct(mut numbers: Vec<i64>, slices: usize) -> Vec<i64> {
    numbers.sort_unstable();
    numbers.dedup();
    if numbers.len() * 2 <= slices {
        numbers.clear();
    }
    numbers
}

/// The steps between numbers, in order, that are twice as long as usual or longer.
fn holes(numbers: &[i64]) -> Vec<(i64, i64)> {
    let Some(usual) = usual_step(numbers) else { return Vec::new() };
    let is_hole = |pair: &&[i64]| step(pair) >= 2.0 * usual;
    numbers.windows(2).filter(is_hole).map(|pair| (pair[0], pair[1])).collect()
}

/// From a number to the next, as a rule.
fn usual_step(numbers: &[i64]) -> Option<f64> {
    median(numbers.windows(2).map(step).collect())
}

fn step(pair: &[i64]) -> f64 {
    pair[1] as f64 - pair[0] as f64
}

fn between_numbers(from: i64, to: i64) -> String {
    format!("nothing between the instance numbers {from} and {to}")
}

/// The first of what may be many, and how many more there are.
fn first_few(mut said: Vec<String>) -> Vec<String> {
    let more = said.len().saturating_sub(MOST_TOLD);
    said.truncate(MOST_TOLD);
    said.extend((more > 0).then(|| format!("and {more} more")));
    said
}

/// The orientation that each one of these slices counts as: names that lie next to each other are one stack's, whose cosines were rounded
/// on both sides of a half.
fn orientations(slices: &[&SliceEvidence]) -> BTreeMap<String, String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    slices
        .iter()
        .filter_map(|slice| slice.orientation.as_deref())
        .for_each(|name| *counts.entry(name).or_default() += 1);
    let mut by_count: Vec<(&str, usize)> = counts.into_iter().collect();
    by_count.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let parts = |name: &str| name.split(',').map(|part| part.parse::<i64>().ok()).collect::<Option<Vec<i64>>>();
    let is_next = |a: &str, b: &str| match (parts(a), parts(b)) {
        (Some(a), Some(b)) => a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= 1),
        _ => false,
    };
    let mut kept: Vec<&str> = Vec::new();
    let mut of: BTreeMap<String, String> = BTreeMap::new();
    for (name, _) in by_count {
        match kept.iter().find(|most| is_next(most, name)) {
            Some(most) => drop(of.insert(name.to_owned(), (*most).to_owned())),
            None => kept.push(name),
        }
    }
    of
}

/// The orientation that a slice counts as, by [`orientations`].
fn named<'a>(slice: &'a SliceEvidence, orientations: &'a BTreeMap<String, String>) -> Option<&'a str> {
    let own = slice.orientation.as_deref()?;
    Some(orientations.get(own).map_or(own, String::as_str))
}

/// Where a part lies along the body, in mm.
struct Span {
    from: f64,
    to: f64,
    /// From a place to the next, or the slices' thickness if that is more.
    step: f64,
}

impl Span {
    /// From the first place of a head to the last. None where there is none, or a place's position is absent.
    fn of(places: &[Place], along: f64) -> Option<Span> {
        let heads: Vec<&Place> = places.iter().filter(|place| !place.is_no_head).collect();
        let (first, last) = (heads.first()?.position?, heads.last()?.position?);
        let usual = median(steps(places).map(|step| step.length).collect()).unwrap_or(0.0);
        let step = heads.iter().filter_map(|place| place.thickness).fold(0.0, f64::max).max(usual);
        // A plane meets the axis of the body, x and y 0, at its place along the normal divided by the normal's own part along the body.
        let (from, to) = (first / along, last / along);
        Some(Span { from: from.min(to), to: from.max(to), step })
    }
}

/// From the name of an orientation ([`Plane::stack`](super::gate::Plane::stack)) how far its normal goes along the body a mm.
fn along_the_body(orientation: &str) -> Option<f64> {
    let normal: Vec<f64> = orientation.split(',').map(|n| n.parse().ok()).collect::<Option<_>>()?;
    let length = normal.iter().map(|n| n * n).sum::<f64>().sqrt();
    normal.get(2).map(|z| z / length).filter(|along| along.abs() > 0.3)
}

/// What is missing between instance numbers, where places have no positions and objects are slices, nearly all with a number of their own.
fn missing_numbers(places: &[Place]) -> Vec<String> {
    if places.iter().any(|place| place.position.is_some()) {
        return Vec::new();
    }
    let numbers = distinct(places.iter().filter_map(|place| place.number).collect(), places.len());
    holes(&numbers).into_iter().map(|(from, to)| between_numbers(from, to)).collect()
}

/// The places that show nothing though there is a head on both sides.
fn empty_within(places: &[Place]) -> usize {
    let shows = |what: Shows| move |place: &Place| place.shows == Some(what);
    let (Some(first), Some(last)) =
        (places.iter().position(shows(Shows::Head)), places.iter().rposition(shows(Shows::Head)))
    else {
        return 0;
    };
    places[first..=last].iter().filter(|place| shows(Shows::Nothing)(place)).count()
}

impl Place {
    fn add(&mut self, slice: &SliceEvidence) {
        self.slices += 1;
        if let SliceState::Scored { probability, positive } = slice.state {
            self.probability = Some(self.probability.map_or(probability, |most| most.max(probability)));
            self.positive |= positive;
        }
        match slice.state {
            SliceState::NoHead => self.no_head.push(slice.id),
            _ => self.is_no_head = false,
        }
        self.shows = self.shows.into_iter().chain(slice.shows).max();
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
        let longer = around > 0.0 && step.length > APART * around + 0.5;
        let open = step.thickness.is_some_and(|thick| step.length > APART * thick + 0.5 && usual_least <= 1.2 * thick);
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
            id: 0,
            shows: None,
            lacking: None,
            series_uid: "1".into(),
            state: SliceState::Scored { probability, positive: probability >= 0.5 },
            reason: None,
            instance_number: Some(1),
            frame: 1,
            position,
            location: None,
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
    fn without_positions_instance_numbers_tell_what_is_missing() {
        let numbered = |numbers: &[i64], position: Option<f64>| {
            let slices: Vec<SliceEvidence> = numbers
                .iter()
                .map(|number| SliceEvidence { instance_number: Some(*number), ..slice(position, Some(5.0), 0.1) })
                .collect();
            Stack::new(&slices.iter().collect::<Vec<_>>())
        };
        let all: Vec<i64> = (1..30).collect();
        // Absent, or nothing but zeros.
        for position in [None, Some(0.0)] {
            assert!(numbered(&all, position).gaps().is_empty());
            assert_eq!(numbered(&all, position).places().count(), 29);
            assert!(numbered(&all, position).dynamic().is_none());
            let parts = [&all[..5], &all[19..]].concat();
            assert_eq!(numbered(&parts, position).gaps(), ["nothing between the instance numbers 5 and 20"]);
        }
        let every_other: Vec<i64> = (1..30).step_by(2).collect();
        assert!(numbered(&every_other, None).gaps().is_empty(), "as they were numbered");
        // Frames of one object share its number.
        assert!(numbered(&[1; 20], None).gaps().is_empty());
        assert!(numbered(&[1; 20], Some(35.0)).dynamic().is_some(), "one place again and again");
    }

    fn of(slices: &[SliceEvidence]) -> Stack {
        Stack::new(&slices.iter().collect::<Vec<_>>())
    }

    /// So many contiguous slices of 5 mm, numbered from 1.
    fn numbered(count: usize) -> Vec<SliceEvidence> {
        let slice = |index: usize| SliceEvidence {
            instance_number: Some(index as i64 + 1),
            ..slice(Some(5.0 * index as f64), Some(5.0), 0.1)
        };
        (0..count).map(slice).collect()
    }

    #[test]
    fn one_instance_number_twice_or_none_hides_no_gap() {
        let without_positions = |numbers: &[Option<i64>]| {
            let slice =
                |number: &Option<i64>| SliceEvidence { instance_number: *number, ..slice(None, Some(5.0), 0.1) };
            of(&numbers.iter().map(slice).collect::<Vec<_>>()).gaps()
        };
        let mut numbers: Vec<Option<i64>> = (1..11).chain(21..31).map(Some).collect();
        let said = ["nothing between the instance numbers 10 and 21"];
        assert_eq!(without_positions(&numbers), said);
        numbers[19] = numbers[18];
        assert_eq!(without_positions(&numbers), said);
        numbers[0] = None;
        assert_eq!(without_positions(&numbers), said);
        let twice: Vec<Option<i64>> = (1..11).chain(1..11).chain(21..31).chain(21..31).map(Some).collect();
        assert!(without_positions(&twice).is_empty(), "each kernel counts for itself");
    }

    #[test]
    fn every_second_slice_of_a_contiguous_series_is_missing_by_its_numbers() {
        let every_second = |change: &dyn Fn(&mut SliceEvidence)| {
            let mut slices: Vec<SliceEvidence> = numbered(40).into_iter().step_by(2).collect();
            slices.iter_mut().for_each(change);
            slices
        };
        assert!(of(&every_second(&|_| {})).gaps().is_empty(), "all steps are alike");
        let (thinned_out, perhaps) = of(&every_second(&|_| {})).thinned_out();
        let said = "slices 10.0 mm apart that are 5.0 mm thick, with instance numbers in steps of 2: those between did not come";
        assert_eq!((thinned_out.as_deref(), perhaps), (Some(said), None));
        // One of three that brought nothing, and one number twice.
        let mut third: Vec<SliceEvidence> = numbered(60).into_iter().step_by(3).collect();
        third[3].instance_number = third[4].instance_number;
        assert!(of(&third).thinned_out().0.is_some_and(|said| said.contains("in steps of 3")));
        let (thinned_out, perhaps) = of(&every_second(&|slice| slice.thickness = None)).thinned_out();
        assert!(
            thinned_out.is_none() && perhaps.is_some_and(|said| said.contains("perhaps those between did not come"))
        );
        // As they were numbered: contiguous; with what lies between; spaced, but numbered one by one.
        assert_eq!(of(&every_second(&|slice| slice.thickness = Some(10.0))).thinned_out(), (None, None));
        let mut interleaved = numbered(40);
        interleaved.iter_mut().skip(1).step_by(2).for_each(|slice| slice.state = SliceState::Out);
        assert_eq!(of(&interleaved).thinned_out(), (None, None));
        let spaced = |slice: &mut SliceEvidence| slice.instance_number = slice.instance_number.map(|n| n / 2);
        assert_eq!(of(&every_second(&spaced)).thinned_out(), (None, None));
        assert_eq!(of(&numbered(30)).thinned_out(), (None, None));
    }

    #[test]
    fn a_scan_that_hides_the_gap_of_another_does_not_hide_its_numbers() {
        let mut twice = [numbered(30), numbered(30)].concat();
        (31..).zip(&mut twice[30..]).for_each(|(number, slice)| slice.instance_number = Some(number));
        assert!(of(&twice).missing_numbers().is_empty());
        twice.drain(40..50);
        assert_eq!(of(&twice).missing_numbers(), ["nothing between the instance numbers 40 and 51"]);
        assert!(of(&twice).gaps().is_empty());
        // A gap is told as such, and numbers that leave out many count something else.
        let mut gap = numbered(30);
        gap.remove(12);
        assert!(of(&gap).missing_numbers().is_empty() && !of(&gap).gaps().is_empty());
        let mut odd = numbered(30);
        (0..).zip(&mut odd).for_each(|(n, slice)| slice.instance_number = Some(n / 2 * 100 + n % 2));
        assert!(of(&odd).missing_numbers().is_empty());
        // What the gate put out has a number, too.
        let mut scout = numbered(30);
        scout[10].state = SliceState::Out;
        assert!(of(&scout).missing_numbers().is_empty());
    }

    #[test]
    fn slices_that_share_a_position_that_is_none_are_a_place_each() {
        let mut slices = numbered(30);
        slices[20..].iter_mut().for_each(|slice| slice.position = Some(0.0));
        slices[20..].iter_mut().for_each(|slice| slice.state = SliceState::Scored { probability: 0.9, positive: true });
        let stack = of(&slices);
        // The first of the series truly lies there; nobody can tell it from the others.
        assert_eq!((stack.places().count(), stack.positives(), stack.coverage()), (30, 10, Some(150.0)));
        let only_one = of(&numbered(30));
        assert!(only_one.places().all(|place| place.position.is_some()), "a place at 0 is one");
        let twice = [numbered(30), numbered(30)].concat();
        assert_eq!(of(&twice).places().count(), 30, "two kernels");
        slices.iter_mut().for_each(|slice| slice.location = Some(7.0));
        assert_eq!(of(&slices).places().count(), 20, "a location says that they lie there");
    }

    #[test]
    fn many_slices_at_one_position_where_others_have_their_own_are_told() {
        let mut slices = numbered(30);
        slices[20..].iter_mut().for_each(|slice| slice.position = Some(95.0));
        assert_eq!(of(&slices).crowded(), ["11 slices at one position"]);
        assert!(of(&numbered(30)).crowded().is_empty());
        assert!(of(&[numbered(30), numbered(30), numbered(30)].concat()).crowded().is_empty(), "three kernels");
        assert!(of(&vec![numbered(16); 20].concat()).crowded().is_empty(), "dynamic");
    }

    #[test]
    fn a_neck_with_the_base_of_the_skull_is_no_head() {
        let card = MadeFor::default();
        let showing = |heads: std::ops::Range<usize>| {
            let mut slices = numbered(30);
            for (index, slice) in slices.iter_mut().enumerate() {
                slice.shows = Some(if heads.contains(&index) { Shows::Head } else { Shows::Body });
            }
            slices
        };
        let said = ["slices that show a head over 20 mm, at least 45 mm are needed"];
        assert_eq!(of(&showing(25..30)).too_short(&card), said);
        assert!(of(&showing(18..30)).too_short(&card).is_empty());
        assert!(of(&showing(0..0)).too_short(&card).is_empty(), "that it shows none is told otherwise");
        assert!(of(&numbered(30)).too_short(&card).is_empty(), "scored by an earlier version");
        let mut unplaced = showing(25..30);
        unplaced.iter_mut().for_each(|slice| slice.position = None);
        assert_eq!(of(&unplaced).too_short(&card), ["slices that show a head over 25 mm, at least 45 mm are needed"]);
    }

    #[test]
    fn slices_that_the_gate_put_out_at_the_end_of_a_series_are_told() {
        let out = |change: &dyn Fn(&mut SliceEvidence)| {
            let mut slices = numbered(30);
            for slice in &mut slices[20..] {
                (slice.state, slice.reason) = (SliceState::Out, Some("160 kV".into()));
                change(slice);
            }
            let stack = of(&slices);
            (stack.left_out(), stack.perhaps_left_out())
        };
        let none = || (Vec::<String>::new(), Vec::<String>::new());
        let said = || vec!["10 slices of it were not scored (160 kV)".to_owned()];
        assert_eq!(out(&|_| {}), (said(), vec![]));
        let scout =
            |slice: &mut SliceEvidence| slice.reason = Some("a localizer: series description Head scout".into());
        assert_eq!(out(&scout).0.len(), 1, "in the planes of the stack it is none");
        // Localizers and reformats have planes of their own; without a plane it is as they say.
        assert_eq!(out(&|slice| slice.orientation = Some("50,0,0".into())), none());
        assert_eq!(out(&|slice| slice.orientation = Some("0,50,0".into())), none());
        let unplaced = |slice: &mut SliceEvidence| (slice.orientation, slice.position) = (None, None);
        assert_eq!(out(&unplaced), (vec![], said()));
        assert_eq!(
            out(&|slice| {
                unplaced(slice);
                scout(slice)
            }),
            none()
        );
        // Tilted, it may be of the head.
        assert_eq!(out(&|slice| slice.orientation = Some("0,-35,35".into())), (vec![], said()));
        // Beside the others of the stack, or between them.
        assert_eq!(out(&|slice| slice.position = slice.position.map(|z| z - 50.0)), none());
        assert_eq!(out(&|slice| slice.position = slice.position.map(|z| z - 52.5)), none());
        let many: Vec<SliceEvidence> = numbered(30)
            .into_iter()
            .enumerate()
            .map(|(index, slice)| match index {
                0..20 => slice,
                _ => SliceEvidence { state: SliceState::Out, reason: Some(format!("reason {}", index / 2)), ..slice },
            })
            .collect();
        assert_eq!(of(&many).left_out().len(), MOST_TOLD + 1);
    }

    /// Two stacks of different tilt, each with slices 5 mm apart from one place along the body to another.
    fn two_tilts(below: (f64, f64), above: (f64, f64)) -> Stack {
        let stack = |(from, to): (f64, f64), orientation: &str, along: f64| {
            let count = ((to - from) / 5.0).round() as usize;
            (0..=count)
                .map(|index| SliceEvidence {
                    orientation: Some(orientation.into()),
                    ..slice(Some((from + 5.0 * index as f64) * along), Some(5.0), 0.1)
                })
                .collect::<Vec<_>>()
        };
        // The normal of the lower one is tilted by 20 degrees.
        let slices = [stack(below, "0,-17,47", 0.94), stack(above, "0,0,50", 1.0)].concat();
        Stack::new(&slices.iter().collect::<Vec<_>>())
    }

    #[test]
    fn what_two_tilts_show_is_covered_once_and_nothing_may_be_missing_between_them() {
        let contiguous = two_tilts((0.0, 40.0), (47.0, 140.0));
        assert!(contiguous.gaps().is_empty(), "{:?}", contiguous.gaps());
        assert!((contiguous.coverage().unwrap() - 147.0).abs() < 4.0, "{:?}", contiguous.coverage());
        let apart = two_tilts((0.0, 40.0), (85.0, 140.0));
        assert_eq!(apart.gaps().len(), 1);
        assert!(apart.gaps()[0].ends_with("where the tilt changes"), "{:?}", apart.gaps());
        let twice = two_tilts((0.0, 45.0), (0.0, 45.0));
        assert!(twice.coverage().unwrap() < 55.0, "{:?}", twice.coverage());
        assert!(twice.gaps().is_empty());
    }

    #[test]
    fn pixels_that_show_no_head_are_no_evidence() {
        use Shows::{Body, Head, Nothing};
        let showing = |shows: &[Option<Shows>]| {
            let places = shows.iter().enumerate();
            let slices: Vec<SliceEvidence> = places
                .map(|(index, shows)| SliceEvidence { shows: *shows, ..slice(Some(5.0 * index as f64), None, 0.1) })
                .collect();
            Stack::new(&slices.iter().collect::<Vec<_>>())
        };
        let usual = [Some(Body), Some(Body), Some(Head), Some(Head), Some(Body), Some(Nothing)];
        assert_eq!((showing(&usual).no_head(), showing(&usual).empty_within()), (vec![], None));
        assert!(showing(&[Some(Body), Some(Nothing), Some(Body)]).no_head()[0].contains("Hounsfield"));
        // Scored by an earlier version, in whole or in part.
        assert!(showing(&[None, None]).no_head().is_empty() && showing(&[None, Some(Body)]).no_head().is_empty());
        let hole = [Some(Nothing), Some(Head), Some(Nothing), Some(Body), Some(Nothing), Some(Head), Some(Nothing)];
        let said = showing(&hole).empty_within().unwrap_or_default();
        assert_eq!(said, "2 slices between those of the head without anything in the image");
    }

    #[test]
    fn slices_that_were_declined_within_a_head_are_found() {
        let mut slices: Vec<SliceEvidence> = every(5.0, 60).iter().map(|z| slice(Some(*z), Some(5.0), 0.1)).collect();
        for (index, slice) in slices.iter_mut().enumerate() {
            slice.id = index as i64;
            // Below the head, six within it, and above it; what looked like a head in the belly is one slice.
            if (1..30).contains(&index) || (40..46).contains(&index) || index > 57 {
                slice.state = SliceState::NoHead;
            }
        }
        let stack = Stack::new(&slices.iter().collect::<Vec<_>>());
        assert_eq!(stack.no_head_within(), (40..46).collect::<Vec<_>>());
    }

    #[test]
    fn without_positions_thickness_tells_what_is_covered() {
        let card = MadeFor::default();
        let of = |count: usize, position: &dyn Fn(usize) -> Option<f64>, thickness: Option<f64>| {
            let slices: Vec<SliceEvidence> = (0..count)
                .map(|index| SliceEvidence {
                    instance_number: Some(index as i64),
                    ..slice(position(index), thickness, 0.1)
                })
                .collect();
            Stack::new(&slices.iter().collect::<Vec<_>>())
        };
        // One slice of ten thin ones has none: 6 mm of a head are no head.
        let most = |index| (index < 9).then_some(0.6 * index as f64);
        let thin = of(10, &most, Some(0.6));
        assert!((thin.coverage().unwrap() - 6.0).abs() < 1e-9, "{:?}", thin.coverage());
        assert_eq!(thin.too_short(&card), ["6 mm covered, at least 90 mm are needed"]);
        assert_eq!(of(10, &|_| None, Some(0.6)).too_short(&card).len(), 1);
        assert!(of(30, &|_| None, Some(5.0)).too_short(&card).is_empty());
        // Nothing is known of either.
        assert_eq!(of(10, &|_| None, None).coverage(), None);
        let said = "10 slices without position and thickness, at least 20 are needed";
        assert_eq!(of(10, &|_| None, None).too_short(&card), [said]);
        assert!(of(30, &|_| None, None).too_short(&card).is_empty());
    }

    #[test]
    fn where_all_have_one_position_slice_location_orders_them() {
        let of = |location: &dyn Fn(usize) -> Option<f64>| {
            let slices: Vec<SliceEvidence> = (0..30)
                .map(|index| SliceEvidence {
                    location: location(index),
                    instance_number: Some(30 - index as i64),
                    ..slice(Some(-300.0), Some(5.0), index as f64 / 100.0)
                })
                .collect();
            Stack::new(&slices.iter().collect::<Vec<_>>())
        };
        let told = of(&|index| Some(5.0 * index as f64));
        assert_eq!((told.places().count(), told.coverage(), told.dynamic()), (30, Some(150.0), None));
        assert!(told.probabilities().is_sorted());
        // A scanner that waits for the contrast medium looks at one place again and again.
        for same in [None, Some(7.0)] {
            assert_eq!(of(&|_| same).places().count(), 1);
            assert!(of(&|_| same).dynamic().is_some());
        }
    }

    #[test]
    fn cosines_that_are_rounded_to_both_sides_of_a_half_are_one_stack() {
        let slices: Vec<SliceEvidence> = every(5.0, 30)
            .iter()
            .enumerate()
            .map(|(index, z)| SliceEvidence {
                orientation: Some(["0,-10,49", "0,-9,49"][index % 2].into()),
                ..slice(Some(*z), Some(5.0), 0.1)
            })
            .collect();
        let stack = Stack::new(&slices.iter().collect::<Vec<_>>());
        assert_eq!((stack.parts.len(), stack.gaps()), (1, Vec::new()));
    }
}
