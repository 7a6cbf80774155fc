//! From scores to a verdict: eligibility, urgency, study completion, the card's study rule.

mod eligibility;
mod judge;
mod shadow;
mod urgency;

pub use eligibility::{Eligibility, assess};
pub use judge::Judge;
pub use shadow::{Agreement, ComparedStudy, Comparison, LeftOut, ModelName, ShadowStudy, SliceAgreement};
pub use urgency::StatRule;
