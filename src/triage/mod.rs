//! From scores to a verdict: eligibility, study completion, the card's study rule.

mod eligibility;
mod judge;
mod rule;

pub use eligibility::{Eligibility, assess};
pub use judge::Judge;
pub use rule::{Judgement, StudyRule};
