//! Sequential and progressive DCT coding (ISO 10918-1 annexes F and G).

use super::idct::{ZIGZAG, samples_of_block};
use super::{Bits, FrameHeader, Huffman, ScanHeader, Tables};

/// The quantized coefficients of an image, gathered from its scans.
pub(super) struct Coefficients {
    across: usize,
    down: usize,
    /// Block by block, in the order of rows and columns within a block.
    blocks: Vec<[i16; 64]>,
    /// Whether there was a scan that makes an image.
    complete: bool,
}

impl Coefficients {
    pub fn new(frame: &FrameHeader) -> Coefficients {
        let (across, down) = (usize::from(frame.columns).div_ceil(8), usize::from(frame.rows).div_ceil(8));
        Coefficients { across, down, blocks: vec![[0; 64]; across * down], complete: false }
    }

    /// Whether a sequential image has its scan. Of a progressive one only the end of image tells.
    pub fn complete(&self) -> bool {
        self.complete
    }

    /// Decodes one scan.
    pub fn scan(
        &mut self,
        frame: &FrameHeader,
        scan: &ScanHeader,
        tables: &Tables,
        bits: &mut Bits<'_>,
    ) -> Result<(), String> {
        let progressive = frame.marker == 0xC2;
        if progressive {
            check_progressive(scan)?;
        } else if self.complete {
            return Err("a sequential process has a second scan of its component".into());
        }
        let (dc, ac) = (Tables::table(&tables.dc, scan.dc), Tables::table(&tables.ac, scan.ac));
        let mut state = State::default();
        for (index, block) in self.blocks.iter_mut().enumerate() {
            if tables.restart > 0 && index > 0 && index % tables.restart == 0 {
                bits.restart(index / tables.restart - 1)?;
                state = State::default();
            }
            match (progressive, scan.start, scan.high) {
                (false, ..) => state.sequential(bits, dc.clone()?, ac.clone()?, block)?,
                (true, 0, 0) => {
                    let size = dc.clone()?.symbol(bits)?;
                    state.predictor = state.predictor.wrapping_add(difference(bits, size)?);
                    block[0] = (state.predictor << scan.low) as i16;
                }
                (true, 0, _) => block[0] |= (bits.take(1)? << scan.low) as i16,
                (true, _, 0) => state.first(bits, ac.clone()?, block, scan)?,
                (true, ..) => state.refine(bits, ac.clone()?, block, scan)?,
            }
        }
        if state.run > 0 {
            return Err("a run of empty blocks is longer than the image".into());
        }
        self.complete |= !progressive;
        Ok(())
    }

    /// The samples, row by row.
    pub fn samples(&self, frame: &FrameHeader, tables: &Tables) -> Result<Vec<u16>, String> {
        let quantizer = tables.quantizers.get(usize::from(frame.quantizer)).and_then(Option::as_ref);
        let quantizer = quantizer.ok_or("the quantization table is missing")?;
        let (rows, columns) = (usize::from(frame.rows), usize::from(frame.columns));
        let mut samples = vec![0; rows * columns];
        for (index, coefficients) in self.blocks.iter().enumerate().take(self.across * self.down) {
            let (top, left) = (index / self.across * 8, index % self.across * 8);
            let block = samples_of_block(coefficients, quantizer, frame.precision);
            for (row, line) in block.chunks_exact(8).enumerate().take(rows - top) {
                let width = (columns - left).min(8);
                let begin = (top + row) * columns + left;
                samples[begin..begin + width].copy_from_slice(&line[..width]);
            }
        }
        Ok(samples)
    }
}

/// G.1.1.1: which parameters a progressive scan may have.
fn check_progressive(scan: &ScanHeader) -> Result<(), String> {
    let band = if scan.start == 0 { scan.end == 0 } else { scan.start <= scan.end && scan.end < 64 };
    let approximation = scan.low < 14 && (scan.high == 0 || scan.high == scan.low + 1);
    if band && approximation { Ok(()) } else { Err("a progressive scan has parameters that cannot be".into()) }
}

fn difference(bits: &mut Bits<'_>, size: u8) -> Result<i32, String> {
    if size > 15 { Err("a coefficient has more than 15 bits".into()) } else { bits.signed(size) }
}

/// The state that is carried from block to block.
#[derive(Default)]
struct State {
    predictor: i32,
    /// Blocks that have no further coefficient in the band (EOBRUN).
    run: u32,
}

impl State {
    /// F.2.2
    fn sequential(
        &mut self,
        bits: &mut Bits<'_>,
        dc: &Huffman,
        ac: &Huffman,
        block: &mut [i16; 64],
    ) -> Result<(), String> {
        let size = dc.symbol(bits)?;
        self.predictor = self.predictor.wrapping_add(difference(bits, size)?);
        block[0] = self.predictor as i16;
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
            block[place] = difference(bits, size)? as i16;
            index += 1;
        }
        Ok(())
    }

    /// G.1.2.2: the first scan of a band.
    fn first(
        &mut self,
        bits: &mut Bits<'_>,
        ac: &Huffman,
        block: &mut [i16; 64],
        scan: &ScanHeader,
    ) -> Result<(), String> {
        if self.run > 0 {
            self.run -= 1;
            return Ok(());
        }
        let mut index = usize::from(scan.start);
        while index <= usize::from(scan.end) {
            let symbol = ac.symbol(bits)?;
            let (run, size) = (symbol >> 4, symbol & 15);
            if size == 0 {
                if run < 15 {
                    self.run = (1 << run) - 1 + bits.take(run.into())? as u32;
                    break;
                }
                index += 16;
                continue;
            }
            index += usize::from(run);
            if index > usize::from(scan.end) {
                return Err("a band has more coefficients than it may".into());
            }
            block[ZIGZAG[index]] = (difference(bits, size)? << scan.low) as i16;
            index += 1;
        }
        Ok(())
    }

    /// G.1.2.3: a scan that adds one bit to the coefficients of a band.
    fn refine(
        &mut self,
        bits: &mut Bits<'_>,
        ac: &Huffman,
        block: &mut [i16; 64],
        scan: &ScanHeader,
    ) -> Result<(), String> {
        let bit = 1_i16 << scan.low;
        let end = usize::from(scan.end);
        let mut index = usize::from(scan.start);
        if self.run == 0 {
            while index <= end {
                let symbol = ac.symbol(bits)?;
                let (mut run, size) = (symbol >> 4, symbol & 15);
                let new = match size {
                    0 if run < 15 => {
                        self.run = (1 << run) + bits.take(run.into())? as u32;
                        break;
                    }
                    0 => 0,
                    1 if bits.take(1)? == 1 => bit,
                    1 => -bit,
                    _ => return Err("a refined coefficient has more than one new bit".into()),
                };
                while index <= end {
                    let coefficient = &mut block[ZIGZAG[index]];
                    if *coefficient != 0 {
                        correct(coefficient, bits, bit)?;
                    } else if run == 0 {
                        *coefficient = new;
                        index += 1;
                        break;
                    } else {
                        run -= 1;
                    }
                    index += 1;
                }
            }
        }
        if self.run > 0 {
            while index <= end {
                let coefficient = &mut block[ZIGZAG[index]];
                if *coefficient != 0 {
                    correct(coefficient, bits, bit)?;
                }
                index += 1;
            }
            self.run -= 1;
        }
        Ok(())
    }
}

/// One more bit of a coefficient that is not 0.
fn correct(coefficient: &mut i16, bits: &mut Bits<'_>, bit: i16) -> Result<(), String> {
    if bits.take(1)? == 1 && *coefficient & bit == 0 {
        *coefficient = coefficient.wrapping_add(if *coefficient > 0 { bit } else { -bit });
    }
    Ok(())
}
