//! From scores to a verdict: eligibility, study completion, the card's study rule.

mod eligibility;
mod rule;

pub use eligibility::{Eligibility, assess};
pub use rule::{Judgement, StudyRule};
