//! From scores to decisions and figures: the slice threshold and the study rule, chosen on validation patients, and
//! what they do on patients that neither the network nor they have seen.

mod choose;
mod decision;
mod department;
mod evaluation;
mod held_out;
mod learned;
mod operating_point;
pub mod rules;
pub mod strata;
mod study;
mod supplement;
#[cfg(test)]
mod tests;

pub use decision::{Decision, WANTED_SENSITIVITY, decide};
pub use department::Department;
pub use evaluation::{Evaluation, ROUNDS};
pub use held_out::HeldOut;
pub use operating_point::{Choosing, OperatingPoint, Reached};
pub use strata::strata;
pub use study::{Study, slices};
pub use supplement::Supplement;
