//! From scores to a verdict: the acquisition gate, urgency, study activity and completion, the card's study rule.

mod activity;
mod events;
mod gate;
mod judge;
mod series;
mod shadow;
mod stack;
mod urgency;

pub use activity::{Activity, Quiet, TransferId};
pub use gate::{Assessment, Decision, Gate, Plane, may_be_ct_image};
pub use judge::Judge;
pub use shadow::{Agreement, ComparedStudy, Comparison, LeftOut, ModelName, ShadowJudge, ShadowStudy, SliceAgreement};
pub use urgency::StatRule;
