//! A site's own threshold: from studies that it has labelled to a card with another study threshold.

mod cards;
mod choice;
mod judge;
mod studies;

pub use cards::{Provenance, card, section, text};
pub use choice::{Choice, NoThreshold, Wanted, least, least_to_be_sure};
pub use judge::{Early, SequenceError, of_slices, threshold};
pub use studies::{Labelled, LabelledError, Labels, Left, read_scores};
