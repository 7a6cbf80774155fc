//! Between `[n, c, h, w]` as the caller sees tensors and channels innermost as they lie in memory.

use burn::backend::Autodiff;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::flex::{Flex, FlexTensor};
use burn::tensor::ops::{FloatTensor, FloatTensorOps};
use burn::tensor::{Shape, TensorData, TensorMetadata};
use rayon::prelude::*;

use crate::buffers;

/// `[n, c, h, w]` in any memory order to contiguous `[n, h, w, c]`; free where an operation of ours wrote it so.
pub fn channels_last(tensor: FlexTensor) -> FlexTensor {
    let [n, channels, h, w]: [usize; 4] = tensor.shape().dims();
    if channels == 1 {
        // The same order either way, which a copy by strides would not notice.
        return Flex::float_reshape(tensor.to_contiguous(), Shape::new([n, h, w, 1]));
    }
    let seen = Flex::float_permute(tensor.clone(), &[0, 2, 3, 1]);
    if seen.is_contiguous() {
        return seen.to_contiguous();
    }
    let tensor = if steps(&tensor).is_some() { tensor } else { tensor.to_contiguous() };
    let [slice, channel, row, column] = steps(&tensor).expect("contiguous now");
    let from: &[f32] = tensor.storage();
    let mut to = buffers::take(n * h * w * channels);
    to.par_chunks_exact_mut(h * w * channels).enumerate().for_each(|(i, to)| {
        for (position, to) in to.chunks_exact_mut(channels).enumerate() {
            let at = i * slice + position / w * row + position % w * column;
            to.iter_mut().enumerate().for_each(|(c, to)| *to = from[at + c * channel]);
        }
    });
    FlexTensor::from_data(TensorData::new(to, [n, h, w, channels]))
}

/// Contiguous `[n, h, w, c]` seen as `[n, c, h, w]`.
pub fn channels_first(tensor: FlexTensor) -> FlexTensor {
    Flex::float_permute(tensor, &[0, 3, 1, 2])
}

/// The values of a contiguous tensor.
pub fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice().expect("made contiguous f32 by the caller")
}

/// How far apart the neighbours along each dimension lie in a tensor's storage, from its first value at 0; `None` for a
/// view that begins elsewhere or runs backwards.
pub fn steps(tensor: &FlexTensor) -> Option<[usize; 4]> {
    let layout = tensor.layout();
    let steps: Vec<usize> = layout.strides().iter().map(|&step| step.try_into().ok()).collect::<Option<_>>()?;
    (layout.start_offset() == 0).then(|| steps.try_into().ok())?
}

/// Adds a contiguous `[n, h, w, c]` to what a node of `[n, c, h, w]` has received so far. Burn's own sum of two permuted
/// views walks them value by value and leaves the channels outermost. `parent` puts the node in its place in a tensor:
/// the graph's store is asked by tensors, and the type of its nodes has no public name.
pub fn accumulate(grads: &mut Gradients, parent: impl FnOnce(&mut FloatTensor<Autodiff<Flex>>), gradient: FlexTensor) {
    let mut tensor = FloatTensor::<Autodiff<Flex>>::new(gradient);
    parent(&mut tensor);
    let earlier = grads.remove::<Flex>(&tensor);
    let FloatTensor::<Autodiff<Flex>> { node, primitive: gradient, .. } = tensor;
    let sum = match earlier {
        None => gradient,
        Some(earlier) => Flex::float_add(channels_last(earlier), gradient),
    };
    grads.register::<Flex>(node.id, channels_first(sum));
}
