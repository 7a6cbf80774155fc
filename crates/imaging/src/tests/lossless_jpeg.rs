//! JPEG Lossless with everything that encoders vary: predictor, restart interval, point transform, precision.

use super::*;
use crate::{ImagingError, decode_frame};

/// A value that looks like noise, the same in each run.
fn noise(index: usize) -> u32 {
    let x = (index as u32).wrapping_mul(0x9E37_79B9) ^ 0x85EB_CA6B;
    (x ^ x >> 15).wrapping_mul(0x2C1B_3C6D) >> 8
}

#[derive(Clone, Copy)]
struct Coding {
    rows: usize,
    columns: usize,
    precision: u8,
    predictor: u8,
    shift: u8,
    /// Rows between restart markers, 0 for none.
    restart: usize,
}

/// Encodes as ISO 10918-1 annex H says, with a Huffman table in which all 17 codes have 5 bits.
fn encode(samples: &[u16], coding: Coding) -> Vec<u8> {
    let Coding { rows, columns, precision, predictor, shift, restart } = coding;
    let mut bytes = vec![0xFF, 0xD8, 0xFF, 0xC4, 0, 36, 0, 0, 0, 0, 0, 17];
    bytes.extend([0; 11]);
    bytes.extend(0..17);
    if restart > 0 {
        bytes.extend([0xFF, 0xDD, 0, 4]);
        bytes.extend(((restart * columns) as u16).to_be_bytes());
    }
    bytes.extend([0xFF, 0xC3, 0, 11, precision]);
    bytes.extend((rows as u16).to_be_bytes());
    bytes.extend((columns as u16).to_be_bytes());
    bytes.extend([1, 1, 0x11, 0, 0xFF, 0xDA, 0, 8, 1, 1, 0, predictor, 0, shift]);
    let at = |row: usize, column: usize| i32::from(samples[row * columns + column] >> shift);
    let (mut buffer, mut count) = (0_u64, 0);
    for row in 0..rows {
        let first = row == 0 || (restart > 0 && row % restart == 0);
        if first && row > 0 {
            // pad with ones
            let pad = (8 - count % 8) % 8;
            buffer = buffer << pad | ((1 << pad) - 1);
            flush(&mut bytes, &mut buffer, &mut { count + pad });
            count = 0;
            bytes.extend([0xFF, 0xD0 + ((row / restart - 1) % 8) as u8]);
        }
        for column in 0..columns {
            let prediction = match (first, column) {
                (true, 0) => 1 << (precision - shift - 1),
                (true, _) => at(row, column - 1),
                (false, 0) => at(row - 1, 0),
                (false, _) => {
                    let (a, b, c) = (at(row, column - 1), at(row - 1, column), at(row - 1, column - 1));
                    match predictor {
                        1 => a,
                        2 => b,
                        3 => c,
                        4 => a + b - c,
                        5 => a + ((b - c) >> 1),
                        6 => b + ((a - c) >> 1),
                        _ => (a + b) >> 1,
                    }
                }
            };
            let mut difference = (at(row, column) - prediction) & 0xFFFF;
            if difference > 32768 {
                difference -= 65536;
            }
            let size = 32 - difference.unsigned_abs().leading_zeros();
            buffer = buffer << 5 | u64::from(size);
            count += 5;
            if size < 16 {
                let bits = if difference < 0 { difference - 1 } else { difference };
                buffer = buffer << size | (bits as u64 & ((1 << size) - 1));
                count += size;
            }
            flush(&mut bytes, &mut buffer, &mut count);
        }
    }
    let pad = (8 - count % 8) % 8;
    buffer = buffer << pad | ((1 << pad) - 1);
    flush(&mut bytes, &mut buffer, &mut { count + pad });
    bytes.extend([0xFF, 0xD9]);
    bytes
}

/// Writes whole bytes, with a zero byte behind each FF.
fn flush(bytes: &mut Vec<u8>, buffer: &mut u64, count: &mut u32) {
    while *count >= 8 {
        *count -= 8;
        let byte = (*buffer >> *count) as u8;
        bytes.push(byte);
        if byte == 0xFF {
            bytes.push(0);
        }
        *buffer &= (1 << *count) - 1;
    }
}

fn object(coding: Coding, stored: u16, signed: u16, data: &[u8]) -> DicomObject {
    let elements = [
        us(tags::ROWS, coding.rows as u16),
        us(tags::BITS_STORED, stored),
        us(tags::HIGH_BIT, stored - 1),
        us(tags::PIXEL_REPRESENTATION, signed),
        fragments(&[], &[data]),
    ];
    with_syntax(data_set(coding.columns as u16, elements), uids::JPEG_LOSSLESS)
}

#[test]
fn every_predictor_restart_interval_and_precision() {
    for precision in [2, 8, 12, 13, 16] {
        for predictor in 1..=7 {
            for (restart, shift) in [(0, 0), (1, 0), (2, 0), (3, 1), (8, 0)] {
                let coding = Coding { rows: 21, columns: 13, precision, predictor, shift, restart };
                let samples: Vec<u16> =
                    (0..21 * 13).map(|i| (noise(i) & ((1 << precision) - 1)) as u16 >> shift << shift).collect();
                let data = encode(&samples, coding);
                let frame = decode_frame(&object(coding, u16::from(precision), 0, &data), 0).expect("a frame");
                let expected: Vec<i32> = samples.iter().map(|&sample| sample.into()).collect();
                assert_eq!(frame.stored, expected, "{precision} bits, predictor {predictor}, {restart}, {shift}");
            }
        }
    }
}

const CODING: Coding = Coding { rows: 4, columns: 3, precision: 12, predictor: 1, shift: 0, restart: 1 };

#[test]
fn restart_markers_that_are_not_where_they_must_be_are_an_error() {
    let samples: Vec<u16> = (0..12).map(|i| (noise(i) & 0xFFF) as u16).collect();
    let data = encode(&samples, CODING);
    let marker = |number: u8| data.windows(2).position(|pair| pair == [0xFF, 0xD0 + number]).expect("a restart marker");
    let mut swapped = data.clone();
    swapped[marker(0) + 1] = 0xD1;
    let mut missing = data.clone();
    missing.drain(marker(1)..marker(1) + 2);
    let mut no_interval = data.clone();
    let interval = data.windows(2).position(|pair| pair == [0xFF, 0xDD]).expect("a restart interval");
    no_interval.drain(interval..interval + 6);
    let cut = data[..data.len() - 6].to_vec();
    for (what, data) in [("swapped", swapped), ("missing", missing), ("no interval", no_interval), ("cut", cut)] {
        let error = decode_frame(&object(CODING, 12, 0, &data), 0).expect_err(what);
        assert!(matches!(error, ImagingError::Codestream { .. }), "{what}: {error}");
    }
}

/// The sign is the codestream's highest bit, as DCMTK and pydicom read it.
#[test]
fn fewer_bits_than_are_stored_keep_their_sign() {
    let samples: Vec<u16> = [0, 1, 2047, 2048, 4095, 3071, 5, 6, 7, 8, 9, 10].into();
    let data = encode(&samples, CODING);
    let frame = decode_frame(&object(CODING, 16, 1, &data), 0).expect("a frame");
    assert_eq!(frame.stored[..6], [0, 1, 2047, -2048, -1, -1025]);
    let frame = decode_frame(&object(CODING, 16, 0, &data), 0).expect("a frame");
    assert_eq!(frame.stored[..6], [0, 1, 2047, 2048, 4095, 3071]);
}
