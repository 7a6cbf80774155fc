//! From folders in the RSNA 2019 layout to batches: the index, the split, the sample, the loader.

mod augment;
mod cache;
mod context;
mod header;
mod index;
mod level;
mod loader;
pub mod mask;
mod origin;
pub mod phantoms;
mod problems;
mod sample;
mod split;

pub use augment::Augment;
pub use cache::{Cache, LoadError};
pub use context::{Neighbours, NoOrder};
#[cfg(test)]
pub(crate) use index::example;
pub use index::{IMAGES, Index, IndexError, LABELS, OtherSizes, Slice, source_name};
pub use level::levelled;
pub use loader::{Batch, Draw, Loader};
pub use origin::{ORIGINS, Origin};
pub use problems::{Problems, few};
pub use sample::{balanced, epoch_seed, plain, stratified};
pub use split::{Side, Split, SplitBy, SplitError, patients};
