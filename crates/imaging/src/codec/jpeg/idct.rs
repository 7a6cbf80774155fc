//! The inverse DCT (ISO 10918-1 A.3.3), by the integer arithmetic of the Independent JPEG Group's "islow" method, so that samples equal those
//! of DCMTK and GDCM, which are built on that library.

/// Zigzag order (figure A.6): the place in the block of each coefficient in turn.
pub(super) const ZIGZAG: [usize; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63,
];

/// Fraction bits of the constants.
const CONSTANT: u32 = 13;
const F_0_298631336: i64 = 2446;
const F_0_390180644: i64 = 3196;
const F_0_541196100: i64 = 4433;
const F_0_765366865: i64 = 6270;
const F_0_899976223: i64 = 7373;
const F_1_175875602: i64 = 9633;
const F_1_501321110: i64 = 12299;
const F_1_847759065: i64 = 15137;
const F_1_961570560: i64 = 16069;
const F_2_053119869: i64 = 16819;
const F_2_562915447: i64 = 20995;
const F_3_072711026: i64 = 25172;

/// The samples of a block from its quantized coefficients; the quantizer is in zigzag order.
pub(super) fn samples_of_block(coefficients: &[i16; 64], quantizer: &[u16; 64], precision: u8) -> [u16; 64] {
    // Fraction bits that the first pass leaves: fewer where samples have 12 bits.
    let pass1 = if precision == 8 { 2 } else { 1 };
    let mut work = [0_i64; 64];
    for (&place, &quantizer) in ZIGZAG.iter().zip(quantizer) {
        work[place] = i64::from(coefficients[place]) * i64::from(quantizer);
    }
    for column in 0..8 {
        let input = std::array::from_fn(|row| work[row * 8 + column]);
        for (row, value) in line(input, CONSTANT - pass1).into_iter().enumerate() {
            work[row * 8 + column] = value;
        }
    }
    let middle = 1_i64 << (precision - 1);
    let most = (1_i64 << precision) - 1;
    let mut samples = [0; 64];
    for (input, output) in work.as_chunks::<8>().0.iter().zip(samples.as_chunks_mut::<8>().0) {
        *output = line(*input, CONSTANT + pass1 + 3).map(|value| (value + middle).clamp(0, most) as u16);
    }
    samples
}

/// Eight values, descaled by `shift` bits with rounding.
fn line(input: [i64; 8], shift: u32) -> [i64; 8] {
    // Even part.
    let z1 = (input[2] + input[6]) * F_0_541196100;
    let t2 = z1 - input[6] * F_1_847759065;
    let t3 = z1 + input[2] * F_0_765366865;
    let t0 = (input[0] + input[4]) << CONSTANT;
    let t1 = (input[0] - input[4]) << CONSTANT;
    let even = [t0 + t3, t1 + t2, t1 - t2, t0 - t3];
    // Odd part.
    let [t0, t1, t2, t3] = [input[7], input[5], input[3], input[1]];
    let z5 = (t0 + t2 + t1 + t3) * F_1_175875602;
    let z1 = -(t0 + t3) * F_0_899976223;
    let z2 = -(t1 + t2) * F_2_562915447;
    let z3 = z5 - (t0 + t2) * F_1_961570560;
    let z4 = z5 - (t1 + t3) * F_0_390180644;
    let odd = [
        t3 * F_1_501321110 + z1 + z4,
        t2 * F_3_072711026 + z2 + z3,
        t1 * F_2_053119869 + z2 + z4,
        t0 * F_0_298631336 + z1 + z3,
    ];
    let descale = |value: i64| (value + (1 << (shift - 1))) >> shift;
    std::array::from_fn(|i| if i < 4 { descale(even[i] + odd[i]) } else { descale(even[7 - i] - odd[7 - i]) })
}
