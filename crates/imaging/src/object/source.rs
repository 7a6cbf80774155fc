//! The bytes of an object: read in turn, with looks ahead that change nothing.

use std::io::{self, Read, Seek, SeekFrom};

/// Bytes that are taken from a reader at a time, so that memory grows only with bytes that are there.
const CHUNK: usize = 1 << 20;

/// A reader that knows where it stands and where the bytes end.
///
/// Errors of the reader are errors of the disk; the end of the bytes is none.
#[derive(Debug)]
pub(super) struct Source<R> {
    reader: R,
    position: u64,
    end: u64,
}

impl<R: Read + Seek> Source<R> {
    /// From the first byte of `reader` to its last.
    pub fn new(mut reader: R) -> io::Result<Self> {
        let end = reader.seek(SeekFrom::End(0))?;
        reader.rewind()?;
        Ok(Source { reader, position: 0, end })
    }

    pub fn position(&self) -> u64 {
        self.position
    }

    pub fn end(&self) -> u64 {
        self.end
    }

    pub fn left(&self) -> u64 {
        self.end.saturating_sub(self.position)
    }

    /// Moves to a byte, at most to the end.
    pub fn go_to(&mut self, position: u64) -> io::Result<()> {
        let position = position.min(self.end);
        // Unlike a seek from the start, this keeps what the reader has buffered.
        self.reader.seek_relative(position as i64 - self.position as i64)?;
        self.position = position;
        Ok(())
    }

    pub fn skip(&mut self, bytes: u64) -> io::Result<()> {
        self.go_to(self.position.saturating_add(bytes))
    }

    /// Fills `buffer` as far as there are bytes, and moves behind them; returns how many.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left()).unwrap_or(usize::MAX));
        self.reader.read_exact(&mut buffer[..wanted])?;
        self.position += wanted as u64;
        Ok(wanted)
    }

    /// The next `length` bytes, fewer at the end.
    pub fn take(&mut self, length: u64) -> io::Result<Vec<u8>> {
        let mut length = usize::try_from(length.min(self.left())).unwrap_or(usize::MAX);
        let mut bytes = Vec::with_capacity(length);
        while length > 0 {
            let begin = bytes.len();
            let more = length.min(CHUNK);
            bytes.resize(begin + more, 0);
            self.read(&mut bytes[begin..])?;
            length -= more;
        }
        Ok(bytes)
    }

    /// Fills `buffer` from byte `at` as far as there are bytes, and stays where it is; returns how many.
    pub fn look(&mut self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let back = self.position;
        if at > self.end {
            return Ok(0);
        }
        self.go_to(at)?;
        let known = self.read(buffer)?;
        self.go_to(back)?;
        Ok(known)
    }
}
