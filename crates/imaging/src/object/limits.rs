//! Bounds on what is read from a file.

/// Files larger than this are refused: 2 GiB, the size up to which the archive and any sane CT object stay.
pub const MAX_FILE_BYTES: u64 = 2 << 30;
/// A deflated data set may inflate to at most this; a few KiB of deflate can otherwise fill any memory. An enhanced CT of 480 slices stays
/// below.
pub const MAX_INFLATED_BYTES: u64 = 256 << 20;
/// Nested sequences and items; they are read by recursion, so the stack needs a bound.
pub(crate) const MAX_DEPTH: usize = 64;
/// Elements and items of an object: an enhanced CT of 8,000 frames with 120 elements and items each stays below.
pub(crate) const MAX_ELEMENTS: usize = 1_000_000;
/// Elements of one data set or item, without those inside its sequences. Real ones have some hundreds.
pub(super) const MAX_ELEMENTS_OF_ONE: usize = 65_536;
/// Bytes that elements and items may take in memory beside their values. An item with one element of two bytes takes
/// some 1.5 KiB, so that a file of some megabytes could otherwise take gigabytes.
pub(crate) const MAX_MEMORY: usize = 256 << 20;
/// As [`MAX_MEMORY`] for small objects, which are read several at a time: this, and so much for each of its bytes. Structured reports, of
/// which nearly every item has a few short elements, take 27 bytes for each of theirs.
pub(super) const LEAST_MEMORY: usize = 8 << 20;
pub(super) const MEMORY_PER_BYTE: usize = 48;
/// A text value longer than this is kept as bytes: split at each backslash it could take 24 times its size in memory.
pub(super) const MAX_TEXT: usize = 1 << 20;
/// Bytes of one element of the file meta group.
pub(super) const MAX_META_VALUE: u64 = 1 << 20;
/// Bytes of an object that are searched for the next element behind an element whose length is wrong.
pub(super) const MAX_SEARCH: usize = 4 << 20;
