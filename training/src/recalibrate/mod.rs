//! A site's own threshold: from studies that it has labelled to a card with another study threshold.

mod cards;
mod choice;
mod coverage;
mod early;
mod judge;
mod studies;
mod verdict;

pub use cards::{Provenance, card, section, text};
pub use choice::{Choice, NoThreshold, Wanted, least, least_to_be_sure};
pub use coverage::whole;
pub use early::Early;
pub use judge::{SequenceError, of_slices};
pub use studies::{Labelled, LabelledError, Labels, Left, read_scores};
pub use verdict::threshold;
