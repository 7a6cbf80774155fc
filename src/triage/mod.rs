//! From scores to a verdict: eligibility, study completion, the card's study rule.

mod rule;

pub use rule::{Judgement, StudyRule};
