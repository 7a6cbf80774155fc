//! A data set decoder that believes nothing that the bytes cannot bear out.

use std::cell::RefCell;
use std::io::{self, Read, Seek};
use std::rc::Rc;

use dicom_core::header::{DataElementHeader, SequenceItemHeader};
use dicom_core::{Length, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_encoding::text::SpecificCharacterSet;
use dicom_encoding::transfer_syntax::TransferSyntax;
use dicom_parser::StatefulDecode;
use dicom_parser::stateful::decode::{DynStatefulDecoder, Error as DecodeError};

use super::object::{Encoding, Extent, ReadCause, chain};

/// Nested sequences and items; `dicom-object` builds them by recursion, so the stack needs a bound.
pub(super) const MAX_DEPTH: usize = 64;
/// Elements and items of an object: an enhanced CT of 16,384 frames with 100 elements each stays below.
pub(super) const MAX_ELEMENTS: usize = 4_000_000;
/// A text value longer than this is kept as bytes: split at each backslash it could take 24 times its size in memory.
const MAX_TEXT: u32 = 1 << 20;
/// Item and Item Delimitation Item (PS3.5 section 7.5).
const ITEM: Tag = Tag(0xFFFE, 0xE000);
const ITEM_END: Tag = Tag(0xFFFE, 0xE00D);

/// Remembers what a reader failed of. The parsers above it tell a disk that fails and a file that is wrong by the same error.
#[derive(Debug)]
pub(super) struct Watched<R> {
    reader: R,
    pub failed: Option<io::Error>,
}

impl<R> Watched<R> {
    pub fn new(reader: R) -> Self {
        Watched { reader, failed: None }
    }
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer).map_err(|error| {
            let kind = error.kind();
            if kind != io::ErrorKind::Interrupted {
                self.failed.get_or_insert(error);
            }
            kind.into()
        })
    }
}

#[derive(Debug)]
struct Counted<R> {
    reader: Watched<R>,
    position: u64,
    end: u64,
}

/// The bytes, shared by the decoder of the data set and the implicit VR one for `UN` sequences.
#[derive(Debug)]
pub(super) struct Source<R>(Rc<RefCell<Counted<R>>>);

impl<R> Clone for Source<R> {
    fn clone(&self) -> Self {
        Source(Rc::clone(&self.0))
    }
}

impl<R> Source<R> {
    /// `reader` stands at byte `position` of what ends at byte `end`.
    pub fn new(reader: R, position: u64, end: u64) -> Self {
        Source(Rc::new(RefCell::new(Counted { reader: Watched::new(reader), position, end })))
    }

    fn position(&self) -> u64 {
        self.0.borrow().position
    }

    fn left(&self) -> u64 {
        let counted = self.0.borrow();
        counted.end.saturating_sub(counted.position)
    }

    /// What the reader failed of.
    fn failed(&self) -> Option<io::Error> {
        self.0.borrow_mut().reader.failed.take()
    }

    /// From here on the bytes are at their end.
    fn finish(&self) {
        let mut counted = self.0.borrow_mut();
        counted.end = counted.position;
    }
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut counted = self.0.borrow_mut();
        let left = counted.end.saturating_sub(counted.position);
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = counted.reader.read(&mut buffer[..wanted])?;
        counted.position += read as u64;
        Ok(read)
    }
}

/// A sequence or item that is being read.
#[derive(Debug, Clone, Copy)]
struct Level {
    /// Where it ends, if it says so.
    end: Option<u64>,
    /// Inside a `UN` element of undefined length, whose content is implicit VR little endian (PS3.5 section 6.2.2).
    implicit: bool,
}

/// Stands between `dicom-parser` and the bytes. The parser allocates what a length field says before it reads, and
/// builds sequences by recursion, so lengths and depth are checked here, before the parser sees them.
pub(super) struct BoundedDecoder<R> {
    source: Source<R>,
    decoder: DynStatefulDecoder<Source<R>>,
    /// For the content of `UN` sequences.
    implicit: DynStatefulDecoder<Source<R>>,
    extent: Extent,
    levels: Vec<Level>,
    elements: usize,
    /// Pixel data has been passed; what follows and makes no sense is padding.
    behind_pixels: bool,
    /// Why reading stopped, in our own words; the parser only hears that something is wrong.
    cause: Option<ReadCause>,
}

impl<R: Read> BoundedDecoder<R> {
    pub fn new(source: Source<R>, syntax: &TransferSyntax, extent: Extent) -> Result<Self, ReadCause> {
        let decoder = |syntax: &TransferSyntax| {
            DynStatefulDecoder::new_with(source.clone(), syntax, SpecificCharacterSet::default(), 0)
                .map_err(|error| ReadCause::Malformed(chain(&error)))
        };
        Ok(BoundedDecoder {
            decoder: decoder(syntax)?,
            implicit: decoder(Encoding::ImplicitLittle.syntax()?)?,
            source,
            extent,
            levels: Vec::new(),
            elements: 0,
            behind_pixels: false,
            cause: None,
        })
    }

    /// Why reading stopped, where that is known better than by the parser. What could not be read at all comes first.
    pub fn cause(&mut self) -> Option<ReadCause> {
        self.source.failed().map(ReadCause::Io).or_else(|| self.cause.take())
    }

    fn current(&mut self) -> &mut DynStatefulDecoder<Source<R>> {
        if self.levels.last().is_some_and(|level| level.implicit) { &mut self.implicit } else { &mut self.decoder }
    }

    fn close_ended_levels(&mut self) {
        let position = self.source.position();
        while self.levels.last().is_some_and(|level| level.end.is_some_and(|end| end <= position)) {
            self.levels.pop();
        }
    }

    /// Bytes left in the innermost level that says where it ends, or in the file.
    fn left(&self) -> u64 {
        let position = self.source.position();
        let end = self.levels.iter().rev().find_map(|level| level.end);
        self.source.left().min(end.map_or(u64::MAX, |end| end.saturating_sub(position)))
    }

    fn fail<T>(&mut self, cause: ReadCause) -> Result<T, DecodeError> {
        self.cause.get_or_insert(cause);
        Err(DecodeError::AllocateValueData { len: 0 })
    }

    fn count(&mut self) -> Result<(), DecodeError> {
        self.elements += 1;
        if self.elements > MAX_ELEMENTS { self.fail(ReadCause::TooMany) } else { Ok(()) }
    }

    fn check_length(&mut self, tag: Tag, length: Length) -> Result<(), DecodeError> {
        let left = self.left();
        match length.get() {
            Some(length) if u64::from(length) > left => {
                let position = self.source.position();
                self.fail(ReadCause::Truncated { tag, position, length: length.into(), left })
            }
            _ => Ok(()),
        }
    }

    fn enter(&mut self, length: Length, implicit: bool) -> Result<(), DecodeError> {
        if self.levels.len() >= MAX_DEPTH {
            return self.fail(ReadCause::TooDeep);
        }
        let position = self.source.position();
        let implicit = implicit || self.levels.last().is_some_and(|level| level.implicit);
        let end = length.get().map(|length| position + u64::from(length));
        self.levels.push(Level { end, implicit });
        Ok(())
    }

    /// Ends the data set here: the parser takes an end of file before a tag for the regular end.
    fn finish(&mut self) -> Result<DataElementHeader, DecodeError> {
        self.source.finish();
        self.decoder.decode_header()
    }
}

impl<R: Read> StatefulDecode for BoundedDecoder<R> {
    type Reader = Source<R>;

    fn decode_header(&mut self) -> Result<DataElementHeader, DecodeError> {
        self.close_ended_levels();
        let at_root = self.levels.is_empty();
        if at_root && self.source.left() < 8 {
            return self.finish();
        }
        let header = match self.current().decode_header() {
            Err(_) if at_root && self.behind_pixels => return self.finish(),
            other => other?,
        };
        if at_root {
            let padding = header.tag == Tag(0, 0)
                || (self.behind_pixels
                    && (header.tag <= tags::PIXEL_DATA
                        || header.tag.group() > 0xFFFC
                        || header.len.get().is_some_and(|length| u64::from(length) > self.source.left())));
            if padding || (self.extent == Extent::Header && header.tag.group() >= 0x7FE0) {
                return self.finish();
            }
        }
        self.count()?;
        if header.tag == ITEM_END {
            self.levels.pop();
            return Ok(header);
        }
        self.check_length(header.tag, header.len)?;
        let pixels = header.tag == tags::PIXEL_DATA;
        if at_root && pixels {
            self.behind_pixels = true;
        }
        if header.vr == VR::SQ || header.len.is_undefined() {
            self.enter(header.len, header.vr == VR::UN && !pixels)?;
        }
        Ok(header)
    }

    fn decode_item_header(&mut self) -> Result<SequenceItemHeader, DecodeError> {
        self.close_ended_levels();
        let header = self.current().decode_item_header()?;
        self.count()?;
        match header {
            SequenceItemHeader::Item { len } => {
                self.check_length(ITEM, len)?;
                self.enter(len, false)?;
            }
            SequenceItemHeader::ItemDelimiter | SequenceItemHeader::SequenceDelimiter => {
                self.levels.pop();
            }
        }
        Ok(header)
    }

    fn read_value(&mut self, header: &DataElementHeader) -> Result<PrimitiveValue, DecodeError> {
        self.current().read_value(header)
    }

    fn read_value_preserved(&mut self, header: &DataElementHeader) -> Result<PrimitiveValue, DecodeError> {
        let length = header.len.0;
        let whole = match header.vr() {
            VR::US | VR::SS | VR::OW => length.is_multiple_of(2),
            VR::UL | VR::SL | VR::FL | VR::OF | VR::OL | VR::AT => length.is_multiple_of(4),
            VR::FD | VR::OD | VR::UV | VR::SV | VR::OV => length.is_multiple_of(8),
            VR::OB | VR::UN => true,
            _ => length <= MAX_TEXT,
        };
        // otherwise the parser would read fewer bytes than the element has and take the rest for a header
        if whole { self.current().read_value_preserved(header) } else { self.current().read_value_bytes(header) }
    }

    fn read_value_bytes(&mut self, header: &DataElementHeader) -> Result<PrimitiveValue, DecodeError> {
        self.current().read_value_bytes(header)
    }

    fn read_to_vec(&mut self, length: u32, vec: &mut Vec<u8>) -> Result<(), DecodeError> {
        self.check_length(ITEM, Length(length))?;
        self.current().read_to_vec(length, vec)
    }

    fn read_u32_to_vec(&mut self, length: u32, vec: &mut Vec<u32>) -> Result<(), DecodeError> {
        self.check_length(ITEM, Length(length))?;
        self.current().read_u32_to_vec(length, vec)?;
        self.current().skip_bytes(length % 4)
    }

    fn read_to<W: io::Write>(&mut self, length: u32, out: W) -> Result<(), DecodeError> {
        self.check_length(ITEM, Length(length))?;
        self.current().read_to(length, out)
    }

    fn skip_bytes(&mut self, length: u32) -> Result<(), DecodeError> {
        self.check_length(ITEM, Length(length))?;
        self.current().skip_bytes(length)
    }

    fn seek(&mut self, _position: u64) -> Result<(), DecodeError>
    where
        Self::Reader: Seek,
    {
        self.fail(ReadCause::Malformed("the data set is read from begin to end".into()))
    }

    fn position(&self) -> u64 {
        self.source.position()
    }
}
