//! From scores to decisions and figures: the slice threshold and the study rule, chosen on validation patients, and
//! what they do on patients that neither the network nor they have seen.

mod choose;
mod decision;
mod evaluation;
mod held_out;
mod learned;
pub mod rules;
mod study;
mod supplement;
#[cfg(test)]
mod tests;

pub use decision::{Decision, WANTED_SENSITIVITY, decide};
pub use evaluation::{Evaluation, ROUNDS};
pub use held_out::HeldOut;
pub use study::{Study, slices};
pub use supplement::Supplement;
