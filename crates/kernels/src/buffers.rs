//! Memory of finished activations, kept for the next ones of their size.
//!
//! A training step makes and drops some hundred tensors of many megabytes. From the allocator each comes as fresh pages,
//! which the kernel has to zero one by one at their first touch; at these sizes that costs as much as the arithmetic.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use burn::backend::flex::FlexTensor;

/// Below this many values the allocator is as fast.
const SMALLEST: usize = 1 << 16;
/// Kept values never exceed this: 4 GiB, a batch of 64 slices of EfficientNet-Lite0 at 224×224.
const MOST: usize = 1 << 30;

#[derive(Default)]
struct Kept {
    by_capacity: BTreeMap<usize, Vec<Vec<f32>>>,
    values: usize,
}

static KEPT: Mutex<Kept> = Mutex::new(Kept { by_capacity: BTreeMap::new(), values: 0 });

/// A buffer of `len` values: arbitrary ones, which the caller overwrites.
pub fn take(len: usize) -> Vec<f32> {
    let found = (len >= SMALLEST).then(|| KEPT.lock().unwrap_or_else(PoisonError::into_inner).take(len)).flatten();
    match found {
        Some(mut buffer) => {
            buffer.resize(len, 0.0);
            buffer
        }
        None => vec![0.0; len],
    }
}

/// Keeps a tensor's memory, if nobody else holds it.
pub fn give(tensor: FlexTensor) {
    let bytes = tensor.data_arc();
    drop(tensor);
    if let Some(bytes) = std::sync::Arc::into_inner(bytes)
        && let Ok(buffer) = bytes.try_into_vec::<f32>()
    {
        give_vec(buffer);
    }
}

/// Keeps a buffer.
pub fn give_vec(buffer: Vec<f32>) {
    if buffer.capacity() >= SMALLEST {
        KEPT.lock().unwrap_or_else(PoisonError::into_inner).give(buffer);
    }
}

impl Kept {
    /// The smallest that fits, but none more than half empty.
    fn take(&mut self, len: usize) -> Option<Vec<f32>> {
        let (&capacity, buffers) = self.by_capacity.range_mut(len..=2 * len).next()?;
        let buffer = buffers.pop();
        if buffers.is_empty() {
            self.by_capacity.remove(&capacity);
        }
        self.values -= capacity;
        buffer
    }

    fn give(&mut self, buffer: Vec<f32>) {
        let capacity = buffer.capacity();
        if self.values + capacity <= MOST {
            self.values += capacity;
            self.by_capacity.entry(capacity).or_default().push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_for_its_size_and_no_far_smaller_one() {
        let mut kept = Kept::default();
        kept.give(vec![1.0; 1000]);
        kept.give(vec![2.0; 1500]);
        assert!(kept.take(400).is_none(), "a buffer more than half empty");
        assert_eq!(kept.take(1400).map(|b| b.len()), Some(1500));
        assert_eq!(kept.take(900).map(|b| b.len()), Some(1000));
        assert!(kept.take(900).is_none());
        assert_eq!(kept.values, 0);
    }
}
