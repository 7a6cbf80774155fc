//! The arithmetic of one fused block, valid convolution + bias + ReLU + max pooling, over plain slices in
//! height × width × channel order, forward and backward, for one slice at a time.
//!
//! Why by hand: at 512×512 the stock CPU path writes every convolution's full output (66 MB a slice in m10's first
//! layer), then reads it again for ReLU, pooling and their gradients. Here a pooled row's convolution rows live in the
//! L2 cache and only the pooled values and the place of each maximum leave it. With channels innermost no im2col is
//! needed either: the patch of an output position is `kernel` runs of `kernel · channels` contiguous values.
//!
//! Backward uses what pooling leaves: of each window only the maximum carries a gradient, and only if ReLU let it
//! pass. So for each filter the live positions of a pooled row are listed once, and both gradients are sums of
//! `gradient × patch` and `gradient × kernel` over that list: 1/9 (pool 3) or 1/4 (pool 2) of the dense work, less
//! what ReLU silenced.

use pulp::{Arch, Simd, WithSimd};

/// Output positions that one run of the forward inner loop computes together; 6 × 2 vectors of sums fit 16 registers.
const POSITIONS: usize = 6;
/// Vectors of the kernel that one run of the backward inner loops keeps in registers.
const GROUP: usize = 8;

/// The sizes of a block: input height, width and channels; filters; the square kernel's and pool's edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockShape {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub filters: usize,
    pub kernel: usize,
    pub pool: usize,
}

impl BlockShape {
    /// Height and width after pooling; a remainder that fills no window is dropped, as Keras and ONNX do.
    pub fn pooled(&self) -> [usize; 2] {
        [(self.height + 1 - self.kernel) / self.pool, (self.width + 1 - self.kernel) / self.pool]
    }

    /// Values of one input slice.
    pub fn input_len(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// Values of one pooled slice.
    pub fn output_len(&self) -> usize {
        let [h, w] = self.pooled();
        h * w * self.filters
    }

    /// Length of one kernel row's contiguous run in the input.
    fn span(&self) -> usize {
        self.kernel * self.channels
    }

    fn row(&self) -> usize {
        self.width * self.channels
    }

    /// Whether the block can be computed here: at least one pooled position, and a window index fits a byte.
    pub fn is_supported(&self) -> bool {
        self.kernel >= 1
            && (1..=15).contains(&self.pool)
            && self.height >= self.kernel
            && self.width >= self.kernel
            && self.pooled().iter().all(|&edge| edge > 0)
    }
}

struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F32_LANES
    }
}

/// A block's weights, `[filter][channel][ky][kx]` as Burn and ONNX keep them, in the order the forward loop reads:
/// tiles of two vectors of filters, within a tile `[ky][kx][channel]`.
pub struct ForwardWeights {
    tile: usize,
    data: Vec<f32>,
    bias: Vec<f32>,
}

impl ForwardWeights {
    pub fn pack(shape: &BlockShape, weights: &[f32], bias: &[f32]) -> Self {
        let tile = 2 * Arch::new().dispatch(Lanes);
        let tiles = shape.filters.div_ceil(tile);
        let taps = shape.kernel * shape.span();
        let mut data = vec![0.0; tiles * taps * tile];
        for filter in 0..shape.filters {
            let (t, lane) = (filter / tile, filter % tile);
            for (source, target) in patch_order(shape) {
                data[(t * taps + target) * tile + lane] = weights[filter * taps + source];
            }
        }
        let mut padded = bias.to_vec();
        padded.resize(tiles * tile, 0.0);
        Self { tile, data, bias: padded }
    }
}

/// Pairs of a tap's place in `[channel][ky][kx]` and in `[ky][kx][channel]`.
fn patch_order(shape: &BlockShape) -> impl Iterator<Item = (usize, usize)> {
    let (kernel, channels) = (shape.kernel, shape.channels);
    (0..channels).flat_map(move |c| (0..kernel * kernel).map(move |k| (c * kernel * kernel + k, k * channels + c)))
}

/// One slice forward: `input` is height × width × channels, `output` the pooled height × width × filters, `argmax` for
/// each of its values the place in the window (row-major) of the first maximum.
pub fn forward(shape: &BlockShape, weights: &ForwardWeights, input: &[f32], output: &mut [f32], argmax: &mut [u8]) {
    assert_eq!(input.len(), shape.input_len());
    assert_eq!(output.len(), shape.output_len());
    assert_eq!(argmax.len(), shape.output_len());
    Arch::new().dispatch(Forward { shape, weights, input, output, argmax });
}

struct Forward<'a> {
    shape: &'a BlockShape,
    weights: &'a ForwardWeights,
    input: &'a [f32],
    output: &'a mut [f32],
    argmax: &'a mut [u8],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { shape, weights, input, output, argmax } = self;
        let &BlockShape { channels, filters, kernel, pool, .. } = shape;
        let [_, pooled_width] = shape.pooled();
        let used = pooled_width * pool;
        let tile = weights.tile;
        let taps = kernel * shape.span();
        let mut rows = vec![0.0f32; pool * used * tile];
        let mut value = vec![0.0f32; tile];
        let mut place = vec![0.0f32; tile];
        let output_rows = output.chunks_exact_mut(pooled_width * filters);
        for (py, (output, argmax)) in output_rows.zip(argmax.chunks_exact_mut(pooled_width * filters)).enumerate() {
            for (t, packed) in weights.data.chunks_exact(taps * tile).enumerate() {
                for dy in 0..pool {
                    let input = &input[(py * pool + dy) * shape.row()..];
                    let out = &mut rows[dy * used * tile..][..used * tile];
                    if used >= POSITIONS {
                        let mut x = 0;
                        loop {
                            let (from, to) = (&input[x * channels..], &mut out[x * tile..][..POSITIONS * tile]);
                            convolve::<S, POSITIONS>(simd, shape, from, packed, to);
                            if x + POSITIONS == used {
                                break;
                            }
                            // The last run overlaps the one before it rather than being short.
                            x = (x + POSITIONS).min(used - POSITIONS);
                        }
                    } else {
                        for (x, out) in out.chunks_exact_mut(tile).enumerate() {
                            convolve::<S, 1>(simd, shape, &input[x * channels..], packed, out);
                        }
                    }
                }
                let bias = &weights.bias[t * tile..][..tile];
                let first = t * tile;
                let count = tile.min(filters - first);
                for px in 0..pooled_width {
                    pool_window(simd, &rows, used, px, pool, bias, &mut value, &mut place);
                    let at = px * filters + first;
                    output[at..at + count].copy_from_slice(&value[..count]);
                    for (to, from) in argmax[at..at + count].iter_mut().zip(&place) {
                        *to = *from as u8;
                    }
                }
            }
        }
    }
}

/// `M` neighbouring output positions of one tile of filters; `input` starts at the first position's patch.
#[inline(always)]
fn convolve<S: Simd, const M: usize>(simd: S, shape: &BlockShape, input: &[f32], packed: &[f32], out: &mut [f32]) {
    let span = shape.span();
    let mut sums = [[simd.splat_f32s(0.0); 2]; M];
    let (packed, _) = S::as_simd_f32s(packed);
    for (ky, packed) in packed.chunks_exact(2 * span).enumerate() {
        let patches: [&[f32]; M] = std::array::from_fn(|i| &input[ky * shape.row() + i * shape.channels..][..span]);
        for k in 0..span {
            let (low, high) = (packed[2 * k], packed[2 * k + 1]);
            for i in 0..M {
                let pixel = simd.splat_f32s(patches[i][k]);
                sums[i][0] = simd.mul_add_e_f32s(pixel, low, sums[i][0]);
                sums[i][1] = simd.mul_add_e_f32s(pixel, high, sums[i][1]);
            }
        }
    }
    let (out, _) = S::as_mut_simd_f32s(out);
    for (out, sums) in out.chunks_exact_mut(2).zip(sums) {
        out.copy_from_slice(&sums);
    }
}

/// Maximum of one window for one tile of filters, then bias and ReLU (which the maximum commutes with).
/// A NaN stays NaN, so that training sees it.
#[expect(clippy::too_many_arguments, reason = "an inner loop's operands")]
#[inline(always)]
fn pool_window<S: Simd>(
    simd: S,
    rows: &[f32],
    used: usize,
    px: usize,
    pool: usize,
    bias: &[f32],
    value: &mut [f32],
    place: &mut [f32],
) {
    let (rows, _) = S::as_simd_f32s(rows);
    let (bias, _) = S::as_simd_f32s(bias);
    let (value, _) = S::as_mut_simd_f32s(value);
    let (place, _) = S::as_mut_simd_f32s(place);
    for half in 0..2 {
        let mut best = rows[px * pool * 2 + half];
        let mut at = simd.splat_f32s(0.0);
        for dy in 0..pool {
            for dx in 0..pool {
                let candidate = rows[(dy * used + px * pool + dx) * 2 + half];
                let better = simd.greater_than_f32s(candidate, best);
                best = simd.select_f32s(better, candidate, best);
                at = simd.select_f32s(better, simd.splat_f32s((dy * pool + dx) as f32), at);
            }
        }
        let sum = simd.add_f32s(best, bias[half]);
        let zero = simd.splat_f32s(0.0);
        value[half] = simd.select_f32s(simd.less_than_f32s(sum, zero), zero, sum);
        place[half] = at;
    }
}

/// A block's weights in the order the backward loops read, and the gradient in the same order: for each filter, the
/// vectors of its kernel row by row (a row's last vector padded with zeros), padded to a multiple of [`GROUP`].
pub struct BackwardLayout {
    lanes: usize,
    /// Vectors a kernel row takes.
    per_row: usize,
    /// Vectors a filter takes.
    vectors: usize,
    /// For each vector, where it begins relative to the patch's first value.
    offsets: Vec<usize>,
}

impl BackwardLayout {
    pub fn new(shape: &BlockShape) -> Self {
        let lanes = Arch::new().dispatch(Lanes);
        let per_row = shape.span().div_ceil(lanes);
        let vectors = (shape.kernel * per_row).next_multiple_of(GROUP);
        let offsets = (0..vectors)
            .map(|v| if v < shape.kernel * per_row { v / per_row * shape.row() + v % per_row * lanes } else { 0 })
            .collect();
        Self { lanes, per_row, vectors, offsets }
    }

    fn filter_len(&self) -> usize {
        self.vectors * self.lanes
    }

    fn places(&self, shape: &BlockShape) -> impl Iterator<Item = (usize, usize)> {
        let (span, padded) = (shape.span(), self.per_row * self.lanes);
        patch_order(shape).map(move |(source, patch)| (source, patch / span * padded + patch % span))
    }

    /// From `[filter][channel][ky][kx]`.
    pub fn pack(&self, shape: &BlockShape, weights: &[f32]) -> Vec<f32> {
        let taps = shape.kernel * shape.span();
        let mut packed = vec![0.0; shape.filters * self.filter_len()];
        for filter in 0..shape.filters {
            for (source, target) in self.places(shape) {
                packed[filter * self.filter_len() + target] = weights[filter * taps + source];
            }
        }
        packed
    }

    /// Adds a gradient in this layout to one in `[filter][channel][ky][kx]`.
    fn unpack_into(&self, shape: &BlockShape, packed: &[f32], weights: &mut [f32]) {
        let taps = shape.kernel * shape.span();
        for filter in 0..shape.filters {
            for (target, source) in self.places(shape) {
                weights[filter * taps + target] += packed[filter * self.filter_len() + source];
            }
        }
    }

    /// Values past a slice's end that its last patch's padded vector may touch.
    fn overhang(&self, shape: &BlockShape) -> usize {
        self.per_row * self.lanes - shape.span()
    }
}

/// Adds one slice's part to the gradients of the weights, `[filter][channel][ky][kx]`, and of the bias.
pub struct Gradients {
    pub weights: Vec<f32>,
    pub bias: Vec<f32>,
}

/// One slice's values for the backward pass: its input, and forward's pooled `output` and `argmax`.
#[derive(Clone, Copy)]
pub struct Saved<'a> {
    pub input: &'a [f32],
    pub output: &'a [f32],
    pub argmax: &'a [u8],
}

/// One slice backward: `gradient` is that of the pooled output; `on_input`, where the gradient of the input is wanted,
/// the weights by [`BackwardLayout::pack`] and where it is written.
pub fn backward(
    shape: &BlockShape,
    layout: &BackwardLayout,
    saved: Saved<'_>,
    gradient: &[f32],
    on_input: Option<(&[f32], &mut [f32])>,
) -> Gradients {
    assert_eq!(saved.input.len(), shape.input_len());
    assert_eq!(saved.output.len(), shape.output_len());
    assert_eq!(saved.argmax.len(), shape.output_len());
    assert_eq!(gradient.len(), shape.output_len());
    assert!(on_input.as_ref().is_none_or(|(_, target)| target.len() == shape.input_len()));
    Arch::new().dispatch(Backward { shape, layout, saved, gradient, on_input })
}

struct Backward<'a> {
    shape: &'a BlockShape,
    layout: &'a BackwardLayout,
    saved: Saved<'a>,
    gradient: &'a [f32],
    on_input: Option<(&'a [f32], &'a mut [f32])>,
}

impl WithSimd for Backward<'_> {
    type Output = Gradients;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Gradients {
        let Self { shape, layout, saved, gradient, on_input } = self;
        let filters = shape.filters;
        let [_, pooled_width] = shape.pooled();
        let overhang = layout.overhang(shape);
        let copy;
        let input = if overhang == 0 {
            saved.input
        } else {
            copy = [saved.input, &vec![0.0; overhang]].concat();
            &copy
        };
        let filter_len = layout.filter_len();
        let mut weight_gradient = vec![0.0f32; filters * filter_len];
        let mut bias_gradient = vec![0.0f32; filters];
        let (packed, mut target) = on_input.unzip();
        // A slice's last patch may reach beyond it, which needs room of its own.
        let mut roomy = if target.is_some() && overhang > 0 { vec![0.0f32; input.len()] } else { Vec::new() };
        let mut input_gradient = match &mut target {
            None => None,
            Some(_) if overhang > 0 => Some(roomy.as_mut_slice()),
            Some(target) => {
                target.fill(0.0);
                Some(&mut **target)
            }
        };

        let mut live = LiveRow::new(filters, pooled_width);
        let row_len = pooled_width * filters;
        for (py, gradient) in gradient.chunks_exact(row_len).enumerate() {
            let (from, to) = (py * row_len, (py + 1) * row_len);
            live.list(shape, py, gradient, &saved.output[from..to], &saved.argmax[from..to]);
            for (filter, total) in bias_gradient.iter_mut().enumerate() {
                *total += live.of(filter).1.iter().sum::<f32>();
            }
            // All filters for one group of vectors before the next group: they read the same stretch of input rows.
            for group in 0..layout.vectors / GROUP {
                let offsets: &[usize; GROUP] =
                    layout.offsets[group * GROUP..][..GROUP].try_into().expect("a slice of GROUP values");
                for filter in 0..filters {
                    let (at, value) = live.of(filter);
                    let place = filter * filter_len + group * GROUP * layout.lanes;
                    let sums = &mut weight_gradient[place..][..GROUP * layout.lanes];
                    gather(simd, input, offsets, at, value, sums);
                }
            }
            if let (Some(packed), Some(input_gradient)) = (packed, input_gradient.as_deref_mut()) {
                for group in 0..layout.vectors / GROUP {
                    let offsets: &[usize; GROUP] =
                        layout.offsets[group * GROUP..][..GROUP].try_into().expect("a slice of GROUP values");
                    for filter in 0..filters {
                        let (at, value) = live.of(filter);
                        let place = filter * filter_len + group * GROUP * layout.lanes;
                        scatter(simd, input_gradient, offsets, at, value, &packed[place..][..GROUP * layout.lanes]);
                    }
                }
            }
        }

        let mut weights = vec![0.0; filters * shape.kernel * shape.span()];
        layout.unpack_into(shape, &weight_gradient, &mut weights);
        if let Some(target) = target
            && overhang > 0
        {
            target.copy_from_slice(&roomy[..shape.input_len()]);
        }
        Gradients { weights, bias: bias_gradient }
    }
}

/// For each filter, the positions of one pooled row that carry a gradient: where their patch begins, and how much.
struct LiveRow {
    width: usize,
    at: Vec<u32>,
    value: Vec<f32>,
    count: Vec<usize>,
}

impl LiveRow {
    fn new(filters: usize, width: usize) -> Self {
        let all = filters * (width + 1);
        Self { width: width + 1, at: vec![0; all], value: vec![0.0; all], count: vec![0; filters] }
    }

    #[inline(always)]
    fn list(&mut self, shape: &BlockShape, py: usize, gradient: &[f32], output: &[f32], argmax: &[u8]) {
        let (filters, pool) = (shape.filters, shape.pool);
        self.count.fill(0);
        let inside: Vec<u32> =
            (0..pool * pool).map(|i| (i / pool * shape.row() + i % pool * shape.channels) as u32).collect();
        for px in 0..self.width - 1 {
            let start = (py * pool * shape.row() + px * pool * shape.channels) as u32;
            for filter in 0..filters {
                let i = px * filters + filter;
                let slot = filter * self.width + self.count[filter];
                self.at[slot] = start + inside[argmax[i] as usize];
                self.value[slot] = gradient[i];
                // Not a branch: which positions live is as good as random. A NaN counts as alive, to stay in view.
                let alive = (output[i] > 0.0 || output[i].is_nan()) && gradient[i] != 0.0;
                self.count[filter] += usize::from(alive);
            }
        }
    }

    #[inline(always)]
    fn of(&self, filter: usize) -> (&[u32], &[f32]) {
        let range = filter * self.width..filter * self.width + self.count[filter];
        (&self.at[range.clone()], &self.value[range])
    }
}

/// `sums += Σ value · input patch`, for one group of vectors.
#[inline(always)]
fn gather<S: Simd>(simd: S, input: &[f32], offsets: &[usize; GROUP], at: &[u32], value: &[f32], sums: &mut [f32]) {
    let (sums, _) = S::as_mut_simd_f32s(sums);
    let sums: &mut [S::f32s; GROUP] = sums.try_into().expect("a group of vectors");
    let mut totals = *sums;
    for (&at, &value) in at.iter().zip(value) {
        let value = simd.splat_f32s(value);
        for j in 0..GROUP {
            let (vector, _) = S::as_simd_f32s(&input[at as usize + offsets[j]..][..S::F32_LANES]);
            totals[j] = simd.mul_add_e_f32s(value, vector[0], totals[j]);
        }
    }
    *sums = totals;
}

/// `input gradient patch += value · weights` at every listed position, for one group of vectors.
#[inline(always)]
fn scatter<S: Simd>(
    simd: S,
    gradient: &mut [f32],
    offsets: &[usize; GROUP],
    at: &[u32],
    value: &[f32],
    weights: &[f32],
) {
    let (weights, _) = S::as_simd_f32s(weights);
    let weights: [S::f32s; GROUP] = weights.try_into().expect("a group of vectors");
    for (&at, &value) in at.iter().zip(value) {
        let value = simd.splat_f32s(value);
        for j in 0..GROUP {
            let (vector, _) = S::as_mut_simd_f32s(&mut gradient[at as usize + offsets[j]..][..S::F32_LANES]);
            vector[0] = simd.mul_add_e_f32s(value, weights[j], vector[0]);
        }
    }
}
