//! JPEG (ISO 10918-1) with Huffman coding and one component: baseline and extended sequential DCT and progressive DCT with 8 or 12 bits a
//! sample, and lossless coding (process 14) with 2 to 16.
//!
//! It is our own since the decoders to be had for Rust take no 12-bit DCT, and give wrong samples for lossless coding with restart
//! intervals. What a codestream has and this cannot do is an error, never a guess.

mod dct;
mod huffman;
mod idct;
mod lossless;

use self::dct::Coefficients;
use self::huffman::{Bits, Huffman};

/// Scans of a codestream. Progressive ones of one component have some ten; each may cost as much as decoding the image.
const MAX_SCANS: usize = 100;

/// A frame header (B.2.2).
#[derive(Debug, Clone, Copy)]
pub(super) struct FrameHeader {
    /// The marker, SOF0 to SOF15, which tells the process.
    pub marker: u8,
    pub precision: u8,
    pub rows: u16,
    pub columns: u16,
    pub components: u8,
    component: u8,
    quantizer: u8,
}

/// The frame header. Marker segments are stepped over strictly, so that no decoder can find another frame header than this one first.
///
/// # Errors
/// The fault in the codestream.
pub(super) fn frame_header(data: &[u8]) -> Result<FrameHeader, String> {
    let mut segments = Segments::new(data)?;
    loop {
        let (marker, segment) = segments.next()?;
        match marker {
            0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF | 0xF7 => return FrameHeader::parse(marker, segment),
            // tables, comments and application segments may stand before the frame header; JPEG-LS has its parameters
            0xC4 | 0xCC | 0xDB | 0xDD | 0xE0..=0xEF | 0xF8 | 0xFE => {}
            _ => return Err(format!("marker FF{marker:02X} cannot stand before the frame header")),
        }
    }
}

impl FrameHeader {
    fn parse(marker: u8, segment: &[u8]) -> Result<FrameHeader, String> {
        let &[precision, r0, r1, c0, c1, components, component, _, quantizer, ..] = segment else {
            return Err("the frame header is cut off".into());
        };
        let (rows, columns) = (u16::from_be_bytes([r0, r1]), u16::from_be_bytes([c0, c1]));
        Ok(FrameHeader { marker, precision, rows, columns, components, component, quantizer })
    }
}

/// The marker segments of a codestream (B.1.1).
struct Segments<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Segments<'a> {
    fn new(data: &'a [u8]) -> Result<Self, String> {
        if !data.starts_with(&[0xFF, 0xD8]) {
            return Err("they do not begin with a start of image".into());
        }
        Ok(Segments { data, at: 2 })
    }

    fn next(&mut self) -> Result<(u8, &'a [u8]), String> {
        let cut = || "they end within their headers".to_string();
        if *self.data.get(self.at).ok_or_else(cut)? != 0xFF {
            return Err("there is no marker where one must be".into());
        }
        while self.data.get(self.at) == Some(&0xFF) {
            self.at += 1;
        }
        let marker = *self.data.get(self.at).ok_or_else(cut)?;
        self.at += 1;
        if marker == 0xD9 {
            return Ok((marker, &[]));
        }
        let rest = self.data.get(self.at..).ok_or_else(cut)?;
        let length = usize::from(u16::from_be_bytes(*rest.first_chunk().ok_or_else(cut)?));
        let segment = rest.get(2..length).ok_or_else(cut)?;
        self.at += length;
        Ok((marker, segment))
    }
}

/// Tables and intervals that are in force.
#[derive(Default)]
struct Tables {
    quantizers: [Option<[u16; 64]>; 4],
    /// DC tables, also those of lossless coding.
    dc: [Option<Huffman>; 4],
    ac: [Option<Huffman>; 4],
    /// Units between restart markers (blocks or samples), 0 for none.
    restart: usize,
}

impl Tables {
    /// B.2.4.1. In zigzag order.
    fn quantization(&mut self, mut segment: &[u8]) -> Result<(), String> {
        while let Some((&head, rest)) = segment.split_first() {
            let width = if head >> 4 == 0 { 1 } else { 2 };
            let table = self.quantizers.get_mut(usize::from(head & 15)).ok_or("a quantization table has no place")?;
            let values = rest.get(..64 * width).ok_or("a quantization table is cut off")?;
            let mut quantizers = [0; 64];
            for (quantizer, bytes) in quantizers.iter_mut().zip(values.chunks_exact(width)) {
                *quantizer = bytes.iter().fold(0_u16, |value, &byte| value << 8 | u16::from(byte));
            }
            *table = Some(quantizers);
            segment = &rest[64 * width..];
        }
        Ok(())
    }

    /// B.2.4.2
    fn huffman(&mut self, mut segment: &[u8]) -> Result<(), String> {
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

    fn table(tables: &[Option<Huffman>; 4], index: u8) -> Result<&Huffman, String> {
        tables.get(usize::from(index)).and_then(Option::as_ref).ok_or_else(|| "a Huffman table is missing".into())
    }
}

/// The header of a scan of one component (B.2.3): its tables and parameters, which mean other things in each process.
struct ScanHeader {
    dc: u8,
    ac: u8,
    /// First coefficient, or the predictor.
    start: u8,
    end: u8,
    /// Successive approximation, high and low; low is the point transform of lossless coding.
    high: u8,
    low: u8,
}

impl ScanHeader {
    fn parse(segment: &[u8], frame: &FrameHeader) -> Result<ScanHeader, String> {
        let &[1, component, tables, start, end, approximation] = segment else {
            return Err("a scan is not of one component".into());
        };
        if component != frame.component {
            return Err("a scan is of a component that the frame does not have".into());
        }
        let (high, low) = (approximation >> 4, approximation & 15);
        Ok(ScanHeader { dc: tables >> 4, ac: tables & 15, start, end, high, low })
    }
}

/// Decodes a codestream whose frame header has been checked to declare one component and a size within bounds. Returns the samples row
/// by row.
///
/// # Errors
/// The fault in the codestream.
pub(super) fn decode(data: &[u8]) -> Result<Vec<u16>, String> {
    let mut tables = Tables::default();
    let mut segments = Segments::new(data)?;
    let mut frame: Option<FrameHeader> = None;
    let mut coefficients: Option<Coefficients> = None;
    let mut scans = 0;
    loop {
        let (marker, segment) = match segments.next() {
            Ok(next) => next,
            // The end of image is missing in some archives; nothing of a progressive image says that it is complete.
            Err(_) if coefficients.as_ref().is_some_and(Coefficients::complete) => (0xD9, &[][..]),
            Err(why) => return Err(why),
        };
        match marker {
            0xC4 => tables.huffman(segment)?,
            0xDB => tables.quantization(segment)?,
            0xDD => {
                tables.restart =
                    usize::from(u16::from_be_bytes(*segment.first_chunk().ok_or("the restart interval is cut off")?));
            }
            0xC0..=0xC3 if frame.is_none() => {
                let header = FrameHeader::parse(marker, segment)?;
                let possible = match marker {
                    0xC0 => header.precision == 8,
                    0xC3 => (2..=16).contains(&header.precision),
                    _ => matches!(header.precision, 8 | 12),
                };
                if !possible {
                    return Err(format!("they have {} bits a sample, which their process has not", header.precision));
                }
                frame = Some(header);
            }
            0xDA => {
                let frame = frame.as_ref().ok_or("a scan comes before the frame header")?;
                let scan = ScanHeader::parse(segment, frame)?;
                scans += 1;
                if scans > MAX_SCANS {
                    return Err(format!("they have more than {MAX_SCANS} scans"));
                }
                let mut bits = Bits::new(segments.data.get(segments.at..).unwrap_or_default());
                if frame.marker == 0xC3 {
                    return lossless::scan(frame, &scan, &tables, &mut bits);
                }
                let coefficients = coefficients.get_or_insert_with(|| Coefficients::new(frame));
                coefficients.scan(frame, &scan, &tables, &mut bits)?;
                segments.at += bits.end();
            }
            0xD9 => {
                let (Some(frame), Some(coefficients)) = (&frame, &coefficients) else {
                    return Err("they end before the first scan".into());
                };
                return coefficients.samples(frame, &tables);
            }
            0xE0..=0xEF | 0xFE => {}
            0xDC => return Err("the number of lines is in a segment of its own".into()),
            other => return Err(format!("marker FF{other:02X} has no place in these processes")),
        }
    }
}
