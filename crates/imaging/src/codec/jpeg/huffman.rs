//! Huffman tables and entropy-coded bits (ISO 10918-1 annexes C and F.2.2).

/// Bits of a code that one look into the table decodes.
const LOOK: u32 = 9;

/// Codes by length.
#[derive(Clone)]
pub(super) struct Huffman {
    /// For the next [`LOOK`] bits: length of the code that they begin with and its symbol; length 0 if it is longer.
    short: Vec<(u8, u8)>,
    /// For each length from 1: the code behind the last of this length, and where its symbols are less the first code.
    lengths: [(i32, i32); 16],
    symbols: Vec<u8>,
}

impl Huffman {
    /// From the number of codes of each length and their symbols, which may be fewer than said only if none is.
    ///
    /// # Errors
    /// More codes than their lengths allow.
    pub fn new(counts: &[u8; 16], symbols: &[u8]) -> Result<Huffman, String> {
        let (mut code, mut index) = (0_i32, 0_i32);
        let mut lengths = [(0, 0); 16];
        let mut short = vec![(0, 0); 1 << LOOK];
        for (position, &count) in counts.iter().enumerate() {
            let bits = position as u32 + 1;
            let count = i32::from(count);
            lengths[position] = (code + count, index - code);
            if code + count > 1 << bits {
                return Err("a Huffman table has more codes than its lengths allow".into());
            }
            if bits <= LOOK {
                for offset in 0..count {
                    let symbol = *symbols.get((index + offset) as usize).ok_or("a Huffman table is cut off")?;
                    let first = ((code + offset) << (LOOK - bits)) as usize;
                    short[first..first + (1 << (LOOK - bits))].fill((bits as u8, symbol));
                }
            }
            code = (code + count) << 1;
            index += count;
        }
        Ok(Huffman { short, lengths, symbols: symbols.to_vec() })
    }

    /// The next symbol.
    pub fn symbol(&self, bits: &mut Bits<'_>) -> Result<u8, String> {
        let (length, symbol) = self.short[bits.look(LOOK) as usize];
        if length > 0 {
            bits.consume(length.into())?;
            return Ok(symbol);
        }
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

/// Entropy-coded bits of a scan: stuffed zero bytes dropped, stopping at a marker.
pub(super) struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    buffer: u64,
    count: u32,
}

impl<'a> Bits<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Bits { data, at: 0, buffer: 0, count: 0 }
    }

    fn fill(&mut self) {
        while self.count <= 48 {
            let byte = match self.data.get(self.at..) {
                Some([0xFF, 0, ..]) => {
                    self.at += 2;
                    0xFF
                }
                Some(&[byte, ..]) if byte != 0xFF => {
                    self.at += 1;
                    byte
                }
                _ => return,
            };
            self.buffer = self.buffer << 8 | u64::from(byte);
            self.count += 8;
        }
    }

    /// The next bits, at most 16, with zeros behind the last.
    fn look(&mut self, wanted: u32) -> u32 {
        if self.count < wanted {
            self.fill();
        }
        let bits = if self.count >= wanted {
            self.buffer >> (self.count - wanted)
        } else {
            self.buffer << (wanted - self.count)
        };
        bits as u32 & ((1 << wanted) - 1)
    }

    fn consume(&mut self, bits: u32) -> Result<(), String> {
        if self.count < bits {
            return Err("the scan ends early".into());
        }
        self.count -= bits;
        Ok(())
    }

    /// The next bits, at most 16.
    pub fn take(&mut self, wanted: u32) -> Result<i32, String> {
        let bits = self.look(wanted);
        self.consume(wanted)?;
        Ok(bits as i32)
    }

    /// `size` bits as a value of that magnitude (F.2.2.1).
    pub fn signed(&mut self, size: u8) -> Result<i32, String> {
        if size == 0 {
            return Ok(0);
        }
        let value = self.take(size.into())?;
        Ok(if value < 1 << (size - 1) { value - (1 << size) + 1 } else { value })
    }

    /// Steps over the restart marker of this number, modulo 8. The bits before it are padding.
    pub fn restart(&mut self, number: usize) -> Result<(), String> {
        if self.count >= 8 {
            return Err("there are bits before a restart marker that belong to no sample".into());
        }
        self.count = 0;
        while let Some([0xFF, 0xFF, ..]) = self.data.get(self.at..) {
            self.at += 1;
        }
        match self.data.get(self.at..) {
            Some(&[0xFF, marker @ 0xD0..=0xD7, ..]) if usize::from(marker - 0xD0) == number % 8 => {
                self.at += 2;
                Ok(())
            }
            Some([0xFF, 0xD0..=0xD7, ..]) => Err("restart markers are out of order".into()),
            _ => Err("a restart marker is missing".into()),
        }
    }

    /// Checks that no marker follows that goes on with the image: samples would have come from the wrong bits.
    pub fn expect_end(&self) -> Result<(), String> {
        match self.data.get(self.end()..) {
            Some([0xFF, 0xC0..=0xD7 | 0xDA | 0xDC | 0xDD, ..]) => Err("the scan goes on behind the last sample".into()),
            _ => Ok(()),
        }
    }

    /// The byte of the marker at which the scan ends.
    pub fn end(&self) -> usize {
        // Whole bytes that no sample has taken do not matter: padding.
        let mut at = self.at;
        while at + 1 < self.data.len() && (self.data[at] != 0xFF || matches!(self.data[at + 1], 0 | 0xFF)) {
            at += 1;
        }
        at
    }
}
