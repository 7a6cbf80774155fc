//! JPEG Extended (Process 4): sequential DCT with Huffman coding and 12 bits a sample (ISO 10918-1, SOF1), one
//! component. The decoder behind `dicom-transfer-syntax-registry` stops at 8 bits a sample for DCT processes, and
//! transfer syntax 1.2.840.10008.1.2.4.51 is for these.

use std::f32::consts::PI;

/// Sample precision.
const BITS: u32 = 12;

/// Zig-zag order (figure A.6): the place in the block of each coefficient in turn.
const ZIGZAG: [usize; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63,
];

/// Decodes a codestream whose frame header has been checked to declare `rows` × `columns` samples of one component with
/// 12 bits. Returns the samples row by row.
///
/// # Errors
/// What is wrong with the codestream.
pub(super) fn decode(data: &[u8], rows: usize, columns: usize) -> Result<Vec<u16>, String> {
    let mut decoder = Decoder::default();
    let mut at = 2;
    loop {
        while data.get(at) == Some(&0xFF) {
            at += 1;
        }
        let marker = *data.get(at).ok_or("they end before the scan")?;
        let length = data.get(at + 1..at + 3).map(|l| usize::from(u16::from_be_bytes([l[0], l[1]])));
        let segment =
            length.and_then(|length| data.get(at + 3..at + 1 + length)).ok_or("a marker segment is cut off")?;
        at += 3 + segment.len();
        match marker {
            0xC4 => decoder.huffman_tables(segment)?,
            0xDB => decoder.quantization_tables(segment)?,
            0xDD => {
                decoder.restart =
                    usize::from(u16::from_be_bytes(*segment.first_chunk().ok_or("the restart interval is cut off")?))
            }
            0xC1 => decoder.quantization = usize::from(*segment.get(8).ok_or("the frame header is cut off")?),
            0xDA => return decoder.scan(segment, data.get(at..).unwrap_or_default(), rows, columns),
            0xE0..=0xEF | 0xFE => {}
            other => return Err(format!("marker FF{other:02X} has no place in a sequential process")),
        }
        if data.get(at) != Some(&0xFF) {
            return Err("there is no marker where one must be".into());
        }
    }
}

#[derive(Default)]
struct Decoder {
    quantizers: [Option<[f32; 64]>; 4],
    dc: [Option<Huffman>; 4],
    ac: [Option<Huffman>; 4],
    /// Which quantization table the component uses.
    quantization: usize,
    /// Blocks between restart markers, 0 for none.
    restart: usize,
}

impl Decoder {
    /// B.2.4.1
    fn quantization_tables(&mut self, mut segment: &[u8]) -> Result<(), String> {
        while let Some((&head, rest)) = segment.split_first() {
            let width = if head >> 4 == 0 { 1 } else { 2 };
            let table = self.quantizers.get_mut(usize::from(head & 15)).ok_or("a quantization table has no place")?;
            let values = rest.get(..64 * width).ok_or("a quantization table is cut off")?;
            let mut quantizers = [0.0; 64];
            for (quantizer, bytes) in quantizers.iter_mut().zip(values.chunks_exact(width)) {
                *quantizer = bytes.iter().fold(0.0, |value, &byte| value * 256.0 + f32::from(byte));
            }
            *table = Some(quantizers);
            segment = &rest[64 * width..];
        }
        Ok(())
    }

    /// B.2.4.2
    fn huffman_tables(&mut self, mut segment: &[u8]) -> Result<(), String> {
        while let Some((&head, rest)) = segment.split_first() {
            let counts: &[u8; 16] = rest.first_chunk().ok_or("a Huffman table is cut off")?;
            let codes: usize = counts.iter().map(|&count| usize::from(count)).sum();
            let symbols = rest.get(16..16 + codes).ok_or("a Huffman table is cut off")?;
            let tables = if head >> 4 == 0 { &mut self.dc } else { &mut self.ac };
            let table = tables.get_mut(usize::from(head & 15)).ok_or("a Huffman table has no place")?;
            *table = Some(Huffman::new(counts, symbols)?);
            segment = &rest[16 + codes..];
        }
        Ok(())
    }

    fn scan(&self, header: &[u8], data: &[u8], rows: usize, columns: usize) -> Result<Vec<u16>, String> {
        let &[1, _, tables, ..] = header else { return Err("the scan is not of one component".into()) };
        let dc = self.dc.get(usize::from(tables >> 4)).and_then(Option::as_ref).ok_or("the DC table is missing")?;
        let ac = self.ac.get(usize::from(tables & 15)).and_then(Option::as_ref).ok_or("the AC table is missing")?;
        let quantizers = self
            .quantizers
            .get(self.quantization)
            .and_then(Option::as_ref)
            .ok_or("the quantization table is missing")?;
        let transform = Idct::new();
        let mut bits = Bits { data, at: 0, buffer: 0, count: 0 };
        let (across, down) = (columns.div_ceil(8), rows.div_ceil(8));
        let mut samples = vec![0; rows * columns];
        let mut predictor = 0;
        for index in 0..across * down {
            if self.restart > 0 && index > 0 && index % self.restart == 0 {
                bits.restart()?;
                predictor = 0;
            }
            let block = transform.apply(&block(&mut bits, dc, ac, quantizers, &mut predictor)?);
            let (top, left) = (index / across * 8, index % across * 8);
            for (row, line) in block.chunks_exact(8).enumerate().take(rows - top) {
                let width = (columns - left).min(8);
                let begin = (top + row) * columns + left;
                for (sample, value) in samples[begin..begin + width].iter_mut().zip(line) {
                    let level = value + (1 << (BITS - 1)) as f32;
                    *sample = level.round().clamp(0.0, ((1 << BITS) - 1) as f32) as u16;
                }
            }
        }
        Ok(samples)
    }
}

/// F.2.2: the coefficients of a block, dequantized.
fn block(
    bits: &mut Bits<'_>,
    dc: &Huffman,
    ac: &Huffman,
    quantizers: &[f32; 64],
    predictor: &mut i32,
) -> Result<[f32; 64], String> {
    let mut coefficients = [0.0; 64];
    let size = dc.symbol(bits)?;
    *predictor = predictor.wrapping_add(bits.signed(size)?);
    coefficients[0] = *predictor as f32 * quantizers[0];
    let mut index = 1;
    while index < 64 {
        let symbol = ac.symbol(bits)?;
        let (run, size) = (usize::from(symbol >> 4), symbol & 15);
        if size == 0 {
            if run < 15 {
                break;
            }
            index += 16;
            continue;
        }
        index += run;
        let place = *ZIGZAG.get(index).ok_or("a block has more than 64 coefficients")?;
        coefficients[place] = bits.signed(size)? as f32 * quantizers[index];
        index += 1;
    }
    Ok(coefficients)
}

/// Codes by length (annex F.2.2.3).
struct Huffman {
    /// For each length from 1: the code behind the last of this length, and where its symbols are less the first code.
    lengths: [(i32, i32); 16],
    symbols: Vec<u8>,
}

impl Huffman {
    fn new(counts: &[u8; 16], symbols: &[u8]) -> Result<Huffman, String> {
        let (mut code, mut index) = (0, 0);
        let mut lengths = [(0, 0); 16];
        for (bits, &count) in counts.iter().enumerate() {
            let count = i32::from(count);
            lengths[bits] = (code + count, index - code);
            code += count;
            index += count;
            if code > 1 << (bits + 1) {
                return Err("a Huffman table has more codes than its lengths allow".into());
            }
            code <<= 1;
        }
        Ok(Huffman { lengths, symbols: symbols.to_vec() })
    }

    fn symbol(&self, bits: &mut Bits<'_>) -> Result<u8, String> {
        let mut code = 0;
        for (behind, offset) in self.lengths {
            code = code << 1 | bits.take(1)?;
            if code < behind {
                let symbol = usize::try_from(code + offset).ok().and_then(|index| self.symbols.get(index));
                return symbol.copied().ok_or_else(|| "there is a code without symbol".into());
            }
        }
        Err("there is a code that no table has".into())
    }
}

/// Entropy-coded bits: stuffed zero bytes dropped, stopping at a marker.
struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    buffer: u32,
    count: u32,
}

impl Bits<'_> {
    fn take(&mut self, wanted: u32) -> Result<i32, String> {
        while self.count < wanted {
            let byte = match self.data.get(self.at..) {
                Some([0xFF, 0, ..]) => {
                    self.at += 2;
                    0xFF
                }
                Some(&[byte, ..]) if byte != 0xFF => {
                    self.at += 1;
                    byte
                }
                _ => return Err("the scan ends early".into()),
            };
            self.buffer = self.buffer << 8 | u32::from(byte);
            self.count += 8;
        }
        self.count -= wanted;
        Ok((self.buffer >> self.count) as i32 & ((1 << wanted) - 1))
    }

    /// F.2.2.1: `size` bits as a value of that magnitude.
    fn signed(&mut self, size: u8) -> Result<i32, String> {
        if size == 0 {
            return Ok(0);
        }
        if size > 15 {
            return Err("a coefficient has more than 15 bits".into());
        }
        let value = self.take(size.into())?;
        Ok(if value < 1 << (size - 1) { value - (1 << size) + 1 } else { value })
    }

    /// Steps over a restart marker.
    fn restart(&mut self) -> Result<(), String> {
        self.count = 0;
        match self.data.get(self.at..) {
            Some([0xFF, 0xD0..=0xD7, ..]) => {
                self.at += 2;
                Ok(())
            }
            _ => Err("a restart marker is missing".into()),
        }
    }
}

/// The inverse DCT (A.3.3), separably.
struct Idct {
    /// `C(u) / 2 · cos((2x + 1) u π / 16)` at `x * 8 + u`.
    basis: [f32; 64],
}

impl Idct {
    fn new() -> Idct {
        let basis = std::array::from_fn(|i| {
            let (x, u) = ((i / 8) as f32, (i % 8) as f32);
            let scale = if i % 8 == 0 { std::f32::consts::FRAC_1_SQRT_2 } else { 1.0 };
            scale / 2.0 * ((2.0 * x + 1.0) * u * PI / 16.0).cos()
        });
        Idct { basis }
    }

    fn apply(&self, coefficients: &[f32; 64]) -> [f32; 64] {
        let mut rows = [0.0; 64];
        for (v, line) in coefficients.chunks_exact(8).enumerate() {
            for x in 0..8 {
                rows[v * 8 + x] = (0..8).map(|u| line[u] * self.basis[x * 8 + u]).sum();
            }
        }
        std::array::from_fn(|i| (0..8).map(|v| rows[v * 8 + i % 8] * self.basis[i / 8 * 8 + v]).sum())
    }
}
