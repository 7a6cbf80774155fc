//! Lossless coding (ISO 10918-1 annex H): each sample predicted from its neighbours, and the difference coded.

use super::{Bits, FrameHeader, ScanHeader, Tables};

/// Decodes the one scan. Returns the samples row by row, shifted back by the point transform.
pub(super) fn scan(
    frame: &FrameHeader,
    scan: &ScanHeader,
    tables: &Tables,
    bits: &mut Bits<'_>,
) -> Result<Vec<u16>, String> {
    let (rows, columns) = (usize::from(frame.rows), usize::from(frame.columns));
    if !(1..=7).contains(&scan.start) {
        return Err(format!("there is no predictor {}", scan.start));
    }
    if scan.low >= frame.precision || scan.end != 0 || scan.high != 0 {
        return Err("the scan header makes no sense".into());
    }
    let table = Tables::table(&tables.dc, scan.dc)?;
    // H.1.1: whole rows, so that prediction can begin anew.
    if !tables.restart.is_multiple_of(columns) {
        return Err(format!("restart intervals of {} samples are no whole rows of {columns}", tables.restart));
    }
    let rows_between = tables.restart / columns;
    let middle = 1_i32 << (frame.precision - scan.low - 1);
    let mut samples = vec![0_u16; rows * columns];
    for row in 0..rows {
        let mut first = row == 0;
        if rows_between > 0 && row > 0 && row % rows_between == 0 {
            bits.restart(row / rows_between - 1)?;
            first = true;
        }
        let (before, rest) = samples.split_at_mut(row * columns);
        let above = &before[row.saturating_sub(1) * columns..];
        let line = &mut rest[..columns];
        for column in 0..columns {
            let prediction = match (first, column) {
                (true, 0) => middle,
                (true, _) => line[column - 1].into(),
                (false, 0) => above[0].into(),
                (false, _) => {
                    let (a, b, c) =
                        (i32::from(line[column - 1]), i32::from(above[column]), i32::from(above[column - 1]));
                    match scan.start {
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
            let size = table.symbol(bits)?;
            let difference = match size {
                0..=15 => bits.signed(size)?,
                16 => 32768,
                _ => return Err("a difference has more than 16 bits".into()),
            };
            // H.1.2.1: modulo 2^16.
            line[column] = (prediction + difference) as u16;
        }
    }
    bits.expect_end()?;
    let limit = 1_u32 << frame.precision;
    if samples.iter().any(|&sample| u32::from(sample) << scan.low >= limit) {
        return Err("a sample has more bits than they declare".into());
    }
    if scan.low > 0 {
        samples.iter_mut().for_each(|sample| *sample <<= scan.low);
    }
    Ok(samples)
}
