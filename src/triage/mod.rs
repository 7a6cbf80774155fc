//! From scores to a verdict: eligibility, urgency, study activity and completion, the card's study rule.

mod activity;
mod eligibility;
mod events;
mod judge;
mod shadow;
mod urgency;

pub use activity::{Activity, TransferId};
pub use eligibility::{Eligibility, assess};
pub use judge::Judge;
pub use shadow::{Agreement, ComparedStudy, Comparison, LeftOut, ModelName, ShadowStudy, SliceAgreement};
pub use urgency::StatRule;
