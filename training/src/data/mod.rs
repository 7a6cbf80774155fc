//! From folders in the RSNA 2019 layout to batches: the index, the split, the sample, the loader.

mod about;
mod augment;
mod cache;
mod context;
mod error;
mod header;
mod index;
mod labels;
mod level;
mod loader;
pub mod mask;
mod origin;
pub mod phantoms;
mod problems;
mod sample;
mod split;
mod twins;

pub use about::{ABOUT, About};
pub use augment::Augment;
pub use cache::{Cache, LoadError};
pub use context::{Neighbours, NoOrder};
pub use error::IndexError;
#[cfg(test)]
pub(crate) use index::example;
pub use index::{IMAGES, Index, OtherSizes, Slice, source_name};
pub use labels::{ANY, LABELS, LabelRow};
pub use level::levelled;
pub use loader::{Batch, Draw, Loader};
pub use origin::{ORIGINS, Origin, SYNTHETIC_STUDY};
pub use problems::{Problems, few};
pub use sample::{balanced, epoch_seed, plain, stratified};
pub use split::{Side, Split, SplitBy, SplitError, TRAINING_ONLY, patients};
pub use twins::{Twin, check_apart, twins};
