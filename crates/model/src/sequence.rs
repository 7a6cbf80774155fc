//! A second, small network that reads a whole series: what the card says of it, the input that it gets, and its answer.
//!
//! A slice's network sees one slice. The sequence network sees what that one said of all slices of a series, in their order
//! along the body: a finding of several neighbours counts for more than one of a single slice. Its input are the slices' scores
//! and not their features: those of differently trained networks cannot be compared, some dozens of patients are too few for
//! a network over 1,280 of them, and the node would have to keep 5 KiB a slice.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// Logits go in from -8 to 8: beyond lie probabilities below 0.0004 and above 0.9996, whose differences say nothing.
pub const MAX_LOGIT: f64 = 8.0;

/// Empty bins that stand for a gap at most, however long it is. A network whose answer about a bin depends on others farther
/// away than this would take two parts of a series for neighbours.
pub const MOST_EMPTY: usize = 16;

/// Two slices less than this apart, in mm, show the same place.
pub const SAME_PLACE_MM: f64 = 0.1;

/// The sequence network of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sequence {
    /// The ONNX file, in the card's folder.
    pub file: String,
    /// SHA-256 of the ONNX file, 64 lower-case hex digits.
    pub sha256: String,
    /// The graph's input: float32 `[series, 2, bins]`, `bins` dynamic; see [`SeriesInput`].
    pub input: String,
    /// The output with each bin's probability, 0 to 1: float32 `[series, bins]`.
    pub slice_output: String,
    /// The output with the series' probability, 0 to 1: float32 `[series, 1]`.
    pub series_output: String,
    /// Length of a bin along the normal of the slices, in mm: the distance of the slices that it was trained on.
    pub spacing_mm: f64,
    /// A bin is positive when its probability is at least this.
    pub slice_threshold: f64,
    /// A series is flagged when its probability is at least this.
    pub threshold: f64,
    /// An early alert is given when the study rule's score is at least this, and not the rule's own threshold: an alert that this
    /// network would not confirm is never taken back. None: the rule's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_threshold: Option<f64>,
}

impl Sequence {
    /// Whether its fields make sense beside the card's main file.
    pub(crate) fn check(&self, main_file: &str) -> Result<(), String> {
        let Sequence { file, spacing_mm, slice_threshold, threshold, early_threshold, .. } = self;
        if file.is_empty() || Path::new(file).components().count() != 1 || file.contains("..") {
            return Err(format!("sequence: file {file:?} must be a plain file name in the card's own folder"));
        }
        if file == main_file {
            return Err(format!("sequence: file {file:?} is the slices' network: it must be a file of its own"));
        }
        let names = [&self.input, &self.slice_output, &self.series_output];
        if names.iter().any(|name| name.is_empty()) || self.slice_output == self.series_output {
            return Err("sequence: input, slice_output and series_output must be names, and the outputs two".into());
        }
        if !(0.5..=20.0).contains(spacing_mm) {
            return Err(format!("sequence: spacing_mm {spacing_mm} is not from 0.5 to 20"));
        }
        if !(0.0..=1.0).contains(slice_threshold) {
            return Err(format!("sequence: slice_threshold {slice_threshold} is not between 0 and 1"));
        }
        for (name, threshold) in [("threshold", Some(*threshold)), ("early_threshold", *early_threshold)] {
            if let Some(threshold) = threshold.filter(|threshold| !(*threshold > 0.0 && *threshold <= 1.0)) {
                return Err(format!("sequence: {name} {threshold} is not above 0 and at most 1"));
            }
        }
        Ok(())
    }
}

/// A place of a series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SeriesPlace {
    /// Along the normal of the slices, in mm; none where the header does not say it.
    pub position: Option<f64>,
    /// The slice's probability, 0 to 1; none of a slice that was not scored.
    pub probability: Option<f64>,
}

/// A series as the sequence network gets it: bins of equal length along the body.
///
/// Slices go into the bin that their position is nearest to, so that thin and thick stacks mean the same; of several in one bin
/// the highest probability counts. A bin without a scored slice (a gap, a slice that failed, thick slices far apart) is
/// empty. Slices without a position take a bin each, in the order in which they come.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SeriesInput {
    /// Of each bin; 0 of an empty one.
    logits: Vec<f32>,
    /// 1 of a bin with a scored slice, 0 of an empty one.
    present: Vec<f32>,
    bins: Vec<usize>,
}

impl SeriesInput {
    /// `parts`: the places of each orientation, in order along the body. Between two parts lie [`MOST_EMPTY`] bins.
    pub fn new(parts: &[Vec<SeriesPlace>], spacing_mm: f64) -> SeriesInput {
        let mut input = SeriesInput::default();
        for part in parts.iter().filter(|part| !part.is_empty()) {
            if !input.logits.is_empty() {
                input.leave(MOST_EMPTY);
            }
            input.add(part, spacing_mm);
        }
        input
    }

    fn add(&mut self, part: &[SeriesPlace], spacing_mm: f64) {
        let position = |place: &SeriesPlace| place.position.filter(|position| position.is_finite());
        let origin = part.iter().find_map(position).unwrap_or(0.0);
        // Position and bin, counted from the origin, of the place before.
        let mut before: Option<Option<(f64, f64)>> = None;
        for place in part {
            let here = position(place).map(|position| (position, ((position - origin) / spacing_mm + 0.5).floor()));
            let empty = match (before, here) {
                (None, _) | (Some(None), None) => Some(0),
                (Some(Some((last, _))), Some((this, _))) if this - last < SAME_PLACE_MM => None,
                (Some(Some((_, last))), Some((_, this))) if this <= last => None,
                // As a float the difference may be any; the cast saturates.
                (Some(Some((_, last))), Some((_, this))) => Some(((this - last - 1.0) as usize).min(MOST_EMPTY)),
                // Nobody knows how far it lies from those with a position.
                (Some(Some(_)), None) | (Some(None), Some(_)) => Some(MOST_EMPTY),
            };
            if let Some(empty) = empty {
                self.leave(empty);
                self.leave(1);
                before = Some(here);
            }
            self.put(place.probability);
        }
    }

    fn leave(&mut self, bins: usize) {
        self.logits.resize(self.logits.len() + bins, 0.0);
        self.present.resize(self.logits.len(), 0.0);
    }

    /// Puts a slice into the last bin.
    fn put(&mut self, probability: Option<f64>) {
        let bin = self.logits.len() - 1;
        self.bins.push(bin);
        let Some(probability) = probability else { return };
        let logit = (probability / (1.0 - probability)).ln().clamp(-MAX_LOGIT, MAX_LOGIT) as f32;
        if self.present[bin] == 0.0 || logit > self.logits[bin] {
            (self.logits[bin], self.present[bin]) = (logit, 1.0);
        }
    }

    /// The number of bins.
    pub fn len(&self) -> usize {
        self.logits.len()
    }

    pub fn is_empty(&self) -> bool {
        self.logits.is_empty()
    }

    /// The bin of each place, in the order in which they were given.
    pub fn bins(&self) -> &[usize] {
        &self.bins
    }

    /// Whether a bin holds a scored slice.
    pub fn is_present(&self, bin: usize) -> bool {
        self.present[bin] > 0.0
    }

    /// The network's input `[1, 2, bins]`: logits, then 1 for each bin with a scored slice and 0 for an empty one.
    pub fn values(&self) -> Vec<f32> {
        [&self.logits[..], &self.present[..]].concat()
    }
}

/// A sequence network's answer about a series.
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesScores {
    /// Of each bin; what stands in an empty one means nothing.
    pub bins: Vec<f64>,
    pub series: f64,
}

impl SeriesScores {
    /// What the two outputs said of one series.
    ///
    /// # Errors
    /// Another number of values than the input has bins, or a value that is no probability.
    pub fn new(bins: &[f32], series: &[f32], input: &SeriesInput) -> Result<SeriesScores, String> {
        let &[series] = series else { return Err(format!("{} values came for one series", series.len())) };
        if bins.len() != input.len() {
            return Err(format!("{} values came for {} bins", bins.len(), input.len()));
        }
        if let Some(wrong) = bins.iter().chain([&series]).find(|value| !(0.0..=1.0).contains(*value)) {
            return Err(format!("{wrong} is not a probability"));
        }
        Ok(SeriesScores { bins: bins.iter().map(|value| f64::from(*value)).collect(), series: f64::from(series) })
    }

    /// How many bins with a scored slice reach the threshold.
    pub fn positives(&self, input: &SeriesInput, slice_threshold: f64) -> usize {
        let reaches = |(bin, value): &(usize, &f64)| input.is_present(*bin) && **value >= slice_threshold;
        self.bins.iter().enumerate().filter(reaches).count()
    }
}

/// What reads a series: the sequence network, loaded.
pub trait SeriesNetwork: Send + Sync {
    /// # Errors
    /// Why there is no answer, in a few words.
    fn read(&self, input: &SeriesInput) -> Result<SeriesScores, String>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(positions: &[f64], probability: f64) -> Vec<SeriesPlace> {
        let place = |position: &f64| SeriesPlace { position: Some(*position), probability: Some(probability) };
        positions.iter().map(place).collect()
    }

    fn every(mm: f64, count: usize) -> Vec<f64> {
        (0..count).map(|index| -70.0 + index as f64 * mm).collect()
    }

    fn present(input: &SeriesInput) -> String {
        (0..input.len()).map(|bin| if input.is_present(bin) { '#' } else { '.' }).collect()
    }

    #[test]
    fn thin_and_thick_stacks_have_bins_of_one_length() {
        let of = |positions: &[f64]| SeriesInput::new(&[stack(positions, 0.5)], 5.0);
        assert_eq!(present(&of(&every(5.0, 6))), "######");
        assert_eq!(present(&of(&every(4.9, 6))), "######");
        // Thirty slices of 1 mm are the bins of six of 5 mm; the first and last bin are shared with the edges.
        let thin = of(&every(1.0, 28));
        assert_eq!((present(&thin).as_str(), thin.bins().len()), ("######", 28));
        assert_eq!(thin.bins()[..9], [0, 0, 0, 1, 1, 1, 1, 1, 2]);
        assert_eq!(present(&of(&every(10.0, 3))), "#.#.#");
    }

    #[test]
    fn the_highest_of_a_bin_counts_and_what_was_not_scored_is_empty() {
        let mut places = stack(&[0.0, 1.0, 1.05, 5.0, 10.0], 0.5);
        (places[0].probability, places[2].probability, places[3].probability) = (Some(0.9), Some(0.2), None);
        let input = SeriesInput::new(&[places], 5.0);
        assert_eq!(present(&input), "#.#");
        assert_eq!(input.bins(), [0, 0, 0, 1, 2]);
        let values = input.values();
        assert!((values[0] - 9.0_f32.ln()).abs() < 1e-6, "{values:?}");
        assert_eq!(values[1..], [0.0, 0.0, 1.0, 0.0, 1.0]);
        // Certain ones stay within bounds.
        let certain = [0.0, 1.0].map(|p| SeriesPlace { position: None, probability: Some(p) });
        assert_eq!(SeriesInput::new(&[certain.to_vec()], 5.0).values(), [-8.0, 8.0, 1.0, 1.0]);
    }

    #[test]
    fn gaps_are_empty_and_bounded_whatever_a_position_says() {
        let of = |positions: &[f64]| SeriesInput::new(&[stack(positions, 0.5)], 5.0);
        assert_eq!(present(&of(&[0.0, 5.0, 20.0, 25.0])), "##..##");
        let far = of(&[0.0, 1e300, f64::MAX]);
        assert_eq!(far.len(), 3 + 2 * MOST_EMPTY);
        for odd in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(of(&[0.0, odd]).len(), 2 + MOST_EMPTY, "{odd}: as if it had no position");
        }
        // Two orientations are no neighbours.
        let two = SeriesInput::new(&[stack(&every(5.0, 3), 0.5), Vec::new(), stack(&every(5.0, 2), 0.5)], 5.0);
        assert_eq!(present(&two), format!("###{}##", ".".repeat(MOST_EMPTY)));
        assert!(SeriesInput::new(&[Vec::new()], 5.0).is_empty());
        assert_eq!(present(&of(&[3.0])), "#");
    }

    #[test]
    fn without_positions_slices_stand_in_their_order() {
        let place = |position| SeriesPlace { position, probability: Some(0.5) };
        let none = SeriesInput::new(&[vec![place(None); 4]], 5.0);
        assert_eq!((present(&none).as_str(), none.bins()), ("####", &[0, 1, 2, 3][..]));
        let some = SeriesInput::new(&[vec![place(Some(0.0)), place(Some(5.0)), place(None), place(None)]], 5.0);
        assert_eq!(present(&some), format!("##{}##", ".".repeat(MOST_EMPTY)));
    }

    #[test]
    fn an_answer_that_is_none_is_refused() {
        let input = SeriesInput::new(&[stack(&every(5.0, 2), 0.5)], 5.0);
        let scores = SeriesScores::new(&[0.25, 1.0], &[0.5], &input).expect("an answer");
        assert_eq!((scores.series, scores.positives(&input, 0.5)), (0.5, 1));
        for (bins, series, why) in [
            (&[0.1][..], &[0.5][..], "1 values came for 2 bins"),
            (&[0.1, 0.2], &[], "0 values came for one series"),
            (&[0.1, f32::NAN], &[0.5], "NaN is not a probability"),
            (&[0.1, 0.2], &[1.5], "1.5 is not a probability"),
        ] {
            assert_eq!(SeriesScores::new(bins, series, &input), Err(why.into()));
        }
    }
}
