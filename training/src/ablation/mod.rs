//! Ablations: the recipe with one thing changed, measured on the same folds.

mod rows;
mod table;

pub use rows::{Row, Variant, is_synthetic, shorten, shortened};
pub use table::{Ablation, Outcome, Subject};
